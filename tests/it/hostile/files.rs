//! Evidence inside an image: databases and metadata that are odd, huge or deep.

use serde_json::{Value, json};

use super::{assert_harmless, names, pass, place, registry, shown};
use crate::fake_registry::{GZIP, Layer, OCI_MANIFEST, gzip, tar, tar_file, tar_header, tar_pax};

#[test]
fn evidence_under_very_long_names() {
    let registry = registry();
    let folder = "long/".repeat(100) + &"n".repeat(3_000) + "/node_modules/";
    let mut bytes = Vec::new();
    for n in 0..40_000 {
        bytes.extend(tar_pax("path", &format!("{folder}{n}/package.json")));
        bytes.extend(tar_file("x", b"{\"name\":\"x\",\"version\":\"1\"}"));
    }
    registry.image("zoo/evil", "1", &[Layer::gzip(&bytes)]);
    drop(bytes);
    let place = place("evidence");
    let ended = pass(&registry, &place, 0, &[]);
    assert_eq!(ended.total("incomplete"), 1);
    let problems = place.stored().problems();
    assert!(
        problems[0].contains("more evidence than the limit"),
        "{}",
        problems[0]
    );
}

#[test]
fn databases_of_a_hundred_and_fifty_megabytes() {
    let registry = registry();
    let size = 150 << 20;
    let files = [
        ("dpkg var/lib/dpkg/status", 16_777_216),
        ("apk lib/apk/db/installed", 16_777_216),
        ("os-release etc/os-release", 16_777_216),
        ("python lib/x-1.dist-info/METADATA", 4_194_304),
        ("npm app/node_modules/x/package.json", 4_194_304),
        // Nobody reads it.
        ("- etc/passwd", 0),
    ];
    let lines = gzip(&vec![b'\n'; 1 << 20]);
    let mut blob = Vec::new();
    for (file, _) in &files {
        let (_, path) = file.split_once(' ').unwrap();
        blob.extend(gzip(&tar_header(path, b'0', size)));
        blob.extend(lines.repeat(150));
    }
    blob.extend(gzip(&tar(&[])));
    let layer = Layer::stored(GZIP, blob, b"");
    registry.hold(&layer);
    let config = registry.blob("application/vnd.oci.image.config.v1+json", b"{}");
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": [layer.descriptor()]});
    registry.tag(
        "zoo/evil",
        "1",
        OCI_MANIFEST,
        manifest.to_string().as_bytes(),
    );
    let place = place("huge-files");
    let ended = pass(&registry, &place, 0, &[]);
    assert_eq!(ended.total("incomplete"), 1);
    let problems = place.stored().problems();
    for (file, limit) in files.iter().filter(|(_, limit)| *limit > 0) {
        let wanted = format!("{file}: {size} bytes are over the limit of {limit}");
        assert!(problems.contains(&wanted), "{wanted}\n{problems:#?}");
    }
    assert_eq!(problems.len(), 5, "{problems:#?}");
}

/// Images of one file each: tag, path, content, names of packages, and what the problems say.
type Case<'a> = (&'a str, &'a str, Vec<u8>, &'a [&'a str], &'a [&'a str]);

/// All of them are indexed, with those packages and problems and no others.
#[track_caller]
fn are_read(name: &str, cases: &[Case<'_>]) {
    let registry = registry();
    for (tag, path, bytes, _, _) in cases {
        let entries = [
            tar_file("etc/hostname", tag.as_bytes()),
            tar_file(path, bytes),
        ];
        registry.image("zoo/evil", tag, &[Layer::gzip(&tar(&entries))]);
    }
    let place = place(name);
    pass(&registry, &place, 0, &[]);
    for (tag, _, _, packages, problems) in cases {
        let image = format!("zoo/evil:{tag}");
        let (code, text) = place.run("sbom", &[&image, "--format", "json"]);
        assert_eq!(code, Some(0), "{text}");
        assert_harmless(&text);
        let document: Value = serde_json::from_str(&text).unwrap();
        let found: Vec<String> = document["packages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|package| text_of(&package["name"]))
            .collect();
        assert_eq!(found, *packages, "{tag}: {text}");
        let told = document["coverage"]["problems"].as_array().unwrap();
        assert_eq!(told.len(), problems.len(), "{tag}: {told:?}");
        for problem in *problems {
            let is_told = told
                .iter()
                .any(|told| text_of(&told["message"]).contains(problem));
            assert!(is_told, "{tag}: no {problem} in {told:?}");
        }
    }
}

#[test]
fn databases_that_are_odd() {
    let apk = "lib/apk/db/installed";
    let dpkg = "var/lib/dpkg/status";
    let installed = "Status: install ok installed\n";
    let long = "n".repeat(1 << 20);
    are_read(
        "odd-files",
        &[
            ("one-byte", apk, b"x".to_vec(), &[], &["`x` is not a field"]),
            (
                "one-byte-line",
                apk,
                b"x\nP:a\nV:1\n".to_vec(),
                &["a"],
                &["`x` is not a field"],
            ),
            (
                "blank",
                apk,
                b"\n\n\n\nP:a\nV:1\n\n\n\n".to_vec(),
                &["a"],
                &[],
            ),
            ("no-end", apk, b"P:a\nV:1".to_vec(), &["a"], &[]),
            (
                "nul",
                apk,
                b"\0\0\0\nP:a\nV:1\n".to_vec(),
                &["a"],
                &["`\\x00\\x00\\x00` is not a field"],
            ),
            (
                "nul-in-name",
                apk,
                b"P:a\0b\nV:1\n".to_vec(),
                &[],
                &["`a\\x00b` is not a package name"],
            ),
            (
                "latin",
                apk,
                b"P:\xe9\nV:1\n\nP:a\nV:1\n".to_vec(),
                &["a"],
                &["is not a package name"],
            ),
            (
                "long",
                apk,
                format!("P:{long}\nV:1\n\nP:a\nV:1\n").into_bytes(),
                &["a"],
                &["is not a package name"],
            ),
            ("empty", apk, Vec::new(), &[], &[]),
            (
                "dpkg-no-end",
                dpkg,
                format!("Package: a\n{installed}Version: 1").into_bytes(),
                &["a"],
                &[],
            ),
            (
                "dpkg-nul",
                dpkg,
                [
                    b"\0".repeat(100_000),
                    format!("\n\nPackage: a\n{installed}Version: 1\n").into_bytes(),
                ]
                .concat(),
                &["a"],
                &["`\\x00", "package without a name"],
            ),
            (
                "dpkg-latin",
                dpkg,
                [b"Package: \xff\n", installed.as_bytes(), b"Version: 1\n"].concat(),
                &[],
                &["is not a package name"],
            ),
            (
                "sql",
                dpkg,
                format!("Package: x');DELETE/**/FROM/**/package;--\n{installed}Version: 1'\"\n")
                    .into_bytes(),
                &["x');DELETE/**/FROM/**/package;--"],
                &[],
            ),
            (
                "python",
                "x-1.dist-info/METADATA",
                b"Name: a\0\nVersion: 1\n".to_vec(),
                &[],
                &["`a\\x00` is not a package name"],
            ),
            (
                "python-empty",
                "x-1.dist-info/METADATA",
                b"\n\n".to_vec(),
                &[],
                &["package without a name"],
            ),
        ],
    );
}

#[test]
fn package_files_a_million_deep() {
    let path = "app/node_modules/x/package.json";
    let deep = "EOF while parsing";
    are_read(
        "deep-files",
        &[
            (
                "brackets",
                path,
                "[".repeat(1_000_000).into_bytes(),
                &[],
                &["invalid type: sequence"],
            ),
            (
                "braces",
                path,
                "{\"name\":".repeat(400_000).into_bytes(),
                &[],
                &[deep],
            ),
            (
                "ignored",
                path,
                format!(
                    "{{\"x\":{}{},\"name\":\"a\",\"version\":\"1\"}}",
                    "[".repeat(1_000_000),
                    "]".repeat(1_000_000)
                )
                .into_bytes(),
                &["a"],
                &[],
            ),
            (
                "license",
                path,
                format!("{{\"name\":\"a\",\"license\":{}", "[".repeat(1_000_000)).into_bytes(),
                &[],
                &[deep],
            ),
            (
                "wide",
                path,
                [
                    br#"{"name":"a","version":"1","license":[1"#,
                    &b",1".repeat(2_050_000)[..],
                    b"]}",
                ]
                .concat(),
                &["a"],
                &[],
            ),
            (
                "licenses",
                path,
                format!(
                    r#"{{"name":"a","version":"1","license":["x"{}]}}"#,
                    numbered(400_000, |n| format!(",\"{n:x}\""))
                )
                .into_bytes(),
                &["a"],
                &["more than the limit of 100 licenses; the rest is left out"],
            ),
            (
                "names",
                path,
                [
                    br#"{"version":"1","name":[1"#,
                    &b",1".repeat(2_050_000)[..],
                    b"]}",
                ]
                .concat(),
                &[],
                &["the name is not a string"],
            ),
        ],
    );
}

#[test]
fn a_file_of_nothing_but_mistakes() {
    let mistakes = "x\n".repeat(4 << 20);
    let registry = registry();
    registry.image(
        "zoo/evil",
        "1",
        &[Layer::gzip(&tar(&[tar_file(
            "lib/apk/db/installed",
            mistakes.as_bytes(),
        )]))],
    );
    let place = place("mistakes");
    let ended = pass(&registry, &place, 0, &[]);
    assert_eq!(ended.total("incomplete"), 1);
    let text = shown(&place, Some("zoo/evil:1"));
    assert!(
        text.contains("more problems in this file are not listed"),
        "{text}"
    );
    assert_eq!(
        text.matches("problem:   apk lib/apk/db/installed: `x` is not a field")
            .count(),
        1
    );
}

#[test]
fn a_layer_of_nothing_but_problems() {
    let registry = registry();
    let mut tar_of_many = Vec::new();
    for n in 0..50_000 {
        tar_of_many.extend(tar_header(&format!("{n}/.wh."), b'0', 0));
    }
    registry.image("zoo/evil", "1", &[Layer::gzip(&tar(&[tar_of_many]))]);
    let place = place("problems");
    let ended = pass(&registry, &place, 0, &[]);
    assert_eq!(ended.total("incomplete"), 1);
    assert!(place.stored().problems().len() <= 101);
    let text = shown(&place, Some("zoo/evil:1"));
    assert!(
        text.contains("problem:   and 49900 more that were not recorded one by one"),
        "{text}"
    );
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn numbered(n: u32, each: impl Fn(u32) -> String) -> String {
    (0..n).map(each).collect()
}

#[test]
fn databases_of_very_many_packages() {
    let apk = numbered(1_000_000, |n| format!("P:{n:x}\nV:1\n\n"));
    let dpkg = numbered(280_000, |n| {
        format!("Package: p{n:x}\nStatus: install ok installed\nVersion: 1\n\n")
    });
    for (tag, path, text) in [
        ("apk", "lib/apk/db/installed", apk),
        ("dpkg", "var/lib/dpkg/status", dpkg),
    ] {
        assert!(text.len() < 16 << 20, "{}", text.len());
        let registry = registry();
        registry.image(
            "zoo/evil",
            "1",
            &[Layer::gzip(&tar(&[tar_file(path, text.as_bytes())]))],
        );
        let place = place(&format!("many-{tag}"));
        let ended = pass(&registry, &place, 0, &[]);
        assert_eq!(ended.total("incomplete"), 1);
        assert_eq!(names(&place, "zoo/evil", "1").len(), 20_000);
        let (_, text) = place.run("sbom", &["zoo/evil:1"]);
        let problem = "more than the limit of 20000 packages in this file; the rest is left out";
        assert!(text.contains(problem), "{}", &text[..2_000]);
    }
}
