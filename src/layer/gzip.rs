//! gzip members, one after the other, as one stream (RFC 1952).
//!
//! The framing is read here and only the deflate data by a library, so that its CRC-32 need not be computed:
//! 7 % of the time of a layer, for a sum that SHA-256 over both sides of the same bytes makes needless. The
//! length in the trailer is checked.

use std::io::{self, BufRead, Read};

use flate2::{Decompress, FlushDecompress, Status};

use crate::error::Error;
use crate::limit;

const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];
/// Bits of the flags byte: header checksum, extra field, name, comment; the others are reserved.
const FHCRC: u8 = 2;
const FEXTRA: u8 = 4;
const FNAME: u8 = 8;
const FCOMMENT: u8 = 16;
const RESERVED: u8 = 0xe0;

/// A decompressing reader. Errors of the format carry a `Skip` error.
pub(super) struct Gzip<R> {
    reader: R,
    inflate: Decompress,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A member is to begin, or the stream to end.
    Between,
    Inside,
    Ended,
}

impl<R: BufRead> Gzip<R> {
    pub(super) fn new(reader: R) -> Self {
        Gzip {
            reader,
            inflate: Decompress::new(false),
            state: State::Between,
        }
    }

    pub(super) fn get_ref(&self) -> &R {
        &self.reader
    }

    pub(super) fn into_inner(self) -> R {
        self.reader
    }

    /// Reads a member's header. Returns `false` at the end of the stream.
    fn begin(&mut self) -> io::Result<bool> {
        if self.reader.fill_buf()?.is_empty() {
            return Ok(false);
        }
        let mut head = [0; 10];
        self.take(&mut head)?;
        if head[..3] != MAGIC || head[3] & RESERVED != 0 {
            return Err(damaged("no gzip header where one is due"));
        }
        let flags = head[3];
        let mut left = limit::GZIP_HEADER_BYTES;
        if flags & FEXTRA != 0 {
            let mut length = [0; 2];
            self.take(&mut length)?;
            for _ in 0..u16::from_le_bytes(length) {
                self.take(&mut [0])?;
            }
        }
        for text in [FNAME, FCOMMENT] {
            let mut byte = [1];
            while flags & text != 0 && byte != [0] {
                self.take(&mut byte)?;
                left = left
                    .checked_sub(1)
                    .ok_or_else(|| limit::over("a gzip header", limit::GZIP_HEADER_BYTES))?;
            }
        }
        if flags & FHCRC != 0 {
            self.take(&mut [0; 2])?;
        }
        self.inflate.reset(false);
        Ok(true)
    }

    /// Reads a member's trailer: checksum and length.
    fn end(&mut self) -> io::Result<()> {
        let mut trailer = [0; 8];
        self.take(&mut trailer)?;
        let length = u32::from_le_bytes([trailer[4], trailer[5], trailer[6], trailer[7]]);
        // The field holds the length modulo 2^32.
        if u64::from(length) != self.inflate.total_out() & u64::from(u32::MAX) {
            return Err(damaged("the length in the trailer is wrong"));
        }
        Ok(())
    }

    fn take(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.reader
            .read_exact(bytes)
            .map_err(|err| match err.kind() {
                io::ErrorKind::UnexpectedEof => damaged("it ends inside a header or trailer"),
                _ => err,
            })
    }
}

impl<R: BufRead> Read for Gzip<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        loop {
            match self.state {
                State::Ended => return Ok(0),
                State::Between => {
                    self.state = if self.begin()? {
                        State::Inside
                    } else {
                        State::Ended
                    }
                }
                State::Inside => {
                    let input = self.reader.fill_buf()?;
                    let is_last = input.is_empty();
                    let (before_in, before_out) =
                        (self.inflate.total_in(), self.inflate.total_out());
                    let status = self
                        .inflate
                        .decompress(input, buf, FlushDecompress::None)
                        .map_err(|_| damaged("the deflate data is invalid"))?;
                    // Both differences are lengths of slices given above.
                    let n_in = (self.inflate.total_in() - before_in) as usize;
                    let n_out = (self.inflate.total_out() - before_out) as usize;
                    self.reader.consume(n_in);
                    if status == Status::StreamEnd {
                        self.end()?;
                        self.state = State::Between;
                    } else if is_last && n_out == 0 {
                        return Err(damaged("it ends inside the deflate data"));
                    }
                    if n_out > 0 {
                        return Ok(n_out);
                    }
                }
            }
        }
    }
}

fn damaged(what: &str) -> io::Error {
    Error::skip(format_args!("gzip: {what}")).into()
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Write};

    use super::*;

    fn member(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// Reads with small buffers on both sides, so that every border is crossed.
    fn unpacked(bytes: &[u8]) -> Result<Vec<u8>, String> {
        let mut gzip = Gzip::new(BufReader::with_capacity(3, bytes));
        let (mut all, mut piece) = (Vec::new(), [0; 5]);
        loop {
            match gzip.read(&mut piece) {
                Ok(0) => return Ok(all),
                Ok(n) => all.extend_from_slice(&piece[..n]),
                Err(err) => return Err(err.to_string()),
            }
        }
    }

    #[test]
    fn members_follow_each_other() {
        let text: Vec<u8> = (0..10_000u32).flat_map(|n| n.to_le_bytes()).collect();
        let parts = [&text[..5], &[], &text[5..20_000], &text[20_000..]];
        let joined: Vec<u8> = parts.iter().flat_map(|part| member(part)).collect();
        assert_eq!(unpacked(&joined).unwrap(), text);
        assert_eq!(unpacked(b"").unwrap(), b"");
    }

    #[test]
    fn optional_header_fields_are_passed_over() {
        let plain = member(b"hello");
        let mut bytes = plain[..10].to_vec();
        bytes[3] = FEXTRA | FNAME | FCOMMENT | FHCRC;
        bytes.extend(b"\x03\0abcname\0comment\0\x12\x34");
        bytes.extend(&plain[10..]);
        assert_eq!(unpacked(&bytes).unwrap(), b"hello");
    }

    #[test]
    fn damage_is_named() {
        let whole = member(&[b'x'; 1000]);
        let mut length = whole.clone();
        *length.last_mut().unwrap() ^= 1;
        let mut endless = whole[..10].to_vec();
        endless[3] = FNAME;
        endless.extend(vec![b'n'; 100_000]);
        let mut reserved = whole.clone();
        reserved[3] = 0x80;
        for (bytes, want) in [
            (&whole[..5], "ends inside a header"),
            (&whole[..whole.len() - 9], "ends inside the deflate data"),
            (&whole[..whole.len() - 3], "ends inside a header or trailer"),
            (&length[..], "the length in the trailer is wrong"),
            (&endless[..], "a gzip header is larger than the limit"),
            (&reserved[..], "no gzip header"),
            (
                &[&whole[..], b"garbage behind it"].concat()[..],
                "no gzip header",
            ),
            (
                &[&whole[..10], &[0xff; 20]].concat()[..],
                "the deflate data is invalid",
            ),
        ] {
            let err = unpacked(bytes).unwrap_err();
            assert!(err.contains(want), "{err} lacks {want}");
        }
    }
}
