//! Accepted webhooks: images that may have changed, kept until they were looked at.
//!
//! However often an image is told of before that, it is one row: bursts are looked at once. An event is a hint
//! and nothing more; what the tag points to is asked of the registry. They stand in a file of their own.

use rusqlite::{OptionalExtension, params};

use super::Store;
use super::lease::LEASE_MS;
use super::tags::{SourceId, repository_id};
use crate::error::{Error, Kind, Result};
use crate::image::{Digest, Repository, Tag};
use crate::limit;
use crate::time::Timestamp;

/// What a webhook says of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hint {
    pub(crate) source: SourceId,
    pub(crate) repository: Repository,
    /// `None` stands for every known tag, of those that point to `digest` when there is one.
    pub(crate) tag: Option<Tag>,
    pub(crate) digest: Option<Digest>,
    pub(crate) is_delete: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EventId(i64);

/// An event to be looked at.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) id: EventId,
    pub(crate) source: SourceId,
    pub(crate) repository: Repository,
    pub(crate) tag: Tag,
    /// Whether the last that was told is that the tag was deleted.
    pub(crate) is_delete: bool,
    /// How often it was told until it was taken.
    n_received: u64,
    /// Tries before this one.
    pub(crate) attempts: u32,
    pub(crate) received_at: Timestamp,
}

impl Store {
    /// Stores hints, all or none; they survive a power cut when this returns.
    /// Errors: `Limit` when too many wait already; else as every write.
    pub(crate) fn save_hints(&self, hints: &[Hint]) -> Result<()> {
        let now = Timestamp::now().as_millis();
        self.write_events_unless(|db| {
            let mut one = db.prepare_cached(&format!(
                "INSERT INTO event (source_id, repository, tag, is_delete, received_at)
                 VALUES (?1, ?2, ?3, ?4, ?5) {AGAIN}"
            ))?;
            let mut known = db.prepare_cached(&format!(
                "INSERT INTO event (source_id, repository, tag, is_delete, received_at)
                 SELECT ?1, ?2, name, ?4, ?5 FROM tag
                 WHERE repository_id = ?3 AND gone_at IS NULL {AGAIN}"
            ))?;
            let mut pointing = db.prepare_cached(&format!(
                "INSERT INTO event (source_id, repository, tag, is_delete, received_at)
                 SELECT ?1, ?2, name, ?4, ?5 FROM tag
                 WHERE digest = ?6 AND repository_id = ?3 AND gone_at IS NULL {AGAIN}"
            ))?;
            for hint in hints {
                let (source, name) = (hint.source.0, hint.repository.as_str());
                if let Some(tag) = &hint.tag {
                    one.execute(params![source, name, tag.as_str(), hint.is_delete, now])?;
                    continue;
                }
                let digest = hint.digest.as_ref().map(Digest::as_str);
                if let Some(id) = repository_id(db, hint.source, name)? {
                    match digest {
                        Some(digest) => pointing.execute(params![
                            source,
                            name,
                            id,
                            hint.is_delete,
                            now,
                            digest
                        ])?,
                        None => known.execute(params![source, name, id, hint.is_delete, now])?,
                    };
                }
            }
            // Rows are never numbered anew while there are some, so this is no count but close, and at once.
            let span: i64 = db
                .prepare_cached("SELECT coalesce(max(id) - min(id), 0) FROM event")?
                .query_row([], |row| row.get(0))?;
            if span <= limit::EVENTS {
                return Ok(Ok(()));
            }
            let n: i64 = db.query_row("SELECT count(*) FROM event", [], |row| row.get(0))?;
            if n <= limit::EVENTS {
                return Ok(Ok(()));
            }
            let message = format!("more than {} events wait to be looked at", limit::EVENTS);
            Ok(Err(Error::new(Kind::Limit, message)))
        })
    }

    /// Takes up to `n` events of `sources` that are due, oldest first. Writes nothing when there is none.
    pub(crate) fn take_events(
        &self,
        owner: &str,
        sources: &[SourceId],
        n: usize,
    ) -> Result<Vec<Event>> {
        let now = Timestamp::now().as_millis();
        let sources: Vec<i64> = sources.iter().map(|source| source.0).collect();
        let sources = serde_json::json!(sources).to_string();
        let is_any = self.read(|db| {
            db.prepare_cached(&format!("SELECT 1 FROM event WHERE {DUE} LIMIT 1"))?
                .exists(params![now, sources])
        })?;
        if !is_any {
            return Ok(Vec::new());
        }
        let mut rows = self.write_events(|db| {
            let mut query = db.prepare_cached(&format!(
                "UPDATE event SET lease_owner = ?3, lease_until = ?1 + ?4 WHERE id IN (
                     SELECT id FROM event WHERE {DUE} ORDER BY next_try, id LIMIT ?5)
                 RETURNING id, source_id, repository, tag, is_delete, n_received, attempts, received_at"
            ))?;
            let rows = query.query_map(params![now, sources, owner, LEASE_MS, n], |row| {
                let texts: (String, String) = (row.get(2)?, row.get(3)?);
                let numbers: (i64, i64, u64, u32, i64) =
                    (row.get(0)?, row.get(1)?, row.get(5)?, row.get(6)?, row.get(7)?);
                Ok((texts, row.get::<_, bool>(4)?, numbers))
            })?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        })?;
        rows.sort_by_key(|(_, _, numbers)| numbers.0);
        rows.into_iter()
            .map(|((repository, tag), is_delete, numbers)| {
                let (id, source, n_received, attempts, received_at) = numbers;
                Ok(Event {
                    id: EventId(id),
                    source: SourceId(source),
                    repository: repository.parse()?,
                    tag: tag.parse()?,
                    is_delete,
                    n_received,
                    attempts,
                    received_at: Timestamp::from_millis(received_at),
                })
            })
            .collect()
    }

    /// Ends events that were looked at. One that was told again meanwhile is to be looked at again.
    pub(crate) fn events_done(&self, events: &[Event]) -> Result<()> {
        if events.is_empty() {
            return Ok(());
        }
        // What they led to first: a power cut between the two shall not take both.
        self.write_durably(|db| {
            db.execute(
                "UPDATE source SET facts = facts WHERE id = (SELECT min(id) FROM source)",
                [],
            )
        })?;
        self.write_events(|db| {
            let mut end = db.prepare_cached(
                "DELETE FROM event WHERE id = ?1 AND n_received = ?2 AND received_at = ?3",
            )?;
            let mut again = db.prepare_cached(
                "UPDATE event SET lease_owner = NULL, lease_until = 0, attempts = 0, next_try = 0
                 WHERE id = ?1 AND received_at = ?2",
            )?;
            for event in events {
                let received_at = event.received_at.as_millis();
                if end.execute(params![event.id.0, event.n_received, received_at])? == 0 {
                    again.execute([event.id.0, received_at])?;
                }
            }
            Ok(())
        })
    }

    /// Puts an event back that could not be looked at.
    pub(crate) fn event_failed(
        &self,
        event: &Event,
        error: &Error,
        next_try: Timestamp,
    ) -> Result<()> {
        self.write_events(|db| {
            db.execute(
                "UPDATE event SET attempts = attempts + 1, next_try = ?2, error = ?3, lease_owner = NULL, lease_until = 0
                 WHERE id = ?1 AND received_at = ?4",
                params![
                    event.id.0,
                    next_try.as_millis(),
                    error.to_string(),
                    event.received_at.as_millis()
                ],
            )
        })?;
        Ok(())
    }

    /// How many events wait, and since when the oldest does.
    pub(crate) fn waiting_events(&self) -> Result<(u64, Option<Timestamp>)> {
        self.read(|db| {
            db.query_row("SELECT count(*), min(received_at) FROM event", [], |row| {
                Ok((
                    row.get(0)?,
                    row.get::<_, Option<i64>>(1)?.map(Timestamp::from_millis),
                ))
            })
            .optional()
            .map(Option::unwrap_or_default)
        })
    }
}

/// Which events are due: walked by the index of waits. The plus keeps SQLite from gathering all of a source.
const DUE: &str =
    "lease_owner IS NULL AND next_try <= ?1 AND +source_id IN (SELECT value FROM json_each(?2))";

/// What becomes of an event that is told again.
const AGAIN: &str = "ON CONFLICT (source_id, repository, tag)
    DO UPDATE SET n_received = n_received + 1, is_delete = excluded.is_delete, next_try = 0";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testdata::Temp;

    #[test]
    fn taking_events_does_not_look_at_those_that_stay() {
        let temp = Temp::new();
        let plan = temp.store().read(|db| {
            let mut query = db.prepare(&format!(
                "EXPLAIN QUERY PLAN SELECT id FROM event WHERE {DUE} ORDER BY next_try, id LIMIT 5"
            ))?;
            let rows = query.query_map(params![0, "[1]"], |row| row.get::<_, String>(3))?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        });
        let plan = plan.unwrap().join("\n");
        assert!(plan.contains("USING INDEX event_next"), "{plan}");
        assert!(!plan.contains("TEMP B-TREE"), "{plan}");
    }
}
