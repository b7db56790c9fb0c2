//! Sources, their repositories and tags: what a listing found, compared with what was known.
//!
//! A pass over an unchanged registry reads and does not write: the tags it saw are bits in memory.

use std::collections::{BTreeMap, HashMap, HashSet};

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::{Store, moment};
use crate::error::Result;
use crate::image::{Digest, Repository, Tag};
use crate::time::Timestamp;

/// Changes written in one transaction.
const BATCH: usize = 500;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SourceId(i64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TagId(pub(super) i64);

/// What the store knew of a listed tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// The same digest, and its image is indexed, or is recorded and not wanted.
    Unchanged,
    /// The same digest; its image still waits, or failed.
    Open,
    /// The digest is not in the listing and has to be asked for.
    Unknown,
    New,
    /// Another digest than before.
    Moved,
}

/// A source as `crowsnest status` shows it.
#[derive(Clone, Debug)]
pub(crate) struct SourceState {
    pub(crate) name: String,
    pub(crate) repositories: u64,
    pub(crate) tags: u64,
    pub(crate) listed_at: Option<Timestamp>,
    pub(crate) error: Option<String>,
    pub(crate) error_since: Option<Timestamp>,
}

/// Totals of one listing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ListingTotals {
    pub(crate) tags: u64,
    pub(crate) unchanged: u64,
    pub(crate) new: u64,
    pub(crate) moved: u64,
    pub(crate) gone: u64,
}

/// What becomes of tags that are not indexed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// They are queued. `platforms` is the user's choice, `""` for all: an index read for fewer is not done.
    AndQueue { platforms: String },
    /// They are only remembered.
    Only,
}

/// A listing under way.
pub(crate) struct Listing<'a> {
    store: &'a Store,
    source: SourceId,
    record: Record,
    /// Rows that were changed since then exist, whether or not they have a bit: tags whose digest had to be
    /// asked for are noted by [`Store::see_tag`].
    started: Timestamp,
    /// Bit `id` is set when the tag of that row was seen.
    seen: Vec<u64>,
    /// Name to row, so that each repository is looked up once; `None` while it has no row.
    repositories: HashMap<String, Option<i64>>,
    changes: Vec<Change>,
    /// Names of the tags in `changes`, which have no bit yet.
    pending: HashSet<(String, String)>,
    totals: ListingTotals,
}

struct Change {
    repository: String,
    shown: String,
    tag: String,
    digest: String,
}

impl Store {
    /// The row of the source of that name, made when it is new.
    pub(crate) fn source(&self, name: &str) -> Result<SourceId> {
        self.write(|db| {
            db.execute(
                "INSERT INTO source (name) VALUES (?1) ON CONFLICT DO NOTHING",
                [name],
            )?;
            db.query_row("SELECT id FROM source WHERE name = ?1", [name], |row| {
                row.get(0)
            })
            .map(SourceId)
        })
    }

    /// What a source learnt of its server, as it was last saved.
    pub(crate) fn source_facts(&self, source: SourceId) -> Result<BTreeMap<String, String>> {
        let text: String = self.read(|db| {
            db.query_row(
                "SELECT facts FROM source WHERE id = ?1",
                [source.0],
                |row| row.get(0),
            )
        })?;
        Ok(serde_json::from_str(&text).unwrap_or_default())
    }

    pub(crate) fn save_source_facts(
        &self,
        source: SourceId,
        facts: &BTreeMap<String, String>,
    ) -> Result<()> {
        let text = serde_json::json!(facts).to_string();
        self.write(|db| {
            db.execute(
                "UPDATE source SET facts = ?2 WHERE id = ?1",
                params![source.0, text],
            )
        })?;
        Ok(())
    }

    /// Whether the source was ever listed to the end.
    pub(crate) fn was_listed(&self, source: SourceId) -> Result<bool> {
        self.read(|db| {
            db.query_row(
                "SELECT listed_at IS NOT NULL FROM source WHERE id = ?1",
                [source.0],
                |row| row.get(0),
            )
        })
    }

    /// Notes that the source cannot be listed now. Returns whether that is news.
    pub(crate) fn source_failed(&self, source: SourceId, error: &str) -> Result<bool> {
        self.write(|db| {
            let was: Option<String> =
                db.query_row("SELECT error FROM source WHERE id = ?1", [source.0], |row| row.get(0))?;
            db.execute(
                "UPDATE source SET error = ?2, error_since = coalesce(error_since, ?3) WHERE id = ?1",
                params![source.0, error, Timestamp::now().as_millis()],
            )?;
            Ok(was.is_none())
        })
    }

    pub(crate) fn sources(&self) -> Result<Vec<SourceState>> {
        self.read(|db| {
            let mut query = db.prepare_cached(
                "SELECT name, listed_at, error, error_since,
                        (SELECT count(*) FROM repository WHERE source_id = source.id) AS repositories,
                        (SELECT count(*) FROM tag JOIN repository r ON r.id = repository_id
                         WHERE r.source_id = source.id AND gone_at IS NULL) AS tags
                 FROM source ORDER BY name",
            )?;
            let rows = query.query_map([], |row| {
                Ok(SourceState {
                    name: row.get("name")?,
                    repositories: row.get("repositories")?,
                    tags: row.get("tags")?,
                    listed_at: moment(row, "listed_at")?,
                    error: row.get("error")?,
                    error_since: moment(row, "error_since")?,
                })
            })?;
            rows.collect()
        })
    }

    pub(crate) fn begin_listing(&self, source: SourceId, record: Record) -> Listing<'_> {
        Listing {
            store: self,
            source,
            record,
            started: Timestamp::now(),
            seen: Vec::new(),
            repositories: HashMap::new(),
            changes: Vec::new(),
            pending: HashSet::new(),
            totals: ListingTotals::default(),
        }
    }

    /// Notes the digest that a tag was found to have, outside of a listing. Returns what it was before.
    pub(crate) fn see_tag(
        &self,
        source: SourceId,
        repository: &Repository,
        shown: &str,
        tag: &Tag,
        digest: &Digest,
        record: &Record,
    ) -> Result<Seen> {
        let known = self.read(|db| match repository_id(db, source, repository.as_str())? {
            Some(id) => known_tag(db, id, tag.as_str()),
            None => Ok(None),
        })?;
        let seen = judge(known.as_ref(), Some(digest), record);
        if matches!(seen, Seen::New | Seen::Moved) {
            let change = Change {
                repository: repository.to_string(),
                shown: shown.to_owned(),
                tag: tag.to_string(),
                digest: digest.to_string(),
            };
            self.write(|db| save(db, source, &[change], record))?;
        }
        Ok(seen)
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
            Some(id) => self.store.read(|db| known_tag(db, id, tag.as_str()))?,
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
        let seen = judge(known.as_ref(), digest, &self.record);
        match (seen, digest) {
            (Seen::New | Seen::Moved, Some(digest)) => {
                self.pending.insert((name.to_owned(), tag.to_string()));
                self.changes.push(Change {
                    repository: name.to_owned(),
                    shown: shown.to_owned(),
                    tag: tag.to_string(),
                    digest: digest.to_string(),
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

    /// Ends a listing. When it was complete, tags that were known and not seen are gone; when it went through
    /// at all, the source is noted as listed.
    pub(crate) fn finish(mut self, is_complete: bool, went_through: bool) -> Result<ListingTotals> {
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
        if is_complete {
            let unseen: Vec<i64> = self.store.read(|db| {
                let mut query = db.prepare_cached(
                    "SELECT tag.id FROM tag JOIN repository r ON r.id = repository_id
                     WHERE r.source_id = ?1 AND gone_at IS NULL AND changed_at < ?2",
                )?;
                let ids =
                    query.query_map(params![source, self.started.as_millis()], |row| row.get(0))?;
                ids.filter(|id| !id.as_ref().is_ok_and(|&id| is_seen(id)))
                    .collect()
            })?;
            self.totals.gone = unseen.len() as u64;
            if !unseen.is_empty() {
                self.store.write(|db| {
                    let mut gone =
                        db.prepare_cached("UPDATE tag SET gone_at = ?2 WHERE id = ?1")?;
                    let mut drop_job = db.prepare_cached("DELETE FROM job WHERE tag_id = ?1")?;
                    for id in &unseen {
                        gone.execute(params![id, now])?;
                        drop_job.execute([id])?;
                    }
                    Ok(())
                })?;
            }
        }
        if !went_through {
            return Ok(self.totals);
        }
        self.store.write(|db| {
            db.execute(
                "UPDATE source SET listed_at = ?2, error = NULL, error_since = NULL WHERE id = ?1",
                params![source, now],
            )
        })?;
        Ok(self.totals)
    }
}

/// A tag's row and what became of it.
struct Known {
    id: i64,
    digest: String,
    is_gone: bool,
    has_job: bool,
    /// The platforms for which everything behind the digest was read; `None` when it was not.
    indexed_for: Option<String>,
}

fn repository_id(db: &Connection, source: SourceId, name: &str) -> rusqlite::Result<Option<i64>> {
    db.prepare_cached("SELECT id FROM repository WHERE source_id = ?1 AND name = ?2")?
        .query_row(params![source.0, name], |row| row.get(0))
        .optional()
}

fn known_tag(db: &Connection, repository_id: i64, tag: &str) -> rusqlite::Result<Option<Known>> {
    db.prepare_cached(
        "SELECT tag.id, tag.digest, gone_at IS NOT NULL, job.id IS NOT NULL,
                CASE WHEN indexed_at IS NOT NULL THEN platforms END
         FROM tag LEFT JOIN job ON job.tag_id = tag.id LEFT JOIN manifest ON manifest.digest = tag.digest
         WHERE repository_id = ?1 AND tag.name = ?2",
    )?
    .query_row(params![repository_id, tag], |row| {
        Ok(Known {
            id: row.get(0)?,
            digest: row.get(1)?,
            is_gone: row.get(2)?,
            has_job: row.get(3)?,
            indexed_for: row.get(4)?,
        })
    })
    .optional()
}

fn judge(known: Option<&Known>, digest: Option<&Digest>, record: &Record) -> Seen {
    let Some(digest) = digest else {
        return Seen::Unknown;
    };
    let Some(known) = known else { return Seen::New };
    if known.is_gone {
        return Seen::New;
    }
    if known.digest != digest.as_str() {
        return Seen::Moved;
    }
    match (record, known.indexed_for.as_deref()) {
        _ if known.has_job => Seen::Open,
        (Record::Only, _) | (Record::AndQueue { .. }, Some("")) => Seen::Unchanged,
        (Record::AndQueue { platforms }, Some(read_for)) if platforms == read_for => {
            Seen::Unchanged
        }
        // Remembered by an earlier run, and now wanted.
        (Record::AndQueue { .. }, _) => Seen::New,
    }
}

/// Writes new and moved tags, with their jobs. Returns the rows of the tags.
fn save(
    db: &Transaction<'_>,
    source: SourceId,
    changes: &[Change],
    record: &Record,
) -> rusqlite::Result<Vec<i64>> {
    let now = Timestamp::now().as_millis();
    let mut repository = db.prepare_cached(
        "INSERT INTO repository (source_id, name, shown) VALUES (?1, ?2, ?3)
         ON CONFLICT (source_id, name) DO UPDATE SET shown = excluded.shown RETURNING id",
    )?;
    let mut tag = db.prepare_cached(
        "INSERT INTO tag (repository_id, name, digest, first_seen, changed_at) VALUES (?1, ?2, ?3, ?4, ?4)
         ON CONFLICT (repository_id, name) DO UPDATE
         SET digest = excluded.digest, changed_at = excluded.changed_at, gone_at = NULL RETURNING id",
    )?;
    // A tag that moved starts anew, whatever happened to the image it pointed to before.
    let mut job = db.prepare_cached(
        "INSERT INTO job (tag_id, state, next_try, created_at) VALUES (?1, 'ready', ?2, ?2)
         ON CONFLICT (tag_id) DO UPDATE
         SET state = 'ready', is_final = 0, attempts = 0, next_try = excluded.next_try, error = NULL, hint = NULL",
    )?;
    let mut ids = Vec::with_capacity(changes.len());
    for change in changes {
        let repository_id: i64 = repository
            .query_row(params![source.0, change.repository, change.shown], |row| {
                row.get(0)
            })?;
        let tag_id: i64 = tag.query_row(
            params![repository_id, change.tag, change.digest, now],
            |row| row.get(0),
        )?;
        if let Record::AndQueue { .. } = record {
            job.execute(params![tag_id, now])?;
        }
        ids.push(tag_id);
    }
    Ok(ids)
}
