//! Which certificate authorities are trusted.
//!
//! A static binary on somebody's host has to find that host's own authorities, where companies put theirs:
//! `SSL_CERT_FILE`, else the distribution's bundle, else the Mozilla list that is compiled in. `--ca-cert`
//! adds to whichever it is.

use std::fs::File;
use std::path::{Path, PathBuf};

use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use crate::error::{Error, Result};
use crate::limit;

/// Where distributions keep the bundle: Debian and Alpine, Fedora, openSUSE, older Red Hat.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
];

/// Builds the configuration. Errors (`Tell`) when a file named by the user cannot be read or holds no
/// certificate.
pub(super) fn config(extra: &[PathBuf]) -> Result<TlsConfig> {
    let named = std::env::var_os("SSL_CERT_FILE")
        .filter(|path| !path.is_empty())
        .map(PathBuf::from);
    let mut roots = match named {
        Some(path) => certificates(&path)?,
        None => BUNDLES
            .iter()
            .find_map(|path| certificates(Path::new(path)).ok())
            .unwrap_or_default(),
    };
    let has_system_roots = !roots.is_empty();
    for path in extra {
        roots.extend(certificates(path)?);
    }
    let builder = TlsConfig::builder();
    if !has_system_roots && extra.is_empty() {
        return Ok(builder.root_certs(RootCerts::WebPki).build());
    }
    Ok(builder.root_certs(RootCerts::from(roots)).build())
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>> {
    let shown = path.display();
    let pem = File::open(path)
        .map_err(Error::tell)
        .and_then(|file| limit::read_all(file, limit::CERTIFICATE_BYTES, "certificates"))
        .map_err(|err| Error::tell(format_args!("reading certificates `{shown}`: {err}")))?;
    let found: Vec<_> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if found.is_empty() {
        return Err(Error::tell(format_args!("`{shown}` holds no certificate"))
            .hint("expected PEM text with BEGIN CERTIFICATE"));
    }
    Ok(found)
}
