//! Archives: names, links, headers and sizes that lead nowhere or without end.

use super::{endless_layer, fails, names, pass, place, refuses, registry};
use crate::fake_registry::{Layer, dpkg_tar, tar, tar_file, tar_header, tar_pax};
use crate::temp_dir::TempDir;

#[test]
fn names_that_lead_out_of_the_image() {
    let registry = registry();
    let status = b"Package: sneaky\nStatus: install ok installed\nVersion: 1\n\n";
    let escape = "/../../../../../../tmp/crowsnest-was-here";
    let entries = [
        tar_file("../../var/lib/dpkg/status", status),
        tar_file("etc/../../../var/lib/dpkg/status", status),
        tar_file(escape, b"x"),
        tar_header("link", b'2', 0),
        tar_file("/usr/lib/os-release", b"ID=debian\n"),
        tar_file(
            "/var/lib/dpkg/status",
            b"Package: absolute\nStatus: install ok installed\nVersion: 1\n\n",
        ),
        tar_file(".wh...", b""),
        tar_file("etc/.wh.", b""),
    ];
    registry.image("zoo/evil", "1", &[Layer::gzip(&tar(&entries))]);
    let place = place("names");
    let ended = pass(&registry, &place, 0, &[]);
    assert_eq!(ended.total("incomplete"), 1);
    assert_eq!(names(&place, "zoo/evil", "1"), ["absolute"]);
    let problems = place.stored().problems();
    let leading_out = problems
        .iter()
        .filter(|problem| problem.contains("leads out of the image"));
    assert_eq!(leading_out.count(), 3, "{problems:#?}");
    assert!(!std::path::Path::new("/tmp/crowsnest-was-here").exists());
}

#[test]
fn a_pax_header_of_a_gigabyte() {
    for (name, type_flag) in [
        ("pax", b'x'),
        ("pax-global", b'g'),
        ("long-name", b'L'),
        ("long-link", b'K'),
    ] {
        let registry = registry();
        let layer = endless_layer(
            name,
            &tar_header("pax", type_flag, 1 << 30),
            &[b'9'; 1 << 16],
        );
        registry.image("zoo/evil", "1", &[layer]);
        refuses(
            name,
            &registry,
            &[],
            "a tar header is larger than the limit of 1048576 bytes",
        );
    }
}

#[test]
fn a_path_longer_than_any_system_has() {
    let registry = registry();
    let entries = [tar_pax("path", &"a/".repeat(5_000)), tar_file("x", b"")];
    registry.image("zoo/evil", "1", &[Layer::gzip(&tar(&entries))]);
    refuses(
        "path",
        &registry,
        &[],
        "a path is larger than the limit of 4096 bytes",
    );
}

#[test]
fn sparse_files_of_eight_exbibytes() {
    let status = "var/lib/dpkg/status";
    let mut old = tar_header(status, b'S', 512);
    old[386..398].copy_from_slice(b"00000000000\0");
    old[398..410].copy_from_slice(b"00000001000\0");
    old[483] = 0x80;
    old[487..495].copy_from_slice(&(i64::MAX as u64).to_be_bytes());
    old[148..156].fill(b' ');
    let sum: u64 = old.iter().map(|&byte| u64::from(byte)).sum();
    old[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    old.extend([b'x'; 512]);
    let new = [
        tar_pax("GNU.sparse.realsize", "9223372036854775807"),
        tar_file(status, b"Package: x\n"),
    ];
    for (name, entries) in [("old", vec![old]), ("new", new.to_vec())] {
        let registry = registry();
        registry.image("zoo/evil", "1", &[Layer::gzip(&tar(&entries))]);
        let place = place(&format!("sparse-{name}"));
        let ended = pass(&registry, &place, 0, &[]);
        assert_eq!(ended.total("incomplete"), 1);
        let problems = place.stored().problems();
        assert!(
            problems[0].contains("sparse file; its contents are not read"),
            "{problems:?}"
        );
    }
    let huge = [
        ("size", vec![tar_header("x", b'0', u64::MAX)], "tar: size"),
        (
            "pax-size",
            vec![
                tar_pax("size", "18446744073709551615"),
                tar_header("x", b'0', 0),
            ],
            "tar: size is too large",
        ),
        (
            "eof",
            vec![
                tar_pax("size", "9223372036854775807"),
                tar_header("x", b'0', 0),
            ],
            "tar: ends inside a file",
        ),
    ];
    for (name, entries, reason) in huge {
        let registry = registry();
        registry.image("zoo/evil", "1", &[Layer::gzip(&entries.concat())]);
        fails(&format!("huge-{name}"), &registry, &[reason]);
    }
}

#[test]
fn a_million_whiteouts() {
    let registry = registry();
    let entries: Vec<Vec<u8>> = (0..900_000)
        .map(|n| tar_header(&format!(".wh.{n:x}"), b'0', 0))
        .collect();
    registry.image("zoo/evil", "1", &[Layer::gzip(&tar(&entries))]);
    drop(entries);
    refuses(
        "whiteouts",
        &registry,
        &[],
        "the list of whiteouts is larger than the limit",
    );
}

/// A link of either kind.
fn tar_link(name: &str, type_flag: u8, target: &str) -> Vec<u8> {
    let mut block = tar_header(name, type_flag, 0);
    block[157..157 + target.len()].copy_from_slice(target.as_bytes());
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

#[test]
fn links_that_lead_out_of_the_image() {
    let outside = TempDir::new("outside");
    let target = outside.path().display().to_string();
    outside.write(
        "status",
        "Package: host\nStatus: install ok installed\nVersion: 1\n\n",
    );
    let status = format!("{target}/status");
    let climbing = format!("../../../../../../../..{status}");
    let registry = registry();
    let cases: [(&str, Vec<Vec<u8>>); 6] = [
        // A folder that is a link, and files through it.
        (
            "through",
            vec![
                tar_link("out", b'2', &target),
                tar_file("out/written", b"x"),
                tar_file("out/status", b""),
            ],
        ),
        (
            "dpkg",
            vec![
                tar_link("var/lib/dpkg", b'2', &target),
                tar_header("var/lib/dpkg/", b'5', 0),
            ],
        ),
        ("file", vec![tar_link("var/lib/dpkg/status", b'2', &status)]),
        ("hard", vec![tar_link("var/lib/dpkg/status", b'1', &status)]),
        (
            "climbing",
            vec![tar_link("var/lib/dpkg/status", b'1', &climbing)],
        ),
        (
            "circle",
            vec![
                tar_link("var/lib/dpkg", b'2', "dpkg"),
                tar_link("var/lib/dpkg/status", b'1', "var/lib/dpkg/status"),
            ],
        ),
    ];
    for (tag, entries) in &cases {
        registry.image("zoo/evil", tag, &[Layer::gzip(&tar(entries))]);
    }
    let place = place("links");
    pass(&registry, &place, 0, &[]);
    for (tag, _) in &cases {
        assert_eq!(names(&place, "zoo/evil", tag), [""; 0], "{tag}");
    }
    let problems = place.stored().problems().join("\n");
    assert_eq!(
        problems.matches("whose contents were not kept").count(),
        3,
        "{problems}"
    );
    let left: Vec<_> = std::fs::read_dir(outside.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn names_that_are_empty_or_odd() {
    let registry = registry();
    let deep = "d/".repeat(200) + "x";
    let bytes = |name: &[u8]| {
        let mut block = tar_header("", b'0', 0);
        block[..name.len()].copy_from_slice(name);
        block[148..156].fill(b' ');
        let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    };
    let entries = [
        tar_header("", b'0', 0),
        tar_header("", b'5', 0),
        tar_file(".", b"x"),
        tar_file("/", b"x"),
        tar_file("./", b"x"),
        tar_file("///", b"x"),
        tar_file("./.", b"x"),
        tar_pax("path", ""),
        tar_header("x", b'0', 0),
        tar_link("", b'1', ""),
        tar_link("", b'2', ""),
        bytes(&[b'n'; 100]),
        bytes(b"\xff\xfe/\xc3\x28"),
        bytes(b"a\0b"),
        tar_header("device", b'3', 0),
        tar_header("pipe", b'6', 0),
        tar_header("unknown", 0xff, 0),
        tar_pax("path", &deep),
        tar_header("x", b'0', 0),
        dpkg_tar("survivor"),
    ];
    registry.image("zoo/evil", "1", &[Layer::gzip(&tar(&entries))]);
    let place = place("odd-names");
    let ended = pass(&registry, &place, 0, &[]);
    assert_eq!(ended.total("incomplete"), 1);
    assert_eq!(names(&place, "zoo/evil", "1"), ["survivor"]);
    let problems = place.stored().problems();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(
        problems[0].contains("the path is deeper than the limit of 128"),
        "{problems:?}"
    );
}

#[test]
fn archives_that_end_or_break_anywhere() {
    let registry = registry();
    let good = dpkg_tar("evil");
    let mut sum = good.clone();
    sum[0] ^= 1;
    let record = |text: &[u8]| {
        let mut entry = tar_file("pax", text);
        entry[156] = b'x';
        entry[..512].copy_from_slice(&tar_header("pax", b'x', text.len() as u64));
        [entry, tar_file("x", b"")].concat()
    };
    let mut map = tar_header("x", b'S', 0);
    map[482] = 1;
    map[148..156].fill(b' ');
    let total: u64 = map.iter().map(|&byte| u64::from(byte)).sum();
    map[148..156].copy_from_slice(format!("{total:06o}\0 ").as_bytes());
    let cases = [
        ("header", good[..100].to_vec(), "tar: ends inside a header"),
        ("file", good[..520].to_vec(), "tar: ends inside a file"),
        ("sum", sum, "tar: bad header checksum"),
        ("map", map, "tar: ends inside a sparse map"),
        (
            "meta",
            tar_header("x", b'L', 1000),
            "tar: ends inside a file",
        ),
        (
            "length",
            record(b"99999999999999999999 path=x\n"),
            "tar: malformed pax header",
        ),
        ("zero", record(b"0 path=x\n"), "tar: malformed pax header"),
        ("short", record(b"3 path=x\n"), "tar: malformed pax header"),
        (
            "beyond",
            record(b"500 path=x\n"),
            "tar: malformed pax header",
        ),
        (
            "negative",
            record(b"11 size=-1\n"),
            "tar: malformed pax header",
        ),
        ("equals", record(b"7 path\n"), "tar: malformed pax header"),
    ];
    for (tag, bytes, _) in &cases {
        registry.image("zoo/evil", tag, &[Layer::plain(bytes)]);
    }
    let place = place("broken-tars");
    let ended = pass(&registry, &place, 3, &[]);
    for (tag, _, reason) in &cases {
        ended.says(&[
            "error image failed",
            &format!("zoo/evil:{tag} "),
            "layer `sha256:",
            reason,
        ]);
    }
    assert_eq!(ended.total("failed"), cases.len() as u64);
}

#[test]
fn whiteouts_without_a_name_or_a_folder() {
    let registry = registry();
    let below = Layer::gzip(&dpkg_tar("kept"));
    let above = tar(&[
        tar_file(".wh.", b""),
        tar_file("etc/.wh.", b""),
        tar_file("etc/.wh..", b""),
        tar_file("var/.wh...", b""),
        tar_file(".wh..wh.", b""),
        tar_file(".wh..wh.aufs", b""),
        tar_file("etc/.wh..wh.plnk/1.2", b""),
        // Below a file, and below nothing; a folder that is said to be opaque by a folder.
        tar_file("etc/os-release/.wh.x", b""),
        tar_file("nowhere/at/all/.wh.x", b""),
        tar_file("var/lib/dpkg/status/.wh..wh..opq", b""),
        tar_header("var/.wh..wh.opq", b'5', 0),
        tar_link("var/.wh..wh.link", b'2', "/"),
    ]);
    registry.image("zoo/evil", "1", &[below.clone(), Layer::gzip(&above)]);
    // As the only layer, there is nothing that could be removed.
    registry.image("zoo/evil", "alone", &[Layer::gzip(&above)]);
    let root = tar(&[tar_file(".wh..wh..opq", b"")]);
    registry.image("zoo/evil", "root", &[below, Layer::gzip(&root)]);
    let place = place("markers");
    let ended = pass(&registry, &place, 0, &[]);
    assert_eq!(names(&place, "zoo/evil", "1"), ["kept"]);
    assert_eq!(names(&place, "zoo/evil", "alone"), [""; 0]);
    assert_eq!(names(&place, "zoo/evil", "root"), [""; 0]);
    assert_eq!(ended.total("incomplete"), 2);
    let problems = place.stored().problems();
    let bare = problems
        .iter()
        .filter(|problem| problem.contains("whiteout without a name; it is ignored"));
    assert_eq!(bare.count(), 4, "{problems:?}");
}

#[test]
fn contents_of_entries_that_have_none_are_entries() {
    // What Go's archive/tar takes for content, and what it takes for the next entry: another choice would be to
    // see other packages than the image has.
    let registry = registry();
    let inside = |package: &str| dpkg_tar(package)[..2048].to_vec();
    let smuggled = |name: &str, type_flag: u8| {
        let bytes = inside("smuggled");
        let entry = [tar_header(name, type_flag, bytes.len() as u64), bytes].concat();
        Layer::gzip(&tar(&[entry]))
    };
    let cases = [
        ("folder", smuggled("x/", b'0'), false),
        ("unknown", smuggled("x", b'Z'), false),
        ("device", smuggled("x", b'3'), true),
        ("pipe", smuggled("x", b'6'), true),
        ("link", smuggled("x", b'2'), true),
    ];
    for (tag, layer, _) in &cases {
        registry.image("zoo/evil", tag, std::slice::from_ref(layer));
    }
    let place = place("smuggled");
    pass(&registry, &place, 0, &[]);
    for (tag, _, is_entry) in &cases {
        let found = names(&place, "zoo/evil", tag);
        assert_eq!(
            found.contains(&"smuggled".to_owned()),
            *is_entry,
            "{tag}: {found:?}"
        );
    }
}

#[test]
fn headers_without_end() {
    let mut map = tar_header("x", b'S', 0);
    map[482] = 1;
    map[148..156].fill(b' ');
    let sum: u64 = map.iter().map(|&byte| u64::from(byte)).sum();
    map[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut more = vec![0; 512];
    more[504] = 1;
    let name = tar_file("x", b"name");
    let long = [&tar_header("x", b'L', 4)[..], &name[512..]].concat();
    for (tag, first, piece) in [
        ("sparse", map, more),
        ("pax", Vec::new(), tar_pax("path", "x")),
        ("long", Vec::new(), long),
    ] {
        let registry = registry();
        registry.image(
            "zoo/evil",
            "1",
            &[endless_layer(tag, &first, &piece.repeat(1_000))],
        );
        let limit = "the layer's tar is larger than the limit of 20971520 bytes";
        refuses(
            &format!("endless-{tag}"),
            &registry,
            &["--max-layer-size", "20M"],
            limit,
        );
    }
}
