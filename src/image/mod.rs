//! The nouns of the OCI image specification, data only.
//!
//! In: bytes of manifests, indexes and configurations, names typed by users or sent by registries.
//! Out: [`Digest`], [`Repository`], [`Tag`], [`Reference`], [`Descriptor`], [`Manifest`], [`Config`],
//! [`Platform`]. Sources: <https://github.com/opencontainers/image-spec> and
//! <https://github.com/opencontainers/distribution-spec> ("Pull", names and tags).
//!
//! *Invariant:* nothing here reads a socket or a file, and a value that exists is well formed: a `Digest`
//! has the right length, a `Repository` cannot hold `..`.

pub(crate) mod config;
mod counted;
pub(crate) mod descriptor;
pub(crate) mod digest;
pub(crate) mod manifest;
pub(crate) mod platform;
pub(crate) mod reference;

pub(crate) use config::Config;
pub(crate) use descriptor::Descriptor;
pub(crate) use digest::{Digest, Hasher};
pub(crate) use manifest::Manifest;
pub(crate) use platform::Platform;
pub(crate) use reference::{Reference, Repository, Tag, Version};
