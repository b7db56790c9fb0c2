//! Opening files: only regular ones, and only below the folder that the user gave.

use std::fs::{File, Metadata};
use std::io;
use std::path::Path;
use std::time::UNIX_EPOCH;

use crate::error::{Error, Result};
use crate::limit;

/// What tells that a file is still the one that was read: size in bytes and time of the last change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) size: u64,
    /// Whole seconds since 1970, negative before, and nanoseconds.
    pub(super) modified: (i64, u32),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        // A file system without times still has sizes.
        let modified = metadata.modified().unwrap_or(UNIX_EPOCH);
        let (sign, distance) = match modified.duration_since(UNIX_EPOCH) {
            Ok(since) => (1, since),
            Err(before) => (-1, before.duration()),
        };
        let seconds = i64::try_from(distance.as_secs()).unwrap_or(i64::MAX);
        Stamp {
            size: metadata.len(),
            modified: (sign * seconds, distance.subsec_nanos()),
        }
    }
}

/// Opens a regular file. Links are followed as long as they stay below `within`, which is canonical.
/// Errors: `Skip` when it is not there, leads outside or is no regular file, `Tell` when it may not be read.
pub(super) fn open(within: &Path, path: &Path) -> Result<(File, Stamp)> {
    let (real, _) = look(within, path)?;
    let file = File::open(&real).map_err(|err| trouble(path, &err))?;
    let metadata = file.metadata().map_err(|err| trouble(path, &err))?;
    Ok((file, Stamp::of(&metadata)))
}

/// The stamp of a regular file without opening it. Errors as [`open`].
pub(super) fn stamp(within: &Path, path: &Path) -> Result<Stamp> {
    look(within, path).map(|(_, stamp)| stamp)
}

/// Reads a whole file of at most `cap` bytes. Errors as [`open`], and `Limit` when it has more.
pub(super) fn read(within: &Path, path: &Path, cap: u64, what: &'static str) -> Result<Vec<u8>> {
    let (file, stamp) = open(within, path)?;
    if stamp.size > cap {
        return Err(limit::over(what, cap).context(format_args!("reading `{}`", path.display())));
    }
    limit::read_all(file, cap, what)
        .map_err(|err| err.context(format_args!("reading `{}`", path.display())))
}

/// The error for a file that cannot be had.
pub(super) fn trouble(path: &Path, err: &io::Error) -> Error {
    let message = format!("reading `{}`: {err}", path.display());
    match err.kind() {
        io::ErrorKind::NotFound => Error::skip(message),
        io::ErrorKind::PermissionDenied => {
            Error::tell(message).hint("make it readable for the user that crowsnest runs as")
        }
        _ => Error::retry(message),
    }
}

fn look(within: &Path, path: &Path) -> Result<(std::path::PathBuf, Stamp)> {
    let real = path.canonicalize().map_err(|err| trouble(path, &err))?;
    if !real.starts_with(within) {
        return Err(Error::skip(format_args!(
            "`{}` leads out of `{}`",
            path.display(),
            within.display()
        )));
    }
    let metadata = real.symlink_metadata().map_err(|err| trouble(path, &err))?;
    if !metadata.is_file() {
        return Err(Error::skip(format_args!(
            "`{}` is not a regular file",
            path.display()
        )));
    }
    Ok((real, Stamp::of(&metadata)))
}
