//! Package ecosystems: which files of an image tell of packages, and what they say.
//!
//! In: paths and bytes of files. Out: [`Package`]s, the [`Distro`], and for what was recognized and not
//! understood a message in [`Found::problems`]. One file per ecosystem holds the things that change
//! together. To add one: a new file with a `pub(crate) const ROW: Ecosystem`, and its name in [`ALL`].
//!
//! Three kinds of evidence are served: a database that replaces itself (dpkg `status`: the file of the
//! highest layer counts), many small files (npm, Python, status.d: each counts until a higher layer hides
//! it), and a big file of which a small part is taken out as it streams by ([`Extract`]: Go binaries).
//!
//! *Invariant:* pure. No file, clock, network or memory between calls, so that the same bytes always give
//! the same packages, in any layer and on any thread.

use crate::sbom::{Distro, Package};

mod apk;
mod dpkg;
mod field;
mod go;
mod npm;
mod os_release;
mod python;
#[cfg(test)]
mod testdata;
pub(crate) mod unread;

/// Every ecosystem, in the order in which they are shown.
pub(crate) const ALL: &[&Ecosystem] = &[
    &os_release::ROW,
    &dpkg::ROW,
    &apk::ROW,
    &npm::ROW,
    &python::ROW,
    &go::ROW,
];

/// A package ecosystem: one row of the table.
pub(crate) struct Ecosystem {
    /// The word used on the command line, in logs and in the store.
    pub(crate) name: &'static str,
    /// What it reads, for help texts: `Debian packages (status, status.d)`.
    pub(crate) summary: &'static str,
    /// Raised when `parse` yields something else for the same bytes; stored evidence is then parsed again.
    pub(crate) version: u32,
    /// Whether the packages belong to the image's distribution and are named by it.
    pub(crate) of_distro: bool,
    /// Whether, and how, a file of a layer is wanted.
    pub(crate) wants: fn(&Candidate<'_>) -> Option<Want>,
    /// Reads the bytes of one evidence file, or the part of it that was extracted.
    pub(crate) parse: fn(&[u8], &mut Found),
}

/// A regular file of a layer, before its bytes are read.
pub(crate) struct Candidate<'a> {
    /// No leading slash, no `.` or `..` components.
    pub(crate) path: &'a str,
    /// Bytes.
    pub(crate) size: u64,
}

/// How an ecosystem wants a file.
pub(crate) enum Want {
    /// The whole file, if it has at most so many bytes; a larger one becomes a problem.
    Whole { max: u64 },
    /// A part that is found while the file streams by.
    Part(Box<dyn Extract>),
}

/// Takes the telling part out of a big file in bounded memory.
pub(crate) trait Extract: Send {
    /// Gets the next bytes of the file. Returns `false` when no more are needed.
    fn feed(&mut self, bytes: &[u8]) -> bool;
    /// What was found: `Ok(None)` when the file is of no interest, `Err` with a message when it was
    /// recognized and not understood.
    fn finish(self: Box<Self>) -> Result<Option<Vec<u8>>, String>;
}

/// What an ecosystem read out of one evidence file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) packages: Vec<Package>,
    pub(crate) distro: Option<Distro>,
    /// One line each, without the path.
    pub(crate) problems: Vec<String>,
}

/// The names of all ecosystems, to tell a layer that was looked at by others.
pub(crate) fn names() -> String {
    let names: Vec<&str> = ALL.iter().map(|row| row.name).collect();
    names.join(" ")
}

/// The ecosystem of that name.
pub(crate) fn named(name: &str) -> Option<&'static Ecosystem> {
    ALL.iter().find(|row| row.name == name).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_words() {
        for (at, row) in ALL.iter().enumerate() {
            assert!(
                row.name
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b == b'-'),
                "{}",
                row.name
            );
            assert!(
                ALL[at + 1..].iter().all(|other| other.name != row.name),
                "{} stands twice",
                row.name
            );
            assert!(row.version > 0 && !row.summary.is_empty(), "{}", row.name);
        }
    }
}
