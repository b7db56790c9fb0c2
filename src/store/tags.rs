//! Sources, their repositories and tags: what a listing found, compared with what was known.
//!
//! A pass over an unchanged registry reads and does not write: the tags it saw are bits in memory.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::images::IS_READ;
use super::{Store, Wish, moment};
use crate::error::Result;
use crate::image::{Digest, Repository, Tag};
use crate::time::Timestamp;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SourceId(pub(super) i64);

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

/// What becomes of tags that are not indexed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// All are queued, unless they were read as wished.
    All(Wish),
    /// New and moved ones are queued; what was only remembered stays so.
    Changes(Wish),
    /// They are only remembered.
    Only,
}

impl Record {
    /// For the log.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Record::All(_) => "all",
            Record::Changes(_) => "changes",
            Record::Only => "only",
        }
    }
}

/// Which of two queues a job waits in: the first is always empty before the second is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    /// Just pushed.
    Pushed,
    /// There already.
    Backfill,
}

impl Lane {
    pub(super) fn number(self) -> u8 {
        match self {
            Lane::Pushed => 0,
            Lane::Backfill => 1,
        }
    }
}

/// Who told of a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// The first listing ever of its source.
    FirstListing,
    Listing,
    /// A webhook: somebody has just pushed it.
    Event,
}

impl Told {
    /// The lane of the tag's image: what was there before the first listing, or was only remembered, can wait.
    pub(super) fn lane(self, known: Option<&Known>, digest: &Digest) -> Lane {
        let is_remembered = known.is_some_and(|known| known.digest == digest.as_str());
        match self {
            Told::Event => Lane::Pushed,
            Told::Listing if !is_remembered => Lane::Pushed,
            Told::Listing | Told::FirstListing => Lane::Backfill,
        }
    }
}

/// SQL for the largest `change_no` that any tag has or had.
pub(super) const LAST_CHANGE: &str = "(SELECT max(coalesce((SELECT max(change_no) FROM tag), 0),
                     (SELECT id FROM last_id WHERE kind = 'change')))";

/// A tag to be written.
pub(super) struct Change {
    pub(super) repository: String,
    pub(super) shown: String,
    pub(super) tag: String,
    pub(super) digest: String,
    /// Whether the tag has a row, so that what it pointed to is history now.
    pub(super) is_known: bool,
    pub(super) lane: Lane,
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

    /// The row of the source of that name, if there is one.
    pub(crate) fn known_source(&self, name: &str) -> Result<Option<SourceId>> {
        self.read(|db| {
            db.query_row("SELECT id FROM source WHERE name = ?1", [name], |row| {
                row.get(0).map(SourceId)
            })
            .optional()
        })
    }

    /// What the store knows of a tag, for a pass that records so. Writes nothing.
    pub(crate) fn look_up(
        &self,
        source: SourceId,
        repository: &Repository,
        tag: &Tag,
        digest: &Digest,
        record: &Record,
    ) -> Result<Seen> {
        let known = self.read(|db| match repository_id(db, source, repository.as_str())? {
            Some(id) => known_tag(db, id, tag.as_str(), record),
            None => Ok(None),
        })?;
        Ok(judge(known.as_ref(), Some(digest), record))
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

    /// Whether the source has ever been listed, be it in part.
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

    /// Notes the digest that a tag was found to have, outside of a listing. Returns what it was before.
    /// After an event, an image that waits is moved to the front, and one that failed is tried again.
    pub(crate) fn see_tag(
        &self,
        source: SourceId,
        found: &Found<'_>,
        record: &Record,
        told: Told,
    ) -> Result<Seen> {
        let known =
            self.read(
                |db| match repository_id(db, source, found.repository.as_str())? {
                    Some(id) => known_tag(db, id, found.tag.as_str(), record),
                    None => Ok(None),
                },
            )?;
        let seen = judge(known.as_ref(), Some(found.digest), record);
        match seen {
            Seen::New | Seen::Moved => {
                let change = Change {
                    repository: found.repository.to_string(),
                    shown: found.shown.to_owned(),
                    tag: found.tag.to_string(),
                    digest: found.digest.to_string(),
                    is_known: known.is_some(),
                    lane: told.lane(known.as_ref(), found.digest),
                };
                self.write(|db| save(db, source, &[change], record))?;
            }
            Seen::Open if told == Told::Event => {
                let id = known.map_or(0, |known| known.id);
                self.write(|db| {
                    db.execute(
                        "UPDATE job SET lane = 0, state = CASE WHEN is_final THEN state ELSE 'ready' END,
                                attempts = CASE WHEN state = 'failed' THEN 0 ELSE attempts END, next_try = 0
                         WHERE tag_id = ?1 AND lease_owner IS NULL",
                        [id],
                    )
                })?;
            }
            Seen::Open | Seen::Unchanged | Seen::Unknown => {}
        }
        Ok(seen)
    }

    /// Notes that a tag is not there any more. Returns whether it was known and there.
    pub(crate) fn tag_is_gone(
        &self,
        source: SourceId,
        repository: &Repository,
        tag: &Tag,
    ) -> Result<bool> {
        let now = Timestamp::now().as_millis();
        self.write(|db| {
            let Some(repository_id) = repository_id(db, source, repository.as_str())? else {
                return Ok(false);
            };
            let gone: Option<i64> = db
                .prepare_cached(&format!(
                    "UPDATE tag SET gone_at = ?3, change_no = {LAST_CHANGE} + 1
                     WHERE repository_id = ?1 AND name = ?2 AND gone_at IS NULL RETURNING id"
                ))?
                .query_row(params![repository_id, tag.as_str(), now], |row| row.get(0))
                .optional()?;
            if let Some(id) = gone {
                db.execute("DELETE FROM job WHERE tag_id = ?1", [id])?;
            }
            Ok(gone.is_some())
        })
    }
}

/// A tag and the digest that it was found to have.
pub(crate) struct Found<'a> {
    pub(crate) repository: &'a Repository,
    /// The repository as users name it.
    pub(crate) shown: &'a str,
    pub(crate) tag: &'a Tag,
    pub(crate) digest: &'a Digest,
}

/// A tag's row and what became of it.
pub(super) struct Known {
    pub(super) id: i64,
    pub(super) digest: String,
    is_gone: bool,
    has_job: bool,
    pub(super) change_no: i64,
    /// The platforms for which everything behind the digest was read; `None` when it was not.
    indexed_for: Option<String>,
}

pub(super) fn repository_id(
    db: &Connection,
    source: SourceId,
    name: &str,
) -> rusqlite::Result<Option<i64>> {
    db.prepare_cached("SELECT id FROM repository WHERE source_id = ?1 AND name = ?2")?
        .query_row(params![source.0, name], |row| row.get(0))
        .optional()
}

pub(super) fn known_tag(
    db: &Connection,
    repository_id: i64,
    tag: &str,
    record: &Record,
) -> rusqlite::Result<Option<Known>> {
    let max_layer_bytes = match record {
        Record::All(wish) | Record::Changes(wish) => wish.max_layer_bytes,
        Record::Only => 0,
    };
    db.prepare_cached(&format!(
        "SELECT tag.id, tag.digest, gone_at IS NOT NULL, job.id IS NOT NULL,
                CASE WHEN {IS_READ} THEN platforms END, change_no
         FROM tag LEFT JOIN job ON job.tag_id = tag.id LEFT JOIN manifest m ON m.digest = tag.digest
         WHERE repository_id = ?1 AND tag.name = ?3"
    ))?
    .query_row(params![repository_id, max_layer_bytes, tag], |row| {
        Ok(Known {
            id: row.get(0)?,
            digest: row.get(1)?,
            is_gone: row.get(2)?,
            has_job: row.get(3)?,
            indexed_for: row.get(4)?,
            change_no: row.get(5)?,
        })
    })
    .optional()
}

pub(super) fn judge(known: Option<&Known>, digest: Option<&Digest>, record: &Record) -> Seen {
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
        (Record::Only | Record::Changes(_), _) | (Record::All(_), Some("")) => Seen::Unchanged,
        (Record::All(wish), Some(read_for)) if wish.platforms == read_for => Seen::Unchanged,
        // Remembered by an earlier run, and now wanted.
        (Record::All(_), _) => Seen::New,
    }
}

/// Writes new and moved tags, with their jobs. Returns the rows of the tags.
pub(super) fn save(
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
    let change_no: i64 = db
        .prepare_cached(&format!("SELECT {LAST_CHANGE} + 1"))?
        .query_row([], |row| row.get(0))?;
    let mut history = db.prepare_cached(
        "INSERT OR IGNORE INTO tag_history SELECT id, digest, changed_at, coalesce(gone_at, ?4) FROM tag
         WHERE repository_id = ?1 AND name = ?2 AND digest <> ?3",
    )?;
    let mut tag = db.prepare_cached(
        "INSERT INTO tag (repository_id, name, digest, first_seen, changed_at, change_no)
         VALUES (?1, ?2, ?3, ?4, ?4, ?5)
         ON CONFLICT (repository_id, name) DO UPDATE SET digest = excluded.digest,
             changed_at = excluded.changed_at, change_no = excluded.change_no, gone_at = NULL RETURNING id",
    )?;
    // A tag that moved starts anew, whatever happened to the image it pointed to before.
    let mut job = db.prepare_cached(
        "INSERT INTO job (tag_id, state, next_try, created_at, lane) VALUES (?1, 'ready', 0, ?2, ?3)
         ON CONFLICT (tag_id) DO UPDATE SET state = 'ready', is_final = 0, attempts = 0, starts = 0,
             next_try = 0, error = NULL, hint = NULL, lane = min(lane, excluded.lane)",
    )?;
    let mut ids = Vec::with_capacity(changes.len());
    for change in changes {
        let repository_id: i64 = repository
            .query_row(params![source.0, change.repository, change.shown], |row| {
                row.get(0)
            })?;
        if change.is_known {
            history.execute(params![repository_id, change.tag, change.digest, now])?;
        }
        let tag_id: i64 = tag.query_row(
            params![repository_id, change.tag, change.digest, now, change_no],
            |row| row.get(0),
        )?;
        if *record != Record::Only {
            job.execute(params![tag_id, now, change.lane.number()])?;
        }
        ids.push(tag_id);
    }
    Ok(ids)
}
