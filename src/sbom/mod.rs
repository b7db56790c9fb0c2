//! What is inside an image: packages, the distribution they belong to, the layer and file each was read
//! from, and what could not be read.
//!
//! *Invariant:* plain values; nothing here parses a package database or knows where the values are kept.

pub(crate) mod coverage;
pub(crate) mod distro;
pub(crate) mod document;
pub(crate) mod layer;
pub(crate) mod package;
pub(crate) mod purl;
pub(crate) mod state;

pub(crate) use coverage::{Coverage, Problem};
pub(crate) use distro::Distro;
pub(crate) use document::{ImageLayer, ImagePackage, Location, Sbom};
pub(crate) use layer::{EvidenceFile, LayerFacts, PathSet};
pub(crate) use package::{Package, Source};
pub(crate) use purl::Purl;
pub(crate) use state::State;
