//! The bounds on everything that comes from outside, each with its unit and its reason, and the reader that
//! holds them.
//!
//! *Invariant:* going over a limit is an error that names it, never a silent cut.

use std::io::{self, Read};

use crate::error::{Error, Kind, Result, from_io};

/// Bytes of one manifest or index. The distribution-spec asks registries to take 4 MiB at least, and real
/// ones take no more.
pub(crate) const MANIFEST_BYTES: u64 = 4 << 20;
/// Bytes of one image configuration; real ones stay below 100 KiB.
pub(crate) const CONFIG_BYTES: u64 = 4 << 20;
/// Bytes of one page of a catalog or tag listing. Old registries put all tags of a repository into one page.
pub(crate) const PAGE_BYTES: u64 = 8 << 20;
/// Pages of one listing: with 100 names a page, more than [`LISTING_NAMES`].
pub(crate) const PAGES: usize = 10_000;
/// Names of one listing, which are remembered to see when a listing goes in circles.
pub(crate) const LISTING_NAMES: usize = 500_000;
/// Bytes of the names of one listing; those of a catalog are held until their tags are listed.
pub(crate) const LISTING_BYTES: usize = 16 << 20;
/// Bytes of one AQL answer, which is read row by row: about 20 million tags.
pub(crate) const AQL_BYTES: u64 = 8 << 30;
/// Bytes kept of an error body: enough for its message.
pub(crate) const ERROR_BODY_BYTES: u64 = 64 << 10;
/// Bytes of a token answer.
pub(crate) const TOKEN_BYTES: u64 = 1 << 20;
/// Bytes of a word in a manifest or configuration: a media type (which RFC 6838 ends at 255), a platform, a user,
/// a time.
pub(crate) const WORD_BYTES: usize = 1_024;
/// Variables, and labels, of one image configuration; real ones have some dozens.
pub(crate) const CONFIG_NAMES: usize = 10_000;
/// Layers of one image. Docker stops at 127; some builders make more.
pub(crate) const LAYERS: usize = 1_000;
/// Manifests named by one index.
pub(crate) const INDEX_ENTRIES: usize = 1_000;
/// Layers of all images of one tag: forty platforms of Docker's most.
pub(crate) const TAG_LAYERS: usize = 5_000;
/// Bytes of the configurations of all images of one tag, which are held until its layers are read.
pub(crate) const TAG_CONFIG_BYTES: u64 = 16 << 20;
/// Bytes that a descriptor may claim: 64 TiB is more than registries store, and sums of it do not overflow.
pub(crate) const BLOB_BYTES: u64 = 1 << 46;
/// Indexes inside indexes.
pub(crate) const INDEX_DEPTH: usize = 4;
/// Hosts of whose requests an account is kept.
pub(crate) const HOSTS: usize = 1_000;
/// Redirects followed for one request.
pub(crate) const REDIRECTS: usize = 5;
/// Entries of one layer's tar. The largest real layers have some hundred thousand.
pub(crate) const LAYER_ENTRIES: u64 = 1_000_000;
/// How many times larger than its compressed form a layer may be, once it is past [`RATIO_FROM`].
/// Text reaches 20, zeros reach 1,000.
pub(crate) const LAYER_RATIO: u64 = 200;
/// Bytes of tar below which the ratio is not looked at: small layers of zeros do no harm.
pub(crate) const RATIO_FROM: u64 = 1 << 30;
/// Bytes of one path; Linux stops at 4,096 too.
pub(crate) const PATH_BYTES: usize = 4_096;
/// Components of one path.
pub(crate) const PATH_DEPTH: usize = 128;
/// Bytes of one pax header or GNU long name.
pub(crate) const TAR_META_BYTES: u64 = 1 << 20;
/// Bytes of name and comment in a gzip header; archivers put a file name there.
pub(crate) const GZIP_HEADER_BYTES: u64 = 64 << 10;
/// Bytes of whiteouts kept of one layer, [`PATH_OVERHEAD`] included: a quarter of a million short ones.
pub(crate) const WHITEOUT_BYTES: usize = 16 << 20;
/// Bytes that a path in memory is counted for beside its own.
pub(crate) const PATH_OVERHEAD: usize = 64;
/// Compressed bytes of evidence kept of one layer, and of its paths.
pub(crate) const EVIDENCE_BYTES: usize = 16 << 20;
/// Bytes of the evidence paths of all layers of one image, [`PATH_OVERHEAD`] included, while it is put together.
pub(crate) const IMAGE_EVIDENCE_BYTES: usize = 32 << 20;
/// Pieces of evidence kept of one layer.
pub(crate) const EVIDENCE_FILES: usize = 100_000;
/// Bytes of one evidence file, whatever an ecosystem asks for: a dpkg status of 3,000 packages has 4 MiB.
pub(crate) const EVIDENCE_FILE_BYTES: u64 = 16 << 20;
/// Packages of one evidence file; the largest systems have 6,000.
pub(crate) const PACKAGES: usize = 20_000;
/// Licenses of one package.
pub(crate) const LICENSES: usize = 100;
/// Bytes of a package's name or version. npm stops at 214; Go module paths are the longest seen, below 200.
pub(crate) const FIELD_BYTES: usize = 1_024;
/// Bytes of one npm `package.json`; the largest real ones list some thousand files and stay below 1 MiB.
pub(crate) const PACKAGE_JSON_BYTES: u64 = 4 << 20;
/// Bytes of one Python `METADATA` or `PKG-INFO`, which hold the project's whole readme.
pub(crate) const PYTHON_METADATA_BYTES: u64 = 4 << 20;
/// Bytes of module data kept of one Go program; those with a thousand modules have 100 KiB.
pub(crate) const GO_MODULES_BYTES: usize = 4 << 20;
/// Go programs in one file. A file has one, unless it carries others inside.
pub(crate) const GO_PROGRAMS: usize = 64;
/// Problems kept of one layer; the rest is counted.
pub(crate) const PROBLEMS: usize = 100;
/// Window of a zstd frame, as a power of two. RFC 8878 section 3.1.1.1.2 asks decoders for 8 MiB, and the
/// builders in use stay within it.
pub(crate) const ZSTD_WINDOW_LOG: u32 = 23;

/// Bytes of a webhook's body. Artifactory sends 1 KiB; a distribution registry's envelope of many events more.
pub(crate) const WEBHOOK_BYTES: usize = 1 << 20;
/// Events of one webhook's body.
pub(crate) const WEBHOOK_EVENTS: usize = 1_000;
/// Accepted events that wait to be looked at, one for each tag: about 300 MB of store.
pub(crate) const EVENTS: i64 = 1_000_000;

/// Bytes of a Docker `config.json`. With an entry for each of 1,000 registries it has 200 KiB.
pub(crate) const CREDENTIAL_FILE_BYTES: u64 = 1 << 20;
/// Bytes of a credential helper's answer. Tokens of cloud registries reach 10 KiB.
pub(crate) const HELPER_BYTES: u64 = 64 << 10;
/// Bytes of a file of certificates. Mozilla's whole list has 230 KiB.
pub(crate) const CERTIFICATE_BYTES: u64 = 16 << 20;

/// A reader that fails one byte past its cap, so that a stream of exactly the cap is fine.
pub(crate) struct Limited<R> {
    inner: R,
    left: u64,
    cap: u64,
    what: &'static str,
}

impl<R: Read> Limited<R> {
    /// `what` names the limit in the error: "manifest".
    pub(crate) fn new(inner: R, cap: u64, what: &'static str) -> Self {
        Limited {
            inner,
            left: cap,
            cap,
            what,
        }
    }
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            let mut probe = [0];
            return match self.inner.read(&mut probe)? {
                0 => Ok(0),
                _ => Err(over(self.what, self.cap).into()),
            };
        }
        let want = buf
            .len()
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let n = self.inner.read(&mut buf[..want])?;
        self.left -= n as u64;
        Ok(n)
    }
}

/// The error for something larger than `cap` bytes.
pub(crate) fn over(what: &str, cap: u64) -> Error {
    Error::new(
        Kind::Limit,
        format_args!("{what} is larger than the limit of {cap} bytes"),
    )
}

/// Errors (`Limit`) when the word of a document is over [`WORD_BYTES`].
pub(crate) fn check_word(what: &str, word: &str) -> Result<()> {
    if word.len() > WORD_BYTES {
        return Err(over(what, WORD_BYTES as u64));
    }
    Ok(())
}

/// Reads all of `reader`, at most `cap` bytes. Errors of kind `Limit` when there is more, else `Retry`.
pub(crate) fn read_all(reader: impl Read, cap: u64, what: &'static str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    Limited::new(reader, cap, what)
        .read_to_end(&mut bytes)
        .map_err(|err| from_io(Kind::Retry, err))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_cap_is_fine_and_one_more_is_named() {
        assert_eq!(read_all(&b"12345"[..], 5, "page").unwrap(), b"12345");
        let err = read_all(&b"123456"[..], 5, "page").unwrap_err();
        assert_eq!(err.to_string(), "page is larger than the limit of 5 bytes");
        assert_eq!(err.kind(), Kind::Limit);
    }
}
