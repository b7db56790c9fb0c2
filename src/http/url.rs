//! Addresses of requests, and the origin that credentials are bound to.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ureq::http::Uri;

use crate::error::{Error, Result};

/// An absolute `http` or `https` URL without user information. Prints without its query, which may hold a
/// signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url(Uri);

/// Scheme, host and port: what credentials belong to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Origin {
    pub(crate) scheme: String,
    /// Lower case, without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl FromStr for Url {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |why: &str| {
            Error::tell(format_args!(
                "`{}` is not a URL: {why}",
                without_query(text)
            ))
        };
        let uri: Uri = text
            .parse()
            .map_err(|_| wrong("expected http(s)://host[:port]/path"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(wrong("expected http:// or https://"));
        }
        if uri.host().unwrap_or("").is_empty() {
            return Err(wrong("it has no host"));
        }
        if uri
            .authority()
            .is_some_and(|authority| authority.as_str().contains('@'))
        {
            return Err(wrong("credentials do not belong into it"));
        }
        Ok(Url(uri))
    }
}

impl Url {
    pub(crate) fn uri(&self) -> &Uri {
        &self.0
    }

    pub(crate) fn origin(&self) -> Origin {
        let scheme = self.0.scheme_str().unwrap_or("https").to_owned();
        let port = self
            .0
            .port_u16()
            .unwrap_or(if scheme == "http" { 80 } else { 443 });
        let host = self
            .0
            .host()
            .unwrap_or("")
            .trim_matches(['[', ']'])
            .to_ascii_lowercase();
        Origin { scheme, host, port }
    }

    /// Path and query, as sent.
    pub(crate) fn path_and_query(&self) -> &str {
        self.0.path_and_query().map_or("/", |path| path.as_str())
    }

    pub(crate) fn path(&self) -> &str {
        self.0.path()
    }

    pub(crate) fn query(&self) -> Option<&str> {
        self.0.query()
    }

    /// Resolves a `Location`, absolute or relative (RFC 3986 section 5.2, without `..`, which no registry
    /// sends).
    pub(crate) fn join(&self, location: &str) -> Result<Url> {
        let location = location.split('#').next().unwrap_or("");
        let scheme = self.0.scheme_str().unwrap_or("https");
        let authority = self
            .0
            .authority()
            .map_or("", |authority| authority.as_str());
        let absolute = if location.starts_with("http://") || location.starts_with("https://") {
            location.to_owned()
        } else if let Some(rest) = location.strip_prefix("//") {
            format!("{scheme}://{rest}")
        } else if location.starts_with('/') {
            format!("{scheme}://{authority}{location}")
        } else if location.starts_with('?') {
            format!("{scheme}://{authority}{}{location}", self.path())
        } else if location
            .split(['/', '?'])
            .next()
            .unwrap_or("")
            .contains(':')
        {
            return Err(Error::skip(format_args!(
                "redirect to `{}` is not http",
                without_query(location)
            )));
        } else {
            let folder = self
                .path()
                .rsplit_once('/')
                .map_or("", |(folder, _)| folder);
            format!("{scheme}://{authority}{folder}/{location}")
        };
        absolute.parse()
    }

    /// This URL with other path and query; `path` begins with a slash and is escaped already.
    pub(crate) fn with_path(&self, path: &str) -> Result<Url> {
        self.join(path)
    }
}

fn without_query(text: &str) -> &str {
    text.split('?').next().unwrap_or("")
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(without_query(&self.0.to_string()))
    }
}

impl Origin {
    /// `host` or `host:port` when the port is not the scheme's own.
    pub(crate) fn authority(&self) -> String {
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        match (self.scheme.as_str(), self.port) {
            ("http", 80) | ("https", 443) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }

    /// Whether it is this machine.
    pub(crate) fn is_loopback(&self) -> bool {
        self.host == "localhost"
            || self.host.ends_with(".localhost")
            || self
                .host
                .parse::<IpAddr>()
                .is_ok_and(|ip| ip.to_canonical().is_loopback())
    }

    /// Whether the server at `from` has no business to send us here: from elsewhere to this machine, and from
    /// anywhere to the link-local range, where clouds keep their metadata.
    pub(crate) fn is_internal_to(&self, from: &Origin) -> bool {
        let is_own = self.host == from.host || self.is_loopback() && from.is_loopback();
        self.is_internal() && !is_own
    }

    fn is_internal(&self) -> bool {
        self.is_loopback()
            || self
                .host
                .parse::<IpAddr>()
                .is_ok_and(|ip| match ip.to_canonical() {
                    IpAddr::V4(ip) => ip.is_link_local() || ip.is_unspecified(),
                    IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.is_unspecified(),
                })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_resolve() {
        let base: Url = "https://r.example:8443/v2/app/blobs/x?y=1".parse().unwrap();
        for (location, want) in [
            ("/a?b=c", "https://r.example:8443/a?b=c"),
            ("http://other/x", "http://other/x"),
            ("//cdn.example/x", "https://cdn.example/x"),
            ("?n=2", "https://r.example:8443/v2/app/blobs/x?n=2"),
            ("sibling", "https://r.example:8443/v2/app/blobs/sibling"),
        ] {
            assert_eq!(base.join(location).unwrap().uri().to_string(), want);
        }
        for location in [
            "file:///etc/passwd",
            "gopher:x",
            "https://u:p@h/",
            "javascript:alert(1)",
        ] {
            assert!(base.join(location).is_err(), "{location}");
        }
    }

    #[test]
    fn queries_are_not_printed() {
        let url: Url = "https://s3.example/blob?X-Amz-Signature=abc"
            .parse()
            .unwrap();
        assert_eq!(url.to_string(), "https://s3.example/blob");
    }

    #[test]
    fn internal_addresses() {
        for (text, internal) in [
            ("http://127.0.0.1:5000/", true),
            ("http://[::1]/", true),
            ("http://[::ffff:127.0.0.1]/", true),
            ("http://localhost/", true),
            ("http://169.254.169.254/latest", true),
            ("http://0.0.0.0/", true),
            ("http://10.0.0.1/", false),
            ("https://r.example/", false),
        ] {
            assert_eq!(
                text.parse::<Url>().unwrap().origin().is_internal(),
                internal,
                "{text}"
            );
        }
    }
}
