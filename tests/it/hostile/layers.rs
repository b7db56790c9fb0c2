//! Blobs that are not what their digest, size or compression say, and bombs.

use super::{endless_layer, fails, gzip_pieces, names, pass, place, refuses, registry};
use crate::emulator::message::Response;
use crate::fake_registry::{GZIP, Layer, digest, dpkg_tar, gzip, tar, tar_file, tar_header};

#[test]
fn a_blob_with_other_content_than_its_digest_says() {
    let registry = registry();
    let layer = Layer::gzip(&dpkg_tar("evil"));
    registry.image("zoo/evil", "1", std::slice::from_ref(&layer));
    let other = gzip(&dpkg_tar("else"));
    assert_eq!(
        other.len() as u64,
        layer.size,
        "the test wants the same length"
    );
    registry.hook(move |request| {
        let is_it = request.path.contains(&layer.digest);
        is_it.then(|| Response::new(200).body(GZIP, other.clone()))
    });
    let found = digest(&gzip(&dpkg_tar("else")));
    fails(
        "wrong-digest",
        &registry,
        &["layer `sha256:", "other content", &found],
    );
}

#[test]
fn a_layer_that_unpacks_to_something_else_than_the_configuration_says() {
    let registry = registry();
    let tar = dpkg_tar("evil");
    let layer = Layer::stored(GZIP, gzip(&tar), b"something else");
    registry.image("zoo/evil", "1", &[layer]);
    let (is, says) = (digest(&tar), digest(b"something else"));
    fails("wrong-diff-id", &registry, &["unpacks to", &is, &says]);
}

#[test]
fn a_gzip_stored_cut_short() {
    let registry = registry();
    let noise: Vec<u8> = (0..200_000u32)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    let tar = tar(&[tar_file("noise", &noise)]);
    let mut blob = gzip(&tar);
    blob.truncate(blob.len() / 2);
    registry.image("zoo/evil", "1", &[Layer::stored(GZIP, blob, &tar)]);
    fails("cut-gzip", &registry, &["layer `sha256:", "gzip: "]);
}

#[test]
fn ten_gigabytes_of_zeros() {
    let registry = registry();
    let file = tar_header("zeros", b'0', 10 << 30);
    let (head, piece) = gzip_pieces(&file, &vec![0; 16 << 20]);
    let blob = [head, piece.repeat(640)].concat();
    registry.image("zoo/evil", "1", &[Layer::stored(GZIP, blob, b"")]);
    let limit = "the layer's tar is larger than the limit of 104857600 bytes";
    refuses("zeros", &registry, &["--max-layer-size", "100M"], limit);
    refuses(
        "zeros-ratio",
        &registry,
        &[],
        "more than 200 times larger than the blob",
    );
}

#[test]
fn ten_gigabytes_of_zeros_behind_the_end_of_the_archive() {
    let registry = registry();
    let layer = endless_layer("zeros behind", &tar(&[]), &vec![0; 16 << 20]);
    registry.image("zoo/evil", "1", &[layer]);
    let limit = "the layer's tar is larger than the limit of 104857600 bytes";
    refuses(
        "zeros-behind",
        &registry,
        &["--max-layer-size", "100M"],
        limit,
    );
}

#[test]
fn two_million_entries() {
    let registry = registry();
    let entries: Vec<Vec<u8>> = (0..20_000)
        .map(|n| tar_header(&format!("d/{n}"), b'0', 0))
        .collect();
    let (head, piece) = gzip_pieces(b"", &entries.concat());
    let layer = Layer::stored(GZIP, [head, piece.repeat(100)].concat(), b"");
    registry.image("zoo/evil", "1", &[layer]);
    refuses(
        "entries",
        &registry,
        &[],
        "more than the limit of 1000000 entries",
    );
}

#[test]
fn a_zstd_frame_with_a_window_of_two_gigabytes() {
    let registry = registry();
    // RFC 8878 3.1.1: no content size; window of 2^31; one raw block of one byte, the last.
    let blob = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x09, 0x00, 0x00, 0x00];
    registry.image(
        "zoo/evil",
        "1",
        &[Layer::stored(
            "application/vnd.oci.image.layer.v1.tar+zstd",
            blob,
            b"",
        )],
    );
    refuses(
        "window",
        &registry,
        &[],
        "zstd window is larger than the limit of 8388608 bytes",
    );
}

#[test]
fn a_gzip_of_a_million_empty_members_is_read_to_its_end() {
    let registry = registry();
    let tar = dpkg_tar("patient");
    let blob = [gzip(b"").repeat(1_000_000), gzip(&tar)].concat();
    registry.image("zoo/evil", "1", &[Layer::stored(GZIP, blob, &tar)]);
    let place = place("members");
    pass(&registry, &place, 0, &[]);
    assert_eq!(names(&place, "zoo/evil", "1"), ["patient"]);
}

#[test]
fn a_zstd_of_a_million_skippable_frames_is_read_to_its_end() {
    let registry = registry();
    let tar = dpkg_tar("patient");
    let skippable = [0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 0];
    let frame = zstd::encode_all(&tar[..], 1).unwrap();
    let blob = [skippable.repeat(1_000_000), frame].concat();
    registry.image(
        "zoo/evil",
        "1",
        &[Layer::stored(
            "application/vnd.oci.image.layer.v1.tar+zstd",
            blob,
            &tar,
        )],
    );
    let place = place("skippable");
    pass(&registry, &place, 0, &[]);
    assert_eq!(names(&place, "zoo/evil", "1"), ["patient"]);
}

#[test]
fn one_large_layer_three_hundred_times() {
    let registry = registry();
    let mut entries: Vec<Vec<u8>> = (0..300_000)
        .map(|n| tar_header(&format!("f/{n:x}"), b'0', 0))
        .collect();
    entries.push(dpkg_tar("repeated"));
    let layer = Layer::gzip(&tar(&entries));
    drop(entries);
    registry.image("zoo/evil", "1", &vec![layer; 300]);
    let place = place("repeated");
    pass(&registry, &place, 0, &[]);
    assert_eq!(names(&place, "zoo/evil", "1"), ["repeated"]);
}

#[test]
fn refused_layers_of_sizes_that_cannot_be_added() {
    let registry = registry();
    let (head, piece) = gzip_pieces(b"", &[b'x'; 1 << 16]);
    let mut layer = Layer::stored(GZIP, [head, piece].concat(), b"");
    layer.size = 1 << 46;
    let mut window = Layer::stored(
        GZIP,
        vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x09, 0, 0, 0],
        b"",
    );
    window.size = 1 << 46;
    registry.image("zoo/evil", "1", &vec![window; 3]);
    registry.image("zoo/evil", "2", &[layer]);
    let place = place("sums");
    let ended = pass(&registry, &place, 3, &[]);
    ended.says(&["image indexed", "zoo/evil:1", "gaps=3"]);
    ended.says(&[
        "error image failed",
        "zoo/evil:2",
        "bytes of 70368744177664",
    ]);
}

#[test]
fn sizes_at_the_end_of_numbers() {
    let registry = registry();
    let layer = Layer::gzip(&dpkg_tar("evil"));
    for (tag, size) in [
        ("1", u64::MAX),
        ("2", i64::MAX as u64),
        ("3", 1 << 62),
        ("4", 0),
    ] {
        let mut layer = layer.clone();
        layer.size = size;
        layer.digest = digest(tag.as_bytes());
        registry.image("zoo/evil", tag, &vec![layer; 3]);
    }
    let place = place("sizes");
    let ended = pass(&registry, &place, 3, &[]);
    for tag in 1..=4 {
        ended.says(&["error image failed", &format!("zoo/evil:{tag}")]);
    }
}

#[test]
fn compressions_that_are_not_read() {
    let registry = registry();
    // xz and lzma with a dictionary of 4 GiB; the first bytes of bzip2, lz4 and compress.
    let cases: [(&str, &[u8], &str); 5] = [
        (
            "xz",
            b"\xfd7zXZ\0\0\x04\xe6\xd6\xb4\x46\x02\0\x21\x01\x28\0\0\0",
            "unsupported compression: xz",
        ),
        (
            "lzma",
            b"\x5d\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\0",
            "unsupported compression: lzma",
        ),
        ("bzip2", b"BZh91AY&SY", "unsupported compression: bzip2"),
        (
            "lz4",
            b"\x04\x22\x4d\x18\x64\x40\xa7",
            "unsupported compression: lz4",
        ),
        (
            "compress",
            b"\x1f\x9d\x90\x61",
            "unsupported compression: compress",
        ),
    ];
    for (tag, head, _) in &cases {
        let blob = [head, &[0; 2_000][..]].concat();
        registry.image("zoo/evil", tag, &[Layer::stored(GZIP, blob, b"")]);
    }
    let place = place("compressions");
    let ended = pass(&registry, &place, 3, &[]);
    for (tag, _, reason) in cases {
        ended.says(&[
            "error image failed",
            &format!("zoo/evil:{tag} "),
            "layer `sha256:",
            reason,
        ]);
    }
}

#[test]
fn compressed_bytes_that_are_damaged() {
    const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    let registry = registry();
    let tar = dpkg_tar("evil");
    let good = gzip(&tar);
    let frame = zstd::encode_all(&tar[..], 1).unwrap();
    let mut header = gzip(b"");
    header[3] = 8;
    let mut length = good.clone();
    let end = length.len() - 4;
    length[end..].copy_from_slice(&[0xff; 4]);
    let mut reserved = good.clone();
    reserved[3] = 0xe0;
    let cut = |bytes: &[u8]| bytes[..bytes.len() / 2].to_vec();
    let cases = [
        (
            "header",
            GZIP,
            cut(&good[..12]),
            "gzip: it ends inside a header or trailer",
        ),
        (
            "trailer",
            GZIP,
            good[..good.len() - 2].to_vec(),
            "gzip: it ends inside a header or trailer",
        ),
        (
            "behind",
            GZIP,
            [&good[..], b"<html>not found</html>"].concat(),
            "gzip: no gzip header where one is due",
        ),
        (
            "reserved",
            GZIP,
            reserved,
            "gzip: no gzip header where one is due",
        ),
        (
            "length",
            GZIP,
            length,
            "gzip: the length in the trailer is wrong",
        ),
        (
            "invalid",
            GZIP,
            [&good[..10], &[0xff; 100]].concat(),
            "gzip: the deflate data is invalid",
        ),
        ("zstd-cut", ZSTD, cut(&frame), "zstd: "),
        ("zstd-header", ZSTD, frame[..5].to_vec(), "zstd: "),
        (
            "zstd-block",
            ZSTD,
            [&frame[..6], &[0xff; 300]].concat(),
            "zstd: ",
        ),
        (
            "zstd-behind",
            ZSTD,
            [&frame[..], &[0xff; 30]].concat(),
            "zstd: ",
        ),
        ("twice", GZIP, gzip(&gzip(&[0; 1 << 20])), "tar: "),
        (
            "page",
            GZIP,
            b"<html>".repeat(100),
            "tar: bad header checksum",
        ),
    ];
    for (tag, media_type, blob, _) in &cases {
        registry.image(
            "zoo/evil",
            tag,
            &[Layer::stored(media_type, blob.clone(), &tar)],
        );
    }
    // A name in the header that never ends is over a limit, and no damage.
    let name = [&header[..10], &[b'n'; 1 << 17]].concat();
    registry.image("zoo/evil", "name", &[Layer::stored(GZIP, name, &tar)]);
    let place = place("damaged");
    let ended = pass(&registry, &place, 3, &[]);
    for (tag, _, _, reason) in &cases {
        ended.says(&[
            "error image failed",
            &format!("zoo/evil:{tag} "),
            "layer `sha256:",
            reason,
        ]);
    }
    ended.says(&[
        "warn layer is not read",
        "zoo/evil",
        "a gzip header is larger than the limit of 65536 bytes",
    ]);
    assert_eq!(ended.total("failed"), cases.len() as u64);
}
