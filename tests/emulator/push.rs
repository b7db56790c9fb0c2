//! Pushing by the registry protocol: uploads go through to the upstream and are hashed on the
//! way; a manifest makes the storage items.
//!
//! Source: `reference/registries.md` D4 and A1. Layers are never held in memory. *Invariant:* the
//! upstream accepts first; nothing is recorded that it refused.

use serde_json::json;

use super::State;
use super::layout::{Manifest, Place, Unknown, find_blob, find_manifest};
use super::message::{Request, Response};
use super::server::lock;
use super::storage::{Item, Key, Location};
use super::time::now;
use super::upstream::{Hashes, HashingReader, MANIFEST_BYTES, content_of};

/// An upload under way.
pub(crate) struct Upload {
    upstream_url: String,
    hashes: Hashes,
}

/// The image that is pushed to.
pub(crate) struct Pushed<'a> {
    pub(crate) user: &'a str,
    /// The key as asked, and the one the items go to.
    pub(crate) key: &'a str,
    pub(crate) image: &'a str,
    /// What stands in front of `/<image>/...` in our own URLs.
    pub(crate) base: &'a str,
}

impl State {
    /// `POST .../blobs/uploads/`: start, cross-mount, or everything in one request.
    pub(crate) fn answer_upload_start(&self, request: &mut Request, pushed: &Pushed) -> Response {
        let target = match self.push_target(pushed.key) {
            Ok(target) => target,
            Err(response) => return response,
        };
        let Some(upstream) = &self.upstream else {
            return no_upstream();
        };
        let repository = format!("{target}/{}", pushed.image);
        if let (Some(digest), Some(from)) = (request.parameter("mount"), request.parameter("from"))
        {
            let from = from
                .strip_prefix(&format!("{}/", pushed.key))
                .unwrap_or(from);
            let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
            let known = find_blob(&self.storage(), &target, from, hex).is_some();
            if known
                && upstream
                    .mount(&format!("{target}/{from}"), &repository, digest)
                    .is_ok()
            {
                self.add_upload(&target, pushed, hex);
                return created(pushed, digest);
            }
        }
        let upstream_url = match upstream.start_upload(&repository) {
            Ok(url) => url,
            Err(text) => return Response::status_error(502, &text),
        };
        let id = format!("upload-{}", self.next_number());
        let upload = Upload {
            upstream_url,
            hashes: Hashes::default(),
        };
        lock(&self.uploads).insert(id.clone(), upload);
        match request.parameter("digest").map(str::to_owned) {
            Some(digest) => self.finish_upload(request, pushed, &id, &digest),
            None => accepted(pushed, &id, 0),
        }
    }

    /// `PATCH` and `PUT` of an upload.
    pub(crate) fn answer_upload(
        &self,
        request: &mut Request,
        pushed: &Pushed,
        id: &str,
    ) -> Response {
        match (
            request.method.as_str(),
            request.parameter("digest").map(str::to_owned),
        ) {
            ("PUT", Some(digest)) => self.finish_upload(request, pushed, id, &digest),
            ("PATCH", _) => match self.append_upload(request, id) {
                Ok(size) => accepted(pushed, id, size),
                Err(response) => response,
            },
            ("GET", _) => match lock(&self.uploads).get(id) {
                Some(upload) => Response {
                    status: 204,
                    ..accepted(pushed, id, upload.hashes.size())
                },
                None => unknown_upload(),
            },
            ("DELETE", _) => {
                lock(&self.uploads).remove(id);
                Response::new(204)
            }
            _ => Response::registry_error(400, "DIGEST_INVALID", "no digest", json!(null)),
        }
    }

    /// Streams a request's body to the upstream; returns the upload's size so far.
    fn append_upload(&self, request: &mut Request, id: &str) -> Result<u64, Response> {
        let upstream = self.upstream.as_ref().ok_or_else(no_upstream)?;
        let (url, mut hashes) = match lock(&self.uploads).get(id) {
            Some(upload) => (upload.upstream_url.clone(), upload.hashes.clone()),
            None => return Err(unknown_upload()),
        };
        let mut reader = HashingReader {
            inner: &mut *request.body,
            hashes: &mut hashes,
        };
        let upstream_url = upstream
            .append(&url, &mut reader)
            .map_err(|text| Response::status_error(502, &text))?;
        let size = hashes.size();
        let upload = Upload {
            upstream_url,
            hashes,
        };
        lock(&self.uploads).insert(id.to_owned(), upload);
        Ok(size)
    }

    fn finish_upload(
        &self,
        request: &mut Request,
        pushed: &Pushed,
        id: &str,
        digest: &str,
    ) -> Response {
        let length = request.header("content-length");
        if (request.header("transfer-encoding").is_some() || length.is_some_and(|text| text != "0"))
            && let Err(response) = self.append_upload(request, id)
        {
            return response;
        }
        let (Some(upstream), Some(upload)) = (&self.upstream, lock(&self.uploads).remove(id))
        else {
            return unknown_upload();
        };
        let target = match self.push_target(pushed.key) {
            Ok(target) => target,
            Err(response) => return response,
        };
        if let Err(text) = upstream.finish(&upload.upstream_url, digest) {
            return Response::registry_error(400, "DIGEST_INVALID", &text, json!(null));
        }
        let location = Location::Upstream(format!("{target}/{}", pushed.image));
        let content = self.storage_mut().remember(upload.hashes.finish(location));
        self.add_upload(&target, pushed, &content.sha256);
        created(pushed, digest)
    }

    /// Records a blob that no manifest names yet.
    fn add_upload(&self, target: &str, pushed: &Pushed, hex: &str) {
        let mut storage = self.storage_mut();
        if let Some(content) = storage.content(hex).cloned() {
            let item = Item::new(content, "application/octet-stream", pushed.user, now());
            let path = format!("{}/_uploads", pushed.image);
            let key = Key::new(&path, &format!("sha256__{hex}"));
            storage.tree_mut(target).insert(key, item);
        }
    }

    /// `PUT` of a manifest by tag or digest.
    pub(crate) fn answer_put_manifest(
        &self,
        request: &mut Request,
        pushed: &Pushed,
        reference: &str,
    ) -> Response {
        let target = match self.push_target(pushed.key) {
            Ok(target) => target,
            Err(response) => return response,
        };
        let Some(upstream) = &self.upstream else {
            return no_upstream();
        };
        let content_type = request.header("content-type").unwrap_or("").to_owned();
        let bytes = match request.read_body(MANIFEST_BYTES) {
            Ok(bytes) => bytes,
            Err(error) => return Response::status_error(400, &error.to_string()),
        };
        let digest = content_of(&bytes).sha256;
        let by_digest = reference.strip_prefix("sha256:");
        if by_digest.is_some_and(|hex| hex != digest) {
            return Response::registry_error(400, "DIGEST_INVALID", "wrong digest", json!(null));
        }
        let manifest = Manifest::parse(&bytes, &content_type);
        let repository = format!("{target}/{}", pushed.image);
        let stored = upstream.put_manifest(&repository, reference, &manifest.media_type, &bytes);
        if let Err(response) = stored {
            return response;
        }
        let labels = self.labels(&manifest);
        let place = Place {
            repo: &target,
            image: pushed.image,
            folder: reference,
            by: pushed.user,
            now: now(),
            unknown: Unknown::Absent,
        };
        self.put_pushed(&place, &bytes, &manifest, &labels);
        let mut response = Response::new(201)
            .header(
                "Location",
                format!("{}/{}/manifests/sha256:{digest}", pushed.base, pushed.image),
            )
            .header("Docker-Content-Digest", format!("sha256:{digest}"));
        if let Some(subject) = manifest.subject
            && self.switches().on("referrers")
        {
            response = response.header("OCI-Subject", subject);
        }
        response
    }

    /// `DELETE` of a manifest by tag or digest: the folder goes.
    pub(crate) fn answer_delete_manifest(&self, pushed: &Pushed, reference: &str) -> Response {
        let target = pushed.key;
        let found = find_manifest(&self.storage(), target, pushed.image, reference);
        match found {
            Some(key) => {
                self.remove_deleted(target, &key.path, pushed.user);
                Response::new(202)
            }
            None => self.missing("MANIFEST_UNKNOWN", "manifest unknown", pushed.image),
        }
    }
}

fn accepted(pushed: &Pushed, id: &str, size: u64) -> Response {
    let location = format!("{}/{}/blobs/uploads/{id}", pushed.base, pushed.image);
    Response::new(202)
        .header("Location", location)
        .header("Docker-Upload-UUID", id)
        .header("Range", format!("0-{}", size.saturating_sub(1)))
}

fn created(pushed: &Pushed, digest: &str) -> Response {
    let location = format!("{}/{}/blobs/{digest}", pushed.base, pushed.image);
    Response::new(201)
        .header("Location", location)
        .header("Docker-Content-Digest", digest)
}

fn unknown_upload() -> Response {
    Response::registry_error(
        404,
        "BLOB_UPLOAD_UNKNOWN",
        "blob upload unknown",
        json!(null),
    )
}

fn no_upstream() -> Response {
    Response::status_error(
        503,
        "this emulator was started without an upstream registry",
    )
}
