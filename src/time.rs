//! Moments in UTC and durations as people write them.

use std::fmt;
use std::time::Duration;

use crate::error::{Error, Result};

/// A moment in UTC, milliseconds since 1970. Printed as RFC 3339 with seconds: `2026-11-24T07:04:40Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Timestamp(i64);

impl Timestamp {
    pub(crate) fn now() -> Self {
        Timestamp(jiff::Timestamp::now().as_millisecond())
    }

    pub(crate) const fn from_millis(millis: i64) -> Self {
        Timestamp(millis)
    }

    pub(crate) fn as_millis(self) -> i64 {
        self.0
    }

    /// Adds `wait`, stopping at the end of time.
    pub(crate) fn plus(self, wait: Duration) -> Self {
        Timestamp(
            self.0
                .saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX)),
        )
    }

    /// Takes `time` off, stopping at the beginning of time.
    pub(crate) fn minus(self, time: Duration) -> Self {
        Timestamp(
            self.0
                .saturating_sub(i64::try_from(time.as_millis()).unwrap_or(i64::MAX)),
        )
    }

    /// Time from `earlier` to `self`; zero when the clock was set back.
    pub(crate) fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// For a column of a table, UTC: `2026-11-24 07:04`.
    pub(crate) fn minute(self) -> String {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(moment) => moment.strftime("%Y-%m-%d %H:%M").to_string(),
            Err(_) => self.to_string(),
        }
    }

    /// Parses RFC 3339. Errors (`Skip`) on anything else.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        text.parse::<jiff::Timestamp>()
            .map(|moment| Timestamp(moment.as_millisecond()))
            .map_err(|_| Error::skip(format_args!("`{text}` is not an RFC 3339 time")))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(moment) => write!(f, "{}", moment.strftime("%Y-%m-%dT%H:%M:%SZ")),
            Err(_) => write!(f, "{}ms", self.0),
        }
    }
}

/// A duration in at most two units for a person: `1.9 s`, `3m 20s`, `2h 5m`, `4d 1h`.
pub(crate) fn for_people(duration: Duration) -> String {
    let secs = duration.as_secs();
    match secs {
        0..=9 => format!("{:.1} s", duration.as_secs_f64()),
        10..=59 => format!("{secs} s"),
        60..=3599 => format!("{}m {}s", secs / 60, secs % 60),
        3600..=86_399 => format!("{}h {}m", secs / 3600, secs % 3600 / 60),
        _ => format!("{}d {}h", secs / 86_400, secs % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_round_trip() {
        let moment = Timestamp::parse("2026-02-05T20:06:13.332Z").unwrap();
        assert_eq!(moment.as_millis(), 1_770_321_973_332);
        assert_eq!(moment.to_string(), "2026-02-05T20:06:13Z");
        assert_eq!(moment.minute(), "2026-02-05 20:06");
        assert!(Timestamp::parse("yesterday").is_err());
    }

    #[test]
    fn durations_read_well() {
        for (ms, text) in [
            (1_940, "1.9 s"),
            (42_000, "42 s"),
            (200_000, "3m 20s"),
            (7_500_000, "2h 5m"),
        ] {
            assert_eq!(for_people(Duration::from_millis(ms)), text);
        }
    }
}
