//! One layer to facts; the facts of an image's layers to its SBOM.
//!
//! In: a layer blob's reader. Out: [`LayerFacts`] ([`layer::read`]); and from the stored facts of an image's
//! layers, which evidence counts in it ([`squash::Squash`]). Limits: evidence files, their bytes, whiteouts,
//! entries of one layer ([`crate::limit`]).
//!
//! *Invariant:* a layer's facts depend on its bytes alone, never on the image or the layers around it, so that
//! they can be kept for ever under its digest.

pub(crate) mod layer;
mod problems;
pub(crate) mod squash;
