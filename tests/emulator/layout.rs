//! How an image lies in a repository: from a manifest's bytes to the items in its folder.
//!
//! Source: `reference/registries.md` A1 (storage layout, properties). *Invariant:* manifest bytes
//! are kept as received; the file's sha256 is the manifest digest.

use std::sync::Arc;

use serde_json::Value;

use super::State;
use super::storage::{Content, Item, Key, Location, Storage, is_manifest, join};
use super::upstream::{MANIFEST_BYTES, content_of};

/// What the emulator must know of a manifest.
pub(crate) struct Manifest {
    pub(crate) media_type: String,
    pub(crate) is_index: bool,
    /// Digest of the image configuration, if there is one.
    pub(crate) config: Option<String>,
    /// Digests of configuration and layers, with `sha256:`.
    pub(crate) blobs: Vec<String>,
    /// Digests of the manifests of an index.
    pub(crate) children: Vec<String>,
    pub(crate) subject: Option<String>,
    pub(crate) value: Value,
}

impl Manifest {
    /// Reads a manifest; everything is empty for bytes that are not JSON.
    pub(crate) fn parse(bytes: &[u8], content_type: &str) -> Manifest {
        let value: Value = serde_json::from_slice(bytes).unwrap_or_default();
        let digests = |list: &Value| -> Vec<String> {
            let entries = list.as_array().into_iter().flatten();
            entries
                .filter_map(|entry| Some(entry["digest"].as_str()?.to_owned()))
                .collect()
        };
        let children = digests(&value["manifests"]);
        let is_index = value["manifests"].is_array();
        let guess = match (value["mediaType"].as_str(), is_index) {
            (Some(media_type), _) => media_type,
            (None, true) => "application/vnd.oci.image.index.v1+json",
            (None, false) => "application/vnd.oci.image.manifest.v1+json",
        };
        let media_type = content_type.split(';').next().unwrap_or("").trim();
        let config = value["config"]["digest"].as_str().map(str::to_owned);
        let mut blobs: Vec<String> = config.clone().into_iter().collect();
        blobs.extend(digests(&value["layers"]));
        Manifest {
            media_type: match media_type {
                "" | "application/json" | "application/octet-stream" => guess.to_owned(),
                _ => media_type.to_owned(),
            },
            is_index,
            config,
            blobs,
            children,
            subject: value["subject"]["digest"].as_str().map(str::to_owned),
            value,
        }
    }

    pub(crate) fn file_name(&self) -> &'static str {
        if self.is_index {
            "list.manifest.json"
        } else {
            "manifest.json"
        }
    }
}

/// What happens to blobs that the storage does not know.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unknown {
    /// They are left out, as a foreign layer is.
    Absent,
    /// A cache shows them as `.marker` files until they are fetched.
    Marker,
}

/// Where a manifest is to be stored.
pub(crate) struct Place<'a> {
    pub(crate) repo: &'a str,
    pub(crate) image: &'a str,
    /// A tag, or the folder name of a manifest stored by digest.
    pub(crate) folder: &'a str,
    pub(crate) by: &'a str,
    pub(crate) now: i64,
    pub(crate) unknown: Unknown,
}

/// Stores a manifest and its blobs' items, replacing what was in the folder.
pub(crate) fn put_manifest(
    storage: &mut Storage,
    place: &Place,
    bytes: &[u8],
    manifest: &Manifest,
    labels: &[(String, String)],
) -> Arc<Content> {
    let content = storage.remember(content_of(bytes));
    let path = join(place.image, place.folder);
    let uploads = join(place.image, "_uploads");
    let old: Vec<_> = {
        let tree = storage.tree_mut(place.repo);
        tree.in_folder(&path).map(|(key, _)| key.clone()).collect()
    };
    for key in old {
        storage.tree_mut(place.repo).remove(&key);
    }
    let mut item = Item::new(content.clone(), &manifest.media_type, place.by, place.now);
    item.subject = manifest.subject.clone();
    item.properties = vec![
        (
            "artifactory.content-type".into(),
            manifest.media_type.clone(),
        ),
        ("docker.manifest".into(), place.folder.to_owned()),
        (
            "docker.manifest.digest".into(),
            format!("sha256:{}", content.sha256),
        ),
        ("docker.manifest.type".into(), manifest.media_type.clone()),
        ("docker.repoName".into(), place.image.to_owned()),
        ("sha256".into(), content.sha256.clone()),
    ];
    if let Some(kind) = manifest.value["artifactType"].as_str() {
        item.properties
            .push(("oci.artifact.type".into(), kind.to_owned()));
    }
    for (key, value) in labels {
        item.properties
            .push((format!("docker.label.{key}").into(), value.clone()));
    }
    let key = Key::new(&path, manifest.file_name());
    storage.tree_mut(place.repo).insert(key, item);
    for digest in &manifest.blobs {
        let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
        let (name, content) = match storage.content(hex).cloned() {
            Some(content) => (format!("sha256__{hex}"), content),
            None if place.unknown == Unknown::Marker => {
                let empty = storage.remember(content_of(b""));
                (format!("sha256__{hex}.marker"), empty)
            }
            None => continue,
        };
        let item = Item::new(content, "application/octet-stream", place.by, place.now);
        let tree = storage.tree_mut(place.repo);
        tree.remove(&Key::new(&uploads, &format!("sha256__{hex}")));
        tree.insert(Key::new(&path, &name), item);
    }
    content
}

/// The key of the manifest that a tag or digest names; a list wins over a single manifest.
pub(crate) fn find_manifest(
    storage: &Storage,
    repo: &str,
    image: &str,
    reference: &str,
) -> Option<Arc<Key>> {
    let tree = storage.tree(repo)?;
    if let Some(hex) = reference.strip_prefix("sha256:") {
        let prefix = format!("{image}/");
        let found = tree.with_digest(hex).find(|(key, _)| {
            is_manifest(&key.name)
                && key
                    .path
                    .strip_prefix(&prefix)
                    .is_some_and(|folder| !folder.contains('/'))
        });
        return found.map(|(key, _)| key.clone());
    }
    let path = join(image, reference);
    ["list.manifest.json", "manifest.json"]
        .iter()
        .map(|name| Key::new(&path, name))
        .find(|key| tree.get(key).is_some())
}

/// The key of a blob (bare hexadecimal) that belongs to an image.
pub(crate) fn find_blob(storage: &Storage, repo: &str, image: &str, hex: &str) -> Option<Arc<Key>> {
    let prefix = format!("{image}/");
    let tree = storage.tree(repo)?;
    let mut keys = tree.with_digest(hex).map(|(key, _)| key);
    keys.find(|key| key.path.starts_with(&prefix)).cloned()
}

impl State {
    /// All of a content's bytes; an error when it is too large or the upstream fails.
    pub(crate) fn bytes_of(&self, content: &Content) -> Result<Vec<u8>, String> {
        use std::io::Read as _;
        match &content.location {
            Location::Memory(bytes) => Ok(bytes.clone()),
            Location::Upstream(_) if content.size > MANIFEST_BYTES => {
                Err(format!("{} bytes are too many", content.size))
            }
            Location::Upstream(_) => {
                let mut bytes = Vec::new();
                let mut reader = self.open(content, 0)?;
                reader.read_to_end(&mut bytes).map_err(|e| e.to_string())?;
                Ok(bytes)
            }
        }
    }

    /// A content's bytes from `start` on.
    pub(crate) fn open(
        &self,
        content: &Content,
        start: u64,
    ) -> Result<Box<dyn std::io::Read + Send>, String> {
        match &content.location {
            Location::Memory(bytes) => {
                let start = usize::try_from(start).unwrap_or(usize::MAX);
                let rest = bytes.get(start..).unwrap_or_default().to_vec();
                Ok(Box::new(std::io::Cursor::new(rest)))
            }
            Location::Upstream(repository) => {
                let upstream = self.upstream.as_ref().ok_or("no upstream")?;
                upstream.blob(repository, &content.sha256, start)
            }
        }
    }

    /// The labels of an image's configuration; empty when it cannot be read.
    pub(crate) fn labels(&self, manifest: &Manifest) -> Vec<(String, String)> {
        let Some(config) = manifest.config.as_deref() else {
            return Vec::new();
        };
        let hex = config.strip_prefix("sha256:").unwrap_or(config);
        let Some(content) = self.storage().content(hex).cloned() else {
            return Vec::new();
        };
        let bytes = self.bytes_of(&content).unwrap_or_default();
        let value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let labels = value["config"]["Labels"].as_object().into_iter().flatten();
        labels
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect()
    }
}
