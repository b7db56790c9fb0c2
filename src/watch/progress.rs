//! What a run has done so far, on the live line, in one line an image, and in the summary.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::shared::Share;
use crate::error::Error;
use crate::image::{Descriptor, Digest, Platform};
use crate::log::Log;
use crate::store::Store;
use crate::store::images::ImageTotals;
use crate::store::listing::ListingTotals;
use crate::store::queue::Job;
use crate::store::tags::Seen;
use crate::time::{Timestamp, for_people};

/// How often the live line is drawn.
const REDRAW: Duration = Duration::from_millis(250);

/// Counters of one run.
pub(super) struct Progress {
    started: Instant,
    tags: AtomicU64,
    unchanged: AtomicU64,
    gone: AtomicU64,
    indexed: AtomicU64,
    failed: AtomicU64,
    checks_failed: AtomicU64,
    sources_failed: AtomicU64,
    layers_read: AtomicU64,
    layers_reused: AtomicU64,
    bytes_read: AtomicU64,
    bytes_saved: AtomicU64,
    live: Mutex<Live>,
}

struct Live {
    drawn: Instant,
    /// Bytes and time of the last drawing, for the rate.
    bytes: u64,
    rate: f64,
    current: String,
    /// How long it takes to count the queue.
    cost: Duration,
}

/// A finished job.
#[derive(Default)]
pub(super) struct Finished {
    read: Share,
    refused: Share,
    elapsed: Duration,
    platforms: Vec<String>,
    packages: u64,
    gaps: u64,
    n_layers: u64,
    bytes: u64,
}

/// Totals of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) tags: u64,
    pub(crate) unchanged: u64,
    pub(crate) gone: u64,
    pub(crate) indexed: u64,
    pub(crate) failed: u64,
    /// Tags whose digest, and repositories whose tags could not be had.
    pub(crate) unresolved: u64,
    /// Listings of sources that failed.
    pub(crate) unlisted: u64,
    pub(crate) layers_read: u64,
    pub(crate) layers_reused: u64,
    pub(crate) bytes_read: u64,
    /// Bytes of layers that were not read again.
    pub(crate) bytes_saved: u64,
    pub(crate) elapsed: Duration,
}

impl Default for Progress {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        let now = Instant::now();
        Progress {
            started: now,
            tags: zero(),
            unchanged: zero(),
            gone: zero(),
            indexed: zero(),
            failed: zero(),
            checks_failed: zero(),
            sources_failed: zero(),
            layers_read: zero(),
            layers_reused: zero(),
            bytes_read: zero(),
            bytes_saved: zero(),
            live: Mutex::new(Live {
                drawn: now,
                bytes: 0,
                rate: 0.0,
                current: String::new(),
                cost: Duration::ZERO,
            }),
        }
    }
}

impl Finished {
    /// Of a job that took so long and had those layers read, or refused, for it.
    pub(super) fn new(read: Share, refused: Share, elapsed: Duration) -> Self {
        Finished {
            read,
            refused,
            elapsed,
            ..Finished::default()
        }
    }

    /// Adds one image of the job.
    pub(super) fn add(&mut self, platform: &Platform, totals: ImageTotals, layers: &[Descriptor]) {
        let (n_layers, bytes) = distinct(layers);
        self.platforms.push(platform.to_string());
        self.packages += totals.packages;
        self.gaps += totals.problems + totals.refused_layers;
        self.n_layers += n_layers;
        self.bytes += bytes;
    }
}

impl Progress {
    /// Bytes that came from registries, to be added to while they come.
    pub(super) fn bytes(&self) -> &AtomicU64 {
        &self.bytes_read
    }

    pub(super) fn listed(&self, totals: ListingTotals) {
        self.tags.fetch_add(totals.tags, Relaxed);
        self.unchanged.fetch_add(totals.unchanged, Relaxed);
        self.gone.fetch_add(totals.gone, Relaxed);
    }

    pub(super) fn checked(&self, seen: Seen) {
        if seen == Seen::Unchanged {
            self.unchanged.fetch_add(1, Relaxed);
        }
    }

    /// Counts an event that was looked at.
    pub(super) fn event(&self, is_gone: bool) {
        if is_gone {
            self.gone.fetch_add(1, Relaxed);
        }
    }

    /// Counts tags whose digest, or repositories whose tags could not be had.
    pub(super) fn checks_failed(&self, n: u64) {
        self.checks_failed.fetch_add(n, Relaxed);
    }

    pub(super) fn source_failed(&self) {
        self.sources_failed.fetch_add(1, Relaxed);
    }

    pub(super) fn layer_read(&self) {
        self.layers_read.fetch_add(1, Relaxed);
    }

    pub(super) fn finished(&self, log: &Log, job: &Job, done: &Finished) {
        self.indexed.fetch_add(1, Relaxed);
        let n_taken = done.read.n_layers + done.refused.n_layers;
        let bytes_taken = done.read.bytes + done.refused.bytes;
        self.layers_reused
            .fetch_add(done.n_layers.saturating_sub(n_taken), Relaxed);
        self.bytes_saved
            .fetch_add(done.bytes.saturating_sub(bytes_taken), Relaxed);
        let image = format!("{}:{}", job.shown, job.tag);
        let platforms = done.platforms.join(",");
        if log.is_terminal() {
            let gaps = if done.gaps > 0 {
                format!(", {} gaps", done.gaps)
            } else {
                String::new()
            };
            let mark = if done.gaps > 0 { '!' } else { '\u{2713}' };
            log.say(&format!(
                "{mark} {image}  {platforms}  {} packages{gaps}  {} of {} layers read ({})  {}",
                done.packages,
                done.read.n_layers,
                done.n_layers,
                megabytes(done.read.bytes),
                for_people(done.elapsed)
            ));
            self.live
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .current = image;
            return;
        }
        log.info(
            "image indexed",
            &[
                ("image", &image),
                ("platforms", &platforms),
                ("packages", &done.packages),
                ("gaps", &done.gaps),
                ("layers", &done.n_layers),
                ("layers_read", &done.read.n_layers),
                ("bytes_read", &done.read.bytes),
                (
                    "seconds",
                    &format_args!("{:.2}", done.elapsed.as_secs_f64()),
                ),
            ],
        );
    }

    pub(super) fn failed(&self, log: &Log, job: &Job, err: &Error, next_try: Option<Timestamp>) {
        let image = format!("{}:{}", job.shown, job.tag);
        let hint = err.hint_text().unwrap_or("");
        match next_try {
            Some(at) => log.warn(
                "image is tried again",
                &[("image", &image), ("error", err), ("next_try", &at)],
            ),
            None => {
                self.failed.fetch_add(1, Relaxed);
                log.error(
                    "image failed",
                    &[("image", &image), ("error", err), ("hint", &hint)],
                );
            }
        }
    }

    /// Draws the live line when it is time.
    pub(super) fn show(&self, log: &Log, store: &Store) {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let since = live.drawn.elapsed();
        if !log.is_terminal() || since < REDRAW.max(live.cost * 20) {
            return;
        }
        let bytes = self.bytes_read.load(Relaxed);
        let rate = bytes.saturating_sub(live.bytes) as f64 / 1e6 / since.as_secs_f64();
        live.rate = live.rate * 0.7 + rate * 0.3;
        live.bytes = bytes;
        live.drawn = Instant::now();
        // Whoever finishes an image shall not wait for the count.
        drop(live);
        let counted = Instant::now();
        let queue = store.queue_state().unwrap_or_default();
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.cost = counted.elapsed();
        let (done, left) = (self.indexed.load(Relaxed), queue.waiting + queue.running);
        let time_left = match done {
            0 => String::new(),
            _ => {
                let secs = self.started.elapsed().as_secs_f64() / done as f64 * left as f64;
                format!("  about {} left", for_people(Duration::from_secs_f64(secs)))
            }
        };
        let failed = self.failed.load(Relaxed);
        let text = format!(
            "{done} done, {left} queued, {failed} failed  {:.0} MB/s{time_left}  {}",
            live.rate, live.current
        );
        drop(live);
        log.live(
            &text
                .chars()
                .take(columns().saturating_sub(1))
                .collect::<String>(),
        );
    }

    /// Says that nothing is left but waiting for the next try.
    pub(super) fn show_waiting(&self, log: &Log, due: Timestamp) {
        let wait = due.since(Timestamp::now());
        log.live(&format!("waiting {} for the next try", for_people(wait)));
    }

    pub(super) fn summary(&self) -> Summary {
        let (tags, indexed) = (self.tags.load(Relaxed), self.indexed.load(Relaxed));
        Summary {
            tags,
            // An image that a former run left to us may be indexed before the listing comes to it.
            unchanged: self
                .unchanged
                .load(Relaxed)
                .min(tags.saturating_sub(indexed)),
            gone: self.gone.load(Relaxed),
            indexed,
            failed: self.failed.load(Relaxed),
            unresolved: self.checks_failed.load(Relaxed),
            unlisted: self.sources_failed.load(Relaxed),
            layers_read: self.layers_read.load(Relaxed),
            layers_reused: self.layers_reused.load(Relaxed),
            bytes_read: self.bytes_read.load(Relaxed),
            bytes_saved: self.bytes_saved.load(Relaxed),
            elapsed: self.started.elapsed(),
        }
    }
}

/// Width of the terminal as the shell exports it.
fn columns() -> usize {
    std::env::var("COLUMNS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(80)
}

/// `12.3 MB`, decimal as registries count.
pub(crate) fn megabytes(bytes: u64) -> String {
    match bytes {
        0 => "0 MB".to_owned(),
        1..=999_999_999 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

/// The distinct layers of an image and their bytes.
fn distinct(layers: &[Descriptor]) -> (u64, u64) {
    let mut seen: HashSet<&Digest> = HashSet::new();
    let sizes = layers
        .iter()
        .filter(|layer| seen.insert(&layer.digest))
        .map(|layer| layer.size);
    sizes.fold((0, 0), |(n, bytes), size| (n + 1, bytes + size))
}
