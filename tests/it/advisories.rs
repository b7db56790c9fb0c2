//! `Cargo.lock` against the records of RustSec: no locked version is known to be vulnerable or unsound.
//!
//! The records are OSV's dump for crates.io (`osv/crates.io/all.zip` of the test data). Crates that are called
//! unmaintained are printed (`cargo test advisories -- --nocapture`), and are no failure.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

use crate::{sources, zip};

/// What a record says of a locked version.
#[derive(Debug, PartialEq, Eq)]
struct Hit {
    /// `smallvec 1.6.0: RUSTSEC-2021-0003 Buffer overflow ...`
    line: String,
    /// Unmaintained, or worth a notice.
    is_informational: bool,
}

#[test]
#[allow(clippy::print_stderr)]
fn no_locked_version_has_a_known_vulnerability() {
    let hits = hits(&locked(&sources::file("Cargo.lock")));
    let (notes, bad): (Vec<&Hit>, Vec<&Hit>) = hits.iter().partition(|hit| hit.is_informational);
    for note in notes {
        eprintln!("{}", note.line);
    }
    let bad: Vec<&str> = bad.iter().map(|hit| hit.line.as_str()).collect();
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

/// The rule above would also pass if nothing were looked at.
#[test]
fn known_bad_versions_are_found() {
    let lock = "[[package]]\nname = \"smallvec\"\nversion = \"1.6.0\"\nsource = \"registry+x\"\n\n\
                [[package]]\nname = \"smallvec\"\nversion = \"1.6.1\"\nsource = \"registry+x\"\n\n\
                [[package]]\nname = \"atty\"\nversion = \"0.2.14\"\nsource = \"registry+x\"\n\n\
                [[package]]\nname = \"time\"\nversion = \"0.2.7\"\n";
    assert_eq!(locked(lock)["smallvec"].len(), 2);
    let hits = hits(&locked(lock));
    let found: Vec<(&str, bool)> = hits
        .iter()
        .map(|hit| {
            (
                hit.line.rsplit(": ").nth(1).unwrap_or(""),
                hit.is_informational,
            )
        })
        .collect();
    let text = format!("{hits:#?}");
    let begins = |line: &str| hits.iter().any(|hit| hit.line.starts_with(line));
    assert!(begins("smallvec 1.6.0: RUSTSEC-2021-0003"), "{text}");
    assert!(!begins("smallvec 1.6.1"), "{text}");
    assert!(begins("atty 0.2.14: RUSTSEC-2024-0375"), "{text}");
    assert!(
        begins("atty 0.2.14: RUSTSEC-2021-0145"),
        "unsound counts: {text}"
    );
    assert!(!begins("time"), "not out of the registry: {text}");
    assert!(
        found.iter().any(|(_, is_informational)| *is_informational),
        "{text}"
    );
}

/// The versions of each crate that comes out of a registry.
fn locked(lock: &str) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in lock.split("[[package]]").skip(1) {
        let field = |name: &str| {
            let start = format!("{name} = \"");
            package
                .lines()
                .find_map(|line| line.strip_prefix(&start)?.strip_suffix('"'))
        };
        if let (Some(name), Some(version), Some(_)) =
            (field("name"), field("version"), field("source"))
        {
            found
                .entry(name.to_owned())
                .or_default()
                .push(version.to_owned());
        }
    }
    assert!(!found.is_empty(), "a lock file without packages");
    found
}

/// What all records say of the locked versions.
fn hits(locked: &BTreeMap<String, Vec<String>>) -> Vec<Hit> {
    let path = test_data().join("osv/crates.io/all.zip");
    let archive = std::fs::read(&path).unwrap_or_else(|err| panic!("{}: {err}", path.display()));
    let mut hits = Vec::new();
    let mut n_records = 0;
    zip::each_member(&archive, |name, json| {
        let record: Value =
            serde_json::from_slice(json).unwrap_or_else(|err| panic!("{name}: {err}"));
        n_records += 1;
        if record.get("withdrawn").is_none_or(Value::is_null) {
            look_up(&record, locked, &mut hits);
        }
    });
    assert!(
        n_records > 1_000,
        "{n_records} records are not all of RustSec"
    );
    hits
}

fn look_up(record: &Value, locked: &BTreeMap<String, Vec<String>>, hits: &mut Vec<Hit>) {
    for affected in record["affected"].as_array().into_iter().flatten() {
        let name = affected["package"]["name"].as_str().unwrap_or("");
        let informational = affected["database_specific"]["informational"].as_str();
        for version in locked.get(name).into_iter().flatten() {
            let mut ranges = affected["ranges"].as_array().into_iter().flatten();
            if ranges.any(|range| is_inside(version, range)) {
                let text = |key: &str| record[key].as_str().unwrap_or("");
                hits.push(Hit {
                    line: format!("{name} {version}: {} {}", text("id"), text("summary")),
                    is_informational: matches!(informational, Some("unmaintained" | "notice")),
                });
            }
        }
    }
}

/// Whether a range of a record holds the version: the last event at or below it decides
/// (<https://ossf.github.io/osv-schema/#evaluation>).
fn is_inside(version: &str, range: &Value) -> bool {
    let mut events: Vec<(Version, &str)> = range["events"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|event| event.as_object().into_iter().flatten())
        .map(|(kind, at)| (Version::new(at.as_str().unwrap_or("")), kind.as_str()))
        .collect();
    events.sort();
    let version = Version::new(version);
    let mut is_inside = false;
    for (at, kind) in &events {
        match (*kind, at.cmp(&version)) {
            (_, Ordering::Greater) => break,
            ("introduced", _) => is_inside = true,
            ("fixed", _) | ("last_affected", Ordering::Less) => is_inside = false,
            _ => {}
        }
    }
    is_inside
}

/// A version of a crate, ordered as in <https://semver.org/#spec-item-11>. `0` is before everything.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version {
    numbers: Vec<u64>,
    /// A release is after its pre-releases.
    is_release: bool,
    /// Numbers are before words.
    pre: Vec<Result<u64, String>>,
}

impl Version {
    fn new(text: &str) -> Version {
        let (text, _) = text.split_once('+').unwrap_or((text, ""));
        let (numbers, pre) = text.split_once('-').unwrap_or((text, ""));
        let number = |part: &str| part.parse().unwrap_or_else(|_| panic!("version `{text}`"));
        Version {
            numbers: numbers.split('.').map(number).collect(),
            is_release: pre.is_empty(),
            pre: pre
                .split('.')
                .map(|part| part.parse().map_err(|_| part.to_owned()))
                .collect(),
        }
    }
}

#[test]
fn versions_are_ordered_as_semver_says() {
    let ordered = [
        "0",
        "0.0.0-0",
        "0.9.10",
        "1.0.0-1",
        "1.0.0-alpha",
        "1.0.0-alpha.1",
        "1.0.0-alpha.beta",
        "1.0.0-beta.2",
        "1.0.0-beta.11",
        "1.0.0",
        "1.0.1",
        "1.10.0",
    ];
    for pair in ordered.windows(2) {
        assert!(Version::new(pair[0]) < Version::new(pair[1]), "{pair:?}");
    }
    assert_eq!(Version::new("1.0.0+a"), Version::new("1.0.0"));
}

/// The folder of the test data: `CROWSNEST_TESTDATA`, or `shared/testdata` beside the checkout or further up.
fn test_data() -> PathBuf {
    std::env::var_os("CROWSNEST_TESTDATA")
        .map(PathBuf::from)
        .into_iter()
        .chain(
            sources::project()
                .ancestors()
                .map(|folder| folder.join("shared/testdata")),
        )
        .find(|folder| folder.join("osv").is_dir())
        .expect("no test data: set CROWSNEST_TESTDATA to the folder that holds `osv`")
}
