//! Package URLs (<https://github.com/package-url/purl-spec>), built canonically: sorted qualifiers, fixed
//! escapes.

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Everything but unreserved characters is escaped; `:` stays, as the specification asks.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b':');

/// A package URL in canonical form.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Purl(String);

impl Purl {
    /// `qualifiers` come sorted by key; empty values are left out.
    pub(crate) fn new(
        kind: &str,
        namespace: Option<&str>,
        name: &str,
        version: &str,
        qualifiers: &[(&str, String)],
    ) -> Self {
        let mut text = format!("pkg:{kind}/");
        for segment in namespace
            .unwrap_or("")
            .split('/')
            .filter(|segment| !segment.is_empty())
        {
            text.extend(utf8_percent_encode(segment, ESCAPED));
            text.push('/');
        }
        text.extend(utf8_percent_encode(name, ESCAPED));
        if !version.is_empty() {
            text.push('@');
            text.extend(utf8_percent_encode(version, ESCAPED));
        }
        let mut separator = '?';
        for (key, value) in qualifiers.iter().filter(|(_, value)| !value.is_empty()) {
            text.push(separator);
            text.push_str(key);
            text.push('=');
            text.extend(utf8_percent_encode(value, ESCAPED));
            separator = '&';
        }
        Purl(text)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Purl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_forms() {
        for (purl, want) in [
            (
                Purl::new("npm", Some("@types"), "node", "20.1.0", &[]),
                "pkg:npm/%40types/node@20.1.0",
            ),
            (
                Purl::new("golang", Some("github.com/a"), "b", "v1.0.0", &[]),
                "pkg:golang/github.com/a/b@v1.0.0",
            ),
            (
                Purl::new("pypi", None, "six", "", &[("x", String::new())]),
                "pkg:pypi/six",
            ),
            (
                Purl::new("deb", None, "a b", "1:2", &[("arch", "all".to_owned())]),
                "pkg:deb/a%20b@1:2?arch=all",
            ),
        ] {
            assert_eq!(purl.as_str(), want);
        }
    }
}
