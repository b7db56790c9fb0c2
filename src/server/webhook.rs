//! Webhooks: who sent it, what does it say, and not before it is on the disk an answer.
//!
//! One thread checks and reads deliveries, another writes: all that came while it wrote go into one transaction,
//! so that a disk that takes long for each serves many.
//!
//! Statuses: 202 durable; 204 understood and of no interest; 200 a test; 400 not readable; 401 not from whom it
//! should be; 413 too large; 503 cannot be stored now. Senders try again after 5xx only.

use std::io::Read;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError};
use serde_json::Value;
use tiny_http::{Method, Request};

use super::answer::Answer;
use super::guard::{Guard, Peer};
use super::health;
use crate::error::Error;
use crate::limit;
use crate::registry::webhook::{Change, Delivery, Message};
use crate::store::events::Hint;
use crate::watch::Inbox;

/// How often a thread that waits looks whether the run ends.
const TICK: Duration = Duration::from_millis(200);
/// Deliveries of one transaction.
const BATCH: usize = 512;
/// The shortest time between two lines about refused deliveries.
const QUIET: Duration = Duration::from_secs(5);

/// A delivery that waits for its commit.
pub(super) struct Pending {
    request: Request,
    hints: Vec<Hint>,
    /// For the log: the images, and the sources that know them.
    lines: Vec<(&'static str, String, String)>,
    peer: Peer,
}

/// Reads the requests that tiny_http hands out, until the run ends.
pub(super) fn serve(
    server: tiny_http::Server,
    guard: &Guard,
    served: &[Vec<usize>],
    commits: &Sender<Pending>,
    inbox: &Inbox<'_>,
) {
    let mut refused = Refused::default();
    loop {
        match server.recv_timeout(TICK) {
            Ok(Some(request)) => handle(request, guard, served, commits, inbox, &mut refused),
            Ok(None) => {}
            Err(err) => {
                // Whoever started us shall start us again.
                inbox.fail(Error::stop(format_args!(
                    "the listener for webhooks ended: {err}"
                )));
                break;
            }
        }
        if inbox.is_ending() {
            break;
        }
    }
    refused.flush(inbox);
    server.unblock();
    guard.wake();
    // Connections that still wait are told so by their end.
    drop(server);
}

fn handle(
    mut request: Request,
    guard: &Guard,
    served: &[Vec<usize>],
    commits: &Sender<Pending>,
    inbox: &Inbox<'_>,
    refused: &mut Refused,
) {
    let Some(peer) = guard.peer(request.remote_addr()) else {
        return Answer::new(403, "not through this door").send(request);
    };
    match request.method() {
        Method::Get | Method::Head => {
            let answer = health::answer(request.url(), inbox);
            return answer.send(request);
        }
        Method::Post => {}
        _ => return Answer::new(405, "webhooks are sent by POST").send(request),
    }
    let mut body = Vec::new();
    let read = request
        .as_reader()
        .take(limit::WEBHOOK_BYTES as u64 + 1)
        .read_to_end(&mut body);
    if read.is_err() || body.len() > limit::WEBHOOK_BYTES {
        return Answer::new(400, "the body cannot be read").send(request);
    }
    let here = served.get(peer.port_idx).map_or(&[][..], Vec::as_slice);
    match read_delivery(&request, &body, here, inbox) {
        Verdict::Answer(answer) => {
            if matches!(answer.status, 400 | 401) {
                refused.note(peer, &answer, inbox);
            } else {
                inbox.log().info(
                    "webhook",
                    &[("result", &answer.text), ("from", &peer.address.ip())],
                );
            }
            let text = if answer.status == 204 {
                ""
            } else {
                &answer.text
            };
            Answer::new(answer.status, text).send(request);
        }
        Verdict::Store(hints, lines) => {
            let pending = Pending {
                request,
                hints,
                lines,
                peer,
            };
            if let Err(TrySendError::Full(pending) | TrySendError::Disconnected(pending)) =
                commits.try_send(pending)
            {
                Answer::new(503, "too many events at a time").send(pending.request);
            }
        }
    }
}

enum Verdict {
    Answer(Answer),
    Store(Vec<Hint>, Vec<(&'static str, String, String)>),
}

/// What a delivery says to the sources that it may speak for.
fn read_delivery(request: &Request, body: &[u8], here: &[usize], inbox: &Inbox<'_>) -> Verdict {
    let header = |name: &str| {
        let mut headers = request.headers().iter();
        let header =
            headers.find(|header| header.field.as_str().as_str().eq_ignore_ascii_case(name));
        header.map(|header| header.value.as_str())
    };
    let delivery = Delivery {
        header: &header,
        body,
    };
    // Before the body is parsed: only who knows a source's secret speaks for it.
    let authentic: Vec<_> = inbox
        .sources()
        .enumerate()
        .filter(|(idx, _)| here.contains(idx))
        .filter_map(|(_, (id, source))| Some((id, source, source.webhook()?)))
        .filter(|(_, _, webhook)| webhook.is_authentic(&delivery))
        .collect();
    if authentic.is_empty() {
        return Verdict::Answer(Answer::new(401, "the signature is missing or wrong"));
    }
    let Ok(value) = serde_json::from_slice::<Value>(body) else {
        return Verdict::Answer(Answer::new(400, "the body is not JSON"));
    };
    let (mut hints, mut lines, mut reasons) = (Vec::new(), Vec::new(), Vec::new());
    let mut malformed = None;
    let mut is_understood = false;
    for (id, source, webhook) in authentic {
        match webhook.read(&value) {
            Message::Foreign => {}
            Message::Malformed(reason) => malformed = Some(reason),
            Message::Test => return Verdict::Answer(Answer::new(200, "test received")),
            Message::Changes(changes, why_not) => {
                is_understood = true;
                reasons.extend(why_not);
                for change in changes {
                    let shown = source.shown(&change.repository);
                    lines.push((word(&change), name(&change, &shown), source.name()));
                    hints.push(Hint {
                        source: id,
                        repository: change.repository,
                        tag: change.tag,
                        digest: change.digest,
                        is_delete: change.is_delete,
                    });
                }
            }
        }
    }
    if !hints.is_empty() {
        return Verdict::Store(hints, lines);
    }
    Verdict::Answer(match malformed {
        _ if is_understood => {
            reasons.dedup();
            let why: String = reasons
                .first()
                .map_or("", String::as_str)
                .chars()
                .take(200)
                .collect();
            Answer::new(204, format!("ignored: {why}"))
        }
        Some(reason) => Answer::new(400, reason),
        None => Answer::new(400, "the body is no event that is known here"),
    })
}

fn word(change: &Change) -> &'static str {
    if change.is_delete {
        "deleted"
    } else {
        "pushed"
    }
}

fn name(change: &Change, shown: &str) -> String {
    match (&change.tag, &change.digest) {
        (Some(tag), _) => format!("{shown}:{tag}"),
        (None, Some(digest)) => format!("{shown}@{digest}"),
        (None, None) => shown.to_owned(),
    }
}

/// Writes what waits, again and again, until the run ends and nothing waits.
pub(super) fn commit(pending: &Receiver<Pending>, inbox: &Inbox<'_>) {
    loop {
        let first = match pending.recv_timeout(TICK) {
            Ok(first) => first,
            Err(RecvTimeoutError::Timeout) if !inbox.is_ending() => continue,
            Err(_) => return,
        };
        let mut batch = vec![first];
        batch.extend(pending.try_iter().take(BATCH - 1));
        let hints: Vec<Hint> = batch
            .iter_mut()
            .flat_map(|pending| std::mem::take(&mut pending.hints))
            .collect();
        let result = inbox.take(&hints);
        for pending in batch {
            match &result {
                Ok(()) => {
                    for (event, image, source) in &pending.lines {
                        let from = pending.peer.address.ip();
                        inbox.log().info(
                            "webhook",
                            &[
                                ("result", &"accepted"),
                                ("event", event),
                                ("image", image),
                                ("source", source),
                                ("from", &from),
                            ],
                        );
                    }
                    Answer::new(202, "").send(pending.request);
                }
                Err(err) => {
                    inbox.log().debug("webhook not stored", &[("error", err)]);
                    Answer::new(503, "the event cannot be stored now").send(pending.request);
                }
            }
        }
    }
}

/// Lines about refused deliveries: the first at once, then one now and then with their number.
#[derive(Default)]
struct Refused {
    said: Option<Instant>,
    n_unsaid: u64,
}

impl Refused {
    fn note(&mut self, peer: Peer, answer: &Answer, inbox: &Inbox<'_>) {
        if self.said.is_some_and(|said| said.elapsed() < QUIET) {
            self.n_unsaid += 1;
            return;
        }
        inbox.log().warn(
            "webhook refused",
            &[
                ("status", &answer.status),
                ("reason", &answer.text),
                ("from", &peer.address.ip()),
                ("more", &self.n_unsaid),
            ],
        );
        self.said = Some(Instant::now());
        self.n_unsaid = 0;
    }

    fn flush(&mut self, inbox: &Inbox<'_>) {
        if self.n_unsaid > 0 {
            inbox
                .log()
                .warn("webhooks refused", &[("more", &self.n_unsaid)]);
        }
    }
}
