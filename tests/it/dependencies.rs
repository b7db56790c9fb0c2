//! What we depend on: each crate has its reason in the README, and a licence that fits ours.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use crate::sources;

/// Licences that go into a binary under Apache-2.0 without any duty but a notice.
const LICENSES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

#[test]
fn every_dependency_has_its_reason_in_the_readme() {
    let manifest = sources::file("Cargo.toml");
    let (_, section) = manifest.split_once("[dependencies]\n").unwrap();
    let section = section.split("\n[").next().unwrap();
    let in_manifest: BTreeSet<&str> = section
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| Some(line.split_once('=')?.0.trim()))
        .collect();
    let readme = sources::file("README.md");
    let in_readme: BTreeSet<&str> = sources::rows(&readme, "crate").into_iter().collect();
    assert_eq!(
        in_manifest, in_readme,
        "[dependencies] of Cargo.toml, and the table in README.md"
    );
}

#[test]
fn licenses_fit() {
    let mut wrong = Vec::new();
    let packages = normal_packages();
    assert!(packages.len() > 20, "{packages:?}");
    for (name, license) in packages {
        if !is_allowed(&license) {
            wrong.push(format!("{name}: `{license}`"));
        }
    }
    assert!(
        wrong.is_empty(),
        "licences out of the list:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn license_expressions_are_understood() {
    for (license, is_fine) in [
        ("MIT", true),
        ("GPL-3.0-only", false),
        ("MIT/GPL-2.0", true),
        ("GPL-2.0 OR MIT", true),
        ("Apache-2.0 AND ISC", true),
        ("ISC AND GPL-2.0", false),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
        ("(MIT OR Apache-2.0) AND MPL-2.0", false),
        ("MPL-2.0 AND ISC OR MIT", true),
        ("Apache-2.0 WITH LLVM-exception", false),
        ("", false),
    ] {
        assert_eq!(is_allowed(license), is_fine, "{license}");
    }
}

#[test]
fn our_own_license_is_the_whole_text() {
    let text = sources::file("LICENSE");
    for part in [
        "Apache License",
        "Version 2.0, January 2004",
        "9. Accepting Warranty or Additional Liability.",
        "END OF TERMS AND CONDITIONS",
        "Copyright [yyyy] [name of copyright owner]",
    ] {
        assert!(text.contains(part), "{part}");
    }
    assert!(sources::file("Cargo.toml").contains("license = \"Apache-2.0\""));
}

/// The crates that end up in the binary, each as `name version` with its licence.
fn normal_packages() -> BTreeMap<String, String> {
    let cargo = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO"))
            .args(arguments)
            .current_dir(sources::project())
            .output()
            .unwrap_or_else(|err| panic!("cargo: {err}"));
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.success(),
            "cargo {}: {error}",
            arguments.join(" ")
        );
        String::from_utf8(output.stdout).unwrap()
    };
    // Without a platform cargo wants the crates of all of them, which a build does not download.
    let about = cargo(&["-vV"]);
    let host = about
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .unwrap();
    let metadata = cargo(&[
        "metadata",
        "--format-version=1",
        "--offline",
        "--locked",
        "--filter-platform",
        host,
    ]);
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    let array = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let nodes: BTreeMap<String, Value> = array(&metadata["resolve"]["nodes"])
        .into_iter()
        .map(|node| (text(&node["id"]), node))
        .collect();
    let mut seen = BTreeSet::new();
    let mut open = vec![text(&metadata["resolve"]["root"])];
    while let Some(id) = open.pop() {
        for dependency in array(&nodes[&id]["deps"]) {
            let is_normal = array(&dependency["dep_kinds"])
                .iter()
                .any(|kind| kind["kind"].is_null());
            if is_normal && seen.insert(text(&dependency["pkg"])) {
                open.push(text(&dependency["pkg"]));
            }
        }
    }
    array(&metadata["packages"])
        .iter()
        .filter(|package| seen.contains(&text(&package["id"])))
        .map(|package| {
            let name = format!("{} {}", text(&package["name"]), text(&package["version"]));
            (name, text(&package["license"]))
        })
        .collect()
}

/// Whether one of the ways to read a licence expression is within the list. `AND` binds tighter than `OR`.
fn is_allowed(license: &str) -> bool {
    let spaced = license
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    either(&words, &mut at) && at == words.len()
}

fn either(words: &[&str], at: &mut usize) -> bool {
    let mut is_fine = both(words, at);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        is_fine |= both(words, at);
    }
    is_fine
}

fn both(words: &[&str], at: &mut usize) -> bool {
    let mut is_fine = one(words, at);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        is_fine &= one(words, at);
    }
    is_fine
}

fn one(words: &[&str], at: &mut usize) -> bool {
    let word = words.get(*at).copied().unwrap_or("");
    *at += 1;
    if word == "(" {
        let is_fine = either(words, at);
        *at += 1; // The closing one.
        return is_fine;
    }
    // An exception is looked at by a person first.
    let has_exception = words.get(*at) == Some(&"WITH");
    if has_exception {
        *at += 2;
    }
    LICENSES.contains(&word) && !has_exception
}
