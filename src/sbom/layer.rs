//! What one pass over a layer learnt.

use sha2::{Digest as _, Sha256};

use crate::image::Digest;
use crate::sbom::Problem;

/// The facts of one layer, independent of the images that use it.
#[derive(Clone, Debug)]
pub(crate) struct LayerFacts {
    /// Digest of the blob as stored in the registry, verified.
    pub(crate) digest: Digest,
    /// Digest of the tar, computed.
    pub(crate) diff_id: Digest,
    /// Bytes of the blob.
    pub(crate) size: u64,
    /// Bytes of the tar.
    pub(crate) tar_size: u64,
    /// Entries of the tar.
    pub(crate) n_entries: u64,
    /// Paths that this layer removes from those below it, sorted.
    pub(crate) whiteouts: Vec<String>,
    /// Directories whose lower contents this layer hides (`.wh..wh..opq`), sorted; `""` is the root.
    pub(crate) opaques: Vec<String>,
    /// Every path of the layer, to know what it replaces below.
    pub(crate) paths: PathSet,
    /// Sorted by path and ecosystem.
    pub(crate) evidence: Vec<EvidenceFile>,
    /// Sorted.
    pub(crate) problems: Vec<Problem>,
    /// Problems over the cut of [`crate::limit::PROBLEMS`].
    pub(crate) problems_unlisted: u64,
}

/// A file of a layer that tells of packages, with its bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EvidenceFile {
    /// Path inside the image, no leading slash.
    pub(crate) path: String,
    /// Name of the ecosystem that wants it.
    pub(crate) ecosystem: &'static str,
    /// Digest of the raw bytes.
    pub(crate) digest: Digest,
    /// Raw bytes, zstd-compressed.
    pub(crate) compressed: Vec<u8>,
}

/// The paths of a layer as a sorted run of 48-bit hashes: about six bytes a path, enough to ask whether a
/// higher layer has an entry at the path of a lower layer's evidence.
///
/// Two paths share a hash with a chance of 2^-48; over 50,000 paths and as many questions that is one
/// wrong answer in 100,000 layers, and it could only hide one evidence file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PathSet(Vec<u8>);

/// Bytes kept of each hash.
const HASH_BYTES: usize = 6;

/// Whether an entry can have entries below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PathKind {
    Directory,
    /// File, link, device: hides what a lower layer has at and below its path.
    Leaf,
}

impl PathSet {
    /// Builds the set from hashes made by [`PathSet::hash`], in any order.
    pub(crate) fn from_hashes(mut hashes: Vec<u64>) -> Self {
        hashes.sort_unstable();
        hashes.dedup();
        PathSet(
            hashes
                .iter()
                .flat_map(|hash| hash.to_be_bytes().into_iter().skip(8 - HASH_BYTES))
                .collect(),
        )
    }

    /// The hash of one path.
    pub(crate) fn hash(path: &str, kind: PathKind) -> u64 {
        let salt: &[u8] = match kind {
            PathKind::Directory => b"d",
            PathKind::Leaf => b"f",
        };
        let hash = Sha256::new()
            .chain_update(salt)
            .chain_update(path)
            .finalize();
        let mut bytes = [0; 8];
        bytes[8 - HASH_BYTES..].copy_from_slice(&hash[..HASH_BYTES]);
        u64::from_be_bytes(bytes)
    }

    /// The stored form.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn from_bytes(bytes: Vec<u8>) -> Self {
        PathSet(bytes)
    }

    /// Whether the layer replaces the file `path` of a lower one: by any entry of that name, or by
    /// something that is no directory at one of its parents.
    pub(crate) fn replaces(&self, path: &str) -> bool {
        self.has(path, PathKind::Leaf)
            || self.has(path, PathKind::Directory)
            || path
                .match_indices('/')
                .any(|(at, _)| self.has(&path[..at], PathKind::Leaf))
    }

    fn has(&self, path: &str, kind: PathKind) -> bool {
        let wanted = &Self::hash(path, kind).to_be_bytes()[8 - HASH_BYTES..];
        let (mut low, mut high) = (0, self.0.len() / HASH_BYTES);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.0[middle * HASH_BYTES..(middle + 1) * HASH_BYTES].cmp(wanted) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return true,
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_replaced_by_itself_or_by_a_leaf_above_it() {
        let set = PathSet::from_hashes(vec![
            PathSet::hash("usr/bin/app", PathKind::Leaf),
            PathSet::hash("opt/lib", PathKind::Leaf),
            PathSet::hash("etc", PathKind::Directory),
            PathSet::hash("srv/file", PathKind::Directory),
        ]);
        for (path, replaced) in [
            ("usr/bin/app", true),
            ("usr/bin/application", false),
            ("opt/lib/a/b", true),
            ("opt/library", false),
            ("etc/os-release", false),
            ("srv/file", true),
            ("srv/file/x", false),
        ] {
            assert_eq!(set.replaces(path), replaced, "{path}");
        }
        let stored = PathSet::from_bytes(set.as_bytes().to_vec());
        assert_eq!(stored, set);
    }
}
