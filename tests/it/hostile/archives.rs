//! Archives: names, links, headers and sizes that lead nowhere or without end.

use super::{endless_layer, fails, names, pass, place, refuses, registry};
use crate::fake_registry::{Layer, tar, tar_file, tar_header, tar_pax};

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
