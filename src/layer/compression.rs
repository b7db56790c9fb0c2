//! Decompression, chosen by the first bytes.

use std::io::{self, BufRead, Read};

use super::gzip::Gzip;
use crate::error::{Error, Kind, Result, from_io};
use crate::limit;

/// First bytes that tell how bytes are packed.
pub(crate) const HEAD: usize = 6;

/// How bytes are packed, by their first ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    Plain,
    Gzip,
    Zstd,
    /// Not supported; its name.
    Other(&'static str),
}

impl Packing {
    /// `head` are the first [`HEAD`] bytes, or all when there are less.
    pub(crate) fn of(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Packing::Gzip,
            // A frame, or one of the sixteen skippable frames (RFC 8878, 3.1).
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Packing::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Packing::Other("xz"),
            [b'B', b'Z', b'h', ..] => Packing::Other("bzip2"),
            [0x04, 0x22, 0x4d, 0x18, ..] => Packing::Other("lz4"),
            [b'L', b'Z', b'I', b'P', ..] => Packing::Other("lzip"),
            [0x5d, 0, 0, ..] => Packing::Other("lzma"),
            [0x1f, 0x9d, ..] => Packing::Other("compress"),
            _ => Packing::Plain,
        }
    }
}

/// A decompressing reader.
pub(super) enum Decoder<R: BufRead> {
    /// And how it is packed instead if it turns out to be no tar.
    Plain(R, Option<&'static str>),
    Gzip(Gzip<R>),
    Zstd(zstd::Decoder<'static, R>),
}

impl<R: BufRead> Decoder<R> {
    /// Looks at the first bytes of `reader`. Anything that is neither gzip nor zstd is taken for a plain tar,
    /// whose own checksums tell whether it is one.
    pub(super) fn sniff(mut reader: R) -> Result<Self> {
        let head = reader.fill_buf().map_err(|err| from_io(Kind::Retry, err))?;
        Ok(match Packing::of(head) {
            Packing::Gzip => Decoder::Gzip(Gzip::new(reader)),
            Packing::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(reader)
                    .map_err(|err| Error::stop(format_args!("zstd: {err}")))?;
                decoder
                    .window_log_max(limit::ZSTD_WINDOW_LOG)
                    .map_err(|err| Error::stop(format_args!("zstd: {err}")))?;
                Decoder::Zstd(decoder)
            }
            Packing::Plain => Decoder::Plain(reader, None),
            // A tar may begin like that, with the name of its first file.
            Packing::Other(packing) => Decoder::Plain(reader, Some(packing)),
        })
    }

    /// The unsupported compression that the first bytes are those of, if they are not a tar's.
    pub(super) fn other_packing(&self) -> Option<&'static str> {
        match self {
            Decoder::Plain(_, packing) => *packing,
            Decoder::Gzip(_) | Decoder::Zstd(_) => None,
        }
    }

    pub(super) fn get_ref(&self) -> &R {
        match self {
            Decoder::Plain(reader, _) => reader,
            Decoder::Gzip(decoder) => decoder.get_ref(),
            Decoder::Zstd(decoder) => decoder.get_ref(),
        }
    }

    pub(super) fn into_inner(self) -> R {
        match self {
            Decoder::Plain(reader, _) => reader,
            Decoder::Gzip(decoder) => decoder.into_inner(),
            Decoder::Zstd(decoder) => decoder.finish(),
        }
    }
}

impl<R: BufRead> Read for Decoder<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Decoder::Plain(reader, _) => reader.read(buf),
            Decoder::Gzip(decoder) => decoder.read(buf),
            Decoder::Zstd(decoder) => decoder.read(buf).map_err(damaged),
        }
    }
}

/// Names the format in an error of the zstd decoder; an error of the network below passes as it is.
fn damaged(err: io::Error) -> io::Error {
    if err.get_ref().is_some_and(|inner| inner.is::<Error>()) {
        return err;
    }
    let text = err.to_string();
    if text.contains("requires too much memory") {
        let window = 1u64 << limit::ZSTD_WINDOW_LOG;
        return Error::new(
            Kind::Limit,
            format_args!("zstd window is larger than the limit of {window} bytes"),
        )
        .into();
    }
    Error::skip(format_args!("zstd: {text}")).into()
}
