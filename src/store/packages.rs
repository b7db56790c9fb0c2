//! Evidence and the packages read out of it, each once.

use rusqlite::{OptionalExtension, params};

use super::layers::ContentId;
use super::{Store, joined, vanished};
use crate::error::Result;
use crate::sbom::{Distro, Package};

/// Evidence that was parsed: which content, by whom, for which distribution.
pub(crate) struct ParsedEvidence<'a> {
    pub(crate) content: ContentId,
    pub(crate) ecosystem: &'a str,
    /// Of the ecosystem.
    pub(crate) version: u32,
    /// Set when the packages are named by the distribution; `Some(None)` when it is not known.
    pub(crate) distro: Option<Option<&'a Distro>>,
    pub(crate) packages: Vec<Package>,
    pub(crate) problems: Vec<String>,
}

/// The `distro` column: `''` for evidence that does not depend on it.
pub(crate) fn distro_key(distro: Option<Option<&Distro>>) -> String {
    match distro {
        None => String::new(),
        Some(None) => "unknown".to_owned(),
        Some(Some(distro)) => distro.to_string(),
    }
}

impl Store {
    /// Those of `wanted` that are not parsed yet by the given version of their ecosystem.
    pub(crate) fn unparsed(
        &self,
        wanted: Vec<(ContentId, &'static str, u32, String)>,
    ) -> Result<Vec<(ContentId, &'static str)>> {
        self.read(|db| {
            let mut query = db.prepare_cached(
                "SELECT version FROM evidence WHERE content_id = ?1 AND ecosystem = ?2 AND distro = ?3",
            )?;
            let mut missing = Vec::new();
            for (content, ecosystem, version, distro) in wanted {
                let found: Option<u32> =
                    query.query_row(params![content.0, ecosystem, distro], |row| row.get(0)).optional()?;
                if found != Some(version) {
                    missing.push((content, ecosystem));
                }
            }
            Ok(missing)
        })
    }

    /// Stores what was read out of evidence. Errors: `Retry` when its content is not stored any more; else as
    /// every write.
    pub(crate) fn save_evidence(&self, parsed: &[ParsedEvidence<'_>]) -> Result<()> {
        if parsed.is_empty() {
            return Ok(());
        }
        self.write_unless(|db| {
            let mut evidence = db.prepare_cached(
                "INSERT INTO evidence (content_id, ecosystem, distro, version, problems)
                 SELECT id, ?2, ?3, ?4, ?5 FROM content WHERE id = ?1
                 ON CONFLICT (content_id, ecosystem, distro) DO UPDATE
                 SET version = excluded.version, problems = excluded.problems RETURNING id",
            )?;
            let mut forget = db.prepare_cached("DELETE FROM evidence_package WHERE evidence_id = ?1")?;
            let mut find = db.prepare_cached("SELECT id FROM package WHERE purl = ?1 AND licenses = ?2")?;
            let mut package = db.prepare_cached(
                "INSERT INTO package (purl, type, namespace, name, version, architecture, source_name, source_version,
                                      licenses) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) RETURNING id",
            )?;
            let mut link = db.prepare_cached("INSERT OR IGNORE INTO evidence_package VALUES (?1, ?2)")?;
            for one in parsed {
                let distro = one.distro.flatten();
                let stored: Option<i64> = evidence
                    .query_row(
                        params![
                            one.content.0,
                            one.ecosystem,
                            distro_key(one.distro),
                            one.version,
                            joined(&one.problems)
                        ],
                        |row| row.get(0),
                    )
                    .optional()?;
                let Some(evidence_id) = stored else {
                    return Ok(Err(vanished("evidence", &one.content.to_string())));
                };
                forget.execute([evidence_id])?;
                for found in &one.packages {
                    let (purl, licenses) = (found.purl(distro), joined(&found.licenses));
                    let known = find.query_row(params![purl.as_str(), licenses], |row| row.get(0)).optional()?;
                    let package_id: i64 = match known {
                        Some(id) => id,
                        None => package.query_row(
                            params![
                                purl.as_str(),
                                found.kind,
                                distro.map(|distro| distro.id.as_str()).or(found.namespace.as_deref()),
                                found.name,
                                found.version,
                                found.architecture,
                                found.source.as_ref().map(|source| &source.name),
                                found.source.as_ref().map(|source| &source.version),
                                licenses
                            ],
                            |row| row.get(0),
                        )?,
                    };
                    link.execute(params![evidence_id, package_id])?;
                }
            }
            Ok(Ok(()))
        })
    }
}
