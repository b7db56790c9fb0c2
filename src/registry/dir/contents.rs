//! What a layout or an archive turned out to hold: names, and manifests that had to be made.

use std::collections::BTreeMap;

use crate::error::{Error, Kind, Result};
use crate::image::{Digest, Repository, Tag};
use crate::limit;

/// Names of one layout or archive.
pub(super) const NAMES: u64 = 10_000;
/// Characters kept of one reason; the texts in it come from documents.
const REASON_CHARS: usize = 512;
/// Bytes of the manifests made for one layout or archive: some thousand real ones.
const MADE_BYTES: u64 = 4 << 20;

/// A name and the digest of the manifest or index behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Image {
    pub(super) repository: Repository,
    pub(super) tag: Tag,
    pub(super) digest: Digest,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Contents {
    /// In the order of the document that names them, without repetitions.
    pub(super) images: Vec<Image>,
    /// Manifests and indexes that no registry has seen.
    pub(super) made: BTreeMap<Digest, Vec<u8>>,
    /// Why images are missing in `images`.
    pub(super) left_out: Vec<String>,
}

impl Contents {
    /// Adds a name; one that is taken by another digest is left out. Errors (`Limit`) when there are too many.
    pub(super) fn add(&mut self, repository: Repository, tag: Tag, digest: Digest) -> Result<()> {
        if self.images.len() as u64 >= NAMES {
            return Err(Error::new(
                Kind::Limit,
                format_args!("more than {NAMES} image names, which is the limit"),
            ));
        }
        let same = |image: &&Image| image.repository == repository && image.tag == tag;
        match self.images.iter().find(same) {
            Some(image) if image.digest == digest => {}
            Some(image) => self.left_out.push(format!(
                "`{repository}:{tag}` names `{}` already and not `{}`",
                image.digest.short(),
                digest.short()
            )),
            None => self.images.push(Image {
                repository,
                tag,
                digest,
            }),
        }
        Ok(())
    }

    /// Notes why an image is missing.
    pub(super) fn leave_out(&mut self, reason: &Error) {
        let text = reason.to_string();
        let mut reason: String = text.chars().take(REASON_CHARS).collect();
        if reason.len() < text.len() {
            reason.push('…');
        }
        self.left_out.push(reason);
    }

    /// Keeps a manifest that was made here; returns its digest. Errors (`Limit`) when they grow too large.
    pub(super) fn make(&mut self, bytes: Vec<u8>) -> Result<Digest> {
        let n_bytes: usize = self.made.values().map(Vec::len).sum();
        if (n_bytes + bytes.len()) as u64 > MADE_BYTES {
            return Err(limit::over(
                "the manifests made for it, together,",
                MADE_BYTES,
            ));
        }
        let digest = Digest::of(&bytes);
        self.made.insert(digest.clone(), bytes);
        Ok(digest)
    }
}
