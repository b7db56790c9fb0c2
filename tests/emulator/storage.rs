//! Artifactory's storage model: items (files) in repositories, by path and name.
//!
//! Source: `reference/registries.md` A1 (layout) and A2 (fields). Folders are not stored; they
//! are what the paths of the files imply. Times are milliseconds since 1970, UTC. Sizes are bytes.
//! *Invariant:* layers are not held here: their bytes stay in the upstream registry.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

/// Where an item is inside its repository. `path` has no leading or trailing slash and is empty
/// for an item at the root.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) path: String,
    pub(crate) name: String,
}

impl Key {
    pub(crate) fn new(path: &str, name: &str) -> Arc<Key> {
        Arc::new(Key {
            path: path.to_owned(),
            name: name.to_owned(),
        })
    }

    /// From `path/name`.
    pub(crate) fn parse(full: &str) -> Arc<Key> {
        let (path, name) = full.rsplit_once('/').unwrap_or(("", full));
        Key::new(path, name)
    }

    /// `path/name`.
    pub(crate) fn full(&self) -> String {
        join(&self.path, &self.name)
    }
}

/// `path/name`, or only the name when the path is empty.
pub(crate) fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}/{name}")
    }
}

/// Where the bytes are.
pub(crate) enum Location {
    Memory(Vec<u8>),
    /// A blob of this repository of the upstream registry.
    Upstream(String),
}

/// The bytes of a file, by their digests (bare hexadecimal).
pub(crate) struct Content {
    pub(crate) sha256: String,
    pub(crate) sha1: String,
    pub(crate) md5: String,
    pub(crate) size: u64,
    pub(crate) location: Location,
}

/// One file.
#[derive(Clone)]
pub(crate) struct Item {
    pub(crate) content: Arc<Content>,
    pub(crate) created: i64,
    pub(crate) modified: i64,
    pub(crate) updated: i64,
    pub(crate) by: Arc<str>,
    /// A key may come more than once.
    pub(crate) properties: Vec<(Arc<str>, String)>,
    pub(crate) downloads: u64,
    pub(crate) downloaded: i64,
    pub(crate) downloaded_by: Arc<str>,
    pub(crate) media_type: Arc<str>,
    /// Digest of the manifest this one refers to.
    pub(crate) subject: Option<String>,
}

impl Item {
    /// A new item with all three times at `now`.
    pub(crate) fn new(content: Arc<Content>, media_type: &str, by: &str, now: i64) -> Item {
        Item {
            content,
            created: now,
            modified: now,
            updated: now,
            by: by.into(),
            properties: Vec::new(),
            downloads: 0,
            downloaded: 0,
            downloaded_by: "".into(),
            media_type: media_type.into(),
            subject: None,
        }
    }
}

/// The items of one repository, in order of path and name.
#[derive(Default)]
pub(crate) struct Tree {
    items: BTreeMap<Arc<Key>, Item>,
    by_digest: HashMap<String, BTreeSet<Arc<Key>>>,
}

impl Tree {
    pub(crate) fn get(&self, key: &Key) -> Option<&Item> {
        self.items.get(key)
    }

    pub(crate) fn get_mut(&mut self, key: &Key) -> Option<&mut Item> {
        self.items.get_mut(key)
    }

    pub(crate) fn insert(&mut self, key: Arc<Key>, item: Item) {
        self.remove(&key);
        let digest = item.content.sha256.clone();
        self.by_digest
            .entry(digest)
            .or_default()
            .insert(key.clone());
        self.items.insert(key, item);
    }

    pub(crate) fn remove(&mut self, key: &Key) -> Option<Item> {
        let item = self.items.remove(key)?;
        if let Some(keys) = self.by_digest.get_mut(&item.content.sha256) {
            keys.remove(key);
            if keys.is_empty() {
                self.by_digest.remove(&item.content.sha256);
            }
        }
        Some(item)
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (&Arc<Key>, &Item)> {
        self.items.iter()
    }

    /// Items with those bytes (bare hexadecimal sha256), in order.
    pub(crate) fn with_digest(&self, sha256: &str) -> impl Iterator<Item = (&Arc<Key>, &Item)> {
        let keys = self.by_digest.get(sha256).into_iter().flatten();
        keys.filter_map(|key| Some((key, self.items.get(key)?)))
    }

    /// Items whose path is exactly `path`.
    pub(crate) fn in_folder(&self, path: &str) -> impl Iterator<Item = (&Arc<Key>, &Item)> {
        let start = Key {
            path: path.to_owned(),
            name: String::new(),
        };
        let path = path.to_owned();
        self.items
            .range::<Key, _>((Bound::Included(&start), Bound::Unbounded))
            .take_while(move |(key, _)| key.path == path)
    }

    /// Items in `path` and in all folders below it; everything when `path` is empty.
    pub(crate) fn below(&self, path: &str) -> Vec<(&Arc<Key>, &Item)> {
        if path.is_empty() {
            return self.items.iter().collect();
        }
        let prefix = format!("{path}/");
        let start = Key {
            path: prefix.clone(),
            name: String::new(),
        };
        let deeper = self
            .items
            .range::<Key, _>((Bound::Included(&start), Bound::Unbounded))
            .take_while(|(key, _)| key.path.starts_with(&prefix));
        self.in_folder(path).chain(deeper).collect()
    }

    /// Removes everything in `path` and below; returns how many items that were.
    pub(crate) fn remove_below(&mut self, path: &str) -> usize {
        let keys: Vec<_> = self
            .below(path)
            .iter()
            .map(|(key, _)| (*key).clone())
            .collect();
        for key in &keys {
            self.remove(key);
        }
        keys.len()
    }
}

/// All repositories' items.
#[derive(Default)]
pub(crate) struct Storage {
    trees: BTreeMap<String, Tree>,
    /// Every content seen so far; a blob pushed once is known to all repositories.
    contents: HashMap<String, Arc<Content>>,
}

impl Storage {
    pub(crate) fn trees(&self) -> impl Iterator<Item = (&String, &Tree)> {
        self.trees.iter()
    }

    pub(crate) fn tree(&self, repo: &str) -> Option<&Tree> {
        self.trees.get(repo)
    }

    /// The tree of a repository, made if it is not there yet.
    pub(crate) fn tree_mut(&mut self, repo: &str) -> &mut Tree {
        if !self.trees.contains_key(repo) {
            self.trees.insert(repo.to_owned(), Tree::default());
        }
        self.trees.get_mut(repo).expect("inserted above")
    }

    pub(crate) fn content(&self, sha256: &str) -> Option<&Arc<Content>> {
        self.contents.get(sha256)
    }

    /// Makes a content known; returns the one already known with the same digest if there is one.
    pub(crate) fn remember(&mut self, content: Content) -> Arc<Content> {
        let known = self.contents.entry(content.sha256.clone());
        known.or_insert_with(|| Arc::new(content)).clone()
    }

    /// Image names of a repository, sorted: folders that have a tag folder with a manifest.
    pub(crate) fn images(&self, repo: &str) -> BTreeSet<String> {
        let mut images = BTreeSet::new();
        let mut last = "";
        for (key, _) in self.tree(repo).into_iter().flat_map(Tree::iter) {
            if !is_manifest(&key.name) {
                continue;
            }
            let Some((image, tag)) = key.path.rsplit_once('/') else {
                continue;
            };
            if image != last && !is_platform_folder(tag) {
                images.insert(image.to_owned());
                last = image;
            }
        }
        images
    }

    /// Tags of an image, sorted; empty when there is no such image.
    pub(crate) fn tags(&self, repo: &str, image: &str) -> BTreeSet<String> {
        let Some(tree) = self.tree(repo) else {
            return BTreeSet::new();
        };
        tree.below(image)
            .into_iter()
            .filter(|(key, _)| is_manifest(&key.name))
            .filter_map(|(key, _)| key.path.strip_prefix(image)?.strip_prefix('/'))
            .filter(|tag| !tag.contains('/') && !is_platform_folder(tag))
            .map(str::to_owned)
            .collect()
    }
}

/// True for the file names of manifests.
pub(crate) fn is_manifest(name: &str) -> bool {
    name == "manifest.json" || name == "list.manifest.json"
}

/// True for the folder of a manifest pushed by digest, in a local repository or in a cache.
pub(crate) fn is_platform_folder(name: &str) -> bool {
    name.starts_with("sha256:") || name.starts_with("sha256__")
}
