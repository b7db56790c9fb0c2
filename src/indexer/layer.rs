//! One pass over a layer: every entry looked at, wanted files kept, all of it digested.
//!
//! A wanted path can be a hard link to a file that stood earlier in the tar under a name that nobody wanted: a
//! package manager's store, which links its files into the tree (pnpm does so). Only such a layer is read
//! a second time, with the names of those files known.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use super::problems::Problems;
use crate::ecosystem::{self, Candidate, Ecosystem, Extract, Want};
use crate::error::{Error, Kind, Result};
use crate::image::{Descriptor, Digest};
use crate::layer::Stream;
use crate::layer::spare::Spare;
use crate::layer::tar::{Entry, EntryKind, Tar};
use crate::layer::whiteout::{Marker, marker};
use crate::limit;
use crate::sbom::layer::PathKind;
use crate::sbom::{EvidenceFile, LayerFacts, PathSet};

/// Effort of the compression of evidence: it is small, and time counts.
const ZSTD_LEVEL: i32 = 1;

/// Reads a layer to its end. `open` gives its blob from the start, and may be called twice.
///
/// Errors: `Limit` when the layer is over a limit as a whole; `Retry` when the registry sent other bytes than
/// the digest names, or the connection broke; `Skip` when the stored bytes are no layer.
pub(crate) fn read<R: Read>(
    mut open: impl FnMut() -> Result<R>,
    descriptor: &Descriptor,
    max_tar_bytes: u64,
    spare: &Spare,
) -> Result<LayerFacts> {
    let first = pass(open()?, descriptor, max_tar_bytes, spare, None)?;
    if first.targets.is_empty() {
        return Ok(first.facts);
    }
    let targets = Some(first.targets);
    Ok(pass(open()?, descriptor, max_tar_bytes, spare, targets)?.facts)
}

/// What came out of one pass.
struct Pass {
    facts: LayerFacts,
    /// Files that wanted paths turned out to be links to, when another pass can bring their contents.
    targets: BTreeSet<String>,
}

fn pass(
    blob: impl Read,
    descriptor: &Descriptor,
    max_tar_bytes: u64,
    spare: &Spare,
    targets: Option<BTreeSet<String>>,
) -> Result<Pass> {
    let mut stream = Stream::open(
        blob,
        &descriptor.digest,
        descriptor.size,
        max_tar_bytes,
        spare,
    )?;
    let mut collected = Collected {
        is_last: targets.is_some(),
        targets: targets.unwrap_or_default(),
        ..Collected::default()
    };
    match collected.walk(stream.tar()) {
        Ok(()) => {}
        Err(err) if err.kind() == Kind::Skip => {
            let err = stream.explained(err);
            stream.verify_blob()?;
            return Err(err);
        }
        Err(err) => return Err(err),
    }
    let totals = stream.finish()?;
    let targets = match collected.is_last {
        true => BTreeSet::new(),
        false => std::mem::take(&mut collected.targets),
    };
    Ok(Pass {
        facts: collected.into_facts(descriptor, totals.diff_id, totals.tar_bytes),
        targets,
    })
}

/// What was found so far.
#[derive(Default)]
struct Collected {
    n_entries: u64,
    whiteouts: BTreeSet<String>,
    opaques: BTreeSet<String>,
    whiteout_bytes: usize,
    path_hashes: Vec<u64>,
    /// By path, then ecosystem; a later entry of a path replaces an earlier one.
    evidence: BTreeMap<String, Vec<EvidenceFile>>,
    evidence_bytes: usize,
    evidence_files: usize,
    compressor: Option<zstd::bulk::Compressor<'static>>,
    /// By kind: how many files of ecosystems that are not read, and the first of them.
    unread: BTreeMap<&'static str, (u64, String)>,
    /// Whether no pass follows this one.
    is_last: bool,
    /// Files that wanted paths are links to: collected for the next pass, or those to keep in the last one.
    targets: BTreeSet<String>,
    /// What was kept of `targets`, by path.
    kept: BTreeMap<String, Kept>,
    problems: Problems,
}

/// The contents of a file that is evidence under another name only.
struct Kept {
    digest: Digest,
    compressed: Vec<u8>,
}

/// One ecosystem's wish for the file at hand; `None` when it is wanted for links to it.
struct Taker {
    row: Option<&'static Ecosystem>,
    how: Taking,
}

enum Taking {
    Whole(Vec<u8>),
    Part {
        extract: Box<dyn Extract>,
        wants_more: bool,
    },
}

impl Collected {
    fn walk(&mut self, tar: &mut Tar<impl Read>) -> Result<()> {
        let mut takers: Vec<Taker> = Vec::new();
        let mut path = String::new();
        while let Some(entry) = tar.next()? {
            self.n_entries += 1;
            if self.n_entries > limit::LAYER_ENTRIES {
                let message = format!(
                    "the layer has more than the limit of {} entries",
                    limit::LAYER_ENTRIES
                );
                return Err(Error::new(Kind::Limit, message));
            }
            if self.look_at(&entry, &mut takers)? {
                entry.path().clone_into(&mut path);
                while takers.iter().any(Taker::wants_more)
                    && let Some(chunk) = tar.content()?
                {
                    takers.iter_mut().for_each(|taker| taker.feed(chunk));
                }
                self.keep(&path, &mut takers)?;
            }
        }
        Ok(())
    }

    /// Notes an entry. Returns whether its content is wanted, by `takers`.
    fn look_at(&mut self, entry: &Entry<'_>, takers: &mut Vec<Taker>) -> Result<bool> {
        takers.clear();
        let path = entry.path();
        if entry.leaves_root {
            self.problems.add(
                "layer",
                path,
                "the name leads out of the image; the entry is skipped",
            );
            return Ok(false);
        }
        if path.is_empty() {
            return Ok(false);
        }
        if path.split('/').count() > limit::PATH_DEPTH {
            self.problems.add(
                "layer",
                path,
                format!("the path is deeper than the limit of {}", limit::PATH_DEPTH),
            );
            return Ok(false);
        }
        match marker(path) {
            Marker::None => {}
            Marker::Removes(removed) => return self.note_whiteout(removed, Marker::Removes),
            Marker::Hides(hidden) => return self.note_whiteout(hidden, Marker::Hides),
            Marker::Meta => return Ok(false),
            Marker::Bare => {
                self.problems
                    .add("layer", path, "whiteout without a name; it is ignored");
                return Ok(false);
            }
        }
        let path_kind = if entry.kind == EntryKind::Directory {
            PathKind::Directory
        } else {
            PathKind::Leaf
        };
        self.path_hashes.push(PathSet::hash(path, path_kind));
        // A second entry of the same path replaces the first, whatever it is.
        if let Some(replaced) = self.evidence.remove(path) {
            self.evidence_files -= replaced.len();
        }
        self.kept.remove(path);
        match entry.kind {
            EntryKind::File => self.want(entry, takers),
            EntryKind::HardLink => self.link(entry),
            EntryKind::Directory | EntryKind::Symlink | EntryKind::Other => {}
        }
        Ok(!takers.is_empty())
    }

    fn note_whiteout(&mut self, path: String, kind: fn(String) -> Marker) -> Result<bool> {
        self.whiteout_bytes += path.len() + limit::PATH_OVERHEAD;
        if self.whiteout_bytes > limit::WHITEOUT_BYTES {
            return Err(limit::over(
                "the list of whiteouts",
                limit::WHITEOUT_BYTES as u64,
            ));
        }
        match kind(path) {
            Marker::Hides(path) => self.opaques.insert(path),
            Marker::Removes(path) => self.whiteouts.insert(path),
            _ => false,
        };
        Ok(false)
    }

    fn want(&mut self, entry: &Entry<'_>, takers: &mut Vec<Taker>) {
        if let Some(kind) = ecosystem::unread::kind(entry.path()) {
            let first = || (0, entry.path().to_owned());
            self.unread.entry(kind).or_insert_with(first).0 += 1;
        }
        let candidate = Candidate {
            path: entry.path(),
            size: entry.size,
        };
        for row in ecosystem::ALL {
            let Some(want) = (row.wants)(&candidate) else {
                continue;
            };
            if entry.is_sparse {
                self.problems.add(
                    row.name,
                    entry.path(),
                    "sparse file; its contents are not read",
                );
                continue;
            }
            match want {
                Want::Whole { max } => {
                    let max = max.min(limit::EVIDENCE_FILE_BYTES);
                    if entry.size > max {
                        let message = format!("{} bytes are over the limit of {max}", entry.size);
                        self.problems.add(row.name, entry.path(), message);
                        continue;
                    }
                    let bytes = Vec::with_capacity(usize::try_from(entry.size).unwrap_or(0));
                    takers.push(Taker {
                        row: Some(row),
                        how: Taking::Whole(bytes),
                    });
                }
                Want::Part(extract) => takers.push(Taker {
                    row: Some(row),
                    how: Taking::Part {
                        extract,
                        wants_more: true,
                    },
                }),
            }
        }
        let is_target = self.is_last && self.targets.contains(entry.path());
        if is_target && !entry.is_sparse && entry.size <= limit::EVIDENCE_FILE_BYTES {
            takers.push(Taker {
                row: None,
                how: Taking::Whole(Vec::new()),
            });
        }
    }

    /// A hard link has the content of another entry of the same layer: take over what was kept of it.
    fn link(&mut self, entry: &Entry<'_>) {
        let candidate = Candidate {
            path: entry.path(),
            size: 0,
        };
        let target = self.evidence.get(entry.link()).cloned().unwrap_or_default();
        let mut linked = Vec::new();
        for row in ecosystem::ALL {
            if let Some(found) = target.iter().find(|found| found.ecosystem == row.name) {
                linked.push(EvidenceFile {
                    path: entry.path().to_owned(),
                    ..found.clone()
                });
            } else if let Some(Want::Whole { max }) = (row.wants)(&candidate) {
                let kept = self.kept.get(entry.link());
                if let Some(kept) = kept.filter(|kept| kept.compressed.len() as u64 <= max) {
                    linked.push(EvidenceFile {
                        path: entry.path().to_owned(),
                        ecosystem: row.name,
                        digest: kept.digest.clone(),
                        compressed: kept.compressed.clone(),
                    });
                    continue;
                }
                if !self.is_last && self.take_room(entry.link().len()) {
                    self.targets.insert(entry.link().to_owned());
                }
                self.problems.add(
                    row.name,
                    entry.path(),
                    format!(
                        "hard link to `{}`, whose contents were not kept",
                        entry.link()
                    ),
                );
            }
        }
        for evidence in linked {
            self.store(evidence);
        }
    }

    fn keep(&mut self, path: &str, takers: &mut Vec<Taker>) -> Result<()> {
        for taker in takers.drain(..) {
            let bytes = match taker.how {
                Taking::Whole(bytes) => Some(bytes),
                Taking::Part { extract, .. } => match extract.finish() {
                    Ok(bytes) => bytes,
                    Err(message) => {
                        let subject = taker.row.map_or("layer", |row| row.name);
                        self.problems.add(subject, path, message);
                        None
                    }
                },
            };
            let Some(bytes) = bytes else { continue };
            let compressed = self.compress(&bytes)?;
            let digest = Digest::of(&bytes);
            match taker.row {
                Some(row) => self.store(EvidenceFile {
                    path: path.to_owned(),
                    ecosystem: row.name,
                    digest,
                    compressed,
                }),
                None if self.take_room(path.len() + compressed.len()) => {
                    self.kept
                        .insert(path.to_owned(), Kept { digest, compressed });
                }
                // The link says that its contents were not kept.
                None => {}
            }
        }
        Ok(())
    }

    /// Keeps a piece of evidence, or says that there are too many.
    fn store(&mut self, evidence: EvidenceFile) {
        let n_bytes = evidence.compressed.len() + evidence.path.len();
        if self.evidence_files >= limit::EVIDENCE_FILES || !self.take_room(n_bytes) {
            self.problems.add(
                evidence.ecosystem,
                &evidence.path,
                "the layer has more evidence than the limit; not kept",
            );
            return;
        }
        self.evidence_files += 1;
        self.evidence
            .entry(evidence.path.clone())
            .or_default()
            .push(evidence);
    }

    /// One compressor serves a layer: making one takes longer than compressing a small file.
    fn compress(&mut self, bytes: &[u8]) -> Result<Vec<u8>> {
        let stop = |err| Error::stop(format_args!("compressing evidence: {err}"));
        let compressor = match &mut self.compressor {
            Some(compressor) => compressor,
            none => none.insert(zstd::bulk::Compressor::new(ZSTD_LEVEL).map_err(stop)?),
        };
        compressor.compress(bytes).map_err(stop)
    }

    /// Takes so many bytes out of those that a layer's evidence may have. `false` when they are not left.
    fn take_room(&mut self, n_bytes: usize) -> bool {
        let after = self.evidence_bytes + n_bytes;
        if after > limit::EVIDENCE_BYTES {
            return false;
        }
        self.evidence_bytes = after;
        true
    }

    fn into_facts(mut self, descriptor: &Descriptor, diff_id: Digest, tar_size: u64) -> LayerFacts {
        for (kind, (n_files, first)) in self.unread {
            let message = format!("{kind} are not read yet; files: {n_files}");
            self.problems.add("layer", &first, message);
        }
        LayerFacts {
            digest: descriptor.digest.clone(),
            diff_id,
            size: descriptor.size,
            tar_size,
            n_entries: self.n_entries,
            whiteouts: self.whiteouts.into_iter().collect(),
            opaques: self.opaques.into_iter().collect(),
            paths: PathSet::from_hashes(self.path_hashes),
            evidence: self.evidence.into_values().flatten().collect(),
            problems: self.problems.listed.into_iter().collect(),
            problems_unlisted: self.problems.unlisted,
        }
    }
}

impl Taker {
    fn wants_more(&self) -> bool {
        match &self.how {
            Taking::Whole(_) => true,
            Taking::Part { wants_more, .. } => *wants_more,
        }
    }

    fn feed(&mut self, chunk: &[u8]) {
        match &mut self.how {
            Taking::Whole(bytes) => bytes.extend_from_slice(chunk),
            Taking::Part {
                extract,
                wants_more,
            } => *wants_more = *wants_more && extract.feed(chunk),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::tar::tests::{archive, header, padded};

    const STATUS: &str = "var/lib/dpkg/status";

    fn facts(tar: &[u8]) -> Result<LayerFacts> {
        let descriptor = Descriptor {
            media_type: String::new(),
            digest: Digest::of(tar),
            size: tar.len() as u64,
            platform: None,
            annotations: BTreeMap::new(),
            is_foreign: false,
        };
        read(|| Ok(tar), &descriptor, u64::MAX, &Spare::new(0).0)
    }

    fn found(facts: &LayerFacts) -> Vec<String> {
        let raw = |file: &EvidenceFile| zstd::bulk::decompress(&file.compressed, 1 << 20).unwrap();
        let line = |file: &EvidenceFile| {
            format!(
                "{} {} {}",
                file.path,
                file.ecosystem,
                String::from_utf8_lossy(&raw(file))
            )
        };
        facts.evidence.iter().map(line).collect()
    }

    fn problems(facts: &LayerFacts) -> Vec<String> {
        facts
            .problems
            .iter()
            .map(|found| format!("{}: {}", found.path, found.message))
            .collect()
    }

    #[test]
    fn wanted_files_are_kept_and_the_last_of_a_path_counts() {
        let tar = archive(&[
            (STATUS, b"one"),
            ("etc/passwd", b"root"),
            ("./var/lib//dpkg/status", b"two"),
        ]);
        let facts = facts(&tar).unwrap();
        assert_eq!(found(&facts), ["var/lib/dpkg/status dpkg two"]);
        assert_eq!(
            (facts.n_entries, facts.diff_id.clone()),
            (3, Digest::of(&tar))
        );
        assert!(facts.paths.replaces("etc/passwd") && !facts.paths.replaces("etc/shadow"));
    }

    #[test]
    fn a_link_takes_over_what_was_kept_and_says_when_nothing_was() {
        let mut tar = header(b"node_modules/a/package.json", b'0', 2, b"");
        tar.extend(padded(b"{}"));
        tar.extend(header(
            b"node_modules/b/package.json",
            b'1',
            0,
            b"node_modules/a/package.json",
        ));
        tar.extend(header(b"node_modules/c/package.json", b'1', 0, b"store/c"));
        tar.extend(header(
            b"node_modules/d/package.json",
            b'2',
            0,
            b"../a/package.json",
        ));
        let facts = facts(&tar).unwrap();
        assert_eq!(
            found(&facts),
            [
                "node_modules/a/package.json npm {}",
                "node_modules/b/package.json npm {}"
            ]
        );
        assert_eq!(
            problems(&facts),
            ["node_modules/c/package.json: hard link to `store/c`, whose contents were not kept"]
        );
    }

    #[test]
    fn whiteouts_are_noted_and_odd_names_are_problems() {
        let deep = "d/".repeat(limit::PATH_DEPTH) + "f";
        let tar = archive(&[
            ("etc/.wh.passwd", b""),
            ("srv/.wh..wh..opq", b""),
            (".wh..wh.plnk", b""),
            ("etc/.wh.", b""),
            ("../../etc/os-release", b"ID=evil"),
            ("lib/app.jar", b""),
            ("lib/b.jar", b""),
        ]);
        let of_layer = facts(&tar).unwrap();
        assert_eq!(
            (of_layer.whiteouts.join(" "), of_layer.opaques.join(" ")),
            ("etc/passwd".into(), "srv".into())
        );
        assert!(found(&of_layer).is_empty());
        assert_eq!(
            problems(&of_layer),
            [
                "../../etc/os-release: the name leads out of the image; the entry is skipped",
                "etc/.wh.: whiteout without a name; it is ignored",
                "lib/app.jar: Java archives are not read yet; files: 2",
            ]
        );
        let mut long = header(b"././@LongLink", b'L', deep.len() as u64, b"");
        long.extend(padded(deep.as_bytes()));
        long.extend(header(b"cut", b'0', 0, b""));
        assert!(problems(&facts(&long).unwrap())[0].ends_with("deeper than the limit of 128"));
    }

    #[test]
    fn a_file_over_its_limit_is_a_problem_and_not_read() {
        let size = limit::EVIDENCE_FILE_BYTES + 1;
        let mut tar = header(STATUS.as_bytes(), b'0', size, b"");
        tar.extend(padded(&vec![b'x'; usize::try_from(size).unwrap()]));
        let facts = facts(&tar).unwrap();
        assert!(found(&facts).is_empty());
        assert_eq!(
            problems(&facts),
            ["var/lib/dpkg/status: 16777217 bytes are over the limit of 16777216"]
        );
    }

    #[test]
    fn more_problems_than_the_cut_are_counted() {
        let names: Vec<String> = (0..limit::PROBLEMS + 7)
            .map(|n| format!("../{n}"))
            .collect();
        let files: Vec<(&str, &[u8])> =
            names.iter().map(|name| (name.as_str(), &b""[..])).collect();
        let facts = facts(&archive(&files)).unwrap();
        assert_eq!(
            (facts.problems.len(), facts.problems_unlisted),
            (limit::PROBLEMS, 7)
        );
    }

    #[test]
    fn a_damaged_layer_is_told_from_a_broken_transport() {
        let tar = archive(&[("a", &[1; 4000])]);
        let cut = &tar[..3000];
        let err = facts(cut).unwrap_err();
        assert_eq!(
            (err.kind(), err.to_string()),
            (Kind::Skip, "tar: ends inside a file".to_owned())
        );
    }
}
