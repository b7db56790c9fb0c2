//! The pipeline: tags of sources become jobs, jobs become images in the store.
//!
//! In: [`Plan`], what the user asked for. Out: [`Outcome`]. Every thread starts in [`run`], named, inside one
//! scope: `signals` waits for signals, `refresh-N` list the sources, `digest-N` help with long layers,
//! `worker-1..N` read images and layers, `express` only those that were just pushed, `housekeeper` keeps the store
//! small, each [`Service`] runs on its own, and the calling thread takes due events and jobs out of the store,
//! feeds the workers, shows progress and decides when the end is reached.
//!
//! A change is a row in the store before anybody works on it; the channels carry copies of rows. Whatever
//! fails, fails one image: errors are noted with the job, a panic counts as one. Only an error of kind `Stop`
//! (the store cannot be written) concerns everything: a single pass ends, a watch waits until it can go on.
//!
//! *Invariant:* no lock is held over a socket, and a worker never waits for another.

mod assemble;
pub(crate) mod dry_run;
mod feed;
mod finish;
mod inbox;
mod layers;
mod look;
mod progress;
mod refresh;
mod resolve;
mod shared;
mod systemd;
mod worker;

use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::ecosystem;
use crate::error::{Error, Kind, Result};
use crate::http::Http;
use crate::image::Platform;
use crate::layer::spare::{self, Spare};
use crate::log::Log;
use crate::registry::Source;
use crate::stop::Stop;
use crate::store::lease::this_process;
use crate::store::prune::Pruned;
use crate::store::tags::Record;
use crate::store::{Store, Wish};
use crate::time::for_people;
pub(crate) use inbox::{Inbox, Service};
pub(crate) use progress::{Summary, megabytes};
use shared::{Inputs, LayerSenders, Outputs, Shared};
use systemd::Manager;
use worker::Serves;

/// How often a thread that waits looks around.
const TICK: Duration = Duration::from_millis(100);
/// Events and pushed images that wait for a worker, taken out of the store together.
const PUSHED_QUEUE: usize = 64;
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
    /// How long tags that are gone are kept, and what only they need; `None` for ever.
    pub(crate) keep: Option<Duration>,
    /// Looks at the user's credentials anew. Errors are logged, and the old ones stay.
    pub(crate) reload: &'a (dyn Fn() -> Result<()> + Sync),
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

/// Runs the pipeline to its end, or until `stop`, and `services` beside it.
/// Errors: `Stop` when the store fails; `Tell` or `Retry` when no source could be listed in a single pass.
pub(crate) fn run(
    plan: &Plan<'_>,
    services: Vec<Service<'_>>,
    log: &Log,
    stop: &Stop,
) -> Result<Outcome> {
    let owner = this_process();
    plan.store.recover()?;
    // A new run is a new chance: the user may have mended what was wrong.
    plan.store.retry_failed()?;
    let n_processors = thread::available_parallelism().map_or(1, usize::from);
    let (spare, digests) = Spare::new(n_processors);
    let (backfill, layers) = bounded(LAYER_QUEUE);
    let (pushed, pushed_layers) = bounded(LAYER_QUEUE);
    let layer_senders = LayerSenders { pushed, backfill };
    let shared = Shared::new(plan, log, stop, layer_senders, spare)?;
    let (pushed, pushed_work) = bounded(PUSHED_QUEUE);
    let (images, image_work) = bounded(2 * plan.n_workers);
    let (check_sender, checks) = bounded(2 * plan.n_workers);
    let outputs = Outputs { pushed, images };
    let inputs = Inputs {
        pushed_layers,
        pushed: pushed_work,
        layers,
        checks,
        images: image_work,
    };
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])
        .map_err(|err| Error::stop(format_args!("signals: {err}")))?;
    let no_more_signals = signals.handle();
    let mut manager = Manager::of_environment();
    let result = thread::scope(|scope| -> Result<()> {
        let named = |name: String| thread::Builder::new().name(name);
        let cannot =
            |err: std::io::Error| Error::stop(format_args!("cannot start a thread: {err}"));
        let (shared, inputs) = (&shared, &inputs);
        let start = || -> Result<()> {
            named("signals".to_owned())
                .spawn_scoped(scope, || obey(&mut signals, shared))
                .map_err(cannot)?;
            for at in 0..plan.sources.len() {
                let checks = check_sender.clone();
                named(format!("refresh-{}", at + 1))
                    .spawn_scoped(scope, move || refresh::run(shared, at, &checks))
                    .map_err(cannot)?;
            }
            let workers = (1..=plan.n_workers).map(|n| (format!("worker-{n}"), Serves::All));
            let express =
                Some(("express".to_owned(), Serves::Pushed)).filter(|_| plan.mode != Mode::Once);
            for (name, serves) in workers.chain(express) {
                named(name)
                    .spawn_scoped(scope, move || worker::run(shared, inputs, serves))
                    .map_err(cannot)?;
            }
            // One processor is with the layer itself.
            for n in 1..n_processors.min(plan.n_workers + 1) {
                let digests = digests.clone();
                named(format!("digest-{n}"))
                    .spawn_scoped(scope, move || {
                        worker::step_back(plan.mode);
                        spare::serve(&digests);
                    })
                    .map_err(cannot)?;
            }
            named("housekeeper".to_owned())
                .spawn_scoped(scope, || housekeeping(shared))
                .map_err(cannot)?;
            for service in services {
                named(service.name)
                    .spawn_scoped(scope, move || {
                        let inbox = Inbox { shared };
                        let run = || {
                            (service.run)(&inbox);
                            Ok(())
                        };
                        if let Err(err) = finish::caught(run) {
                            inbox.fail(Error::stop(err));
                        }
                    })
                    .map_err(cannot)?;
            }
            manager.ready();
            Ok(())
        };
        let result =
            start().and_then(|()| feed::run(shared, &owner, &outputs, inputs, &mut manager));
        if result.is_err() {
            stop.request();
        }
        shared.end();
        no_more_signals.close();
        result
    });
    log.live("");
    // A disk that cannot be written keeps the leases; they end with this process.
    let released = plan.store.release_leases(&owner);
    result?;
    if let Some(err) = shared.take_fatal() {
        return Err(err);
    }
    if shared.trouble().is_none() {
        released?;
    }
    let summary = shared.progress.summary();
    Ok(Outcome {
        n_failed: plan.store.failed_jobs(&shared.source_names)?,
        summary,
        was_stopped: stop.is_requested(),
        source_names: shared.source_names,
    })
}

/// The first signal to end asks for a clean stop, which breaks off what is being read; the second ends at once.
/// SIGHUP has credentials looked at anew.
fn obey(signals: &mut Signals, shared: &Shared<'_>) {
    let (log, stop) = (shared.log, shared.stop);
    for signal in signals.forever() {
        if signal == SIGHUP {
            match (shared.plan.reload)() {
                Ok(()) => log.info("credentials looked at anew", &[]),
                Err(err) => log.error("credentials stay as they were", &[("error", &err)]),
            }
            shared.reload();
            continue;
        }
        if stop.is_requested() {
            signal_hook::low_level::exit(128 + signal);
        }
        log.info("stopping", &[("signal", &signal)]);
        stop.request();
        shared.plan.http.shut_down();
    }
}

/// Keeps the store small until the run ends. What is gone for long is looked for at least once.
fn housekeeping(shared: &Shared<'_>) {
    let mut pruned: Option<Instant> = None;
    loop {
        if shared.trouble().is_none() {
            if let Err(err) = shared.plan.store.keep_log_small() {
                match err.kind() {
                    Kind::Stop => shared.broken(err),
                    _ => shared
                        .log
                        .debug("the log stays as it is", &[("error", &err)]),
                }
            }
            if let Some(keep) = shared.plan.keep
                && pruned.is_none_or(|at| at.elapsed() >= PRUNE)
            {
                pruned = Some(Instant::now());
                prune(shared, keep);
            }
        }
        if shared.has_ended() {
            return;
        }
        shared.wait_for_end(TICK);
    }
}

/// Deletes what is gone for longer than `keep`; a single pass ends no earlier, else it might never come to the end
/// of it.
fn prune(shared: &Shared<'_>, keep: Duration) {
    let began = Instant::now();
    let mut pruned = Pruned::default();
    // Everybody else has as much time with the store as this.
    let mut pause = |held: Duration| shared.trouble().is_some() || shared.stop.sleep(held);
    let result = shared.plan.store.prune(keep, &mut pruned, &mut pause);
    if pruned != Pruned::default() {
        shared.log.info(
            "pruned what is gone for long",
            &[
                ("tags", &pruned.tags),
                ("earlier_digests", &pruned.history),
                ("manifests", &pruned.manifests),
                ("layers", &pruned.layers),
                ("files", &pruned.contents),
                ("packages", &pruned.packages),
                ("repositories", &pruned.repositories),
                ("time", &for_people(began.elapsed())),
            ],
        );
    }
    match result {
        Ok(()) => {}
        Err(err) if err.kind() == Kind::Stop => shared.broken(err),
        Err(err) => shared
            .log
            .debug("pruning goes on later", &[("error", &err)]),
    }
}

/// How often what is gone for long is looked for.
const PRUNE: Duration = Duration::from_secs(3600);
