//! An event is looked at: what does the registry say of that tag now?

use std::time::Duration;

use super::shared::Shared;
use crate::error::{Error, Kind, Result};
use crate::http::retry::backoff;
use crate::store::events::Event;
use crate::store::tags::{Found, Record, Seen, Told};
use crate::time::Timestamp;

/// Waits between the tries of one event.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(900);
/// Tries of an event whose tag is not there though it was pushed, or may not be asked for. The next listing
/// decides then.
const MAX_ATTEMPTS: u32 = 5;

/// What an event came to.
enum Came {
    Seen(Seen),
    Gone,
    /// It was not known.
    Absent,
}

/// Looks at an event, notes what it came to, and puts it back when that cannot be found out.
pub(super) fn at(shared: &Shared<'_>, event: Event) {
    let Some(source_idx) = shared.source_idx(event.source) else {
        return;
    };
    let source = shared.source(source_idx);
    let image = format!("{}:{}", source.shown(&event.repository), event.tag);
    let store = shared.plan.store;
    let result = look(shared, source_idx, &event);
    let err = match result {
        Ok(came) => {
            let became = match came {
                Came::Seen(Seen::New) => "new, queued",
                Came::Seen(Seen::Moved) => "moved, queued",
                Came::Seen(Seen::Open) => "waits already",
                Came::Seen(Seen::Unchanged | Seen::Unknown) => "known",
                Came::Gone => "gone",
                Came::Absent => "not there",
            };
            shared.progress.event(matches!(came, Came::Gone));
            let waited = Timestamp::now().since(event.received_at).as_millis();
            shared.log.debug(
                "event looked at",
                &[("image", &image), ("tag", &became), ("ms", &waited)],
            );
            shared.event_done(event);
            return;
        }
        Err(err) => err,
    };
    if err.kind() == Kind::Stop {
        return shared.broken(err);
    }
    if shared.stop.is_requested() {
        return;
    }
    let attempt = event.attempts + 1;
    let is_given_up = match err.kind() {
        Kind::Retry => false,
        Kind::Tell => attempt >= MAX_ATTEMPTS,
        Kind::Skip | Kind::Limit | Kind::Stop => true,
    };
    let noted = if is_given_up {
        shared.log.warn(
            "event cannot be looked at; the next listing decides",
            &[("image", &image), ("error", &err)],
        );
        shared.event_done(event);
        Ok(())
    } else {
        let wait = err.retry_after().map_or_else(
            || backoff(attempt, FIRST_WAIT, LONGEST_WAIT),
            |wait| wait.min(LONGEST_WAIT),
        );
        let next_try = Timestamp::now().plus(wait);
        shared.log.debug(
            "event is tried again",
            &[("image", &image), ("error", &err), ("next_try", &next_try)],
        );
        store.event_failed(&event, &err, next_try)
    };
    if let Err(err) = noted {
        shared.broken(err);
    }
}

fn look(shared: &Shared<'_>, source_idx: usize, event: &Event) -> Result<Came> {
    let (source, store) = (shared.source(source_idx), shared.plan.store);
    match source.resolve(&event.repository, &event.tag) {
        Ok(digest) => {
            let found = Found {
                repository: &event.repository,
                shown: &source.shown(&event.repository),
                tag: &event.tag,
                digest: &digest,
            };
            // Whoever speaks of an image wants it to be known, also one that a first pass only recorded.
            let record = if shared.plan.with_sbom {
                Record::All(shared.wish.clone())
            } else {
                Record::Only
            };
            store
                .see_tag(event.source, &found, &record, Told::Event)
                .map(Came::Seen)
        }
        Err(err) if err.status() == Some(404) => {
            if !event.is_delete && event.attempts + 1 < MAX_ATTEMPTS {
                // Some servers speak of an image before they show it.
                return Err(Error::retry(err));
            }
            let was_there = store.tag_is_gone(event.source, &event.repository, &event.tag)?;
            Ok(if was_there { Came::Gone } else { Came::Absent })
        }
        Err(err) => Err(err),
    }
}
