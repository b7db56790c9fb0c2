//! Debian packages: the database of dpkg (deb-control(5), dpkg(1), Debian Policy chapter 5).
//!
//! In: `var/lib/dpkg/status`, the whole database of an image with dpkg, and `var/lib/dpkg/status.d/*`, one
//! file a package, which distroless images have instead. Out: packages of purl type `deb` with their source.
//!
//! *Invariant:* the same paths below another directory are no database of the image and not looked at.

use super::field::{key_value, lines, name_and_version, shown, word};
use super::{Candidate, Ecosystem, Found, Want};
use crate::limit;
use crate::sbom::{Package, Source};

const STATUS_D: &str = "var/lib/dpkg/status.d/";

pub(crate) const ROW: Ecosystem = Ecosystem {
    name: "dpkg",
    summary: "Debian packages (var/lib/dpkg/status, status.d)",
    version: 1,
    of_distro: true,
    wants,
    parse,
};

fn wants(candidate: &Candidate<'_>) -> Option<Want> {
    // The names in status.d are package names or their base64; beside them lie the lists of checksums.
    let is_wanted = candidate.path == "var/lib/dpkg/status"
        || candidate
            .path
            .strip_prefix(STATUS_D)
            .is_some_and(|name| !name.contains('/') && !name.ends_with(".md5sums"));
    is_wanted.then_some(Want::Whole {
        max: limit::EVIDENCE_FILE_BYTES,
    })
}

/// The fields of a stanza that we read, as written.
#[derive(Default)]
struct Stanza<'a> {
    has_fields: bool,
    package: Option<&'a [u8]>,
    version: Option<&'a [u8]>,
    architecture: Option<&'a [u8]>,
    source: Option<&'a [u8]>,
    status: Option<&'a [u8]>,
}

fn parse(bytes: &[u8], found: &mut Found) {
    let mut stanza = Stanza::default();
    for line in lines(bytes) {
        if line.is_empty() {
            finish(std::mem::take(&mut stanza), found);
            continue;
        }
        stanza.has_fields = true;
        // The rest of a folded field. None of those we read may be folded.
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            continue;
        }
        let Some((key, value)) = key_value(line) else {
            found.problem(format!("`{}` is not a field", shown(line)));
            continue;
        };
        // Field names are not case-sensitive (Debian Policy 5.1).
        let field = match key.to_ascii_lowercase().as_slice() {
            b"package" => &mut stanza.package,
            b"version" => &mut stanza.version,
            b"architecture" => &mut stanza.architecture,
            b"source" => &mut stanza.source,
            b"status" => &mut stanza.status,
            _ => continue,
        };
        *field = Some(value);
    }
    finish(stanza, found);
}

fn finish(stanza: Stanza<'_>, found: &mut Found) {
    if !stanza.has_fields || !is_on_disk(stanza.status, found) {
        return;
    }
    let Some((name, version)) = name_and_version(stanza.package, stanza.version, found) else {
        return;
    };
    let architecture = stanza.architecture.and_then(|value| {
        let architecture = word(value).map(str::to_owned);
        if architecture.is_none() {
            found.problem(format!(
                "package `{}`: `{}` is not an architecture",
                shown(name.as_bytes()),
                shown(value)
            ));
        }
        architecture
    });
    let source = stanza.source.and_then(|value| {
        let source = source(value, version);
        if source.is_none() {
            found.problem(format!(
                "package `{}`: `{}` is not a source package",
                shown(name.as_bytes()),
                shown(value)
            ));
        }
        source
    });
    found.package(Package {
        kind: "deb",
        namespace: None,
        name: name.to_owned(),
        version: version.to_owned(),
        architecture,
        source: source.filter(|source| source.name != name || source.version != version),
        licenses: Vec::new(),
    });
}

/// Whether the files of a package are in the image, by the third word of its `Status` (dpkg(1), "package
/// states"). Only `not-installed` and `config-files` leave nothing but configuration. In all states between,
/// such as `half-configured` after a failed script or `triggers-pending` in an image built without running
/// triggers, the files were unpacked, and it is the files that are vulnerable. A stanza without `Status` is
/// one of status.d.
fn is_on_disk(status: Option<&[u8]>, found: &mut Found) -> bool {
    let Some(status) = status else {
        return true;
    };
    let mut words = status
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty());
    match words.nth(2) {
        Some(b"not-installed" | b"config-files") => false,
        Some(
            b"half-installed" | b"unpacked" | b"half-configured" | b"triggers-awaited"
            | b"triggers-pending" | b"installed",
        ) => true,
        _ => {
            found.problem(format!("`{}` is not a package status", shown(status)));
            true
        }
    }
}

/// Reads `name` or `name (version)`; the version is that of the binary package unless given.
fn source(value: &[u8], binary_version: &str) -> Option<Source> {
    let text = std::str::from_utf8(value).ok()?;
    let (name, version) = match text.split_once('(') {
        Some((name, rest)) => (name.trim_ascii_end(), rest.strip_suffix(')')?.trim_ascii()),
        None => (text, binary_version),
    };
    Some(Source {
        name: word(name.as_bytes())?.to_owned(),
        version: word(version.as_bytes())?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::testdata;
    use super::*;

    fn parsed(text: &[u8]) -> (Vec<String>, Vec<String>) {
        let found = testdata::parsed(&ROW, text);
        let packages = found.packages.iter().map(|p| p.purl(None).to_string());
        (packages.collect(), found.problems)
    }

    #[test]
    fn only_the_database_of_the_image_is_wanted() {
        for (path, wanted) in [
            ("var/lib/dpkg/status", true),
            ("var/lib/dpkg/status-old", false),
            ("some/dir/var/lib/dpkg/status", false),
            ("var/lib/dpkg/status.d/libc6", true),
            ("var/lib/dpkg/status.d/bGliYzY=", true),
            ("var/lib/dpkg/status.d/libc6.md5sums", false),
            ("var/lib/dpkg/status.d/a/b", false),
            ("var/lib/dpkg/available", false),
        ] {
            assert_eq!(testdata::wants(&ROW, path), wanted, "{path}");
        }
    }

    #[test]
    fn stanzas_become_packages() {
        for (name, text, want) in [
            ("smallest", "Package: a\nVersion: 1\n", "pkg:deb/a@1"),
            ("no last line end", "Package: a\nVersion: 1", "pkg:deb/a@1"),
            (
                "carriage returns",
                "Package: a\r\nVersion: 1\r\n\r\n",
                "pkg:deb/a@1",
            ),
            (
                "empty lines",
                "\n\n\nPackage: a\nVersion: 1\n\n\n",
                "pkg:deb/a@1",
            ),
            ("case of fields", "PACKAGE:a\nversion:\t1\n", "pkg:deb/a@1"),
            (
                "folded",
                "Package: a\nConffiles:\n /etc/a 12\n .\n Version: 2\nVersion: 1",
                "pkg:deb/a@1",
            ),
            (
                "blank folded line",
                "Package: a\nDescription: x\n \n y\nVersion: 1",
                "pkg:deb/a@1",
            ),
            (
                "architecture",
                "Package: a\nVersion: 1\nArchitecture: all",
                "pkg:deb/a@1?arch=all",
            ),
            (
                "source",
                "Package: a\nVersion: 1\nSource: b",
                "pkg:deb/a@1?upstream=b",
            ),
            (
                "same source",
                "Package: a\nVersion: 1\nSource: a",
                "pkg:deb/a@1",
            ),
            (
                "source version",
                "Package: a\nVersion: 1+b3\nSource: a (1)",
                "pkg:deb/a@1%2Bb3?upstream=a%401",
            ),
            (
                "same source version",
                "Package: a\nVersion: 1\nSource: a (1)",
                "pkg:deb/a@1",
            ),
            (
                "source before version",
                "Source: b (2)\nVersion: 1\nPackage: a",
                "pkg:deb/a@1?upstream=b%402",
            ),
            (
                "removed",
                "Package: b\nStatus: deinstall ok config-files\nVersion: 2\n\nPackage: a\nVersion: 1",
                "pkg:deb/a@1",
            ),
            (
                "unpacked",
                "Package: a\nVersion: 1\nStatus: install ok unpacked",
                "pkg:deb/a@1",
            ),
            (
                "failed script",
                "Package: a\nVersion: 1\nStatus: install ok half-configured",
                "pkg:deb/a@1",
            ),
            (
                "to be removed",
                "Package: a\nVersion: 1\nStatus: deinstall ok installed",
                "pkg:deb/a@1",
            ),
        ] {
            let (packages, problems) = parsed(text.as_bytes());
            assert_eq!(packages, [want], "{name}");
            assert_eq!(problems, [""; 0], "{name}");
        }
    }

    #[test]
    fn absent_packages_need_no_version() {
        let (packages, problems) = parsed(b"Package: a\nStatus: unknown ok not-installed\n");
        assert!(packages.is_empty() && problems.is_empty());
    }

    #[test]
    fn what_is_not_understood_is_told_and_the_rest_kept() {
        for (text, n_kept, want) in [
            (&b"Version: 1\n"[..], 0, "package without a name"),
            (b"Package: a\n", 0, "package `a` has no version"),
            (
                b"Package: a\nVersion:\n",
                0,
                "package `a`: `` is not a version",
            ),
            (
                b"Package: a b\nVersion: 1\n",
                0,
                "`a b` is not a package name",
            ),
            (
                b"Package: \xff\nVersion: 1\n",
                0,
                "`\u{fffd}` is not a package name",
            ),
            (
                b"Package: a\x1b[2J\nVersion: 1\n",
                0,
                "`a\\x1b[2J` is not a package name",
            ),
            (b"Package: a\nVersion: 1\nx\n", 1, "`x` is not a field"),
            (
                b"Package: a\nVersion: 1\nSource: b (\n",
                1,
                "package `a`: `b (` is not a source package",
            ),
            (
                b"Package: a\nVersion: 1\nArchitecture: a b\n",
                1,
                "package `a`: `a b` is not an architecture",
            ),
            (
                b"Package: a\nVersion: 1\nStatus: install\n",
                1,
                "`install` is not a package status",
            ),
        ] {
            let (packages, problems) = parsed(text);
            assert_eq!(problems, [want]);
            assert_eq!(packages.len(), n_kept, "{want}");
        }
    }

    #[test]
    fn real_databases() {
        for case in [
            "dpkg/debian-11.5-nginx",
            "dpkg/debian-12-minbase",
            "dpkg/debian-12-node-npm",
            "dpkg/distroless-amd64",
            "dpkg/ubuntu-22.04",
        ] {
            let got = testdata::packages(&ROW, case)
                .into_iter()
                .map(|(_, p)| {
                    let source = p.source.unwrap_or(Source {
                        name: p.name.clone(),
                        version: p.version.clone(),
                    });
                    let architecture = p.architecture.unwrap();
                    vec![p.name, p.version, architecture, source.name, source.version]
                })
                .collect();
            let want = testdata::expected(case)
                .into_iter()
                .map(|row| row[..5].to_vec())
                .collect();
            testdata::assert_same(case, got, want);
        }
    }

    #[test]
    fn no_damage_panics() {
        let seed = b"Package: libc6\nStatus: install ok installed\nArchitecture: amd64\n\
                     Source: glibc (2.36-9)\nVersion: 2.36-9+b1\nDescription: x\n y\n .\n\n\
                     Package: a\r\nVersion: 1\r\n";
        testdata::damaged(seed, |bytes| drop(parsed(bytes)));
    }
}
