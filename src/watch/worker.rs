//! A worker: takes layers before images, so that what was begun is finished first.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::select;

use super::Mode;
use super::finish::{PASS_PATIENCE, caught, give_up};
use super::layers;
use super::look;
use super::resolve;
use super::shared::{Inputs, Layer, Shared, Work};
use crate::error::{Kind, Result};
use crate::registry::Listed;
use crate::store::queue::Job;
use crate::store::tags::{Found, Record, Seen, Told};

/// Jobs under way for each worker: more wait for a layer that somebody reads, and would only take memory.
const JOBS_PER_WORKER: usize = 16;
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

/// Lets the calling thread step back behind webhooks, whose senders wait, and behind other processes of the
/// machine. That it cannot does no harm.
pub(super) fn step_back(mode: Mode) {
    if mode != Mode::Once {
        // On Linux this concerns the calling thread alone (setpriority(2), "C library/kernel differences").
        let _ = rustix::process::nice(NICENESS);
    }
}

/// Works until the run has ended and nothing is left.
pub(super) fn run(shared: &Shared<'_>, inputs: &Inputs, serves: Serves) {
    step_back(shared.plan.mode);
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
            // A panic leaves the event to the next process.
            if let Err(err) = caught(|| {
                look::at(shared, *event);
                Ok(())
            }) {
                shared
                    .log
                    .error("event cannot be looked at", &[("error", &err)]);
            }
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
