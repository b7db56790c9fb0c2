//! Another chance for images that failed and for webhooks that could not be looked at.

use rusqlite::{Transaction, params};

use super::Store;
use crate::error::Result;

/// Rows that are looked at, and written, in one go.
const PAGE: usize = 1_000;
/// Jobs that failed, or wait for their next try; nobody works on them.
const FAILED_JOB: &str = "lease_owner IS NULL AND (state = 'failed' OR next_try > 0)";
/// Events that wait for their next try.
const FAILED_EVENT: &str = "lease_owner IS NULL AND next_try > 0";

/// What was given another chance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Retried {
    pub(crate) images: u64,
    /// Webhooks.
    pub(crate) events: u64,
}

/// What failed, as users name it.
pub(crate) struct FailedName {
    /// As users pull it, host included.
    pub(crate) repository: String,
    pub(crate) tag: String,
    /// Of what the tag points to; unknown for a webhook.
    pub(crate) digest: Option<String>,
}

impl Store {
    /// Gives failed jobs another chance, except those that no try can change.
    pub(crate) fn retry_failed(&self) -> Result<u64> {
        self.write(|db| {
            let n = db.execute(
                "UPDATE job SET state = 'ready', attempts = 0, next_try = 0 WHERE state = 'failed' AND is_final = 0",
                [],
            )?;
            Ok(n as u64)
        })
    }

    /// The same for one source, which can be reached again; what waits for its next try need not wait.
    pub(crate) fn retry_source(&self, source: &str) -> Result<u64> {
        self.write(|db| {
            let n = db.execute(
                "UPDATE job SET state = 'ready', attempts = 0, next_try = 0
                 WHERE is_final = 0 AND (state = 'failed' OR attempts > 0) AND tag_id IN (
                     SELECT tag.id FROM tag JOIN repository r ON r.id = repository_id
                     JOIN source s ON s.id = source_id WHERE s.name = ?1)",
                [source],
            )?;
            Ok(n as u64)
        })
        .and_then(|n| {
            self.write_events(|db| {
                db.execute(
                    "UPDATE event SET next_try = 0 WHERE source_id = (SELECT id FROM source WHERE name = ?1)",
                    [source],
                )
            })
            .map(|_| n)
        })
    }

    /// Lets everything that `takes` names be tried now as if it never had been, also what no try can change.
    pub(crate) fn retry(&self, takes: &dyn Fn(&FailedName) -> bool) -> Result<Retried> {
        Ok(Retried {
            images: self.retry_rows(
                "SELECT job.id, r.shown, tag.name, tag.digest FROM job JOIN tag ON tag.id = tag_id
                 JOIN repository r ON r.id = repository_id",
                ("job", FAILED_JOB),
                "state = 'ready', is_final = 0, attempts = 0, starts = 0, next_try = 0",
                takes,
            )?,
            events: self.retry_rows(
                "SELECT event.id, coalesce(r.shown, event.repository), event.tag, NULL FROM event
                 LEFT JOIN repository r ON r.source_id = event.source_id AND r.name = event.repository",
                ("event", FAILED_EVENT),
                "attempts = 0, next_try = 0",
                takes,
            )?,
        })
    }

    /// Returns how many rows were changed.
    fn retry_rows(
        &self,
        select: &str,
        (table, has_failed): (&str, &str),
        set: &str,
        takes: &dyn Fn(&FailedName) -> bool,
    ) -> Result<u64> {
        let (mut n_changed, mut after) = (0, 0);
        loop {
            let rows = self.read(|db| {
                let mut query = db.prepare_cached(&format!(
                    "{select} WHERE {table}.id > ?1 AND {has_failed} ORDER BY {table}.id LIMIT ?2"
                ))?;
                let rows = query.query_map(params![after, PAGE], |row| {
                    let name = FailedName {
                        repository: row.get(1)?,
                        tag: row.get(2)?,
                        digest: row.get(3)?,
                    };
                    Ok((row.get::<_, i64>(0)?, name))
                })?;
                rows.collect::<rusqlite::Result<Vec<_>>>()
            })?;
            match rows.last() {
                Some((last, _)) => after = *last,
                None => return Ok(n_changed),
            }
            let taken = rows.iter().filter(|(_, name)| takes(name));
            let taken: Vec<i64> = taken.map(|(id, _)| *id).collect();
            if taken.is_empty() {
                continue;
            }
            let change = |db: &Transaction<'_>| {
                let mut update = db.prepare_cached(&format!(
                    "UPDATE {table} SET {set} WHERE id = ?1 AND {has_failed}"
                ))?;
                let mut n = 0;
                for id in &taken {
                    n += update.execute([id])? as u64;
                }
                Ok(n)
            };
            n_changed += match table {
                "event" => self.write_events(change)?,
                _ => self.write(change)?,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::store::queue::Take;
    use crate::store::tags::Lane;
    use crate::store::testdata::Temp;
    use crate::time::Timestamp;

    /// Fails the job that is taken next.
    fn fail(store: &Store, err: &Error, next_try: Option<Timestamp>) {
        let sources = ["oci r.example".to_owned()];
        let jobs = store
            .take_jobs("me", &sources, Take::Any(Lane::Backfill), 1)
            .unwrap();
        store.job_failed(&jobs[0], err, next_try, 1).unwrap();
    }

    #[test]
    fn all_that_failed_is_tried_again_or_only_what_is_named() {
        let temp = Temp::new();
        let store = temp.store();
        let sources = ["oci r.example".to_owned()];
        let take = || {
            store
                .take_jobs("me", &sources, Take::Any(Lane::Backfill), 9)
                .unwrap()
        };
        for name in ["a", "b", "c"] {
            temp.queue(name, "1", name);
        }
        let later = Timestamp::now().plus(std::time::Duration::from_secs(3600));
        fail(store, &Error::skip("broken"), None);
        fail(store, &Error::retry("slow"), Some(later));
        // `c` waits for nothing, and nobody failed over it.
        assert_eq!(take().len(), 1);
        assert_eq!(store.retry_failed().unwrap(), 0, "no run mends `a`");

        let named = store.retry(&|name| name.repository == "r.example/a" && name.tag == "1");
        assert_eq!(
            named.unwrap(),
            Retried {
                images: 1,
                events: 0
            }
        );
        let jobs = take();
        assert_eq!(
            (
                jobs[0].repository.as_str(),
                jobs[0].attempts,
                jobs[0].starts
            ),
            ("a", 0, 0)
        );
        assert_eq!(
            store.retry(&|_| true).unwrap(),
            Retried {
                images: 1,
                events: 0
            }
        );
        assert_eq!(store.retry(&|_| true).unwrap(), Retried::default());
        assert_eq!(take()[0].repository.as_str(), "b");
    }

    #[test]
    fn a_job_over_which_processes_ended_is_tried_again() {
        let temp = Temp::new();
        let store = temp.store();
        temp.queue("a", "1", "a");
        temp.run("UPDATE job SET starts = 8");
        store.recover().unwrap();
        assert_eq!(store.queue_state().unwrap().failed, 1);
        assert_eq!(
            store.retry(&|name| name.digest.is_some()).unwrap().images,
            1
        );
        let jobs = store.take_jobs(
            "me",
            &["oci r.example".to_owned()],
            Take::Any(Lane::Backfill),
            1,
        );
        assert_eq!(jobs.unwrap().len(), 1);
    }

    #[test]
    fn events_that_wait_are_looked_at_now() {
        let temp = Temp::new();
        let store = temp.store();
        temp.run_events(
            "INSERT INTO event (source_id, repository, tag, is_delete, received_at, next_try)
                  VALUES (1, 'app', '1', 0, 1, 9), (1, 'app', '2', 0, 1, 0)",
        );
        assert_eq!(
            store.retry(&|name| name.repository == "app").unwrap(),
            Retried {
                images: 0,
                events: 1
            }
        );
        assert_eq!(store.take_events("me", &[temp.source], 9).unwrap().len(), 2);
    }
}
