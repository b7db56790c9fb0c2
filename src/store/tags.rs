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

/// A tag to be written.
pub(super) struct Change {
    pub(super) repository: String,
    pub(super) shown: String,
    pub(super) tag: String,
    pub(super) digest: String,
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
        let seen = self.look_up(source, repository, tag, digest, record)?;
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

/// A tag's row and what became of it.
pub(super) struct Known {
    pub(super) id: i64,
    digest: String,
    is_gone: bool,
    has_job: bool,
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
                CASE WHEN {IS_READ} THEN platforms END
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
        if *record != Record::Only {
            job.execute(params![tag_id, now])?;
        }
        ids.push(tag_id);
    }
    Ok(ids)
}
