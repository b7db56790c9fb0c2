//! Content digests (OCI image-spec, descriptor.md, "Digests"): parsed once, compared as values.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256, Sha512};

use crate::error::{Error, Result};

/// A digest such as `sha256:` and 64 lower-case hex digits. SHA-256 and SHA-512 are known.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Digest(String);

impl Digest {
    /// SHA-256 of `bytes`.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::sha256();
        hasher.update(bytes);
        hasher.finish()
    }

    /// From 64 hex digits without a prefix, as Artifactory reports them.
    pub(crate) fn from_sha256_hex(hex: &str) -> Result<Self> {
        format!("sha256:{hex}").parse()
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the colon: `sha256` or `sha512`.
    pub(crate) fn algorithm(&self) -> &str {
        &self.0[..6]
    }

    /// The part behind the colon.
    pub(crate) fn hex(&self) -> &str {
        &self.0[7..]
    }

    /// The first 12 hex digits, for people.
    pub(crate) fn short(&self) -> &str {
        &self.0[7..19]
    }

    /// A hasher of this digest's algorithm.
    pub(crate) fn hasher(&self) -> Hasher {
        match self.algorithm() {
            "sha512" => Hasher::Sha512(Box::new(Sha512::new())),
            _ => Hasher::sha256(),
        }
    }
}

impl FromStr for Digest {
    type Err = Error;

    /// Errors (`Skip`) for an unknown algorithm, a wrong length, or anything but lower-case hex.
    fn from_str(text: &str) -> Result<Self> {
        let (algorithm, hex) = text
            .split_once(':')
            .ok_or_else(|| Error::skip(format_args!("`{text}` is not a digest: no `:`")))?;
        let length = match algorithm {
            "sha256" => 64,
            "sha512" => 128,
            _ => {
                return Err(Error::skip(format_args!(
                    "digest algorithm `{algorithm}` is not supported"
                )));
            }
        };
        if hex.len() != length || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(Error::skip(format_args!(
                "`{text}` is not a digest: not {length} lower-case hex digits"
            )));
        }
        Ok(Digest(text.to_owned()))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A running digest.
#[derive(Clone)]
pub(crate) enum Hasher {
    Sha256(Sha256),
    Sha512(Box<Sha512>),
}

impl Hasher {
    pub(crate) fn sha256() -> Self {
        Hasher::Sha256(Sha256::new())
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha256(hasher) => hasher.update(bytes),
            Hasher::Sha512(hasher) => hasher.update(bytes),
        }
    }

    pub(crate) fn finish(self) -> Digest {
        match self {
            Hasher::Sha256(hasher) => Digest(format!("sha256:{}", hex(&hasher.finalize()))),
            Hasher::Sha512(hasher) => Digest(format!("sha512:{}", hex(&hasher.finalize()))),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)] as char);
        text.push(DIGITS[usize::from(byte & 15)] as char);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn known_values() {
        assert_eq!(Digest::of(b"").as_str(), EMPTY);
        let digest: Digest = EMPTY.parse().unwrap();
        assert_eq!(
            (digest.algorithm(), digest.short()),
            ("sha256", "e3b0c44298fc")
        );
        let sha512: Digest = format!("sha512:{}", "0".repeat(128)).parse().unwrap();
        assert_eq!(sha512.hasher().finish().algorithm(), "sha512");
    }

    #[test]
    fn malformed_digests_are_refused() {
        for text in [
            "",
            "sha256",
            "sha256:",
            "sha256:../../etc/passwd",
            "md5:d41d8cd98f00b204e9800998ecf8427e",
            &EMPTY.to_uppercase(),
            &EMPTY[..70],
            &format!("{EMPTY}0"),
            "sha256:E3B0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        ] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }
}
