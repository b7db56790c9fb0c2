//! The entries of an archive by name: where their bytes are, what they are, what links lead to.
//!
//! One pass. Contents are not looked at but for their first bytes, small JSON documents of a packed archive
//! (which would cost another pass), and files that are compressed themselves outside of `blobs/`: no document
//! names the digests of such layers, so that they are hashed while they pass.
//!
//! *Invariant:* a name from an archive is a key of a map and nothing else.

use std::collections::BTreeMap;
use std::io::{Read, Seek};

use crate::error::{Error, Kind, Result};
use crate::image::{Digest, Hasher};
use crate::layer::tar::{EntryKind, Tar};
use crate::layer::{HEAD, Packing};
use crate::limit;

/// Entries of one archive. One with a hundred images has less than ten thousand.
const ENTRIES: usize = 50_000;
/// Bytes of the names and link targets of one archive.
const NAME_BYTES: u64 = 8 << 20;
/// Bytes of documents kept of one packed archive; what is beyond is read by another pass.
const DOCUMENT_BYTES: u64 = 4 << 20;
/// Links that lead to links.
const LINKS: usize = 8;

/// Where bytes are in the tar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) offset: u64,
    pub(super) size: u64,
}

/// A regular file of an archive.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) span: Span,
    pub(super) packing: Packing,
    /// Of a file that is compressed itself, outside of `blobs/`.
    pub(super) digest: Option<Digest>,
    /// The content of a small document in a packed archive, while there was room.
    pub(super) document: Option<Vec<u8>>,
}

#[derive(Debug)]
enum Entry {
    File(Item),
    /// To another name of the archive.
    Link(String),
}

/// Files and links of an archive by their names, which have no leading `/` or `./`.
#[derive(Debug, Default)]
pub(super) struct Entries {
    by_name: BTreeMap<String, Entry>,
    name_bytes: u64,
    document_bytes: u64,
}

impl Entries {
    /// Reads the headers of a plain archive of `size` bytes and seeks over contents. Errors: `Skip` for a damaged
    /// archive, `Limit` for one of too many entries.
    pub(super) fn of_plain<R: Read + Seek>(reader: R, size: u64) -> Result<Self> {
        Self::read(Tar::new(reader), Some(size), Tar::seek_content)
    }

    /// Reads all of a decompressed archive. Errors as [`Self::of_plain`].
    pub(super) fn of_packed<R: Read>(reader: R) -> Result<Self> {
        Self::read(Tar::new(reader), None, |_| Ok(()))
    }

    /// The file of that name, also through links. `None` when there is none, or links go round in circles.
    pub(super) fn file(&self, name: &str) -> Option<&Item> {
        let mut name = name.trim_start_matches("./");
        for _ in 0..=LINKS {
            match self.by_name.get(name)? {
                Entry::File(item) => return Some(item),
                Entry::Link(target) => name = target,
            }
        }
        None
    }

    /// All names of files and links, sorted.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// The documents that were kept.
    pub(super) fn documents(&self) -> impl Iterator<Item = (Span, &[u8])> {
        self.by_name.values().filter_map(|entry| match entry {
            Entry::File(item) => Some((item.span, item.document.as_deref()?)),
            Entry::Link(_) => None,
        })
    }

    fn read<R: Read>(
        mut tar: Tar<R>,
        plain_size: Option<u64>,
        skip: fn(&mut Tar<R>) -> Result<()>,
    ) -> Result<Self> {
        let mut entries = Entries::default();
        let mut n_entries = 0;
        while let Some(entry) = tar.next()? {
            n_entries += 1;
            if n_entries > ENTRIES {
                return Err(Error::new(
                    Kind::Limit,
                    format_args!("the archive has more than {ENTRIES} entries, which is the limit"),
                ));
            }
            let name = entry.path().to_owned();
            let size = entry.size;
            let found = match entry.kind {
                _ if entry.leaves_root || entry.is_sparse => None,
                EntryKind::HardLink => Some(Entry::Link(entry.link().to_owned())),
                EntryKind::Symlink => beside(&name, entry.link()).map(Entry::Link),
                EntryKind::File => {
                    let span = Span {
                        offset: tar.position(),
                        size,
                    };
                    let end = span.offset.checked_add(size);
                    if plain_size.is_some_and(|whole| end.is_none_or(|end| end > whole)) {
                        return Err(Error::skip(format_args!("tar: ends inside `{name}`")));
                    }
                    let may_keep = plain_size.is_none();
                    Some(Entry::File(entries.item(&mut tar, &name, span, may_keep)?))
                }
                EntryKind::Directory | EntryKind::Other => None,
            };
            if let Some(found) = found {
                entries.insert(name, found)?;
            }
            skip(&mut tar)?;
        }
        Ok(entries)
    }

    /// Looks at the content of the current entry as far as is needed.
    fn item<R: Read>(
        &mut self,
        tar: &mut Tar<R>,
        name: &str,
        span: Span,
        may_keep: bool,
    ) -> Result<Item> {
        // A chunk may be as short as the buffer's last byte, so that the head is put together.
        let mut start = Vec::new();
        while start.len() < HEAD
            && let Some(chunk) = tar.content()?
        {
            start.extend_from_slice(chunk);
        }
        let mut item = Item {
            span,
            packing: Packing::of(&start),
            digest: None,
            document: None,
        };
        if item.packing != Packing::Plain && !name.starts_with("blobs/") {
            let mut hasher = Hasher::sha256();
            hasher.update(&start);
            while let Some(chunk) = tar.content()? {
                hasher.update(chunk);
            }
            item.digest = Some(hasher.finish());
        } else if may_keep
            && matches!(start.first(), Some(b'{' | b'['))
            && span.size <= DOCUMENT_BYTES - self.document_bytes
        {
            self.document_bytes += span.size;
            while let Some(chunk) = tar.content()? {
                start.extend_from_slice(chunk);
            }
            item.document = Some(start);
        }
        Ok(item)
    }

    /// Later entries of a name replace earlier ones, as when an archive is unpacked.
    fn insert(&mut self, name: String, entry: Entry) -> Result<()> {
        let n_bytes = match &entry {
            Entry::File(_) => name.len(),
            Entry::Link(target) => name.len() + target.len(),
        };
        self.name_bytes += n_bytes as u64;
        if self.name_bytes > NAME_BYTES {
            return Err(limit::over("the archive's names, together,", NAME_BYTES));
        }
        self.by_name.insert(name, entry);
        Ok(())
    }
}

/// The name that a symlink `target` means in the folder of `name`; `None` when it leads out of the archive.
fn beside(name: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = name.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::layer::tar::tests::{archive, header, padded};

    fn plain(bytes: &[u8]) -> Result<Entries> {
        Entries::of_plain(Cursor::new(bytes), bytes.len() as u64)
    }

    #[test]
    fn both_ways_find_the_same() {
        let big = vec![7; 300_000];
        let gzip = [&[0x1f, 0x8b][..], &[1; 400]].concat();
        let bytes = archive(&[
            ("./x.json", b"{}"),
            ("a/layer.tar", &big),
            ("b.tar.gz", &gzip),
            ("blobs/sha256/x", &gzip),
            ("empty", b""),
        ]);
        for (what, entries) in [
            ("plain", plain(&bytes).unwrap()),
            ("packed", Entries::of_packed(&bytes[..]).unwrap()),
        ] {
            for (name, content) in [
                ("x.json", &b"{}"[..]),
                ("a/layer.tar", &big),
                ("b.tar.gz", &gzip),
                ("empty", b""),
            ] {
                let span = entries.file(name).unwrap().span;
                let from = usize::try_from(span.offset).unwrap();
                assert_eq!(&bytes[from..from + content.len()], content, "{what} {name}");
            }
            let digest = |name| entries.file(name).unwrap().digest.clone();
            assert_eq!(digest("b.tar.gz"), Some(Digest::of(&gzip)), "{what}");
            assert_eq!(digest("blobs/sha256/x"), None, "{what}");
            assert_eq!(digest("a/layer.tar"), None, "{what}");
            let document = entries.file("x.json").unwrap().document.is_some();
            assert_eq!(document, what == "packed");
        }
    }

    #[test]
    fn links_lead_to_files_of_the_archive_or_nowhere() {
        let mut bytes = header(b"a/layer.tar", b'0', 3, b"");
        bytes.extend(padded(b"abc"));
        for (name, kind, target) in [
            ("b/layer.tar", b'2', "../a/layer.tar"),
            ("c/layer.tar", b'1', "b/layer.tar"),
            ("out", b'2', "../../etc/passwd"),
            ("one", b'2', "two"),
            ("two", b'2', "one"),
            ("self", b'1', "self"),
            ("gone", b'2', "nothing"),
        ] {
            bytes.extend(header(name.as_bytes(), kind, 0, target.as_bytes()));
        }
        bytes.extend(header(b"../../evil", b'0', 0, b""));
        let entries = plain(&bytes).unwrap();
        let a = entries.file("a/layer.tar").unwrap().span;
        for name in ["./a/layer.tar", "b/layer.tar", "c/layer.tar"] {
            assert_eq!(entries.file(name).unwrap().span, a, "{name}");
        }
        for name in [
            "out",
            "one",
            "two",
            "self",
            "gone",
            "../../evil",
            "evil",
            "",
        ] {
            assert!(entries.file(name).is_none(), "{name}");
        }
    }

    #[test]
    fn archives_that_end_early_or_never_are_errors() {
        let bytes = archive(&[("a", &[1; 5000])]);
        let err = plain(&bytes[..3000]).unwrap_err();
        assert_eq!(err.to_string(), "tar: ends inside `a`");
        let one = header(b"x", b'0', 0, b"");
        let many = std::io::repeat(0)
            .take(0)
            .chain(Cursor::new(one.repeat(ENTRIES + 1)));
        let err = Entries::of_packed(many).unwrap_err();
        assert_eq!(
            err.to_string(),
            "the archive has more than 50000 entries, which is the limit"
        );
        let long = [
            &header(b"././@LongLink", b'L', 4000, b"")[..],
            &padded(&[b'x'; 4000]),
            &one,
        ]
        .concat();
        let err = Entries::of_packed(Cursor::new(long.repeat(2200))).unwrap_err();
        assert_eq!(err.kind(), Kind::Limit);
    }
}
