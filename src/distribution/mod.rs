//! A client of the OCI distribution API, for reading.
//!
//! In: a base URL and a credential. Out: names of repositories and tags, raw manifests whose digest was
//! checked, blobs as readers that resume. Source: <https://github.com/opencontainers/distribution-spec>
//! "Pull" and "Content Discovery", and `docs/content/spec/auth` of distribution/distribution for tokens.
//!
//! Errors: `Retry` for passing trouble, `Tell` for refused credentials and pages that no registry sends,
//! `Skip` for what is not there, `Limit` for answers over a limit.
//!
//! *Invariant:* every address that a server names (`Link`, `realm`, `Location`) is a hint: of a link only the
//! query is used, and credentials never leave the origin they were given for.

mod auth;
mod blob;
mod challenge;
mod client;
mod credential_helper;
pub(crate) mod credentials;
mod page;
mod status;

pub(crate) use auth::{Access, CredentialSource, Preemptive};
pub(crate) use blob::Resuming;
pub(crate) use client::Client;
pub(crate) use page::Extent;
pub(crate) use status::status_error;
