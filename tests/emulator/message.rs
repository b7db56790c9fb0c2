//! HTTP/1.1 messages as the emulator sees them: a parsed [`Request`] with a streaming body, and a
//! [`Response`] that also says how badly it is to be delivered (cut, slowly).
//!
//! Source: RFC 9112. Limits: 64 KiB of request head. *Invariant:* nothing here knows about
//! registries.

use std::io::{self, BufRead, Read, Write};
use std::time::Duration;

use percent_encoding::percent_decode_str;

/// Longest request head accepted, in bytes.
const HEAD_BYTES: u64 = 64 * 1024;

/// Which socket a request came in on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// The server itself.
    Main,
    /// The object store that redirects point to.
    BlobHost,
    /// A port that belongs to one repository key (docker's port method).
    Port(String),
}

/// One request; `path` is percent-decoded, `target` is as sent.
pub(crate) struct Request<'a> {
    pub(crate) door: Door,
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) path: String,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: &'a mut dyn Read,
}

impl Request<'_> {
    /// The first header of that name, in any case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The first query parameter of that name; empty text for a bare `?name`.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.query
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn is_head(&self) -> bool {
        self.method == "HEAD"
    }

    /// True for `GET` and `HEAD`.
    pub(crate) fn is_read(&self) -> bool {
        self.is_head() || self.method == "GET"
    }

    /// Reads the body to its end; an error when it is longer than `limit` bytes.
    pub(crate) fn read_body(&mut self, limit: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        (&mut *self.body).take(limit + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit {
            return Err(io::Error::other(format!("request body over {limit} bytes")));
        }
        Ok(bytes)
    }
}

/// What to send after the head.
pub(crate) enum Payload {
    Bytes(Vec<u8>),
    /// Exactly `length` bytes unless the reader breaks off.
    Stream {
        reader: Box<dyn Read + Send>,
        length: u64,
    },
    /// For `HEAD`: the length a `GET` would have.
    Length(u64),
}

/// One answer.
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) payload: Payload,
    /// Close the socket after this many bytes of the body.
    pub(crate) cut_after: Option<u64>,
    /// Bytes sent between pauses of 10 ms.
    pub(crate) bytes_per_pause: Option<usize>,
}

impl Response {
    pub(crate) fn new(status: u16) -> Response {
        Response {
            status,
            headers: Vec::new(),
            payload: Payload::Bytes(Vec::new()),
            cut_after: None,
            bytes_per_pause: None,
        }
    }

    pub(crate) fn text(status: u16, text: &str) -> Response {
        Response::new(status).body("text/plain", text.as_bytes().to_vec())
    }

    pub(crate) fn json(status: u16, value: &serde_json::Value) -> Response {
        Response::new(status).body("application/json", value.to_string().into_bytes())
    }

    /// Artifactory's own error family, printed with spaces around the colons as the server does.
    pub(crate) fn status_error(status: u16, message: &str) -> Response {
        let message = serde_json::Value::from(message);
        let text = format!(
            "{{\n  \"errors\" : [ {{\n    \"status\" : {status},\n    \"message\" : {message}\n  }} ]\n}}"
        );
        Response::new(status).body("application/json", text.into_bytes())
    }

    /// The registry protocol's error family.
    pub(crate) fn registry_error(
        status: u16,
        code: &str,
        message: &str,
        detail: serde_json::Value,
    ) -> Response {
        let error =
            serde_json::json!({"errors": [{"code": code, "message": message, "detail": detail}]});
        Response::json(status, &error)
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Response {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn body(mut self, media_type: &str, bytes: Vec<u8>) -> Response {
        self.payload = Payload::Bytes(bytes);
        self.header("Content-Type", media_type)
    }

    pub(crate) fn payload(mut self, payload: Payload) -> Response {
        self.payload = payload;
        self
    }
}

/// The head of a request: method, target, headers.
pub(crate) struct Head {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
}

/// Reads a request head; `None` when the peer closed before sending one.
pub(crate) fn read_head(reader: &mut impl BufRead) -> io::Result<Option<Head>> {
    let mut reader = reader.take(HEAD_BYTES);
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        return Err(io::Error::other("bad request line"));
    };
    let (method, target) = (method.to_owned(), target.to_owned());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::Error::other("request head broke off or is too long"));
        }
        let line = line.trim_end();
        if line.is_empty() {
            return Ok(Some(Head {
                method,
                target,
                headers,
            }));
        }
        let Some((name, value)) = line.split_once(':') else {
            return Err(io::Error::other("bad header line"));
        };
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
}

/// The decoded path and query parameters of a request target.
pub(crate) fn split_target(target: &str) -> (String, Vec<(String, String)>) {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let query = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(&value.replace('+', " ")))
        })
        .collect();
    (decode(path), query)
}

/// How a request's body is framed.
enum Framing {
    Length(u64),
    /// Bytes left in the current chunk.
    Chunk(u64),
    BeforeFirstChunk,
    Done,
}

/// A request body read straight from the connection.
pub(crate) struct BodyReader<'a, R, W> {
    reader: &'a mut R,
    framing: Framing,
    /// Where to write `100 Continue` at the first read.
    awaiting: Option<&'a mut W>,
}

impl<'a, R: BufRead, W: Write> BodyReader<'a, R, W> {
    pub(crate) fn new(head: &Head, reader: &'a mut R, writer: &'a mut W) -> Self {
        let header = |name: &str| {
            head.headers
                .iter()
                .find(|(field, _)| field.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.to_ascii_lowercase())
        };
        let framing = if header("transfer-encoding").is_some_and(|value| value.contains("chunked"))
        {
            Framing::BeforeFirstChunk
        } else {
            let length = header("content-length").and_then(|value| value.parse().ok());
            Framing::Length(length.unwrap_or(0))
        };
        let expects = header("expect").is_some_and(|value| value == "100-continue");
        BodyReader {
            reader,
            framing,
            awaiting: expects.then_some(writer),
        }
    }

    fn next_chunk(&mut self) -> io::Result<u64> {
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        let size = line.split(';').next().unwrap_or("").trim();
        let size = u64::from_str_radix(size, 16).map_err(|_| io::Error::other("bad chunk size"))?;
        if size == 0 {
            while line.trim_end() != "" {
                line.clear();
                if self.reader.read_line(&mut line)? == 0 {
                    break;
                }
            }
        }
        Ok(size)
    }
}

impl<R: BufRead, W: Write> Read for BodyReader<'_, R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(writer) = self.awaiting.take() {
            writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        if matches!(self.framing, Framing::BeforeFirstChunk) {
            self.framing = match self.next_chunk()? {
                0 => Framing::Done,
                size => Framing::Chunk(size),
            };
        }
        let left = match self.framing {
            Framing::Length(left) | Framing::Chunk(left) => left,
            Framing::Done | Framing::BeforeFirstChunk => 0,
        };
        if left == 0 || buffer.is_empty() {
            return Ok(0);
        }
        let want = buffer
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = self.reader.read(&mut buffer[..want])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let left = left - read as u64;
        self.framing = match self.framing {
            Framing::Chunk(_) if left == 0 => {
                let mut line_end = String::new();
                self.reader.read_line(&mut line_end)?;
                Framing::BeforeFirstChunk
            }
            Framing::Chunk(_) => Framing::Chunk(left),
            _ => Framing::Length(left),
        };
        Ok(read)
    }
}

/// Writes a response; `Ok(false)` when the connection must not be used again.
pub(crate) fn write_response(
    writer: &mut impl Write,
    response: Response,
    is_head: bool,
) -> io::Result<bool> {
    let bodyless = is_head || matches!(response.status, 204 | 304);
    let (length, mut reader): (u64, Box<dyn Read + Send>) = match response.payload {
        Payload::Bytes(bytes) => (bytes.len() as u64, Box::new(io::Cursor::new(bytes))),
        Payload::Stream { reader, length } => (length, reader),
        Payload::Length(length) => (length, Box::new(io::empty())),
    };
    let mut head = format!(
        "HTTP/1.1 {} {}\r\n",
        response.status,
        reason(response.status)
    );
    for (name, value) in &response.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if response.status != 204 {
        head.push_str(&format!("Content-Length: {length}\r\n"));
    }
    head.push_str("\r\n");
    if bodyless {
        writer.write_all(head.as_bytes())?;
        return Ok(true);
    }
    let send = response.cut_after.map_or(length, |cut| cut.min(length));
    let mut body = reader.as_mut().take(send);
    let step = response.bytes_per_pause.unwrap_or(64 * 1024).max(1);
    let mut buffer = vec![0; step];
    let mut out = head.into_bytes();
    let mut sent = 0;
    loop {
        let read = body.read(&mut buffer)?;
        out.extend_from_slice(&buffer[..read]);
        writer.write_all(&out)?;
        out.clear();
        sent += read as u64;
        if read == 0 || sent == send {
            break;
        }
        if response.bytes_per_pause.is_some() {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    Ok(sent == length)
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        302 => "Found",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        416 => "Range Not Satisfiable",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        _ => "Status",
    }
}
