//! A descriptor: what another document says of a blob (OCI image-spec, descriptor.md).

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::counted::Counted;
use super::manifest::REFERENCE_TYPE;
use crate::error::Error;
use crate::image::{Digest, Platform};
use crate::limit;

type Result<T, E = Error> = std::result::Result<T, E>;

/// Media type, digest and size of a manifest, configuration or layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    /// Bytes, as the referring document claims.
    pub(crate) size: u64,
    /// Only in an index.
    pub(crate) platform: Option<Platform>,
    /// Those that somebody reads, and no others.
    pub(crate) annotations: BTreeMap<String, String>,
    /// Whether the blob is said to live outside of the registry (`urls`).
    pub(crate) is_foreign: bool,
}

/// The JSON form, used by manifests and indexes alike.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Wire {
    #[serde(default)]
    media_type: String,
    digest: String,
    #[serde(default)]
    size: i64,
    platform: Option<WirePlatform>,
    annotations: Option<Annotations>,
    urls: Option<Counted<IgnoredAny, 0>>,
}

/// Annotations that are read; a document may have a million others.
const READ: [&str; 3] = [
    REFERENCE_TYPE,
    "org.opencontainers.image.ref.name",
    "io.containerd.image.name",
];

/// Those of [`READ`] that are there.
struct Annotations(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Annotations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Annotations;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Annotations, A::Error> {
                let mut annotations = BTreeMap::new();
                while let Some(key) = map.next_key::<String>()? {
                    if READ.contains(&key.as_str()) {
                        annotations.insert(key, map.next_value()?);
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(Annotations(annotations))
            }
        }
        deserializer.deserialize_map(Read)
    }
}

#[derive(serde::Deserialize)]
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
            annotations: wire.annotations.map_or_else(BTreeMap::new, |read| read.0),
            is_foreign: wire.urls.is_some_and(|urls| urls.n_items > 0),
        })
    }
}
