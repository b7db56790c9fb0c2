//! Answers about the store, computed once, for whatever shows them.
//!
//! In: the store, and what was asked. Out: the answers that `format` declares. Errors (`Tell`) when what was
//! asked for is not there, with a hint at what is; `Stop` when the store cannot be read.
//!
//! *Invariant:* nothing is written, to the store or anywhere else, so that every answer can be had while
//! other processes watch.

pub(crate) mod images;
pub(crate) mod sbom;
pub(crate) mod status;
