//! Decompression, chosen by the first bytes.

use std::io::{self, BufRead, Read};

use super::gzip::Gzip;
use crate::error::{Error, Kind, Result, from_io};
use crate::limit;

/// A decompressing reader.
pub(super) enum Decoder<R: BufRead> {
    Plain(R),
    Gzip(Gzip<R>),
    Zstd(zstd::Decoder<'static, R>),
}

impl<R: BufRead> Decoder<R> {
    /// Looks at the first bytes of `reader`. Anything that is neither gzip nor zstd is taken for a plain tar,
    /// whose own checksums tell whether it is one.
    pub(super) fn sniff(mut reader: R) -> Result<Self> {
        let head = reader.fill_buf().map_err(|err| from_io(Kind::Retry, err))?;
        Ok(match head {
            [0x1f, 0x8b, ..] => Decoder::Gzip(Gzip::new(reader)),
            // A frame, or one of the sixteen skippable frames (RFC 8878, 3.1).
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
                let mut decoder = zstd::Decoder::with_buffer(reader)
                    .map_err(|err| Error::stop(format_args!("zstd: {err}")))?;
                decoder
                    .window_log_max(limit::ZSTD_WINDOW_LOG)
                    .map_err(|err| Error::stop(format_args!("zstd: {err}")))?;
                Decoder::Zstd(decoder)
            }
            _ => Decoder::Plain(reader),
        })
    }

    pub(super) fn get_ref(&self) -> &R {
        match self {
            Decoder::Plain(reader) => reader,
            Decoder::Gzip(decoder) => decoder.get_ref(),
            Decoder::Zstd(decoder) => decoder.get_ref(),
        }
    }

    pub(super) fn into_inner(self) -> R {
        match self {
            Decoder::Plain(reader) => reader,
            Decoder::Gzip(decoder) => decoder.into_inner(),
            Decoder::Zstd(decoder) => decoder.finish(),
        }
    }
}

impl<R: BufRead> Read for Decoder<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Decoder::Plain(reader) => reader.read(buf),
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
