//! What a run of `crowsnest` left in its store, read without any of its code.

use std::collections::BTreeSet;
use std::path::Path;

use rusqlite::{Connection, OpenFlags, params};

/// A package: type, name with its namespace where people write it, version, source name, source version.
pub(crate) type Row = (String, String, String, String, String);

/// A store, opened for reading.
pub(crate) struct Stored(Connection);

impl Stored {
    pub(crate) fn open(file: &Path) -> Stored {
        let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)
            .unwrap_or_else(|error| panic!("opening `{}`: {error}", file.display()));
        // Events stand in a file of their own, made a moment after the other.
        let _ = connection.execute(
            "ATTACH ?1 AS beside",
            [format!("{}-events", file.display())],
        );
        Stored(connection)
    }

    /// Repository (inside its source), tag and platform of everything that is indexed, sorted.
    pub(crate) fn images(&self) -> BTreeSet<(String, String, String)> {
        let query = "
            SELECT r.name, tag.name, coalesce(i.platform, m.platform)
            FROM tag JOIN repository r ON r.id = repository_id
            JOIN manifest m ON m.digest = tag.digest AND m.kind <> 'artifact' AND m.indexed_at IS NOT NULL
            LEFT JOIN index_entry e ON e.index_id = m.id AND e.kind = 'image'
            LEFT JOIN manifest i ON i.digest = e.digest AND i.kind = 'image' AND i.indexed_at IS NOT NULL
            WHERE gone_at IS NULL AND (m.kind = 'image' OR i.id IS NOT NULL)";
        self.rows(query, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .into_iter()
            .collect()
    }

    /// Names of the repositories as people pull from them, sorted.
    pub(crate) fn shown(&self) -> BTreeSet<String> {
        let rows = self.rows("SELECT shown FROM repository", |row| row.get(0));
        rows.into_iter().collect()
    }

    /// The packages of one platform of a tag, in all repositories of that name; distinct and sorted.
    pub(crate) fn packages(&self, repository: &str, tag: &str, platform: &str) -> BTreeSet<Row> {
        let mut query = self
            .0
            .prepare(
                "SELECT DISTINCT p.type, coalesce(p.namespace, ''), p.name, p.version,
                        coalesce(p.source_name, ''), coalesce(p.source_version, '')
                 FROM repository r JOIN tag ON tag.repository_id = r.id
                 JOIN manifest t ON t.digest = tag.digest
                 LEFT JOIN index_entry x ON x.index_id = t.id
                 JOIN manifest m ON m.digest = coalesce(x.digest, t.digest)
                 JOIN image_layer il ON il.manifest_id = m.id
                 JOIN layer_evidence le ON le.layer_id = il.layer_id
                 JOIN evidence e ON e.content_id = le.content_id AND e.ecosystem = le.ecosystem
                                AND e.distro IN ('', m.distro)
                 JOIN evidence_package ep ON ep.evidence_id = e.id
                 JOIN package p ON p.id = ep.package_id
                 WHERE r.name = ?1 AND tag.name = ?2 AND m.platform = ?3 AND m.kind = 'image'
                   AND NOT EXISTS (SELECT 1 FROM image_mask k WHERE k.manifest_id = m.id
                                   AND k.position = il.position AND k.path = le.path)",
            )
            .expect("the schema is the one this test knows");
        let rows = query
            .query_map(params![repository, tag, platform], |row| {
                let [kind, namespace, name, version, source, source_version]: [String; 6] = [
                    row.get(0)?,
                    row.get(1)?,
                    row.get(2)?,
                    row.get(3)?,
                    row.get(4)?,
                    row.get(5)?,
                ];
                // A distribution's namespace is its own name, which nobody writes before a package.
                let name = match kind.as_str() {
                    "deb" | "apk" => name,
                    _ if namespace.is_empty() => name,
                    _ => format!("{namespace}/{name}"),
                };
                Ok((kind, name, version, source, source_version))
            })
            .expect("the query runs");
        rows.map(|row| row.expect("a row")).collect()
    }

    /// Tag and error of every job that is left.
    pub(crate) fn troubles(&self) -> Vec<(String, String)> {
        let query =
            "SELECT tag.name, coalesce(error, '') FROM job JOIN tag ON tag.id = tag_id ORDER BY 1";
        self.rows(query, |row| Ok((row.get(0)?, row.get(1)?)))
    }

    /// Why layers were not read; sorted.
    pub(crate) fn refused(&self) -> Vec<String> {
        self.rows(
            "SELECT refused FROM layer WHERE refused IS NOT NULL ORDER BY 1",
            |row| row.get(0),
        )
    }

    pub(crate) fn tag_digests(&self) -> Vec<String> {
        self.rows("SELECT digest FROM tag ORDER BY 1", |row| row.get(0))
    }

    /// Digests of the layers that were read; empty until the table is there.
    pub(crate) fn layers_if_any(&self) -> BTreeSet<String> {
        match self.0.prepare("SELECT 1 FROM layer") {
            Ok(_) => self.layer_digests().into_iter().collect(),
            Err(_) => BTreeSet::new(),
        }
    }

    pub(crate) fn layer_digests(&self) -> Vec<String> {
        self.rows("SELECT digest FROM layer", |row| row.get(0))
    }

    /// What was noted of files in layers; sorted.
    pub(crate) fn problems(&self) -> Vec<String> {
        let query =
            "SELECT subject || ' ' || path || ': ' || message FROM layer_problem ORDER BY 1";
        self.rows(query, |row| row.get(0))
    }

    /// Every row of those tables as text, sorted by it: to see whether anything changed.
    pub(crate) fn dump(&self, tables: &[&str]) -> Vec<String> {
        let mut dump = Vec::new();
        for table in tables {
            let query = format!("SELECT * FROM {table}");
            let mut query = self.0.prepare(&query).expect("the table is there");
            let n_columns = query.column_count();
            let rows = query.query_map([], |row| {
                let values: rusqlite::Result<Vec<rusqlite::types::Value>> =
                    (0..n_columns).map(|column| row.get(column)).collect();
                Ok(format!("{table} {:?}", values?))
            });
            dump.extend(rows.expect("the query runs").map(|row| row.expect("a row")));
        }
        dump.sort();
        dump
    }

    /// Tag and digest of what tags pointed to before; sorted.
    pub(crate) fn history(&self) -> Vec<(String, String)> {
        self.rows(
            "SELECT tag.name, h.digest FROM tag_history h JOIN tag ON tag.id = tag_id ORDER BY 1, 2",
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
    }

    /// `repository:tag` of everything that is gone; sorted.
    pub(crate) fn gone(&self) -> Vec<String> {
        self.rows(
            "SELECT r.name || ':' || tag.name FROM tag JOIN repository r ON r.id = repository_id
             WHERE gone_at IS NOT NULL ORDER BY 1",
            |row| row.get(0),
        )
    }

    /// Repositories of the events that wait.
    pub(crate) fn events(&self) -> Vec<String> {
        self.rows("SELECT repository FROM event", |row| row.get(0))
    }

    /// How many rows a table has.
    pub(crate) fn count(&self, table: &str) -> u64 {
        let rows = self.rows(&format!("SELECT count(*) FROM {table}"), |row| row.get(0));
        rows[0]
    }

    fn rows<T>(&self, query: &str, read: fn(&rusqlite::Row<'_>) -> rusqlite::Result<T>) -> Vec<T> {
        let mut query = self
            .0
            .prepare(query)
            .unwrap_or_else(|error| panic!("{query}: {error}"));
        let rows = query.query_map([], read).expect("the query runs");
        rows.map(|row| row.expect("a row")).collect()
    }
}
