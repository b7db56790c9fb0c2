//! What a pass would read, without reading a layer or writing anything.

use std::collections::HashSet;

use super::resolve::walk;
use super::{Mode, record, wish};
use crate::error::{Error, Result};
use crate::image::{Digest, Platform};
use crate::log::Log;
use crate::registry::{Listed, Place, Source};
use crate::stop::Stop;
use crate::store::tags::{Record, Seen};
use crate::store::{Store, Wish};

/// An image that would be read.
pub(crate) struct Planned {
    pub(crate) image: String,
    /// Layers that are not in the store and not in an image before it.
    pub(crate) n_layers: u64,
    /// Compressed bytes of these.
    pub(crate) bytes: u64,
    /// Why it could not be looked at.
    pub(crate) error: Option<Error>,
}

/// Totals of a dry run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DryTotals {
    pub(crate) tags: u64,
    pub(crate) unchanged: u64,
    pub(crate) images: u64,
    pub(crate) failed: u64,
    pub(crate) layers: u64,
    pub(crate) bytes: u64,
}

/// What is to be looked at.
pub(crate) struct DryRun<'a> {
    /// `None` when there is none yet.
    pub(crate) store: Option<&'a Store>,
    pub(crate) sources: &'a [Box<dyn Source>],
    pub(crate) mode: Mode,
    pub(crate) platforms: &'a [Platform],
    pub(crate) max_layer_bytes: u64,
}

/// Lists the sources and calls `each` for every image that a pass would read. Errors when a source cannot be
/// listed.
pub(crate) fn run(
    plan: &DryRun<'_>,
    log: &Log,
    stop: &Stop,
    each: &mut dyn FnMut(&Planned) -> Result<()>,
) -> Result<DryTotals> {
    let DryRun {
        store,
        sources,
        mode,
        platforms,
        max_layer_bytes,
    } = *plan;
    let mut totals = DryTotals::default();
    let wish = wish(platforms, max_layer_bytes);
    let mut planned: HashSet<Digest> = HashSet::new();
    for source in sources {
        let name = source.name();
        let known = match store {
            Some(store) => store.known_source(&name)?,
            None => None,
        };
        let was_listed = match (store, known) {
            (Some(store), Some(id)) => {
                source.remember(&store.source_facts(id)?);
                store.was_listed(id)?
            }
            _ => false,
        };
        let record = record(mode, was_listed, &wish);
        let mut tags: Vec<Listed> = Vec::new();
        let listing = source.list(&mut |listed| {
            if stop.is_requested() {
                return Err(crate::http::retry::stopped());
            }
            tags.push(listed);
            Ok(())
        })?;
        for reason in &listing.left_out {
            log.warn(
                "left out of the listing",
                &[("source", &name), ("reason", reason)],
            );
        }
        totals.tags += tags.len() as u64;
        for listed in tags {
            if stop.is_requested() {
                return Err(crate::http::retry::stopped());
            }
            let image = format!("{}:{}", source.shown(&listed.repository), listed.tag);
            let mut look = || -> Result<Option<(u64, u64)>> {
                let digest = match &listed.digest {
                    Some(digest) => digest.clone(),
                    None => source.resolve(&listed.repository, &listed.tag)?,
                };
                let seen = match (store, known) {
                    (Some(store), Some(id)) => {
                        store.look_up(id, &listed.repository, &listed.tag, &digest, &record)?
                    }
                    _ => Seen::New,
                };
                if seen == Seen::Unchanged || record == Record::Only {
                    return Ok(None);
                }
                missing(
                    store,
                    source.as_ref(),
                    &listed,
                    digest,
                    platforms,
                    &wish,
                    &mut planned,
                )
                .map(Some)
            };
            let (n_layers, bytes, error) = match look() {
                Ok(None) => {
                    totals.unchanged += 1;
                    continue;
                }
                Ok(Some((n_layers, bytes))) => (n_layers, bytes, None),
                Err(err) => (0, 0, Some(err)),
            };
            totals.images += 1;
            totals.failed += u64::from(error.is_some());
            totals.layers += n_layers;
            totals.bytes += bytes;
            each(&Planned {
                image,
                n_layers,
                bytes,
                error,
            })?;
        }
    }
    Ok(totals)
}

/// Number and bytes of the layers of an image that nothing has read or planned to read yet.
fn missing(
    store: Option<&Store>,
    source: &dyn Source,
    listed: &Listed,
    digest: Digest,
    platforms: &[Platform],
    wish: &Wish,
    planned: &mut HashSet<Digest>,
) -> Result<(u64, u64)> {
    let place = Place {
        repository: listed.repository.clone(),
        tag: Some(listed.tag.clone()),
        digest,
    };
    let is_known = |digest: &Digest| match store {
        Some(store) => store.is_indexed(digest, wish),
        None => Ok(false),
    };
    let tree = walk(source, &place, platforms, &is_known)?;
    let (mut n_layers, mut bytes) = (0, 0);
    for (_, manifest) in tree
        .images
        .iter()
        .filter(|(_, manifest)| manifest.not_an_image().is_none())
    {
        for layer in &manifest.layers {
            let is_stored = match store {
                Some(store) => store.has_layer(&layer.digest, &source.name(), wish)?,
                None => false,
            };
            if !is_stored && planned.insert(layer.digest.clone()) {
                n_layers += 1;
                bytes += layer.size;
            }
        }
    }
    Ok((n_layers, bytes))
}
