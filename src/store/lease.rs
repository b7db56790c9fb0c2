//! Leases: which process works on a job or an event.
//!
//! A lease ends when the work does, or when its process is known to be gone. Where that cannot be known (a store
//! shared by containers that do not see each other's processes) it ends when it was not renewed for a while.

use rusqlite::{Transaction, params};

use super::Store;
use crate::error::Result;
use crate::time::Timestamp;

/// How long a job stays with a process that does not renew it and cannot be seen.
pub(super) const LEASE_MS: i64 = 120_000;
/// Processes that ended over a job after which it is given up.
pub(super) const MAX_STARTS: u32 = 8;
/// No try waits longer than this; what seems to was planned before the clock was set back.
const LONGEST_WAIT_MS: i64 = 25 * 3_600_000;

/// Who holds leases: the process, the moment it started, so that a reused process number is another one, and
/// the namespace in which the number counts.
pub(crate) fn this_process() -> String {
    let pid = std::process::id();
    format!(
        "{pid}:{}:{}",
        start_of(pid).unwrap_or_default(),
        namespace()
    )
}

/// The name of this machine's boot and of the process namespace; empty where there is none.
fn namespace() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let pids = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    format!("{}/{}", boot.trim(), pids.display())
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

/// Whether the owner of a lease runs; `None` when that cannot be seen from here.
pub(super) fn lives(owner: &str) -> Option<bool> {
    let mut parts = owner.splitn(3, ':');
    let (pid, start) = (
        parts.next()?.parse().ok()?,
        parts.next()?.parse::<u64>().ok()?,
    );
    if parts.next()? != namespace() {
        return None;
    }
    Some(start_of(pid) == Some(start))
}

impl Store {
    /// Frees the jobs and events of processes that ended without doing so, and gives up jobs over which too
    /// many ended. Waits that no try can have are from before the clock was set back, and end.
    pub(crate) fn recover(&self) -> Result<()> {
        let now = Timestamp::now().as_millis();
        let owners: Vec<String> = self.read(|db| {
            db.prepare_cached(
                "SELECT lease_owner FROM job WHERE lease_owner IS NOT NULL
                 UNION SELECT lease_owner FROM event WHERE lease_owner IS NOT NULL",
            )?
            .query_map([], |row| row.get(0))?
            .collect()
        })?;
        let gone: Vec<(String, bool)> = owners
            .into_iter()
            .filter_map(|owner| match lives(&owner) {
                Some(true) => None,
                Some(false) => Some((owner, true)),
                None => Some((owner, false)),
            })
            .collect();
        self.write_both(|db, table| {
            for (owner, is_gone) in &gone {
                // A lease that ends later than any can was given before the clock was set back.
                db.execute(
                    &format!(
                        "UPDATE {table} SET lease_owner = NULL, lease_until = 0 WHERE lease_owner = ?1
                         AND (?2 OR lease_until < ?3 OR lease_until > ?3 + 2 * ?4)"
                    ),
                    params![owner, is_gone, now, LEASE_MS],
                )?;
            }
            db.execute(
                &format!("UPDATE {table} SET next_try = 0 WHERE next_try > ?1 + ?2"),
                [now, LONGEST_WAIT_MS],
            )?;
            Ok(())
        })?;
        self.write(|db| {
            db.execute(
                "UPDATE job SET state = 'failed', is_final = 1, hint = ?2,
                        error = 'crowsnest was ended ' || starts || ' times while it read this image'
                 WHERE starts >= ?1 AND state = 'ready' AND lease_owner IS NULL",
                params![
                    MAX_STARTS,
                    "look for what ended it (memory?), then: crowsnest retry"
                ],
            )?;
            Ok(())
        })
    }

    /// Lets all waits end so much earlier, since the clock was set back.
    pub(crate) fn clock_was_set_back(&self, by_ms: i64) -> Result<()> {
        self.write_both(|db, table| {
            db.execute(
                &format!("UPDATE {table} SET next_try = max(0, next_try - ?1) WHERE next_try > 0"),
                [by_ms],
            )?;
            Ok(())
        })
    }

    /// Extends the leases of this process.
    pub(crate) fn renew_leases(&self, owner: &str) -> Result<()> {
        let until = Timestamp::now().as_millis() + LEASE_MS;
        self.write_both(|db, table| {
            db.execute(
                &format!("UPDATE {table} SET lease_until = ?2 WHERE lease_owner = ?1"),
                params![owner, until],
            )?;
            Ok(())
        })
    }

    /// Does the same to jobs and to events, which stand in two files.
    fn write_both(
        &self,
        work: impl Fn(&Transaction<'_>, &str) -> rusqlite::Result<()>,
    ) -> Result<()> {
        self.write(|db| work(db, "job"))?;
        self.write_events(|db| work(db, "event"))
    }

    /// Gives back everything that this process holds, as if it had not been taken.
    pub(crate) fn release_leases(&self, owner: &str) -> Result<()> {
        self.write(|db| {
            db.execute(
                "UPDATE job SET lease_owner = NULL, lease_until = 0, starts = max(0, starts - 1) WHERE lease_owner = ?1",
                [owner],
            )?;
            Ok(())
        })?;
        self.write_events(|db| {
            db.execute(
                "UPDATE event SET lease_owner = NULL, lease_until = 0 WHERE lease_owner = ?1",
                [owner],
            )?;
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_ends_with_its_process() {
        assert_eq!(lives(&this_process()), Some(true));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let start = start_of(child.id()).unwrap_or(0);
        let owner = format!("{}:{start}:{}", child.id(), namespace());
        // Until it is waited for, an ended process is still in /proc.
        while std::fs::read_to_string(format!("/proc/{}/stat", child.id()))
            .is_ok_and(|stat| !stat.contains(") Z"))
        {
            std::thread::yield_now();
        }
        assert_eq!(lives(&owner), Some(false));
        child.wait().unwrap();
        assert_eq!(lives(&owner), Some(false));
        assert_eq!(lives(&format!("1:1:{}", namespace())), Some(false));
        assert_eq!(lives("1:1:elsewhere"), None);
        assert_eq!(lives("x"), None);
    }
}
