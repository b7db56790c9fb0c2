//! Images, indexes and artifacts, and what the commands ask about them.

use rusqlite::{Connection, OptionalExtension, params};

use super::layers::ContentId;
use super::tags::TagId;
use super::{Store, joined, moment};
use crate::error::Result;
use crate::image::manifest::Entry;
use crate::image::{Config, Descriptor, Digest, Platform};
use crate::sbom::{Coverage, Distro, Package, Problem, Source};
use crate::time::Timestamp;

/// Everything to store of one image, once its layers are accounted for.
pub(crate) struct IndexedImage<'a> {
    pub(crate) digest: &'a Digest,
    pub(crate) media_type: &'a str,
    pub(crate) config_digest: &'a Digest,
    pub(crate) config: &'a Config,
    /// Bottom first.
    pub(crate) layers: &'a [Digest],
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

/// A tag, or one platform of it, as `crowsnest images` lists it.
#[derive(Clone, Debug)]
pub(crate) struct ImageRow {
    pub(crate) repository: String,
    pub(crate) tag: String,
    pub(crate) digest: String,
    /// Of the platform's own manifest, when the tag is an index.
    pub(crate) image_digest: Option<String>,
    pub(crate) platform: Option<String>,
    pub(crate) packages: Option<u64>,
    pub(crate) size: Option<u64>,
    pub(crate) first_seen: Timestamp,
    pub(crate) last_seen: Option<Timestamp>,
    pub(crate) gone_at: Option<Timestamp>,
    pub(crate) state: &'static str,
    pub(crate) error: Option<String>,
}

/// One image with everything known of it.
#[derive(Clone, Debug)]
pub(crate) struct ImageDetail {
    pub(crate) digest: String,
    pub(crate) platform: String,
    pub(crate) distro: Option<String>,
    pub(crate) size: u64,
    pub(crate) layers: Vec<LayerRow>,
    pub(crate) packages: Vec<PackageRow>,
    pub(crate) coverage: Coverage,
}

/// A layer of an image.
#[derive(Clone, Debug)]
pub(crate) struct LayerRow {
    pub(crate) digest: String,
    pub(crate) diff_id: Option<String>,
    pub(crate) size: u64,
    pub(crate) refused: Option<String>,
}

/// A package of an image and where it was found.
#[derive(Clone, Debug)]
pub(crate) struct PackageRow {
    pub(crate) purl: String,
    pub(crate) package: Package,
    pub(crate) ecosystem: String,
    /// Layer positions, from 0 at the bottom, and evidence paths; sorted.
    pub(crate) locations: Vec<(usize, String)>,
}

impl Store {
    /// Whether everything behind the digest was read, for those platforms.
    pub(crate) fn is_indexed(&self, digest: &Digest, platforms: &str) -> Result<bool> {
        self.read(|db| {
            db.prepare_cached(
                "SELECT 1 FROM manifest WHERE digest = ?1 AND indexed_at IS NOT NULL AND platforms IN ('', ?2)",
            )?
            .exists(params![digest.as_str(), platforms])
        })
    }

    /// Stores an index whose wanted images are all stored. `platforms` is the user's choice, `""` for all.
    pub(crate) fn save_index(
        &self,
        digest: &Digest,
        media_type: &str,
        entries: &[(Descriptor, Entry)],
        platforms: &str,
    ) -> Result<()> {
        self.write(|db| {
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
            Ok(())
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
        self.write(|db| {
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
                "INSERT INTO image_layer VALUES (?1, ?2, (SELECT id FROM layer WHERE digest = ?3))",
            )?;
            for (position, digest) in image.layers.iter().enumerate() {
                layer.execute(params![id, position, digest.as_str()])?;
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
            Ok(totals)
        })
    }

    /// What a stored image came to; `None` when it is not stored.
    pub(crate) fn image_totals(&self, digest: &Digest) -> Result<Option<ImageTotals>> {
        self.read(|db| {
            db.prepare_cached(
                "SELECT n_packages, n_problems, n_refused FROM manifest WHERE digest = ?1",
            )?
            .query_row([digest.as_str()], |row| {
                Ok(ImageTotals {
                    packages: row.get(0)?,
                    problems: row.get(1)?,
                    refused_layers: row.get(2)?,
                })
            })
            .optional()
        })
    }

    /// Calls `each` for every tag and platform, sorted by name. Tags that are gone come only `with_gone`.
    pub(crate) fn each_image(
        &self,
        with_gone: bool,
        mut each: impl FnMut(ImageRow) -> std::ops::ControlFlow<()>,
    ) -> Result<()> {
        self.read(|db| {
            let mut query = db.prepare_cached(
                "SELECT r.shown AS repository, tag.name AS tag, tag.digest AS digest, m.kind AS kind,
                        coalesce(i.digest, CASE WHEN m.kind = 'image' THEN m.digest END) AS image_digest,
                        coalesce(i.platform, e.platform, m.platform) AS platform,
                        coalesce(i.n_packages, CASE WHEN m.kind = 'image' THEN m.n_packages END) AS packages,
                        coalesce(i.size, CASE WHEN m.kind = 'image' THEN m.size END) AS size,
                        coalesce(i.n_refused + i.n_problems, m.n_refused + m.n_problems) AS gaps,
                        CASE WHEN m.kind = 'index' THEN i.indexed_at ELSE m.indexed_at END AS indexed_at,
                        m.indexed_at AS top_indexed_at, e.digest AS entry,
                        first_seen, gone_at, coalesce(gone_at, s.listed_at, changed_at) AS last_seen,
                        job.state AS job_state, job.error AS error, job.attempts AS attempts, job.id AS job_id
                 FROM tag JOIN repository r ON r.id = repository_id JOIN source s ON s.id = source_id
                 LEFT JOIN manifest m ON m.digest = tag.digest
                 LEFT JOIN index_entry e ON e.index_id = m.id AND e.kind = 'image'
                 LEFT JOIN manifest i ON i.digest = e.digest
                 LEFT JOIN job ON job.tag_id = tag.id
                 WHERE gone_at IS NULL OR ?1
                 ORDER BY r.shown, tag.name, platform, image_digest",
            )?;
            let mut rows = query.query([with_gone])?;
            while let Some(row) = rows.next()? {
                if each(image_row(row)?).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    /// The digests of images that `reference` may mean: a tag's, or a digest itself. The texts are compared
    /// with the repository as users name it, and with the name inside its source. Sorted; may be empty.
    pub(crate) fn find_images(
        &self,
        repository: Option<&str>,
        tag: Option<&str>,
        digest: Option<&str>,
    ) -> Result<Vec<String>> {
        self.read(|db| {
            let mut query = db.prepare_cached(
                "SELECT DISTINCT coalesce(i.digest, m.digest) AS digest
                 FROM manifest m LEFT JOIN index_entry e ON e.index_id = m.id AND e.kind = 'image'
                 LEFT JOIN manifest i ON i.digest = e.digest
                 WHERE (?3 IS NOT NULL AND m.digest LIKE ?3 || '%') OR (?3 IS NULL AND m.digest IN (
                     SELECT tag.digest FROM tag JOIN repository r ON r.id = repository_id
                     WHERE gone_at IS NULL AND tag.name = ?2
                       AND (r.shown = ?1 OR r.name = ?1 OR r.shown LIKE '%/' || ?1)))
                 ORDER BY digest",
            )?;
            let rows = query.query_map(params![repository, tag, digest], |row| row.get(0))?;
            rows.collect()
        })
    }

    /// Everything known of an image; `None` when it is not indexed.
    pub(crate) fn image(&self, digest: &str) -> Result<Option<ImageDetail>> {
        self.read(|db| {
            let found = db
                .query_row(
                    "SELECT id, digest, platform, distro, size FROM manifest
                     WHERE digest = ?1 AND kind = 'image' AND indexed_at IS NOT NULL",
                    [digest],
                    |row| {
                        let distro: String = row.get(3)?;
                        Ok((
                            row.get::<_, i64>(0)?,
                            ImageDetail {
                                digest: row.get(1)?,
                                platform: row.get(2)?,
                                distro: Some(distro).filter(|distro| distro != "unknown"),
                                size: row.get(4)?,
                                layers: Vec::new(),
                                packages: Vec::new(),
                                coverage: Coverage::default(),
                            },
                        ))
                    },
                )
                .optional()?;
            let Some((id, mut image)) = found else {
                return Ok(None);
            };
            image.layers = layers(db, id)?;
            image.packages = packages(db, id)?;
            image.coverage = coverage(db, id, &image.layers)?;
            Ok(Some(image))
        })
    }

    /// How many images of current tags have gaps: layers not read, files not understood.
    pub(crate) fn partial_images(&self) -> Result<u64> {
        self.read(|db| {
            db.query_row(
                "SELECT count(DISTINCT coalesce(i.id, m.id)) FROM tag JOIN manifest m ON m.digest = tag.digest
                 LEFT JOIN index_entry e ON e.index_id = m.id AND e.kind = 'image'
                 LEFT JOIN manifest i ON i.digest = e.digest
                 WHERE gone_at IS NULL AND coalesce(i.n_refused + i.n_problems, m.n_refused + m.n_problems) > 0",
                [],
                |row| row.get(0),
            )
        })
    }

    /// The tag's current digest, to be asked before its work is called done.
    pub(crate) fn tag_digest(&self, tag: TagId) -> Result<Option<String>> {
        self.read(|db| {
            db.query_row("SELECT digest FROM tag WHERE id = ?1", [tag.0], |row| {
                row.get(0)
            })
            .optional()
        })
    }

    /// Raw bytes of evidence, compressed as stored.
    pub(crate) fn content(&self, content: ContentId) -> Result<Vec<u8>> {
        self.read(|db| {
            db.prepare_cached("SELECT raw FROM content WHERE id = ?1")?
                .query_row([content.0], |row| row.get(0))
        })
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
const LIVE: &str = "
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

fn image_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<ImageRow> {
    let kind: Option<String> = row.get("kind")?;
    let job_state: Option<String> = row.get("job_state")?;
    let is_indexed = row.get::<_, Option<i64>>("indexed_at")?.is_some();
    let gaps: Option<u64> = row.get("gaps")?;
    let is_retried = row.get::<_, Option<u32>>("attempts")?.unwrap_or(0) > 0;
    let state = match (kind.as_deref(), job_state.as_deref()) {
        (_, Some("failed")) if !is_indexed => "failed",
        (_, Some(_)) if !is_indexed && is_retried => "retrying",
        (_, Some(_)) if !is_indexed => "pending",
        (Some("artifact"), _) => "artifact",
        (Some("index"), _) if !is_indexed => "skipped",
        (Some(_), _) if gaps.unwrap_or(0) > 0 => "partial",
        (Some(_), _) => "indexed",
        (None, _) => "recorded",
    };
    Ok(ImageRow {
        repository: row.get("repository")?,
        tag: row.get("tag")?,
        digest: row.get("digest")?,
        image_digest: row.get("image_digest")?,
        platform: row.get("platform")?,
        packages: row.get("packages")?,
        size: row.get("size")?,
        first_seen: moment(row, "first_seen")?.unwrap_or(Timestamp::from_millis(0)),
        last_seen: moment(row, "last_seen")?,
        gone_at: moment(row, "gone_at")?,
        state,
        error: row.get("error")?,
    })
}

fn layers(db: &Connection, id: i64) -> rusqlite::Result<Vec<LayerRow>> {
    let mut query = db.prepare_cached(
        "SELECT digest, diff_id, size, refused FROM image_layer JOIN layer ON layer.id = layer_id
         WHERE manifest_id = ?1 ORDER BY position",
    )?;
    let rows = query.query_map([id], |row| {
        Ok(LayerRow {
            digest: row.get(0)?,
            diff_id: row.get(1)?,
            size: row.get(2)?,
            refused: row.get(3)?,
        })
    })?;
    rows.collect()
}

fn packages(db: &Connection, id: i64) -> rusqlite::Result<Vec<PackageRow>> {
    let mut query = db.prepare_cached(&format!(
        "SELECT purl, type, namespace, name, p.version, architecture, source_name, source_version, licenses,
                ecosystem, position, path
         FROM (SELECT e.id AS evidence_id, e.ecosystem AS ecosystem, il.position AS position, le.path AS path {LIVE})
         JOIN evidence_package USING (evidence_id) JOIN package p ON p.id = package_id
         ORDER BY purl, licenses, position, path"
    ))?;
    let mut rows = query.query([id])?;
    let mut packages: Vec<PackageRow> = Vec::new();
    while let Some(row) = rows.next()? {
        let purl: String = row.get("purl")?;
        let location = (row.get("position")?, row.get("path")?);
        if let Some(last) = packages.last_mut().filter(|last| last.purl == purl) {
            last.locations.push(location);
            continue;
        }
        let source_name: Option<String> = row.get("source_name")?;
        let source_version: Option<String> = row.get("source_version")?;
        packages.push(PackageRow {
            purl,
            ecosystem: row.get("ecosystem")?,
            package: Package {
                kind: row.get::<_, String>("type").map(known_type)?,
                namespace: row.get("namespace")?,
                name: row.get("name")?,
                version: row.get("version")?,
                architecture: row.get("architecture")?,
                source: source_name
                    .zip(source_version)
                    .map(|(name, version)| Source { name, version }),
                licenses: super::split(&row.get::<_, String>("licenses")?),
            },
            locations: vec![location],
        });
    }
    packages
        .iter_mut()
        .for_each(|package| package.locations.sort());
    Ok(packages)
}

/// The purl types that ecosystems store, as the constants that values are compared with.
fn known_type(text: String) -> &'static str {
    ["deb", "apk", "npm", "pypi", "golang"]
        .into_iter()
        .find(|known| *known == text)
        .unwrap_or("generic")
}

fn coverage(db: &Connection, id: i64, layers: &[LayerRow]) -> rusqlite::Result<Coverage> {
    let mut problems = Vec::new();
    let mut query = db.prepare_cached(
        "SELECT subject, path, message FROM image_layer JOIN layer_problem USING (layer_id)
         WHERE manifest_id = ?1 ORDER BY position, subject, path, message",
    )?;
    let mut rows = query.query([id])?;
    while let Some(row) = rows.next()? {
        problems.push(Problem {
            subject: row.get(0)?,
            path: row.get(1)?,
            message: row.get(2)?,
        });
    }
    let mut query = db.prepare_cached(&format!(
        "SELECT e.ecosystem, le.path, e.problems {LIVE} AND e.problems <> ''"
    ))?;
    let mut rows = query.query([id])?;
    while let Some(row) = rows.next()? {
        let (subject, path, lines): (String, String, String) =
            (row.get(0)?, row.get(1)?, row.get(2)?);
        problems.extend(lines.lines().map(|message| Problem {
            subject: subject.clone(),
            path: path.clone(),
            message: message.to_owned(),
        }));
    }
    for layer in layers {
        if let Some(reason) = &layer.refused {
            let message = format!("layer `{}` was not read: {reason}", layer.digest);
            problems.push(Problem {
                subject: "layer".to_owned(),
                path: String::new(),
                message,
            });
        }
    }
    problems.sort();
    problems.dedup();
    let unlisted: u64 = db.query_row(
        "SELECT coalesce(sum(problems_unlisted), 0) FROM image_layer JOIN layer ON layer.id = layer_id
         WHERE manifest_id = ?1",
        [id],
        |row| row.get(0),
    )?;
    let evidence = db
        .prepare_cached(&format!("SELECT count(*) FROM (SELECT 1 {LIVE})"))?
        .query_row([id], |row| row.get(0))?;
    let masked = db.query_row(
        "SELECT count(*) FROM image_mask WHERE manifest_id = ?1",
        [id],
        |row| row.get(0),
    )?;
    Ok(Coverage {
        layers_read: layers
            .iter()
            .filter(|layer| layer.refused.is_none())
            .count() as u64,
        layers_total: layers.len() as u64,
        evidence,
        masked,
        problems,
        problems_unlisted: unlisted,
    })
}
