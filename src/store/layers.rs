//! Layers: what was read of each, once.

use std::fmt;
use std::io::Read;

use rusqlite::{Connection, OptionalExtension, params};

use super::{Store, Wish, joined, new_id, split, vanished};
use crate::error::Result;
use crate::image::Digest;
use crate::sbom::{LayerFacts, PathSet};
use crate::time::Timestamp;

/// Bytes of an unpacked list of paths: the limit of whiteouts, and their line breaks.
const LIST_BYTES: u64 = 2 * crate::limit::WHITEOUT_BYTES as u64;

/// A layer of an image as stored.
#[derive(Clone, Debug)]
pub(crate) struct StoredLayer {
    pub(crate) id: LayerId,
    pub(crate) digest: Digest,
    /// Of the tar; `None` when it was not read.
    pub(crate) diff_id: Option<Digest>,
    pub(crate) whiteouts: Vec<String>,
    pub(crate) opaques: Vec<String>,
    pub(crate) paths: PathSet,
    pub(crate) evidence: Vec<StoredEvidence>,
}

/// An evidence file of a layer, without its bytes.
#[derive(Clone, Debug)]
pub(crate) struct StoredEvidence {
    pub(crate) path: String,
    pub(crate) ecosystem: String,
    pub(crate) content: ContentId,
}

/// Never given twice, also when the layer was pruned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LayerId(pub(super) i64);

/// Never given twice, also when the content was pruned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ContentId(pub(super) i64);

impl fmt::Display for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Store {
    /// Whether the layer is accounted for: read by all ecosystems, or found to be over the limit that still holds.
    /// What `source` sent for a digest that it did not finish says nothing about other sources.
    pub(crate) fn has_layer(&self, digest: &Digest, source: &str, wish: &Wish) -> Result<bool> {
        self.read(|db| {
            db.prepare_cached(
                "SELECT 1 FROM layer WHERE digest = ?1 AND ecosystems = ?2
                 AND (refused IS NULL OR (refused_limit >= ?3 AND refused_source = ?4))",
            )?
            .exists(params![
                digest.as_str(),
                wish.ecosystems,
                wish.max_layer_bytes,
                source
            ])
        })
    }

    /// Stores what a pass over a layer learnt, replacing what an older version learnt.
    pub(crate) fn save_layer(&self, facts: &LayerFacts, wish: &Wish) -> Result<()> {
        let (whiteouts, opaques) = (packed(&facts.whiteouts), packed(&facts.opaques));
        self.write(|db| {
            let layer_id = layer_row(db, &facts.digest, facts.size, &wish.ecosystems)?;
            db.prepare_cached(
                "UPDATE layer SET diff_id = ?2, tar_size = ?3, n_entries = ?4, refused = NULL, whiteouts = ?5,
                        opaques = ?6, paths = ?7, problems_unlisted = ?8 WHERE id = ?1",
            )?
            .execute(params![
                layer_id,
                facts.diff_id.as_str(),
                facts.tar_size,
                facts.n_entries,
                whiteouts,
                opaques,
                facts.paths.as_bytes(),
                facts.problems_unlisted
            ])?;
            let mut content = db.prepare_cached(&format!(
                "INSERT INTO content (id, digest, raw) VALUES ({}, ?1, ?2) ON CONFLICT DO NOTHING",
                new_id("content")
            ))?;
            let mut evidence = db.prepare_cached(
                "INSERT INTO layer_evidence (layer_id, path, ecosystem, content_id)
                 VALUES (?1, ?2, ?3, (SELECT id FROM content WHERE digest = ?4))",
            )?;
            for file in &facts.evidence {
                content.execute(params![file.digest.as_str(), file.compressed])?;
                evidence.execute(params![layer_id, file.path, file.ecosystem, file.digest.as_str()])?;
            }
            let mut problem = db.prepare_cached("INSERT OR IGNORE INTO layer_problem VALUES (?1, ?2, ?3, ?4)")?;
            for found in &facts.problems {
                problem.execute(params![layer_id, found.subject, found.path, found.message])?;
            }
            Ok(())
        })
    }

    /// Stores that a layer is not read, and why.
    pub(crate) fn refuse_layer(
        &self,
        digest: &Digest,
        size: u64,
        reason: &str,
        source: &str,
        wish: &Wish,
    ) -> Result<()> {
        self.write(|db| {
            let layer_id = layer_row(db, digest, size, &wish.ecosystems)?;
            db.execute(
                "UPDATE layer SET refused = ?2, refused_limit = ?3, refused_source = ?4 WHERE id = ?1",
                params![layer_id, reason, wish.max_layer_bytes, source],
            )
        })?;
        Ok(())
    }

    /// What is stored of a layer. Errors: `Retry` when nothing is.
    pub(crate) fn layer(&self, digest: &Digest) -> Result<StoredLayer> {
        let found = self.read(|db| stored_layer(db, digest))?;
        found.ok_or_else(|| vanished("layer", digest.as_str()))
    }
}

/// The row of a layer, emptied of what was known.
fn layer_row(
    db: &Connection,
    digest: &Digest,
    size: u64,
    ecosystems: &str,
) -> rusqlite::Result<i64> {
    let layer_id: i64 = db
        .prepare_cached(&format!(
            "INSERT INTO layer (id, digest, size, ecosystems, read_at) VALUES ({}, ?1, ?2, ?3, ?4)
             ON CONFLICT (digest) DO UPDATE SET ecosystems = excluded.ecosystems, read_at = excluded.read_at,
                 diff_id = NULL, tar_size = 0, n_entries = 0, refused = NULL, refused_limit = NULL,
                 refused_source = NULL, whiteouts = NULL, opaques = NULL, paths = NULL, problems_unlisted = 0
             RETURNING id",
            new_id("layer")
        ))?
        .query_row(params![digest.as_str(), size, ecosystems, Timestamp::now().as_millis()], |row| row.get(0))?;
    db.prepare_cached("DELETE FROM layer_evidence WHERE layer_id = ?1")?
        .execute([layer_id])?;
    db.prepare_cached("DELETE FROM layer_problem WHERE layer_id = ?1")?
        .execute([layer_id])?;
    Ok(layer_id)
}

fn stored_layer(db: &Connection, digest: &Digest) -> rusqlite::Result<Option<StoredLayer>> {
    let found = db
        .prepare_cached(
            "SELECT id, diff_id, whiteouts, opaques, paths FROM layer WHERE digest = ?1",
        )?
        .query_row([digest.as_str()], |row| {
            let diff_id: Option<String> = row.get(1)?;
            Ok((
                row.get::<_, i64>(0)?,
                StoredLayer {
                    id: LayerId(row.get(0)?),
                    digest: digest.clone(),
                    diff_id: diff_id.and_then(|diff_id| diff_id.parse().ok()),
                    whiteouts: unpacked(row.get(2)?),
                    opaques: unpacked(row.get(3)?),
                    paths: PathSet::from_bytes(
                        row.get::<_, Option<Vec<u8>>>(4)?.unwrap_or_default(),
                    ),
                    evidence: Vec::new(),
                },
            ))
        })
        .optional()?;
    let Some((layer_id, mut layer)) = found else {
        return Ok(None);
    };
    let mut query = db.prepare_cached(
        "SELECT path, ecosystem, content_id FROM layer_evidence WHERE layer_id = ?1 ORDER BY path, ecosystem",
    )?;
    let evidence = query.query_map([layer_id], |row| {
        Ok(StoredEvidence {
            path: row.get(0)?,
            ecosystem: row.get(1)?,
            content: ContentId(row.get(2)?),
        })
    })?;
    layer.evidence = evidence.collect::<rusqlite::Result<_>>()?;
    Ok(Some(layer))
}

/// Paths as compressed lines; they were cut at line breaks by nobody, so those are escaped.
fn packed(paths: &[String]) -> Option<Vec<u8>> {
    if paths.is_empty() {
        return None;
    }
    let escaped: Vec<String> = paths
        .iter()
        .map(|path| {
            path.replace('\\', "\\\\")
                .replace('\n', "\\n")
                .replace('\r', "\\r")
        })
        .collect();
    zstd::bulk::compress(joined(&escaped).as_bytes(), 3).ok()
}

fn unpacked(bytes: Option<Vec<u8>>) -> Vec<String> {
    let Some(bytes) = bytes else {
        return Vec::new();
    };
    let mut text = String::new();
    let decoder = zstd::Decoder::new(&bytes[..]).ok();
    let _ = decoder.map(|decoder| decoder.take(LIST_BYTES).read_to_string(&mut text));
    // `lines` gives nothing for the one empty path, an opaque root.
    let lines = if text.is_empty() {
        vec![String::new()]
    } else {
        split(&text)
    };
    lines.iter().map(|line| unescaped(line)).collect()
}

fn unescaped(line: &str) -> String {
    if !line.contains('\\') {
        return line.to_owned();
    }
    let mut text = String::with_capacity(line.len());
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => text.push('\n'),
                Some('r') => text.push('\r'),
                other => text.extend(other),
            },
            c => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_paths_survive_storage() {
        for paths in [
            vec![],
            vec![""],
            vec!["", "a"],
            vec!["a\nb", "a\\nb", "c\r", "d e"],
        ] {
            let paths: Vec<String> = paths.iter().map(|&path| path.to_owned()).collect();
            assert_eq!(unpacked(packed(&paths)), paths);
        }
    }
}
