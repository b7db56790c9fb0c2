//! How far the store is, and what went wrong.

use crate::error::Result;
use crate::format::{EventsStatus, Failure, NextTry, QueueStatus, SourceStatus, StatusAnswer};
use crate::store::Store;
use crate::store::queue::Trouble;

/// Failures of one answer; the number of all others is told.
const FAILURES: usize = 1_000;

/// Everything counted, the sources, the queue and the failures.
pub(crate) fn status(store: &Store) -> Result<StatusAnswer> {
    let counts = store.counts()?;
    let queue = store.queue_state()?;
    let (waiting, waiting_since) = store.waiting_events()?;
    let failures: Vec<Failure> = store
        .troubles(&[], FAILURES)?
        .into_iter()
        .map(failure)
        .collect();
    Ok(StatusAnswer {
        path: store.path().display().to_string(),
        bytes: counts.store_bytes,
        repositories: counts.repositories,
        tags: counts.tags,
        images: counts.images,
        incomplete_images: store.partial_images()?,
        layers: counts.layers,
        layer_bytes: counts.layer_bytes,
        packages: counts.packages,
        sources: store
            .sources()?
            .into_iter()
            .map(|source| SourceStatus {
                name: source.name,
                repositories: source.repositories,
                tags: source.tags,
                listed_at: source.listed_at,
                error: source.error,
                error_since: source.error_since,
            })
            .collect(),
        queue: QueueStatus {
            waiting: queue.waiting,
            retrying: queue.retrying,
            pushed: queue.pushed,
            next_try: queue.next_try,
            running: queue.running,
            failed: queue.failed,
        },
        events: EventsStatus {
            waiting,
            waiting_since,
        },
        failures_unlisted: store.n_troubles()?.saturating_sub(failures.len() as u64),
        failures,
    })
}

fn failure(trouble: Trouble) -> Failure {
    Failure {
        image: trouble.image,
        digest: trouble.digest,
        error: trouble.error,
        hint: trouble.hint,
        attempts: trouble.attempts,
        next_try: match trouble.next_try {
            // What waits for nothing is due at the beginning of time.
            Some(at) if at.as_millis() == 0 => NextTry::Now,
            Some(at) => NextTry::At(at),
            None if trouble.is_final => NextTry::WhenChanged,
            None => NextTry::NextRun,
        },
    }
}
