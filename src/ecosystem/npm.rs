//! Installed npm packages, each by its `package.json`
//! (<https://docs.npmjs.com/cli/configuring-npm/package-json>).
//!
//! In: `node_modules/<name>/package.json` and `node_modules/@<scope>/<name>/package.json`, at any depth.
//! Out: packages of purl type `npm`, the scope with its `@` as namespace.
//!
//! *Invariant:* lock files and the `package.json` of a project are not read, as they tell what was asked for
//! and not what is there.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::field::{license, name_and_version, shown, without_bom};
use super::{Candidate, Ecosystem, Found, Want};
use crate::limit;
use crate::sbom::Package;

pub(crate) const ROW: Ecosystem = Ecosystem {
    name: "npm",
    summary: "npm packages (node_modules/*/package.json)",
    version: 1,
    of_distro: false,
    wants,
    parse,
};

fn wants(candidate: &Candidate<'_>) -> Option<Want> {
    is_of_package(candidate.path).then_some(Want::Whole {
        max: limit::PACKAGE_JSON_BYTES,
    })
}

/// Whether a `package.json` lies directly in a package's folder: deeper ones are fixtures, or only tell the
/// module format of a folder. Names do not start with a dot, which are folders of package managers.
fn is_of_package(path: &str) -> bool {
    let Some(folder) = path.strip_suffix("/package.json") else {
        return false;
    };
    let mut parts = folder.rsplit('/');
    let name = parts.next().unwrap_or_default();
    let parent = match parts.next() {
        Some(scope) if scope.starts_with('@') && scope.len() > 1 => parts.next(),
        parent if name.starts_with('@') => parent.filter(|_| false),
        parent => parent,
    };
    parent == Some("node_modules") && !name.is_empty() && !name.starts_with('.')
}

/// The fields we read. Not derived, as of a repeated key the last one counts for npm, as for every reader
/// built on `JSON.parse`, and a derived reader would refuse the file.
#[derive(Default)]
struct Manifest {
    name: Option<Text>,
    version: Option<Text>,
    license: Option<Licenses>,
    /// The form of before npm 2.
    licenses: Option<Licenses>,
}

/// A string, or that there is something else: a list of a million numbers is not held.
enum Text {
    String(String),
    Other,
}

/// `"MIT"`, `{"type": "MIT", "url": …}`, or a list of these. Other shapes say nothing of a license.
#[derive(Default)]
struct Licenses {
    names: BTreeSet<String>,
    /// Whether there are more than [`limit::LICENSES`], and those left out.
    has_more: bool,
}

impl Licenses {
    fn add(&mut self, name: Option<String>) {
        let Some(name) = name else { return };
        if self.names.len() < limit::LICENSES || self.names.contains(&name) {
            self.names.insert(name);
        } else {
            self.has_more = true;
        }
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let shape = deserializer.deserialize_any(Shapes { list_too: false })?;
        Ok(shape.string.map_or(Text::Other, Text::String))
    }
}

impl<'de> Deserialize<'de> for Licenses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let shape = deserializer.deserialize_any(Shapes { list_too: true })?;
        let own = shape.license();
        let mut licenses = shape.list;
        licenses.add(own);
        Ok(licenses)
    }
}

/// What a value of any shape holds of a text or a license.
#[derive(Default)]
struct Shape {
    string: Option<String>,
    /// The string at `type` of an object.
    kind: Option<String>,
    list: Licenses,
}

impl Shape {
    fn license(&self) -> Option<String> {
        let text = self.string.as_ref().or(self.kind.as_ref())?;
        license(text.as_bytes(), limit::FIELD_BYTES)
    }
}

/// An element of a list of licenses.
struct Element(Shape);

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_any(Shapes { list_too: false })
            .map(Element)
    }
}

/// Reads a value of any shape; of lists the licenses, if `list_too`.
struct Shapes {
    list_too: bool,
}

impl<'de> Visitor<'de> for Shapes {
    type Value = Shape;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Shape, E> {
        Ok(Shape::default())
    }

    fn visit_bool<E>(self, _: bool) -> Result<Shape, E> {
        Ok(Shape::default())
    }

    fn visit_i64<E>(self, _: i64) -> Result<Shape, E> {
        Ok(Shape::default())
    }

    fn visit_u64<E>(self, _: u64) -> Result<Shape, E> {
        Ok(Shape::default())
    }

    fn visit_f64<E>(self, _: f64) -> Result<Shape, E> {
        Ok(Shape::default())
    }

    fn visit_str<E>(self, text: &str) -> Result<Shape, E> {
        Ok(Shape {
            string: Some(text.to_owned()),
            ..Shape::default()
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Shape, A::Error> {
        let mut shape = Shape::default();
        if self.list_too {
            while let Some(Element(element)) = list.next_element()? {
                shape.list.add(element.license());
            }
        }
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(shape)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Shape, A::Error> {
        let mut shape = Shape::default();
        while let Some(key) = map.next_key::<String>()? {
            if key == "type" {
                shape.kind = match map.next_value()? {
                    Text::String(text) => Some(text),
                    Text::Other => None,
                };
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(shape)
    }
}

impl<'de> Deserialize<'de> for Manifest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Manifest;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Manifest, A::Error> {
                let mut manifest = Manifest::default();
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "name" => manifest.name = map.next_value()?,
                        "version" => manifest.version = map.next_value()?,
                        "license" => manifest.license = map.next_value()?,
                        "licenses" => manifest.licenses = map.next_value()?,
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(manifest)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

fn parse(bytes: &[u8], found: &mut Found) {
    let manifest: Manifest = match serde_json::from_slice(without_bom(bytes)) {
        Ok(manifest) => manifest,
        Err(err) => {
            found.problem(shown(err.to_string().as_bytes()));
            return;
        }
    };
    // Packages put such files in their folders to tell the module format: `{"type": "module"}`.
    if manifest.name.is_none() && manifest.version.is_none() {
        return;
    }
    let Some(name) = text(manifest.name.as_ref(), "name", found) else {
        return;
    };
    let Some(version) = text(manifest.version.as_ref(), "version", found) else {
        return;
    };
    let Some((full_name, version)) = name_and_version(name, version, found) else {
        return;
    };
    let (namespace, name) = match full_name.split_once('/') {
        None => (None, full_name),
        Some((scope, name)) if scope.len() > 1 && scope.starts_with('@') => (Some(scope), name),
        Some(_) => (None, ""),
    };
    if name.is_empty() || name.contains('/') {
        found.problem(format!(
            "`{}` is not a package name",
            shown(full_name.as_bytes())
        ));
        return;
    }
    let mut licenses = manifest.license.unwrap_or_default();
    if let Some(others) = manifest.licenses {
        licenses.has_more |= others.has_more;
        others
            .names
            .into_iter()
            .for_each(|name| licenses.add(Some(name)));
    }
    if licenses.has_more {
        found.problem(format!(
            "more than the limit of {} licenses; the rest is left out",
            limit::LICENSES
        ));
    }
    found.package(Package {
        kind: "npm",
        namespace: namespace.map(str::to_owned),
        name: name.to_owned(),
        version: version.to_owned(),
        architecture: None,
        source: None,
        licenses: licenses.names.into_iter().collect(),
    });
}

/// The bytes of a string, `Some(None)` when it is absent. `None` and a problem when it is something else.
#[expect(clippy::option_option, reason = "absent and wrong are told apart")]
fn text<'a>(value: Option<&'a Text>, what: &str, found: &mut Found) -> Option<Option<&'a [u8]>> {
    match value {
        None => Some(None),
        Some(Text::String(text)) => Some(Some(text.as_bytes())),
        Some(Text::Other) => {
            found.problem(format!("the {what} is not a string"));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testdata;
    use super::*;

    fn parsed(text: &[u8]) -> Found {
        testdata::parsed(&ROW, text)
    }

    #[test]
    fn only_files_directly_in_a_package_are_wanted() {
        for (path, wanted) in [
            ("node_modules/a/package.json", true),
            ("usr/lib/node_modules/npm/package.json", true),
            ("app/node_modules/@types/node/package.json", true),
            ("app/node_modules/a/node_modules/b/package.json", true),
            (
                "app/node_modules/.pnpm/a@1.0.0/node_modules/a/package.json",
                true,
            ),
            ("app/package.json", false),
            ("package.json", false),
            ("node_modules/package.json", false),
            ("node_modules/@types/package.json", false),
            ("node_modules/@/a/package.json", false),
            ("node_modules/a/test/package.json", false),
            ("node_modules/@types/node/test/package.json", false),
            ("node_modules/.cache/package.json", false),
            ("old_node_modules/a/package.json", false),
            ("node_modules/a/xpackage.json", false),
            ("node_modules//package.json", false),
        ] {
            assert_eq!(testdata::wants(&ROW, path), wanted, "{path}");
        }
    }

    #[test]
    fn manifests_become_packages() {
        for (json, want, licenses) in [
            (
                r#"{"name":"a","version":"1.0.0"}"#,
                "pkg:npm/a@1.0.0",
                &[][..],
            ),
            (
                "\u{feff}{\"name\":\"a\",\"version\":\"1\"}\r\n",
                "pkg:npm/a@1",
                &[],
            ),
            (r#"{"name":"@s/a","version":"1"}"#, "pkg:npm/%40s/a@1", &[]),
            (
                r#"{"name":"b","name":"a","version":"1"}"#,
                "pkg:npm/a@1",
                &[],
            ),
            (
                r#"{"name":"a","version":"1","license":"MIT"}"#,
                "pkg:npm/a@1",
                &["MIT"],
            ),
            (
                r#"{"name":"a","version":"1","license":{"type":"MIT","url":"x"}}"#,
                "pkg:npm/a@1",
                &["MIT"],
            ),
            (
                r#"{"name":"a","version":"1","licenses":[{"type":"MIT"},{"type":"ISC"},"MIT",1]}"#,
                "pkg:npm/a@1",
                &["ISC", "MIT"],
            ),
            (
                r#"{"name":"a","version":"1","license":[[]],"licenses":7}"#,
                "pkg:npm/a@1",
                &[],
            ),
        ] {
            let found = parsed(json.as_bytes());
            assert_eq!(found.problems, [""; 0], "{json}");
            let [package] = &found.packages[..] else {
                panic!("{json}: {:?}", found.packages)
            };
            assert_eq!(package.purl(None).as_str(), want, "{json}");
            assert_eq!(package.licenses, licenses, "{json}");
        }
    }

    #[test]
    fn stubs_are_neither_packages_nor_problems() {
        for json in [
            r#"{"type":"module"}"#,
            "{}",
            r#"{"name":null,"version":null}"#,
        ] {
            assert_eq!(parsed(json.as_bytes()), Found::default(), "{json}");
        }
    }

    #[test]
    fn what_is_not_understood_is_told() {
        for (json, want) in [
            (r#"{"name":"a"}"#, "package `a` has no version"),
            (r#"{"version":"1"}"#, "package without a name"),
            (r#"{"name":"a","version":1}"#, "the version is not a string"),
            (
                r#"{"name":["a"],"version":"1"}"#,
                "the name is not a string",
            ),
            (
                r#"{"name":"a","version":""}"#,
                "package `a`: `` is not a version",
            ),
            (
                r#"{"name":"a\r\n::x","version":"1"}"#,
                "`a\\r\\n::x` is not a package name",
            ),
            (
                r#"{"name":"a/b","version":"1"}"#,
                "`a/b` is not a package name",
            ),
            (
                r#"{"name":"@s/","version":"1"}"#,
                "`@s/` is not a package name",
            ),
            (
                r#"{"name":"@s/a/b","version":"1"}"#,
                "`@s/a/b` is not a package name",
            ),
            (
                "[]",
                "invalid type: sequence, expected an object at line 1 column 0",
            ),
            ("", "EOF while parsing a value at line 1 column 0"),
            ("{} x", "trailing characters at line 1 column 4"),
        ] {
            let found = parsed(json.as_bytes());
            assert_eq!(found.problems, [want], "{json}");
            assert!(found.packages.is_empty(), "{json}");
        }
        let deep = format!("{{\"x\":{}", "[".repeat(1_000_000));
        assert_eq!(parsed(deep.as_bytes()).problems.len(), 1);
    }

    #[test]
    fn real_folders() {
        for case in ["node/express-v3", "node/small-v1"] {
            let got = testdata::packages(&ROW, case)
                .into_iter()
                .map(|(path, p)| {
                    let scope = p.namespace.map_or_else(String::new, |scope| scope + "/");
                    vec![scope + &p.name, p.version, format!("/{path}")]
                })
                .collect();
            // The listings have the project itself too, which is not an installed package.
            let want = testdata::expected(case)
                .into_iter()
                .filter(|row| row[2].contains("/node_modules/"))
                .collect();
            testdata::assert_same(case, got, want);
        }
    }

    #[test]
    fn no_damage_panics() {
        let seed = br#"{"name":"@babel/core","version":"7.16.0","license":{"type":"MIT"},
            "licenses":[{"type":"ISC"},"MIT"],"x":{"y":[1,null,"\u00e4"]}}"#;
        testdata::damaged(seed, |bytes| drop(parsed(bytes)));
    }
}
