//! A blob as a reader that goes on where a broken connection left it.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use crate::error::{Error, Kind, Result, from_io};
use crate::http::retry::{backoff, stopped};
use crate::http::{Body, Http, Pace, Response};
use crate::stop::Stop;

/// Breaks without a byte in between after which the blob is given up.
const MAX_BREAKS: u32 = 4;

/// Which part of the time that a silence may take a break is counted for, so that a server that breaks after
/// every few bytes is as slow as one that sends them one by one: both would hold a worker for days.
const BREAK_COST: u32 = 6;

/// Opens the blob from an offset on: with a `Range` header when it is not 0.
type Open<'a> = Box<dyn FnMut(u64) -> Result<Response> + Send + 'a>;

/// Reads a blob of known size. The bytes are not checked here.
pub(crate) struct Resuming<'a> {
    open: Open<'a>,
    /// `None` after a break: its place at the host is needed by the request for the rest.
    body: Option<Body>,
    at: u64,
    size: u64,
    n_breaks: u32,
    /// Across breaks, over twice the time of one body: an answer that got slow is asked for again first.
    pace: Pace,
    break_cost: Duration,
    stop: Stop,
}

impl<'a> Resuming<'a> {
    /// Errors as `open` does for the first request.
    pub(crate) fn new(size: u64, http: &Http, mut open: Open<'a>) -> Result<Self> {
        let body = Some(open(0)?.body);
        let stall = http.timeouts().stall;
        Ok(Resuming {
            open,
            body,
            at: 0,
            size,
            n_breaks: 0,
            pace: Pace::new(stall.saturating_mul(2)),
            break_cost: stall / BREAK_COST,
            stop: http.stop().clone(),
        })
    }

    /// Resumes after a break for `reason`, or gives the last reason when that has failed often enough.
    fn recover(&mut self, mut reason: Error) -> Result<()> {
        self.body = None;
        while self.n_breaks < MAX_BREAKS && reason.kind() == Kind::Retry {
            self.pace.note(self.break_cost, 0)?;
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
        self.body = Some(response.body);
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
            let begun = Instant::now();
            let read = self.body.as_mut().map(|body| body.read(&mut buf[..want]));
            let reason = match read {
                None | Some(Ok(0)) => Error::retry(format_args!(
                    "the connection ended after {} bytes of {}",
                    self.at, self.size
                )),
                Some(Ok(n)) => {
                    self.at += n as u64;
                    self.n_breaks = 0;
                    let is_whole = self.at == self.size;
                    match self.pace.note(begun.elapsed(), n as u64) {
                        Err(err) if !is_whole => return Err(err.into()),
                        _ => return Ok(n),
                    }
                }
                Some(Err(err)) => from_io(Kind::Retry, err),
            };
            self.pace.note(begun.elapsed(), 0)?;
            self.recover(reason)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Settings;
    use ureq::http::HeaderMap;

    fn http() -> Http {
        Http::new(&Settings::default(), Stop::default()).unwrap()
    }

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
                retry_after: None,
                body: Body::of(rest.take(if ranges { each } else { offset + each })),
            })
        };
        Resuming::new(bytes.len() as u64, &http(), Box::new(open)).unwrap()
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
    fn a_server_that_breaks_after_every_byte_is_given_up() {
        let size = 100;
        let open = move |offset: u64| {
            let mut headers = HeaderMap::new();
            let range = format!("bytes {offset}-99/{size}");
            headers.insert("content-range", range.parse().unwrap());
            Ok(Response {
                status: if offset > 0 { 206 } else { 200 },
                headers,
                url: "http://localhost/".parse().unwrap(),
                retry_after: None,
                body: Body::of(&b"x"[..]),
            })
        };
        let mut blob = Resuming::new(size, &http(), Box::new(open)).unwrap();
        // All but two of the breaks that it takes.
        blob.pace.note(Duration::from_secs(50), 0).unwrap();
        let err = blob.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(
            err.to_string(),
            "the server sent 2 bytes in 60 s, less than 1024 a second"
        );
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
