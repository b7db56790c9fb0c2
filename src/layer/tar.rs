//! Tar entries out of a stream: ustar, pax, GNU long names, sparse files told apart.
//!
//! Our own and not a library's since every layer's bytes pass here: headers are read in place, names reuse
//! one buffer, and each length is checked against a limit before anything is reserved for it.

use std::io::{Read, Seek, SeekFrom};

use crate::error::{Error, Kind, Result, from_io};
use crate::limit;

pub(super) const BLOCK: usize = 512;
/// Bytes read from the decoder at once.
const BUFFER: usize = 128 << 10;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryKind {
    File,
    Directory,
    HardLink,
    Symlink,
    /// Devices, pipes, and types that we do not know.
    Other,
}

/// One entry, borrowed from the reader until the next one is asked for.
#[derive(Debug)]
pub(crate) struct Entry<'a> {
    path: &'a str,
    link: &'a str,
    pub(crate) kind: EntryKind,
    /// Bytes of content that follow.
    pub(crate) size: u64,
    /// Whether the content is a sparse file's pieces and not the file itself.
    pub(crate) is_sparse: bool,
    /// Whether the name had `..` in it: no such entry may be trusted.
    pub(crate) leaves_root: bool,
}

impl<'a> Entry<'a> {
    /// The path without leading `/` or `./`, without empty or `.` components; empty for the root itself.
    /// Bytes that are not UTF-8 are replaced.
    pub(crate) fn path(&self) -> &'a str {
        self.path
    }

    /// The target of a hard link, normalized like a path; of a symlink, the same, still relative to the link's
    /// folder and with its `..`. Empty for anything else and for a symlink whose target is over the limit of a path.
    pub(crate) fn link(&self) -> &'a str {
        self.link
    }
}

/// A tar being read.
pub(crate) struct Tar<R> {
    reader: R,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// Bytes of the stream up to `end`.
    n_read: u64,
    /// Content of the current entry not yet handed out, and the padding behind it.
    left: u64,
    padding: u64,
    is_done: bool,
    path: String,
    link: String,
}

/// Fields that a pax header or a GNU long name sets for the entry behind it.
#[derive(Default)]
struct Overrides {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    is_sparse: bool,
}

impl<R: Read> Tar<R> {
    pub(crate) fn new(reader: R) -> Self {
        Tar {
            reader,
            buffer: vec![0; BUFFER].into_boxed_slice(),
            start: 0,
            end: 0,
            n_read: 0,
            left: 0,
            padding: 0,
            is_done: false,
            path: String::new(),
            link: String::new(),
        }
    }

    /// Skips what is left of the current entry and returns the next, or `None` at the end of the archive.
    /// Errors: `Skip` for a damaged archive, `Limit` for headers over a limit, what the reader says otherwise.
    pub(crate) fn next(&mut self) -> Result<Option<Entry<'_>>> {
        let mut overrides = Overrides::default();
        loop {
            self.skip_content()?;
            if self.is_done || !self.fill(BLOCK)? {
                self.is_done = true;
                return Ok(None);
            }
            let header: [u8; BLOCK] = self.take_block()?;
            if header.iter().all(|&byte| byte == 0) {
                // Two zero blocks end an archive; one is enough for every reader in use.
                self.is_done = true;
                return Ok(None);
            }
            check_sum(&header)?;
            let size = number(&header[124..136])
                .ok_or_else(|| Error::skip("tar: size is not a number"))?;
            match header[156] {
                b'x' => self.read_pax(size, &mut overrides)?,
                b'g' => {
                    // Global headers carry comments in practice (git archive); a name or a size for all
                    // entries makes no sense.
                    self.read_meta(size)?;
                }
                b'L' => overrides.path = Some(trim_nul(self.read_meta(size)?)),
                b'K' => overrides.link = Some(trim_nul(self.read_meta(size)?)),
                kind => return self.entry(&header, kind, size, overrides).map(Some),
            }
        }
    }

    fn entry(
        &mut self,
        header: &[u8; BLOCK],
        type_flag: u8,
        size: u64,
        overrides: Overrides,
    ) -> Result<Entry<'_>> {
        let mut is_sparse = overrides.is_sparse;
        if type_flag == b'S' {
            is_sparse = true;
            let mut has_more = header[482] != 0;
            while has_more {
                if !self.fill(BLOCK)? {
                    return Err(Error::skip("tar: ends inside a sparse map"));
                }
                has_more = self.take_block()?[504] != 0;
            }
        }
        self.path.clear();
        let (mut leaves_root, mut is_folder_name) = (false, false);
        match &overrides.path {
            Some(path) => {
                leaves_root |= normalize(path, &mut self.path)?;
                is_folder_name |= path.ends_with(b"/");
            }
            None => {
                let mut name = [0; 256];
                let mut n = 0;
                let prefix = until_nul(&header[345..500]);
                if &header[257..263] == b"ustar\0" && !prefix.is_empty() {
                    name[..prefix.len()].copy_from_slice(prefix);
                    name[prefix.len()] = b'/';
                    n = prefix.len() + 1;
                }
                let rest = until_nul(&header[..100]);
                name[n..n + rest.len()].copy_from_slice(rest);
                n += rest.len();
                leaves_root |= normalize(&name[..n], &mut self.path)?;
                is_folder_name |= name[..n].ends_with(b"/");
            }
        }
        let kind = match type_flag {
            b'0' | 0 if is_folder_name => EntryKind::Directory,
            b'0' | 0 | b'7' | b'S' => EntryKind::File,
            b'1' => EntryKind::HardLink,
            b'2' => EntryKind::Symlink,
            b'5' => EntryKind::Directory,
            _ => EntryKind::Other,
        };
        self.link.clear();
        let link = overrides
            .link
            .as_deref()
            .unwrap_or_else(|| until_nul(&header[157..257]));
        if kind == EntryKind::HardLink
            || kind == EntryKind::Symlink && link.len() <= limit::PATH_BYTES
        {
            normalize(link, &mut self.link)?;
        }
        // Links, devices, directories and pipes carry no content, whatever their size field says; some archivers
        // write the target's size there. A file whose name makes it a directory does carry it. All as in Go's
        // archive/tar and libarchive: to see other entries than they do would be to see another image.
        let size = match type_flag {
            b'1'..=b'6' => 0,
            _ => overrides.size.unwrap_or(size),
        };
        self.expect(size)?;
        Ok(Entry {
            path: &self.path,
            link: &self.link,
            kind,
            size,
            is_sparse,
            leaves_root,
        })
    }

    /// The next bytes of the current entry's content, `None` behind its end. Never empty.
    pub(crate) fn content(&mut self) -> Result<Option<&[u8]>> {
        if self.left == 0 {
            return Ok(None);
        }
        if self.start == self.end && !self.fill(1)? {
            return Err(Error::skip("tar: ends inside a file"));
        }
        let n = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(self.end - self.start);
        let from = self.start;
        self.start += n;
        self.left -= n as u64;
        Ok(Some(&self.buffer[from..from + n]))
    }

    /// Reads to the end of the stream, past the end of the archive.
    pub(crate) fn drain(&mut self) -> Result<()> {
        loop {
            self.start = self.end;
            if !self.fill(1)? {
                return Ok(());
            }
        }
    }

    pub(crate) fn get_ref(&self) -> &R {
        &self.reader
    }

    pub(crate) fn into_inner(self) -> R {
        self.reader
    }

    /// Bytes of the stream before what [`Tar::content`] gives next; behind [`Tar::next`], where the content starts.
    pub(crate) fn position(&self) -> u64 {
        self.n_read - (self.end - self.start) as u64
    }

    fn expect(&mut self, size: u64) -> Result<()> {
        if size > i64::MAX as u64 {
            return Err(Error::skip("tar: size is too large"));
        }
        self.left = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
        Ok(())
    }

    fn skip_content(&mut self) -> Result<()> {
        while self.content()?.is_some() {}
        let mut padding = usize::try_from(self.padding).unwrap_or(0);
        self.padding = 0;
        while padding > 0 {
            if self.start == self.end && !self.fill(1)? {
                // Some writers leave the last padding out.
                return Ok(());
            }
            let n = padding.min(self.end - self.start);
            self.start += n;
            padding -= n;
        }
        Ok(())
    }

    /// Makes at least `n` bytes available. `false` when the stream ends before the first of them.
    fn fill(&mut self, n: usize) -> Result<bool> {
        if self.end - self.start >= n {
            return Ok(true);
        }
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        while self.end < n {
            match self.reader.read(&mut self.buffer[self.end..]) {
                Ok(0) if self.end == 0 => return Ok(false),
                Ok(0) => return Err(Error::skip("tar: ends inside a header")),
                Ok(n) => {
                    self.end += n;
                    self.n_read += n as u64;
                }
                Err(err) if err.kind() == std::io::ErrorKind::Interrupted => {}
                Err(err) => return Err(from_io(Kind::Retry, err)),
            }
        }
        Ok(true)
    }

    fn take_block(&mut self) -> Result<[u8; BLOCK]> {
        let block = self
            .buffer
            .get(self.start..self.start + BLOCK)
            .and_then(|block| block.try_into().ok());
        self.start += BLOCK;
        block.ok_or_else(|| Error::skip("tar: ends inside a header"))
    }

    /// Reads the content of a header entry.
    fn read_meta(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > limit::TAR_META_BYTES {
            return Err(limit::over("a tar header", limit::TAR_META_BYTES));
        }
        self.expect(size)?;
        let mut bytes = Vec::new();
        while let Some(chunk) = self.content()? {
            bytes.extend_from_slice(chunk);
        }
        Ok(bytes)
    }

    /// Reads pax records, `<length> <key>=<value>\n` (POSIX pax, "Extended Header").
    fn read_pax(&mut self, size: u64, overrides: &mut Overrides) -> Result<()> {
        let bytes = self.read_meta(size)?;
        let mut rest = &bytes[..];
        let malformed = || Error::skip("tar: malformed pax header");
        while !rest.is_empty() && rest[0] != 0 {
            let space = rest
                .iter()
                .position(|&byte| byte == b' ')
                .ok_or_else(malformed)?;
            let length: usize = std::str::from_utf8(&rest[..space])
                .ok()
                .and_then(|text| text.parse().ok())
                .ok_or_else(malformed)?;
            let record = rest.get(space + 1..length).ok_or_else(malformed)?;
            rest = &rest[length..];
            let record = record.strip_suffix(b"\n").ok_or_else(malformed)?;
            let equals = record
                .iter()
                .position(|&byte| byte == b'=')
                .ok_or_else(malformed)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            match key {
                b"path" => overrides.path = Some(value.to_vec()),
                b"linkpath" => overrides.link = Some(value.to_vec()),
                b"size" => {
                    let size = std::str::from_utf8(value)
                        .ok()
                        .and_then(|text| text.parse().ok());
                    overrides.size = Some(size.ok_or_else(malformed)?);
                }
                b"GNU.sparse.name" => {
                    overrides.path = Some(value.to_vec());
                    overrides.is_sparse = true;
                }
                key if key.starts_with(b"GNU.sparse.") => overrides.is_sparse = true,
                _ => {}
            }
        }
        Ok(())
    }
}

impl<R: Read + Seek> Tar<R> {
    /// Moves behind the current entry's content without reading it. Whether the stream reaches that far, the
    /// caller has to know.
    pub(crate) fn seek_content(&mut self) -> Result<()> {
        let buffered = (self.end - self.start) as u64;
        match self.left.checked_sub(buffered) {
            None | Some(0) => self.start += usize::try_from(self.left).unwrap_or(0),
            Some(beyond) => {
                self.start = self.end;
                self.reader
                    .seek(SeekFrom::Current(i64::try_from(beyond).unwrap_or(i64::MAX)))
                    .map_err(|err| from_io(Kind::Retry, err))?;
                self.n_read = self.n_read.saturating_add(beyond);
            }
        }
        self.left = 0;
        Ok(())
    }
}

/// Octal text, or a binary number when the first bit is set (GNU). `None` when it is neither.
fn number(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        let mut value = u64::from(field[0] & 0x7f);
        for &byte in &field[1..] {
            value = value.checked_mul(256)?.checked_add(u64::from(byte))?;
        }
        return Some(value);
    }
    let text = std::str::from_utf8(field).ok()?.trim_matches(['\0', ' ']);
    if text.is_empty() {
        Some(0)
    } else {
        u64::from_str_radix(text, 8).ok()
    }
}

/// The sum of all bytes, with the checksum's own counted as spaces. Some old writers summed signed bytes.
fn check_sum(header: &[u8; BLOCK]) -> Result<()> {
    let (mut unsigned, mut signed) = (0u64, 0i64);
    for (at, &byte) in header.iter().enumerate() {
        let byte = if (148..156).contains(&at) { b' ' } else { byte };
        unsigned += u64::from(byte);
        signed += i64::from(byte as i8);
    }
    match number(&header[148..156]) {
        Some(sum) if sum == unsigned || i64::try_from(sum) == Ok(signed) => Ok(()),
        _ => Err(Error::skip("tar: bad header checksum")),
    }
}

fn until_nul(field: &[u8]) -> &[u8] {
    &field[..field
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(field.len())]
}

fn trim_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(until_nul(&bytes).len());
    bytes
}

/// Writes the components of `path` that count into `clean`. Returns whether a `..` was among them.
fn normalize(path: &[u8], clean: &mut String) -> Result<bool> {
    if path.len() > limit::PATH_BYTES {
        return Err(limit::over("a path", limit::PATH_BYTES as u64));
    }
    let text = String::from_utf8_lossy(path);
    let mut leaves_root = false;
    for component in text.split('/') {
        match component {
            "" | "." => continue,
            ".." => leaves_root = true,
            _ => {}
        }
        if !clean.is_empty() {
            clean.push('/');
        }
        clean.push_str(component);
    }
    Ok(leaves_root)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A header block with a right checksum.
    pub(crate) fn header(name: &[u8], type_flag: u8, size: u64, link: &[u8]) -> Vec<u8> {
        let mut block = vec![0; BLOCK];
        block[..name.len()].copy_from_slice(name);
        block[100..108].copy_from_slice(b"0000755\0");
        block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
        block[156] = type_flag;
        block[157..157 + link.len()].copy_from_slice(link);
        block[257..263].copy_from_slice(b"ustar\0");
        block[148..156].fill(b' ');
        let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    }

    /// Content with its padding.
    pub(crate) fn padded(bytes: &[u8]) -> Vec<u8> {
        let mut padded = bytes.to_vec();
        padded.resize(bytes.len().div_ceil(BLOCK) * BLOCK, 0);
        padded
    }

    /// A whole archive of regular files.
    pub(crate) fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut tar = Vec::new();
        for (name, bytes) in files {
            tar.extend(header(name.as_bytes(), b'0', bytes.len() as u64, b""));
            tar.extend(padded(bytes));
        }
        tar.resize(tar.len() + 2 * BLOCK, 0);
        tar
    }

    fn list(bytes: &[u8]) -> Result<Vec<String>> {
        let mut tar = Tar::new(bytes);
        let mut lines = Vec::new();
        while let Some(entry) = tar.next()? {
            let mut line = format!("{:?} {} {}", entry.kind, entry.path(), entry.size);
            if entry.is_sparse {
                line.push_str(" sparse");
            }
            if entry.leaves_root {
                line.push_str(" leaves");
            }
            if !entry.link().is_empty() {
                line.push_str(&format!(" -> {}", entry.link()));
            }
            lines.push(line);
        }
        Ok(lines)
    }

    fn pax(records: &[(&str, &str)]) -> Vec<u8> {
        let mut body = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length.to_string().len() + rest != length {
                length += 1;
            }
            body.extend(format!("{length} {key}={value}\n").bytes());
        }
        let mut tar = header(b"pax", b'x', body.len() as u64, b"");
        tar.extend(padded(&body));
        tar
    }

    #[test]
    fn kinds_names_and_links() {
        let mut tar = header(b"./etc/", b'5', 0, b"");
        tar.extend(header(b"/abs//x", b'0', 3, b""));
        tar.extend(padded(b"abc"));
        tar.extend(header(b"hard", b'1', 99, b"./abs/x"));
        tar.extend(header(b"soft", b'2', 0, b"../../etc"));
        tar.extend(header(b"../../evil", b'0', 0, b""));
        tar.extend(header(b"dev", b'3', 0, b""));
        tar.extend(header(b"old-dir/", 0, 0, b""));
        assert_eq!(
            list(&tar).unwrap(),
            [
                "Directory etc 0",
                "File abs/x 3",
                "HardLink hard 0 -> abs/x",
                "Symlink soft 0 -> ../../etc",
                "File ../../evil 0 leaves",
                "Other dev 0",
                "Directory old-dir 0"
            ]
        );
    }

    #[test]
    fn entries_that_have_content_are_those_of_other_readers() {
        // Go's archive/tar (isHeaderOnly) and libarchive agree on these.
        for (name, type_flag, has_content) in [
            ("file", b'0', true),
            ("old", 0, true),
            ("dir/", b'0', true),
            ("old-dir/", 0, true),
            ("contiguous", b'7', true),
            ("unknown", b'Z', true),
            ("hard", b'1', false),
            ("soft", b'2', false),
            ("character", b'3', false),
            ("block", b'4', false),
            ("dir", b'5', false),
            ("pipe", b'6', false),
        ] {
            let mut tar = header(name.as_bytes(), type_flag, 512, b"x");
            tar.extend(header(b"inside", b'0', 0, b""));
            tar.extend(header(b"last", b'0', 0, b""));
            let lines = list(&tar).unwrap();
            let sees_inside = lines.iter().any(|line| line == "File inside 0");
            assert_eq!(sees_inside, !has_content, "{name}: {lines:?}");
        }
    }

    #[test]
    fn contents_are_skipped_by_seeking() {
        let big = vec![7; 3 * BUFFER + 5];
        let bytes = archive(&[("a", b"12345"), ("big", &big), ("c", b"xyz")]);
        let mut tar = Tar::new(std::io::Cursor::new(&bytes));
        let mut spans = Vec::new();
        while let Some(entry) = tar.next().unwrap() {
            let (path, size) = (entry.path().to_owned(), entry.size);
            spans.push((path, tar.position(), size));
            if size == 3 {
                assert_eq!(tar.content().unwrap(), Some(&b"xyz"[..]));
            }
            tar.seek_content().unwrap();
        }
        let names: Vec<_> = spans.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(names, ["a", "big", "c"]);
        for (name, offset, size) in &spans {
            let from = usize::try_from(*offset).unwrap();
            let content = &bytes[from..from + usize::try_from(*size).unwrap()];
            let want: &[u8] = match name.as_str() {
                "a" => b"12345",
                "big" => &big,
                _ => b"xyz",
            };
            assert_eq!(content, want, "{name}");
        }
    }

    #[test]
    fn long_names_of_both_kinds() {
        let long = format!("{}/{}", "d".repeat(200), "f".repeat(200));
        let mut tar = header(b"././@LongLink", b'L', long.len() as u64 + 1, b"");
        tar.extend(padded(format!("{long}\0").as_bytes()));
        tar.extend(header(b"cut", b'0', 0, b""));
        tar.extend(pax(&[("path", &long), ("size", "5"), ("mtime", "1.5")]));
        tar.extend(header(b"cut", b'0', 0, b""));
        tar.extend(padded(b"12345"));
        tar.extend(header(b"plain", b'0', 0, b""));
        assert_eq!(
            list(&tar).unwrap(),
            [
                format!("File {long} 0"),
                format!("File {long} 5"),
                "File plain 0".to_owned()
            ]
        );
        let mut with_prefix = header(b"name", b'0', 0, b"");
        with_prefix[345..348].copy_from_slice(b"dir");
        with_prefix[148..156].fill(b' ');
        let sum: u64 = with_prefix.iter().map(|&byte| u64::from(byte)).sum();
        with_prefix[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        assert_eq!(list(&with_prefix).unwrap(), ["File dir/name 0"]);
    }

    #[test]
    fn sparse_files_are_marked_and_skipped_whole() {
        let mut tar = header(b"old-gnu", b'S', 512, b"");
        tar[482] = 1;
        tar[148..156].fill(b' ');
        let sum: u64 = tar[..BLOCK].iter().map(|&byte| u64::from(byte)).sum();
        tar[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        tar.extend(vec![0; BLOCK]);
        tar.extend(vec![7; BLOCK]);
        tar.extend(pax(&[
            ("GNU.sparse.major", "1"),
            ("GNU.sparse.name", "real"),
            ("GNU.sparse.realsize", "8589934592"),
        ]));
        tar.extend(header(b"GNUSparseFile.0/real", b'0', 512, b""));
        tar.extend(vec![0; BLOCK]);
        tar.extend(header(b"next", b'0', 0, b""));
        assert_eq!(
            list(&tar).unwrap(),
            [
                "File old-gnu 512 sparse",
                "File real 512 sparse",
                "File next 0"
            ]
        );
    }

    #[test]
    fn damage_is_an_error_that_names_it() {
        let whole = archive(&[("a", b"12345")]);
        let mut bad_sum = whole.clone();
        bad_sum[0] = b'b';
        let mut huge = header(b"x", b'x', 1 << 30, b"");
        huge.extend(vec![0; BLOCK]);
        let deep = pax(&[("path", &"x/".repeat(3000))]);
        let sized = pax(&[("size", "-5")]);
        for (what, bytes, want) in [
            ("cut header", &whole[..100], "ends inside a header"),
            ("cut content", &whole[..BLOCK + 2], "ends inside a file"),
            ("checksum", &bad_sum[..], "bad header checksum"),
            ("huge pax", &huge[..], "a tar header is larger"),
            (
                "long path",
                &[deep, header(b"x", b'0', 0, b"")].concat()[..],
                "a path is larger",
            ),
            ("negative size", &sized[..], "malformed pax"),
            ("text", &[b'x'; 600][..], "not a number"),
        ] {
            let err = match list(bytes) {
                Err(err) => err.to_string(),
                Ok(lines) => panic!("{what}: {lines:?}"),
            };
            assert!(
                err.contains(want) || err.contains("bad header checksum"),
                "{what}: {err}"
            );
        }
    }

    #[test]
    fn every_prefix_of_an_archive_ends_without_a_panic() {
        let mut tar = pax(&[("path", "some/long/name"), ("size", "4")]);
        tar.extend(header(b"cut", b'0', 0, b""));
        tar.extend(padded(b"1234"));
        for n in 0..tar.len() {
            let _ = list(&tar[..n]);
        }
    }
}
