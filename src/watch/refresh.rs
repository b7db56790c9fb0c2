//! The timer threads, one a source: each lists its source, and notes what changed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use super::Mode;
use super::finish::{PASS_PATIENCE, caught};
use super::shared::{Shared, Work};
use crate::error::{Error, Kind, Result};
use crate::http::retry::{backoff, stopped};
use crate::registry::Source;
use crate::store::listing::ListingTotals;
use crate::store::tags::{Record, Seen};
use crate::time::for_people;

/// The longest wait for a source that cannot be listed, unless the interval is longer.
const LONGEST_WAIT: Duration = Duration::from_secs(900);
/// How often a waiting thread looks whether it should wait no more.
const LOOK: Duration = Duration::from_secs(1);

/// Lists one source, once or again and again.
pub(super) fn run(shared: &Shared<'_>, at: usize, checks: &Sender<Work>) {
    let mut left_out = Vec::new();
    let mut n_failed = 0;
    let mut is_first = true;
    loop {
        let result = caught(|| list(shared, at, checks, &mut left_out));
        if shared.stop.is_requested() {
            return;
        }
        let mut held = None;
        match result {
            Ok(()) => n_failed = 0,
            Err(err) => {
                held = err.held_for();
                if let Some(wait) = held.filter(|wait| *wait <= PASS_PATIENCE) {
                    // The host asked for a pause, and there is time for it.
                    if !wait_for(shared, wait) {
                        return;
                    }
                    continue;
                }
                n_failed += 1;
                failed(shared, at, err);
            }
        }
        if std::mem::take(&mut is_first) {
            shared.set_listed();
        }
        let Mode::Watch { interval, .. } = shared.plan.mode else {
            return;
        };
        let wait = match n_failed {
            0 => interval,
            n => held
                .unwrap_or_else(|| backoff(n, interval, LONGEST_WAIT.max(interval)))
                .max(interval),
        };
        if !wait_for(shared, wait) {
            return;
        }
    }
}

/// Waits for the next listing, which comes at once after credentials were looked at anew, and not before the
/// store can be written. Returns `false` when the run ends.
fn wait_for(shared: &Shared<'_>, wait: Duration) -> bool {
    let (end, n_reloads) = (Instant::now() + wait, shared.n_reloads());
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let is_due = left.is_zero() || shared.n_reloads() != n_reloads;
        if is_due && shared.trouble().is_none() {
            return !shared.stop.is_requested();
        }
        let slice = if is_due { LOOK } else { left.min(LOOK) };
        if shared.stop.sleep(slice) {
            return false;
        }
    }
}

/// Notes that a source cannot be listed; says so when that is news.
fn failed(shared: &Shared<'_>, at: usize, err: Error) {
    if err.kind() == Kind::Stop {
        return shared.broken(err);
    }
    let err = err.context(format_args!("source `{}`", shared.source_names[at]));
    let store = shared.plan.store;
    match store.source_failed(shared.source_ids[at], &err.to_string()) {
        Err(err) => return shared.broken(err),
        Ok(true) => {
            let hint = err.hint_text().unwrap_or("");
            shared.log.error(
                "source cannot be listed",
                &[("error", &err), ("hint", &hint)],
            );
        }
        Ok(false) => shared
            .log
            .debug("source still cannot be listed", &[("error", &err)]),
    }
    shared.progress.source_failed();
    shared.source_failed(err);
}

/// One listing. `left_out` has the reasons that the last one gave, which are not said again.
fn list(
    shared: &Shared<'_>,
    at: usize,
    checks: &Sender<Work>,
    left_out: &mut Vec<String>,
) -> Result<()> {
    let (source, id) = (shared.source(at), shared.source_ids[at]);
    let store = shared.plan.store;
    let record = Arc::new(shared.record(at)?);
    let mut listing = store.begin_listing(id, Arc::clone(&record))?;
    let told = listing.told();
    let result = source.list(&mut |listed| {
        // While the store cannot be written, nothing new is begun.
        while shared.trouble().is_some() {
            if shared.stop.sleep(LOOK) {
                break;
            }
        }
        if shared.stop.is_requested() {
            return Err(stopped());
        }
        let shown = source.shown(&listed.repository);
        let seen = listing.see(
            &listed.repository,
            &shown,
            &listed.tag,
            listed.digest.as_ref(),
        )?;
        match seen {
            Seen::New | Seen::Moved => {
                shared.log.debug(
                    "tag changed",
                    &[
                        ("image", &format_args!("{shown}:{}", listed.tag)),
                        ("record", &record.word()),
                    ],
                );
                shared.tell_news();
            }
            Seen::Unknown => {
                let check = Work::Check {
                    source: at,
                    listed,
                    record: Arc::clone(&record),
                    told,
                };
                if !shared.hand_out(checks, check) {
                    return Err(stopped());
                }
            }
            Seen::Unchanged | Seen::Open => {
                let why = match (seen, record.as_ref()) {
                    (Seen::Open, _) => "it waits already, or failed",
                    (_, Record::All(_)) => "it is indexed",
                    _ => "it points to what it pointed to before",
                };
                shared.log.debug(
                    "nothing to do",
                    &[
                        ("image", &format_args!("{shown}:{}", listed.tag)),
                        ("reason", &why),
                    ],
                );
            }
        }
        Ok(())
    });
    let outcome = match result {
        Ok(outcome) => outcome,
        Err(err) => {
            // What was seen until then is as good as in a complete listing.
            listing.finish(false, &[], false)?;
            return Err(err);
        }
    };
    let totals = listing.finish(outcome.is_complete, &outcome.complete, true)?;
    store.save_source_facts(id, &source.facts())?;
    if let Some(downtime) = totals.downtime {
        let n_retried = store.retry_source(&shared.source_names[at])?;
        shared.log.info(
            "source can be listed again",
            &[
                ("source", &shared.source_names[at]),
                ("after", &for_people(downtime)),
                ("images_tried_again", &n_retried),
            ],
        );
    }
    for reason in &outcome.left_out {
        if !left_out.contains(reason) {
            shared.log.warn(
                "left out of the listing",
                &[("source", &shared.source_names[at]), ("reason", reason)],
            );
        }
    }
    *left_out = outcome.left_out;
    shared.progress.checks_failed(outcome.n_failed);
    report(shared, source, totals, outcome.n_left_out);
    Ok(())
}

fn report(shared: &Shared<'_>, source: &dyn Source, totals: ListingTotals, n_left_out: u64) {
    shared.progress.listed(totals);
    let data: &[(&'static str, &dyn std::fmt::Display)] = &[
        ("source", &source.name()),
        ("tags", &totals.tags),
        ("new", &totals.new),
        ("moved", &totals.moved),
        ("gone", &totals.gone),
        ("left_out", &n_left_out),
    ];
    match shared.plan.mode {
        Mode::Once => shared.log.info("source listed", data),
        Mode::Watch { .. } if totals.new + totals.moved + totals.gone > 0 => {
            shared.log.info("source listed", data)
        }
        Mode::Watch { .. } => shared.log.debug("source listed", data),
    }
}
