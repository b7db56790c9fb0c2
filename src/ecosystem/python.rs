//! Installed Python distributions, each by its metadata: wheels (PEP 376, PEP 427) and eggs, with headers as
//! in <https://packaging.python.org/en/latest/specifications/core-metadata/> (PEP 566, PEP 639).
//!
//! In: `*.dist-info/METADATA`, `*.egg-info/PKG-INFO`, `*.egg/EGG-INFO/PKG-INFO`, and files `*.egg-info` of
//! distutils. Out: packages of purl type `pypi`.
//!
//! *Invariant:* names are normalized (PEP 503: lower case, runs of `-`, `_` and `.` as one `-`), as the purl
//! type and every advisory write them, so that `Flask_Cors` and `flask-cors` are one package.

use super::field::{key_value, license, lines, name_and_version, shown};
use super::{Candidate, Ecosystem, Found, Want};
use crate::limit;
use crate::sbom::Package;

/// Bytes of a `License` that names one. Longer ones are the text of the license.
const LICENSE_BYTES: usize = 100;

pub(crate) const ROW: Ecosystem = Ecosystem {
    name: "python",
    summary: "Python distributions (dist-info, egg-info)",
    version: 1,
    of_distro: false,
    wants,
    parse,
};

fn wants(candidate: &Candidate<'_>) -> Option<Want> {
    is_metadata(candidate.path).then_some(Want::Whole {
        max: limit::PYTHON_METADATA_BYTES,
    })
}

fn is_metadata(path: &str) -> bool {
    // Most files of an image are sent away here.
    if !path.ends_with("METADATA") && !path.ends_with("-INFO") && !path.ends_with(".egg-info") {
        return false;
    }
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    match name {
        "METADATA" => folder.ends_with(".dist-info"),
        "PKG-INFO" => folder.ends_with(".egg-info") || folder.ends_with(".egg/EGG-INFO"),
        name => name.len() > ".egg-info".len() && name.ends_with(".egg-info"),
    }
}

/// The headers that we read, as written.
#[derive(Default)]
struct Headers<'a> {
    name: Option<&'a [u8]>,
    version: Option<&'a [u8]>,
    license_expression: Option<&'a [u8]>,
    license: Option<&'a [u8]>,
    classifiers: Vec<&'a [u8]>,
}

fn parse(bytes: &[u8], found: &mut Found) {
    let headers = read_headers(bytes, found);
    let Some((name, version)) = name_and_version(headers.name, headers.version, found) else {
        return;
    };
    found.package(Package {
        kind: "pypi",
        namespace: None,
        name: normalized(name),
        version: version.to_owned(),
        architecture: None,
        source: None,
        licenses: licenses(&headers),
    });
}

/// The headers up to the first empty line; after it stands the readme.
fn read_headers<'a>(bytes: &'a [u8], found: &mut Found) -> Headers<'a> {
    let mut headers = Headers::default();
    let mut is_license = false;
    for line in lines(bytes).take_while(|line| !line.is_empty()) {
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            // A license that goes on is the text of one.
            if is_license && !line.trim_ascii().is_empty() {
                headers.license = None;
            }
            continue;
        }
        is_license = false;
        let Some((key, value)) = key_value(line) else {
            // Setuptools wrote licenses of many lines without folding them until 2022.
            if headers.name.is_none() || headers.version.is_none() {
                found.problem(format!("`{}` is not a header", shown(line)));
            }
            continue;
        };
        // Of a repeated header the first one counts, as for Python's `email` module.
        let first = |field: &mut Option<&'a [u8]>| *field = field.or(Some(value));
        match key.to_ascii_lowercase().as_slice() {
            b"name" => first(&mut headers.name),
            b"version" => first(&mut headers.version),
            b"license-expression" => first(&mut headers.license_expression),
            b"license" => {
                first(&mut headers.license);
                is_license = true;
            }
            b"classifier" => headers.classifiers.push(value),
            _ => {}
        }
    }
    headers
}

/// PEP 503, which is for ASCII names.
fn normalized(name: &str) -> String {
    let mut normal = String::with_capacity(name.len());
    for c in name.chars() {
        if !matches!(c, '-' | '_' | '.') {
            normal.push(c.to_ascii_lowercase());
        } else if !normal.ends_with('-') {
            normal.push('-');
        }
    }
    normal
}

/// Where there is an expression it replaces the other two (PEP 639).
fn licenses(headers: &Headers<'_>) -> Vec<String> {
    if let Some(expression) = headers.license_expression
        && let Some(expression) = license(expression, limit::FIELD_BYTES)
    {
        return vec![expression];
    }
    let classified = headers.classifiers.iter().filter_map(|classifier| {
        let name = classifier.strip_prefix(b"License :: ")?;
        let name = name.strip_prefix(b"OSI Approved :: ").unwrap_or(name);
        (name != b"OSI Approved").then_some(name)
    });
    let mut licenses: Vec<_> = headers
        .license
        // What distutils wrote when a project said nothing.
        .filter(|value| *value != b"UNKNOWN")
        .into_iter()
        .chain(classified)
        .filter_map(|value| license(value, LICENSE_BYTES))
        .collect();
    licenses.sort();
    licenses.dedup();
    licenses
}

#[cfg(test)]
mod tests {
    use super::super::testdata;
    use super::*;

    fn parsed(text: &[u8]) -> Found {
        testdata::parsed(&ROW, text)
    }

    #[test]
    fn only_metadata_of_installed_distributions_is_wanted() {
        for (path, wanted) in [
            ("usr/lib/python3/site-packages/a-1.dist-info/METADATA", true),
            ("a-1.dist-info/METADATA", true),
            ("lib/a-1.egg-info/PKG-INFO", true),
            ("lib/a-1-py3.9.egg-info", true),
            ("lib/a-1-py3.9.egg/EGG-INFO/PKG-INFO", true),
            ("lib/a-1.dist-info/RECORD", false),
            ("lib/a-1.dist-info/x/METADATA", false),
            ("lib/METADATA", false),
            ("lib/PKG-INFO", false),
            ("lib/EGG-INFO/PKG-INFO", false),
            ("lib/.egg-info", false),
            ("lib/a-1.egg-info/top_level.txt", false),
        ] {
            assert_eq!(testdata::wants(&ROW, path), wanted, "{path}");
        }
    }

    #[test]
    fn headers_become_packages() {
        for (name, text, want) in [
            ("smallest", "Name: a\nVersion: 1", "pkg:pypi/a@1"),
            (
                "carriage returns",
                "Name: a\r\nVersion: 1\r\n\r\nVersion: 2",
                "pkg:pypi/a@1",
            ),
            (
                "readme",
                "Name: a\nVersion: 1\n\nName: b\nnonsense",
                "pkg:pypi/a@1",
            ),
            (
                "first counts",
                "Name: a\nVersion: 1\nName: b\n",
                "pkg:pypi/a@1",
            ),
            ("case of headers", "name:a\nVERSION:1\n", "pkg:pypi/a@1"),
            (
                "normalized",
                "Name: Zope._-Interface_X\nVersion: 1",
                "pkg:pypi/zope-interface-x@1",
            ),
            (
                "local version",
                "Name: torch\nVersion: 2.1.0+cpu",
                "pkg:pypi/torch@2.1.0%2Bcpu",
            ),
            (
                "folded",
                "Description: x\n  Name: b\nName: a\nVersion: 1",
                "pkg:pypi/a@1",
            ),
            (
                "unfolded license",
                "Name: a\nVersion: 1\nLicense: x\nAll rights",
                "pkg:pypi/a@1",
            ),
        ] {
            let found = parsed(text.as_bytes());
            assert_eq!(found.problems, [""; 0], "{name}");
            let [package] = &found.packages[..] else {
                panic!("{name}: {:?}", found.packages)
            };
            assert_eq!(package.purl(None).as_str(), want, "{name}");
        }
    }

    #[test]
    fn licenses_are_names_and_not_texts() {
        let long = format!("License: {}", "x".repeat(101));
        for (headers, want) in [
            ("License: MIT", &["MIT"][..]),
            ("License: UNKNOWN", &[]),
            ("License: ", &[]),
            ("License: Copyright (c)\n        All rights reserved.", &[]),
            ("License: MIT\nAuthor: x\n y", &["MIT"]),
            (long.as_str(), &[]),
            (
                "License-Expression: MIT OR Apache-2.0\nLicense: x",
                &["MIT OR Apache-2.0"],
            ),
            (
                "Classifier: License :: OSI Approved :: MIT License\nLicense: MIT",
                &["MIT", "MIT License"],
            ),
            ("Classifier: License :: OSI Approved", &[]),
            ("Classifier: License :: Public Domain", &["Public Domain"]),
            ("Classifier: Topic :: License", &[]),
        ] {
            let found = parsed(format!("Name: a\nVersion: 1\n{headers}\n\nx").as_bytes());
            assert_eq!(found.packages[0].licenses, want, "{headers}");
            assert!(found.problems.is_empty(), "{headers}");
        }
    }

    #[test]
    fn what_is_not_understood_is_told() {
        for (text, want) in [
            (&b""[..], "package without a name"),
            (b"Name: a\n\nVersion: 1\n", "package `a` has no version"),
            (b"Version: 1\n", "package without a name"),
            (b"Name: a b\nVersion: 1\n", "`a b` is not a package name"),
            (
                b"Name: a\nVersion: \xff\n",
                "package `a`: `\u{fffd}` is not a version",
            ),
        ] {
            let found = parsed(text);
            assert_eq!(found.problems, [want]);
            assert!(found.packages.is_empty(), "{want}");
        }
        let found = parsed(b"garbage\nName: a\nVersion: 1\n");
        assert_eq!(found.problems, ["`garbage` is not a header"]);
        assert_eq!(found.packages.len(), 1);
    }

    #[test]
    fn real_folders() {
        // The listings have the names as written.
        for case in ["python/wheels", "python/eggs", "python/egg-files"] {
            let got = testdata::packages(&ROW, case)
                .into_iter()
                .map(|(path, p)| vec![p.name, p.version, format!("/{path}")])
                .collect();
            let mut want = testdata::expected(case);
            for row in &mut want {
                row[0] = normalized(&row[0]);
            }
            testdata::assert_same(case, got, want);
        }
    }

    #[test]
    fn no_damage_panics() {
        let seed = b"Metadata-Version: 2.1\nName: Flask_Cors\nVersion: 3.0.10\nLicense: BSD\n  x\n\
                     Classifier: License :: OSI Approved :: BSD License\nAuthor: J\xf6rg\n\nReadme\n";
        testdata::damaged(seed, |bytes| drop(parsed(bytes)));
    }
}
