//! The operating system and processor an image is for (OCI image-spec, image-index.md, "platform").

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::limit;

/// `os/architecture[/variant]`, such as `linux/arm64/v8`. `unknown/unknown` when nothing is said.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Platform {
    pub(crate) os: String,
    pub(crate) architecture: String,
    pub(crate) variant: Option<String>,
}

impl Platform {
    /// Errors (`Limit`) when a part of it is over [`limit::WORD_BYTES`].
    pub(super) fn checked(self) -> Result<Self> {
        let variant = self.variant.as_deref().unwrap_or("");
        for part in [self.os.as_str(), &self.architecture, variant] {
            limit::check_word("a platform", part)?;
        }
        Ok(self)
    }

    /// Whether `self`, as a user's wish, takes an image of `other`: the variant counts only when asked for.
    pub(crate) fn takes(&self, other: &Platform) -> bool {
        self.os == other.os
            && self.architecture == other.architecture
            && (self.variant.is_none() || self.variant == other.variant)
    }
}

impl FromStr for Platform {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut parts = text.split('/');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(os), Some(architecture), variant, None)
                if !os.is_empty() && !architecture.is_empty() && variant != Some("") =>
            {
                Ok(Platform {
                    os: os.to_owned(),
                    architecture: architecture.to_owned(),
                    variant: variant.map(str::to_owned),
                })
            }
            _ => Err(Error::tell(format_args!(
                "`{text}` is not a platform: expected os/arch[/variant], such as linux/amd64"
            ))),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_parse_print_and_match() {
        let v8: Platform = "linux/arm64/v8".parse().unwrap();
        assert_eq!(v8.to_string(), "linux/arm64/v8");
        assert!("linux/arm64".parse::<Platform>().unwrap().takes(&v8));
        assert!(!"linux/arm64/v7".parse::<Platform>().unwrap().takes(&v8));
        for text in ["linux", "linux/", "/amd64", "a/b/c/d", "a/b/"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }
}
