//! What is asked about tags and the images behind them.
//!
//! Answers about many tags come in pages, each read at one moment, so that a reader who takes his time never
//! holds up the files of the store.

use rusqlite::{Connection, params};

use super::{Store, digest, moment};
use crate::error::Result;
use crate::image::Digest;
use crate::limit;
use crate::sbom::State;
use crate::time::Timestamp;

/// Tags of one page.
const PAGE: usize = 512;
/// Digests that are told of a prefix that is not unique.
const CHOICES: usize = 10;

/// A tag, or one platform of it.
#[derive(Clone, Debug)]
pub(crate) struct ListedImage {
    /// As users pull it, host included.
    pub(crate) repository: String,
    pub(crate) tag: String,
    pub(crate) digest: Digest,
    /// Of the image itself: the platform's when the tag is an index. `None` while it is not known.
    pub(crate) image_digest: Option<Digest>,
    pub(crate) platform: Option<String>,
    pub(crate) packages: Option<u64>,
    /// Compressed bytes of the layers.
    pub(crate) size: Option<u64>,
    pub(crate) first_seen: Timestamp,
    /// The end of the last listing that had it; when it is gone, of the first that had it no more.
    pub(crate) last_seen: Timestamp,
    pub(crate) gone_at: Option<Timestamp>,
    pub(crate) state: State,
    /// Of the last try, when the image is not indexed.
    pub(crate) error: Option<String>,
    pub(crate) hint: Option<String>,
}

/// An image behind a digest, which is its own or that of an index.
#[derive(Clone, Debug)]
pub(crate) struct Leaf {
    pub(crate) digest: Digest,
    pub(crate) platform: Option<String>,
    pub(crate) state: State,
    packages: Option<u64>,
    size: Option<u64>,
}

/// A repository of any source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RepositoryRow {
    id: i64,
    /// Inside its source.
    pub(crate) name: String,
    /// As users pull it.
    pub(crate) shown: String,
}

/// Walks over the tags of repositories.
pub(crate) struct Pages<'a> {
    store: &'a Store,
    repositories: Vec<RepositoryRow>,
    with_gone: bool,
    /// Index of the repository that comes next, and the last tag of it that was read.
    next: usize,
    after: String,
}

impl Pages<'_> {
    /// The rows of the next tags; empty at the end.
    pub(crate) fn next_page(&mut self) -> Result<Vec<ListedImage>> {
        let mut rows = Vec::new();
        let (mut next, mut after) = (self.next, std::mem::take(&mut self.after));
        self.store.read(|db| {
            let mut n_left = PAGE;
            while let Some(repository) = self.repositories.get(next) {
                let wanted = Wanted::Behind(&after);
                let n_tags = tags(db, repository, &wanted, self.with_gone, n_left, &mut rows)?;
                if n_tags == n_left {
                    after = rows.last().map(|row| row.tag.clone()).unwrap_or_default();
                    break;
                }
                n_left -= n_tags;
                next += 1;
                after.clear();
            }
            Ok(())
        })?;
        (self.next, self.after) = (next, after);
        Ok(rows)
    }
}

impl Store {
    /// Every repository, sorted by the name that users know.
    pub(crate) fn repositories(&self) -> Result<Vec<RepositoryRow>> {
        self.read(|db| {
            let mut query =
                db.prepare_cached("SELECT id, name, shown FROM repository ORDER BY shown, id")?;
            let rows = query.query_map([], |row| {
                Ok(RepositoryRow {
                    id: row.get(0)?,
                    name: row.get(1)?,
                    shown: row.get(2)?,
                })
            })?;
            rows.collect()
        })
    }

    /// The tags of `repositories` in that order, those of each sorted by name. Tags that are gone come only
    /// `with_gone`.
    pub(crate) fn images_of(&self, repositories: Vec<RepositoryRow>, with_gone: bool) -> Pages<'_> {
        Pages {
            store: self,
            repositories,
            with_gone,
            next: 0,
            after: String::new(),
        }
    }

    /// The rows of one tag, even if it is gone, sorted by platform. Empty when there is no such tag.
    pub(crate) fn images_of_tag(
        &self,
        repository: &RepositoryRow,
        tag: &str,
    ) -> Result<Vec<ListedImage>> {
        let mut rows = Vec::new();
        self.read(|db| tags(db, repository, &Wanted::Named(tag), true, 1, &mut rows))?;
        Ok(rows)
    }

    /// The names of up to `n` tags of a repository that are not gone, sorted.
    pub(crate) fn tags_of(&self, repository: &RepositoryRow, n: usize) -> Result<Vec<String>> {
        self.read(|db| {
            let mut query = db.prepare_cached(
                "SELECT name FROM tag WHERE repository_id = ?1 AND gone_at IS NULL ORDER BY name LIMIT ?2",
            )?;
            let names = query.query_map(params![repository.id, n], |row| row.get(0))?;
            names.collect()
        })
    }

    /// The digests that start with `prefix` and stand for a tag, an index, or an image; sorted, cut at
    /// [`CHOICES`].
    pub(crate) fn digests(&self, prefix: &str) -> Result<Vec<Digest>> {
        // Digests end in hexadecimal digits: behind `prefix` comes no letter above `f`.
        let end = format!("{prefix}g");
        self.read(|db| {
            let mut query = db.prepare_cached(
                "SELECT digest FROM manifest WHERE digest >= ?1 AND digest < ?2
                 UNION SELECT digest FROM tag WHERE digest >= ?1 AND digest < ?2
                 UNION SELECT digest FROM index_entry WHERE kind = 'image' AND digest >= ?1 AND digest < ?2
                 ORDER BY digest LIMIT ?3",
            )?;
            let rows = query.query_map(params![prefix, end, CHOICES], |row| digest(row, "digest"))?;
            rows.collect()
        })
    }

    /// The images behind a digest, sorted by platform. Empty when nothing was read of it.
    pub(crate) fn images_behind(&self, digest: &Digest) -> Result<Vec<Leaf>> {
        self.read(|db| leaves(db, digest.as_str()))
    }

    /// The tags that point to an image, by itself or through an index, as `repository:tag`; sorted.
    pub(crate) fn names(&self, image: &Digest) -> Result<Vec<String>> {
        self.read(|db| {
            let mut query = db.prepare_cached(
                "WITH RECURSIVE above (digest) AS (
                     VALUES (?1)
                     UNION SELECT m.digest FROM above JOIN index_entry e ON e.digest = above.digest
                           JOIN manifest m ON m.id = e.index_id)
                 SELECT DISTINCT r.shown || ':' || tag.name AS name
                 FROM above JOIN tag USING (digest) JOIN repository r ON r.id = repository_id
                 WHERE gone_at IS NULL ORDER BY name",
            )?;
            let names = query.query_map([image.as_str()], |row| row.get(0))?;
            names.collect()
        })
    }

    /// The row of a tag that points to the digest, when there is one: its job tells why nothing was read.
    pub(crate) fn tagged(&self, digest: &Digest) -> Result<Option<ListedImage>> {
        let found: Option<(RepositoryRow, String)> = self.read(|db| {
            let mut query = db.prepare_cached(
                "SELECT r.id, r.name, r.shown, tag.name FROM tag JOIN repository r ON r.id = repository_id
                 WHERE tag.digest = ?1 ORDER BY gone_at IS NOT NULL, r.shown, tag.name LIMIT 1",
            )?;
            let mut rows = query.query([digest.as_str()])?;
            let Some(row) = rows.next()? else {
                return Ok(None);
            };
            let repository = RepositoryRow {
                id: row.get(0)?,
                name: row.get(1)?,
                shown: row.get(2)?,
            };
            Ok(Some((repository, row.get(3)?)))
        })?;
        match found {
            Some((repository, tag)) => {
                Ok(self.images_of_tag(&repository, &tag)?.into_iter().next())
            }
            None => Ok(None),
        }
    }
}

/// Which tags of a repository.
enum Wanted<'a> {
    Behind(&'a str),
    Named(&'a str),
}

/// Appends the rows of up to `n` tags. Returns how many tags there were.
fn tags(
    db: &Connection,
    repository: &RepositoryRow,
    wanted: &Wanted<'_>,
    with_gone: bool,
    n: usize,
    rows: &mut Vec<ListedImage>,
) -> rusqlite::Result<usize> {
    let (condition, text) = match wanted {
        Wanted::Behind(tag) => ("tag.name > ?2", tag),
        Wanted::Named(tag) => ("tag.name = ?2", tag),
    };
    let mut query = db.prepare_cached(&format!(
        "SELECT tag.name AS tag, tag.digest AS digest, first_seen, gone_at,
                coalesce(gone_at, max(changed_at, coalesce(s.listed_at, 0))) AS last_seen,
                m.kind IS NOT NULL AS is_read,
                job.state AS job_state, job.attempts AS attempts, job.error AS error, job.hint AS hint
         FROM tag JOIN source s ON s.id = (SELECT source_id FROM repository WHERE id = ?1)
         LEFT JOIN manifest m ON m.digest = tag.digest
         LEFT JOIN job ON job.tag_id = tag.id
         WHERE repository_id = ?1 AND {condition} AND (gone_at IS NULL OR ?3)
         ORDER BY tag.name LIMIT ?4"
    ))?;
    let mut found = query.query(params![repository.id, text, with_gone, n])?;
    let mut n_tags = 0;
    while let Some(row) = found.next()? {
        n_tags += 1;
        let job_state: Option<String> = row.get("job_state")?;
        let is_retried = row.get::<_, Option<u32>>("attempts")?.unwrap_or(0) > 0;
        // What is so of everything that is not indexed.
        let otherwise = match job_state.as_deref() {
            Some("failed") => State::Failed,
            Some(_) if is_retried => State::Retrying,
            Some(_) => State::Pending,
            None => State::Recorded,
        };
        let tag = ListedImage {
            repository: repository.shown.clone(),
            tag: row.get("tag")?,
            digest: digest(row, "digest")?,
            image_digest: None,
            platform: None,
            packages: None,
            size: None,
            first_seen: moment(row, "first_seen")?.unwrap_or(Timestamp::from_millis(0)),
            last_seen: moment(row, "last_seen")?.unwrap_or(Timestamp::from_millis(0)),
            gone_at: moment(row, "gone_at")?,
            state: otherwise,
            error: row.get("error")?,
            hint: row.get("hint")?,
        };
        if !row.get::<_, bool>("is_read")? {
            rows.push(tag);
            continue;
        }
        let leaves = leaves(db, tag.digest.as_str())?;
        if leaves.is_empty() {
            // An index without images.
            rows.push(ListedImage {
                state: State::Artifact,
                ..tag
            });
            continue;
        }
        rows.extend(leaves.into_iter().map(|leaf| {
            let is_open = leaf.state == State::Skipped && otherwise != State::Recorded;
            let is_indexed = leaf.state.is_indexed();
            ListedImage {
                image_digest: (leaf.state != State::Artifact).then_some(leaf.digest),
                platform: leaf.platform,
                packages: leaf.packages,
                size: leaf.size,
                state: if is_open { otherwise } else { leaf.state },
                error: tag.error.clone().filter(|_| !is_indexed),
                hint: tag.hint.clone().filter(|_| !is_indexed),
                ..tag.clone()
            }
        }));
    }
    Ok(n_tags)
}

/// The images behind a digest, sorted by platform and digest, each once. Those that nobody read are
/// [`State::Skipped`].
fn leaves(db: &Connection, digest: &str) -> rusqlite::Result<Vec<Leaf>> {
    let mut leaves = Vec::new();
    collect(db, digest, None, 0, &mut leaves)?;
    leaves.sort_by(|a, b| (&a.platform, &a.digest).cmp(&(&b.platform, &b.digest)));
    leaves.dedup_by(|a, b| a.digest == b.digest);
    Ok(leaves)
}

fn collect(
    db: &Connection,
    digest: &str,
    platform: Option<String>,
    depth: usize,
    leaves: &mut Vec<Leaf>,
) -> rusqlite::Result<()> {
    let mut query = db.prepare_cached(
        "SELECT id, digest, kind, platform, n_packages, size, n_refused + n_problems AS gaps,
                indexed_at IS NOT NULL AS is_indexed
         FROM manifest WHERE digest = ?1",
    )?;
    let mut found = query.query([digest])?;
    let row = found.next()?;
    let kind: Option<String> = row.map(|row| row.get("kind")).transpose()?;
    match (row, kind.as_deref()) {
        (Some(row), Some("index")) if depth <= limit::INDEX_DEPTH => {
            let mut query = db.prepare_cached(
                "SELECT digest, platform FROM index_entry WHERE index_id = ?1 AND kind = 'image' ORDER BY position",
            )?;
            let entries = query.query_map([row.get::<_, i64>("id")?], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, Option<String>>(1)?))
            })?;
            for entry in entries {
                let (digest, platform) = entry?;
                collect(db, &digest, platform, depth + 1, leaves)?;
            }
        }
        (Some(row), Some("image")) => {
            let is_indexed: bool = row.get("is_indexed")?;
            let has_gaps = row.get::<_, u64>("gaps")? > 0;
            leaves.push(Leaf {
                digest: super::digest(row, "digest")?,
                platform: row.get::<_, Option<String>>("platform")?.or(platform),
                state: match (is_indexed, has_gaps) {
                    (true, false) => State::Indexed,
                    (true, true) => State::Partial,
                    (false, _) => State::Skipped,
                },
                packages: Some(row.get("n_packages")?).filter(|_| is_indexed),
                size: Some(row.get("size")?).filter(|_| is_indexed),
            });
        }
        (row, kind) => leaves.push(Leaf {
            digest: match row {
                Some(row) => super::digest(row, "digest")?,
                None => super::parsed(digest.to_owned())?,
            },
            platform,
            state: if kind == Some("artifact") {
                State::Artifact
            } else {
                State::Skipped
            },
            packages: None,
            size: None,
        }),
    }
    Ok(())
}
