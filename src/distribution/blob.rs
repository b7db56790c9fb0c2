//! A blob as a reader that goes on where a broken connection left it.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use crate::error::{Error, Kind, Result, from_io};
use crate::http::Response;
use crate::http::retry::{backoff, stopped};
use crate::stop::Stop;

/// Breaks without a byte in between after which the blob is given up.
const MAX_BREAKS: u32 = 4;

/// A blob that brings fewer bytes than this in [`WINDOW`] is given up: it would hold a worker for days.
const WINDOW_BYTES: u64 = 64 << 10;
const WINDOW: Duration = Duration::from_secs(60);

/// Opens the blob from an offset on: with a `Range` header when it is not 0.
type Open<'a> = Box<dyn FnMut(u64) -> Result<Response> + Send + 'a>;

/// Reads a blob of known size. The bytes are not checked here.
pub(crate) struct Resuming<'a> {
    open: Open<'a>,
    body: Box<dyn Read + Send>,
    at: u64,
    size: u64,
    n_breaks: u32,
    /// Since when, and from which offset, the rate is looked at.
    window: (Instant, u64),
    stop: Stop,
}

impl<'a> Resuming<'a> {
    /// Errors as `open` does for the first request.
    pub(crate) fn new(size: u64, stop: Stop, mut open: Open<'a>) -> Result<Self> {
        let body = open(0)?.body;
        Ok(Resuming {
            open,
            body,
            at: 0,
            size,
            n_breaks: 0,
            window: (Instant::now(), 0),
            stop,
        })
    }

    /// Errors (`Retry`) when a window has gone by in which too little came.
    fn check_rate(&mut self, now: Instant) -> Result<()> {
        let (since, from) = self.window;
        if now.saturating_duration_since(since) < WINDOW {
            return Ok(());
        }
        self.window = (now, self.at);
        if self.at - from < WINDOW_BYTES && self.at < self.size {
            return Err(Error::retry(format_args!(
                "the server sends less than {WINDOW_BYTES} bytes in {} seconds",
                WINDOW.as_secs()
            )));
        }
        Ok(())
    }

    /// Resumes after a break for `reason`, or gives the last reason when that has failed often enough.
    fn recover(&mut self, mut reason: Error) -> Result<()> {
        while self.n_breaks < MAX_BREAKS && reason.kind() == Kind::Retry {
            match self.resume() {
                Ok(()) => return Ok(()),
                Err(err) => reason = err,
            }
        }
        Err(reason)
    }

    /// Asks for the rest. A server that ignores `Range` sends all of it again, of which the start is dropped.
    fn resume(&mut self) -> Result<()> {
        self.n_breaks += 1;
        if self.stop.sleep(backoff(
            self.n_breaks,
            Duration::from_millis(300),
            Duration::from_secs(5),
        )) {
            return Err(stopped());
        }
        let mut response = (self.open)(self.at)?;
        if response.status == 206 {
            let range = response.header("content-range").unwrap_or("");
            if !range.starts_with(&format!("bytes {}-", self.at)) {
                return Err(Error::retry(format_args!(
                    "asked for bytes from {}, got `{range}`",
                    self.at
                )));
            }
        } else {
            let skipped = io::copy(&mut (&mut response.body).take(self.at), &mut io::sink());
            let skipped = skipped.map_err(|err| from_io(Kind::Retry, err))?;
            if skipped < self.at {
                return Err(Error::retry("the connection broke again"));
            }
        }
        self.body = response.body;
        Ok(())
    }
}

impl Read for Resuming<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.at == self.size || buf.is_empty() {
            return Ok(0);
        }
        let want = buf
            .len()
            .min(usize::try_from(self.size - self.at).unwrap_or(usize::MAX));
        loop {
            if self.stop.is_requested() {
                return Err(stopped().into());
            }
            let reason = match self.body.read(&mut buf[..want]) {
                Ok(0) => Error::retry(format_args!(
                    "the connection ended after {} bytes of {}",
                    self.at, self.size
                )),
                Ok(n) => {
                    self.at += n as u64;
                    self.n_breaks = 0;
                    return self
                        .check_rate(Instant::now())
                        .map(|()| n)
                        .map_err(io::Error::from);
                }
                Err(err) => from_io(Kind::Retry, err),
            };
            self.recover(reason)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ureq::http::HeaderMap;

    /// A server whose connections break after `each` bytes.
    fn breaking(bytes: &'static [u8], each: u64, ranges: bool) -> Resuming<'static> {
        let open = move |offset: u64| {
            let mut headers = HeaderMap::new();
            let from = if ranges { offset } else { 0 };
            headers.insert(
                "content-range",
                format!("bytes {offset}-9/10").parse().unwrap(),
            );
            let rest = &bytes[usize::try_from(from).unwrap()..];
            Ok(Response {
                status: if ranges && offset > 0 { 206 } else { 200 },
                headers,
                url: "http://localhost/".parse().unwrap(),
                body: Box::new(rest.take(if ranges { each } else { offset + each })),
            })
        };
        Resuming::new(bytes.len() as u64, Stop::default(), Box::new(open)).unwrap()
    }

    #[test]
    fn broken_connections_are_resumed() {
        for ranges in [true, false] {
            let mut read = Vec::new();
            breaking(b"0123456789", 4, ranges)
                .read_to_end(&mut read)
                .unwrap();
            assert_eq!(read, b"0123456789", "ranges: {ranges}");
        }
    }

    #[test]
    fn a_server_that_trickles_is_given_up() {
        let mut blob = breaking(b"0123456789", 10, true);
        let later = |secs| Instant::now() + Duration::from_secs(secs);
        blob.at = 5;
        assert!(blob.check_rate(later(59)).is_ok());
        let err = blob.check_rate(later(61)).unwrap_err();
        assert!(
            err.to_string()
                .contains("less than 65536 bytes in 60 seconds"),
            "{err}"
        );
        blob.at = 10;
        assert!(blob.check_rate(later(200)).is_ok());
    }

    #[test]
    fn a_server_that_never_goes_on_is_given_up() {
        let err = breaking(b"0123456789", 0, true)
            .read_to_end(&mut Vec::new())
            .unwrap_err();
        assert!(
            err.to_string().contains("ended after 0 bytes of 10"),
            "{err}"
        );
    }
}
