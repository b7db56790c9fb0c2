//! Giving the room of deleted rows back to the disk.

use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::{Store, connect};
use crate::error::{Error, Kind, Result};

/// How long to wait for another process's write. Theirs are short, so who writes for longer is busy.
const PATIENCE: Duration = Duration::from_secs(2);

/// What it came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Compacted {
    /// Bytes of the store's files.
    pub(crate) before: u64,
    pub(crate) after: u64,
    /// Whether a reader kept the old pages, so that the file shrinks only when it has ended.
    pub(crate) is_held: bool,
}

impl Store {
    /// Writes the store anew without gaps, beside its readers; writers wait as long as it takes. Needs about twice
    /// the room of what is stored, in the store's folder. Errors: `Tell` when another process writes; `Stop` as
    /// every write.
    pub(crate) fn compact(&self) -> Result<Compacted> {
        let before = self.bytes();
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = connect(&self.path, flags)?;
        let run = || {
            db.busy_timeout(PATIENCE)?;
            // The copy may be larger than memory, and than what `/tmp` can hold.
            db.pragma_update(None, "temp_store", "FILE")?;
            let folder = self
                .path
                .parent()
                .map(|folder| folder.display().to_string());
            db.pragma_update(None, "temp_store_directory", folder.unwrap_or_default())?;
            empty_log(&db)?;
            db.execute_batch("VACUUM")?;
            empty_log(&db)
        };
        let is_held = run().map_err(|err| {
            let err = self.error(&err);
            if err.kind() != Kind::Retry {
                return err;
            }
            Error::tell("another process writes to the store, so it cannot be compacted now")
                .hint("try again when that is done, or stop it first")
        })?;
        Ok(Compacted {
            before,
            after: self.bytes(),
            is_held,
        })
    }
}

/// Copies the log into the store and cuts it off. Returns whether a reader was in the way.
fn empty_log(db: &Connection) -> rusqlite::Result<bool> {
    db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
}
