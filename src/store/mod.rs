//! The embedded store: SQLite in the data directory, shared by every command and process.
//!
//! In and out: values of `image`, `sbom` and this module's own rows; functions are named after the question
//! they answer, and no SQL stands anywhere else. One connection of a process writes, under a lock that is
//! never held over a socket; reads have connections of their own and are never blocked (WAL). Several
//! processes may use one store: a writer waits for the other up to [`BUSY`].
//!
//! Errors: `Stop` when the file is damaged; `Stop` with a time to try again when the disk is full or not
//! writable, which may pass; `Retry` when another process held the write lock too long.
//!
//! *Invariant:* every write is one transaction, so a process killed at any moment leaves no half-written
//! state.

mod check;
mod checkpoint;
mod compact;
pub(crate) mod events;
pub(crate) mod images;
pub(crate) mod layers;
pub(crate) mod lease;
pub(crate) mod listed;
pub(crate) mod listing;
pub(crate) mod packages;
pub(crate) mod prune;
pub(crate) mod queue;
pub(crate) mod retry;
mod sbom;
mod schema;
pub(crate) mod tags;
#[cfg(test)]
mod testdata;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};

use crate::error::{Error, Kind, Result};
use crate::image::Digest;
use crate::time::Timestamp;

/// How long to wait for another process's write; theirs are short.
const BUSY: Duration = Duration::from_secs(20);
/// Connections for reading that are kept. Each takes four files and some memory; more are made when needed.
const READERS: usize = 8;
/// How long to wait before the next try then.
const BUSY_AGAIN: Duration = Duration::from_secs(1);
/// How long to wait before a disk that could not be written is tried again.
const PROBE: Duration = Duration::from_secs(2);
/// Name of the file in the data directory.
const FILE: &str = "crowsnest.db";

/// The open store.
pub(crate) struct Store {
    path: PathBuf,
    writer: Mutex<Connection>,
    /// Events have a file of their own: whoever sends one waits until it is on the disk, and need not wait for what
    /// a backfill has written meanwhile.
    events: Mutex<Connection>,
    readers: Mutex<Vec<Connection>>,
}

/// How images are to be read now; what was read in another way is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    /// Names of the platforms, sorted and joined by commas; `""` for all.
    pub(crate) platforms: String,
    /// Names of the ecosystems that look at layers.
    pub(crate) ecosystems: String,
    /// Bytes of a layer's tar up to which it is read.
    pub(crate) max_layer_bytes: u64,
}

/// Numbers for `crowsnest status`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) repositories: u64,
    pub(crate) tags: u64,
    pub(crate) images: u64,
    pub(crate) layers: u64,
    /// Compressed bytes of the layers read.
    pub(crate) layer_bytes: u64,
    pub(crate) packages: u64,
    /// Bytes of the store's files.
    pub(crate) store_bytes: u64,
}

impl Store {
    /// Opens the store in `dir`, making both when they are not there, and brings the schema up to date.
    /// Errors (`Stop`) when that cannot be done, or a newer version made the store.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let shown = dir.display();
        std::fs::create_dir_all(dir).map_err(|err| {
            Error::stop(format_args!("data directory `{shown}`: {err}"))
                .hint("choose another with --data-dir")
        })?;
        let path = dir.join(FILE);
        let is_new = !path.exists();
        let mut writer = connect(&path, OpenFlags::default())?;
        schema::migrate(&mut writer)
            .map_err(|err| err.context(format_args!("opening the store `{}`", path.display())))?;
        let events = open_events(&path, is_new)
            .map_err(|err| err.context(format_args!("opening the store `{}`", path.display())))?;
        Ok(Store {
            path,
            writer: Mutex::new(writer),
            events: Mutex::new(events),
            readers: Mutex::default(),
        })
    }

    /// Whether there is a store in `dir`. Errors (`Tell`) when the directory may not be looked into.
    pub(crate) fn exists(dir: &Path) -> Result<bool> {
        let is_there = dir.join(FILE).try_exists();
        is_there
            .map_err(|err| Error::tell(format_args!("data directory `{}`: {err}", dir.display())))
    }

    /// Opens the store in `dir` for a command that only looks.
    /// Errors (`Tell`) when there is none, or its directory may not be looked into.
    pub(crate) fn open_existing(dir: &Path) -> Result<Self> {
        if !Self::exists(dir)? {
            return Err(
                Error::tell(format_args!("there is no store in `{}` yet", dir.display())).hint(
                    "run `crowsnest watch` first, or name its data directory with --data-dir",
                ),
            );
        }
        Self::open(dir)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `work` in one write transaction.
    fn write<T>(&self, work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>) -> Result<T> {
        self.write_unless(|db| work(db).map(Ok))
    }

    /// Runs `work` in one write transaction. When it ends in an error of ours, nothing is written, and that is
    /// the error.
    fn write_unless<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<Result<T>>,
    ) -> Result<T> {
        let mut connection = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        transact(&mut connection, TransactionBehavior::Immediate, work)
            .map_err(|err| self.error(&err))
            .flatten()
    }

    /// Runs `work` in one write transaction that is on the disk when this returns, so that not even a power cut
    /// takes it back.
    fn write_durably<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T> {
        let mut connection = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let result = connection
            .pragma_update(None, "synchronous", "FULL")
            .and_then(|()| {
                let work = |db: &Transaction<'_>| work(db).map(Ok);
                transact(&mut connection, TransactionBehavior::Immediate, work)
            });
        let reset = connection.pragma_update(None, "synchronous", "NORMAL");
        result
            .and_then(|value| reset.map(|()| value))
            .map_err(|err| self.error(&err))
            .flatten()
    }

    /// Runs `work` in one write transaction on the file of events, which is on the disk when this returns. Tables of
    /// the store can be read.
    fn write_events<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T> {
        self.write_events_unless(|db| work(db).map(Ok))
    }

    /// The same; when `work` ends in an error of ours, nothing is written, and that is the error.
    fn write_events_unless<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<Result<T>>,
    ) -> Result<T> {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        // Begun by its first write: else the other file would be locked too.
        transact(&mut events, TransactionBehavior::Deferred, work)
            .map_err(|err| self.error(&err))
            .flatten()
    }

    /// Runs `work` seeing one state of the store.
    fn read<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        self.on_own_connection(|connection| {
            let transaction = connection.unchecked_transaction()?;
            let value = work(&transaction)?;
            transaction.finish()?;
            Ok(value)
        })
    }

    /// Runs `work` on a connection beside the writer's.
    fn on_own_connection<T>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T> {
        let pooled = self
            .readers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        let connection = match pooled {
            Some(connection) => connection,
            None => {
                let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
                let connection = connect(&self.path, flags)?;
                attach(&connection, &events_path(&self.path)).map_err(|err| self.error(&err))?;
                connection
            }
        };
        let value = work(&connection).map_err(|err| self.error(&err))?;
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if readers.len() < READERS {
            readers.push(connection);
        }
        Ok(value)
    }

    fn error(&self, err: &rusqlite::Error) -> Error {
        store_error(err).context(format_args!("store `{}`", self.path.display()))
    }

    /// Everything counted.
    pub(crate) fn counts(&self) -> Result<Counts> {
        let mut counts = self.read(|db| {
            db.query_row(
                "SELECT (SELECT count(*) FROM repository),
                        (SELECT count(*) FROM tag WHERE gone_at IS NULL),
                        (SELECT count(*) FROM manifest WHERE kind = 'image' AND indexed_at IS NOT NULL),
                        (SELECT count(*) FROM layer WHERE refused IS NULL),
                        (SELECT coalesce(sum(size), 0) FROM layer WHERE refused IS NULL),
                        (SELECT count(*) FROM package)",
                [],
                |row| {
                    Ok(Counts {
                        repositories: row.get(0)?,
                        tags: row.get(1)?,
                        images: row.get(2)?,
                        layers: row.get(3)?,
                        layer_bytes: row.get(4)?,
                        packages: row.get(5)?,
                        store_bytes: 0,
                    })
                },
            )
        })?;
        counts.store_bytes = self.bytes();
        Ok(counts)
    }

    /// Bytes of the store's files.
    fn bytes(&self) -> u64 {
        ["", "-wal", "-events", "-events-wal"]
            .iter()
            .filter_map(|suffix| std::fs::metadata(format!("{}{suffix}", self.path.display())).ok())
            .map(|file| file.len())
            .sum()
    }
}

/// Runs `work` in one transaction, which is taken back when it ends in an error of ours.
fn transact<T>(
    connection: &mut Connection,
    behavior: TransactionBehavior,
    work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<Result<T>>,
) -> rusqlite::Result<Result<T>> {
    let transaction = connection.transaction_with_behavior(behavior)?;
    let value = work(&transaction)?;
    if value.is_ok() {
        transaction.commit()?;
    }
    Ok(value)
}

/// The file of events beside the store's.
fn events_path(path: &Path) -> PathBuf {
    PathBuf::from(format!("{}-events", path.display()))
}

/// Opens the file of events. Those of another store, which was moved away, are of no use.
fn open_events(path: &Path, is_new: bool) -> Result<Connection> {
    let mut events = connect(&events_path(path), OpenFlags::default())?;
    schema::migrate_events(&mut events)?;
    let run = || {
        if is_new {
            events.execute("DELETE FROM event", [])?;
        }
        events.pragma_update(None, "synchronous", "FULL")?;
        attach(&events, path)
    };
    run().map_err(|err| store_error(&err))?;
    Ok(events)
}

/// Lets a connection read the tables of the other file.
fn attach(connection: &Connection, path: &Path) -> rusqlite::Result<()> {
    connection.execute("ATTACH ?1 AS beside", [path.display().to_string()])?;
    Ok(())
}

fn connect(path: &Path, flags: OpenFlags) -> Result<Connection> {
    let open = || {
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        // A killed process loses nothing; only a power cut may cost the last passes, which are repeated. What
        // must survive that too is written by `write_durably`.
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        connection.pragma_update(None, "cache_size", -4096)?;
        connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
        // The log is copied beside the writers, see `checkpoint`; a commit does it only when nobody else does.
        connection.pragma_update(None, "wal_autocheckpoint", 16_384)?;
        // Plans do not depend on the values bound. Else SQLite, built with STAT4, plans a cached statement anew
        // for each use, which takes longer than to run it.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(connection)
    };
    open().map_err(|err: rusqlite::Error| {
        store_error(&err).context(format_args!("opening the store `{}`", path.display()))
    })
}

fn store_error(err: &rusqlite::Error) -> Error {
    match err.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            Error::new(Kind::Retry, "another process is writing for too long").after(BUSY_AGAIN)
        }
        Some(ErrorCode::DiskFull) => Error::stop("the disk is full")
            .hint("free some space; nothing was damaged")
            .after(PROBE),
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            Error::stop(err)
                .hint("the data directory must be writable; choose another with --data-dir")
                .after(PROBE)
        }
        Some(ErrorCode::SystemIoFailure) => Error::stop(err)
            .hint("the disk reports errors; nothing half-written is used")
            .after(PROBE),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Error::stop(err).hint(
            "move the file away and run again: everything in it can be read from the registries",
        ),
        _ => Error::stop(err),
    }
}

/// What an image relied on and is not stored any more: it was in no image when it was pruned. The next try
/// reads it again.
fn vanished(what: &str, name: &str) -> Error {
    Error::retry(format_args!("{what} `{name}` was pruned meanwhile"))
}

/// SQL for a number of a new row of `table` that no row ever had: a worker may hold that of a row that was
/// pruned.
fn new_id(table: &str) -> String {
    format!(
        "(SELECT max(coalesce((SELECT max(id) FROM {table}), 0),
                     (SELECT id FROM last_id WHERE kind = '{table}')) + 1)"
    )
}

/// Reads a stored moment.
fn moment(row: &rusqlite::Row<'_>, column: &str) -> rusqlite::Result<Option<Timestamp>> {
    Ok(row
        .get::<_, Option<i64>>(column)?
        .map(Timestamp::from_millis))
}

/// Reads a stored digest.
fn digest(row: &rusqlite::Row<'_>, column: &str) -> rusqlite::Result<Digest> {
    parsed(row.get(column)?)
}

/// Reads a stored digest that may be absent.
fn optional_digest(row: &rusqlite::Row<'_>, column: &str) -> rusqlite::Result<Option<Digest>> {
    row.get::<_, Option<String>>(column)?
        .map(parsed)
        .transpose()
}

fn parsed(text: String) -> rusqlite::Result<Digest> {
    text.parse::<Digest>()
        .map_err(|err| rusqlite::Error::ToSqlConversionFailure(Box::new(err)))
}

/// A list of short texts in one column.
fn joined(texts: &[String]) -> String {
    texts.join("\n")
}

fn split(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}
