//! The queue: images to be read, as rows that survive the process.
//!
//! A process takes jobs under a lease that names it. A lease ends when the job does, when its time is up, or at
//! once when its process is known to be gone from this machine.

use rusqlite::{OptionalExtension, params};

use super::tags::TagId;
use super::{Store, moment};
use crate::error::{Error, Kind, Result};
use crate::image::{Digest, Repository, Tag};
use crate::time::Timestamp;

/// How long a job stays with a process that does not renew it.
const LEASE_MS: i64 = 120_000;

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

/// How many jobs there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct QueueState {
    pub(crate) waiting: u64,
    /// Those of the waiting that failed before.
    pub(crate) retrying: u64,
    /// Taken by a process that lives.
    pub(crate) running: u64,
    pub(crate) failed: u64,
}

/// Who holds leases: the process and the moment it started, so that a reused process number is another one.
pub(crate) fn this_process() -> String {
    let pid = std::process::id();
    format!("{pid}:{}", start_of(pid).unwrap_or_default())
}

/// The start time of a process in clock ticks: field 22 of `stat` in proc(5). `None` when it is gone, or has
/// ended and only waits to be collected by its parent.
fn start_of(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold spaces; the state, field 3, is the first behind it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    match fields.next()? {
        "Z" | "X" => None,
        _ => fields.nth(18)?.parse().ok(),
    }
}

/// Whether the owner of a lease runs on this machine.
fn lives(owner: &str) -> bool {
    owner
        .split_once(':')
        .and_then(|(pid, start)| Some((pid.parse().ok()?, start.parse::<u64>().ok()?)))
        .is_some_and(|(pid, start)| start_of(pid) == Some(start))
}

impl Store {
    /// Frees the jobs of processes that ended without doing so.
    pub(crate) fn release_orphans(&self) -> Result<u64> {
        let now = Timestamp::now().as_millis();
        self.write(|db| {
            let mut owners = db.prepare_cached(
                "SELECT DISTINCT lease_owner FROM job WHERE lease_owner IS NOT NULL",
            )?;
            let owners: Vec<String> = owners
                .query_map([], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            let mut n_freed = 0;
            for owner in owners {
                let is_gone = !lives(&owner);
                n_freed += db.execute(
                    "UPDATE job SET lease_owner = NULL, lease_until = 0
                     WHERE lease_owner = ?1 AND (?2 OR lease_until < ?3)",
                    params![owner, is_gone, now],
                )?;
            }
            Ok(n_freed as u64)
        })
    }

    /// Gives failed jobs another chance, except those that no try can change.
    pub(crate) fn retry_failed(&self) -> Result<u64> {
        let now = Timestamp::now().as_millis();
        self.write(|db| {
            let n = db.execute(
                "UPDATE job SET state = 'ready', attempts = 0, next_try = ?1 WHERE state = 'failed' AND is_final = 0",
                [now],
            )?;
            Ok(n as u64)
        })
    }

    /// Takes up to `n` jobs of `sources` that are due, oldest first.
    pub(crate) fn take_jobs(&self, owner: &str, sources: &[String], n: usize) -> Result<Vec<Job>> {
        let now = Timestamp::now().as_millis();
        let sources = serde_json::json!(sources).to_string();
        let rows = self.write(|db| {
            let mut query = db.prepare_cached(
                "UPDATE job SET lease_owner = ?1, lease_until = ?2 + ?3 WHERE id IN (
                     SELECT job.id FROM job JOIN tag ON tag.id = tag_id JOIN repository r ON r.id = repository_id
                     JOIN source s ON s.id = source_id
                     WHERE state = 'ready' AND next_try <= ?2 AND lease_until < ?2
                       AND s.name IN (SELECT value FROM json_each(?4))
                     ORDER BY next_try, job.id LIMIT ?5)
                 RETURNING id",
            )?;
            let ids: Vec<i64> = query
                .query_map(params![owner, now, LEASE_MS, sources, n], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            let mut read = db.prepare_cached(
                "SELECT job.id, tag_id, s.name, r.name, r.shown, tag.name, tag.digest, attempts
                 FROM job JOIN tag ON tag.id = tag_id JOIN repository r ON r.id = repository_id
                 JOIN source s ON s.id = source_id WHERE job.id = ?1",
            )?;
            let row = |row: &rusqlite::Row<'_>| {
                Ok((
                    (row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, String>(2)?, row.get::<_, String>(3)?),
                    (row.get::<_, String>(4)?, row.get::<_, String>(5)?, row.get::<_, String>(6)?, row.get::<_, u32>(7)?),
                ))
            };
            let mut rows = ids.iter().map(|id| read.query_row([id], row)).collect::<rusqlite::Result<Vec<_>>>()?;
            rows.sort_by_key(|row| row.0.0);
            Ok(rows)
        })?;
        rows.into_iter()
            .map(
                |((id, tag_id, source, repository), (shown, tag, digest, attempts))| {
                    Ok(Job {
                        id: JobId(id),
                        tag_id: TagId(tag_id),
                        source,
                        repository: repository.parse()?,
                        shown,
                        tag: tag.parse()?,
                        digest: digest.parse()?,
                        attempts,
                    })
                },
            )
            .collect()
    }

    /// Extends the leases of this process.
    pub(crate) fn renew_leases(&self, owner: &str) -> Result<()> {
        let until = Timestamp::now().as_millis() + LEASE_MS;
        self.write(|db| {
            db.execute(
                "UPDATE job SET lease_until = ?2 WHERE lease_owner = ?1",
                params![owner, until],
            )
        })?;
        Ok(())
    }

    /// Gives back everything that this process holds.
    pub(crate) fn release_leases(&self, owner: &str) -> Result<()> {
        self.write(|db| {
            db.execute(
                "UPDATE job SET lease_owner = NULL, lease_until = 0 WHERE lease_owner = ?1",
                [owner],
            )
        })?;
        Ok(())
    }

    /// Ends a job whose image is in the store. A tag that moved on meanwhile keeps its job.
    pub(crate) fn job_done(&self, job: &Job) -> Result<()> {
        self.write(|db| {
            let n = db.execute(
                "DELETE FROM job WHERE id = ?1 AND (SELECT digest FROM tag WHERE id = tag_id) = ?2",
                params![job.id.0, job.digest.as_str()],
            )?;
            if n == 0 {
                db.execute(
                    "UPDATE job SET lease_owner = NULL, lease_until = 0 WHERE id = ?1",
                    [job.id.0],
                )?;
            }
            Ok(())
        })
    }

    /// Notes a failed try. `next_try` is `None` when there is none before the tag changes or a later run.
    pub(crate) fn job_failed(
        &self,
        job: &Job,
        err: &Error,
        next_try: Option<Timestamp>,
    ) -> Result<()> {
        let is_final = matches!(err.kind(), Kind::Skip | Kind::Limit);
        self.write(|db| {
            db.execute(
                "UPDATE job SET state = CASE WHEN ?2 IS NULL THEN 'failed' ELSE 'ready' END, next_try = coalesce(?2, next_try),
                        attempts = attempts + 1, error = ?3, hint = ?4, is_final = ?5, lease_owner = NULL, lease_until = 0
                 WHERE id = ?1",
                params![
                    job.id.0,
                    next_try.map(Timestamp::as_millis),
                    err.to_string(),
                    err.hint_text(),
                    is_final && next_try.is_none()
                ],
            )
        })?;
        Ok(())
    }

    /// The digest that the tag of a job points to now.
    pub(crate) fn move_tag(&self, tag: TagId, digest: &Digest) -> Result<()> {
        self.write(|db| {
            db.execute(
                "UPDATE tag SET digest = ?2, changed_at = ?3 WHERE id = ?1 AND digest <> ?2",
                params![tag.0, digest.as_str(), Timestamp::now().as_millis()],
            )
        })?;
        Ok(())
    }

    /// When the next job of `sources` that nobody holds is due; `None` when there is none.
    pub(crate) fn next_due(&self, sources: &[String]) -> Result<Option<Timestamp>> {
        let sources = serde_json::json!(sources).to_string();
        self.read(|db| {
            db.prepare_cached(
                "SELECT min(next_try) AS due FROM job JOIN tag ON tag.id = tag_id
                 JOIN repository r ON r.id = repository_id JOIN source s ON s.id = source_id
                 WHERE state = 'ready' AND lease_until < ?2 AND s.name IN (SELECT value FROM json_each(?1))",
            )?
            .query_row(params![sources, Timestamp::now().as_millis()], |row| moment(row, "due"))
            .optional()
            .map(Option::flatten)
        })
    }

    pub(crate) fn queue_state(&self) -> Result<QueueState> {
        let now = Timestamp::now().as_millis();
        self.read(|db| {
            let mut query = db.prepare_cached(
                "SELECT state, CASE WHEN lease_until >= ?1 THEN lease_owner END AS owner, attempts > 0 AS is_retried,
                        count(*) FROM job GROUP BY 1, 2, 3",
            )?;
            let mut rows = query.query([now])?;
            let mut state = QueueState::default();
            while let Some(row) = rows.next()? {
                let (name, owner): (String, Option<String>) = (row.get(0)?, row.get(1)?);
                let (is_retried, n): (bool, u64) = (row.get(2)?, row.get(3)?);
                if name == "failed" {
                    state.failed += n;
                } else if owner.is_some_and(|owner| lives(&owner)) {
                    state.running += n;
                } else {
                    state.waiting += n;
                    state.retrying += if is_retried { n } else { 0 };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_ends_with_its_process() {
        assert!(lives(&this_process()));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let owner = format!("{}:{}", child.id(), start_of(child.id()).unwrap_or(0));
        // Until it is waited for, an ended process is still in /proc.
        while std::fs::read_to_string(format!("/proc/{}/stat", child.id()))
            .is_ok_and(|stat| !stat.contains(") Z"))
        {
            std::thread::yield_now();
        }
        assert!(!lives(&owner));
        child.wait().unwrap();
        assert!(!lives(&owner) && !lives("1:1") && !lives("x"));
    }
}
