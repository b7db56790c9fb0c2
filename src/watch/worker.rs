//! A worker: takes layers before images, so that what was begun is finished first.

use std::collections::HashSet;
use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crossbeam_channel::{TrySendError, select};

use super::Mode;
use super::assemble;
use super::look;
use super::progress::Finished;
use super::resolve;
use super::shared::{Build, Inputs, Layer, Reading, Shared, Work};
use crate::error::{Error, Kind, Result};
use crate::http::retry::backoff;
use crate::indexer;
use crate::registry::Listed;
use crate::store::queue::Job;
use crate::store::tags::{Found, Lane, Record, Seen, Told};
use crate::time::Timestamp;

/// Jobs under way for each worker: more wait for a layer that somebody reads, and would only take memory.
const JOBS_PER_WORKER: usize = 16;
/// Tries of an image in a single pass before it counts as failed.
const PASS_ATTEMPTS: u32 = 4;
/// The same while watching: about two hours of trouble. One whose source comes back begins anew.
const WATCH_ATTEMPTS: u32 = 12;
/// The longest wait that a server may ask of a single pass: past it, the image fails and the next pass tries again.
const PASS_PATIENCE: Duration = Duration::from_secs(300);
/// The longest wait that a server may ask while watching.
const WATCH_PATIENCE: Duration = Duration::from_secs(24 * 3600);
/// How long a worker sleeps before it looks whether the end has come.
const TICK: Duration = Duration::from_millis(50);

/// What a worker takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Serves {
    All,
    /// Only what was pushed, so that it never waits for a layer of the backfill.
    Pushed,
}

/// Works until the run has ended and nothing is left.
pub(super) fn run(shared: &Shared<'_>, inputs: &Inputs, serves: Serves) {
    let read = |layer: Layer| read_layer(shared, layer);
    let begin = |work: Work| begin(shared, work);
    while !(shared.has_ended() && (shared.stop.is_requested() || shared.is_idle())) {
        let n_waiting = inputs.pushed.len() + inputs.checks.len() + inputs.images.len();
        let is_full = shared.n_under_way() > JOBS_PER_WORKER * shared.plan.n_workers + n_waiting;
        if let Ok(layer) = inputs.pushed_layers.try_recv() {
            read(layer);
        } else if let Ok(work) = inputs.pushed.try_recv() {
            begin(work);
        } else if serves == Serves::Pushed {
            select! {
                recv(inputs.pushed_layers) -> layer => layer.into_iter().for_each(read),
                recv(inputs.pushed) -> work => work.into_iter().for_each(begin),
                default(TICK) => {}
            }
        } else if let Ok(layer) = inputs.layers.try_recv() {
            read(layer);
        } else if is_full {
            select! {
                recv(inputs.pushed_layers) -> layer => layer.into_iter().for_each(read),
                recv(inputs.pushed) -> work => work.into_iter().for_each(begin),
                recv(inputs.layers) -> layer => layer.into_iter().for_each(read),
                default(TICK) => {}
            }
        } else {
            select! {
                recv(inputs.pushed_layers) -> layer => layer.into_iter().for_each(read),
                recv(inputs.pushed) -> work => work.into_iter().for_each(begin),
                recv(inputs.layers) -> layer => layer.into_iter().for_each(read),
                recv(inputs.checks) -> work => work.into_iter().for_each(begin),
                recv(inputs.images) -> work => work.into_iter().for_each(begin),
                default(TICK) => {}
            }
        }
    }
}

/// Runs `work`; a panic in it becomes an error, so that it costs one image.
fn caught<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or(panic.downcast_ref::<&str>().copied());
        let message = format!("a bug in crowsnest: {}", text.unwrap_or("it panicked"));
        Err(Error::skip(message).hint("please report it with the image's name"))
    })
}

fn begin(shared: &Shared<'_>, work: Work) {
    shared.tell_news();
    match work {
        Work::Check {
            source,
            listed,
            record,
            told,
        } => {
            if let Err(err) = caught(|| check(shared, source, &listed, &record, told)) {
                let image = format!(
                    "{}:{}",
                    shared.source(source).shown(&listed.repository),
                    listed.tag
                );
                if err.kind() == Kind::Stop {
                    shared.broken(err);
                } else if !shared.stop.is_requested() {
                    shared.progress.checks_failed(1);
                    let data: &[(&'static str, &dyn std::fmt::Display)] =
                        &[("image", &image), ("error", &err)];
                    // Every pass comes to it again.
                    if shared.is_news(&format!("{image}: {err}")) {
                        shared.log.warn("tag cannot be resolved", data);
                    } else {
                        shared.log.debug("tag still cannot be resolved", data);
                    }
                }
            }
            shared.end_work();
        }
        Work::Event(event) => {
            look::at(shared, &event);
            shared.end_work();
        }
        Work::Image(job) => begin_image(shared, *job),
    }
}

/// Asks for the digest of a tag that the listing did not tell.
fn check(
    shared: &Shared<'_>,
    source_idx: usize,
    listed: &Listed,
    record: &Record,
    told: Told,
) -> Result<()> {
    let source = shared.source(source_idx);
    let digest = source.resolve(&listed.repository, &listed.tag)?;
    let found = Found {
        repository: &listed.repository,
        shown: &source.shown(&listed.repository),
        tag: &listed.tag,
        digest: &digest,
    };
    let id = shared.source_ids[source_idx];
    let seen = shared.plan.store.see_tag(id, &found, record, told)?;
    shared.progress.checked(seen);
    if matches!(seen, Seen::New | Seen::Moved) {
        shared.tell_news();
    }
    Ok(())
}

fn begin_image(shared: &Shared<'_>, job: Job) {
    let Some(source_idx) = shared
        .source_names
        .iter()
        .position(|name| *name == job.source)
    else {
        return shared.end_work();
    };
    let kept = job.clone();
    let result = caught(|| Ok(resolve::build(shared, job, source_idx)));
    match result.unwrap_or_else(|err| Err(Box::new((kept, err)))) {
        Ok(build) => request_layers(shared, &Arc::new(build)),
        Err(failed) => give_up(shared, &failed.0, failed.1),
    }
}

/// Asks for every layer of a build that is not stored; whoever reads one already is asked to tell us too.
fn request_layers(shared: &Shared<'_>, build: &Arc<Build>) {
    match caught(|| missing_layers(shared, build)) {
        Ok(mut layers) => {
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
                        read_layer(shared, layer)
                    }
                }
            }
        }
        Err(err) => {
            // The layers that were claimed before the error are read by nobody now.
            let digest = build.job.digest.clone();
            lock(build).failed.insert(digest, err);
        }
    }
    arrived(shared, build);
}

fn missing_layers(shared: &Shared<'_>, build: &Arc<Build>) -> Result<Vec<Layer>> {
    let mut layers = Vec::new();
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
    Ok(layers)
}

/// Reads a layer, stores what it holds, and tells those who wait for it.
fn read_layer(shared: &Shared<'_>, layer: Layer) {
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

/// One thing less that a build waits for; whoever brings the last one finishes it.
fn arrived(shared: &Shared<'_>, build: &Arc<Build>) {
    let is_last = {
        let mut state = lock(build);
        state.missing -= 1;
        state.missing == 0
    };
    if is_last {
        finish(shared, build);
    }
}

/// Puts the images of a build together and stores them.
fn finish(shared: &Shared<'_>, build: &Build) {
    let (failed, read, refused) = {
        let mut state = lock(build);
        (std::mem::take(&mut state.failed), state.read, state.refused)
    };
    let mut finished = Finished::new(read, refused, build.started.elapsed());
    let mut first_error = failed.get(&build.job.digest).cloned();
    for image in &build.images {
        let layer_error = image
            .layers
            .iter()
            .find_map(|layer| failed.get(&layer.digest));
        let result = match layer_error {
            Some(err) => Err(err.clone()),
            None => caught(|| assemble::image(shared, image)),
        };
        match result {
            Ok(totals) => finished.add(&image.config.platform, totals, &image.layers),
            Err(err) => {
                first_error.get_or_insert(err);
            }
        }
    }
    let result = match first_error {
        Some(err) => Err(err),
        None => caught(|| {
            for index in &build.indexes {
                shared.plan.store.save_index(
                    &index.digest,
                    index.media_type,
                    &index.entries,
                    &|descriptor| resolve::wants(&shared.plan.platforms, descriptor),
                    &shared.wish.platforms,
                )?;
            }
            shared.plan.store.job_done(&build.job)
        }),
    };
    match result {
        Ok(()) => {
            shared.progress.finished(shared.log, &build.job, &finished);
            shared.end_work();
        }
        Err(err) => give_up(shared, &build.job, err),
    }
}

/// Notes that a job failed, and when it is tried again.
fn give_up(shared: &Shared<'_>, job: &Job, err: Error) {
    if err.kind() == Kind::Stop {
        shared.broken(err);
        return shared.end_work();
    }
    if shared.stop.is_requested() {
        // Its lease is given back at the end; the job waits for the next run as if untouched.
        return shared.end_work();
    }
    let attempt = job.attempts + 1;
    let (base, cap) = match shared.plan.mode {
        Mode::Once => (Duration::from_secs(1), Duration::from_secs(30)),
        Mode::Watch { .. } => (Duration::from_secs(10), Duration::from_secs(900)),
    };
    let wait = match (err.retry_after(), shared.plan.mode) {
        (None, _) => Some(backoff(attempt, base, cap)),
        (Some(wait), Mode::Once) => Some(wait).filter(|wait| *wait <= PASS_PATIENCE),
        (Some(wait), Mode::Watch { .. }) => Some(wait.min(WATCH_PATIENCE)),
    };
    let max_attempts = match shared.plan.mode {
        Mode::Once => PASS_ATTEMPTS,
        Mode::Watch { .. } => WATCH_ATTEMPTS,
    };
    let next_try = wait
        .filter(|_| err.kind() == Kind::Retry && attempt < max_attempts)
        .map(|wait| Timestamp::now().plus(wait));
    if let Err(err) = shared.plan.store.job_failed(job, &err, next_try) {
        shared.broken(err);
    }
    shared.progress.failed(shared.log, job, &err, next_try);
    shared.end_work();
}

fn lock(build: &Build) -> std::sync::MutexGuard<'_, super::shared::BuildState> {
    build.state.lock().unwrap_or_else(PoisonError::into_inner)
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
