//! The image configuration: platform, the digests of the layers' tars, and a few facts
//! (OCI image-spec, config.md).
//!
//! *Invariant:* values of environment variables and labels are not taken: they hold secrets. Their names are.

use serde::Deserialize;

use super::counted::{Counted, CountedKeys};
use crate::error::{Error, Result};
use crate::image::{Digest, Platform};
use crate::limit;

/// What we keep of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) platform: Platform,
    /// Digests of the uncompressed layers, bottom first. Empty in very old images.
    pub(crate) diff_ids: Vec<Digest>,
    /// As written by the builder, often a fixed date.
    pub(crate) created: Option<String>,
    pub(crate) user: Option<String>,
    /// Names only, sorted.
    pub(crate) env_names: Vec<String>,
    /// Names only, sorted.
    pub(crate) label_names: Vec<String>,
}

#[derive(Deserialize)]
struct Wire {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    variant: Option<String>,
    created: Option<String>,
    config: Option<WireConfig>,
    rootfs: Option<RootFs>,
}

#[derive(Deserialize)]
struct WireConfig {
    #[serde(rename = "User")]
    user: Option<String>,
    #[serde(rename = "Env")]
    env: Option<Counted<String, { limit::CONFIG_NAMES }>>,
    #[serde(rename = "Labels")]
    labels: Option<CountedKeys<{ limit::CONFIG_NAMES }>>,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Counted<String, { limit::LAYERS }>,
}

impl Config {
    /// Errors: `Skip` when `bytes` are not an image configuration, `Limit` for words over [`limit::WORD_BYTES`]
    /// and lists over theirs.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Config> {
        let wire: Wire = serde_json::from_slice(bytes)
            .map_err(|err| Error::skip(format_args!("not an image configuration: {err}")))?;
        let diff_ids = wire
            .rootfs
            .map(|rootfs| rootfs.diff_ids)
            .unwrap_or_default()
            .all(|n, max| format!("{n} layers are over the limit of {max}"))?;
        let or_unknown = |text: String| {
            if text.is_empty() {
                "unknown".to_owned()
            } else {
                text
            }
        };
        let inner = wire.config;
        let (user, env, labels) = match inner {
            Some(inner) => (
                inner.user,
                inner.env.unwrap_or_default(),
                inner.labels.unwrap_or_default(),
            ),
            None => (None, Counted::default(), CountedKeys::default()),
        };
        for (what, word) in [("the time of creation", &wire.created), ("the user", &user)] {
            limit::check_word(what, word.as_deref().unwrap_or(""))?;
        }
        let env = env.all(|n, max| format!("{n} variables are over the limit of {max}"))?;
        let mut label_names =
            labels.all(|n, max| format!("{n} labels are over the limit of {max}"))?;
        label_names.sort();
        label_names.dedup();
        let mut env_names: Vec<String> = env
            .iter()
            .map(|line| line.split('=').next().unwrap_or("").to_owned())
            .collect();
        env_names.sort();
        let platform = Platform {
            os: or_unknown(wire.os),
            architecture: or_unknown(wire.architecture),
            variant: wire.variant.filter(|variant| !variant.is_empty()),
        };
        Ok(Config {
            platform: platform.checked()?,
            diff_ids: diff_ids
                .iter()
                .map(|diff_id| diff_id.parse())
                .collect::<Result<_>>()?,
            created: wire.created,
            user: user.filter(|user| !user.is_empty()),
            env_names,
            label_names,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_and_values_are_not() {
        let text = r#"{"os":"linux","architecture":"amd64","config":{"Env":["TOKEN=s3cret","A=1"],"Labels":{"b":"s3cret"},
            "User":"app"},"rootfs":{"type":"layers","diff_ids":[]}}"#;
        let config = Config::parse(text.as_bytes()).unwrap();
        assert!(!format!("{config:?}").contains("s3cret"));
        assert_eq!(
            (config.env_names.join(" "), config.label_names.join(" ")),
            ("A TOKEN".to_owned(), "b".to_owned())
        );
    }

    #[test]
    fn an_empty_configuration_has_an_unknown_platform() {
        assert_eq!(
            Config::parse(b"{}").unwrap().platform.to_string(),
            "unknown/unknown"
        );
        assert!(Config::parse(b"<html>").is_err());
    }
}
