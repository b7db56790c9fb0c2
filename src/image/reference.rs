//! Names of images: registry host, repository, tag or digest.
//!
//! Grammar of repositories and tags: OCI distribution-spec, "Pulling manifests". A host stands first when
//! its text has a `.` or a `:`, or is `localhost`, as in every container tool.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::image::Digest;

/// Bytes of a repository name, host included, that registries accept.
const NAME_BYTES: usize = 255;

/// A repository name inside a registry, such as `team/app`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Repository(String);

impl Repository {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Repository {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let ok = !text.is_empty() && text.len() <= NAME_BYTES && text.split('/').all(is_component);
        if ok {
            Ok(Repository(text.to_owned()))
        } else {
            Err(Error::skip(format_args!(
                "`{text}` is not a repository name"
            )))
        }
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`, with upper case let through: some registries have it.
fn is_component(text: &str) -> bool {
    let bytes = text.as_bytes();
    let alphanumeric = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    alphanumeric(bytes.first())
        && alphanumeric(bytes.last())
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        && !text.contains("..")
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A tag, such as `1.4.2`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Tag(String);

impl Tag {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bytes = text.as_bytes();
        let ok = (1..=128).contains(&bytes.len())
            && bytes
                .iter()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
            && !matches!(bytes[0], b'.' | b'-');
        if ok {
            Ok(Tag(text.to_owned()))
        } else {
            Err(Error::skip(format_args!("`{text}` is not a tag")))
        }
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a manifest is asked by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    Tag(Tag),
    Digest(Digest),
}

impl Version {
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Version::Tag(tag) => tag.as_str(),
            Version::Digest(digest) => digest.as_str(),
        }
    }
}

impl FromStr for Version {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text.contains(':') {
            text.parse().map(Version::Digest)
        } else {
            text.parse().map(Version::Tag)
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `[host/]repository[:tag][@digest]`. With both, the digest counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    pub(crate) host: Option<String>,
    pub(crate) repository: Repository,
    pub(crate) tag: Option<Tag>,
    pub(crate) digest: Option<Digest>,
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest.parse()?)),
            None => (text, None),
        };
        let (host, path) = match name.split_once('/') {
            Some((host, path)) if is_host(host) => (Some(host.to_owned()), path),
            _ => (None, name),
        };
        let (repository, tag) = match path.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag.parse()?)),
            None => (path, None),
        };
        Ok(Reference {
            host,
            repository: repository.parse()?,
            tag,
            digest,
        })
    }
}

/// Whether the first path component of a reference is a registry host.
fn is_host(text: &str) -> bool {
    (text == "localhost" || text.contains(['.', ':'])) && !text.contains(char::is_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_split_at_host_tag_and_digest() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (text, host, repository, tag) in [
            ("app", None, "app", None),
            ("team/app:1.0", None, "team/app", Some("1.0")),
            (
                "localhost:5000/app:x",
                Some("localhost:5000"),
                "app",
                Some("x"),
            ),
            ("r.example/team/app", Some("r.example"), "team/app", None),
        ] {
            let parsed: Reference = text.parse().unwrap();
            assert_eq!(parsed.host.as_deref(), host, "{text}");
            assert_eq!(parsed.repository.as_str(), repository, "{text}");
            assert_eq!(parsed.tag.as_ref().map(Tag::as_str), tag, "{text}");
        }
        let parsed: Reference = format!("r.example/app:1@{digest}").parse().unwrap();
        assert_eq!(parsed.digest.unwrap().as_str(), digest);
    }

    #[test]
    fn names_that_could_be_paths_or_urls_are_refused() {
        for text in [
            "", "/app", "app/", "a//b", "../x", "a/../b", "a b", "a?b", "a%2fb", ".hidden", "a\nb",
        ] {
            assert!(text.parse::<Repository>().is_err(), "{text}");
        }
        for text in ["", ".x", "-x", "a/b", "a b", &"x".repeat(129)] {
            assert!(text.parse::<Tag>().is_err(), "{text}");
        }
    }
}
