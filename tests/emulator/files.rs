//! Sending a file's bytes: ranges, redirects to the second listener, and the ways a transfer can
//! go wrong.
//!
//! Source: `reference/registries.md` A3 (redirects and ranges); RFC 9110 §14. *Invariant:* the
//! second listener refuses every request with an `Authorization` header, as S3 does.

use std::io::Read;

use super::State;
use super::faults::{Spoiled, fault_left};
use super::message::{Payload, Request, Response};
use super::registry::file_headers;

use super::storage::{Item, Key};
use super::time::now;

impl State {
    /// The bytes of an item, whole or the range that was asked for.
    pub(crate) fn send_file(&self, request: &Request, item: &Item) -> Response {
        let size = item.content.size;
        let range = request
            .header("range")
            .filter(|_| self.switches().on("range"))
            .and_then(|range| range.strip_prefix("bytes="));
        let (start, end) = match range.map(|range| parse_range(range, size)) {
            None => (0, size),
            Some(Some(range)) => range,
            Some(None) => {
                return Response::new(416).header("Content-Range", format!("bytes */{size}"));
            }
        };
        let mut response = Response::new(if range.is_some() { 206 } else { 200 })
            .header("Content-Type", item.media_type.to_string())
            .header("Accept-Ranges", "bytes");
        if range.is_some() {
            let last = end.saturating_sub(1);
            response = response.header("Content-Range", format!("bytes {start}-{last}/{size}"));
        }
        if request.is_head() {
            return response.payload(Payload::Length(end - start));
        }
        match self.open(&item.content, start) {
            Ok(reader) => self.spoil_transfer(response.payload(Payload::Stream {
                reader: Box::new(reader.take(end - start)),
                length: end - start,
            })),
            Err(text) => Response::status_error(502, &text),
        }
    }

    /// Applies the switches `wrong_blob`, `short_blob` and `cut_blob`.
    fn spoil_transfer(&self, mut response: Response) -> Response {
        let switches = self.switches();
        let Payload::Stream { reader, length } = response.payload else {
            return response;
        };
        let (mut reader, mut length) = (reader, length);
        if switches.on("wrong_blob") {
            reader = Box::new(Spoiled::new(reader, 0));
        }
        let (cut, short) = (switches.number("cut_blob"), switches.number("short_blob"));
        let applies = (cut > 0 || short > 0)
            && fault_left(&self.blob_faults, switches.number("blob_fault_times"));
        if applies && short > 0 {
            length = length.min(short);
            reader = Box::new(reader.take(length));
        }
        if applies && cut > 0 && cut < length {
            response.cut_after = Some(cut);
        }
        response.payload = Payload::Stream { reader, length };
        response
    }

    /// True when a request for `kind` (`blobs` or `all`) is to be sent to the blob host.
    pub(crate) fn redirects(&self, request: &Request, kind: &str) -> bool {
        let wanted = request.header("x-jfrog-download-redirect-to");
        let switches = self.switches();
        let on = switches.is("redirect", "all") || switches.is("redirect", kind);
        on && request.method == "GET" && !wanted.is_some_and(|to| to.eq_ignore_ascii_case("none"))
    }

    /// 302 to a signed URL of the blob host.
    pub(crate) fn redirect(&self, repo: &str, key: &Key) -> Response {
        let until = now() + self.switches().number("redirect_expires_ms").cast_signed();
        let location = format!(
            "{}/{repo}/{}?X-Amz-Expires={until}&X-Amz-Signature=emulated",
            self.blob_host_url(),
            key.full()
        );
        Response::new(302).header("Location", location)
    }

    /// A request to the blob host.
    pub(crate) fn answer_blob_host(&self, request: &Request) -> Response {
        let refuse = |status, code: &str, message: &str| {
            let text = format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>");
            Response::new(status).body("application/xml", text.into_bytes())
        };
        if request.header("authorization").is_some() {
            return refuse(
                400,
                "InvalidArgument",
                "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, \
                 Signature query string parameter or the Authorization header should be specified",
            );
        }
        let until = request
            .parameter("X-Amz-Expires")
            .and_then(|text| text.parse().ok());
        if request.parameter("X-Amz-Signature") != Some("emulated")
            || until.is_none_or(|until: i64| until <= now())
        {
            return refuse(403, "AccessDenied", "Request has expired");
        }
        let full = request.path.trim_start_matches('/');
        let found = full.split_once('/').and_then(|(repo, path)| {
            let storage = self.storage();
            let key = Key::parse(path);
            let item = storage.tree(repo)?.get(&key)?.clone();
            Some((key, item))
        });
        match found {
            Some((key, item)) => file_headers(self.send_file(request, &item), &key, &item),
            None => refuse(404, "NoSuchKey", "The specified key does not exist."),
        }
    }
}

/// First byte and end (exclusive) of the range; `None` when it cannot be satisfied.
fn parse_range(range: &str, size: u64) -> Option<(u64, u64)> {
    let (first, last) = range.split_once('-')?;
    let (start, end) = match (first, last) {
        ("", last) => (size.saturating_sub(last.parse().ok()?), size),
        (first, "") => (first.parse().ok()?, size),
        (first, last) => {
            let last: u64 = last.parse().ok()?;
            (first.parse().ok()?, last.saturating_add(1).min(size))
        }
    };
    (start < end).then_some((start, end))
}
