//! What one host may be asked by all threads together: so many requests at a time, their bodies included, and
//! nothing before the time that it named when it refused one (429, or 503 with `Retry-After`; RFC 6585
//! section 4, RFC 9110 section 10.2.3).
//!
//! In: an origin. Out: a [`Place`], which is given back when it is dropped. After a refusal a single request
//! goes first, and the others wait for its answer.
//!
//! *Invariant:* nobody waits for ever. A wait ends with a stop, and after [`PLACE_WAIT`]; a thread that has a
//! place at the host gets a second one at once, since it might not give the first one back before.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use super::Origin;
use super::retry::{LONGEST, backoff, stopped};
use crate::error::{Error, Result};
use crate::limit;
use crate::stop::Stop;
use crate::time::{Timestamp, for_people};

/// How often a waiting thread looks whether it should stop.
const TICK: Duration = Duration::from_millis(100);
/// The longest wait for a place: all of them may be with layers of many gigabytes.
const PLACE_WAIT: Duration = Duration::from_secs(3600);
/// The wait after a refusal that names no time: doubled each time in a row, up to the second.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const MOST_WAIT: Duration = Duration::from_secs(60);
/// The longest time that is believed; Docker Hub counts over 6 hours.
const LONGEST_HOLD: Duration = Duration::from_secs(24 * 3600);
/// How often a host that refuses again and again is worth a line.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// The budgets of all hosts.
pub(super) struct Budget {
    /// Places of each.
    most: usize,
    hosts: Mutex<BTreeMap<Origin, Host>>,
    /// A place was given back, or an answer came.
    freed: Condvar,
}

/// What is going on at one host.
#[derive(Default)]
struct Host {
    /// Those taken, by the thread that asked.
    places: Vec<ThreadId>,
    /// Requests without an answer yet.
    n_asking: usize,
    /// The moment for people beside, since a text that changes every second would be news every time.
    held_until: Option<(Instant, Timestamp)>,
    /// Refusals in a row; requests under way at the same time count once.
    n_refusals: u32,
    refused_at: Option<Instant>,
    told_at: Option<Instant>,
}

/// The right to one request, until its body is read.
pub(super) struct Place {
    budget: Arc<Budget>,
    origin: Origin,
    thread: ThreadId,
    sent: Instant,
    is_asking: bool,
}

/// What a refusal led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hold {
    /// From now on nothing is sent for so long.
    pub(super) wait: Duration,
    /// Whether it should be told.
    pub(super) is_news: bool,
}

impl Budget {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Budget {
            most: most.max(1),
            hosts: Mutex::default(),
            freed: Condvar::new(),
        })
    }

    /// Waits until a request may be sent to `origin`.
    /// Errors (`Retry`): with what is left, at once, when the host is not to be asked for longer than
    /// [`LONGEST`]; when a stop is requested; and when no place got free in [`PLACE_WAIT`].
    pub(super) fn enter(self: &Arc<Self>, origin: &Origin, stop: &Stop) -> Result<Place> {
        let thread = thread::current().id();
        let begun = Instant::now();
        let mut hold_end = None;
        let mut hosts = self.lock();
        loop {
            if stop.is_requested() {
                return Err(stopped());
            }
            let now = Instant::now();
            let host = host_at(&mut hosts, origin, now);
            let wait = match host.left(now) {
                Some(left) => {
                    let end = *hold_end.get_or_insert(now + LONGEST);
                    if now + left > end {
                        return Err(host.held(origin, left));
                    }
                    left.min(TICK)
                }
                None if host.has_room(self.most, thread) => {
                    host.places.push(thread);
                    host.n_asking += 1;
                    return Ok(Place {
                        budget: Arc::clone(self),
                        origin: origin.clone(),
                        thread,
                        sent: now,
                        is_asking: true,
                    });
                }
                None if now.saturating_duration_since(begun) >= PLACE_WAIT => {
                    return Err(Error::retry(format_args!(
                        "all {} places at `{}` were taken for {}",
                        self.most,
                        origin.authority(),
                        for_people(PLACE_WAIT)
                    ))
                    .hint("allow more requests at a time with --max-per-host"));
                }
                None => TICK,
            };
            let waited = self.freed.wait_timeout(hosts, wait);
            hosts = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Origin, Host>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The entry of `origin`. Redirects lead to any number of hosts, so those without a request are forgotten in
/// time, held ones last.
fn host_at<'a>(
    hosts: &'a mut BTreeMap<Origin, Host>,
    origin: &Origin,
    now: Instant,
) -> &'a mut Host {
    if hosts.len() >= limit::HOSTS && !hosts.contains_key(origin) {
        hosts.retain(|_, host| !host.places.is_empty() || host.left(now).is_some());
        if hosts.len() >= limit::HOSTS {
            hosts.retain(|_, host| !host.places.is_empty());
        }
    }
    hosts.entry(origin.clone()).or_default()
}

impl Host {
    /// How long nothing may be sent; `None` when something may.
    fn left(&self, now: Instant) -> Option<Duration> {
        let (until, _) = self.held_until?;
        until
            .checked_duration_since(now)
            .filter(|left| !left.is_zero())
    }

    fn held(&self, origin: &Origin, left: Duration) -> Error {
        let moment = self.held_until.map(|(_, moment)| moment.to_string());
        Error::retry(format_args!(
            "`{}` asked to wait: nothing is sent to it before {}",
            origin.authority(),
            moment.unwrap_or_default()
        ))
        .after(left)
    }

    fn has_room(&self, most: usize, thread: ThreadId) -> bool {
        let is_first_out = self.n_refusals > 0 && self.n_asking > 0;
        !is_first_out && (self.places.len() < most || self.places.contains(&thread))
    }

    /// Notes a refusal of a request sent at `sent`, with the time that it named.
    fn refuse(&mut self, sent: Instant, now: Instant, named: Option<Duration>) -> Hold {
        let is_next = self.refused_at.is_none_or(|at| sent >= at);
        if is_next {
            self.n_refusals = self.n_refusals.saturating_add(1);
            self.refused_at = Some(now);
        }
        // A time that has passed already is no time.
        let named = named.filter(|wait| !wait.is_zero());
        let wait = match named {
            Some(wait) => wait.min(LONGEST_HOLD),
            None if is_next => backoff(self.n_refusals, FIRST_WAIT, MOST_WAIT),
            None => Duration::ZERO,
        };
        let until = now + wait;
        if self.held_until.is_none_or(|(held, _)| held < until) {
            self.held_until = Some((until, Timestamp::now().plus(wait)));
        }
        let wait = self.left(now).unwrap_or_default();
        let was_told = self
            .told_at
            .is_some_and(|at| now.saturating_duration_since(at) < TELL_AGAIN);
        let is_news = is_next && (!was_told || wait > LONGEST);
        if is_news {
            self.told_at = Some(now);
        }
        Hold { wait, is_news }
    }

    /// Notes an answer to a request sent at `sent`. What was under way when another was refused proves nothing.
    fn accept(&mut self, sent: Instant) {
        if self.refused_at.is_none_or(|at| sent >= at) {
            self.n_refusals = 0;
            self.refused_at = None;
        }
    }
}

impl Place {
    /// Notes the status of the answer and the time of its `Retry-After`. Returns what a refusal led to.
    pub(super) fn answered(&mut self, status: u16, named: Option<Duration>) -> Option<Hold> {
        let (budget, now) = (Arc::clone(&self.budget), Instant::now());
        let mut hosts = budget.lock();
        let host = host_at(&mut hosts, &self.origin, now);
        if std::mem::take(&mut self.is_asking) {
            host.n_asking = host.n_asking.saturating_sub(1);
        }
        let hold = match (status, named) {
            (429, _) | (503, Some(_)) => Some(host.refuse(self.sent, now, named)),
            (500.., _) => None,
            _ => {
                host.accept(self.sent);
                None
            }
        };
        drop(hosts);
        budget.freed.notify_all();
        hold
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut hosts = self.budget.lock();
        if let Some(host) = hosts.get_mut(&self.origin) {
            if let Some(at) = host.places.iter().position(|id| *id == self.thread) {
                host.places.swap_remove(at);
            }
            if self.is_asking {
                host.n_asking = host.n_asking.saturating_sub(1);
            }
        }
        drop(hosts);
        self.budget.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn origin(host: &str) -> Origin {
        Origin {
            scheme: "https".to_owned(),
            host: host.to_owned(),
            port: 443,
        }
    }

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn refusals_in_a_row_double_the_wait_and_those_of_one_moment_are_one() {
        let start = Instant::now();
        let mut host = Host::default();
        let mut now = start;
        for most in [1, 2, 4, 8, 16, 32, 60, 60] {
            let hold = host.refuse(now, now, None);
            assert!(
                hold.wait >= secs(most) / 2 && hold.wait <= secs(most),
                "{most}: {hold:?}"
            );
            // Another that was sent before the refusal came.
            let same = host.refuse(now - secs(1), now, None);
            assert_eq!((same.wait, same.is_news), (hold.wait, false));
            now += hold.wait;
            assert_eq!(host.left(now), None);
        }
        host.accept(start);
        assert!(host.n_refusals > 1, "an old answer proves nothing");
        host.accept(now);
        assert!(host.refuse(now, now, None).wait <= secs(1));
    }

    #[test]
    fn the_time_that_the_server_names_counts() {
        let now = Instant::now();
        let mut host = Host::default();
        assert_eq!(host.refuse(now, now, Some(secs(40))).wait, secs(40));
        // A shorter one does not shorten it.
        assert_eq!(host.refuse(now, now, Some(secs(5))).wait, secs(40));
        assert_eq!(host.left(now + secs(39)), Some(secs(1)));
        assert_eq!(host.left(now + secs(40)), None);
        // Past ones and absurd ones.
        assert!(Host::default().refuse(now, now, Some(secs(0))).wait > secs(0));
        let wait = Host::default().refuse(now, now, Some(Duration::MAX)).wait;
        assert_eq!(wait, LONGEST_HOLD);
    }

    #[test]
    fn a_host_that_refuses_all_the_time_is_told_of_once_a_minute() {
        let start = Instant::now();
        let mut host = Host::default();
        let mut n_told = 0;
        for at in 0..120 {
            let now = start + secs(at);
            n_told += u32::from(host.refuse(now, now, Some(secs(1))).is_news);
            host.accept(now);
        }
        assert_eq!(n_told, 2);
    }

    #[test]
    fn a_place_is_taken_until_it_is_dropped() {
        let (budget, stop) = (Budget::new(1), Stop::default());
        let first = budget.enter(&origin("a"), &stop).unwrap();
        // Another host has places of its own, and the own thread is not kept waiting.
        budget.enter(&origin("b"), &stop).unwrap();
        budget.enter(&origin("a"), &stop).unwrap();
        let (sender, entered) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| {
                let _place = budget.enter(&origin("a"), &stop).unwrap();
                sender.send(()).unwrap();
            });
            assert!(entered.try_recv().is_err());
            drop(first);
            entered.recv().unwrap();
        });
        assert!(budget.lock()[&origin("a")].places.is_empty());
    }

    #[test]
    fn after_a_refusal_one_request_goes_first() {
        let (budget, stop) = (Budget::new(8), Stop::default());
        let mut place = budget.enter(&origin("a"), &stop).unwrap();
        let hold = place.answered(429, Some(Duration::from_millis(1))).unwrap();
        assert!(hold.is_news && hold.wait <= Duration::from_millis(1));
        drop(place);
        let mut first = budget.enter(&origin("a"), &stop).unwrap();
        let me = thread::current().id();
        assert!(!budget.lock()[&origin("a")].has_room(8, me));
        assert_eq!(first.answered(200, None), None);
        assert!(budget.lock()[&origin("a")].has_room(8, me));
    }

    #[test]
    fn a_long_wait_is_an_error_at_once_and_a_stop_ends_any() {
        let (budget, stop) = (Budget::new(1), Stop::default());
        let mut place = budget.enter(&origin("a"), &stop).unwrap();
        assert_eq!(place.answered(503, None), None);
        assert!(place.answered(503, Some(secs(100))).is_some());
        let err = budget.enter(&origin("a"), &stop).err().unwrap();
        assert!(
            err.to_string()
                .starts_with("`a` asked to wait: nothing is sent to it before 2"),
            "{err}"
        );
        assert!(err.retry_after().unwrap() > secs(90));
        assert!(budget.enter(&origin("b"), &stop).is_ok());
        stop.request();
        assert_eq!(
            budget.enter(&origin("b"), &stop).err().unwrap().to_string(),
            "stopped"
        );
    }

    #[test]
    fn hosts_are_forgotten_in_time() {
        let (budget, stop) = (Budget::new(1), Stop::default());
        let kept = budget.enter(&origin("kept"), &stop).unwrap();
        for n in 0..2 * limit::HOSTS {
            let mut place = budget.enter(&origin(&n.to_string()), &stop).unwrap();
            place.answered(429, Some(secs(100)));
        }
        let hosts = budget.lock();
        assert!(hosts.len() <= limit::HOSTS);
        assert_eq!(hosts[&origin("kept")].places.len(), 1);
        drop(hosts);
        drop(kept);
    }
}
