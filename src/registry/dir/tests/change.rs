//! What happens when files change, go, or contradict each other, between two looks and between two processes.

use super::*;

#[test]
fn a_name_with_two_digests_keeps_the_first() {
    let temp = Temp::new();
    temp.copy("debian", "a");
    temp.copy("node.tar", "b.tar");
    let other = fs::read(Path::new(IMAGES).join("node.tar")).unwrap();
    let swapped = replaced(&other, b"crowsnest/node:1.1", b"crowsnest/node:1.0");
    temp.write(
        "c.tar",
        &replaced(
            &swapped,
            b"crowsnest/node:1.0\"],\"L",
            b"crowsnest/node:1.1\"],\"L",
        ),
    );
    let (_, listing) = list(&temp.source());
    let left_out = temp.shorten(&listing.left_out);
    assert!(
        left_out[0].starts_with("`c.tar`: `crowsnest/node:1."),
        "{left_out:?}"
    );
}

#[test]
fn a_file_that_changes_or_goes_is_an_error_that_says_so() {
    let temp = Temp::new();
    temp.copy("go.tar.zst", "go.tar.zst");
    temp.copy("debian", "debian");
    let source = temp.source();
    names(&source);
    let go = place(&source, "go", "1.26");
    let Manifest::Image(image) = source.manifest(&go).unwrap().parse().unwrap() else {
        panic!("an image")
    };
    temp.write("go.tar.zst", b"other");
    let err = source.blob(&go, &image.layers[0]).err().unwrap();
    assert_eq!(err.kind(), error::Kind::Retry);
    assert!(
        err.to_string()
            .ends_with("/go.tar.zst` changed since it was listed"),
        "{err}"
    );
    // It had images, and what became of them cannot be seen.
    let (_, listing) = list(&source);
    assert!(!listing.is_complete);
    fs::remove_file(temp.0.join("go.tar.zst")).unwrap();
    assert!(list(&source).1.is_complete);

    let slim = place(&source, "debian", "slim");
    let Manifest::Image(image) = source.manifest(&slim).unwrap().parse().unwrap() else {
        panic!("an image")
    };
    let blob = format!("debian/blobs/sha256/{}", image.layers[0].digest.hex());
    temp.write(&blob, b"short");
    let err = source.blob(&slim, &image.layers[0]).err().unwrap();
    assert_eq!(err.kind(), error::Kind::Retry);
    fs::remove_file(temp.0.join(&blob)).unwrap();
    let err = source.blob(&slim, &image.layers[0]).err().unwrap();
    assert_eq!(err.kind(), error::Kind::Skip, "{err}");
}

#[test]
fn facts_answer_a_listing_without_opening_archives() {
    let temp = Temp::new();
    temp.copy("go.tar.zst", "go.tar.zst");
    temp.copy("python.tar.gz", "python.tar.gz");
    temp.write("text.tar", b"text");
    let first = temp.source();
    let (listed, listing) = list(&first);
    let facts = first.facts();
    assert_eq!(facts.len(), 3);
    // Contents that would be refused, with the same size and time: only the facts can know the images.
    for name in ["go.tar.zst", "python.tar.gz"] {
        let path = temp.0.join(name);
        let metadata = fs::metadata(&path).unwrap();
        fs::write(&path, vec![0; usize::try_from(metadata.len()).unwrap()]).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(metadata.modified().unwrap()).unwrap();
    }
    let second = temp.source();
    second.remember(&facts);
    assert_eq!(list(&second), (listed, listing));
    assert_eq!(second.facts(), facts);
    temp.copy("go.tar.zst", "go.tar.zst");
    fs::remove_file(temp.0.join("python.tar.gz")).unwrap();
    assert_eq!(names(&second), ["go:1.26"]);
    assert_eq!(second.facts().len(), 2);
}
