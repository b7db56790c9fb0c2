//! The request to stop, shared by all threads.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Cheap to clone; once requested, a stop stays requested.
#[derive(Clone, Default)]
pub(crate) struct Stop(Arc<(Mutex<bool>, Condvar)>);

impl Stop {
    pub(crate) fn request(&self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }

    pub(crate) fn is_requested(&self) -> bool {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps for `wait`, or until a stop is requested. Returns whether one was.
    pub(crate) fn sleep(&self, wait: Duration) -> bool {
        let end = Instant::now() + wait;
        let mut is_requested = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        while !*is_requested {
            let Some(left) = end
                .checked_duration_since(Instant::now())
                .filter(|left| !left.is_zero())
            else {
                return false;
            };
            is_requested = self
                .0
                .1
                .wait_timeout(is_requested, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        true
    }
}
