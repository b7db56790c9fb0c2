//! Times: milliseconds since 1970 (UTC) to and from the texts of Artifactory and HTTP.

use std::fmt::Write as _;

use jiff::Timestamp;
use jiff::fmt::rfc2822;

/// The present.
pub(crate) fn now() -> i64 {
    Timestamp::now().as_millisecond()
}

/// ISO 8601 with milliseconds, `2026-02-05T20:06:13.332Z`.
pub(crate) fn iso(milliseconds: i64) -> String {
    let mut text = String::new();
    write_iso(&mut text, milliseconds);
    text
}

/// The same, into a buffer.
pub(crate) fn write_iso(out: &mut String, milliseconds: i64) {
    let time = Timestamp::from_millisecond(milliseconds).unwrap_or(Timestamp::UNIX_EPOCH);
    // Writing to a `String` does not fail.
    let _ = write!(out, "{time:.3}");
}

/// Reads a date, a time with any offset (absent: UTC) or a number of milliseconds.
pub(crate) fn parse(text: &str) -> Option<i64> {
    if let Ok(milliseconds) = text.parse() {
        return Some(milliseconds);
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time.as_millisecond());
    }
    let civil: jiff::civil::DateTime = text.parse().ok()?;
    let time = jiff::tz::TimeZone::UTC.to_timestamp(civil).ok()?;
    Some(time.as_millisecond())
}

/// An HTTP date; seconds are all it carries.
pub(crate) fn http_date(milliseconds: i64) -> String {
    let time = Timestamp::from_millisecond(milliseconds).unwrap_or(Timestamp::UNIX_EPOCH);
    rfc2822::DateTimePrinter::new()
        .timestamp_to_rfc9110_string(&time)
        .unwrap_or_default()
}

/// Milliseconds of an HTTP date.
pub(crate) fn parse_http_date(text: &str) -> Option<i64> {
    let parser = rfc2822::DateTimeParser::new();
    let time = parser.parse_timestamp(text).ok()?;
    Some(time.as_millisecond())
}
