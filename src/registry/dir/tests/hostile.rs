//! Files that are no images, and files that were made to do harm.

use super::*;

#[test]
fn what_is_no_image_is_left_out_with_its_reason() {
    let temp = Temp::new();
    temp.write("a.tar.xz", &[0xfd, b'7', b'z', b'X', b'Z', 0, 0, 0]);
    temp.write("b.tar", b"this is text");
    temp.write("c.tgz", &gzip(&archive(&[("etc/passwd", b"x")])));
    temp.write("d.tar", &archive(&[("manifest.json", b"{")]));
    temp.write("notes.txt", b"ignored");
    let oversized = header(b"index.json", b'0', 1 << 30, b"");
    let endless = [&header(b"oci-layout", b'0', 0, b"")[..], &oversized].concat();
    temp.write("e.tar.gz", &gzip(&endless));
    let manifest = br#"[{"Config":"c.json","RepoTags":["app:1"],"Layers":["gone/layer.tar"]}]"#;
    temp.write("f.tar", &archive(&[("manifest.json", manifest), ("c.json", b"{\"rootfs\":{\"diff_ids\":[\"sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"]}}")]));
    let source = temp.source();
    let (all, listing) = list(&source);
    assert_eq!((all, listing.is_complete), (vec![], true));
    assert_eq!(
        temp.shorten(&listing.left_out),
        [
            "`a.tar.xz`: unsupported compression: xz",
            "`b.tar`: tar: ends inside a header",
            "`c.tgz`: holds no image: neither `index.json` with `oci-layout` nor `manifest.json`",
            "`d.tar`: `manifest.json` is not of docker save: invalid type: map, expected a sequence at line 1 column 0",
            "`e.tar.gz`: tar: ends inside a file",
            "`f.tar`: image `app:1`: `manifest.json` names `gone/layer.tar`, which the archive does not have",
        ]
    );
}

#[test]
fn documents_without_end_stop_at_their_limit() {
    let temp = Temp::new();
    // Sparse files: a gigabyte that takes no room.
    let index = temp.0.join("layout/index.json");
    temp.write("layout/oci-layout", b"{}");
    fs::File::create(index).unwrap().set_len(1 << 30).unwrap();
    let mut plain = header(b"oci-layout", b'0', 0, b"");
    plain.extend(header(b"index.json", b'0', 1 << 30, b""));
    let path = temp.0.join("plain.tar");
    let mut file = fs::File::create(path).unwrap();
    file.write_all(&plain).unwrap();
    file.set_len((1 << 30) + 4096).unwrap();
    let (all, listing) = list(&temp.source());
    assert_eq!(all, []);
    assert_eq!(
        temp.shorten(&listing.left_out),
        [
            "`layout`: reading `layout/index.json`: `index.json` is larger than the limit of 4194304 bytes",
            "`plain.tar`: `index.json` is larger than the limit of 4194304 bytes",
        ]
    );
}

#[test]
fn a_packed_archive_without_end_stops_at_its_limit() {
    let temp = Temp::new();
    let mut bytes = gzip(&header(b"layer.tar", b'0', 1 << 32, b""));
    bytes.extend(gzip(&vec![0; 1 << 20]).repeat(1025));
    temp.write("bomb.tar.gz", &bytes);
    let (_, listing) = list(&temp.source());
    assert_eq!(
        temp.shorten(&listing.left_out),
        ["`bomb.tar.gz`: the archive, unpacked, is larger than the limit of 1073741824 bytes"]
    );
}

#[test]
fn names_of_archives_are_never_paths() {
    let temp = Temp::new();
    let secret = b"secret";
    temp.write("secret", secret);
    let digest = Digest::of(secret);
    let index = format!(
        r#"{{"manifests":[{{"digest":"{digest}","size":6,"annotations":{{"org.opencontainers.image.ref.name":"../../up"}}}}]}}"#
    );
    let mut bytes = header(b"oci-layout", b'0', 0, b"");
    bytes.extend(header(b"index.json", b'0', index.len() as u64, b""));
    bytes.extend(padded(index.as_bytes()));
    let name = format!("blobs/sha256/{}", digest.hex());
    bytes.extend(header(b"blobs/sha256/../../x", b'0', 0, b""));
    bytes.extend(header(name.as_bytes(), b'2', 0, b"../../../secret"));
    temp.write("x.tar", &bytes);
    temp.write("layout/oci-layout", b"{}");
    temp.write("layout/index.json", index.as_bytes());
    let outside = Temp::new();
    outside.write("secret", secret);
    fs::create_dir_all(temp.0.join("layout/blobs/sha256")).unwrap();
    let link = temp.0.join("layout").join(&name);
    std::os::unix::fs::symlink(outside.0.join("secret"), &link).unwrap();

    let source = temp.source();
    assert_eq!(names(&source), ["layout:latest", "x:latest"]);
    let place = |repository: &str| place(&source, repository, "latest");
    let text = |err: Error| temp.shorten(&[err.to_string()]).remove(0);
    assert_eq!(
        text(source.manifest(&place("x")).unwrap_err()),
        format!("`{digest}` of `x` is in no file of dir FOLDER")
    );
    let err = source.manifest(&place("layout")).unwrap_err();
    assert_eq!(err.kind(), error::Kind::Skip);
    assert_eq!(text(err), format!("`layout/{name}` leads out of `FOLDER`"));
    // A link that stays inside is fine.
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink("../../../secret", &link).unwrap();
    assert_eq!(source.manifest(&place("layout")).unwrap().bytes, secret);
}

#[test]
fn links_of_the_file_system_do_not_go_round_in_circles() {
    let temp = Temp::new();
    temp.copy("go.tar.zst", "a/go.tar.zst");
    let link =
        |target: &str, name: &str| std::os::unix::fs::symlink(target, temp.0.join(name)).unwrap();
    fs::create_dir(temp.0.join("b")).unwrap();
    link("../b", "a/to-b");
    link("../a", "b/to-a");
    link(".", "here");
    link("loop.tar", "loop.tar");
    link("/etc/passwd", "out.tar");
    link("/etc", "etc");
    let source = temp.source();
    assert_eq!(names(&source), ["a/go:1.26", "b/to-a/go:1.26"]);
    let (_, listing) = list(&source);
    let left_out = temp.shorten(&listing.left_out);
    assert_eq!(left_out.len(), 2, "{left_out:?}");
    assert!(left_out[0].starts_with("`loop.tar`: "), "{left_out:?}");
    assert_eq!(left_out[1], "`out.tar`: leads out of `FOLDER`");
}
