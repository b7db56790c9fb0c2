//! Waiting and trying again. A host that asked all of us to wait is waited for by [`super::Http::send`]; what
//! an error says of it here is the same time, so that nobody waits twice.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use crate::error::{Error, Kind, Result};
use crate::stop::Stop;

/// Tries of a request whose failure may pass, before the work that needs it is put back.
const TRIES: u32 = 3;
/// The longest wait inside one request; a server that asks for more has the work put back.
pub(super) const LONGEST: Duration = Duration::from_secs(10);

/// The wait before try number `attempt` (from 1): `base` doubled each time up to `cap`, of which a random
/// half is taken off, so that many clients do not come back at once.
pub(crate) fn backoff(attempt: u32, base: Duration, cap: Duration) -> Duration {
    let full = base
        .saturating_mul(
            1u32.checked_shl(attempt.saturating_sub(1))
                .unwrap_or(u32::MAX),
        )
        .min(cap);
    let random = RandomState::new().build_hasher().finish() % 1000;
    full / 2 + full.mul_f64(random as f64 / 2000.0)
}

/// Calls `request` until it succeeds, fails for good, or was tried often enough.
pub(crate) fn retrying<T>(stop: &Stop, mut request: impl FnMut() -> Result<T>) -> Result<T> {
    let mut attempt = 1;
    loop {
        let err = match request() {
            Err(err) if err.kind() == Kind::Retry && attempt < TRIES => err,
            other => return other,
        };
        let wait = err
            .retry_after()
            .unwrap_or_else(|| backoff(attempt, Duration::from_millis(400), LONGEST));
        if wait > LONGEST {
            return Err(err);
        }
        if stop.sleep(wait) {
            return Err(stopped());
        }
        attempt += 1;
    }
}

/// The error of work that was left because the program is about to end.
pub(crate) fn stopped() -> Error {
    Error::retry("stopped")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_and_are_capped() {
        let (base, cap) = (Duration::from_secs(1), Duration::from_secs(60));
        for (attempt, most) in [(1, 1), (2, 2), (3, 4), (7, 60), (200, 60)] {
            let wait = backoff(attempt, base, cap).as_secs_f64();
            assert!(
                wait >= f64::from(most) / 2.0 && wait <= f64::from(most),
                "{attempt}: {wait}"
            );
        }
    }

    #[test]
    fn only_passing_trouble_is_tried_again() {
        let mut calls = 0;
        let err = retrying(&Stop::default(), || -> Result<()> {
            calls += 1;
            Err(Error::retry("busy").after(Duration::from_millis(1)))
        });
        assert_eq!(
            (err.unwrap_err().to_string(), calls),
            ("busy".to_owned(), TRIES)
        );
        calls = 0;
        let _ = retrying(&Stop::default(), || -> Result<()> {
            calls += 1;
            Err(Error::tell("no"))
        });
        assert_eq!(calls, 1);
    }
}
