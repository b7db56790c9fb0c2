//! Everything known of one image, as formats write it.

use crate::image::Digest;
use crate::sbom::{Coverage, Distro, Source};

/// The packages of one image, where each was found, and what could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sbom {
    /// Of the manifest.
    pub(crate) digest: Digest,
    pub(crate) media_type: String,
    pub(crate) config_digest: Option<Digest>,
    /// As the configuration says: `os/architecture[/variant]`.
    pub(crate) platform: String,
    /// As the configuration says, not checked.
    pub(crate) created: Option<String>,
    pub(crate) distro: Option<Distro>,
    /// Compressed bytes of the layers.
    pub(crate) size: u64,
    /// Bottom first; the index of a layer is its position.
    pub(crate) layers: Vec<ImageLayer>,
    /// Sorted by purl, each once.
    pub(crate) packages: Vec<ImagePackage>,
    pub(crate) coverage: Coverage,
}

/// A layer of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ImageLayer {
    /// Of the blob.
    pub(crate) digest: Digest,
    /// Of the tar; `None` when it was not read.
    pub(crate) diff_id: Option<Digest>,
    /// Bytes of the blob.
    pub(crate) size: u64,
    /// Why it was not read.
    pub(crate) refused: Option<String>,
}

/// A package of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ImagePackage {
    pub(crate) purl: String,
    /// The purl type: `deb`, `npm`.
    pub(crate) kind: String,
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) architecture: Option<String>,
    pub(crate) source: Option<Source>,
    /// As declared; sorted, may be empty.
    pub(crate) licenses: Vec<String>,
    /// Name of the ecosystem that read it.
    pub(crate) ecosystem: String,
    /// Sorted, each once, at least one.
    pub(crate) locations: Vec<Location>,
}

/// A file that tells of a package.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Location {
    /// Position of the layer, from 0 at the bottom.
    pub(crate) layer: usize,
    /// Path inside the image, no leading slash.
    pub(crate) path: String,
}
