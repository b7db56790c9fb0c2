//! Sending event bodies to receivers: the signature, the tries, and a record of each try.
//!
//! In: a [`Job`]. Out: `POST`s, and [`Delivery`] rows for the tests. Source:
//! `reference/registries.md` A4 (authentication header, delivery). One thread sends, in order of
//! the time a try is due, so that a waiting retry holds nothing up but a receiver that hangs does.
//! *Invariant:* a job is tried at most [`TRIES`] times, with a wait that does not grow; any status
//! below 500 is final.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit as _, Mac as _};

use super::Emulator;
use super::server::lock;
use super::upstream::hex;

/// `retryCount` of the server, which counts the first try.
pub(crate) const TRIES: u32 = 5;

/// Longest answer of a receiver that is read, in bytes.
const ANSWER_BYTES: u64 = 1024 * 1024;

/// Longest that a test waits for deliveries to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// One body on its way to one receiver.
#[derive(Clone)]
pub(crate) struct Job {
    pub(crate) subscription: String,
    pub(crate) url: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
    /// Between the end of a try and the next one.
    pub(crate) wait: Duration,
    /// For one try with its redirects and the answer's body.
    pub(crate) timeout: Duration,
}

/// One try and what came of it.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    pub(crate) subscription: String,
    pub(crate) url: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
    /// From 1.
    pub(crate) attempt: u32,
    /// The receiver's status, or why there was none.
    pub(crate) outcome: Result<u16, String>,
    /// When the try began.
    pub(crate) at: Instant,
}

impl Delivery {
    /// The body as JSON; panics when it is none, which would be an error of the emulator.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// Jobs that wait and tries that were made.
#[derive(Default)]
pub(crate) struct Outbox {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Default)]
struct Inner {
    /// By the time the next try is due and the order of arrival, with the number of that try.
    due: BTreeMap<(Instant, u64), (Job, u32)>,
    n_queued: u64,
    is_sending: bool,
    is_stopped: bool,
    tried: Vec<Delivery>,
}

/// Stops the sending thread when dropped; what still waits is lost.
pub(crate) struct Sending(Arc<Outbox>);

impl Drop for Sending {
    fn drop(&mut self) {
        // Not joined: the thread may be inside a try that takes half a minute.
        lock(&self.0.inner).is_stopped = true;
        self.0.changed.notify_all();
    }
}

impl Outbox {
    /// Starts the sending thread.
    pub(crate) fn start(self: &Arc<Outbox>) -> Sending {
        let outbox = self.clone();
        std::thread::spawn(move || outbox.send_until_stopped());
        Sending(self.clone())
    }

    /// Makes a job due at once.
    pub(crate) fn queue(&self, job: Job) {
        lock(&self.inner).queue(Instant::now(), job, 1);
        self.changed.notify_all();
    }

    /// Tries once, here and now, whatever else waits.
    pub(crate) fn try_now(&self, job: &Job) -> Result<u16, String> {
        self.attempt(job, 1)
    }

    fn send_until_stopped(&self) {
        let mut inner = lock(&self.inner);
        while !inner.is_stopped {
            let next_due = inner.due.keys().next().copied();
            let now = Instant::now();
            match next_due {
                Some(key) if key.0 <= now => {
                    let Some((job, attempt)) = inner.due.remove(&key) else {
                        continue;
                    };
                    inner.is_sending = true;
                    drop(inner);
                    let outcome = self.attempt(&job, attempt);
                    inner = lock(&self.inner);
                    inner.is_sending = false;
                    let retry = outcome.map_or(true, |status| status >= 500);
                    if retry && attempt < TRIES {
                        inner.queue(Instant::now() + job.wait, job, attempt + 1);
                    }
                    self.changed.notify_all();
                }
                Some(key) => {
                    let waited = self.changed.wait_timeout(inner, key.0 - now);
                    inner = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                None => {
                    let waited = self.changed.wait(inner);
                    inner = waited.unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    /// Sends and records.
    fn attempt(&self, job: &Job, attempt: u32) -> Result<u16, String> {
        let at = Instant::now();
        let outcome = post(job);
        lock(&self.inner).tried.push(Delivery {
            subscription: job.subscription.clone(),
            url: job.url.clone(),
            headers: job.headers.clone(),
            body: job.body.clone(),
            attempt,
            outcome: outcome.clone(),
            at,
        });
        outcome
    }
}

impl Inner {
    fn queue(&mut self, due: Instant, job: Job, attempt: u32) {
        self.n_queued += 1;
        self.due.insert((due, self.n_queued), (job, attempt));
    }
}

impl Emulator {
    /// Every try so far, in the order in which they ended.
    pub(crate) fn deliveries(&self) -> Vec<Delivery> {
        lock(&self.state.outbox.inner).tried.clone()
    }

    /// The same, once nothing waits and nothing is under way; panics after a minute.
    #[track_caller]
    pub(crate) fn wait_for_deliveries(&self) -> Vec<Delivery> {
        let outbox = &self.state.outbox;
        let inner = lock(&outbox.inner);
        let is_busy = |inner: &mut Inner| inner.is_sending || !inner.due.is_empty();
        let waited = outbox.changed.wait_timeout_while(inner, PATIENCE, is_busy);
        let (inner, ended) = waited.unwrap_or_else(PoisonError::into_inner);
        assert!(!ended.timed_out(), "{} deliveries wait", inner.due.len());
        inner.tried.clone()
    }

    /// Forgets the tries so far.
    pub(crate) fn clear_deliveries(&self) {
        lock(&self.state.outbox.inner).tried.clear();
    }
}

/// The value of `X-JFrog-Event-Auth`; `sha1` is the obsolete form that telegraf expects.
pub(crate) fn signature(secret: &str, form: &str, body: &[u8]) -> String {
    // HMAC takes a key of any length.
    const ANY_LENGTH: &str = "HMAC takes any key";
    if form == "sha1" {
        let mut mac = Hmac::<sha1::Sha1>::new_from_slice(secret.as_bytes()).expect(ANY_LENGTH);
        mac.update(body);
        format!("sha1={}", hex(&mac.finalize().into_bytes()))
    } else {
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).expect(ANY_LENGTH);
        mac.update(body);
        hex(&mac.finalize().into_bytes())
    }
}

/// Sends a job once and reads the answer to its end; an error also when that takes too long.
fn post(job: &Job) -> Result<u16, String> {
    // A connection of its own for each try, or one that the receiver closed would look like a
    // failed try.
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects_will_error(false)
        .timeout_global(Some(job.timeout))
        .proxy(None)
        .build();
    let agent: ureq::Agent = config.into();
    let mut request = agent
        .post(&job.url)
        .header("Content-Type", "application/json");
    for (name, value) in &job.headers {
        request = request.header(name, value);
    }
    let answer = request.send(job.body.as_bytes());
    let answer = answer.map_err(|error| error.to_string())?;
    let status = answer.status().as_u16();
    let mut reader = answer.into_body().into_reader().take(ANSWER_BYTES);
    std::io::copy(&mut reader, &mut std::io::sink()).map_err(|error| error.to_string())?;
    Ok(status)
}
