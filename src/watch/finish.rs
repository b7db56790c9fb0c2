//! The end of a job: its images are put together and stored, or it is put back with its error.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::Mode;
use super::assemble;
use super::progress::Finished;
use super::resolve;
use super::shared::{Build, Shared};
use crate::error::{Error, Kind, Result};
use crate::http::retry::backoff;
use crate::store::queue::Job;
use crate::time::Timestamp;

/// Tries of an image in a single pass before it counts as failed.
const PASS_ATTEMPTS: u32 = 4;
/// The same while watching: about two hours of trouble. One whose source comes back begins anew.
const WATCH_ATTEMPTS: u32 = 12;
/// The longest wait that a server may ask of a single pass: past it, the image fails and the next pass tries again.
pub(super) const PASS_PATIENCE: Duration = Duration::from_secs(300);
/// The longest wait that a server may ask while watching.
const WATCH_PATIENCE: Duration = Duration::from_secs(24 * 3600);

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
pub(super) fn give_up(shared: &Shared<'_>, job: &Job, err: Error) {
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
