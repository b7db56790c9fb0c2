//! From a tag to what has to be read: manifest, platforms, configurations.

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::Instant;

use super::shared::{Build, BuildState, ImagePlan, IndexPlan, Shared};
use crate::error::{Context, Error, Kind, Result};
use crate::http::retry::retrying;
use crate::image::manifest::{Entry, ImageManifest, Manifest, entry_of};
use crate::image::{Config, Descriptor, Digest, Platform};
use crate::limit;
use crate::registry::{Place, Source};
use crate::stop::Stop;
use crate::store::queue::Job;

/// Reads the documents of a job's image. A tag that moved since it was listed is followed.
/// Images that are in the store already, or for other platforms, are not in the result.
pub(super) fn build(
    shared: &Shared<'_>,
    mut job: Job,
    source_idx: usize,
) -> std::result::Result<Build, Box<(Job, Error)>> {
    match documents(shared, &mut job, source_idx) {
        Ok((images, indexes)) => Ok(Build {
            job,
            source: source_idx,
            images,
            indexes,
            started: Instant::now(),
            state: Mutex::new(BuildState {
                missing: 1,
                ..BuildState::default()
            }),
        }),
        Err(err) => Err(Box::new((job, err))),
    }
}

fn documents(
    shared: &Shared<'_>,
    job: &mut Job,
    source_idx: usize,
) -> Result<(Vec<ImagePlan>, Vec<IndexPlan>)> {
    let (source, store) = (shared.source(source_idx), shared.plan.store);
    let is_known = |digest: &Digest| store.is_indexed(digest, &shared.wish);
    let walk = |job: &Job| {
        let place = Place {
            repository: job.repository.clone(),
            tag: Some(job.tag.clone()),
            digest: job.digest.clone(),
        };
        walk(source, &place, &shared.plan.platforms, &is_known)
    };
    let mut result = walk(job);
    if matches!(&result, Err(err) if err.status() == Some(404)) {
        let digest = source.resolve(&job.repository, &job.tag)?;
        if digest != job.digest {
            store.move_tag(job.tag_id, &digest)?;
            job.digest = digest;
            result = walk(job);
        }
    }
    let tree = result?;
    for (digest, reason) in &tree.skipped {
        shared.log.debug(
            "manifest not read",
            &[
                ("image", &format_args!("{}:{}", job.shown, job.tag)),
                ("digest", digest),
                ("reason", reason),
            ],
        );
    }
    let mut images = Vec::new();
    for (place, manifest) in tree.images {
        if let Some(artifact_type) = manifest.not_an_image() {
            shared.log.debug(
                "no image",
                &[
                    ("image", &format_args!("{}:{}", job.shown, job.tag)),
                    ("digest", &place.digest),
                    ("type", &artifact_type),
                ],
            );
            store.save_artifact(&place.digest, manifest.media_type, artifact_type)?;
            continue;
        }
        images.push(image_plan(source, place, manifest, shared.stop)?);
    }
    Ok((images, tree.indexes))
}

/// The documents behind a tag.
#[derive(Default)]
pub(super) struct Tree {
    /// Images and artifacts, in the order of their indexes.
    pub(super) images: Vec<(Place, ImageManifest)>,
    /// Innermost first.
    pub(super) indexes: Vec<IndexPlan>,
    /// Manifests that were named and not read, and why.
    skipped: Vec<(Digest, &'static str)>,
    seen: HashSet<Digest>,
    n_layers: usize,
    config_bytes: u64,
}

impl Tree {
    /// Adds an image, unless all of them together get too large to be held until their layers are read.
    fn add(&mut self, place: &Place, manifest: ImageManifest) -> Result<()> {
        self.n_layers += manifest.layers.len();
        if self.n_layers > limit::TAG_LAYERS {
            let message = format!(
                "the {} layers of the tag's images are over the limit of {}",
                self.n_layers,
                limit::TAG_LAYERS
            );
            return Err(Error::new(Kind::Limit, message));
        }
        self.config_bytes += manifest.config.size.min(limit::CONFIG_BYTES);
        if self.config_bytes > limit::TAG_CONFIG_BYTES {
            let what = "the text of all configurations of the tag";
            return Err(limit::over(what, limit::TAG_CONFIG_BYTES));
        }
        self.images.push((place.clone(), manifest));
        Ok(())
    }
}

/// Reads the manifest at `place` and those that its indexes name, but for other platforms than `platforms`
/// (empty means all) and for what `is_known`.
pub(super) fn walk(
    source: &dyn Source,
    place: &Place,
    platforms: &[Platform],
    is_known: &dyn Fn(&Digest) -> Result<bool>,
) -> Result<Tree> {
    let mut tree = Tree::default();
    let walker = Walker {
        source,
        platforms,
        is_known,
    };
    walker.visit(&mut tree, place, 0)?;
    Ok(tree)
}

struct Walker<'a> {
    source: &'a dyn Source,
    platforms: &'a [Platform],
    is_known: &'a dyn Fn(&Digest) -> Result<bool>,
}

impl Walker<'_> {
    fn visit(&self, tree: &mut Tree, place: &Place, depth: usize) -> Result<()> {
        if !tree.seen.insert(place.digest.clone()) {
            return Ok(());
        }
        if (self.is_known)(&place.digest)? {
            tree.skipped.push((place.digest.clone(), "it is indexed"));
            return Ok(());
        }
        // The first is the tag's own.
        if tree.seen.len() > 1 + limit::INDEX_ENTRIES {
            let message = format!(
                "the tag stands for more than the limit of {} manifests",
                limit::INDEX_ENTRIES
            );
            return Err(Error::new(Kind::Limit, message));
        }
        let name = || format!("manifest `{}`", place.digest);
        let raw = self.source.manifest(place).context(name)?;
        let index = match raw.parse().context(name)? {
            Manifest::Image(manifest) => return tree.add(place, *manifest),
            Manifest::Index(index) => index,
        };
        if depth >= limit::INDEX_DEPTH {
            let message = format!(
                "indexes are nested deeper than the limit of {}",
                limit::INDEX_DEPTH
            );
            return Err(Error::new(Kind::Limit, message));
        }
        let mut entries = Vec::new();
        for descriptor in index.manifests {
            let kind = entry_of(&descriptor);
            let why_not = match kind {
                Entry::Image if wants(self.platforms, &descriptor) => None,
                Entry::Image => Some("it is for another platform"),
                Entry::Attestation => Some("it is an attestation"),
                Entry::Other => Some("it is no image"),
            };
            if let Some(reason) = why_not {
                tree.skipped.push((descriptor.digest.clone(), reason));
            } else {
                let inner = Place {
                    repository: place.repository.clone(),
                    tag: None,
                    digest: descriptor.digest.clone(),
                };
                self.visit(tree, &inner, depth + 1)?;
            }
            entries.push((descriptor, kind));
        }
        tree.indexes.push(IndexPlan {
            digest: place.digest.clone(),
            media_type: index.media_type,
            entries,
        });
        Ok(())
    }
}

/// Whether an entry of an index is for one of the platforms (empty means all), or does not say for which it is.
pub(super) fn wants(platforms: &[Platform], descriptor: &Descriptor) -> bool {
    match &descriptor.platform {
        Some(platform) if !platforms.is_empty() => {
            platforms.iter().any(|wish| wish.takes(platform))
        }
        _ => true,
    }
}

/// Reads the configuration of an image and checks that it fits the manifest.
fn image_plan(
    source: &dyn Source,
    place: Place,
    manifest: ImageManifest,
    stop: &Stop,
) -> Result<ImagePlan> {
    let descriptor = &manifest.config;
    let name = || format!("configuration `{}`", descriptor.digest);
    let config = config(source, &place, descriptor, stop).context(name)?;
    if !config.diff_ids.is_empty() && config.diff_ids.len() != manifest.layers.len() {
        return Err(Error::skip(format_args!(
            "the manifest has {} layers, the configuration {}",
            manifest.layers.len(),
            config.diff_ids.len()
        )));
    }
    Ok(ImagePlan {
        place,
        media_type: manifest.media_type,
        config_digest: manifest.config.digest,
        config,
        layers: manifest.layers,
    })
}

fn config(
    source: &dyn Source,
    place: &Place,
    descriptor: &Descriptor,
    stop: &Stop,
) -> Result<Config> {
    if descriptor.size > limit::CONFIG_BYTES {
        return Err(limit::over("image configuration", limit::CONFIG_BYTES));
    }
    retrying(stop, || {
        let blob = source.blob(place, descriptor)?;
        let bytes = limit::read_all(blob, limit::CONFIG_BYTES, "image configuration")?;
        let mut hasher = descriptor.digest.hasher();
        hasher.update(&bytes);
        let digest = hasher.finish();
        if digest != descriptor.digest {
            return Err(Error::retry(format_args!(
                "the registry sent other content: its digest is `{digest}`"
            )));
        }
        Config::parse(&bytes)
    })
}
