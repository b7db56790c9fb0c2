//! From a job to what has to be read: manifest, platforms, configurations.

use std::collections::HashSet;
use std::io::Read;
use std::sync::Mutex;
use std::time::Instant;

use super::shared::{Build, BuildState, ImagePlan, IndexPlan, Shared};
use crate::error::{Context, Error, Kind, Result};
use crate::image::manifest::{Entry, ImageManifest, Manifest, entry_of};
use crate::image::{Config, Descriptor, Digest};
use crate::limit::{self, Limited};
use crate::registry::{Place, Source};
use crate::store::queue::Job;

/// Reads the documents of a job's image. A tag that moved since it was listed is followed.
/// Images that are in the store already, or for other platforms, are not in the result.
pub(super) fn build(
    shared: &Shared<'_>,
    mut job: Job,
    source_idx: usize,
) -> std::result::Result<Build, (Job, Error)> {
    let source = shared.source(source_idx);
    let mut found = Found {
        shared,
        source,
        images: Vec::new(),
        indexes: Vec::new(),
        seen: HashSet::new(),
        n_layers: 0,
        config_bytes: 0,
    };
    let mut result = found.visit(&top(&job), 0);
    if matches!(&result, Err(err) if err.status() == Some(404)) {
        result = match follow(shared, source, &mut job) {
            Ok(true) => found.visit(&top(&job), 0),
            Ok(false) => result,
            Err(err) => Err(err),
        };
    }
    let (images, indexes) = (found.images, found.indexes);
    match result {
        Ok(()) => Ok(Build {
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
        Err(err) => Err((job, err)),
    }
}

fn top(job: &Job) -> Place {
    Place {
        repository: job.repository.clone(),
        tag: Some(job.tag.clone()),
        digest: job.digest.clone(),
    }
}

/// Asks where the tag points to now. Returns whether that is somewhere else.
fn follow(shared: &Shared<'_>, source: &dyn Source, job: &mut Job) -> Result<bool> {
    let digest = source.resolve(&job.repository, &job.tag)?;
    if digest == job.digest {
        return Ok(false);
    }
    shared.plan.store.move_tag(job.tag_id, &digest)?;
    job.digest = digest;
    Ok(true)
}

struct Found<'a> {
    shared: &'a Shared<'a>,
    source: &'a dyn Source,
    images: Vec<ImagePlan>,
    indexes: Vec<IndexPlan>,
    seen: HashSet<Digest>,
    n_layers: usize,
    config_bytes: u64,
}

impl Found<'_> {
    /// Reads the manifest at `place` and what it names.
    fn visit(&mut self, place: &Place, depth: usize) -> Result<()> {
        if !self.seen.insert(place.digest.clone()) {
            return Ok(());
        }
        // The first is the tag's own.
        if self.seen.len() > 1 + limit::INDEX_ENTRIES {
            let message = format!(
                "the tag stands for more than the limit of {} manifests",
                limit::INDEX_ENTRIES
            );
            return Err(Error::new(Kind::Limit, message));
        }
        if self
            .shared
            .plan
            .store
            .is_indexed(&place.digest, &self.shared.platforms())?
        {
            return Ok(());
        }
        let raw = self
            .source
            .manifest(place)
            .context(|| format!("manifest `{}`", place.digest))?;
        match raw
            .parse()
            .context(|| format!("manifest `{}`", place.digest))?
        {
            Manifest::Index(index) => {
                self.visit_index(place, index.media_type, index.manifests, depth)
            }
            Manifest::Image(manifest) => self.visit_image(place, manifest),
        }
    }

    fn visit_index(
        &mut self,
        place: &Place,
        media_type: &'static str,
        manifests: Vec<Descriptor>,
        depth: usize,
    ) -> Result<()> {
        if depth >= limit::INDEX_DEPTH {
            let message = format!(
                "indexes are nested deeper than the limit of {}",
                limit::INDEX_DEPTH
            );
            return Err(Error::new(Kind::Limit, message));
        }
        let entries: Vec<(Descriptor, Entry)> = manifests
            .into_iter()
            .map(|descriptor| (entry_of(&descriptor), descriptor))
            .map(|(a, b)| (b, a))
            .collect();
        for (descriptor, kind) in &entries {
            if *kind == Entry::Image && self.wants(descriptor) {
                let inner = Place {
                    repository: place.repository.clone(),
                    tag: None,
                    digest: descriptor.digest.clone(),
                };
                self.visit(&inner, depth + 1)?;
            }
        }
        self.indexes.push(IndexPlan {
            digest: place.digest.clone(),
            media_type,
            entries,
        });
        Ok(())
    }

    fn wants(&self, descriptor: &Descriptor) -> bool {
        let wanted = &self.shared.plan.platforms;
        match &descriptor.platform {
            Some(platform) if !wanted.is_empty() => wanted.iter().any(|wish| wish.takes(platform)),
            _ => true,
        }
    }

    fn visit_image(&mut self, place: &Place, manifest: ImageManifest) -> Result<()> {
        if let Some(artifact_type) = manifest.not_an_image() {
            return self.shared.plan.store.save_artifact(
                &place.digest,
                manifest.media_type,
                artifact_type,
            );
        }
        self.n_layers += manifest.layers.len();
        if self.n_layers > limit::TAG_LAYERS {
            let message = format!(
                "the {} layers of the tag's images are over the limit of {}",
                self.n_layers,
                limit::TAG_LAYERS
            );
            return Err(Error::new(Kind::Limit, message));
        }
        let descriptor = &manifest.config;
        self.config_bytes += descriptor.size.min(limit::CONFIG_BYTES);
        if self.config_bytes > limit::TAG_CONFIG_BYTES {
            let what = "the text of all configurations of the tag";
            return Err(limit::over(what, limit::TAG_CONFIG_BYTES));
        }
        let config = self
            .config(place, descriptor)
            .context(|| format!("configuration `{}`", descriptor.digest))?;
        if !config.diff_ids.is_empty() && config.diff_ids.len() != manifest.layers.len() {
            let message = format!(
                "the manifest has {} layers, the configuration {}",
                manifest.layers.len(),
                config.diff_ids.len()
            );
            return Err(Error::skip(message));
        }
        self.images.push(ImagePlan {
            place: place.clone(),
            media_type: manifest.media_type,
            config_digest: manifest.config.digest.clone(),
            config,
            layers: manifest.layers,
        });
        Ok(())
    }

    /// Reads a configuration and checks it against its digest.
    fn config(&self, place: &Place, descriptor: &Descriptor) -> Result<Config> {
        if descriptor.size > limit::CONFIG_BYTES {
            return Err(limit::over("image configuration", limit::CONFIG_BYTES));
        }
        crate::http::retry::retrying(self.shared.stop, || {
            let blob = self.source.blob(place, descriptor)?;
            let mut bytes = Vec::new();
            Limited::new(blob, limit::CONFIG_BYTES, "image configuration")
                .read_to_end(&mut bytes)
                .map_err(|err| crate::error::from_io(Kind::Retry, err))?;
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
}
