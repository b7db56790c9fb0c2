//! Keeping the write-ahead log small, however busy the store is.
//!
//! SQLite's own checkpoints run inside a commit and start the log anew only when no write comes in between, so
//! that under steady load it grows for ever. Here the pages are copied beside the writers, and only the last
//! few with the writers held back (<https://www.sqlite.org/wal.html>, section 6).

use std::path::Path;
use std::sync::PoisonError;
use std::time::Duration;

use rusqlite::Connection;

use super::{BUSY, Store, events_path};
use crate::error::Result;

/// Bytes of the log from which it is copied into the store.
const FROM: u64 = 4 << 20;
/// Bytes of the log past which readers are asked to let go of it.
const URGENT: u64 = 64 << 20;

impl Store {
    /// Writes something that changes nothing, large enough that a disk with room for one row is not taken for
    /// mended. Errors as every write.
    pub(crate) fn probe(&self) -> Result<()> {
        // In two transactions, since pages that one fills and frees are never written.
        self.write_durably(|db| {
            db.execute("CREATE TABLE IF NOT EXISTS probe (filling BLOB)", [])?;
            db.execute("INSERT INTO probe VALUES (zeroblob(262144))", [])?;
            Ok(())
        })?;
        self.write_durably(|db| db.execute("DROP TABLE IF EXISTS probe", []))?;
        Ok(())
    }

    /// Copies the logs into their files when they have grown. Called now and then by one thread.
    pub(crate) fn keep_log_small(&self) -> Result<()> {
        let size = |path: &Path| {
            let log = std::fs::metadata(format!("{}-wal", path.display()));
            log.map_or(0, |file| file.len())
        };
        let files = [
            (self.path.clone(), &self.writer),
            (events_path(&self.path), &self.events),
        ];
        for (path, writer) in files {
            if size(&path) < FROM {
                continue;
            }
            // Both files, since one is attached to the other.
            self.on_own_connection(|db| checkpoint(db, "PASSIVE"))?;
            let writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
            // TRUNCATE waits for readers; PASSIVE never waits.
            let mode = if size(&path) >= URGENT {
                "TRUNCATE"
            } else {
                "PASSIVE"
            };
            let run = || {
                // Nobody shall wait long for a reader that takes its time.
                writer.busy_timeout(Duration::from_millis(50))?;
                let result = checkpoint(&writer, mode);
                writer.busy_timeout(BUSY)?;
                result
            };
            run().map_err(|err| self.error(&err))?;
        }
        Ok(())
    }
}

fn checkpoint(db: &Connection, mode: &str) -> rusqlite::Result<()> {
    let files = if mode == "PASSIVE" { "" } else { "main." };
    db.query_row(&format!("PRAGMA {files}wal_checkpoint({mode})"), [], |_| {
        Ok(())
    })
}
