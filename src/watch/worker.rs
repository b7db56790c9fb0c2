//! A worker: takes layers before images, so that what was begun is finished first.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crossbeam_channel::select;

use super::Mode;
use super::assemble;
use super::layers;
use super::look;
use super::progress::Finished;
use super::resolve;
use super::shared::{Build, Inputs, Layer, Shared, Work};
use crate::error::{Error, Kind, Result};
use crate::http::retry::backoff;
use crate::registry::Listed;
use crate::store::queue::Job;
use crate::store::tags::{Found, Record, Seen, Told};
use crate::time::Timestamp;

/// Jobs under way for each worker: more wait for a layer that somebody reads, and would only take memory.
const JOBS_PER_WORKER: usize = 16;
/// Tries of an image in a single pass before it counts as failed.
const PASS_ATTEMPTS: u32 = 4;
/// The same while watching: about two hours of trouble. One whose source comes back begins anew.
const WATCH_ATTEMPTS: u32 = 12;
/// The longest wait that a server may ask of a single pass: past it, the image fails and the next pass tries again.
pub(super) const PASS_PATIENCE: Duration = Duration::from_secs(300);
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

/// How much less the threads count, for the system's scheduler, that work on what nobody waits for.
const NICENESS: i32 = 10;

/// Lets the calling thread step back behind webhooks, pushed images, and other processes of the machine. That it
/// cannot does no harm.
pub(super) fn step_back(mode: Mode) {
    if mode != Mode::Once {
        // On Linux this concerns the calling thread alone (setpriority(2), "C library/kernel differences").
        let _ = rustix::process::nice(NICENESS);
    }
}

/// Works until the run has ended and nothing is left.
pub(super) fn run(shared: &Shared<'_>, inputs: &Inputs, serves: Serves) {
    if serves == Serves::All {
        step_back(shared.plan.mode);
    }
    let read = |layer: Layer| layers::read(shared, layer);
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
pub(super) fn caught<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
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
            look::at(shared, *event);
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
    let digest = loop {
        match source.resolve(&listed.repository, &listed.tag) {
            // Nobody comes back to this tag in this pass.
            Err(err) if err.held_for().is_some_and(|wait| wait <= PASS_PATIENCE) => {
                if shared.stop.sleep(err.held_for().unwrap_or_default()) {
                    return Err(err);
                }
            }
            other => break other?,
        }
    };
    let found = Found {
        repository: &listed.repository,
        shown: &source.shown(&listed.repository),
        tag: &listed.tag,
        digest: &digest,
    };
    let id = shared.source_ids[source_idx];
    let seen = shared.plan.store.see_tag(id, &found, record, told)?;
    shared.progress.checked(seen);
    shared.log.debug(
        "tag checked",
        &[
            ("image", &format_args!("{}:{}", found.shown, listed.tag)),
            ("seen", &format_args!("{seen:?}")),
            ("record", &record.word()),
        ],
    );
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
        Ok(build) => layers::request(shared, &Arc::new(build)),
        Err(failed) => give_up(shared, &failed.0, failed.1),
    }
}

/// One thing less that a build waits for; whoever brings the last one finishes it.
pub(super) fn arrived(shared: &Shared<'_>, build: &Arc<Build>) {
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
    // What was not sent was no try.
    let attempt = job.attempts + u32::from(err.held_for().is_none());
    let (base, cap) = match shared.plan.mode {
        Mode::Once => (Duration::from_secs(1), Duration::from_secs(30)),
        Mode::Watch { .. } => (Duration::from_secs(10), Duration::from_secs(900)),
    };
    let wait = match (err.retry_after(), shared.plan.mode) {
        (None, _) => Some(backoff(attempt.max(1), base, cap)),
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
    if let Err(err) = shared.plan.store.job_failed(job, &err, next_try, attempt) {
        shared.broken(err);
    }
    shared.progress.failed(shared.log, job, &err, next_try);
    shared.end_work();
}

pub(super) fn lock(build: &Build) -> std::sync::MutexGuard<'_, super::shared::BuildState> {
    build.state.lock().unwrap_or_else(PoisonError::into_inner)
}
