//! The whole source over the real images of `tests/images`.

mod change;
mod hostile;
mod temp;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;

use temp::Temp;

use super::*;
use crate::image::Config;
use crate::layer::tar::tests::{archive, header, padded};
use crate::limit;

const IMAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/images");

fn source(path: &str) -> Folder {
    Folder::open(&[path], Filter::default()).unwrap()
}

fn list(source: &Folder) -> (Vec<Listed>, Listing) {
    let mut all = Vec::new();
    let listing = source
        .list(&mut |listed| {
            all.push(listed);
            Ok(())
        })
        .unwrap();
    (all, listing)
}

fn names(source: &Folder) -> Vec<String> {
    list(source)
        .0
        .iter()
        .map(|listed| format!("{}:{}", listed.repository, listed.tag))
        .collect()
}

fn read(source: &Folder, place: &Place, blob: &Descriptor) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source
        .blob(place, blob)?
        .read_to_end(&mut bytes)
        .map_err(|err| error::from_io(error::Kind::Retry, err))?;
    Ok(bytes)
}

/// The place of a tag as the source lists it.
fn place(source: &Folder, repository: &str, tag: &str) -> Place {
    let (repository, tag) = (repository.parse().unwrap(), tag.parse().unwrap());
    let digest = source.resolve(&repository, &tag).unwrap();
    Place {
        repository,
        tag: Some(tag),
        digest,
    }
}

/// Reads and checks everything behind a place; returns how many layers it saw.
fn check_all(source: &Folder, place: &Place) -> usize {
    let raw = source.manifest(place).unwrap();
    assert_eq!(Digest::of(&raw.bytes), raw.digest);
    match raw.parse().unwrap() {
        Manifest::Index(index) => index
            .manifests
            .iter()
            .map(|entry| {
                let digest = entry.digest.clone();
                let repository = place.repository.clone();
                check_all(
                    source,
                    &Place {
                        repository,
                        tag: None,
                        digest,
                    },
                )
            })
            .sum(),
        Manifest::Image(image) => {
            assert_eq!(image.not_an_image(), None);
            let config = read(source, place, &image.config).unwrap();
            assert_eq!(Digest::of(&config), image.config.digest);
            let config = Config::parse(&config).unwrap();
            assert_eq!(config.diff_ids.len(), image.layers.len());
            for (layer, diff_id) in image.layers.iter().zip(&config.diff_ids) {
                let bytes = read(source, place, layer).unwrap();
                assert_eq!(bytes.len() as u64, layer.size);
                assert_eq!(Digest::of(&bytes), layer.digest);
                let tar = crate::layer::decompressed(&bytes[..]).unwrap();
                let tar = limit::read_all(tar, 64 << 20, "tar").unwrap();
                assert_eq!(Digest::of(&tar), *diff_id);
            }
            image.layers.len()
        }
    }
}

fn expected() -> BTreeSet<String> {
    let text = fs::read_to_string(Path::new(IMAGES).join("expected.tsv")).unwrap();
    text.lines()
        .skip(1)
        .map(|line| line.split('\t').next().unwrap().to_owned())
        .collect()
}

#[test]
fn real_images_are_listed_and_every_byte_of_them_is_right() {
    let source = source(IMAGES);
    let (listed, listing) = list(&source);
    assert_eq!(
        listing,
        Listing {
            is_complete: true,
            ..Listing::default()
        }
    );
    let found: BTreeSet<String> = listed
        .iter()
        .map(|listed| format!("{}:{}", listed.repository, listed.tag))
        .collect();
    assert_eq!(found, expected());
    assert_eq!(found.len(), listed.len());
    let mut n_layers = 0;
    for Listed {
        repository,
        tag,
        digest,
    } in listed
    {
        assert_eq!(Some(source.resolve(&repository, &tag).unwrap()), digest);
        n_layers += check_all(&source, &place(&source, repository.as_str(), tag.as_str()));
        let digest = digest.unwrap();
        check_all(
            &source,
            &Place {
                repository,
                tag: None,
                digest,
            },
        );
    }
    assert_eq!(n_layers, 1 + 2 + 3 + 4 + 2 + 3 + 3 + 2);
}

#[test]
fn digests_do_not_depend_on_how_an_archive_is_packed() {
    let temp = Temp::new();
    let plain = fs::read(Path::new(IMAGES).join("node.tar")).unwrap();
    temp.write("1.tar", &plain);
    temp.write("2.tgz", &gzip(&plain));
    temp.write("3.tar.zst", &zstd::encode_all(&plain[..], 3).unwrap());
    let digests = |name: &str| {
        let source = source(temp.0.join(name).to_str().unwrap());
        let all = list(&source).0;
        let place = place(&source, all[0].repository.as_str(), all[0].tag.as_str());
        assert_eq!(check_all(&source, &place), 2);
        all
    };
    assert_eq!(digests("1.tar"), digests("2.tgz"));
    assert_eq!(digests("1.tar"), digests("3.tar.zst"));
    // The same images under the same names are no conflict.
    let (all, listing) = list(&temp.source());
    assert_eq!((all.len(), listing.n_left_out), (2, 0));
}

#[test]
fn one_layout_or_archive_may_be_the_path() {
    let source = source(&format!("{IMAGES}/debian"));
    assert_eq!(
        names(&source),
        [
            "debian:python",
            "debian:python-next",
            "debian:slim",
            "debian:tools"
        ]
    );
    let image = format!("{IMAGES}/go.tar.zst");
    let folder = Folder::open(&[&image, IMAGES, &image], Filter::default()).unwrap();
    assert_eq!(names(&folder).len(), expected().len());
    assert_eq!(folder.name(), format!("dir {image},{IMAGES}"));
}

#[test]
fn paths_that_cannot_be_opened_say_why() {
    let err = Folder::open(&["/nonexistent/x"], Filter::default())
        .err()
        .unwrap();
    assert_eq!(
        err.to_string(),
        "key `path`: `/nonexistent/x`: No such file or directory (os error 2)"
    );
    assert_eq!(
        err.hint_text(),
        Some("expected a folder of images, or one archive")
    );
    let temp = Temp::new();
    let source = temp.source();
    fs::remove_dir(&temp.0).unwrap();
    let err = source.list(&mut |_| Ok(())).unwrap_err();
    assert_eq!(err.kind(), error::Kind::Tell, "{err}");
}

#[test]
fn names_below_folders_and_filters() {
    let temp = Temp::new();
    temp.copy("debian", "Team A/Base");
    temp.copy("go.tar.zst", "deep/1/2/3/4/5/6/go.tar.zst");
    temp.copy("go.tar.zst", "deep/1/2/3/4/5/6/7/8/too-deep.tar.zst");
    temp.copy("go.tar.zst", ".hidden/go.tar.zst");
    temp.write("README.md", b"text");
    let source = temp.source();
    assert_eq!(
        names(&source),
        [
            "deep/1/2/3/4/5/6/go:1.26",
            "team-a/base:python",
            "team-a/base:python-next",
            "team-a/base:slim",
            "team-a/base:tools"
        ]
    );
    let (_, listing) = list(&source);
    assert_eq!(
        temp.shorten(&listing.left_out),
        ["`deep/1/2/3/4/5/6/7/8`: more than 8 folders deep, which is the limit"]
    );
    let filter = Filter::new(&["team-a/*"], &[], &["^python".to_owned()]).unwrap();
    let source = Folder::open(&[temp.0.to_str().unwrap()], filter).unwrap();
    assert_eq!(
        names(&source),
        ["team-a/base:python", "team-a/base:python-next"]
    );
}

#[test]
fn docker_save_since_25_has_the_digests_of_its_index_and_the_names_of_its_list() {
    let temp = Temp::new();
    let layout = Path::new(IMAGES).join("debian");
    let index = fs::read_to_string(layout.join("index.json")).unwrap();
    let name = r#"io.containerd.image.name":"docker.io/library/base:1","org.opencontainers.image.ref.name":"1""#;
    let index = index.replacen(r#"org.opencontainers.image.ref.name":"slim""#, name, 1);
    let mut files = vec![
        ("oci-layout".to_owned(), b"{}".to_vec()),
        ("index.json".to_owned(), index.into_bytes()),
        (
            "manifest.json".to_owned(),
            br#"[{"Config":"blobs/sha256/x","RepoTags":["base:1"],"Layers":[]}]"#.to_vec(),
        ),
    ];
    for entry in fs::read_dir(layout.join("blobs/sha256")).unwrap() {
        let entry = entry.unwrap();
        let name = format!("blobs/sha256/{}", entry.file_name().to_str().unwrap());
        files.push((name, fs::read(entry.path()).unwrap()));
    }
    let files: Vec<(&str, &[u8])> = files
        .iter()
        .map(|(name, bytes)| (name.as_str(), &bytes[..]))
        .collect();
    temp.write("saved.tar", &archive(&files));
    let saved = temp.source();
    let (all, _) = list(&saved);
    let (original, _) = list(&source(layout.to_str().unwrap()));
    assert_eq!(
        names(&saved),
        ["base:1", "saved:python", "saved:python-next", "saved:tools"]
    );
    let digests = |all: &[Listed]| -> BTreeSet<Digest> {
        all.iter()
            .filter_map(|listed| listed.digest.clone())
            .collect()
    };
    assert_eq!(digests(&all), digests(&original));
    for Listed {
        repository, tag, ..
    } in all
    {
        check_all(&saved, &place(&saved, repository.as_str(), tag.as_str()));
    }
}

#[test]
fn a_folder_of_skopeo_is_an_image() {
    let temp = Temp::new();
    let config = br#"{"os":"linux","architecture":"amd64","rootfs":{"diff_ids":[]}}"#;
    let digest = Digest::of(config);
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{digest}","size":{}}},"layers":[]}}"#,
        config.len()
    );
    temp.write("team/app/version", b"Directory Transport Version: 1.1\n");
    temp.write("team/app/manifest.json", manifest.as_bytes());
    temp.write(&format!("team/app/{}", digest.hex()), config);
    // Other folders with such names are none.
    temp.write("web/version", b"1.0");
    temp.write("web/manifest.json", b"{}");
    let source = temp.source();
    let (all, listing) = list(&source);
    assert_eq!((all.len(), listing.n_left_out), (1, 0));
    assert_eq!(
        format!("{}:{}", all[0].repository, all[0].tag),
        "team/app:latest"
    );
    let place = place(&source, all[0].repository.as_str(), all[0].tag.as_str());
    assert_eq!(check_all(&source, &place), 0);
}

#[test]
fn the_options_are_checked() {
    let check = |text: &str| {
        let crate::options::Parsed::Pairs(pairs) = crate::options::parse(text).unwrap() else {
            panic!("pairs")
        };
        crate::options::check(&pairs, ROW.options, "type=dir")
    };
    let values = check("type=dir,\"path=a,b\",path=c,include=x").unwrap();
    assert_eq!(values.many("path"), ["a", "b", "c"]);
    assert_eq!(
        check("type=dir").unwrap_err().to_string(),
        "key `path` is missing: `type=dir` needs `path=FOLDER`"
    );
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// `bytes` with the first `from` replaced by `to`, of the same length.
fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let at = bytes
        .windows(from.len())
        .position(|window| window == from)
        .unwrap();
    bytes[at..at + to.len()].copy_from_slice(to);
    bytes
}
