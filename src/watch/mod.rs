//! The pipeline: tags of sources become jobs, jobs become images in the store.
//!
//! In: [`Plan`], what the user asked for. Out: [`Outcome`]. Every thread starts in [`run`], named, inside one
//! scope: `signals` waits for SIGINT and SIGTERM, `refresh` lists the sources, `digest-N` help with long layers, `worker-1..N` read images and layers, and the calling thread takes due
//! jobs out of the store, feeds the workers, shows progress and decides when the end is reached.
//!
//! A change is a row in the store before anybody works on it; the channel carries copies of rows. Whatever
//! fails, fails one image: errors are noted with the job, a panic counts as one. Only an error of kind `Stop`
//! (the store cannot be written) ends everything.
//!
//! *Invariant:* no lock is held over a socket, and a worker never waits for another.

mod assemble;
pub(crate) mod dry_run;

mod progress;
mod refresh;
mod resolve;
mod shared;
mod worker;

use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::ecosystem;
use crate::error::{Error, Result};
use crate::http::Http;
use crate::image::Platform;
use crate::layer::spare::{self, Spare};
use crate::log::Log;
use crate::registry::Source;
use crate::stop::Stop;
use crate::store::queue::this_process;
use crate::store::tags::Record;
use crate::store::{Store, Wish};
use crate::time::Timestamp;
pub(crate) use progress::{Summary, megabytes};
use shared::{Layer, Shared, Work};

/// How often the calling thread looks around.
const TICK: Duration = Duration::from_millis(100);
/// How often leases are renewed; they last longer.
const RENEW: Duration = Duration::from_secs(30);
/// Layers that wait for a worker; one more is read by whoever asks for it.
const LAYER_QUEUE: usize = 256;

/// What the user asked for.
pub(crate) struct Plan<'a> {
    pub(crate) store: &'a Store,
    pub(crate) sources: &'a [Box<dyn Source>],
    /// What the sources send their requests with, to be broken off at a stop.
    pub(crate) http: &'a Http,
    pub(crate) mode: Mode,
    pub(crate) n_workers: usize,
    /// Those to index; empty means all.
    pub(crate) platforms: Vec<Platform>,
    /// Bytes of one layer's tar.
    pub(crate) max_layer_bytes: u64,
    /// Whether layers are read; else images are only recorded.
    pub(crate) with_sbom: bool,
}

impl Plan<'_> {
    /// What counts as read.
    fn wish(&self) -> Wish {
        wish(&self.platforms, self.max_layer_bytes)
    }
}

/// What counts as read, for those platforms and that limit.
fn wish(platforms: &[Platform], max_layer_bytes: u64) -> Wish {
    let mut names: Vec<String> = platforms.iter().map(ToString::to_string).collect();
    names.sort();
    Wish {
        platforms: names.join(","),
        ecosystems: ecosystem::names(),
        max_layer_bytes,
    }
}

/// What a pass makes of tags that are not indexed yet. The first one ever of a watch only remembers them.
fn record(mode: Mode, was_listed: bool, wish: &Wish) -> Record {
    match mode {
        Mode::Once
        | Mode::Watch {
            all_images: true, ..
        } => Record::All(wish.clone()),
        Mode::Watch { .. } if was_listed => Record::Changes(wish.clone()),
        Mode::Watch { .. } => Record::Only,
    }
}

/// How long to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// One pass over everything, then the end.
    Once,
    /// Passes until stopped.
    Watch {
        interval: Duration,
        /// Whether images that existed before the first pass ever are indexed too.
        all_images: bool,
    },
}

/// How it ended.
pub(crate) struct Outcome {
    pub(crate) summary: Summary,
    /// Images of the sources that could not be read, whenever that was.
    pub(crate) n_failed: u64,
    pub(crate) was_stopped: bool,
    pub(crate) source_names: Vec<String>,
}

/// Runs the pipeline to its end, or until `stop`.
/// Errors: `Stop` when the store fails; `Tell` or `Retry` when no source could be listed in a single pass.
pub(crate) fn run(plan: &Plan<'_>, log: &Log, stop: &Stop) -> Result<Outcome> {
    let owner = this_process();
    plan.store.release_orphans()?;
    // A new run is a new chance: the user may have mended what was wrong.
    plan.store.retry_failed()?;
    let (work_sender, work) = bounded::<Work>(2 * plan.n_workers);
    let (layer_sender, layers) = bounded::<Layer>(LAYER_QUEUE);
    let n_processors = thread::available_parallelism().map_or(1, usize::from);
    let (spare, digests) = Spare::new(n_processors);
    let shared = Shared::new(plan, log, stop, layer_sender, spare)?;
    let mut signals = Signals::new([SIGINT, SIGTERM])
        .map_err(|err| Error::stop(format_args!("signals: {err}")))?;
    let no_more_signals = signals.handle();
    let result = thread::scope(|scope| -> Result<()> {
        // Checks and jobs end up on one channel; its last sender is dropped before the scope joins.
        let checks = work_sender.clone();
        let named = |name: String| thread::Builder::new().name(name);
        let cannot =
            |err: std::io::Error| Error::stop(format_args!("cannot start a thread: {err}"));
        let start = || -> Result<()> {
            named("signals".to_owned())
                .spawn_scoped(scope, || obey(&mut signals, log, stop, plan.http))
                .map_err(cannot)?;
            named("refresh".to_owned())
                .spawn_scoped(scope, || refresh::run(&shared, checks))
                .map_err(cannot)?;
            for n in 1..=plan.n_workers {
                let (shared, work, layers) = (&shared, work.clone(), layers.clone());
                named(format!("worker-{n}"))
                    .spawn_scoped(scope, move || worker::run(shared, &work, &layers))
                    .map_err(cannot)?;
            }
            // One processor is with the layer itself.
            for n in 1..n_processors.min(plan.n_workers + 1) {
                let digests = digests.clone();
                named(format!("digest-{n}"))
                    .spawn_scoped(scope, move || spare::serve(&digests))
                    .map_err(cannot)?;
            }
            Ok(())
        };
        let result = start().and_then(|()| feed(&shared, &owner, work_sender, &work));
        if result.is_err() {
            stop.request();
        }
        shared.end();
        no_more_signals.close();
        result
    });
    log.live("");
    plan.store.release_leases(&owner)?;
    result?;
    if let Some(err) = shared.take_fatal() {
        return Err(err);
    }
    let summary = shared.progress.summary();
    Ok(Outcome {
        n_failed: plan.store.failed_jobs(&shared.source_names)?,
        summary,
        was_stopped: stop.is_requested(),
        source_names: shared.source_names,
    })
}

/// The first signal asks for a clean stop, which breaks off what is being read; the second ends at once.
fn obey(signals: &mut Signals, log: &Log, stop: &Stop, http: &Http) {
    for signal in signals.forever() {
        if stop.is_requested() {
            signal_hook::low_level::exit(128 + signal);
        }
        log.info("stopping", &[("signal", &signal)]);
        stop.request();
        http.shut_down();
    }
}

/// Hands due jobs to the workers until the pass is over or a stop is asked for.
fn feed(
    shared: &Shared<'_>,
    owner: &str,
    sender: Sender<Work>,
    queue: &Receiver<Work>,
) -> Result<()> {
    let store = shared.plan.store;
    let mut renewed = Instant::now();
    loop {
        if shared.stop.is_requested() {
            return Ok(());
        }
        let room = sender.capacity().unwrap_or(0).saturating_sub(queue.len());
        let was_listed = shared.is_listed();
        let mut n_taken = 0;
        if room > 0 {
            for job in store.take_jobs(owner, &shared.source_names, room)? {
                n_taken += 1;
                if !shared.hand_out(&sender, Work::Image(Box::new(job))) {
                    return Ok(());
                }
            }
        }
        if n_taken == 0 && shared.plan.mode == Mode::Once && was_listed && shared.is_idle() {
            // Nothing is under way and nothing can be added: jobs that wait for their next try decide.
            match store.next_due(&shared.source_names)? {
                None => return Ok(()),
                Some(due) if due > Timestamp::now() => {
                    shared.progress.show_waiting(shared.log, due)
                }
                Some(_) => {}
            }
        }
        if renewed.elapsed() >= RENEW {
            store.renew_leases(owner)?;
            store.release_orphans()?;
            renewed = Instant::now();
        }
        shared.progress.show(shared.log, store);
        if n_taken == 0 {
            shared.wait_for_news(TICK);
        }
    }
}
