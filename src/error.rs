//! The one error type: what the caller should do, what went wrong, and what we were doing.
//!
//! A message is one line: contexts from the outermost to the innermost, then the cause, joined by `: `.
//! Values stand in backticks, text is lower case without a period. A hint, when the user can act, is shown
//! on a line of its own by whoever prints the error.
//!
//! *Invariant:* no secret and no query of a URL is ever put into an error; text from outside is made
//! printable here, so that printing an error is always safe.

use std::fmt;
use std::time::Duration;

use crate::printable::printable;

/// What the caller should do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Passing trouble (network, overload): the same work may succeed later.
    Retry,
    /// The user has to act (credentials, a wrong name, a missing file).
    Tell,
    /// This piece can never be read (unsupported, malformed): count it and go on.
    Skip,
    /// Over a limit: mark the piece with the reason and go on without it.
    Limit,
    /// Nothing further can be done in this process (the store is broken, the disk is full).
    Stop,
}

/// An error with its contexts. One pointer wide.
#[derive(Clone)]
pub(crate) struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: Kind,
    message: String,
    /// Innermost first.
    contexts: Vec<String>,
    hint: Option<String>,
    retry_after: Option<Duration>,
    status: Option<u16>,
}

pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn new(kind: Kind, message: impl fmt::Display) -> Self {
        Error(Box::new(Inner {
            kind,
            message: printable(&message.to_string()).into_owned(),
            contexts: Vec::new(),
            hint: None,
            retry_after: None,
            status: None,
        }))
    }

    pub(crate) fn retry(message: impl fmt::Display) -> Self {
        Error::new(Kind::Retry, message)
    }

    pub(crate) fn tell(message: impl fmt::Display) -> Self {
        Error::new(Kind::Tell, message)
    }

    pub(crate) fn skip(message: impl fmt::Display) -> Self {
        Error::new(Kind::Skip, message)
    }

    pub(crate) fn stop(message: impl fmt::Display) -> Self {
        Error::new(Kind::Stop, message)
    }

    /// Adds what we were doing; the last one added is printed first.
    pub(crate) fn context(mut self, doing: impl fmt::Display) -> Self {
        self.0
            .contexts
            .push(printable(&doing.to_string()).into_owned());
        self
    }

    /// Sets what the user can do. The innermost hint wins, since it knows most.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint.get_or_insert_with(|| hint.into());
        self
    }

    /// Sets how long the other side asked us to wait.
    pub(crate) fn after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// Remembers the HTTP status that caused the error.
    pub(crate) fn with_status(mut self, status: u16) -> Self {
        self.0.status = Some(status);
        self
    }

    pub(crate) fn kind(&self) -> Kind {
        self.0.kind
    }

    pub(crate) fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    pub(crate) fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// How long nothing is sent to a host that asked for a pause: the work was not tried at all.
    pub(crate) fn held_for(&self) -> Option<Duration> {
        self.retry_after()
            .filter(|_| self.kind() == Kind::Retry && self.status().is_none())
    }

    /// The HTTP status that caused the error, when one did.
    pub(crate) fn status(&self) -> Option<u16> {
        self.0.status
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for context in self.0.contexts.iter().rev() {
            write!(f, "{context}: ")?;
        }
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.kind)
    }
}

impl std::error::Error for Error {}

/// Adds a context to the error of a result, computed only when there is one.
pub(crate) trait Context<T> {
    fn context<D: fmt::Display>(self, doing: impl FnOnce() -> D) -> Result<T>;
}

impl<T> Context<T> for Result<T> {
    fn context<D: fmt::Display>(self, doing: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|err| err.context(doing()))
    }
}

/// Carries an [`Error`] through an interface that only knows `std::io::Error`.
impl From<Error> for std::io::Error {
    fn from(err: Error) -> Self {
        std::io::Error::other(err)
    }
}

/// Takes back an [`Error`] that travelled inside `err`, or wraps `err` as `kind`.
pub(crate) fn from_io(kind: Kind, err: std::io::Error) -> Error {
    match err.downcast::<Error>() {
        Ok(inner) => inner,
        Err(err) => Error::new(kind, err),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_printed_outermost_first() {
        let err = Error::skip("bad checksum")
            .context("tar header")
            .context("reading layer `x`");
        assert_eq!(
            err.to_string(),
            "reading layer `x`: tar header: bad checksum"
        );
    }

    #[test]
    fn an_error_survives_a_trip_through_io() {
        let there: std::io::Error = Error::skip("gone").hint("look").into();
        let back = from_io(Kind::Retry, there);
        assert_eq!((back.kind(), back.hint_text()), (Kind::Skip, Some("look")));
    }

    #[test]
    fn control_characters_from_outside_are_not_kept() {
        assert_eq!(
            Error::tell("a\x1b[31mb\r\n").to_string(),
            "a\\x1b[31mb\\r\\n"
        );
    }
}
