//! The calling thread: hands due events and jobs to the workers, until the pass is over or a stop is asked for.

use std::time::{Duration, Instant};

use super::shared::{Inputs, Outputs, Shared, Work};
use super::systemd::Manager;
use super::{Mode, TICK};
use crate::error::{Kind, Result};
use crate::store::queue::Take;
use crate::store::tags::Lane;
use crate::time::Timestamp;

/// How often leases are renewed; they last longer.
const RENEW: Duration = Duration::from_secs(30);
/// How often events end that were looked at: each time the disk is waited for, by nobody else.
const END_EVENTS: Duration = Duration::from_millis(200);
/// The shortest time between two looks for work.
const GATHER: Duration = Duration::from_millis(2);
/// How far the clock may fall behind between two looks before that counts as set back.
const SET_BACK: Duration = Duration::from_secs(30);
/// The longest time between two tries of a disk that could not be written.
const LONGEST_PROBE: Duration = Duration::from_secs(60);

/// Feeds the workers to the end of the run. Errors: `Stop` when the store fails for good.
pub(super) fn run(
    shared: &Shared<'_>,
    owner: &str,
    outputs: &Outputs,
    inputs: &Inputs,
    manager: &mut Manager,
) -> Result<()> {
    let store = shared.plan.store;
    let mut renewed = Instant::now();
    let mut ended = Instant::now();
    let mut clock = (Instant::now(), Timestamp::now());
    let mut probe = Probe::default();
    loop {
        if shared.stop.is_requested() {
            manager.stopping();
            return Ok(());
        }
        manager.is_well();
        if shared.trouble().is_some() {
            probe.wait(shared, owner)?;
            continue;
        }
        let result = (|| {
            if renewed.elapsed() >= RENEW {
                renewed = Instant::now();
                store.renew_leases(owner)?;
                store.recover()?;
            }
            if let Some(by) = set_back(&mut clock) {
                shared.log.warn(
                    "the clock was set back; waits end so much earlier",
                    &[("seconds", &by.as_secs())],
                );
                store.clock_was_set_back(i64::try_from(by.as_millis()).unwrap_or(i64::MAX))?;
            }
            if ended.elapsed() >= END_EVENTS {
                ended = Instant::now();
                let done = shared.take_done_events();
                if let Err(err) = store.events_done(&done) {
                    shared.keep_done_events(done);
                    return Err(err);
                }
            }
            hand_out(shared, owner, outputs, inputs)
        })();
        let n_taken = match result {
            Ok(n_taken) => n_taken,
            // Another process holds the store for longer than usual.
            Err(err) if err.kind() == Kind::Retry => {
                shared.log.debug("nothing taken", &[("error", &err)]);
                0
            }
            Err(err) => {
                shared.broken(err);
                continue;
            }
        };
        if n_taken == 0 && shared.plan.mode == Mode::Once && shared.is_listed() && shared.is_idle()
        {
            // Nothing is under way and nothing can be added: jobs that wait for their next try decide.
            match store.next_due(&shared.source_names) {
                Ok(None) => return Ok(()),
                Ok(Some(due)) if due > Timestamp::now() => {
                    shared.progress.show_waiting(shared.log, due)
                }
                Ok(Some(_)) => {}
                Err(err) => shared.broken(err),
            }
        }
        shared.progress.show(shared.log, store);
        if n_taken == 0 {
            shared.wait_for_news(TICK);
        }
        // What comes together is taken together.
        shared.stop.sleep(GATHER);
    }
}

/// Hands out what is due, as far as there is room. Returns how much that was.
fn hand_out(shared: &Shared<'_>, owner: &str, outputs: &Outputs, inputs: &Inputs) -> Result<usize> {
    let (store, names) = (shared.plan.store, &shared.source_names);
    let room = |queue: &crossbeam_channel::Receiver<Work>| {
        queue.capacity().unwrap_or(0).saturating_sub(queue.len())
    };
    let mut n_taken = 0;
    let mut send = |sender, work| {
        n_taken += 1;
        shared.hand_out(sender, work);
    };
    // Half of the room, so that a flood of events does not keep images from being read.
    let n_free = room(&inputs.pushed).div_ceil(2);
    if n_free > 0 && shared.plan.mode != Mode::Once {
        for event in store.take_events(owner, &shared.source_ids, n_free)? {
            send(&outputs.pushed, Work::Event(Box::new(event)));
        }
    }
    for (lane, sender, queue) in [
        (Lane::Pushed, &outputs.pushed, &inputs.pushed),
        (Lane::Backfill, &outputs.images, &inputs.images),
    ] {
        let n_free = room(queue);
        if n_free > 0 {
            for job in store.take_jobs(owner, names, Take::Any(lane), n_free)? {
                send(sender, Work::Image(Box::new(job)));
            }
        }
    }
    // What a listing is about to find goes first.
    if n_taken == 0
        && shared.is_listed()
        && shared.is_idle()
        && let Some(job) = store.take_jobs(owner, names, Take::Suspect, 1)?.pop()
    {
        shared.log.warn(
            "crowsnest was ended several times while it read this image; reading it alone",
            &[("image", &format_args!("{}:{}", job.shown, job.tag))],
        );
        shared.hand_out(&outputs.images, Work::Image(Box::new(job)));
        return Ok(1);
    }
    Ok(n_taken)
}

/// By how much the clock was set back since the last look.
fn set_back(last: &mut (Instant, Timestamp)) -> Option<Duration> {
    let now = (Instant::now(), Timestamp::now());
    let expected = last.1.plus(now.0.duration_since(last.0));
    *last = now;
    let by = expected.since(now.1);
    (by > SET_BACK).then_some(by)
}

/// Tries of a disk that could not be written.
#[derive(Default)]
struct Probe {
    /// How long it was well before, and how long the last wait was.
    ended: Option<Instant>,
    wait: Duration,
}

impl Probe {
    /// Waits until nothing is under way and the store can be written again, or for one try.
    fn wait(&mut self, shared: &Shared<'_>, owner: &str) -> Result<()> {
        let is_new = self
            .ended
            .is_none_or(|ended| ended.elapsed() > LONGEST_PROBE);
        let wait = if is_new {
            Duration::from_secs(1)
        } else {
            (self.wait * 2).min(LONGEST_PROBE)
        };
        self.wait = wait;
        self.ended = Some(Instant::now());
        if shared.stop.sleep(wait) || !shared.is_idle() {
            return Ok(());
        }
        match shared
            .plan
            .store
            .probe()
            .and_then(|()| shared.plan.store.release_leases(owner))
        {
            Ok(()) => {
                shared.end_trouble();
                self.ended = Some(Instant::now());
                shared.log.info("the store can be written again", &[]);
                Ok(())
            }
            Err(err) if err.kind() == Kind::Retry || err.retry_after().is_some() => Ok(()),
            Err(err) => Err(err),
        }
    }
}
