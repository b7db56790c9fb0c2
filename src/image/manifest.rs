//! Manifests and indexes, OCI and Docker schema 2, told apart by what they hold.
//!
//! Sources: OCI image-spec manifest.md and image-index.md; Docker "Image Manifest V2, Schema 2". The media
//! type of the answer decides, a `mediaType` inside must agree, and without either the fields decide. A
//! document that is both an index and an image is refused (GHSA-qq97-vm5h-rrhg).

use serde::Deserialize;

use super::counted::Counted;
use super::descriptor::Wire;
use crate::error::{Error, Result};
use crate::image::{Descriptor, Digest, Hasher, Version};
use crate::limit;

pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1+json";
const SCHEMA_1_SIGNED: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";

/// The `Accept` of every manifest request: what we read, then schema 1, only to be able to say that it is
/// not supported. One joined line, since some servers read only the first.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.v1+prettyjws;q=0.1, \
    application/vnd.docker.distribution.manifest.v1+json;q=0.1";

/// The annotation by which BuildKit marks an attestation inside an index
/// (moby/buildkit docs/attestations/attestation-storage.md).
pub(super) const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
/// Configurations that belong to an image; anything else is an artifact.
const IMAGE_CONFIGS: [&str; 2] = [
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
];

/// A manifest or index as received: its digest is over these bytes.
#[derive(Clone, Debug)]
pub(crate) struct RawManifest {
    pub(crate) bytes: Vec<u8>,
    /// As the server says; may be empty.
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
}

impl RawManifest {
    /// Digests `bytes` and compares with the digest in `asked`, else with the one that the server `claimed`.
    /// Errors (`Retry`) when they differ.
    pub(crate) fn checked(
        bytes: Vec<u8>,
        media_type: String,
        asked: &Version,
        claimed: Option<&Digest>,
    ) -> Result<Self> {
        let expected = match asked {
            Version::Digest(digest) => Some(digest),
            Version::Tag(_) => claimed,
        };
        let mut hasher = expected.map_or_else(Hasher::sha256, Digest::hasher);
        hasher.update(&bytes);
        let digest = hasher.finish();
        match expected {
            Some(expected) if *expected != digest => Err(Error::retry(format_args!(
                "manifest has the digest `{digest}`, expected `{expected}`"
            ))),
            _ => Ok(RawManifest {
                bytes,
                media_type,
                digest,
            }),
        }
    }

    pub(crate) fn parse(&self) -> Result<Manifest> {
        Manifest::parse(&self.bytes, &self.media_type)
    }
}

/// A parsed manifest or index.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Manifest {
    Image(Box<ImageManifest>),
    Index(Index),
}

/// One image, or an artifact in an image's clothes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ImageManifest {
    pub(crate) media_type: &'static str,
    pub(crate) config: Descriptor,
    /// Bottom layer first.
    pub(crate) layers: Vec<Descriptor>,
    pub(crate) artifact_type: Option<String>,
    /// `subject`: the manifest this one speaks of.
    pub(crate) subject: Option<Descriptor>,
}

impl ImageManifest {
    /// The artifact type when this is no container image (a Helm chart, a signature, an attestation).
    pub(crate) fn not_an_image(&self) -> Option<&str> {
        match &self.artifact_type {
            Some(artifact_type) => Some(artifact_type),
            None if IMAGE_CONFIGS.contains(&self.config.media_type.as_str()) => None,
            None => Some(&self.config.media_type),
        }
    }
}

/// A list of manifests.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Index {
    pub(crate) media_type: &'static str,
    pub(crate) manifests: Vec<Descriptor>,
}

/// What an entry of an index is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Image,
    Attestation,
    /// Marked as something that we do not know; BuildKit asks readers to ignore it.
    Other,
}

/// Tells what `descriptor`, an entry of an index, points to.
pub(crate) fn entry_of(descriptor: &Descriptor) -> Entry {
    match descriptor
        .annotations
        .get(REFERENCE_TYPE)
        .map(String::as_str)
    {
        None => Entry::Image,
        Some("attestation-manifest") => Entry::Attestation,
        Some(_) => Entry::Other,
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireManifest {
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Wire>,
    layers: Option<Counted<Wire, { limit::LAYERS }>>,
    manifests: Option<Counted<Wire, { limit::INDEX_ENTRIES }>>,
    subject: Option<Wire>,
    fs_layers: Option<serde::de::IgnoredAny>,
}

impl Manifest {
    /// Parses `bytes`, which the server called `content_type` (may be empty).
    /// Errors: `Skip` for schema 1, unknown shapes, contradictions, `Limit` for too many entries and for words over
    /// [`limit::WORD_BYTES`].
    pub(crate) fn parse(bytes: &[u8], content_type: &str) -> Result<Manifest> {
        let claimed = content_type.split(';').next().unwrap_or("").trim();
        let wire: WireManifest = serde_json::from_slice(bytes)
            .map_err(|err| Error::skip(format_args!("not a manifest: {err}")))?;
        if wire.fs_layers.is_some() || claimed == SCHEMA_1 || claimed == SCHEMA_1_SIGNED {
            return Err(Error::skip("unsupported: Docker schema 1 manifest")
                .hint("push the image again with a current client, which writes schema 2 or OCI"));
        }
        if wire.manifests.is_some() && (wire.layers.is_some() || wire.config.is_some()) {
            return Err(Error::skip("manifest is both an index and an image"));
        }
        let inside = wire.media_type.as_deref().unwrap_or("");
        if is_known(claimed) && is_known(inside) && claimed != inside {
            return Err(Error::skip(format_args!(
                "manifest says `{inside}`, the server says `{claimed}`"
            )));
        }
        let media_type = if is_known(inside) { inside } else { claimed };
        match (wire.manifests, wire.config) {
            (Some(manifests), None) => index(media_type, manifests),
            (None, Some(config)) => {
                let layers = wire.layers.unwrap_or_default();
                let layers =
                    layers.all(|n, max| format!("{n} layers are over the limit of {max}"))?;
                let artifact_type = wire.artifact_type.filter(|text| !text.is_empty());
                limit::check_word("an artifact type", artifact_type.as_deref().unwrap_or(""))?;
                Ok(Manifest::Image(Box::new(ImageManifest {
                    media_type: if media_type == DOCKER_MANIFEST {
                        DOCKER_MANIFEST
                    } else {
                        OCI_MANIFEST
                    },
                    config: config.try_into()?,
                    layers: layers
                        .into_iter()
                        .map(Descriptor::try_from)
                        .collect::<Result<_>>()?,
                    artifact_type,
                    subject: wire.subject.map(Descriptor::try_from).transpose()?,
                })))
            }
            _ => Err(Error::skip(format_args!(
                "unsupported manifest of type `{claimed}`"
            ))),
        }
    }
}

fn index(media_type: &str, manifests: Counted<Wire, { limit::INDEX_ENTRIES }>) -> Result<Manifest> {
    let manifests =
        manifests.all(|n, max| format!("index of {n} manifests is over the limit of {max}"))?;
    Ok(Manifest::Index(Index {
        media_type: if media_type == DOCKER_LIST {
            DOCKER_LIST
        } else {
            OCI_INDEX
        },
        manifests: manifests
            .into_iter()
            .map(Descriptor::try_from)
            .collect::<Result<_>>()?,
    }))
}

fn is_known(media_type: &str) -> bool {
    [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST].contains(&media_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn image(extra: &str) -> String {
        format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{A}","size":3}},
            "layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"{A}","size":5}}]{extra}}}"#
        )
    }

    #[test]
    fn shapes_are_told_apart() {
        let parsed = Manifest::parse(image("").as_bytes(), OCI_MANIFEST).unwrap();
        let Manifest::Image(parsed) = parsed else {
            panic!("an image")
        };
        assert_eq!(
            (
                parsed.layers.len(),
                parsed.layers[0].size,
                parsed.not_an_image()
            ),
            (1, 5, None)
        );
        let text = format!(
            r#"{{"manifests":[{{"digest":"{A}","size":1,"platform":{{"os":"linux","architecture":"arm64","variant":"v8"}}}}]}}"#
        );
        let Manifest::Index(index) = Manifest::parse(text.as_bytes(), "").unwrap() else {
            panic!("an index")
        };
        assert_eq!(
            index.manifests[0].platform.as_ref().unwrap().to_string(),
            "linux/arm64/v8"
        );
        let text =
            image(r#","artifactType":"application/vnd.docker.attestation.manifest.v1+json""#);
        let Manifest::Image(parsed) = Manifest::parse(text.as_bytes(), "").unwrap() else {
            panic!("an artifact")
        };
        assert_eq!(
            parsed.not_an_image(),
            Some("application/vnd.docker.attestation.manifest.v1+json")
        );
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        let both = image(r#","manifests":[]"#);
        let disagree = image(&format!(r#","mediaType":"{DOCKER_MANIFEST}""#));
        let many = format!(
            r#"{{"manifests":[{}]}}"#,
            vec![format!(r#"{{"digest":"{A}","size":1}}"#); 1001].join(",")
        );
        for (text, content_type, want) in [
            ("{", "", "not a manifest"),
            (r#"{"schemaVersion":1,"fsLayers":[]}"#, "", "schema 1"),
            (both.as_str(), "", "both an index and an image"),
            (disagree.as_str(), OCI_MANIFEST, "the server says"),
            (many.as_str(), "", "over the limit of 1000"),
            (
                r#"{"config":{"digest":"sha256:../../x","size":1}}"#,
                "",
                "not a digest",
            ),
            (
                r#"{"config":{"digest":"sha256:x","size":-1}}"#,
                "",
                "has the size -1",
            ),
            (
                "{}",
                "text/html",
                "unsupported manifest of type `text/html`",
            ),
        ] {
            let err = Manifest::parse(text.as_bytes(), content_type)
                .unwrap_err()
                .to_string();
            assert!(err.contains(want), "{err} lacks {want}");
        }
    }

    #[test]
    fn deep_json_is_an_error_and_no_overflow() {
        let text = "[".repeat(1_000_000);
        assert!(Manifest::parse(text.as_bytes(), "").is_err());
    }
}
