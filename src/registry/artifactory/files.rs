//! Files by their storage path, which does not count as a download.

use std::sync::atomic::Ordering;

use ureq::http::Method;

use super::Artifactory;
use super::keys::Class;
use crate::distribution::status_error;
use crate::error::{Error, Result};
use crate::http::Response;
use crate::http::retry::retrying;
use crate::registry::Place;

/// Misses of storage paths in a row after which a key is read through the registry API alone.
const MAX_MISSES: u32 = 20;

impl Artifactory {
    /// The storage path of a manifest's folder, when such paths are worth a try.
    pub(super) fn folder(&self, place: &Place) -> Result<Option<String>> {
        if self.n_misses.load(Ordering::Relaxed) >= MAX_MISSES {
            return Ok(None);
        }
        let (key, image) = self.split(&place.repository)?;
        let is_remote = self.class_of(key)? == Class::Remote;
        let stored = if is_remote {
            format!("{key}-cache")
        } else {
            key.to_owned()
        };
        let folder = match &place.tag {
            Some(tag) => tag.to_string(),
            None if is_remote => format!("sha256__{}", place.digest.hex()),
            None => format!("sha256:{}", place.digest.hex()),
        };
        Ok(Some(format!("{}{stored}/{image}/{folder}", self.api_path)))
    }

    pub(super) fn fetch_file(&self, path: &str, offset: u64) -> Result<Response> {
        let range = format!("bytes={offset}-");
        let headers = [("range", range.as_str())];
        let headers = if offset == 0 { &[][..] } else { &headers[..] };
        let path = format!("{path}?skipUpdateStats=true");
        retrying(self.http.stop(), || {
            let response = self.api.request(Method::GET, &path, headers, None)?;
            if matches!(response.status, 200 | 206) {
                Ok(response)
            } else {
                Err(status_error(response))
            }
        })
    }

    /// Notes whether a storage path led somewhere.
    pub(super) fn note(&self, is_hit: bool) {
        if is_hit {
            self.n_misses.store(0, Ordering::Relaxed);
        } else {
            self.n_misses.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Whether a storage path leads nowhere, so that the registry API has to be asked.
pub(super) fn is_absent(err: &Error) -> bool {
    matches!(err.status(), Some(400 | 403 | 404 | 405 | 410))
}
