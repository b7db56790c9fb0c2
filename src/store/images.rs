//! Images, indexes and artifacts, as they are read.

use rusqlite::{Connection, OptionalExtension, params};

use super::layers::{ContentId, LayerId};
use super::{Store, Wish, joined, vanished};
use crate::error::Result;
use crate::image::manifest::Entry;
use crate::image::{Config, Descriptor, Digest, Platform};
use crate::sbom::Distro;
use crate::time::Timestamp;

/// Everything to store of one image, once its layers are accounted for.
pub(crate) struct IndexedImage<'a> {
    pub(crate) digest: &'a Digest,
    pub(crate) media_type: &'a str,
    pub(crate) config_digest: &'a Digest,
    pub(crate) config: &'a Config,
    /// Bottom first, as they were when the image was put together.
    pub(crate) layers: &'a [(LayerId, Digest)],
    /// Compressed bytes of the layers.
    pub(crate) size: u64,
    pub(crate) distro: Option<&'a Distro>,
    /// Layer position and path of evidence that does not count.
    pub(crate) masks: &'a [(usize, String)],
}

/// What an image came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ImageTotals {
    pub(crate) packages: u64,
    pub(crate) problems: u64,
    pub(crate) refused_layers: u64,
}

/// Whether everything behind manifest `m` was read, but for layers over a limit that is not lower than `?2`.
pub(super) const IS_READ: &str = "m.indexed_at IS NOT NULL AND NOT (
    (m.n_refused > 0 OR m.kind = 'index') AND EXISTS (
        SELECT 1 FROM image_layer il JOIN layer l ON l.id = il.layer_id
        WHERE l.refused_limit < ?2 AND il.manifest_id IN (
            SELECT m.id UNION ALL
            SELECT c.id FROM index_entry e JOIN manifest c ON c.digest = e.digest WHERE e.index_id = m.id)))";

impl Store {
    /// Whether everything behind the digest was read as `wish` says.
    pub(crate) fn is_indexed(&self, digest: &Digest, wish: &Wish) -> Result<bool> {
        self.read(|db| {
            db.prepare_cached(&format!(
                "SELECT 1 FROM manifest m WHERE digest = ?1 AND {IS_READ} AND platforms IN ('', ?3)"
            ))?
            .exists(params![
                digest.as_str(),
                wish.max_layer_bytes,
                wish.platforms
            ])
        })
    }

    /// Stores an index whose wanted images are all stored. `platforms` is the user's choice, `""` for all.
    /// Errors: `Retry` when a wanted image is not stored any more; else as every write.
    pub(crate) fn save_index(
        &self,
        digest: &Digest,
        media_type: &str,
        entries: &[(Descriptor, Entry)],
        is_wanted: &dyn Fn(&Descriptor) -> bool,
        platforms: &str,
    ) -> Result<()> {
        self.write_unless(|db| {
            // One that was stored before may have been named by nothing until now.
            let mut find = db.prepare_cached("SELECT 1 FROM manifest WHERE digest = ?1")?;
            for (descriptor, kind) in entries {
                let name = descriptor.digest.as_str();
                if *kind == Entry::Image && is_wanted(descriptor) && !find.exists([name])? {
                    return Ok(Err(vanished("image", name)));
                }
            }
            let index_id = manifest_row(db, digest, "index", media_type)?;
            db.execute(
                "UPDATE manifest SET platforms = ?2, indexed_at = ?3 WHERE id = ?1",
                params![index_id, platforms, Timestamp::now().as_millis()],
            )?;
            let mut entry = db
                .prepare_cached("INSERT OR REPLACE INTO index_entry VALUES (?1, ?2, ?3, ?4, ?5)")?;
            for (position, (descriptor, kind)) in entries.iter().enumerate() {
                let kind = match kind {
                    Entry::Image => "image",
                    Entry::Attestation => "attestation",
                    Entry::Other => "other",
                };
                let platform = descriptor.platform.as_ref().map(Platform::to_string);
                entry.execute(params![
                    index_id,
                    position,
                    descriptor.digest.as_str(),
                    kind,
                    platform
                ])?;
            }
            Ok(Ok(()))
        })
    }

    /// Stores something that is no image: a chart, a signature, an attestation.
    pub(crate) fn save_artifact(
        &self,
        digest: &Digest,
        media_type: &str,
        artifact_type: &str,
    ) -> Result<()> {
        self.write(|db| {
            let id = manifest_row(db, digest, "artifact", media_type)?;
            db.execute(
                "UPDATE manifest SET artifact_type = ?2, indexed_at = ?3 WHERE id = ?1",
                params![id, artifact_type, Timestamp::now().as_millis()],
            )
        })?;
        Ok(())
    }

    /// Stores an image whose layers and evidence are stored, and counts its packages.
    /// Errors: `Retry` when a layer is not stored any more; else as every write.
    pub(crate) fn save_image(&self, image: &IndexedImage<'_>) -> Result<ImageTotals> {
        let distro = image
            .distro
            .map_or_else(|| "unknown".to_owned(), Distro::to_string);
        let distro_facts = image.distro.map(|distro| {
            serde_json::json!({
                "id": distro.id, "id_like": distro.id_like, "version_id": distro.version_id,
                "codename": distro.codename, "pretty_name": distro.pretty_name, "cpe": distro.cpe,
            })
            .to_string()
        });
        self.write_unless(|db| {
            let id = manifest_row(db, image.digest, "image", image.media_type)?;
            db.prepare_cached(
                "UPDATE manifest SET config_digest = ?2, platform = ?3, created = ?4, user = ?5, env_names = ?6,
                        label_names = ?7, size = ?8, distro = ?9, distro_facts = ?10 WHERE id = ?1",
            )?
            .execute(params![
                id,
                image.config_digest.as_str(),
                image.config.platform.to_string(),
                image.config.created,
                image.config.user,
                joined(&image.config.env_names),
                joined(&image.config.label_names),
                image.size,
                distro,
                distro_facts
            ])?;
            for table in ["image_layer", "image_mask"] {
                db.prepare_cached(&format!("DELETE FROM {table} WHERE manifest_id = ?1"))?.execute([id])?;
            }
            let mut layer = db.prepare_cached(
                "INSERT INTO image_layer SELECT ?1, ?2, id FROM layer WHERE id = ?3",
            )?;
            for (position, (layer_id, digest)) in image.layers.iter().enumerate() {
                if layer.execute(params![id, position, layer_id.0])? == 0 {
                    return Ok(Err(vanished("layer", digest.as_str())));
                }
            }
            let mut mask = db.prepare_cached("INSERT OR IGNORE INTO image_mask VALUES (?1, ?2, ?3)")?;
            for (position, path) in image.masks {
                mask.execute(params![id, position, path])?;
            }
            let totals = totals(db, id)?;
            db.prepare_cached(
                "UPDATE manifest SET n_packages = ?2, n_problems = ?3, n_refused = ?4, indexed_at = ?5 WHERE id = ?1",
            )?
            .execute(params![
                id,
                totals.packages,
                totals.problems,
                totals.refused_layers,
                Timestamp::now().as_millis()
            ])?;
            Ok(Ok(totals))
        })
    }

    /// How many images of current tags have gaps: layers not read, files not understood.
    pub(crate) fn partial_images(&self) -> Result<u64> {
        self.read(|db| {
            db.query_row(
                "WITH RECURSIVE reached (digest) AS (
                     SELECT digest FROM tag WHERE gone_at IS NULL
                     UNION SELECT e.digest FROM reached JOIN manifest m USING (digest)
                           JOIN index_entry e ON e.index_id = m.id AND e.kind = 'image')
                 SELECT count(*) FROM reached JOIN manifest USING (digest) WHERE n_problems + n_refused > 0",
                [],
                |row| row.get(0),
            )
        })
    }

    /// Raw bytes of evidence, compressed as stored. Errors: `Retry` when they are not stored any more.
    pub(crate) fn content(&self, content: ContentId) -> Result<Vec<u8>> {
        let raw = self.read(|db| {
            db.prepare_cached("SELECT raw FROM content WHERE id = ?1")?
                .query_row([content.0], |row| row.get(0))
                .optional()
        })?;
        raw.ok_or_else(|| vanished("evidence", &content.to_string()))
    }
}

fn manifest_row(
    db: &Connection,
    digest: &Digest,
    kind: &str,
    media_type: &str,
) -> rusqlite::Result<i64> {
    db.prepare_cached(
        "INSERT INTO manifest (digest, kind, media_type) VALUES (?1, ?2, ?3)
         ON CONFLICT (digest) DO UPDATE SET kind = excluded.kind, media_type = excluded.media_type RETURNING id",
    )?
    .query_row(params![digest.as_str(), kind, media_type], |row| row.get(0))
}

/// The evidence that counts in image `?1`, as a common start of the queries below.
pub(super) const LIVE: &str = "
    FROM image_layer il
    JOIN layer_evidence le ON le.layer_id = il.layer_id
    JOIN manifest m ON m.id = il.manifest_id
    JOIN evidence e ON e.content_id = le.content_id AND e.ecosystem = le.ecosystem AND e.distro IN ('', m.distro)
    WHERE il.manifest_id = ?1 AND NOT EXISTS (
        SELECT 1 FROM image_mask k WHERE k.manifest_id = ?1 AND k.position = il.position AND k.path = le.path)";

fn totals(db: &Connection, id: i64) -> rusqlite::Result<ImageTotals> {
    let packages = db
        .prepare_cached(&format!(
            "SELECT count(DISTINCT purl) FROM (SELECT DISTINCT e.id AS evidence_id {LIVE})
             JOIN evidence_package USING (evidence_id) JOIN package ON package.id = package_id"
        ))?
        .query_row([id], |row| row.get(0))?;
    let unread = db
        .prepare_cached(&format!(
            "SELECT count(*) FROM (SELECT 1 {LIVE} AND e.problems <> '')"
        ))?
        .query_row([id], |row| row.get::<_, u64>(0))?;
    let (in_layers, refused_layers): (u64, u64) = db
        .prepare_cached(
            "SELECT coalesce(sum(problems_unlisted
                        + (SELECT count(*) FROM layer_problem p WHERE p.layer_id = layer.id)), 0),
                    count(refused)
             FROM image_layer JOIN layer ON layer.id = layer_id WHERE manifest_id = ?1",
        )?
        .query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(ImageTotals {
        packages,
        problems: unread + in_layers,
        refused_layers,
    })
}
