//! Alpine packages: the database of apk
//! (<https://wiki.alpinelinux.org/wiki/Apk_spec#Syntax_of_the_installed_database>).
//!
//! In: `lib/apk/db/installed`, and `usr/lib/apk/db/installed` of distributions with a merged `/usr`. Lines of
//! a letter, a colon and a value; an empty line after each package. Out: packages of purl type `apk`.

use super::field::{license, lines, name_and_version, shown, word};
use super::{Candidate, Ecosystem, Found, Want};
use crate::limit;
use crate::sbom::{Package, Source};

pub(crate) const ROW: Ecosystem = Ecosystem {
    name: "apk",
    summary: "Alpine packages (lib/apk/db/installed)",
    version: 1,
    of_distro: true,
    wants,
    parse,
};

fn wants(candidate: &Candidate<'_>) -> Option<Want> {
    matches!(
        candidate.path,
        "lib/apk/db/installed" | "usr/lib/apk/db/installed"
    )
    .then_some(Want::Whole {
        max: limit::EVIDENCE_FILE_BYTES,
    })
}

/// The fields of a package that we read, as written.
#[derive(Default)]
struct Entry<'a> {
    has_fields: bool,
    package: Option<&'a [u8]>,
    version: Option<&'a [u8]>,
    architecture: Option<&'a [u8]>,
    origin: Option<&'a [u8]>,
    license: Option<&'a [u8]>,
}

fn parse(bytes: &[u8], found: &mut Found) {
    let mut entry = Entry::default();
    for line in lines(bytes) {
        let (letter, value) = match line {
            [] => {
                finish(std::mem::take(&mut entry), found);
                continue;
            }
            [letter, b':', value @ ..] => (letter, value.trim_ascii()),
            _ => {
                found.problem(format!("`{}` is not a field", shown(line)));
                continue;
            }
        };
        entry.has_fields = true;
        // Case matters: `o` is the origin, `O` is not used; `a` is the mode of a file.
        let field = match letter {
            b'P' => &mut entry.package,
            b'V' => &mut entry.version,
            b'A' => &mut entry.architecture,
            b'o' => &mut entry.origin,
            b'L' => &mut entry.license,
            _ => continue,
        };
        *field = Some(value);
    }
    finish(entry, found);
}

fn finish(entry: Entry<'_>, found: &mut Found) {
    if !entry.has_fields {
        return;
    }
    let Some((name, version)) = name_and_version(entry.package, entry.version, found) else {
        return;
    };
    let mut optional = |value: Option<&[u8]>, what: &str| {
        // Packages made by hand have empty fields.
        let value = value.filter(|value| !value.is_empty())?;
        let text = word(value).map(str::to_owned);
        if text.is_none() {
            found.problem(format!(
                "package `{}`: `{}` is not an {what}",
                shown(name.as_bytes()),
                shown(value)
            ));
        }
        text
    };
    let architecture = optional(entry.architecture, "architecture");
    // All packages of an origin are built together and have its version.
    let source = optional(entry.origin, "origin")
        .filter(|origin| origin != name)
        .map(|name| Source {
            name,
            version: version.to_owned(),
        });
    let package = Package {
        kind: "apk",
        namespace: None,
        name: name.to_owned(),
        version: version.to_owned(),
        architecture,
        source,
        // An SPDX expression in new packages, names with spaces between in old ones: one string either way.
        licenses: entry
            .license
            .and_then(|value| license(value, limit::FIELD_BYTES))
            .into_iter()
            .collect(),
    };
    found.package(package);
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
            ("lib/apk/db/installed", true),
            ("usr/lib/apk/db/installed", true),
            ("srv/lib/apk/db/installed", false),
            ("lib/apk/db/scripts.tar", false),
        ] {
            assert_eq!(testdata::wants(&ROW, path), wanted, "{path}");
        }
    }

    #[test]
    fn entries_become_packages() {
        for (name, text, want) in [
            ("smallest", "P:a\nV:1-r0\n\n", "pkg:apk/a@1-r0"),
            ("no last line end", "P:a\nV:1-r0", "pkg:apk/a@1-r0"),
            (
                "carriage returns",
                "P:a\r\nV:1-r0\r\n\r\n",
                "pkg:apk/a@1-r0",
            ),
            ("origin", "P:a\nV:1\no:b\n", "pkg:apk/a@1?upstream=b"),
            ("same origin", "P:a\nV:1\no:a\n", "pkg:apk/a@1"),
            ("empty origin", "P:a\nV:1\no:\nA:\n", "pkg:apk/a@1"),
            (
                "architecture",
                "P:a\nV:1\nA:x86_64\na:0:0:755\n",
                "pkg:apk/a@1?arch=x86_64",
            ),
            (
                "virtual",
                "P:.build-deps\nV:20240101.1\nA:noarch\n",
                "pkg:apk/.build-deps@20240101.1?arch=noarch",
            ),
            (
                "files",
                "C:Q1x=\nP:a\nV:1\nF:etc\nM:0:0:1777\nR:a\nZ:Q1y=\n\n\n",
                "pkg:apk/a@1",
            ),
        ] {
            let (packages, problems) = parsed(text.as_bytes());
            assert_eq!(packages, [want], "{name}");
            assert_eq!(problems, [""; 0], "{name}");
        }
    }

    #[test]
    fn what_is_not_understood_is_told_and_the_rest_kept() {
        for (text, n_kept, want) in [
            (&b"V:1\n"[..], 0, "package without a name"),
            (b"P:a\n", 0, "package `a` has no version"),
            (b"P:a\nV:\n", 0, "package `a`: `` is not a version"),
            (b"P:a b\nV:1\n", 0, "`a b` is not a package name"),
            (b"x\nP:a\nV:1\n", 1, "`x` is not a field"),
            (b"\0\0\0\nP:a\nV:1\n", 1, "`\\x00\\x00\\x00` is not a field"),
            (
                b"P:a\nV:1\no:\xff\n",
                1,
                "package `a`: `\u{fffd}` is not an origin",
            ),
            (
                b"P:a\nV:1\nA:x y\n",
                1,
                "package `a`: `x y` is not an architecture",
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
            "apk/alpine-3.4.6",
            "apk/alpine-3.10",
            "apk/alpine-3.14.0",
            "apk/alpine-3.18.5-many",
            "apk/alpine-3.20.3",
        ] {
            let got = testdata::packages(&ROW, case)
                .into_iter()
                .map(|(_, p)| {
                    let origin = p.source.map_or(p.name.clone(), |source| source.name);
                    let architecture = p.architecture.unwrap_or_default();
                    vec![p.name, p.version, architecture, origin, p.licenses.concat()]
                })
                .collect();
            testdata::assert_same(case, got, testdata::expected(case));
        }
    }

    #[test]
    fn no_damage_panics() {
        let seed = b"C:Q1abc=\nP:musl-utils\nV:1.2.5-r0\nA:x86_64\nL:MIT AND GPL-2.0\no:musl\n\
                     F:usr/bin\nR:getent\na:0:0:755\n\nP:a\r\nV:1\r\n";
        testdata::damaged(seed, |bytes| drop(parsed(bytes)));
    }
}
