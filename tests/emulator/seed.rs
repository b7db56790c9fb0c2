//! Filling the storage without a client, and looking into it: for tests that need many tags,
//! chosen times or odd layouts.
//!
//! Seeded bytes are held in memory. *Invariant:* a seeded image has the layout a pushed one has.

use std::sync::Arc;

use super::layout::{Manifest, Place, Unknown, put_manifest};
use super::storage::{Item, Key};
use super::time::now;
use super::upstream::content_of;
use super::{Emulator, State};

/// The three times of an item, milliseconds since 1970.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) created: i64,
    pub(crate) modified: i64,
    pub(crate) updated: i64,
}

impl Times {
    /// All three the same.
    pub(crate) fn at(milliseconds: i64) -> Times {
        Times {
            created: milliseconds,
            modified: milliseconds,
            updated: milliseconds,
        }
    }
}

impl Emulator {
    /// Stores a manifest under a tag (or, for `sha256:...`, by digest); returns its digest. The
    /// owner is `repo` as it is: name the cache of a remote, not the remote.
    pub(crate) fn seed(&self, repo: &str, image: &str, tag: &str, manifest: &[u8]) -> String {
        let parsed = Manifest::parse(manifest, "");
        let labels = self.state.labels(&parsed);
        let place = Place {
            repo,
            image,
            folder: tag,
            by: "admin",
            now: now(),
            unknown: Unknown::Absent,
        };
        let mut storage = self.state.storage_mut();
        let content = put_manifest(&mut storage, &place, manifest, &parsed, &labels);
        format!("sha256:{}", content.sha256)
    }

    /// The same as if a client had pushed it, with the webhook events of a push; for a list of
    /// platforms, call it for each platform's manifest with its digest as the tag first.
    pub(crate) fn seed_pushed(&self, repo: &str, image: &str, tag: &str, bytes: &[u8]) -> String {
        let parsed = Manifest::parse(bytes, "");
        let labels = self.state.labels(&parsed);
        let place = Place {
            repo,
            image,
            folder: tag,
            by: "admin",
            now: now(),
            unknown: Unknown::Absent,
        };
        let content = self.state.put_pushed(&place, bytes, &parsed, &labels);
        format!("sha256:{}", content.sha256)
    }

    /// Removes a file or folder as [`Emulator::remove`] does, with the webhook events of a deletion.
    pub(crate) fn remove_deleted(&self, repo: &str, path: &str) -> usize {
        self.state.remove_deleted(repo, path, "admin")
    }

    /// Makes a blob known, so that manifests seeded later have it; returns its digest.
    pub(crate) fn seed_blob(&self, bytes: &[u8]) -> String {
        let content = self.state.storage_mut().remember(content_of(bytes));
        format!("sha256:{}", content.sha256)
    }

    /// Stores any file as it is, without a layout; returns its digest.
    pub(crate) fn seed_file(
        &self,
        repo: &str,
        path: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> String {
        let mut storage = self.state.storage_mut();
        let content = storage.remember(content_of(bytes));
        let item = Item::new(content.clone(), media_type, "admin", now());
        storage.tree_mut(repo).insert(Key::parse(path), item);
        format!("sha256:{}", content.sha256)
    }

    /// Stores `n_images` images `<prefix>-0000` with `n_tags` tags `v0000` each, every manifest
    /// with a digest of its own; the times count up by one second from `start`.
    pub(crate) fn seed_many(
        &self,
        repo: &str,
        prefix: &str,
        n_images: usize,
        n_tags: usize,
        start: i64,
    ) {
        let media_type: Arc<str> = "application/vnd.oci.image.manifest.v1+json".into();
        let by: Arc<str> = "admin".into();
        let names: [Arc<str>; 2] = ["docker.manifest".into(), "docker.repoName".into()];
        let config = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let mut storage = self.state.storage_mut();
        let mut time = start;
        for image_idx in 0..n_images {
            let image = format!("{prefix}-{image_idx:04}");
            for tag_idx in 0..n_tags {
                let tag = format!("v{tag_idx:04}");
                let text = format!(
                    "{{\"schemaVersion\":2,\"mediaType\":\"{media_type}\",\"config\":{{\
                     \"mediaType\":\"application/vnd.oci.image.config.v1+json\",\
                     \"digest\":\"{config}\",\"size\":0}},\"layers\":[],\
                     \"annotations\":{{\"name\":\"{image}:{tag}\"}}}}"
                );
                let content = storage.remember(content_of(text.as_bytes()));
                let mut item = Item::new(content, "", "", time);
                item.media_type = media_type.clone();
                item.by = by.clone();
                item.properties = vec![
                    (names[0].clone(), tag.clone()),
                    (names[1].clone(), image.clone()),
                ];
                let key = Key::new(&format!("{image}/{tag}"), "manifest.json");
                storage.tree_mut(repo).insert(key, item);
                time += 1000;
            }
        }
    }

    /// Takes what the upstream already has under `<repo>/` into the storage of a local key;
    /// returns the number of tags. An error names what the upstream refused.
    pub(crate) fn adopt(&self, repo: &str) -> Result<usize, String> {
        let upstream = self.state.upstream.as_ref().ok_or("no upstream")?;
        let prefix = format!("{repo}/");
        let mut n_tags = 0;
        for repository in upstream.catalog()? {
            let Some(image) = repository.strip_prefix(&prefix) else {
                continue;
            };
            for tag in upstream.tags(&repository).unwrap_or_default() {
                self.state.adopt_manifest(repo, image, &tag)?;
                n_tags += 1;
            }
        }
        Ok(n_tags)
    }

    /// Sets the times of everything in a tag's folder.
    pub(crate) fn set_times(&self, repo: &str, image: &str, tag: &str, times: Times) {
        let mut storage = self.state.storage_mut();
        let tree = storage.tree_mut(repo);
        let path = format!("{image}/{tag}");
        let keys: Vec<_> = tree.in_folder(&path).map(|(key, _)| key.clone()).collect();
        assert!(!keys.is_empty(), "no tag {repo}/{path} to set times of");
        for key in keys {
            if let Some(item) = tree.get_mut(&key) {
                item.created = times.created;
                item.modified = times.modified;
                item.updated = times.updated;
            }
        }
    }

    /// Removes a file, or a folder with everything in it; returns the number of files.
    pub(crate) fn remove(&self, repo: &str, path: &str) -> usize {
        let mut storage = self.state.storage_mut();
        let tree = storage.tree_mut(repo);
        let file = usize::from(tree.remove(&Key::parse(path)).is_some());
        file + tree.remove_below(path)
    }

    /// Paths of all files of a repository, sorted by folder and name.
    pub(crate) fn files(&self, repo: &str) -> Vec<String> {
        let storage = self.state.storage();
        let tree = storage.tree(repo);
        tree.into_iter()
            .flat_map(|tree| tree.iter().map(|(key, _)| key.full()))
            .collect()
    }

    /// How often a file was downloaded; 0 when there is no such file.
    pub(crate) fn downloads(&self, repo: &str, path: &str) -> u64 {
        let storage = self.state.storage();
        let item = storage
            .tree(repo)
            .and_then(|tree| tree.get(&Key::parse(path)));
        item.map_or(0, |item| item.downloads)
    }

    /// Downloads of all files of all repositories.
    pub(crate) fn total_downloads(&self) -> u64 {
        let storage = self.state.storage();
        let items = storage.trees().flat_map(|(_, tree)| tree.iter());
        items.map(|(_, item)| item.downloads).sum()
    }
}

impl State {
    /// Stores a manifest of the upstream, the manifests it names, and their blobs.
    fn adopt_manifest(&self, repo: &str, image: &str, reference: &str) -> Result<(), String> {
        let upstream = self.upstream.as_ref().ok_or("no upstream")?;
        let repository = format!("{repo}/{image}");
        let fetched = upstream.manifest(&repository, reference);
        let (media_type, bytes) = fetched.map_err(|(_, text)| text)?;
        let manifest = Manifest::parse(&bytes, &media_type);
        for digest in &manifest.children {
            self.adopt_manifest(repo, image, digest)?;
        }
        for digest in &manifest.blobs {
            let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
            // A foreign layer is not in the upstream; it stays absent.
            let _ = self.learn_blob(&repository, hex);
        }
        let labels = self.labels(&manifest);
        let place = Place {
            repo,
            image,
            folder: reference,
            by: "admin",
            now: now(),
            unknown: Unknown::Absent,
        };
        put_manifest(&mut self.storage_mut(), &place, &bytes, &manifest, &labels);
        Ok(())
    }
}
