//! Layers: which of them a build lacks, and reading one for all builds that wait for it.

use std::collections::HashSet;
use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};

use crossbeam_channel::TrySendError;

use super::finish::{arrived, caught, lock};
use super::shared::{Build, Layer, Reading, Shared};
use crate::error::{Error, Kind, Result};
use crate::indexer;
use crate::store::tags::Lane;

/// Asks for every layer of a build that is not stored; whoever reads one already is asked to tell us too.
pub(super) fn request(shared: &Shared<'_>, build: &Arc<Build>) {
    let mut layers = Vec::new();
    let result = caught(|| missing_layers(shared, build, &mut layers));
    if let Err(err) = result {
        let digest = build.job.digest.clone();
        lock(build).failed.insert(digest, err);
    }
    // Also after an error: what was claimed before it is read by nobody else, and others may wait for it.
    // The longest first: they decide when the image is done.
    layers.sort_by_key(|layer| std::cmp::Reverse(layer.descriptor.size));
    let senders = &shared.layer_senders;
    let sender = match build.job.lane {
        Lane::Pushed => &senders.pushed,
        Lane::Backfill => &senders.backfill,
    };
    for layer in layers {
        match sender.try_send(layer) {
            Ok(()) => {}
            Err(TrySendError::Full(layer) | TrySendError::Disconnected(layer)) => {
                read(shared, layer)
            }
        }
    }
    arrived(shared, build);
}

/// Claims the layers that are not stored, and puts those to be read into `layers`, also before an error.
fn missing_layers(shared: &Shared<'_>, build: &Arc<Build>, layers: &mut Vec<Layer>) -> Result<()> {
    let mut seen = HashSet::new();
    for image in &build.images {
        for descriptor in &image.layers {
            if !seen.insert(&descriptor.digest) {
                continue;
            }
            // Under the lock, a layer that is not being read is in the store or still to be read.
            let mut reading = shared
                .reading
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let layer = || Layer {
                source: build.source,
                place: image.place.clone(),
                descriptor: descriptor.clone(),
            };
            if let Some(reading) = reading.get_mut(&descriptor.digest) {
                reading.waiting.push(Arc::clone(build));
                if !reading.is_begun && build.job.lane == Lane::Pushed {
                    // It waits among those of the backfill: whoever comes to it first reads it.
                    layers.push(layer());
                }
            } else if shared.plan.store.has_layer(
                &descriptor.digest,
                &build.job.source,
                &shared.wish,
            )? {
                shared.log.debug(
                    "layer not read",
                    &[("digest", &descriptor.digest), ("reason", &"it is known")],
                );
                continue;
            } else {
                let waiting = Reading {
                    waiting: vec![Arc::clone(build)],
                    is_begun: false,
                };
                reading.insert(descriptor.digest.clone(), waiting);
                layers.push(layer());
            }
            lock(build).missing += 1;
        }
    }
    Ok(())
}

/// Reads a layer, stores what it holds, and tells those who wait for it.
pub(super) fn read(shared: &Shared<'_>, layer: Layer) {
    let digest = &layer.descriptor.digest;
    let reading = || {
        shared
            .reading
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    };
    match reading().get_mut(digest) {
        Some(reading) if !reading.is_begun => reading.is_begun = true,
        // Another worker came to it through the channel of the other lane.
        _ => return,
    }
    let result = caught(|| index_layer(shared, &layer));
    if let Ok(Came::Read) = result {
        shared.progress.layer_read();
    }
    let waiting = reading()
        .remove(digest)
        .map_or(Vec::new(), |reading| reading.waiting);
    for build in waiting.iter().filter(|build| build.job.starts > 0) {
        // Processes ended over this job, but it gets on.
        if let Err(err) = shared.plan.store.job_progressed(build.job.id) {
            shared.broken(err);
        }
    }
    for (at, build) in waiting.iter().enumerate() {
        {
            let mut state = lock(build);
            match &result {
                Ok(Came::Read) if at == 0 => state.read.add(&layer.descriptor),
                Ok(Came::Refused) if at == 0 => state.refused.add(&layer.descriptor),
                Ok(_) => {}
                Err(err) => {
                    state.failed.insert(digest.clone(), err.clone());
                }
            }
        }
        arrived(shared, build);
    }
}

/// What became of a layer without an error.
enum Came {
    Read,
    /// It is over a limit.
    Refused,
}

fn index_layer(shared: &Shared<'_>, layer: &Layer) -> Result<Came> {
    let Layer {
        source,
        place,
        descriptor,
    } = layer;
    let store = shared.plan.store;
    let name = |err: Error| err.context(format_args!("layer `{}`", descriptor.digest));
    let open = || {
        Ok(Counted {
            inner: shared.source(*source).blob(place, descriptor)?,
            total: shared.progress.bytes(),
        })
    };
    match indexer::layer::read(open, descriptor, shared.plan.max_layer_bytes, &shared.spare) {
        Ok(facts) => store.save_layer(&facts, &shared.wish).map(|()| Came::Read),
        Err(err) if err.kind() == Kind::Limit => {
            let shown = format!("{}:{}", place.repository, descriptor.digest.short());
            shared
                .log
                .warn("layer is not read", &[("layer", &shown), ("reason", &err)]);
            store
                .refuse_layer(
                    &descriptor.digest,
                    descriptor.size,
                    &err.to_string(),
                    &shared.source_names[*source],
                    &shared.wish,
                )
                .map(|()| Came::Refused)
        }
        Err(err) => Err(name(err)),
    }
}

/// Counts the bytes that come from a registry.
struct Counted<'a, R> {
    inner: R,
    total: &'a AtomicU64,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.total.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}
