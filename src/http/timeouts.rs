//! How long a server may take: to be reached, to begin its answer, and to bring each part of it. Never in all.
//!
//! ureq has one time-out for every read. The head of an answer may take longer than a silence inside its body,
//! so [`Silence`] sets it for bodies alone. What brings a byte now and then is the business of [`Pace`].

use std::time::Duration;

use ureq::Timeout;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

use crate::error::{Error, Result};

/// Bytes a second that an answer has to bring on average: a slow modem does.
const RATE: u64 = 1 << 10;

/// Each starts anew with its phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timeouts {
    /// To connect, with TLS and through a proxy. Looking the name up before may take as long again.
    pub(crate) connect: Duration,
    /// From the end of the request to the end of the answer's head.
    pub(crate) response: Duration,
    /// Without a byte either way; and in which a body may bring less than [`RATE`].
    pub(crate) stall: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            connect: Duration::from_secs(10),
            // A remote repository asks its upstream first.
            response: Duration::from_secs(60),
            stall: Duration::from_secs(30),
        }
    }
}

impl Timeouts {
    /// The error (`Retry`) of a phase that took too long.
    pub(super) fn error(&self, phase: Timeout, host: &str) -> Error {
        let after = |what: &str, time: Duration| {
            Error::retry(format_args!("`{host}` {what} {} s", time.as_secs()))
        };
        match phase {
            Timeout::Resolve => after("could not be looked up within", self.connect),
            Timeout::Connect => after("could not be connected to within", self.connect)
                .hint("give it more time with --connect-timeout"),
            Timeout::RecvResponse => after("did not begin to answer within", self.response)
                .hint("give it more time with --response-timeout"),
            Timeout::PerRead => {
                after("sent nothing for", self.stall).hint("give it more time with --stall-timeout")
            }
            Timeout::SendRequest | Timeout::SendBody | Timeout::PerWrite => {
                after("took nothing for", self.stall)
            }
            _ => Error::retry(format_args!("`{host}` timed out: {phase}")),
        }
    }
}

/// How fast bytes come. Only the time spent waiting for them counts, so that whoever reads them may take his.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    window: Duration,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    /// `window` is the waiting after which the rate is looked at.
    pub(crate) fn new(window: Duration) -> Self {
        Pace {
            window,
            waited: Duration::ZERO,
            bytes: 0,
        }
    }

    /// Notes that `bytes` came after a wait. Errors (`Retry`) when a window has gone by in which too few did.
    pub(crate) fn note(&mut self, waited: Duration, bytes: u64) -> Result<()> {
        self.waited = self.waited.saturating_add(waited);
        self.bytes = self.bytes.saturating_add(bytes);
        if self.waited < self.window {
            return Ok(());
        }
        let (came, wanted) = (self.bytes, RATE.saturating_mul(self.window.as_secs()));
        *self = Pace::new(self.window);
        if came >= wanted {
            return Ok(());
        }
        Err(Error::retry(format_args!(
            "the server sent {came} bytes in {} s, less than {RATE} a second",
            self.window.as_secs()
        ))
        .hint("give it more time with --stall-timeout"))
    }
}

/// The last link of the chain of connectors: makes every read of a body end after a silence.
#[derive(Debug)]
pub(super) struct Silence(pub(super) Duration);

/// A connection with that time-out.
#[derive(Debug)]
pub(super) struct Silenced<T> {
    inner: T,
    most: Duration,
}

impl<In: Transport> Connector<In> for Silence {
    type Out = Silenced<In>;

    fn connect(
        &self,
        _: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> std::result::Result<Option<Silenced<In>>, ureq::Error> {
        let most = self.0;
        Ok(chained.map(|inner| Silenced { inner, most }))
    }
}

impl<T: Transport> Transport for Silenced<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(
        &mut self,
        amount: usize,
        timeout: NextTimeout,
    ) -> std::result::Result<(), ureq::Error> {
        self.inner.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, mut timeout: NextTimeout) -> std::result::Result<bool, ureq::Error> {
        // The head has a time-out of its own, which is the reason that ureq names while it waits for it.
        if timeout.reason != Timeout::RecvResponse {
            timeout.per_read = Some(self.most.into());
        }
        self.inner.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_waiting_counts_and_only_a_whole_window() {
        let secs = Duration::from_secs;
        let mut pace = Pace::new(secs(30));
        for _ in 0..100 {
            pace.note(secs(10), 10 << 10).unwrap();
        }
        let mut pace = Pace::new(secs(30));
        pace.note(secs(29), 1).unwrap();
        let err = pace.note(secs(1), 99).unwrap_err();
        assert_eq!(
            err.to_string(),
            "the server sent 100 bytes in 30 s, less than 1024 a second"
        );
        // The next window is a new one.
        pace.note(secs(29), 0).unwrap();
        pace.note(secs(1), 30 << 10).unwrap();
        pace.note(Duration::ZERO, u64::MAX).unwrap();
        pace.note(Duration::MAX, 1).unwrap();
    }

    #[test]
    fn errors_name_the_host_and_the_time() {
        let timeouts = Timeouts::default();
        for (phase, text) in [
            (
                Timeout::Resolve,
                "`r.example` could not be looked up within 10 s",
            ),
            (
                Timeout::Connect,
                "`r.example` could not be connected to within 10 s",
            ),
            (
                Timeout::RecvResponse,
                "`r.example` did not begin to answer within 60 s",
            ),
            (Timeout::PerRead, "`r.example` sent nothing for 30 s"),
            (Timeout::PerWrite, "`r.example` took nothing for 30 s"),
        ] {
            assert_eq!(timeouts.error(phase, "r.example").to_string(), text);
        }
    }
}
