//! One connection: whole requests out of its bytes, within bounds of size and time, and their answers.
//!
//! RFC 9112. Requests that two readers could read differently (several lengths, a length beside an encoding) are
//! refused, and so is a body without a length.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use super::guard::{Guard, Peer};
use crate::limit;

/// Bytes of a head, and headers in it.
const HEAD_BYTES: usize = 16 << 10;
const HEADERS: usize = 64;
/// Headers, in lower case, that an answer can depend on. tiny_http reads heads byte by byte, and need not see more.
const FORWARDED: &[&str] = &["authorization", "content-type", "x-jfrog-event-auth"];
/// A body up to this size needs no reservation.
const SMALL_BYTES: usize = 64 << 10;
/// From the first byte of a request to the last of its head and small body; larger bodies get a second more for
/// each of those.
const REQUEST_TIME: Duration = Duration::from_secs(10);
/// Between two requests.
const IDLE_TIME: Duration = Duration::from_secs(60);
/// Until the client has taken an answer, and tiny_http has given one.
const ANSWER_TIME: Duration = Duration::from_secs(30);
/// What is read away, and for how long, so that a client sees why it was refused.
const LINGER_BYTES: u64 = 2 << 20;
const LINGER_TIME: Duration = Duration::from_millis(500);

/// Why a connection ends.
enum End {
    /// Nobody is there any more, or somebody sent what cannot be answered.
    Silent,
    /// With this status.
    Refused(u16, &'static str),
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        End::Silent
    }
}

/// Serves the requests of a connection until it ends.
pub(super) fn serve(guard: &Guard, id: u64, peer: Peer, stream: &TcpStream) {
    let mut connection = Connection {
        guard,
        id,
        peer,
        stream,
        buffer: Vec::new(),
    };
    if stream.set_nodelay(true).is_ok()
        && stream.set_write_timeout(Some(ANSWER_TIME)).is_ok()
        && let Err(End::Refused(status, reason)) = connection.run()
    {
        let answer = format!(
            "HTTP/1.1 {status} {reason}\r\nServer: crowsnest\r\nConnection: close\r\nContent-Length: {}\r\n\
             Content-Type: text/plain\r\n\r\n{reason}\n",
            reason.len() + 1
        );
        if (&*stream).write_all(answer.as_bytes()).is_ok() {
            linger(stream);
        }
    }
}

/// Reads away what a refused client still sends, for a moment: closing at once would take the answer from it.
fn linger(mut stream: &TcpStream) {
    let _ = stream.shutdown(Shutdown::Write);
    let end = Instant::now() + LINGER_TIME;
    let mut buffer = [0; 4096];
    let mut n_read = 0;
    while n_read < LINGER_BYTES
        && let Some(left) = end.checked_duration_since(Instant::now())
        && !left.is_zero()
        && stream.set_read_timeout(Some(left)).is_ok()
        && let Ok(n @ 1..) = stream.read(&mut buffer)
    {
        n_read += n as u64;
    }
}

struct Connection<'a> {
    guard: &'a Guard,
    id: u64,
    peer: Peer,
    stream: &'a TcpStream,
    /// Bytes read and not used.
    buffer: Vec<u8>,
}

/// The head of a request.
struct Head {
    /// As tiny_http gets it.
    text: Vec<u8>,
    /// Bytes of it in the buffer.
    size: usize,
    body_size: usize,
    /// Whether the client waits to be told to send the body.
    is_expected: bool,
    /// Whether the connection goes on after the answer.
    is_kept: bool,
    is_head_method: bool,
}

impl Connection<'_> {
    fn run(&mut self) -> Result<(), End> {
        loop {
            let Some(head) = self.head()? else {
                return Ok(());
            };
            let is_large = head.body_size > SMALL_BYTES;
            if is_large && !self.guard.reserve(head.body_size) {
                return Err(End::Refused(503, "Service Unavailable"));
            }
            let result = self.answer(&head);
            if is_large {
                self.guard.give_back(head.body_size);
            }
            if !result? {
                return Ok(());
            }
        }
    }

    /// Reads a request's head; `None` when the client has no more requests.
    fn head(&mut self) -> Result<Option<Head>, End> {
        let mut end = Instant::now() + IDLE_TIME;
        let mut searched = 0;
        loop {
            // Blank lines before a request are ignored (RFC 9112, section 2.2).
            while self.buffer.starts_with(b"\r\n") {
                self.buffer.drain(..2);
            }
            let end_of_head = memchr::memmem::find(&self.buffer[searched..], b"\r\n\r\n");
            let n_bytes = end_of_head.map_or(self.buffer.len(), |at| searched + at + 4);
            if n_bytes > HEAD_BYTES {
                return Err(End::Refused(431, "Request Header Fields Too Large"));
            }
            if end_of_head.is_some() {
                return parse(&self.buffer[..n_bytes]).map(Some);
            }
            searched = self.buffer.len().saturating_sub(3);
            let was_empty = self.buffer.is_empty();
            match self.fill(end, HEAD_BYTES) {
                Ok(0) => return Ok(None),
                Ok(_) if was_empty => end = Instant::now() + REQUEST_TIME,
                Ok(_) => {}
                Err(err) if is_timeout(&err) && !was_empty => {
                    return Err(End::Refused(408, "Request Timeout"));
                }
                Err(_) => return Ok(None),
            }
        }
    }

    /// Reads once until `end`, at most `room` bytes. Returns 0 at the end of the stream.
    fn fill(&mut self, end: Instant, room: usize) -> io::Result<usize> {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        let mut chunk = [0; 8192];
        let room = room.clamp(1, chunk.len());
        let n = (&mut &*self.stream).read(&mut chunk[..room])?;
        self.buffer.extend_from_slice(&chunk[..n]);
        Ok(n)
    }

    /// Reads the body, has the request answered, and hands the answer on. Returns whether more may follow.
    fn answer(&mut self, head: &Head) -> Result<bool, End> {
        if head.is_expected && self.buffer.len() < head.size + head.body_size {
            (&mut &*self.stream).write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let extra = Duration::from_secs((head.body_size / SMALL_BYTES) as u64);
        let end = Instant::now() + REQUEST_TIME + extra;
        let whole = head.size + head.body_size;
        while self.buffer.len() < whole {
            let missing = whole - self.buffer.len();
            match self.fill(end, missing) {
                Ok(1..) => {}
                Err(err) if is_timeout(&err) => return Err(End::Refused(408, "Request Timeout")),
                Ok(0) | Err(_) => return Err(End::Silent),
            }
        }
        self.guard.set_busy(self.id, true);
        let mut request = head.text.clone();
        request.extend_from_slice(&self.buffer[head.size..whole]);
        self.buffer.drain(..whole);
        // A burst of large bodies shall not stay.
        if self.buffer.capacity() > SMALL_BYTES {
            self.buffer.shrink_to(HEAD_BYTES);
        }
        let (answer, is_kept) = self.exchange(&request, head)?;
        // Who does not take the answer may have to go.
        self.guard.set_busy(self.id, false);
        (&mut &*self.stream).write_all(&answer)?;
        Ok(is_kept)
    }

    /// Has tiny_http answer a request. Returns the answer, and whether more requests may follow.
    fn exchange(&self, request: &[u8], head: &Head) -> Result<(Vec<u8>, bool), End> {
        let unavailable = |_| End::Refused(503, "Service Unavailable");
        let mut inner = self.guard.pool.take().map_err(unavailable)?;
        self.guard.introduce(inner.local(), self.peer);
        inner.stream().write_all(request).map_err(unavailable)?;
        let mut answer = Vec::with_capacity(512);
        let head_size = loop {
            let mut chunk = [0; 4096];
            let n = inner.stream().read(&mut chunk).map_err(unavailable)?;
            if n == 0 {
                // What it cannot read at all, it does not answer.
                return Err(End::Refused(400, "Bad Request"));
            }
            answer.extend_from_slice(&chunk[..n]);
            if let Some(at) = memchr::memmem::find(&answer, b"\r\n\r\n") {
                break at + 4;
            }
        };
        let (is_inner_kept, body_size) = answer_size(&answer[..head_size], head.is_head_method);
        let is_kept = head.is_kept && is_inner_kept;
        let missing = (head_size + body_size).saturating_sub(answer.len());
        (inner.stream().take(missing as u64))
            .read_to_end(&mut answer)
            .map_err(unavailable)?;
        if is_inner_kept {
            // The client may take its time.
            inner.give_back();
        }
        if !is_kept {
            let text = b"Connection: close\r\n";
            let at = memchr::memchr(b'\n', &answer).map_or(0, |at| at + 1);
            answer.splice(at..at, text.iter().copied());
        }
        Ok((answer, is_kept))
    }
}

fn is_timeout(err: &io::Error) -> bool {
    matches!(
        err.kind(),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock
    )
}

/// Reads a whole head, and writes it anew without what concerns only this connection.
fn parse(bytes: &[u8]) -> Result<Head, End> {
    let bad = || End::Refused(400, "Bad Request");
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        // Lines that end without a CR would end the head earlier.
        Ok(httparse::Status::Complete(n)) if n == bytes.len() => {}
        Err(httparse::Error::TooManyHeaders) => {
            return Err(End::Refused(431, "Request Header Fields Too Large"));
        }
        _ => return Err(bad()),
    }
    let (Some(method), Some(path)) = (request.method, request.path) else {
        return Err(bad());
    };
    let mut text = format!("{method} {path} HTTP/1.1\r\n").into_bytes();
    let mut body_size: Option<usize> = None;
    let mut is_expected = false;
    let mut is_kept = request.version == Some(1);
    for header in request.headers.iter() {
        let value = std::str::from_utf8(header.value).map_err(|_| bad())?;
        if !value.is_ascii() {
            return Err(bad());
        }
        match header.name.to_ascii_lowercase().as_str() {
            "content-length" => {
                let is_number =
                    !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
                if !is_number || body_size.is_some() {
                    return Err(bad());
                }
                let size = value.parse().unwrap_or(usize::MAX);
                if size > limit::WEBHOOK_BYTES {
                    return Err(End::Refused(413, "Content Too Large"));
                }
                body_size = Some(size);
                continue;
            }
            "transfer-encoding" => return Err(End::Refused(411, "Length Required")),
            "expect" => {
                if !value.eq_ignore_ascii_case("100-continue") {
                    return Err(End::Refused(417, "Expectation Failed"));
                }
                is_expected = true;
                continue;
            }
            "connection" => {
                let value = value.to_ascii_lowercase();
                if value.contains("close") {
                    is_kept = false;
                } else if value.contains("keep-alive") {
                    is_kept = true;
                }
                continue;
            }
            name if FORWARDED.contains(&name) => {}
            _ => continue,
        }
        text.extend_from_slice(header.name.as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(header.value);
        text.extend_from_slice(b"\r\n");
    }
    let body_size = body_size.unwrap_or(0);
    text.extend_from_slice(format!("Content-Length: {body_size}\r\n\r\n").as_bytes());
    Ok(Head {
        text,
        size: bytes.len(),
        body_size,
        is_expected,
        is_kept,
        is_head_method: method == "HEAD",
    })
}

/// Whether tiny_http keeps the connection, and how long the body of its answer is.
fn answer_size(head: &[u8], is_head_method: bool) -> (bool, usize) {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut answer = httparse::Response::new(&mut headers);
    if answer.parse(head).is_err() {
        return (false, 0);
    }
    let header = |name: &str| {
        let mut headers = answer.headers.iter();
        let header = headers.find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(header.value).ok()
    };
    let is_kept = header("connection").is_none_or(|value| !value.eq_ignore_ascii_case("close"));
    let has_body = !is_head_method && !matches!(answer.code, Some(100..=199 | 204 | 304));
    let size = header("content-length").and_then(|value| value.parse().ok());
    (is_kept, size.filter(|_| has_body).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<(String, usize, bool), u16> {
        match parse(text.as_bytes()) {
            Ok(head) => Ok((
                String::from_utf8(head.text).unwrap(),
                head.body_size,
                head.is_kept,
            )),
            Err(End::Refused(status, _)) => Err(status),
            Err(End::Silent) => Err(0),
        }
    }

    #[test]
    fn a_head_is_written_anew() {
        let head = "POST /x?y HTTP/1.1\r\nHost: h\r\nConnection: close\r\nExpect: 100-continue\r\n\
                    Content-Length: 5\r\nX-Secret: a\r\nAuthorization: b\r\n\r\n";
        let (text, size, is_kept) = parsed(head).unwrap();
        assert_eq!(
            text,
            "POST /x?y HTTP/1.1\r\nAuthorization: b\r\nContent-Length: 5\r\n\r\n"
        );
        assert_eq!((size, is_kept), (5, false));
        assert!(parsed("GET / HTTP/1.1\r\n\r\n").unwrap().2);
        assert!(!parsed("GET / HTTP/1.0\r\n\r\n").unwrap().2);
        assert!(
            parsed("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n")
                .unwrap()
                .2
        );
    }

    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        for (headers, status) in [
            ("Content-Length: 5\r\nContent-Length: 5\r\n", 400),
            ("Content-Length: +5\r\n", 400),
            ("Content-Length: 5, 5\r\n", 400),
            ("Content-Length: \r\n", 400),
            ("Content-Length: 0x5\r\n", 400),
            ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", 411),
            ("Transfer-Encoding: chunked\r\n", 411),
            ("Content-Length: 1048577\r\n", 413),
            ("Content-Length: 99999999999999999999999999\r\n", 413),
            ("Expect: money\r\n", 417),
            ("Name : x\r\n", 400),
            (" folded: x\r\n", 400),
            ("X: y\n\nPOST / HTTP/1.1\r\n", 400),
            ("Bad\r\n", 400),
            ("X: \u{e9}\r\n", 400),
        ] {
            let head = format!("POST / HTTP/1.1\r\n{headers}\r\n");
            assert_eq!(parsed(&head).unwrap_err(), status, "{headers}");
        }
        assert_eq!(parsed("\0\0\r\n\r\n").unwrap_err(), 400);
        let many = "A: b\r\n".repeat(HEADERS + 1);
        assert_eq!(
            parsed(&format!("GET / HTTP/1.1\r\n{many}\r\n")).unwrap_err(),
            431
        );
    }
}
