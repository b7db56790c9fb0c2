//! Output formats: answers of the store as tables, lists, JSON and CSV, one file each.
//!
//! In: the answers below, computed by `report`, the same whatever the format. Out: bytes on a writer. A format
//! is a row, named once in [`ALL`]; the choices of `--format`, the help and the man page are derived from
//! the rows. To add one: a new file with its row, and its name in the list.
//!
//! Texts come from registries and images: formats for people write them with [`printable`], JSON escapes what
//! a terminal would act on. Nothing is cut without saying so. Errors: those of the writer, and those of the
//! rows, which travel as `io::Error`.
//!
//! *Invariant:* the same answer gives the same bytes; no format looks at the clock, the terminal or the store.
//!
//! [`printable`]: crate::printable::printable

mod csv;
mod json;
mod list;
mod table;

use std::io::{self, Write};

use crate::error::{Error, Result};
use crate::image::Digest;
use crate::sbom::{Sbom, State};
use crate::time::Timestamp;

/// Every format, in the order in which they are shown.
const ALL: &[&Format] = &[&table::FORMAT, &list::FORMAT, &json::FORMAT, &csv::FORMAT];

/// A format: its row.
pub(crate) struct Format {
    /// As in `--format json`.
    pub(crate) name: &'static str,
    /// One sentence without a period.
    pub(crate) summary: &'static str,
    /// Those that it can show.
    pub(crate) images: Option<WriteImages>,
    pub(crate) sbom: Option<WriteSbom>,
    pub(crate) status: Option<WriteStatus>,
}

pub(crate) type WriteImages = fn(ImagesAnswer<'_>, &mut dyn Write) -> io::Result<()>;
pub(crate) type WriteSbom = fn(&SbomAnswer, &mut dyn Write) -> io::Result<()>;
pub(crate) type WriteStatus = fn(&StatusAnswer, &mut dyn Write) -> io::Result<()>;

/// What `crowsnest images` shows. There may be more rows than memory can hold.
pub(crate) struct ImagesAnswer<'a> {
    /// Sorted by repository, tag and platform.
    pub(crate) rows: &'a mut dyn Iterator<Item = Result<ImageRow>>,
    /// Whether there may be tags that are gone.
    pub(crate) with_gone: bool,
}

/// A tag, or one platform of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ImageRow {
    /// As users pull it, host included.
    pub(crate) repository: String,
    pub(crate) tag: String,
    /// That the tag points to.
    pub(crate) digest: Digest,
    /// Of the image: another one when the tag points to an index. `None` while it is not known.
    pub(crate) image_digest: Option<Digest>,
    pub(crate) platform: Option<String>,
    pub(crate) packages: Option<u64>,
    /// Compressed bytes of the layers.
    pub(crate) size: Option<u64>,
    pub(crate) first_seen: Timestamp,
    pub(crate) last_seen: Timestamp,
    pub(crate) gone_at: Option<Timestamp>,
    pub(crate) state: State,
    /// Why it is not indexed, as far as that is an error.
    pub(crate) error: Option<String>,
}

/// What `crowsnest sbom` shows.
#[derive(Clone, Debug)]
pub(crate) struct SbomAnswer {
    /// The tags that point to the image, as `repository:tag`; the one that was asked for first, then sorted.
    /// May be empty.
    pub(crate) names: Vec<String>,
    pub(crate) sbom: Sbom,
}

/// What `crowsnest status` shows.
#[derive(Clone, Debug, Default)]
pub(crate) struct StatusAnswer {
    /// Path of the store, and bytes of its files.
    pub(crate) path: String,
    pub(crate) bytes: u64,
    pub(crate) repositories: u64,
    /// Without those that are gone.
    pub(crate) tags: u64,
    /// Indexed images, each platform by itself.
    pub(crate) images: u64,
    /// Those of current tags with layers or files that could not be read.
    pub(crate) incomplete_images: u64,
    pub(crate) layers: u64,
    /// Compressed bytes of the layers that were read.
    pub(crate) layer_bytes: u64,
    pub(crate) packages: u64,
    /// Sorted by name.
    pub(crate) sources: Vec<SourceStatus>,
    pub(crate) queue: QueueStatus,
    pub(crate) events: EventsStatus,
    /// Sorted by image.
    pub(crate) failures: Vec<Failure>,
    /// Failures that are not among them, since there are so many.
    pub(crate) failures_unlisted: u64,
}

/// A registry or folder that was watched.
#[derive(Clone, Debug)]
pub(crate) struct SourceStatus {
    pub(crate) name: String,
    pub(crate) repositories: u64,
    pub(crate) tags: u64,
    /// The end of its last listing.
    pub(crate) listed_at: Option<Timestamp>,
    /// Why it cannot be listed, and since when.
    pub(crate) error: Option<String>,
    pub(crate) error_since: Option<Timestamp>,
}

/// How many images wait to be read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct QueueStatus {
    pub(crate) waiting: u64,
    /// Those of the waiting that failed before.
    pub(crate) retrying: u64,
    /// Those of the waiting that were just pushed, and go first.
    pub(crate) pushed: u64,
    /// When the first of the retrying is due; `None` when all are.
    pub(crate) next_try: Option<Timestamp>,
    pub(crate) running: u64,
    pub(crate) failed: u64,
}

/// Accepted webhooks that were not looked at yet.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct EventsStatus {
    pub(crate) waiting: u64,
    /// When the oldest was received.
    pub(crate) waiting_since: Option<Timestamp>,
}

/// An image that could not be read so far.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// `repository:tag`
    pub(crate) image: String,
    pub(crate) digest: String,
    pub(crate) error: String,
    pub(crate) hint: Option<String>,
    pub(crate) attempts: u32,
    pub(crate) next_try: NextTry,
}

/// What becomes of an image that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NextTry {
    At(Timestamp),
    /// As soon as a worker is free.
    Now,
    /// With the next run.
    NextRun,
    /// When the tag points to another image.
    WhenChanged,
}

/// All rows, for the man page.
pub(crate) fn all() -> &'static [&'static Format] {
    ALL
}

/// The names of the formats that can show what `part` asks for.
pub(crate) fn names<T>(part: fn(&Format) -> Option<T>) -> Vec<&'static str> {
    let able = ALL.iter().filter(|format| part(format).is_some());
    able.map(|format| format.name).collect()
}

/// The function of the format of that name. Errors (`Tell`) when it cannot show what `part` asks for.
pub(crate) fn named<T>(name: &str, part: fn(&Format) -> Option<T>) -> Result<T> {
    let format = ALL.iter().find(|format| format.name == name);
    format
        .and_then(|format| part(format))
        .ok_or_else(|| Error::tell(format_args!("there is no format `{name}` here")))
}

/// Bytes in three digits or so, decimal as registries count: `215 B`, `7.2 kB`, `188 MB`.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64;
    for unit in UNITS {
        value /= 1000.0;
        // What would be written as `1000 kB` is `1.0 MB`.
        if value < 99.95 {
            return format!("{value:.1} {unit}");
        }
        if value < 999.5 {
            return format!("{value:.0} {unit}");
        }
    }
    format!("{value:.0} PB")
}

/// `1 layer`, `2 layers`.
fn count(n: u64, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_well_formed() {
        for (at, format) in ALL.iter().enumerate() {
            assert!(ALL[at + 1..].iter().all(|other| other.name != format.name));
            assert!(
                format.summary.starts_with(char::is_uppercase) && !format.summary.ends_with('.')
            );
            assert!(format.images.is_some() || format.sbom.is_some() || format.status.is_some());
        }
        assert_eq!(names(|format| format.images), ["table", "json", "csv"]);
        assert!(named("list", |format| format.images).is_err());
    }

    #[test]
    fn sizes_read_well() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (99_960, "100 kB"),
            (215_902, "216 kB"),
            (999_600, "1.0 MB"),
            (187_881_003, "188 MB"),
            (3_550_000_000, "3.5 GB"),
            (u64::MAX, "18447 PB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}

#[cfg(test)]
mod testdata;
