//! A descriptor: what another document says of a blob (OCI image-spec, descriptor.md).

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::image::{Digest, Platform};
use crate::limit;

/// Media type, digest and size of a manifest, configuration or layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    /// Bytes, as the referring document claims.
    pub(crate) size: u64,
    /// Only in an index.
    pub(crate) platform: Option<Platform>,
    pub(crate) annotations: BTreeMap<String, String>,
    /// Whether the blob is said to live outside of the registry (`urls`).
    pub(crate) is_foreign: bool,
}

/// The JSON form, used by manifests and indexes alike.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Wire {
    #[serde(default)]
    media_type: String,
    digest: String,
    #[serde(default)]
    size: i64,
    platform: Option<WirePlatform>,
    annotations: Option<BTreeMap<String, String>>,
    urls: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct WirePlatform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    variant: Option<String>,
}

impl TryFrom<Wire> for Descriptor {
    type Error = Error;

    /// Errors: `Skip` for a size or digest that is none, `Limit` for words over [`limit::WORD_BYTES`].
    fn try_from(wire: Wire) -> Result<Self> {
        let size = u64::try_from(wire.size)
            .ok()
            .filter(|size| *size <= limit::BLOB_BYTES)
            .ok_or_else(|| {
                Error::skip(format_args!(
                    "descriptor of `{}` has the size {}: expected 0 to {}",
                    wire.digest,
                    wire.size,
                    limit::BLOB_BYTES
                ))
            })?;
        limit::check_word("a media type", &wire.media_type)?;
        let platform = wire.platform.map(|platform| Platform {
            os: platform.os,
            architecture: platform.architecture,
            variant: platform.variant.filter(|variant| !variant.is_empty()),
        });
        Ok(Descriptor {
            digest: wire.digest.parse()?,
            size,
            media_type: wire.media_type,
            platform: platform.map(Platform::checked).transpose()?,
            annotations: wire.annotations.unwrap_or_default(),
            is_foreign: wire.urls.is_some_and(|urls| !urls.is_empty()),
        })
    }
}
