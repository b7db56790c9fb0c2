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

/// Bytes of a message, and of each context: of a longer one the middle is left out, where a name from outside
/// stands that nobody could read, and three dots stand for it.
const MESSAGE_BYTES: usize = 800;

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
            message: one_line(message),
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
        self.0.contexts.push(one_line(doing));
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

/// The text in one printable line, its beginning and its end when it is over [`MESSAGE_BYTES`].
fn one_line(text: impl fmt::Display) -> String {
    let mut ends = Ends::default();
    // Only a text's own `fmt` could fail, and what it wrote before is there.
    let _ = fmt::write(&mut ends, format_args!("{text}"));
    let dots = if ends.is_cut { "…" } else { "" };
    printable(&format!("{}{dots}{}", ends.head, ends.tail)).into_owned()
}

/// Keeps the first and the last bytes of what is written, so that a text of megabytes is never whole in memory.
#[derive(Default)]
struct Ends {
    head: String,
    tail: String,
    is_cut: bool,
}

impl fmt::Write for Ends {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let half = MESSAGE_BYTES / 2;
        let mut room = match self.tail.is_empty() {
            true => text.len().min(half.saturating_sub(self.head.len())),
            false => 0,
        };
        while !text.is_char_boundary(room) {
            room -= 1;
        }
        let (head, rest) = text.split_at(room);
        self.head.push_str(head);
        self.push_tail(rest, half);
        Ok(())
    }
}

impl Ends {
    /// Appends to the tail and cuts it to its last `half` bytes.
    fn push_tail(&mut self, text: &str, half: usize) {
        let from = boundary_behind(text, text.len().saturating_sub(half));
        let over = (self.tail.len() + text.len() - from).saturating_sub(half);
        self.is_cut |= from > 0 || over > 0;
        let over = boundary_behind(&self.tail, over.min(self.tail.len()));
        self.tail.drain(..over);
        self.tail.push_str(&text[from..]);
    }
}

/// The first place at or behind `at` where a character begins or `text` ends.
fn boundary_behind(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at += 1;
    }
    at
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
    fn of_a_long_text_both_ends_are_kept() {
        let half = MESSAGE_BYTES / 2;
        for c in ["x", "é", "\u{10ffff}"] {
            let long = c.repeat(3 << 20);
            for message in [
                Error::skip(format_args!("`{long}` is not a digest: no `:`")),
                Error::skip(format_args!("`{}{}` is not a digest: no `:`", &long, "é")),
                Error::skip("x").context(format_args!("`{long}` is not a digest: no `:`")),
            ] {
                let text = message.to_string();
                assert!(text.starts_with(&format!("`{c}{c}")), "{text}");
                assert!(text.contains('…'), "{text}");
                assert!(text.contains("` is not a digest: no `:`"), "{text}");
                assert!(text.len() <= 8 * MESSAGE_BYTES, "{}", text.len());
            }
        }
        // Byte by byte, and at the edge.
        struct Bytes(usize);
        impl fmt::Display for Bytes {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                (0..self.0).try_for_each(|n| write!(f, "{}", n % 10))
            }
        }
        for n in [0, 1, half - 1, half, half + 1, 2 * half - 1, 2 * half] {
            let whole: String = (0..n).map(|n| (n % 10).to_string()).collect();
            assert_eq!(Error::skip(Bytes(n)).to_string(), whole);
            assert_eq!(Error::skip(&whole).to_string(), whole);
        }
        let cut = Error::skip(Bytes(2 * half + 1)).to_string();
        assert_eq!(
            (cut.chars().count(), cut.matches('…').count()),
            (2 * half + 1, 1)
        );
    }

    #[test]
    fn control_characters_from_outside_are_not_kept() {
        assert_eq!(
            Error::tell("a\x1b[31mb\r\n").to_string(),
            "a\\x1b[31mb\\r\\n"
        );
    }
}
