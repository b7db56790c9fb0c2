//! What the threads of one run share.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, SendTimeoutError, Sender};

use super::progress::Progress;
use super::{Mode, Plan, TICK};
use crate::error::{Error, Kind, Result};
use crate::image::{Config, Descriptor, Digest};
use crate::layer::spare::Spare;
use crate::log::Log;
use crate::registry::{Listed, Place, Source};
use crate::stop::Stop;
use crate::store::Wish;
use crate::store::events::Event;
use crate::store::queue::Job;
use crate::store::tags::{Record, SourceId, Told};

/// What is remembered to have been said.
const MAX_SAID: usize = 100_000;

/// A piece of work that begins something.
pub(super) enum Work {
    /// A tag whose digest the listing did not say, and what its pass makes of it.
    Check {
        source: usize,
        listed: Listed,
        record: Arc<Record>,
        told: Told,
    },
    /// An image that a webhook spoke of.
    Event(Box<Event>),
    /// An image to be read.
    Image(Box<Job>),
}

/// Where workers take their work from: one channel a kind and lane, each bounded. What was pushed goes first.
#[derive(Clone)]
pub(super) struct Inputs {
    pub(super) pushed_layers: Receiver<Layer>,
    pub(super) pushed: Receiver<Work>,
    pub(super) layers: Receiver<Layer>,
    pub(super) checks: Receiver<Work>,
    pub(super) images: Receiver<Work>,
}

/// The other ends of [`Inputs`] that work is handed to by whoever feeds the workers.
pub(super) struct Outputs {
    pub(super) pushed: Sender<Work>,
    pub(super) images: Sender<Work>,
}

/// A layer to be read for the images that wait for it.
#[derive(Clone)]
pub(super) struct Layer {
    pub(super) source: usize,
    pub(super) place: Place,
    pub(super) descriptor: Descriptor,
}

/// A job under way: its images, and how many of their layers are still to come.
pub(super) struct Build {
    pub(super) job: Job,
    pub(super) source: usize,
    pub(super) images: Vec<ImagePlan>,
    /// Indexes to be stored when their images are, innermost first.
    pub(super) indexes: Vec<IndexPlan>,
    pub(super) started: Instant,
    pub(super) state: Mutex<BuildState>,
}

/// An image whose manifest and configuration were read.
pub(super) struct ImagePlan {
    pub(super) place: Place,
    pub(super) media_type: &'static str,
    pub(super) config_digest: Digest,
    pub(super) config: Config,
    pub(super) layers: Vec<Descriptor>,
}

/// An index and its entries.
pub(super) struct IndexPlan {
    pub(super) digest: Digest,
    pub(super) media_type: &'static str,
    pub(super) entries: Vec<(Descriptor, crate::image::manifest::Entry)>,
}

/// A part of a build's layers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Share {
    pub(super) n_layers: u64,
    /// Compressed.
    pub(super) bytes: u64,
}

impl Share {
    pub(super) fn add(&mut self, layer: &Descriptor) {
        self.n_layers += 1;
        self.bytes += layer.size;
    }
}

#[derive(Default)]
pub(super) struct BuildState {
    /// Layers still to come, and one for the worker that prepares the build.
    pub(super) missing: usize,
    pub(super) failed: HashMap<Digest, Error>,
    /// Layers that were read for this build, and those that turned out to be over a limit.
    pub(super) read: Share,
    pub(super) refused: Share,
}

/// A layer that builds wait for.
pub(super) struct Reading {
    pub(super) waiting: Vec<Arc<Build>>,
    /// Whether a worker has begun; until then it may stand in the channels of both lanes.
    pub(super) is_begun: bool,
}

/// The channels of layers, by lane.
pub(super) struct LayerSenders {
    pub(super) pushed: Sender<Layer>,
    pub(super) backfill: Sender<Layer>,
}

/// One run.
pub(super) struct Shared<'a> {
    pub(super) plan: &'a Plan<'a>,
    pub(super) log: &'a Log,
    pub(super) stop: &'a Stop,
    pub(super) progress: Progress,
    pub(super) source_ids: Vec<SourceId>,
    pub(super) source_names: Vec<String>,
    pub(super) wish: Wish,
    pub(super) layer_senders: LayerSenders,
    pub(super) spare: Spare,
    /// Layers being read or waiting for a worker.
    pub(super) reading: Mutex<HashMap<Digest, Reading>>,
    /// Work handed out and not finished: checks, and jobs with all of their layers.
    n_under_way: AtomicUsize,
    /// Sources whose first listing in this run has ended, well or not.
    n_listed: AtomicUsize,
    /// Requested when nothing more comes.
    end: Stop,
    /// Events that were looked at and are still in the store: they end together.
    done_events: Mutex<Vec<Event>>,
    /// Why the store cannot be written now, though it may be later.
    trouble: Mutex<Option<Error>>,
    /// Sources that could not be listed, in a single pass.
    n_unlisted: AtomicUsize,
    /// Hashes of what was said and need not be said again in every pass.
    said: Mutex<HashSet<u64>>,
    /// Counts the requests to look at credentials anew.
    n_reloads: AtomicUsize,
    fatal: Mutex<Option<Error>>,
    news: (Mutex<bool>, Condvar),
}

impl<'a> Shared<'a> {
    pub(super) fn new(
        plan: &'a Plan<'a>,
        log: &'a Log,
        stop: &'a Stop,
        layer_senders: LayerSenders,
        spare: Spare,
    ) -> Result<Self> {
        let source_names: Vec<String> = plan.sources.iter().map(|source| source.name()).collect();
        let mut source_ids = Vec::new();
        for (source, name) in plan.sources.iter().zip(&source_names) {
            let id = plan.store.source(name)?;
            source.remember(&plan.store.source_facts(id)?);
            source_ids.push(id);
        }
        Ok(Shared {
            plan,
            log,
            stop,
            progress: Progress::default(),
            source_ids,
            source_names,
            wish: plan.wish(),
            layer_senders,
            spare,
            reading: Mutex::default(),
            n_under_way: AtomicUsize::new(0),
            n_listed: AtomicUsize::new(0),
            end: Stop::default(),
            done_events: Mutex::default(),
            trouble: Mutex::default(),
            n_unlisted: AtomicUsize::new(0),
            said: Mutex::default(),
            n_reloads: AtomicUsize::new(0),
            fatal: Mutex::default(),
            news: Default::default(),
        })
    }

    pub(super) fn source(&self, at: usize) -> &dyn Source {
        self.plan.sources[at].as_ref()
    }

    /// What the pass that begins now makes of the tags of a source.
    pub(super) fn record(&self, source: usize) -> Result<Record> {
        if !self.plan.with_sbom {
            return Ok(Record::Only);
        }
        let was_listed = self.plan.store.was_listed(self.source_ids[source])?;
        Ok(super::record(self.plan.mode, was_listed, &self.wish))
    }

    /// Gives `work` to the workers, waiting for room. Returns `false` when a stop was asked for first: they
    /// take nothing more then.
    pub(super) fn hand_out(&self, sender: &Sender<Work>, mut work: Work) -> bool {
        self.n_under_way.fetch_add(1, Ordering::SeqCst);
        while !self.stop.is_requested() {
            match sender.send_timeout(work, TICK) {
                Ok(()) => return true,
                Err(SendTimeoutError::Timeout(back)) => work = back,
                Err(SendTimeoutError::Disconnected(_)) => break,
            }
        }
        self.end_work();
        false
    }

    pub(super) fn end_work(&self) {
        self.n_under_way.fetch_sub(1, Ordering::SeqCst);
        self.tell_news();
    }

    pub(super) fn n_under_way(&self) -> usize {
        self.n_under_way.load(Ordering::SeqCst)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.n_under_way() == 0
    }

    /// Notes that the first listing of a source has ended.
    pub(super) fn set_listed(&self) {
        self.n_listed.fetch_add(1, Ordering::SeqCst);
        self.tell_news();
    }

    /// Notes that a source could not be listed. A single pass that saw nothing at all has failed, whatever was in
    /// the store before.
    pub(super) fn source_failed(&self, err: Error) {
        let n_unlisted = self.n_unlisted.fetch_add(1, Ordering::SeqCst) + 1;
        if self.plan.mode == Mode::Once && n_unlisted == self.source_ids.len() {
            self.fail(err);
        }
    }

    /// Whether `text` was not said before, as far as is remembered.
    pub(super) fn is_news(&self, text: &str) -> bool {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() >= MAX_SAID {
            said.clear();
        }
        said.insert(hasher.finish())
    }

    /// Whether every source was listed, or could not be.
    pub(super) fn is_listed(&self) -> bool {
        self.n_listed.load(Ordering::SeqCst) >= self.source_ids.len()
    }

    /// Notes that an event was looked at. A process that is killed before it ends looks at it again.
    pub(super) fn event_done(&self, event: Event) {
        self.done_events
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(event);
        self.tell_news();
    }

    /// Takes back events that could not be ended.
    pub(super) fn keep_done_events(&self, events: Vec<Event>) {
        self.done_events
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(events);
    }

    /// The events that were looked at since the last call.
    pub(super) fn take_done_events(&self) -> Vec<Event> {
        let mut done = self
            .done_events
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *done)
    }

    pub(super) fn reload(&self) {
        self.n_reloads.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn n_reloads(&self) -> usize {
        self.n_reloads.load(Ordering::SeqCst)
    }

    /// The index of a source of this run.
    pub(super) fn source_idx(&self, id: SourceId) -> Option<usize> {
        self.source_ids.iter().position(|known| *known == id)
    }

    /// Tells the workers that nothing more comes.
    pub(super) fn end(&self) {
        self.end.request();
        self.spare.close();
    }

    /// Waits for the end, at most so long.
    pub(super) fn wait_for_end(&self, most: Duration) {
        self.end.sleep(most);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.end.is_requested() || self.stop.is_requested()
    }

    /// Ends the run with an error that concerns everything.
    pub(super) fn fail(&self, err: Error) {
        self.fatal
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(err);
        self.stop.request();
    }

    /// Takes an error of the store: another process that writes for long is waited for, and while watching so is a
    /// disk that may be mended; else the run ends.
    pub(super) fn broken(&self, err: Error) {
        let is_fatal = err.retry_after().is_none() || self.plan.mode == Mode::Once;
        if err.kind() == Kind::Stop && is_fatal {
            return self.fail(err);
        }
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if trouble.is_none() {
            let hint = err.hint_text().unwrap_or("");
            self.log.error(
                "the store cannot be written; waiting until it can",
                &[("error", &err), ("hint", &hint)],
            );
            *trouble = Some(err);
        }
        drop(trouble);
        self.tell_news();
    }

    /// Why the store cannot be written, while it cannot.
    pub(super) fn trouble(&self) -> Option<Error> {
        self.trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn end_trouble(&self) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(super) fn take_fatal(&self) -> Option<Error> {
        self.fatal
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// Wakes the feeding thread: there may be room or new jobs.
    pub(super) fn tell_news(&self) {
        *self.news.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.news.1.notify_one();
    }

    /// Waits for news, at most so long.
    pub(super) fn wait_for_news(&self, most: Duration) {
        let has_news = self.news.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .news
            .1
            .wait_timeout_while(has_news, most, |has_news| !*has_news);
        *waited.unwrap_or_else(PoisonError::into_inner).0 = false;
    }
}
