//! Reading by the registry protocol: manifests and blobs of local, remote and virtual keys.
//!
//! Source: `reference/registries.md` A1, A3 (redirects, ranges, conditions), D1. Blobs stream from
//! the upstream. *Invariant:* pulls count as downloads exactly as the switches say.

use serde_json::json;

use super::State;
use super::events::files_in;
use super::layout::{Manifest, Place, Unknown, find_blob, find_manifest, put_manifest};
use super::message::{Payload, Request, Response};
use super::repositories::Source;
use super::storage::{Item, Key, Location, Storage, join};
use super::time::{http_date, now, parse_http_date};
use super::upstream::{Hashes, HashingReader};

const SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";

impl State {
    /// `GET` or `HEAD` of a manifest.
    pub(crate) fn answer_manifest(
        &self,
        request: &Request,
        user: &str,
        key: &str,
        image: &str,
        reference: &str,
    ) -> Response {
        for source in self.sources(key) {
            if let Source::Remote(remote) = &source
                && let Err(response) = self.fetch_manifest(remote, image, reference)
            {
                if response.status == 404 {
                    continue;
                }
                return response;
            }
            let owner = source.owner();
            let found = {
                let storage = self.storage();
                let key = find_manifest(&storage, &owner, image, reference);
                key.and_then(|key| {
                    let item = storage.tree(&owner)?.get(&key)?.clone();
                    Some((key, item))
                })
            };
            if let Some((key, item)) = found {
                return self.send_manifest(request, user, &source, image, &key, &item);
            }
        }
        self.missing(
            "MANIFEST_UNKNOWN",
            "The named manifest is not known to the registry.",
            image,
        )
    }

    fn send_manifest(
        &self,
        request: &Request,
        user: &str,
        source: &Source,
        image: &str,
        key: &Key,
        item: &Item,
    ) -> Response {
        let switches = self.switches();
        let accept: Vec<&str> = request
            .headers
            .iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case("accept"))
            .map(|(_, value)| value.as_str())
            .collect();
        let accept = accept.join(",");
        let accepts = |media_type: &str| {
            accept.is_empty() || accept.contains("*/*") || accept.contains(media_type)
        };
        let mut bytes = match self.bytes_of(&item.content) {
            Ok(bytes) => bytes,
            Err(text) => return Response::status_error(502, &text),
        };
        let manifest = Manifest::parse(&bytes, &item.media_type);
        if !accepts(&item.media_type) {
            // A client that only knows single manifests gets the one for linux/amd64.
            let default = manifest.value["manifests"].as_array().and_then(|list| {
                list.iter().find(|entry| {
                    entry["platform"]["os"] == "linux"
                        && entry["platform"]["architecture"] == "amd64"
                })
            });
            let digest = default.and_then(|entry| entry["digest"].as_str());
            return match digest {
                Some(digest) => self.answer_manifest(request, user, &source.owner(), image, digest),
                None => self.missing(
                    "MANIFEST_UNKNOWN",
                    "The manifest is not of a type that the client accepts.",
                    image,
                ),
            };
        }
        let fresh_copy = matches!(source, Source::Stored(_));
        if request.method == "GET" && fresh_copy && not_modified(request, item) {
            return Response::new(304);
        }
        self.count(request, &source.owner(), key, user);
        let mut media_type = item.media_type.to_string();
        if accept.is_empty() && !manifest.is_index && switches.on("schema1") {
            bytes = schema1(image, &key.path, &manifest);
            media_type = SCHEMA1.to_owned();
        }
        if switches.on("wrong_manifest") {
            spoil(&mut bytes);
        }
        let digest = if media_type == SCHEMA1 {
            super::upstream::content_of(&bytes).sha256
        } else {
            item.content.sha256.clone()
        };
        let registry = match source {
            Source::Remote(remote) if switches.is("registry_header", "key") => remote.clone(),
            _ => source.owner(),
        };
        let mut response = Response::new(200)
            .header("Content-Type", media_type)
            .header("X-Artifactory-Docker-Registry", registry);
        if switches.on("digest_header") {
            response = response.header("Docker-Content-Digest", format!("sha256:{digest}"));
        }
        file_headers(response, key, item).payload(if request.is_head() {
            Payload::Length(bytes.len() as u64)
        } else {
            Payload::Bytes(bytes)
        })
    }

    /// Takes a manifest from the upstream into the remote's cache.
    fn fetch_manifest(&self, remote: &str, image: &str, reference: &str) -> Result<(), Response> {
        if let Some(status) = self.switches().status("remote_status") {
            return Err(Response::registry_error(
                status,
                if status == 429 {
                    "TOOMANYREQUESTS"
                } else {
                    "UNKNOWN"
                },
                "the upstream of this remote repository refused",
                json!(null),
            ));
        }
        let Some(upstream) = &self.upstream else {
            return Ok(());
        };
        let cache = format!("{remote}-cache");
        let by_digest = reference.strip_prefix("sha256:");
        if by_digest.is_some() && find_manifest(&self.storage(), &cache, image, reference).is_some()
        {
            return Ok(());
        }
        let fetched = upstream.manifest(&format!("{remote}/{image}"), reference);
        let (media_type, bytes) = fetched.map_err(|(status, text)| {
            Response::registry_error(
                status,
                "MANIFEST_UNKNOWN",
                &text,
                json!({"manifest": image}),
            )
        })?;
        let manifest = Manifest::parse(&bytes, &media_type);
        let digest = super::upstream::content_of(&bytes).sha256;
        let mut storage = self.storage_mut();
        let cached = find_manifest(&storage, &cache, image, reference);
        let unchanged = cached.is_some_and(|key| {
            let item = storage.tree(&cache).and_then(|tree| tree.get(&key));
            item.is_some_and(|item| item.content.sha256 == digest)
        });
        if unchanged {
            return Ok(());
        }
        let folder = by_digest.map_or(reference.to_owned(), |hex| format!("sha256__{hex}"));
        let unknown = if self.switches().on("marker_files") {
            Unknown::Marker
        } else {
            Unknown::Absent
        };
        let place = Place {
            repo: &cache,
            image,
            folder: &folder,
            by: "anonymous",
            now: now(),
            unknown,
        };
        put_manifest(&mut storage, &place, &bytes, &manifest, &[]);
        let files = files_in(&storage, &cache, &join(image, &folder));
        drop(storage);
        self.emit_cached(&cache, &files);
        Ok(())
    }

    /// `GET` or `HEAD` of a blob.
    pub(crate) fn answer_blob(
        &self,
        request: &Request,
        user: &str,
        key: &str,
        image: &str,
        digest: &str,
    ) -> Response {
        let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
        for source in self.sources(key) {
            let owner = source.owner();
            let mut found = self.stored_blob(&owner, image, hex);
            if found.is_none()
                && let Source::Remote(remote) = &source
            {
                self.fetch_blob(remote, image, hex);
                found = self.stored_blob(&owner, image, hex);
            }
            let Some((key, item)) = found else { continue };
            if self.redirects(request, "blobs") {
                return self.redirect(&owner, &key);
            }
            self.count(request, &owner, &key, user);
            let response = self.send_file(request, &item).header(
                "Docker-Content-Digest",
                format!("sha256:{}", item.content.sha256),
            );
            return file_headers(response, &key, &item);
        }
        self.missing("BLOB_UNKNOWN", "blob unknown to registry", digest)
    }

    fn stored_blob(
        &self,
        owner: &str,
        image: &str,
        hex: &str,
    ) -> Option<(std::sync::Arc<Key>, Item)> {
        let storage = self.storage();
        let key = find_blob(&storage, owner, image, hex)?;
        let item = storage.tree(owner)?.get(&key)?.clone();
        Some((key, item))
    }

    /// Fetches a blob for a remote and puts it beside the cached manifests that name it.
    fn fetch_blob(&self, remote: &str, image: &str, hex: &str) {
        if self.learn_blob(&format!("{remote}/{image}"), hex).is_ok() {
            let cache = format!("{remote}-cache");
            place_blob(&mut self.storage_mut(), &cache, image, hex);
        }
    }

    /// Reads a blob of the upstream once, to know all its digests; an error when there is none.
    pub(crate) fn learn_blob(&self, repository: &str, hex: &str) -> Result<(), String> {
        if self.storage().content(hex).is_some() {
            return Ok(());
        }
        let upstream = self.upstream.as_ref().ok_or("no upstream")?;
        let mut reader = upstream.blob(repository, hex, 0)?;
        let mut hashes = Hashes::default();
        let mut hashing = HashingReader {
            inner: &mut reader,
            hashes: &mut hashes,
        };
        std::io::copy(&mut hashing, &mut std::io::sink()).map_err(|error| error.to_string())?;
        let content = hashes.finish(Location::Upstream(repository.to_owned()));
        self.storage_mut().remember(content);
        Ok(())
    }

    /// Counts a download, unless this request is one that does not count.
    pub(crate) fn count(&self, request: &Request, repo: &str, key: &Key, user: &str) {
        let switches = self.switches();
        let skip = request.parameter("skipUpdateStats") == Some("true");
        // A folder of the storage may be called `v2` too.
        let by_v2 = !request.path.starts_with("/artifactory/")
            || request.path.starts_with("/artifactory/api/docker/");
        if (skip && (!by_v2 || switches.on("v2_skip_stats")))
            || (request.is_head() && !switches.on("head_counts"))
        {
            return;
        }
        drop(switches);
        if let Some(item) = self.storage_mut().tree_mut(repo).get_mut(key) {
            item.downloads += 1;
            item.downloaded = now();
            item.downloaded_by = user.into();
        }
    }

    pub(crate) fn missing(&self, code: &str, message: &str, name: &str) -> Response {
        if self.switches().is("missing", "403") {
            return Response::registry_error(403, "DENIED", "forbidden", json!(null));
        }
        let detail = match code {
            "MANIFEST_UNKNOWN" => json!({"manifest": name}),
            _ => json!({"digest": name}),
        };
        Response::registry_error(404, code, message, detail)
    }
}

/// Puts a known blob beside every cached manifest of an image that names it, in place of its
/// marker.
fn place_blob(storage: &mut Storage, cache: &str, image: &str, hex: &str) {
    let Some(content) = storage.content(hex).cloned() else {
        return;
    };
    let tree = storage.tree_mut(cache);
    let folders: Vec<String> = tree
        .below(image)
        .iter()
        .filter(|(key, item)| key.name == "manifest.json" && names(item, hex))
        .map(|(key, _)| key.path.clone())
        .collect();
    for path in folders {
        tree.remove(&Key::new(&path, &format!("sha256__{hex}.marker")));
        let item = Item::new(
            content.clone(),
            "application/octet-stream",
            "anonymous",
            now(),
        );
        tree.insert(Key::new(&path, &format!("sha256__{hex}")), item);
    }
}

/// True when a manifest's text contains that digest.
fn names(item: &Item, hex: &str) -> bool {
    match &item.content.location {
        Location::Memory(bytes) => String::from_utf8_lossy(bytes).contains(hex),
        Location::Upstream(_) => false,
    }
}

/// The headers every file answer carries.
pub(crate) fn file_headers(response: Response, key: &Key, item: &Item) -> Response {
    let content = &item.content;
    response
        .header("Etag", content.sha1.clone())
        .header("Last-Modified", http_date(item.modified))
        .header("X-Checksum-Sha1", content.sha1.clone())
        .header("X-Checksum-Sha256", content.sha256.clone())
        .header("X-Checksum-Md5", content.md5.clone())
        .header("X-Artifactory-Filename", key.name.clone())
        .header(
            "Content-Disposition",
            format!(
                "attachment; filename=\"{0}\"; filename*=UTF-8''{0}",
                key.name
            ),
        )
}

/// True when the client already has these bytes, by the rules of A3.
pub(crate) fn not_modified(request: &Request, item: &Item) -> bool {
    if let Some(tags) = request.header("if-none-match") {
        return tags
            .split(',')
            .any(|tag| tag.trim().trim_matches('"') == item.content.sha1);
    }
    let since = request
        .header("if-modified-since")
        .and_then(parse_http_date);
    since.is_some_and(|since| item.modified / 1000 <= since / 1000)
}

/// A schema1 manifest as the server converts one: other bytes, other digest.
fn schema1(image: &str, path: &str, manifest: &Manifest) -> Vec<u8> {
    let tag = path.rsplit('/').next().unwrap_or("");
    let layers: Vec<_> = manifest.blobs.iter().skip(1).rev().collect();
    let converted = json!({
        "schemaVersion": 1,
        "name": image,
        "tag": tag,
        "architecture": "amd64",
        "fsLayers": layers.iter().map(|digest| json!({"blobSum": digest})).collect::<Vec<_>>(),
        "history": layers.iter().map(|_| json!({"v1Compatibility": "{}"})).collect::<Vec<_>>(),
        "signatures": [],
    });
    serde_json::to_vec_pretty(&converted).unwrap_or_default()
}

/// Changes one byte.
fn spoil(bytes: &mut [u8]) {
    if let Some(byte) = bytes.last_mut() {
        *byte ^= 1;
    }
}
