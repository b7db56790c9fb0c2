//! The refresh thread: lists the sources, and notes what changed.

use std::sync::Arc;

use crossbeam_channel::Sender;

use super::Mode;
use super::shared::{Shared, Work};
use crate::error::{Kind, Result};
use crate::http::retry::stopped;
use crate::registry::Source;
use crate::store::listing::ListingTotals;
use crate::store::tags::Seen;

/// Lists all sources, once or again and again.
pub(super) fn run(shared: &Shared<'_>, checks: Sender<Work>) {
    let mut n_failed = 0;
    let mut last = None;
    loop {
        for at in 0..shared.plan.sources.len() {
            match list(shared, at, &checks) {
                Ok(()) => {}
                Err(err) if err.kind() == Kind::Stop => return shared.fail(err),
                Err(_) if shared.stop.is_requested() => return,
                Err(err) => {
                    let err = err.context(format_args!("source `{}`", shared.source_names[at]));
                    match shared
                        .plan
                        .store
                        .source_failed(shared.source_ids[at], &err.to_string())
                    {
                        Err(err) => return shared.fail(err),
                        Ok(true) => shared
                            .log
                            .error("source cannot be listed", &[("error", &err)]),
                        Ok(false) => shared
                            .log
                            .debug("source still cannot be listed", &[("error", &err)]),
                    }
                    shared.progress.source_failed();
                    n_failed += 1;
                    last = Some(err);
                }
            }
        }
        match shared.plan.mode {
            Mode::Once => {
                // A pass that saw nothing at all has failed, whatever was in the store before.
                if let Some(err) = last.filter(|_| n_failed == shared.plan.sources.len()) {
                    return shared.fail(err);
                }
                return shared.set_listed();
            }
            Mode::Watch { interval, .. } => {
                if shared.stop.sleep(interval) {
                    return;
                }
            }
        }
    }
}

/// Lists one source.
fn list(shared: &Shared<'_>, at: usize, checks: &Sender<Work>) -> Result<()> {
    let (source, id) = (shared.source(at), shared.source_ids[at]);
    let store = shared.plan.store;
    let record = Arc::new(shared.record(at)?);
    let mut listing = store.begin_listing(id, Arc::clone(&record));
    let result = source.list(&mut |listed| {
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
                    &[("image", &format_args!("{shown}:{}", listed.tag))],
                );
                shared.tell_news();
            }
            Seen::Unknown => {
                let check = Work::Check {
                    source: at,
                    listed,
                    record: Arc::clone(&record),
                };
                if !shared.hand_out(checks, check) {
                    return Err(stopped());
                }
            }
            Seen::Unchanged | Seen::Open => {}
        }
        Ok(())
    });
    let outcome = match result {
        Ok(outcome) => outcome,
        Err(err) => {
            // What was seen until then is as good as in a complete listing.
            listing.finish(false, false)?;
            return Err(err);
        }
    };
    let totals = listing.finish(outcome.is_complete, true)?;
    store.save_source_facts(id, &source.facts())?;
    for reason in &outcome.left_out {
        shared.log.warn(
            "left out of the listing",
            &[("source", &shared.source_names[at]), ("reason", reason)],
        );
    }
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
