//! What lies in the folder: layouts, and files that look like archives by their name.
//!
//! In the order of names. Names that begin with a dot are passed over: tools that copy keep unfinished files
//! there. Links are followed as long as they stay below the folder and do not lead to one we are in.

use std::fs;
use std::path::{Path, PathBuf};

use super::file;
use super::layout::Form;
use crate::error::Result;

/// Files and folders looked at in one folder, all levels together.
const ENTRIES: usize = 100_000;
/// Folders inside folders.
const DEPTH: usize = 8;
/// Names of archives end so. Those that cannot be read are here too, so that somebody hears of them.
const EXTENSIONS: [&str; 17] = [
    ".tar",
    ".tar.gz",
    ".tgz",
    ".tar.zst",
    ".tar.zstd",
    ".tzst",
    ".tar.xz",
    ".txz",
    ".tar.bz2",
    ".tbz2",
    ".tbz",
    ".tar.lz4",
    ".tar.lz",
    ".tar.lzma",
    ".tlz",
    ".tar.z",
    ".taz",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Layout(Form),
    Archive,
}

/// A layout or an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) what: What,
    /// Below the root, links not resolved.
    pub(super) path: PathBuf,
    /// What it is called after: the path below the root, without an archive's extension.
    pub(super) called: PathBuf,
}

#[derive(Debug, Default)]
pub(super) struct Walk {
    pub(super) found: Vec<Found>,
    pub(super) left_out: Vec<String>,
    /// Whether a folder could not be read, or a limit was reached.
    pub(super) has_gaps: bool,
    n_entries: usize,
}

/// Looks through `root`, which is canonical: a folder, a layout or an archive of any name. Errors when it cannot
/// be read, as [`file::open`].
pub(super) fn walk(root: &Path) -> Result<Walk> {
    let mut walk = Walk::default();
    let metadata = fs::metadata(root).map_err(|err| file::trouble(root, &err))?;
    let own_name = PathBuf::from(root.file_name().unwrap_or_default());
    if metadata.is_file() {
        walk.add(What::Archive, root.to_owned(), own_name);
    } else if let Some(form) = Form::of(root) {
        walk.add(What::Layout(form), root.to_owned(), own_name);
    } else {
        let mut inside = vec![root.to_owned()];
        walk.folder(root, root, &mut inside)?;
    }
    Ok(walk)
}

/// A file name without the extension of an archive; `None` when it has no such extension.
fn stem(name: &str) -> Option<&str> {
    let lower = name.to_ascii_lowercase();
    // `x.tar` is no end of `x.tar.gz`, so that at most one fits.
    let extension = EXTENSIONS
        .iter()
        .find(|extension| lower.ends_with(**extension))?;
    name.get(..name.len() - extension.len())
        .filter(|stem| !stem.is_empty())
}

impl Walk {
    fn add(&mut self, what: What, path: PathBuf, mut called: PathBuf) {
        if what == What::Archive {
            let name = called
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            called.set_file_name(stem(&name).unwrap_or(&name));
        }
        self.found.push(Found { what, path, called });
    }

    fn leave_gap(&mut self, reason: String) {
        self.has_gaps = true;
        self.left_out.push(reason);
    }

    /// `inside` are the canonical paths of the folders that we are in, the last being that of `folder`.
    fn folder(&mut self, root: &Path, folder: &Path, inside: &mut Vec<PathBuf>) -> Result<()> {
        let trouble = |err| file::trouble(folder, &err);
        let mut paths = Vec::new();
        for entry in fs::read_dir(folder).map_err(trouble)? {
            self.n_entries += 1;
            if self.n_entries > ENTRIES {
                self.leave_gap(format!(
                    "`{}`: what follows the first {ENTRIES} files and folders, which is the limit",
                    folder.display()
                ));
                break;
            }
            paths.push(entry.map_err(trouble)?.path());
        }
        paths.sort();
        for path in paths {
            self.entry(root, path, inside);
        }
        Ok(())
    }

    fn entry(&mut self, root: &Path, path: PathBuf, inside: &mut Vec<PathBuf>) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') {
            return;
        }
        let is_archive = stem(&name).is_some();
        // A link that leads nowhere or out is worth a word only if it could have been an archive.
        let real = match path.canonicalize() {
            Ok(real) if real.starts_with(root) => real,
            Ok(_) if is_archive => {
                let reason = format!("`{}`: leads out of `{}`", path.display(), root.display());
                return self.left_out.push(reason);
            }
            Err(err) if is_archive => {
                return self.left_out.push(format!("`{}`: {err}", path.display()));
            }
            Ok(_) | Err(_) => return,
        };
        let called = path.strip_prefix(root).unwrap_or(&path).to_owned();
        if real.is_file() {
            if is_archive {
                self.add(What::Archive, path, called);
            }
        } else if real.is_dir() && !inside.contains(&real) {
            if let Some(form) = Form::of(&path) {
                self.add(What::Layout(form), path, called);
            } else if inside.len() > DEPTH {
                let reason = format!(
                    "`{}`: more than {DEPTH} folders deep, which is the limit",
                    path.display()
                );
                self.left_out.push(reason);
            } else {
                inside.push(real);
                if let Err(err) = self.folder(root, &path, inside) {
                    self.leave_gap(err.to_string());
                }
                inside.pop();
            }
        }
    }
}
