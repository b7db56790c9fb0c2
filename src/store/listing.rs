//! A listing under way: every tag that is seen compared with what was known, changes written in batches.
//!
//! A pass over an unchanged registry reads and does not write: the tags it saw are bits in memory.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::params;

use super::Store;
use super::tags::{
    Change, LAST_CHANGE, Record, Seen, SourceId, Told, judge, known_tag, repository_id, save,
};
use crate::error::Result;
use crate::image::{Digest, Repository, Tag};
use crate::time::Timestamp;

/// Changes written in one transaction.
const BATCH: usize = 500;

/// Totals of one listing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ListingTotals {
    pub(crate) tags: u64,
    pub(crate) unchanged: u64,
    pub(crate) new: u64,
    pub(crate) moved: u64,
    pub(crate) gone: u64,
    /// How long the source could not be listed before.
    pub(crate) downtime: Option<Duration>,
}

/// A listing under way.
pub(crate) struct Listing<'a> {
    store: &'a Store,
    source: SourceId,
    record: Arc<Record>,
    /// Rows with a later change exist, whether or not they have a bit: tags whose digest had to be asked for
    /// are noted by [`Store::see_tag`].
    last_change: i64,
    told: Told,
    /// Bit `id` is set when the tag of that row was seen.
    seen: Vec<u64>,
    /// Name to row, so that each repository is looked up once; `None` while it has no row.
    repositories: HashMap<String, Option<i64>>,
    changes: Vec<Change>,
    /// Names of the tags in `changes`, which have no bit yet.
    pending: HashSet<(String, String)>,
    totals: ListingTotals,
}

impl Store {
    pub(crate) fn begin_listing(
        &self,
        source: SourceId,
        record: Arc<Record>,
    ) -> Result<Listing<'_>> {
        let last_change = self.read(|db| {
            db.prepare_cached(&format!("SELECT {LAST_CHANGE}"))?
                .query_row([], |row| row.get(0))
        })?;
        Ok(Listing {
            store: self,
            source,
            record,
            last_change,
            told: if self.was_listed(source)? {
                Told::Listing
            } else {
                Told::FirstListing
            },
            seen: Vec::new(),
            repositories: HashMap::new(),
            changes: Vec::new(),
            pending: HashSet::new(),
            totals: ListingTotals::default(),
        })
    }
}

impl Listing<'_> {
    /// Takes a listed tag. `shown` is the repository as users name it.
    pub(crate) fn see(
        &mut self,
        repository: &Repository,
        shown: &str,
        tag: &Tag,
        digest: Option<&Digest>,
    ) -> Result<Seen> {
        let name = repository.as_str();
        let repository_id = match self.repositories.get(name) {
            Some(id) => *id,
            None => {
                let id = self.store.read(|db| repository_id(db, self.source, name))?;
                self.repositories.insert(name.to_owned(), id);
                id
            }
        };
        let known = match repository_id {
            Some(id) => self
                .store
                .read(|db| known_tag(db, id, tag.as_str(), &self.record))?,
            None => None,
        };
        let is_repeated = match &known {
            Some(known) => !self.mark(known.id),
            None => self.pending.contains(&(name.to_owned(), tag.to_string())),
        };
        if is_repeated {
            // From a later member of a virtual repository: the first member counts.
            return Ok(if digest.is_some() {
                Seen::Unchanged
            } else {
                Seen::Unknown
            });
        }
        self.totals.tags += 1;
        if known
            .as_ref()
            .is_some_and(|known| known.change_no > self.last_change)
        {
            // An event was looked at since this listing was asked for, and knows better.
            return Ok(Seen::Unchanged);
        }
        let seen = judge(known.as_ref(), digest, &self.record);
        match (seen, digest) {
            (Seen::New | Seen::Moved, Some(digest)) => {
                self.pending.insert((name.to_owned(), tag.to_string()));
                self.changes.push(Change {
                    repository: name.to_owned(),
                    shown: shown.to_owned(),
                    tag: tag.to_string(),
                    digest: digest.to_string(),
                    is_known: known.is_some(),
                    lane: self.told.lane(known.as_ref(), digest),
                });
                if self.changes.len() >= BATCH {
                    self.flush()?;
                }
            }
            (Seen::Unchanged, _) => self.totals.unchanged += 1,
            _ => {}
        }
        match seen {
            Seen::New => self.totals.new += 1,
            Seen::Moved => self.totals.moved += 1,
            _ => {}
        }
        Ok(seen)
    }

    /// Sets the bit of a tag's row. Returns whether it was not set before.
    fn mark(&mut self, id: i64) -> bool {
        let word = usize::try_from(id / 64).unwrap_or(0);
        if self.seen.len() <= word {
            self.seen.resize(word + 1, 0);
        }
        let bit = 1 << (id % 64);
        let is_new = self.seen[word] & bit == 0;
        self.seen[word] |= bit;
        is_new
    }

    /// Makes the changes so far durable.
    pub(crate) fn flush(&mut self) -> Result<()> {
        if self.changes.is_empty() {
            return Ok(());
        }
        let changes = std::mem::take(&mut self.changes);
        self.pending.clear();
        for id in self
            .store
            .write(|db| save(db, self.source, &changes, &self.record))?
        {
            self.mark(id);
        }
        // New repositories have rows now.
        self.repositories.retain(|_, id| id.is_some());
        Ok(())
    }

    /// What the tags of this listing count as.
    pub(crate) fn told(&self) -> Told {
        self.told
    }

    /// Ends a listing. When it was complete, of all repositories or of some, tags of those that were known and not
    /// seen are gone; when it went through at all, the source is noted as listed.
    pub(crate) fn finish(
        mut self,
        is_complete: bool,
        complete: &[Repository],
        went_through: bool,
    ) -> Result<ListingTotals> {
        self.flush()?;
        let seen = std::mem::take(&mut self.seen);
        let is_seen = |id: i64| {
            let word = usize::try_from(id / 64)
                .ok()
                .and_then(|word| seen.get(word));
            word.is_some_and(|word| word & (1 << (id % 64)) != 0)
        };
        let now = Timestamp::now().as_millis();
        let source = self.source.0;
        if is_complete || !complete.is_empty() {
            let names: Vec<&str> = complete.iter().map(Repository::as_str).collect();
            let names = serde_json::json!(names).to_string();
            let unseen: Vec<i64> = self.store.read(|db| {
                let mut query = db.prepare_cached(
                    "SELECT tag.id FROM tag JOIN repository r ON r.id = repository_id
                     WHERE r.source_id = ?1 AND gone_at IS NULL AND change_no <= ?2
                       AND (?3 OR r.name IN (SELECT value FROM json_each(?4)))",
                )?;
                let ids = query.query_map(
                    params![source, self.last_change, is_complete, names],
                    |row| row.get(0),
                )?;
                ids.filter(|id| !id.as_ref().is_ok_and(|&id| is_seen(id)))
                    .collect()
            })?;
            self.totals.gone = unseen.len() as u64;
            if !unseen.is_empty() {
                self.store.write(|db| {
                    let mut gone = db.prepare_cached(
                        "UPDATE tag SET gone_at = ?2 WHERE id = ?1 AND change_no <= ?3",
                    )?;
                    let mut drop_job = db.prepare_cached("DELETE FROM job WHERE tag_id = ?1")?;
                    let mut n = 0;
                    for id in unseen {
                        if gone.execute(params![id, now, self.last_change])? > 0 {
                            drop_job.execute([id])?;
                            n += 1;
                        }
                    }
                    Ok(n)
                })?;
            }
        }
        if !went_through {
            return Ok(self.totals);
        }
        let since: Option<i64> = self.store.write(|db| {
            let since = db
                .prepare_cached("SELECT error_since FROM source WHERE id = ?1")?
                .query_row([source], |row| row.get(0))?;
            db.prepare_cached(
                "UPDATE source SET listed_at = ?2, error = NULL, error_since = NULL WHERE id = ?1",
            )?
            .execute(params![source, now])?;
            Ok(since)
        })?;
        self.totals.downtime =
            since.map(|since| Timestamp::from_millis(now).since(Timestamp::from_millis(since)));
        Ok(self.totals)
    }
}
