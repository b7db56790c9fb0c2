//! One archive of images, indexed: OCI layouts in a tar (`skopeo copy … oci-archive:`), `docker save` of every
//! age, plain or as gzip or zstd.
//!
//! Plain archives are read by seeking. A packed one is decompressed once to be indexed, and once more up to the
//! entry for every blob that is asked of it; of its small documents some are kept.
//!
//! *Invariant:* nothing is unpacked to disk.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::contents::Contents;
use super::docker;
use super::entries::{Entries, Item, Span};
use super::file::{self, Stamp};
use super::index;
use crate::error::{Error, Kind, Result, from_io};
use crate::image::{Digest, Repository};
use crate::layer::{self, Packing};
use crate::limit::{self, Limited};

/// Bytes of one archive's tar, if it is packed: a hundred large images.
const TAR_BYTES: u64 = 1 << 40;
const INDEX: &str = "index.json";
const LAYOUT: &str = "oci-layout";
const MANIFEST: &str = "manifest.json";

/// An archive whose index is in memory, and whose bytes are still in the file.
#[derive(Debug)]
pub(super) struct Archive {
    tar: TarFile,
    pub(super) contents: Contents,
    blobs: BTreeMap<Digest, Span>,
    /// Of a packed archive: manifests and configurations, while there was room.
    documents: BTreeMap<Digest, Vec<u8>>,
}

impl Archive {
    /// Indexes the file at `path`, which is below the canonical `within`. Errors: `Skip` when it is damaged, holds
    /// no image or is packed in another way, `Limit` over a limit, else as [`file::open`].
    pub(super) fn open(within: &Path, path: &Path, default: &Repository) -> Result<Self> {
        let (mut file, stamp) = file::open(within, path)?;
        let whole = |err| from_io(Kind::Retry, err);
        let head = limit::read_all(Read::by_ref(&mut file).take(8), 8, "magic number")?;
        file.rewind().map_err(whole)?;
        let tar = TarFile {
            within: within.to_owned(),
            path: path.to_owned(),
            stamp,
            is_plain: match Packing::of(&head) {
                Packing::Plain => true,
                Packing::Gzip | Packing::Zstd => false,
                Packing::Other(packing) => {
                    return Err(
                        Error::skip(format_args!("unsupported compression: {packing}"))
                            .hint("pack it again with gzip or zstd, or unpack it"),
                    );
                }
            },
        };
        let entries = match tar.is_plain {
            true => Entries::of_plain(file, stamp.size)?,
            false => Entries::of_packed(unpacked(file, stamp.size)?)?,
        };
        Self::interpret(tar, &entries, default)
    }

    pub(super) fn stamp(&self) -> Stamp {
        self.tar.stamp
    }

    /// A manifest or index; `None` when the archive does not have it. Errors (`Retry`) when the file changed.
    pub(super) fn manifest(&self, digest: &Digest) -> Result<Option<Vec<u8>>> {
        if let Some(bytes) = self
            .contents
            .made
            .get(digest)
            .or_else(|| self.documents.get(digest))
        {
            return Ok(Some(bytes.clone()));
        }
        match self.blobs.get(digest) {
            Some(&span) => self
                .tar
                .document(span, limit::MANIFEST_BYTES, "manifest")
                .map(Some),
            None => Ok(None),
        }
    }

    /// A blob of `size` bytes; `None` when the archive does not have it. Errors: `Retry` when the file changed,
    /// `Skip` when the blob has another size.
    pub(super) fn blob(&self, digest: &Digest, size: u64) -> Result<Option<Box<dyn Read + Send>>> {
        let Some(&span) = self.blobs.get(digest) else {
            return Ok(None);
        };
        if span.size != size {
            return Err(Error::skip(format_args!(
                "blob `{digest}` has {} bytes in `{}`, its manifest says {size}",
                span.size,
                self.tar.path.display()
            )));
        }
        match self.documents.get(digest) {
            Some(bytes) => Ok(Some(Box::new(io::Cursor::new(bytes.clone())))),
            None => self.tar.read(span).map(Some),
        }
    }

    fn interpret(tar: TarFile, entries: &Entries, default: &Repository) -> Result<Self> {
        let document = |item: &Item, cap, what| match &item.document {
            Some(bytes) => Ok(bytes.clone()),
            None => tar.document(item.span, cap, what),
        };
        let manifest = entries
            .file(MANIFEST)
            .map(|item| document(item, limit::MANIFEST_BYTES, "`manifest.json`"))
            .transpose()?;
        let (contents, blobs) = match (entries.file(INDEX), entries.file(LAYOUT), manifest) {
            (Some(item), Some(_), manifest) => {
                let bytes = document(item, limit::MANIFEST_BYTES, "`index.json`")?;
                let repo_tags = manifest
                    .as_deref()
                    .map(docker::repo_tags)
                    .unwrap_or_default();
                let blobs = entries.names().filter_map(|name| {
                    let digest = docker::of_blob_name(name).ok()?;
                    Some((digest, entries.file(name)?.span))
                });
                (
                    index::contents(&bytes, default, &repo_tags)?,
                    blobs.collect(),
                )
            }
            (_, _, Some(manifest)) => {
                let config = |item: &Item| document(item, limit::CONFIG_BYTES, "configuration");
                docker::contents(&manifest, default, entries, &config)?
            }
            _ => {
                return Err(Error::skip(
                    "holds no image: neither `index.json` with `oci-layout` nor `manifest.json`",
                ));
            }
        };
        let by_span: BTreeMap<u64, &Digest> = blobs
            .iter()
            .map(|(digest, span)| (span.offset, digest))
            .collect();
        let documents = entries.documents().filter_map(|(span, bytes)| {
            let digest = by_span.get(&span.offset)?;
            Some(((*digest).clone(), bytes.to_vec()))
        });
        Ok(Archive {
            contents,
            documents: documents.collect(),
            blobs,
            tar,
        })
    }
}

/// The file behind an archive.
#[derive(Debug)]
struct TarFile {
    within: PathBuf,
    path: PathBuf,
    stamp: Stamp,
    is_plain: bool,
}

impl TarFile {
    /// The bytes of `span`, unless the file is not the one any more that was indexed (`Retry`).
    fn read(&self, span: Span) -> Result<Box<dyn Read + Send>> {
        let (mut file, stamp) = file::open(&self.within, &self.path)?;
        if stamp != self.stamp {
            return Err(changed(&self.path));
        }
        let whole = |err| {
            from_io(Kind::Retry, err).context(format_args!("reading `{}`", self.path.display()))
        };
        if self.is_plain {
            file.seek(SeekFrom::Start(span.offset)).map_err(whole)?;
            return Ok(Box::new(file.take(span.size)));
        }
        let mut tar = unpacked(file, stamp.size)?;
        let before = Read::by_ref(&mut tar).take(span.offset);
        let n_skipped = io::copy(&mut { before }, &mut io::sink()).map_err(whole)?;
        if n_skipped != span.offset {
            return Err(changed(&self.path));
        }
        Ok(Box::new(tar.take(span.size)))
    }

    fn document(&self, span: Span, cap: u64, what: &'static str) -> Result<Vec<u8>> {
        if span.size > cap {
            return Err(limit::over(what, cap));
        }
        let bytes = limit::read_all(self.read(span)?, cap, what)?;
        match bytes.len() as u64 == span.size {
            true => Ok(bytes),
            false => Err(changed(&self.path)),
        }
    }
}

/// The error for a file that is not the one any more that was listed.
pub(super) fn changed(path: &Path) -> Error {
    Error::retry(format_args!(
        "`{}` changed since it was listed",
        path.display()
    ))
}

/// The tar in a packed `file` of `size` bytes, which fails past the ratio that layers are held to as well.
fn unpacked(file: File, size: u64) -> Result<impl Read + Send> {
    let ratio = size.saturating_mul(limit::LAYER_RATIO);
    let cap = ratio.clamp(limit::RATIO_FROM, TAR_BYTES);
    let tar = layer::decompressed(file)?;
    Ok(Limited::new(tar, cap, "the archive, unpacked,"))
}
