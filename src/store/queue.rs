//! The queue: images to be read, as rows that survive the process.
//!
//! A process takes jobs under a lease that names it, see [`super::lease`].

use rusqlite::{OptionalExtension, Transaction, params};

use super::lease::{LEASE_MS, MAX_STARTS, lives};
use super::tags::{LAST_CHANGE, Lane, TagId};
use super::{Store, moment};
use crate::error::{Error, Kind, Result};
use crate::image::{Digest, Repository, Tag};
use crate::time::Timestamp;

/// Processes that ended over a job after which it is only taken while nothing else is under way: the next one
/// that ends will tell whether it was this job.
const SUSPECT_STARTS: u32 = 3;
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct JobId(i64);

/// An image to be read.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) id: JobId,
    pub(crate) tag_id: TagId,
    pub(crate) source: String,
    pub(crate) repository: Repository,
    /// The repository as users name it.
    pub(crate) shown: String,
    pub(crate) tag: Tag,
    /// What the tag pointed to when it was seen.
    pub(crate) digest: Digest,
    /// Tries before this one.
    pub(crate) attempts: u32,
    /// Processes that took it before and ended over it.
    pub(crate) starts: u32,
    pub(crate) lane: Lane,
}

/// What to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Take {
    Any(Lane),
    /// One that processes ended over, for a process that does nothing else.
    Suspect,
}

/// A job that failed or waits to be tried again.
#[derive(Clone, Debug)]
pub(crate) struct Trouble {
    pub(crate) image: String,
    pub(crate) digest: String,
    pub(crate) error: String,
    pub(crate) hint: Option<String>,
    /// Tries since it was queued, or queued again.
    pub(crate) attempts: u32,
    /// `None` when it is not tried again by itself.
    pub(crate) next_try: Option<Timestamp>,
    /// Whether no try can change it while the tag stays as it is.
    pub(crate) is_final: bool,
}

/// How many jobs there are, and when the next is due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct QueueState {
    pub(crate) waiting: u64,
    /// Those of the waiting that failed before.
    pub(crate) retrying: u64,
    /// Those of the waiting that were just pushed, and go first.
    pub(crate) pushed: u64,
    /// When the first of the retrying is due; `None` when all are.
    pub(crate) next_try: Option<Timestamp>,
    /// Taken by a process that lives.
    pub(crate) running: u64,
    pub(crate) failed: u64,
}

impl Store {
    /// Takes up to `n` jobs of `sources` that are due, oldest first. Writes nothing when there is none.
    pub(crate) fn take_jobs(
        &self,
        owner: &str,
        sources: &[String],
        take: Take,
        n: usize,
    ) -> Result<Vec<Job>> {
        let now = Timestamp::now().as_millis();
        let sources = serde_json::json!(sources).to_string();
        let (lanes, n, starts) = match take {
            Take::Any(lane) => (lane.number()..=lane.number(), n, 0..=SUSPECT_STARTS - 1),
            Take::Suspect => (0..=1, n.min(1), SUSPECT_STARTS..=MAX_STARTS),
        };
        // Those over which fewest processes ended are probably not to blame.
        let (order, in_lane) = match take {
            // Of one lane, those that wait for their next try need not be looked at.
            Take::Any(_) => ("", "lane = ?5 AND ?5 = ?6"),
            Take::Suspect => ("starts,", "lane BETWEEN ?5 AND ?6"),
        };
        let due = format!(
            "state = 'ready' AND {in_lane} AND next_try <= ?1 AND lease_owner IS NULL AND starts BETWEEN ?3 AND ?4"
        );
        let bounds = params![
            now,
            sources,
            starts.start(),
            starts.end(),
            lanes.start(),
            lanes.end()
        ];
        let is_any = self.read(|db| {
            db.prepare_cached(&format!(
                "SELECT 1 FROM job WHERE {due} AND ?2 <> '' LIMIT 1"
            ))?
            .exists(bounds)
        })?;
        if !is_any {
            return Ok(Vec::new());
        }
        let rows = self.write(|db| {
            let mut query = db.prepare_cached(&format!(
                "UPDATE job SET lease_owner = ?7, lease_until = ?1 + ?8, starts = starts + 1 WHERE id IN (
                     SELECT job.id FROM job JOIN tag ON tag.id = tag_id JOIN repository r ON r.id = repository_id
                     JOIN source s ON s.id = source_id
                     WHERE {due} AND s.name IN (SELECT value FROM json_each(?2))
                     ORDER BY {order} lane, next_try, job.id LIMIT ?9)
                 RETURNING id"
            ))?;
            let ids: Vec<i64> = query
                .query_map(
                    params![
                        now, sources, starts.start(), starts.end(), lanes.start(), lanes.end(), owner, LEASE_MS, n
                    ],
                    |row| row.get(0),
                )?
                .collect::<rusqlite::Result<_>>()?;
            let mut read = db.prepare_cached(
                "SELECT job.id, tag_id, s.name, r.name, r.shown, tag.name, tag.digest, attempts,
                        starts - 1, lane
                 FROM job JOIN tag ON tag.id = tag_id JOIN repository r ON r.id = repository_id
                 JOIN source s ON s.id = source_id WHERE job.id = ?1",
            )?;
            let row = |row: &rusqlite::Row<'_>| {
                Ok((
                    (row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, String>(2)?, row.get::<_, String>(3)?),
                    (row.get::<_, String>(4)?, row.get::<_, String>(5)?, row.get::<_, String>(6)?, row.get::<_, u32>(7)?),
                    (row.get::<_, u32>(8)?, row.get::<_, u8>(9)?),
                ))
            };
            let mut rows = ids.iter().map(|id| read.query_row([id], row)).collect::<rusqlite::Result<Vec<_>>>()?;
            rows.sort_by_key(|row| row.0.0);
            Ok(rows)
        })?;
        rows.into_iter()
            .map(
                |(
                    (id, tag_id, source, repository),
                    (shown, tag, digest, attempts),
                    (starts, lane),
                )| {
                    Ok(Job {
                        id: JobId(id),
                        tag_id: TagId(tag_id),
                        source,
                        repository: repository.parse()?,
                        shown,
                        tag: tag.parse()?,
                        digest: digest.parse()?,
                        attempts,
                        starts,
                        lane: if lane == 0 {
                            Lane::Pushed
                        } else {
                            Lane::Backfill
                        },
                    })
                },
            )
            .collect()
    }

    /// Notes that a job over which processes ended got further than before.
    pub(crate) fn job_progressed(&self, job: JobId) -> Result<()> {
        self.write(|db| db.execute("UPDATE job SET starts = 1 WHERE id = ?1", [job.0]))?;
        Ok(())
    }

    /// Ends a job whose image is in the store. A tag that moved on meanwhile keeps its job.
    pub(crate) fn job_done(&self, job: &Job) -> Result<()> {
        self.write(|db| {
            let n = db.execute(
                "DELETE FROM job WHERE id = ?1 AND tag_id = ?3 AND (SELECT digest FROM tag WHERE id = tag_id) = ?2",
                params![job.id.0, job.digest.as_str(), job.tag_id.0],
            )?;
            if n == 0 {
                give_back(db, job)?;
            }
            Ok(())
        })
    }

    /// Notes a failed try of what the tag still points to, the `attempts`th. `next_try` is `None` when there is none before the tag changes or a later run.
    pub(crate) fn job_failed(
        &self,
        job: &Job,
        err: &Error,
        next_try: Option<Timestamp>,
        attempts: u32,
    ) -> Result<()> {
        let is_final = matches!(err.kind(), Kind::Skip | Kind::Limit);
        self.write(|db| {
            let n = db.execute(
                "UPDATE job SET state = CASE WHEN ?2 IS NULL THEN 'failed' ELSE 'ready' END, next_try = coalesce(?2, next_try),
                        attempts = ?6, error = ?3, hint = ?4, is_final = ?5, starts = 0,
                        lease_owner = NULL, lease_until = 0
                 WHERE id = ?1 AND tag_id = ?7 AND (SELECT digest FROM tag WHERE id = tag_id) = ?8",
                params![
                    job.id.0,
                    next_try.map(Timestamp::as_millis),
                    err.to_string(),
                    err.hint_text(),
                    is_final && next_try.is_none(),
                    attempts,
                    job.tag_id.0,
                    job.digest.as_str()
                ],
            )?;
            if n == 0 {
                give_back(db, job)?;
            }
            Ok(())
        })
    }

    /// The digest that the tag of a job points to now.
    pub(crate) fn move_tag(&self, tag: TagId, digest: &Digest) -> Result<()> {
        let now = Timestamp::now().as_millis();
        self.write(|db| {
            db.execute(
                "INSERT OR IGNORE INTO tag_history SELECT id, digest, changed_at, ?3 FROM tag
                 WHERE id = ?1 AND digest <> ?2",
                params![tag.0, digest.as_str(), now],
            )?;
            db.execute(
                &format!(
                    "UPDATE tag SET digest = ?2, changed_at = ?3, change_no = {LAST_CHANGE} + 1
                     WHERE id = ?1 AND digest <> ?2"
                ),
                params![tag.0, digest.as_str(), now],
            )?;
            Ok(())
        })
    }

    /// When the next job of `sources` that nobody holds is due; `None` when there is none.
    pub(crate) fn next_due(&self, sources: &[String]) -> Result<Option<Timestamp>> {
        let sources = serde_json::json!(sources).to_string();
        self.read(|db| {
            db.prepare_cached(
                "SELECT min(next_try) AS due FROM job JOIN tag ON tag.id = tag_id
                 JOIN repository r ON r.id = repository_id JOIN source s ON s.id = source_id
                 WHERE state = 'ready' AND lease_owner IS NULL AND s.name IN (SELECT value FROM json_each(?1))",
            )?
            .query_row([sources], |row| moment(row, "due"))
            .optional()
            .map(Option::flatten)
        })
    }

    pub(crate) fn queue_state(&self) -> Result<QueueState> {
        self.read(|db| {
            let mut query = db.prepare_cached(
                "SELECT state, lease_owner AS owner, attempts > 0 AS is_retried,
                        count(*), sum(lane = 0), min(nullif(next_try, 0)) AS next_try
                 FROM job GROUP BY 1, 2, 3",
            )?;
            let mut rows = query.query([])?;
            let mut state = QueueState::default();
            while let Some(row) = rows.next()? {
                let (name, owner): (String, Option<String>) = (row.get(0)?, row.get(1)?);
                let (is_retried, n): (bool, u64) = (row.get(2)?, row.get(3)?);
                if name == "failed" {
                    state.failed += n;
                } else if owner.is_some_and(|owner| lives(&owner) != Some(false)) {
                    state.running += n;
                } else {
                    state.waiting += n;
                    state.pushed += row.get::<_, u64>(4)?;
                    if is_retried {
                        state.retrying += n;
                        let next_try = moment(row, "next_try")?;
                        state.next_try = state.next_try.into_iter().chain(next_try).min();
                    }
                }
            }
            Ok(state)
        })
    }

    /// How many jobs failed at least once.
    pub(crate) fn n_troubles(&self) -> Result<u64> {
        self.read(|db| {
            db.query_row(
                "SELECT count(*) FROM job WHERE error IS NOT NULL",
                [],
                |row| row.get(0),
            )
        })
    }

    /// Everything that failed at least once, by image; at most `n`. `sources` narrows when it is not empty.
    pub(crate) fn troubles(&self, sources: &[String], n: usize) -> Result<Vec<Trouble>> {
        let sources = serde_json::json!(sources).to_string();
        self.read(|db| {
            let mut query = db.prepare_cached(
                "SELECT r.shown || ':' || tag.name AS image, tag.digest AS digest, job.error AS error, hint, attempts, is_final,
                        CASE WHEN state = 'ready' THEN next_try END AS next_try
                 FROM job JOIN tag ON tag.id = tag_id JOIN repository r ON r.id = repository_id
                 JOIN source s ON s.id = source_id
                 WHERE job.error IS NOT NULL AND (?1 = '[]' OR s.name IN (SELECT value FROM json_each(?1)))
                 ORDER BY image LIMIT ?2",
            )?;
            let rows = query.query_map(params![sources, n], |row| {
                Ok(Trouble {
                    image: row.get("image")?,
                    digest: row.get("digest")?,
                    error: row.get("error")?,
                    hint: row.get("hint")?,
                    attempts: row.get("attempts")?,
                    next_try: moment(row, "next_try")?,
                    is_final: row.get("is_final")?,
                })
            })?;
            rows.collect()
        })
    }

    /// How many current tags of `sources` have an image that could not be read.
    pub(crate) fn failed_jobs(&self, sources: &[String]) -> Result<u64> {
        let sources = serde_json::json!(sources).to_string();
        self.read(|db| {
            db.prepare_cached(
                "SELECT count(*) FROM job JOIN tag ON tag.id = tag_id JOIN repository r ON r.id = repository_id
                 JOIN source s ON s.id = source_id
                 WHERE state = 'failed' AND gone_at IS NULL AND s.name IN (SELECT value FROM json_each(?1))",
            )?
            .query_row([sources], |row| row.get(0))
        })
    }
}

/// Gives back a job whose tag moved on: what came of the old digest says nothing of the new one. A job of another
/// tag that got the number meanwhile is left alone.
fn give_back(db: &Transaction<'_>, job: &Job) -> rusqlite::Result<()> {
    db.execute(
        "UPDATE job SET lease_owner = NULL, lease_until = 0, starts = 0 WHERE id = ?1 AND tag_id = ?2",
        [job.id.0, job.tag_id.0],
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testdata::Temp;

    fn taken(temp: &Temp) -> Job {
        let sources = ["oci r.example".to_owned()];
        let jobs = temp
            .store()
            .take_jobs("me", &sources, Take::Any(Lane::Backfill), 1);
        jobs.unwrap().pop().unwrap()
    }

    #[test]
    fn what_came_of_an_old_digest_says_nothing_of_the_new_one() {
        let temp = Temp::new();
        temp.queue("app", "1", "broken");
        let job = taken(&temp);
        temp.queue("app", "1", "mended");
        let err = Error::skip("broken");
        temp.store().job_failed(&job, &err, None, 1).unwrap();
        let again = taken(&temp);
        assert_ne!(again.digest, job.digest);
        assert_eq!((again.attempts, again.starts), (0, 0));
    }

    #[test]
    fn a_number_that_is_given_again_is_another_job() {
        let temp = Temp::new();
        temp.queue("app", "1", "one");
        let job = taken(&temp);
        temp.run("DELETE FROM job");
        temp.queue("app", "2", "two");
        temp.store()
            .job_failed(&job, &Error::skip("no"), None, 1)
            .unwrap();
        temp.store().job_done(&job).unwrap();
        assert_eq!(taken(&temp).tag.as_str(), "2");
    }
}
