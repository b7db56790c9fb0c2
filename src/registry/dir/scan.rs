//! One look at the folders: which names there are, and which layout or archive has them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::archive::{self, Archive};
use super::contents::Image;
use super::file::{self, Stamp};
use super::known::Known;
use super::layout::{Form, Layout};
use super::walk::{self, Found, What};
use super::{lock, name};
use crate::error::{Error, Kind, Result};
use crate::image::manifest::Index;
use crate::image::{Descriptor, Digest, Repository, Tag};
use crate::printable::printable;
use crate::registry::filter::Filter;
use crate::registry::{Listing, Place};

/// Names in one look.
const IMAGES: usize = 1_000_000;
/// Digests of which it is kept in memory where they were seen.
const CHILDREN: usize = 100_000;

/// An archive that may hold images.
pub(super) struct Holder {
    /// The canonical folder that was given.
    pub(super) within: PathBuf,
    pub(super) path: PathBuf,
    /// When it was listed.
    pub(super) stamp: Stamp,
    /// The repository of what has no other name.
    pub(super) default: Repository,
}

/// What has images.
enum Held {
    Layout(Layout),
    Archive(Holder),
}

/// Gives the index of an archive.
type Open<'a> = dyn Fn(&Holder) -> Result<Arc<Archive>> + 'a;

pub(super) struct Scan {
    places: Vec<Held>,
    images: BTreeMap<(Repository, Tag), (Digest, usize)>,
    /// Where images of a repository are, in the order of paths.
    by_repository: BTreeMap<Repository, BTreeSet<usize>>,
    by_digest: BTreeMap<Digest, usize>,
    /// Where the entries of an index are that was read.
    children: Mutex<BTreeMap<Digest, usize>>,
    listing: Listing,
}

impl Scan {
    /// Looks through `roots`. What is known of an archive of the same size and time is taken as it is; what is
    /// known afterwards is returned beside. Errors when a root cannot be read.
    pub(super) fn new(
        roots: &[PathBuf],
        filter: &Filter,
        known: &BTreeMap<PathBuf, Known>,
        open: &Open<'_>,
    ) -> Result<(Self, BTreeMap<PathBuf, Known>)> {
        let mut scan = Scan {
            places: Vec::new(),
            images: BTreeMap::new(),
            by_repository: BTreeMap::new(),
            by_digest: BTreeMap::new(),
            children: Mutex::default(),
            listing: Listing {
                is_complete: true,
                ..Listing::default()
            },
        };
        let mut known_now = BTreeMap::new();
        for root in roots {
            let walk = walk::walk(root).map_err(|err| match err.kind() {
                Kind::Skip => Error::tell(err).hint("mount the folder again, or change `path`"),
                _ => err,
            })?;
            scan.listing.is_complete &= !walk.has_gaps;
            for reason in walk.left_out {
                scan.leave_out(reason);
            }
            for found in walk.found {
                let default = name::of_path(&found.called);
                match found.what {
                    What::Layout(form) => scan.layout(root, &found, form, &default, filter),
                    What::Archive => {
                        let before = known.get(&found.path);
                        if let Some(known) =
                            scan.archive(root, &found, default, before, filter, open)
                        {
                            known_now.insert(found.path, known);
                        }
                    }
                }
            }
        }
        Ok((scan, known_now))
    }

    /// Names with their digest and place, sorted.
    pub(super) fn images(&self) -> impl Iterator<Item = (&(Repository, Tag), &(Digest, usize))> {
        self.images.iter()
    }

    pub(super) fn listing(&self) -> &Listing {
        &self.listing
    }

    pub(super) fn resolve(&self, repository: &Repository, tag: &Tag) -> Option<&Digest> {
        let key = (repository.clone(), tag.clone());
        self.images.get(&key).map(|(digest, _)| digest)
    }

    /// The layouts and archives to ask for `digest`, or for blobs of the manifest of that digest, the likeliest
    /// first: an archive that is asked in vain may have to be decompressed for it.
    pub(super) fn holders(&self, place: &Place) -> Vec<usize> {
        let tag = place.tag.as_ref();
        let named = tag.and_then(|tag| self.images.get(&(place.repository.clone(), tag.clone())));
        let named = named.map(|(_, at)| *at);
        let child = lock(&self.children).get(&place.digest).copied();
        let of_repository = self.by_repository.get(&place.repository);
        let has = |at: &usize| of_repository.is_some_and(|all| all.contains(at));
        let likely = [named, self.by_digest.get(&place.digest).copied(), child]
            .into_iter()
            .flatten();
        let mut holders: Vec<usize> = Vec::new();
        for at in likely
            .filter(has)
            .chain(of_repository.into_iter().flatten().copied())
        {
            if !holders.contains(&at) {
                holders.push(at);
            }
        }
        holders
    }

    /// Notes where the entries of an index are that was found at `at`.
    pub(super) fn note_children(&self, at: usize, index: &Index) {
        let mut children = lock(&self.children);
        if children.len() > CHILDREN {
            children.clear();
        }
        for entry in &index.manifests {
            children.insert(entry.digest.clone(), at);
        }
    }

    pub(super) fn manifest(
        &self,
        at: usize,
        digest: &Digest,
        open: &Open<'_>,
    ) -> Result<Option<Vec<u8>>> {
        match self.places.get(at) {
            Some(Held::Layout(layout)) => layout.manifest(digest),
            Some(Held::Archive(holder)) => current(holder, open)?.manifest(digest),
            None => Ok(None),
        }
    }

    pub(super) fn blob(
        &self,
        at: usize,
        blob: &Descriptor,
        open: &Open<'_>,
    ) -> Result<Option<Box<dyn Read + Send>>> {
        match self.places.get(at) {
            Some(Held::Layout(layout)) => layout.blob(&blob.digest, blob.size),
            Some(Held::Archive(holder)) => current(holder, open)?.blob(&blob.digest, blob.size),
            None => Ok(None),
        }
    }

    fn layout(
        &mut self,
        root: &Path,
        found: &Found,
        form: Form,
        default: &Repository,
        filter: &Filter,
    ) {
        let layout = match Layout::open(root, &found.path, form, default) {
            Ok(layout) => layout,
            Err(err) => {
                // What it held is not known, so that nothing can be called gone.
                self.listing.is_complete = false;
                return self.leave_out(format!("`{}`: {err}", found.path.display()));
            }
        };
        let (images, left_out) = (
            layout.contents.images.clone(),
            layout.contents.left_out.clone(),
        );
        self.places.push(Held::Layout(layout));
        self.add(&found.path, images, left_out, filter);
    }

    /// Adds an archive; returns what is to be known of it.
    fn archive(
        &mut self,
        root: &Path,
        found: &Found,
        default: Repository,
        before: Option<&Known>,
        filter: &Filter,
        open: &Open<'_>,
    ) -> Option<Known> {
        // A root that is a file itself has nothing below it.
        let holder = file::stamp(root, &found.path).map(|stamp| Holder {
            within: root.to_owned(),
            path: found.path.clone(),
            stamp,
            default,
        });
        let same = |holder: &Holder| before.filter(|known| known.stamp == holder.stamp).cloned();
        let result = holder.and_then(|holder| match same(&holder) {
            Some(known) => Ok((holder, known)),
            None => learn(&holder, before, open).map(|known| (holder, known)),
        });
        let (holder, known) = match result {
            Ok(found) => found,
            Err(err) => {
                self.listing.is_complete = false;
                self.leave_out(format!("`{}`: {err}", found.path.display()));
                return before.cloned();
            }
        };
        self.listing.is_complete &= !known.hides_images;
        self.places.push(Held::Archive(holder));
        self.add(
            &found.path,
            known.images.clone(),
            known.left_out.clone(),
            filter,
        );
        Some(known)
    }

    /// Adds the images of the last place.
    fn add(&mut self, path: &Path, images: Vec<Image>, left_out: Vec<String>, filter: &Filter) {
        let at = self.places.len() - 1;
        for reason in left_out {
            self.leave_out(format!("`{}`: {reason}", path.display()));
        }
        for Image {
            repository,
            tag,
            digest,
        } in images
        {
            if self.images.len() >= IMAGES {
                self.listing.is_complete = false;
                return self.leave_out(format!(
                    "`{}`: more than {IMAGES} image names, which is the limit",
                    path.display()
                ));
            }
            let is_wanted = filter.takes_name(&[repository.as_str()])
                && filter.takes_tag(repository.as_str(), tag.as_str());
            self.by_repository
                .entry(repository.clone())
                .or_default()
                .insert(at);
            self.by_digest.entry(digest.clone()).or_insert(at);
            let key = (repository, tag);
            match self.images.get(&key) {
                Some((taken, _)) if *taken != digest && is_wanted => {
                    let reason = format!(
                        "`{}`: `{}:{}` is `{}` in a file before it, and not `{}`",
                        path.display(),
                        key.0,
                        key.1,
                        taken.short(),
                        digest.short()
                    );
                    self.leave_out(reason);
                }
                Some(_) => {}
                None => {
                    self.images.insert(key, (digest, at));
                }
            }
        }
    }

    fn leave_out(&mut self, reason: String) {
        self.listing.leave_out(printable(&reason));
    }
}

/// Indexes an archive. One that can never be read is known, too, so that it is not tried again until it changes.
/// Errors when trying again may help.
fn learn(holder: &Holder, before: Option<&Known>, open: &Open<'_>) -> Result<Known> {
    let known = |images, left_out, hides_images| Known {
        stamp: holder.stamp,
        images,
        left_out,
        hides_images,
    };
    match open(holder) {
        Ok(archive) => {
            let contents = &archive.contents;
            Ok(known(
                contents.images.clone(),
                contents.left_out.clone(),
                false,
            ))
        }
        Err(err) if matches!(err.kind(), Kind::Skip | Kind::Limit) => {
            let hides =
                before.is_some_and(|before| before.hides_images || !before.images.is_empty());
            Ok(known(Vec::new(), vec![err.to_string()], hides))
        }
        Err(err) => Err(err),
    }
}

/// The index of an archive that is still as it was listed. Errors (`Retry`) when it is not.
fn current(holder: &Holder, open: &Open<'_>) -> Result<Arc<Archive>> {
    match file::stamp(&holder.within, &holder.path) {
        Ok(stamp) if stamp == holder.stamp => open(holder),
        Ok(_) => Err(archive::changed(&holder.path)),
        Err(err) if err.kind() == Kind::Skip => Err(Error::retry(format_args!(
            "gone since it was listed: {err}"
        ))),
        Err(err) => Err(err),
    }
}
