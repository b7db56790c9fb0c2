//! A server that is not well: refusals, broken answers, and which requests they strike.
//!
//! Source: `reference/registries.md` A3, F1, G. Two ways to choose: `fault_every` with one kind of
//! fault, and a rate for each kind (`fault_429` and its kin, in per mille). The rates exclude one
//! another: one number below 1000 is drawn for each request from `fault_seed` and the request's
//! number, and the kinds take their shares of it in the order of [`KINDS`]; what goes over 1000 in
//! sum never strikes, and eight kinds at 100 leave 200 clean answers. A kind that does not fit the
//! request (a `Link` of a manifest) leaves it clean, and is not counted for `fault_times`. `fault_path` and `fault_times` hold for both
//! ways. *Invariant:* the same requests in the same order meet the same faults.

use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};

use super::State;
use super::message::{Door, Payload, Request, Response};
use super::switches::Switches;

const LOGIN_PAGE: &str =
    "<!DOCTYPE html><html><head><title>Sign in</title></head><body>Please log in</body></html>";

/// Pieces a trickling body comes in, 10 ms apart.
const TRICKLE_PIECES: usize = 50;

/// Switch and kind, in the order in which they take their shares.
const KINDS: &[(&str, Kind)] = &[
    ("fault_429", Kind::TooManyRequests),
    ("fault_5xx", Kind::ServerError),
    ("fault_cut", Kind::Cut),
    ("fault_wrong", Kind::WrongByte),
    ("fault_slow", Kind::Trickle),
    ("fault_loop_link", Kind::LoopingLink),
    ("fault_login", Kind::LoginPage),
    ("fault_expired", Kind::ExpiredRedirect),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    TooManyRequests,
    ServerError,
    Cut,
    WrongByte,
    Trickle,
    LoopingLink,
    LoginPage,
    ExpiredRedirect,
}

/// A fault that strikes a request, with what else was drawn for it.
#[derive(Clone, Copy)]
pub(crate) struct Drawn {
    kind: Kind,
    chance: u64,
}

impl State {
    /// The fault that the rates give to this request, if any. Counts the request.
    pub(crate) fn draw_fault(&self, request: &Request) -> Option<Drawn> {
        let switches = self.switches();
        let rated = KINDS.iter().any(|(name, _)| switches.number(name) > 0);
        if !rated || !request.target.contains(switches.text("fault_path")) {
            return None;
        }
        let number = self.fault_draws.fetch_add(1, Ordering::Relaxed) + 1;
        // Scrambled on its own, or seeds that follow one another would draw the same numbers.
        let seed = scramble(switches.number("fault_seed"));
        let chance = scramble(seed.wrapping_add(number));
        let mut left = chance % 1000;
        let kind = KINDS.iter().find_map(|(name, kind)| {
            let share = switches.number(name);
            let struck = left < share;
            left = left.saturating_sub(share);
            struck.then_some(*kind)
        })?;
        let strikes =
            fits(kind, request) && fault_left(&self.faults, switches.number("fault_times"));
        strikes.then_some(Drawn {
            kind,
            chance: chance / 1000,
        })
    }

    /// What a server that is not well says instead of an answer, if this request is to get it.
    pub(crate) fn refusal(&self, request: &Request, drawn: Option<Drawn>) -> Option<Response> {
        let switches = self.switches();
        std::thread::sleep(switches.pause("delay_ms"));
        if request.door != Door::BlobHost {
            match switches.text("suspended") {
                "off" => {}
                "on" => {
                    let to = "https://landing.jfrog.com/reactivate-server/emulator";
                    return Some(Response::new(302).header("Location", to));
                }
                to => return Some(Response::new(302).header("Location", to)),
            }
            if switches.on("login_page") {
                return Some(login_page());
            }
            if let Some(response) = self.every_nth(request, &switches) {
                return Some(response);
            }
        }
        let Drawn { kind, chance } = drawn?;
        match kind {
            Kind::TooManyRequests => {
                let response = Response::status_error(429, "Too Many Requests");
                let wait = match switches.text("fault_retry_after") {
                    "" => "1",
                    wait => wait,
                };
                Some(match chance % 2 {
                    0 => response.header("Retry-After", wait),
                    _ => response,
                })
            }
            Kind::ServerError => {
                let status = [500, 502, 503, 504][(chance % 4) as usize];
                Some(Response::status_error(status, "emulated fault"))
            }
            Kind::LoginPage => Some(login_page()),
            _ => None,
        }
    }

    /// The fault of `fault_every`, if it is this request's turn.
    fn every_nth(&self, request: &Request, switches: &Switches) -> Option<Response> {
        let every = switches.number("fault_every");
        if every == 0 || !request.target.contains(switches.text("fault_path")) {
            return None;
        }
        let turn = self.fault_turns.fetch_add(1, Ordering::Relaxed) + 1;
        let strikes = match switches.number("fault_seed") {
            0 => turn.is_multiple_of(every),
            seed => scramble(seed.wrapping_add(turn)).is_multiple_of(every),
        };
        if !strikes || !fault_left(&self.faults, switches.number("fault_times")) {
            return None;
        }
        let mut response = match switches.status("fault_status") {
            Some(status) => Response::status_error(status, "emulated fault"),
            None => {
                let mut cut = Response::text(200, "cut before the end");
                cut.cut_after = Some(3);
                cut
            }
        };
        if !switches.text("fault_retry_after").is_empty() {
            response = response.header("Retry-After", switches.text("fault_retry_after"));
        }
        Some(response)
    }

    /// Breaks a good answer; one that cannot be broken that way is returned as it is.
    pub(crate) fn spoil(
        &self,
        request: &Request,
        mut response: Response,
        drawn: Drawn,
    ) -> Response {
        let length = match &response.payload {
            Payload::Bytes(bytes) => bytes.len() as u64,
            Payload::Stream { length, .. } => *length,
            Payload::Length(_) => 0,
        };
        // What has a digest, and says so.
        let is_file = response
            .headers
            .iter()
            .any(|(name, _)| name == "X-Checksum-Sha256");
        let succeeded = matches!(response.status, 200 | 206);
        match drawn.kind {
            Kind::Cut if length > 0 => response.cut_after = Some(length / 2),
            Kind::WrongByte if is_file && succeeded && length > 0 => {
                spoil_byte(&mut response, drawn.chance % length);
            }
            Kind::Trickle => {
                let piece = usize::try_from(length).unwrap_or(usize::MAX) / TRICKLE_PIECES;
                response.bytes_per_pause = Some(piece.max(1));
            }
            Kind::LoopingLink if succeeded => {
                response.headers.retain(|(name, _)| name != "Link");
                let link = format!("<{}>; rel=\"next\"", request.target);
                return response.header("Link", link);
            }
            Kind::ExpiredRedirect if (is_file && succeeded) || response.status == 302 => {
                let location = format!(
                    "{}{}?X-Amz-Expires=1&X-Amz-Signature=emulated",
                    self.blob_host_url(),
                    request.target.split('?').next().unwrap_or("")
                );
                return Response::new(302).header("Location", location);
            }
            _ => {}
        }
        response
    }
}

/// True when a fault of that kind can be seen in the answer to this request.
fn fits(kind: Kind, request: &Request) -> bool {
    let path = request.path.as_str();
    let is_list = path.ends_with("/tags/list") || path.ends_with("/_catalog");
    let is_blob_host = request.door == Door::BlobHost;
    let by_path = path.starts_with("/artifactory/") && !path.starts_with("/artifactory/api/");
    let is_blob = path.contains("/blobs/sha256:") || by_path || is_blob_host;
    let refuses_redirects = request
        .header("x-jfrog-download-redirect-to")
        .is_some_and(|to| to.eq_ignore_ascii_case("none"));
    match kind {
        Kind::ServerError => true,
        Kind::TooManyRequests | Kind::LoginPage => !is_blob_host,
        Kind::Cut | Kind::Trickle => !request.is_head(),
        Kind::WrongByte => request.method == "GET" && (is_blob || path.contains("/manifests/")),
        Kind::LoopingLink => request.method == "GET" && is_list,
        Kind::ExpiredRedirect => {
            request.method == "GET" && is_blob && !is_blob_host && !refuses_redirects
        }
    }
}

fn login_page() -> Response {
    Response::new(200).body("text/html; charset=utf-8", LOGIN_PAGE.into())
}

/// Changes the byte at `at` of a body that is longer than that.
fn spoil_byte(response: &mut Response, at: u64) {
    let payload = std::mem::replace(&mut response.payload, Payload::Length(0));
    response.payload = match payload {
        Payload::Bytes(bytes) => {
            let length = bytes.len() as u64;
            let reader = Box::new(std::io::Cursor::new(bytes));
            Payload::Stream {
                reader: Box::new(Spoiled::new(reader, at)),
                length,
            }
        }
        Payload::Stream { reader, length } => Payload::Stream {
            reader: Box::new(Spoiled::new(reader, at)),
            length,
        },
        Payload::Length(length) => Payload::Length(length),
    };
}

/// Counts a fault; false when `limit` faults (0: no limit) have struck already.
pub(crate) fn fault_left(struck: &AtomicU64, limit: u64) -> bool {
    let before = struck.fetch_add(1, Ordering::Relaxed);
    limit == 0 || before < limit
}

/// SplitMix64: a number that looks drawn by chance and is the same every time.
pub(crate) fn scramble(seed: u64) -> u64 {
    let mut z = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Changes one byte of what passes.
pub(crate) struct Spoiled {
    reader: Box<dyn Read + Send>,
    /// Bytes still to pass before the one that is changed; `None` when it has passed.
    left: Option<u64>,
}

impl Spoiled {
    /// The byte at `at`, from 0, is changed.
    pub(crate) fn new(reader: Box<dyn Read + Send>, at: u64) -> Spoiled {
        Spoiled {
            reader,
            left: Some(at),
        }
    }
}

impl Read for Spoiled {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.reader.read(buffer)?;
        let Some(left) = self.left else {
            return Ok(read);
        };
        let at = usize::try_from(left).unwrap_or(usize::MAX);
        match buffer[..read].get_mut(at) {
            Some(byte) => {
                *byte ^= 1;
                self.left = None;
            }
            None => self.left = Some(left - read as u64),
        }
        Ok(read)
    }
}
