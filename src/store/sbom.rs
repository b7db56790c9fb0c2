//! The SBOM of one image, put together from its layers' evidence.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension};

use super::images::LIVE;
use super::{Store, digest, optional_digest, split};
use crate::error::Result;
use crate::image::Digest;
use crate::sbom::{Coverage, Distro, ImageLayer, ImagePackage, Location, Problem, Sbom, Source};

impl Store {
    /// Everything known of an image; `None` when it is not indexed.
    pub(crate) fn sbom(&self, image: &Digest) -> Result<Option<Sbom>> {
        self.read(|db| {
            let found = db
                .query_row(
                    "SELECT id, digest, media_type, config_digest, platform, created, distro_facts, size
                     FROM manifest WHERE digest = ?1 AND kind = 'image' AND indexed_at IS NOT NULL",
                    [image.as_str()],
                    |row| {
                        let distro: Option<String> = row.get("distro_facts")?;
                        let sbom = Sbom {
                            digest: digest(row, "digest")?,
                            media_type: row.get("media_type")?,
                            config_digest: optional_digest(row, "config_digest")?,
                            platform: row.get("platform")?,
                            created: row.get("created")?,
                            distro: distro.as_deref().and_then(distro_of),
                            size: row.get("size")?,
                            layers: Vec::new(),
                            packages: Vec::new(),
                            coverage: Coverage::default(),
                        };
                        Ok((row.get::<_, i64>("id")?, sbom))
                    },
                )
                .optional()?;
            let Some((id, mut sbom)) = found else {
                return Ok(None);
            };
            sbom.layers = layers(db, id)?;
            sbom.packages = packages(db, id)?;
            sbom.coverage = coverage(db, id, &sbom.layers)?;
            Ok(Some(sbom))
        })
    }
}

/// Reads what [`Store::save_image`] wrote.
fn distro_of(text: &str) -> Option<Distro> {
    let facts: serde_json::Value = serde_json::from_str(text).ok()?;
    let fact = |name: &str| facts.get(name)?.as_str().map(str::to_owned);
    Some(Distro {
        id: fact("id")?,
        id_like: fact("id_like"),
        version_id: fact("version_id"),
        codename: fact("codename"),
        pretty_name: fact("pretty_name"),
        cpe: fact("cpe"),
    })
}

fn layers(db: &Connection, id: i64) -> rusqlite::Result<Vec<ImageLayer>> {
    let mut query = db.prepare_cached(
        "SELECT digest, diff_id, size, refused FROM image_layer JOIN layer ON layer.id = layer_id
         WHERE manifest_id = ?1 ORDER BY position",
    )?;
    let rows = query.query_map([id], |row| {
        Ok(ImageLayer {
            digest: digest(row, "digest")?,
            diff_id: optional_digest(row, "diff_id")?,
            size: row.get("size")?,
            refused: row.get("refused")?,
        })
    })?;
    rows.collect()
}

fn packages(db: &Connection, id: i64) -> rusqlite::Result<Vec<ImagePackage>> {
    let mut query = db.prepare_cached(&format!(
        "SELECT purl, type, namespace, name, p.version AS version, architecture, source_name, source_version, licenses,
                ecosystem, position, path
         FROM (SELECT e.id AS evidence_id, e.ecosystem AS ecosystem, il.position AS position, le.path AS path {LIVE})
         JOIN evidence_package USING (evidence_id) JOIN package p ON p.id = package_id
         ORDER BY purl, licenses, position, path"
    ))?;
    let mut rows = query.query([id])?;
    let mut packages: Vec<ImagePackage> = Vec::new();
    while let Some(row) = rows.next()? {
        let purl: String = row.get("purl")?;
        let location = Location {
            layer: row.get("position")?,
            path: row.get("path")?,
        };
        if let Some(last) = packages.last_mut().filter(|last| last.purl == purl) {
            last.locations.push(location);
            continue;
        }
        let source_name: Option<String> = row.get("source_name")?;
        let source_version: Option<String> = row.get("source_version")?;
        packages.push(ImagePackage {
            purl,
            kind: row.get("type")?,
            namespace: row.get("namespace")?,
            name: row.get("name")?,
            version: row.get("version")?,
            architecture: row.get("architecture")?,
            source: source_name
                .zip(source_version)
                .map(|(name, version)| Source { name, version }),
            licenses: split(&row.get::<_, String>("licenses")?),
            ecosystem: row.get("ecosystem")?,
            locations: vec![location],
        });
    }
    for package in &mut packages {
        package.locations.sort();
        package.locations.dedup();
    }
    Ok(packages)
}

fn coverage(db: &Connection, id: i64, layers: &[ImageLayer]) -> rusqlite::Result<Coverage> {
    let mut problems = BTreeSet::new();
    let mut query = db.prepare_cached(
        "SELECT subject, path, message FROM image_layer JOIN layer_problem USING (layer_id) WHERE manifest_id = ?1",
    )?;
    let mut rows = query.query([id])?;
    while let Some(row) = rows.next()? {
        problems.insert(Problem {
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
        let (subject, path): (String, String) = (row.get(0)?, row.get(1)?);
        let messages = split(&row.get::<_, String>(2)?);
        problems.extend(messages.into_iter().map(|message| Problem {
            subject: subject.clone(),
            path: path.clone(),
            message,
        }));
    }
    for layer in layers {
        if let Some(reason) = &layer.refused {
            problems.insert(Problem {
                subject: "layer".to_owned(),
                path: String::new(),
                message: format!("`{}` was not read: {reason}", layer.digest),
            });
        }
    }
    let problems_unlisted = db.query_row(
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
    let read = layers.iter().filter(|layer| layer.refused.is_none());
    Ok(Coverage {
        layers_read: read.count() as u64,
        layers_total: layers.len() as u64,
        evidence,
        masked,
        problems: problems.into_iter().collect(),
        problems_unlisted,
    })
}
