//! The tables, and the steps from one version of them to the next.
//!
//! What grows is unique layers and packages: an image adds a row, its list of layers, and the exceptions
//! (masks). Moments are milliseconds since 1970.

use rusqlite::Connection;

use super::store_error;
use crate::error::{Error, Result};

/// One script a version; `user_version` counts those that ran. A released script is never edited.
const STEPS: &[&str] = &["
    -- A registry or folder that was watched.
    CREATE TABLE source (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        facts TEXT NOT NULL DEFAULT '{}',   -- what was learnt of the server, JSON
        listed_at INTEGER,                  -- the end of the last complete listing
        error TEXT,                         -- why it cannot be listed now
        error_since INTEGER
    );
    CREATE TABLE repository (
        id INTEGER PRIMARY KEY,
        source_id INTEGER NOT NULL REFERENCES source,
        name TEXT NOT NULL,                 -- inside the source
        shown TEXT NOT NULL,                -- as users pull it, host included
        UNIQUE (source_id, name)
    );
    CREATE TABLE tag (
        id INTEGER PRIMARY KEY,
        repository_id INTEGER NOT NULL REFERENCES repository,
        name TEXT NOT NULL,
        digest TEXT NOT NULL,               -- of the manifest or index it points to
        first_seen INTEGER NOT NULL,
        changed_at INTEGER NOT NULL,
        gone_at INTEGER,
        UNIQUE (repository_id, name)
    );
    CREATE INDEX tag_digest ON tag (digest);
    -- Images, indexes and other artifacts by their digest.
    CREATE TABLE manifest (
        id INTEGER PRIMARY KEY,
        digest TEXT NOT NULL UNIQUE,
        kind TEXT NOT NULL CHECK (kind IN ('image', 'index', 'artifact')),
        media_type TEXT NOT NULL,
        artifact_type TEXT,
        config_digest TEXT,
        platform TEXT,
        created TEXT,
        user TEXT,
        env_names TEXT NOT NULL DEFAULT '',
        label_names TEXT NOT NULL DEFAULT '',
        size INTEGER NOT NULL DEFAULT 0,    -- compressed bytes of the layers
        distro TEXT NOT NULL DEFAULT 'unknown',
        distro_facts TEXT,
        n_packages INTEGER NOT NULL DEFAULT 0,
        n_problems INTEGER NOT NULL DEFAULT 0,
        n_refused INTEGER NOT NULL DEFAULT 0,
        platforms TEXT NOT NULL DEFAULT '', -- of an index: those that were asked for, '' = all
        indexed_at INTEGER                  -- NULL until every layer is accounted for
    );
    CREATE TABLE index_entry (
        index_id INTEGER NOT NULL REFERENCES manifest,
        position INTEGER NOT NULL,
        digest TEXT NOT NULL,
        kind TEXT NOT NULL CHECK (kind IN ('image', 'attestation', 'other')),
        platform TEXT,
        PRIMARY KEY (index_id, position)
    ) WITHOUT ROWID;
    CREATE TABLE layer (
        id INTEGER PRIMARY KEY,
        digest TEXT NOT NULL UNIQUE,
        diff_id TEXT,
        size INTEGER NOT NULL,
        tar_size INTEGER NOT NULL DEFAULT 0,
        n_entries INTEGER NOT NULL DEFAULT 0,
        ecosystems TEXT NOT NULL,           -- that looked at it
        refused TEXT,                       -- why it was not read, when it is over a limit
        refused_limit INTEGER,              -- the --max-layer-size of then
        refused_source TEXT,                -- who sent it: the bytes of a refused layer are not checked
        whiteouts BLOB,                     -- NULL when there are none
        opaques BLOB,
        paths BLOB,
        problems_unlisted INTEGER NOT NULL DEFAULT 0,
        read_at INTEGER NOT NULL
    );
    CREATE TABLE image_layer (
        manifest_id INTEGER NOT NULL REFERENCES manifest,
        position INTEGER NOT NULL,
        layer_id INTEGER NOT NULL REFERENCES layer,
        PRIMARY KEY (manifest_id, position)
    ) WITHOUT ROWID;
    CREATE INDEX image_layer_layer ON image_layer (layer_id);
    -- Raw evidence, zstd, by the digest of what it holds.
    CREATE TABLE content (
        id INTEGER PRIMARY KEY,
        digest TEXT NOT NULL UNIQUE,
        raw BLOB NOT NULL
    );
    CREATE TABLE layer_evidence (
        layer_id INTEGER NOT NULL REFERENCES layer,
        path TEXT NOT NULL,
        ecosystem TEXT NOT NULL,
        content_id INTEGER NOT NULL REFERENCES content,
        PRIMARY KEY (layer_id, path, ecosystem)
    ) WITHOUT ROWID;
    CREATE INDEX layer_evidence_content ON layer_evidence (content_id);
    CREATE TABLE layer_problem (
        layer_id INTEGER NOT NULL REFERENCES layer,
        subject TEXT NOT NULL,
        path TEXT NOT NULL,
        message TEXT NOT NULL,
        PRIMARY KEY (layer_id, subject, path, message)
    ) WITHOUT ROWID;
    -- What an ecosystem reads out of content. Packages of a distribution are named by it, so the same
    -- content may be read for several; '' for all other ecosystems.
    CREATE TABLE evidence (
        id INTEGER PRIMARY KEY,
        content_id INTEGER NOT NULL REFERENCES content,
        ecosystem TEXT NOT NULL,
        distro TEXT NOT NULL,
        version INTEGER NOT NULL,           -- of the ecosystem
        problems TEXT NOT NULL DEFAULT '',
        UNIQUE (content_id, ecosystem, distro)
    );
    CREATE TABLE package (
        id INTEGER PRIMARY KEY,
        purl TEXT NOT NULL,
        type TEXT NOT NULL,
        namespace TEXT,
        name TEXT NOT NULL,
        version TEXT NOT NULL,
        architecture TEXT,
        source_name TEXT,
        source_version TEXT,
        licenses TEXT NOT NULL,
        UNIQUE (purl, licenses)
    );
    CREATE INDEX package_name ON package (name);
    CREATE TABLE evidence_package (
        evidence_id INTEGER NOT NULL REFERENCES evidence,
        package_id INTEGER NOT NULL REFERENCES package,
        PRIMARY KEY (evidence_id, package_id)
    ) WITHOUT ROWID;
    CREATE INDEX evidence_package_package ON evidence_package (package_id);
    -- Evidence of a layer that does not count in an image, since a higher layer hides it.
    CREATE TABLE image_mask (
        manifest_id INTEGER NOT NULL REFERENCES manifest,
        position INTEGER NOT NULL,
        path TEXT NOT NULL,
        PRIMARY KEY (manifest_id, position, path)
    ) WITHOUT ROWID;
    -- Images to be read, one row a tag. A row goes when its work is done.
    CREATE TABLE job (
        id INTEGER PRIMARY KEY,
        tag_id INTEGER NOT NULL UNIQUE REFERENCES tag,
        state TEXT NOT NULL CHECK (state IN ('ready', 'failed')),
        is_final INTEGER NOT NULL DEFAULT 0,  -- a failure that trying again cannot change
        attempts INTEGER NOT NULL DEFAULT 0,
        next_try INTEGER NOT NULL,
        error TEXT,
        hint TEXT,
        lease_owner TEXT,
        lease_until INTEGER NOT NULL DEFAULT 0,
        created_at INTEGER NOT NULL
    );
    CREATE INDEX job_next ON job (state, next_try);
    ",
    "
    -- Pushed images go before those that exist already.
    ALTER TABLE job ADD COLUMN lane INTEGER NOT NULL DEFAULT 1 CHECK (lane IN (0, 1));
    -- How many processes took the job and ended before they were done with it.
    ALTER TABLE job ADD COLUMN starts INTEGER NOT NULL DEFAULT 0;
    -- What waits for nothing is due at 0, whatever the clock says.
    UPDATE job SET next_try = 0 WHERE attempts = 0;
    DROP INDEX job_next;
    CREATE INDEX job_next ON job (state, lane, next_try);
    -- Grows with every change, so that a listing can tell what is younger than its start without a clock.
    ALTER TABLE tag ADD COLUMN change_no INTEGER NOT NULL DEFAULT 0;
    CREATE INDEX tag_change ON tag (change_no);
    -- What tags pointed to before.
    CREATE TABLE tag_history (
        tag_id INTEGER NOT NULL REFERENCES tag,
        digest TEXT NOT NULL,
        since INTEGER NOT NULL,
        until INTEGER NOT NULL,
        PRIMARY KEY (tag_id, until, digest)
    ) WITHOUT ROWID;
    CREATE INDEX tag_history_digest ON tag_history (digest);
    ",
    "
    -- The largest number that a pruned row had, so that it is not given again.
    CREATE TABLE last_id (
        kind TEXT PRIMARY KEY,              -- a table, or 'change' for the change_no of tags
        id INTEGER NOT NULL
    ) WITHOUT ROWID;
    INSERT INTO last_id VALUES ('change', 0), ('content', 0), ('layer', 0);
    -- For pruning: what is gone for long, and whether an index still names a manifest.
    CREATE INDEX tag_gone ON tag (gone_at) WHERE gone_at IS NOT NULL;
    CREATE INDEX tag_history_until ON tag_history (until);
    CREATE INDEX index_entry_digest ON index_entry (digest);
    CREATE INDEX job_lease ON job (lease_owner) WHERE lease_owner IS NOT NULL;
    "];

/// The same for the file of events.
const EVENT_STEPS: &[&str] = &["
    -- Accepted webhooks: images that may have changed, one row each. A row goes when the image was looked at.
    CREATE TABLE event (
        id INTEGER PRIMARY KEY,
        source_id INTEGER NOT NULL,           -- a row of the other file
        repository TEXT NOT NULL,
        tag TEXT NOT NULL,
        is_delete INTEGER NOT NULL,           -- of the last one
        n_received INTEGER NOT NULL DEFAULT 1,
        received_at INTEGER NOT NULL,         -- the first one
        attempts INTEGER NOT NULL DEFAULT 0,
        next_try INTEGER NOT NULL DEFAULT 0,
        error TEXT,
        lease_owner TEXT,
        lease_until INTEGER NOT NULL DEFAULT 0,
        UNIQUE (source_id, repository, tag)
    );
    CREATE INDEX event_next ON event (next_try, id) WHERE lease_owner IS NULL;
    "];

/// Brings the schema of the file of events up to date. Errors as [`migrate`].
pub(super) fn migrate_events(connection: &mut Connection) -> Result<()> {
    steps(connection, EVENT_STEPS)
}

/// Brings the schema up to date. Errors (`Stop`) when a newer version of the program made the store.
pub(super) fn migrate(connection: &mut Connection) -> Result<()> {
    steps(connection, STEPS)
}

fn steps(connection: &mut Connection, steps: &[&str]) -> Result<()> {
    let run = |connection: &mut Connection| -> rusqlite::Result<usize> {
        let transaction =
            connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let done: usize = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
        for step in steps.get(done..).unwrap_or_default() {
            transaction.execute_batch(step)?;
        }
        if done < steps.len() {
            transaction.pragma_update(None, "user_version", steps.len())?;
        }
        transaction.commit()?;
        Ok(done)
    };
    let done: usize = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(|err| store_error(&err))?;
    let done = if done == steps.len() {
        done
    } else {
        run(connection).map_err(|err| store_error(&err))?
    };
    if done > steps.len() {
        return Err(Error::stop(format_args!(
            "it has schema {done}, this version knows {}",
            steps.len()
        ))
        .hint("use the newer crowsnest that made it"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_of_every_earlier_version_are_brought_up_to_date() {
        for version in 0..STEPS.len() {
            let mut connection = Connection::open_in_memory().unwrap();
            for step in &STEPS[..version] {
                connection.execute_batch(step).unwrap();
            }
            connection
                .pragma_update(None, "user_version", version)
                .unwrap();
            if version == 1 {
                connection
                    .execute_batch(
                        "INSERT INTO source (id, name) VALUES (1, 'oci r');
                         INSERT INTO repository VALUES (1, 1, 'app', 'r/app');
                         INSERT INTO tag VALUES (1, 1, 'v1', 'sha256:00', 5, 5, NULL);
                         INSERT INTO job (tag_id, state, next_try, created_at) VALUES (1, 'ready', 7, 7);",
                    )
                    .unwrap();
            }
            migrate(&mut connection).unwrap();
            let jobs: Vec<(u8, u64)> = connection
                .prepare("SELECT lane, next_try FROM job")
                .unwrap()
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
                .unwrap()
                .map(|row| row.unwrap())
                .collect();
            // Waiting since before there were lanes, and for nothing.
            assert_eq!(jobs, if version == 1 { vec![(1, 0)] } else { vec![] });
        }
    }

    #[test]
    fn a_store_of_a_later_version_is_left_alone() {
        let mut connection = Connection::open_in_memory().unwrap();
        connection
            .pragma_update(None, "user_version", STEPS.len() + 1)
            .unwrap();
        let err = migrate(&mut connection).unwrap_err();
        assert!(err.to_string().contains("it has schema"), "{err}");
    }
}
