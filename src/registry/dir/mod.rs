//! A folder of images in files: `type=dir,path=FOLDER`.
//!
//! In: folders, looked through to a depth of eight, or single archives. Out: the images of
//!
//! * OCI image layouts, as folders or in archives (OCI image-spec, image-layout.md; `skopeo copy … oci-archive:`),
//! * what `docker save`, `podman save` and their like write, whatever the age,
//! * folders of `skopeo copy … dir:`.
//!
//! Archives may be plain, gzip or zstd; others are left out of the listing with the reason. Names: [`name`]. Of two
//! files that claim one name for different digests the first in the order of paths counts. Manifests that only
//! a registry would have are made here, always with the same bytes.
//!
//! Cost: a plain archive is read by seeking, a layout by opening files. A gzip or zstd archive is decompressed once to be
//! indexed, and once more up to the entry for each blob. What an index says is a fact ([`Source::facts`]) for as long as the
//! size and time of the file stay the same, so that a listing without changes opens layouts' `index.json` and no archive.
//!
//! Errors: `Tell` when `path` cannot be read, `Retry` when a file changed since it was listed, `Skip` for what
//! is damaged or not there.
//!
//! *Invariant:* no name from an image, archive or document becomes a path, but for the hex digits of a [`Digest`];
//! nothing outside of the given folder is opened, and nothing is written.

mod archive;
mod contents;
mod docker;
mod entries;
mod file;
mod index;
mod known;
mod layout;
mod name;
mod scan;
#[cfg(test)]
mod tests;
mod walk;

use std::collections::{BTreeMap, VecDeque};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use archive::Archive;
use file::Stamp;
use known::Known;
use scan::{Holder, Scan};

use super::filter::Filter;
use super::{Kind, Listed, Listing, Place, Setup, Source};
use crate::error::{self, Error, Result};
use crate::image::manifest::RawManifest;
use crate::image::{Descriptor, Digest, Manifest, Repository, Tag, Version};
use crate::options::{OptionRow, Values};

pub(super) const ROW: Kind = Kind {
    name: "dir",
    summary: "folder of OCI layouts and archives of docker save or skopeo",
    options: &[super::TYPE, PATH, super::INCLUDE, super::EXCLUDE],
    open,
};

const PATH: OptionRow = OptionRow {
    key: "path",
    aliases: &[],
    value: "FOLDER",
    summary: "folder to look through, or one archive; several in quotes",
    is_required: true,
    is_list: true,
};

/// Archives whose indexes are kept in memory, the least used going first. A worker stays with one for an image.
const INDEXES: usize = 8;
/// How facts are named: this, then the path.
const FACT: &str = "archive:";

fn open(values: &Values, setup: &Setup<'_>) -> Result<Box<dyn Source>> {
    let filter = super::filter_of(values, setup)?;
    Ok(Box::new(Folder::open(&values.many("path"), filter)?))
}

/// The source.
struct Folder {
    /// Canonical, in the order of the options.
    roots: Vec<PathBuf>,
    filter: Filter,
    /// The last look at the folders; none before the first, and after a file turned out to have changed.
    scan: Mutex<Option<Arc<Scan>>>,
    known: Mutex<BTreeMap<PathBuf, Known>>,
    indexes: Mutex<VecDeque<(PathBuf, Stamp, Index)>>,
}

/// An index that one thread makes and the others wait for.
type Index = Arc<Mutex<Option<Arc<Archive>>>>;

impl Folder {
    /// Errors (`Tell`) when a path does not exist or may not be read.
    fn open(paths: &[&str], filter: Filter) -> Result<Self> {
        let mut roots = Vec::new();
        for path in paths {
            let root = Path::new(path).canonicalize().map_err(|err| {
                Error::tell(format_args!("key `path`: `{path}`: {err}"))
                    .hint("expected a folder of images, or one archive")
            })?;
            if !root.is_dir() && !root.is_file() {
                return Err(Error::tell(format_args!(
                    "key `path`: `{path}` is neither a folder nor a file"
                )));
            }
            if !roots.contains(&root) {
                roots.push(root);
            }
        }
        Ok(Folder {
            roots,
            filter,
            scan: Mutex::default(),
            known: Mutex::default(),
            indexes: Mutex::default(),
        })
    }

    /// Looks at the folders again.
    fn look(&self) -> Result<Arc<Scan>> {
        let known = lock(&self.known).clone();
        let index = |holder: &Holder| self.index(holder);
        let (scan, known) = Scan::new(&self.roots, &self.filter, &known, &index)?;
        let scan = Arc::new(scan);
        *lock(&self.known) = known;
        *lock(&self.scan) = Some(Arc::clone(&scan));
        Ok(scan)
    }

    /// The last look, or the first.
    fn seen(&self) -> Result<Arc<Scan>> {
        let seen = lock(&self.scan).clone();
        match seen {
            Some(scan) => Ok(scan),
            None => self.look(),
        }
    }

    /// The index of an archive. Errors (`Retry`) when the file is not the one that was listed, else as
    /// [`Archive::open`].
    fn index(&self, holder: &Holder) -> Result<Arc<Archive>> {
        let slot = {
            let mut indexes = lock(&self.indexes);
            let is_it = |(path, stamp, _): &(PathBuf, Stamp, Index)| {
                *path == holder.path && *stamp == holder.stamp
            };
            let entry = match indexes.iter().position(is_it) {
                Some(at) => indexes.remove(at),
                None => None,
            };
            let entry =
                entry.unwrap_or_else(|| (holder.path.clone(), holder.stamp, Index::default()));
            let slot = Arc::clone(&entry.2);
            indexes.push_back(entry);
            while indexes.len() > INDEXES {
                indexes.pop_front();
            }
            slot
        };
        let mut slot = lock(&slot);
        if let Some(archive) = &*slot {
            return Ok(Arc::clone(archive));
        }
        let archive = Archive::open(&holder.within, &holder.path, &holder.default)?;
        if archive.stamp() != holder.stamp {
            return Err(archive::changed(&holder.path));
        }
        let archive = Arc::new(archive);
        *slot = Some(Arc::clone(&archive));
        Ok(archive)
    }

    /// What `ask` finds in the first of the layouts and archives that may have `digest`. Without any, the first
    /// error, or `Skip`.
    fn first<T>(
        &self,
        place: &Place,
        ask: impl Fn(&Scan, usize) -> Result<Option<T>>,
    ) -> Result<T> {
        let scan = self.seen()?;
        let mut failure = None;
        for holder in scan.holders(place) {
            match ask(&scan, holder) {
                Ok(Some(found)) => return Ok(found),
                Ok(None) => {}
                Err(err) => {
                    failure.get_or_insert(err);
                }
            }
        }
        let err = failure.unwrap_or_else(|| {
            Error::skip(format_args!(
                "`{}` of `{}` is in no file of {}",
                place.digest,
                place.repository,
                self.name()
            ))
        });
        if err.kind() == error::Kind::Retry {
            // The next who asks sees the files as they are then.
            *lock(&self.scan) = None;
        }
        Err(err)
    }
}

impl Source for Folder {
    fn name(&self) -> String {
        let roots: Vec<String> = self
            .roots
            .iter()
            .map(|root| root.display().to_string())
            .collect();
        format!("dir {}", roots.join(","))
    }

    fn list(&self, each: &mut dyn FnMut(Listed) -> Result<()>) -> Result<Listing> {
        let scan = self.look()?;
        for ((repository, tag), (digest, _)) in scan.images() {
            if self.filter.takes_name(&[repository.as_str()])
                && self.filter.takes_tag(repository.as_str(), tag.as_str())
            {
                each(Listed {
                    repository: repository.clone(),
                    tag: tag.clone(),
                    digest: Some(digest.clone()),
                })?;
            }
        }
        Ok(scan.listing().clone())
    }

    fn resolve(&self, repository: &Repository, tag: &Tag) -> Result<Digest> {
        self.seen()?
            .resolve(repository, tag)
            .cloned()
            .ok_or_else(|| {
                Error::skip(format_args!(
                    "`{repository}:{tag}` is in no file of {}",
                    self.name()
                ))
            })
    }

    fn manifest(&self, place: &Place) -> Result<RawManifest> {
        let digest = &place.digest;
        self.first(place, |scan, at| {
            let Some(bytes) = scan.manifest(at, digest, &|holder| self.index(holder))? else {
                return Ok(None);
            };
            let asked = Version::Digest(digest.clone());
            let raw = RawManifest::checked(bytes, String::new(), &asked, None)?;
            if let Ok(Manifest::Index(index)) = raw.parse() {
                scan.note_children(at, &index);
            }
            Ok(Some(raw))
        })
    }

    fn blob(&self, place: &Place, blob: &Descriptor) -> Result<Box<dyn Read + Send + '_>> {
        self.first(place, |scan, at| {
            scan.blob(at, blob, &|holder| self.index(holder))
        })
        .map(|reader| reader as Box<dyn Read + Send + '_>)
        .map_err(|err| err.context(format_args!("blob `{}`", blob.digest.short())))
    }

    fn shown(&self, repository: &Repository) -> String {
        repository.to_string()
    }

    fn facts(&self) -> BTreeMap<String, String> {
        let known = lock(&self.known);
        // A path that is not Unicode is indexed again in the next process.
        let facts = known.iter().filter_map(|(path, known)| {
            Some((format!("{FACT}{}", path.to_str()?), known.to_json()))
        });
        facts.collect()
    }

    fn remember(&self, facts: &BTreeMap<String, String>) {
        let mut known = lock(&self.known);
        for (name, text) in facts {
            if let Some(path) = name.strip_prefix(FACT)
                && let Some(fact) = Known::from_json(text)
            {
                known.entry(PathBuf::from(path)).or_insert(fact);
            }
        }
    }
}

/// A panic elsewhere leaves these maps whole: each is changed by one call.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
