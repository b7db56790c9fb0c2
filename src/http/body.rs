//! The body of an answer: reads it, and keeps its place at the host until then.

use std::io::{self, Read};
use std::time::Instant;

use super::budget::Place;
use super::timeouts::{Pace, Timeouts};
use crate::error::Error;

/// Bytes of an answer. Errors of kind `Retry` when they come too slowly.
pub(crate) struct Body {
    // Dropped before the place, so that the connection is free for whoever gets it.
    inner: Box<dyn Read + Send>,
    timeouts: Timeouts,
    pace: Pace,
    /// Found slow while bytes were handed on; told by the next read.
    slow: Option<Error>,
    host: String,
    place: Option<Place>,
}

impl Body {
    /// `host` names the server in errors.
    pub(super) fn new(
        inner: Box<dyn Read + Send>,
        timeouts: Timeouts,
        host: String,
        place: Place,
    ) -> Self {
        Body {
            inner,
            timeouts,
            pace: Pace::new(timeouts.stall),
            slow: None,
            host,
            place: Some(place),
        }
    }

    /// Gives the place at the host to others already, for a body that is read at the pace of threads that wait
    /// for a place themselves: they and it would wait for each other.
    pub(crate) fn leave_place(&mut self) {
        self.place = None;
    }

    /// A body without a server behind it.
    #[cfg(test)]
    pub(crate) fn of(inner: impl Read + Send + 'static) -> Self {
        let timeouts = Timeouts::default();
        Body {
            inner: Box::new(inner),
            timeouts,
            pace: Pace::new(timeouts.stall),
            slow: None,
            host: "localhost".to_owned(),
            place: None,
        }
    }
}

impl Read for Body {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if let Some(err) = self.slow.take() {
            return Err(err.into());
        }
        let begun = Instant::now();
        let n = match self.inner.read(buf) {
            Ok(n) => n,
            Err(err) => {
                return Err(match ureq::Error::from(err) {
                    ureq::Error::Timeout(phase) => self.timeouts.error(phase, &self.host).into(),
                    err => err.into_io(),
                });
            }
        };
        if n == 0 && !buf.is_empty() {
            self.place = None;
        } else {
            let noted = self.pace.note(begun.elapsed(), n as u64);
            self.slow = noted
                .err()
                .map(|err| err.context(format_args!("`{}`", self.host)));
        }
        Ok(n)
    }
}
