//! The client side of the OCI distribution specification.

pub(crate) mod credential_helper;
pub(crate) mod credentials;
