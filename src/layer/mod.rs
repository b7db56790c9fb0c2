//! A blob's bytes become the files of a layer, streaming.
//!
//! In: a reader of a layer blob as the registry stores it. Out: tar entries in order, the digests of the blob
//! and of the tar, byte counts. gzip (also several members), zstd (also skippable frames) and plain tar are
//! told apart by their first bytes, never by the media type. Sources: OCI image-spec layer.md; RFC 1952;
//! RFC 8878; POSIX pax and GNU tar formats.
//!
//! Limits ([`crate::limit`]): bytes of tar, ratio, bytes of one header, window of zstd. Going over is an error
//! of kind `Limit`; a stream that is damaged is `Skip` from here, and the caller asks [`Stream::verify_blob`]
//! whether the registry really stores it so.
//!
//! *Invariant:* nothing is written anywhere, and memory does not grow with the layer.

mod compression;
mod gzip;
pub(crate) mod spare;
pub(crate) mod tar;
pub(crate) mod whiteout;

use std::io::{self, BufReader, Read};

use crate::error::{Error, Kind, Result, from_io};
use crate::image::{Digest, Hasher};
use crate::limit;
pub(crate) use compression::{HEAD, Packing};

use compression::Decoder;
use spare::{Digester, Reading, Spare};
use tar::Tar;

/// Bytes read from the network at once.
const BLOB_BUFFER: usize = 128 << 10;

/// A reader that digests and counts what passes through.
struct Digesting<R> {
    inner: R,
    hasher: Hasher,
    n_bytes: u64,
}

impl<R: Read> Read for Digesting<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut n = self.inner.read(buf)?;
        // A first packet may bring one byte, and the compression is told from several.
        while self.n_bytes == 0 && (1..HEAD.min(buf.len())).contains(&n) {
            match self.inner.read(&mut buf[n..])? {
                0 => break,
                more => n += more,
            }
        }
        self.hasher.update(&buf[..n]);
        self.n_bytes += n as u64;
        Ok(n)
    }
}

type Blob<R> = BufReader<Digesting<R>>;

/// The bytes of the tar, digested and held within the limits.
struct TarBytes<'a, R: Read> {
    decoder: Decoder<Blob<R>>,
    digester: Digester<'a>,
    n_bytes: u64,
    max_bytes: u64,
}

impl<R: Read> Read for TarBytes<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.decoder.read(buf)?;
        self.digester.update(&buf[..n])?;
        self.n_bytes += n as u64;
        if self.n_bytes > self.max_bytes {
            return Err(limit::over("the layer's tar", self.max_bytes)
                .hint("raise --max-layer-size to read it")
                .into());
        }
        let blob_bytes = self.decoder.get_ref().get_ref().n_bytes;
        if self.n_bytes > limit::RATIO_FROM && self.n_bytes / limit::LAYER_RATIO > blob_bytes {
            let message = format!(
                "the layer's tar is more than {} times larger than the blob, which is the limit",
                limit::LAYER_RATIO
            );
            return Err(Error::new(Kind::Limit, message).into());
        }
        Ok(n)
    }
}

/// A layer on its way from the registry.
pub(crate) struct Stream<'a, R: Read> {
    tar: Tar<TarBytes<'a, R>>,
    _reading: Reading<'a>,
    blob: Digest,
    size: u64,
}

/// What a layer turned out to be, once all of it was read.
pub(crate) struct Totals {
    pub(crate) diff_id: Digest,
    pub(crate) tar_bytes: u64,
}

impl<'a, R: Read> Stream<'a, R> {
    /// Opens the blob of that digest and size. Reads its first bytes; errors (`Retry`) when they cannot be had.
    pub(crate) fn open(
        blob: R,
        digest: &Digest,
        size: u64,
        max_tar_bytes: u64,
        spare: &'a Spare,
    ) -> Result<Self> {
        let reading = spare.reading();
        let blob = Digesting {
            inner: blob,
            hasher: digest.hasher(),
            n_bytes: 0,
        };
        let decoder = Decoder::sniff(BufReader::with_capacity(BLOB_BUFFER, blob))?;
        let bytes = TarBytes {
            decoder,
            digester: Digester::new(spare),
            n_bytes: 0,
            max_bytes: max_tar_bytes,
        };
        Ok(Stream {
            tar: Tar::new(bytes),
            _reading: reading,
            blob: digest.clone(),
            size,
        })
    }

    /// The entries, to walk with [`Tar::next`].
    pub(crate) fn tar(&mut self) -> &mut Tar<impl Read> {
        &mut self.tar
    }

    /// Reads what follows the last entry and checks the blob. Errors (`Retry`) when the bytes are not those
    /// that the digest names.
    pub(crate) fn finish(mut self) -> Result<Totals> {
        match self.tar.drain() {
            Ok(()) => {}
            Err(err) if err.kind() == Kind::Skip => {
                self.verify_blob()?;
                return Err(err);
            }
            Err(err) => return Err(err),
        }
        let bytes = self.tar.into_inner();
        let (tar_bytes, digester) = (bytes.n_bytes, bytes.digester);
        verify(bytes.decoder.into_inner(), &self.blob, self.size)?;
        Ok(Totals {
            diff_id: digester.finish()?.finish(),
            tar_bytes,
        })
    }

    /// `err`, or the name of the blob's compression when its first bytes are neither a tar's nor of one that is
    /// read.
    pub(crate) fn explained(&self, err: Error) -> Error {
        match self.tar.get_ref().decoder.other_packing() {
            Some(packing) if self.tar.position() <= tar::BLOCK as u64 => {
                Error::skip(format_args!("unsupported compression: {packing}"))
                    .hint("push the image again with layers of gzip or zstd")
            }
            _ => err,
        }
    }

    /// After the contents turned out to be damaged: reads the rest of the blob and checks it. `Ok` means that
    /// the registry stores it so, and trying again is useless.
    pub(crate) fn verify_blob(self) -> Result<()> {
        verify(
            self.tar.into_inner().decoder.into_inner(),
            &self.blob,
            self.size,
        )
    }
}

/// What `reader` holds without its gzip or zstd; anything else as it is. Nothing is digested or held within a
/// limit, except the window of zstd. Reads the first bytes; errors (`Retry`) when they cannot be had.
pub(crate) fn decompressed<R: Read>(reader: R) -> Result<impl Read + use<R>> {
    Decoder::sniff(BufReader::with_capacity(BLOB_BUFFER, reader))
}

/// Reads the rest of the blob and compares it with its digest and size.
fn verify<R: Read>(blob: Blob<R>, digest: &Digest, size: u64) -> Result<()> {
    // What the buffer holds was digested when it was filled.
    let mut rest = blob.into_inner();
    io::copy(&mut rest, &mut io::sink()).map_err(|err| from_io(Kind::Retry, err))?;
    if rest.n_bytes != size {
        return Err(Error::retry(format_args!(
            "the registry sent {} bytes of {size}",
            rest.n_bytes
        )));
    }
    let found = rest.hasher.finish();
    if found != *digest {
        return Err(Error::retry(format_args!(
            "the registry sent other content: its digest is `{found}`"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn names(blob: &[u8], max: u64) -> Result<(Vec<String>, Totals)> {
        let spare = Spare::new(0).0;
        let mut stream = Stream::open(blob, &Digest::of(blob), blob.len() as u64, max, &spare)?;
        let mut names = Vec::new();
        while let Some(entry) = stream.tar().next()? {
            names.push(entry.path().to_owned());
        }
        Ok((names, stream.finish()?))
    }

    #[test]
    fn every_compression_gives_the_same_files() {
        let tar = tar::tests::archive(&[("etc/os-release", b"ID=x\n"), ("bin/app", &[7; 3000])]);
        let mut two_members = gzip(&tar[..700]);
        two_members.extend(gzip(&tar[700..]));
        two_members.extend(gzip(b""));
        let mut skippable = vec![0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
        skippable.extend(zstd::encode_all(&tar[..100], 3).unwrap());
        skippable.extend([0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0]);
        skippable.extend(zstd::encode_all(&tar[100..], 3).unwrap());
        for (what, blob) in [
            ("plain", tar.clone()),
            ("gzip", gzip(&tar)),
            ("members", two_members),
            ("zstd", skippable),
        ] {
            let (names, totals) =
                names(&blob, u64::MAX).unwrap_or_else(|err| panic!("{what}: {err}"));
            assert_eq!(names, ["etc/os-release", "bin/app"], "{what}");
            assert_eq!(totals.diff_id, Digest::of(&tar), "{what}");
            assert_eq!(totals.tar_bytes, tar.len() as u64, "{what}");
        }
    }

    #[test]
    fn a_blob_may_come_byte_by_byte() {
        /// One byte at a time.
        struct Drops<'a>(&'a [u8]);
        impl Read for Drops<'_> {
            fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
                let n = buf.len().min(1);
                self.0.read(&mut buf[..n])
            }
        }
        let tar = tar::tests::archive(&[("a", b"b")]);
        let zstd = zstd::encode_all(&tar[..], 3).unwrap();
        for blob in [gzip(&tar), zstd, tar, vec![0x1f], vec![]] {
            let spare = Spare::new(0).0;
            let (digest, size) = (Digest::of(&blob), blob.len() as u64);
            let mut stream = Stream::open(Drops(&blob), &digest, size, 1 << 20, &spare).unwrap();
            match stream.tar().next() {
                Ok(Some(entry)) => assert_eq!(entry.path(), "a"),
                Ok(None) => assert!(blob.is_empty()),
                Err(err) => assert_eq!((blob.len(), err.kind()), (1, Kind::Skip)),
            }
            stream.verify_blob().unwrap();
        }
    }

    #[test]
    fn a_compression_that_is_not_read_is_named_and_a_tar_may_look_like_one() {
        for (first_name, packing) in [("BZh91AY", "bzip2"), ("]", "lzma")] {
            let tar = tar::tests::archive(&[(first_name, b"x"), ("b", b"y")]);
            assert_eq!(names(&tar, u64::MAX).unwrap().0, [first_name, "b"]);
            let blob = &tar[..300];
            let spare = Spare::new(0).0;
            let (digest, size) = (Digest::of(blob), blob.len() as u64);
            let mut stream = Stream::open(blob, &digest, size, u64::MAX, &spare).unwrap();
            let err = stream.tar().next().map(|_| ()).unwrap_err();
            let wanted = format!("unsupported compression: {packing}");
            assert_eq!(stream.explained(err).to_string(), wanted);
        }
    }

    #[test]
    fn an_empty_blob_is_an_empty_layer() {
        assert_eq!(names(b"", 10).unwrap().0, [""; 0]);
        assert_eq!(names(&gzip(b""), 10).unwrap().0, [""; 0]);
    }

    #[test]
    fn damage_is_told_from_bad_transport() {
        let tar = tar::tests::archive(&[("a", &[1; 5000])]);
        let blob = gzip(&tar);
        let cut = &blob[..blob.len() / 2];
        let stream = |bytes: &'static [u8], digest: Digest, size: usize| {
            let spare = Spare::new(0).0;
            let mut stream = Stream::open(bytes, &digest, size as u64, u64::MAX, &spare).unwrap();
            let mut walk = || -> Result<()> {
                while stream.tar().next()?.is_some() {}
                Ok(())
            };
            let walked = walk();
            (walked, stream.verify_blob())
        };
        let leaked: &'static [u8] = cut.to_vec().leak();
        let (walked, verified) = stream(leaked, Digest::of(cut), cut.len());
        assert_eq!(walked.unwrap_err().kind(), Kind::Skip);
        verified.unwrap();
        let (_, verified) = stream(leaked, Digest::of(&blob), blob.len());
        assert!(verified.unwrap_err().to_string().contains("bytes of"));
        let spare = Spare::new(0).0;
        let wrong = Stream::open(
            &blob[..],
            &Digest::of(b"other"),
            blob.len() as u64,
            u64::MAX,
            &spare,
        )
        .unwrap();
        let err = wrong.finish().err().unwrap();
        assert!(err.to_string().contains("other content"), "{err}");
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let blob = gzip(&vec![0; 1 << 20]);
        let err = names(&blob, 1000).err().unwrap();
        assert_eq!((err.kind(), err.hint_text().is_some()), (Kind::Limit, true));
    }
}
