//! Lines on stderr: a constant message with `key=value` data, and above all else the live line of a terminal.
//!
//! error = a person must act; warn = work was lost or skipped; info = start, end, totals; debug = the rest.
//! Values are made printable here. A line is written with one call, so that lines of several threads and
//! processes never mix.

use std::fmt::{Display, Write as _};
use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

use crate::printable::printable;
use crate::time::Timestamp;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Error,
    Warn,
    Info,
    Debug,
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// `2026-11-24T07:04:40Z info pass done images=42`
    Text,
    /// One JSON object a line.
    Json,
}

/// Where log lines go. One per process, passed by reference.
pub(crate) struct Log {
    max: Level,
    format: Format,
    is_terminal: bool,
    /// The live text on the terminal now, to be wiped before anything else is written.
    live: Mutex<String>,
}

/// The data of a line.
pub(crate) type Data<'a> = &'a [(&'static str, &'a dyn Display)];

impl Log {
    pub(crate) fn new(max: Level, format: Format) -> Self {
        let is_terminal = format == Format::Text && std::io::stderr().is_terminal();
        Log {
            max,
            format,
            is_terminal,
            live: Mutex::default(),
        }
    }

    /// Whether a person looks at it.
    pub(crate) fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    pub(crate) fn error(&self, message: &'static str, data: Data<'_>) {
        self.line(Level::Error, message, data);
    }

    pub(crate) fn warn(&self, message: &'static str, data: Data<'_>) {
        self.line(Level::Warn, message, data);
    }

    pub(crate) fn info(&self, message: &'static str, data: Data<'_>) {
        self.line(Level::Info, message, data);
    }

    pub(crate) fn debug(&self, message: &'static str, data: Data<'_>) {
        self.line(Level::Debug, message, data);
    }

    fn line(&self, level: Level, message: &'static str, data: Data<'_>) {
        if level > self.max {
            return;
        }
        let now = Timestamp::now().to_string();
        let line = match self.format {
            Format::Text if self.is_terminal => text_line(&now[11..19], level, message, data),
            Format::Text => text_line(&now, level, message, data),
            Format::Json => json_line(&now, level, message, data),
        };
        self.put(&line);
    }

    /// Writes a line for a person as it is, at info level. Text from outside must be printable already.
    pub(crate) fn say(&self, line: &str) {
        if self.max >= Level::Info {
            self.put(line);
        }
    }

    /// Replaces the live line. Does nothing when nobody looks.
    pub(crate) fn live(&self, text: &str) {
        if self.is_terminal && self.max >= Level::Info {
            let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
            text.clone_into(&mut live);
            write_out(&format!("\r\x1b[K{text}"));
        }
    }

    fn put(&self, line: &str) {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        if live.is_empty() {
            write_out(&format!("{line}\n"));
        } else {
            write_out(&format!("\r\x1b[K{line}\n{live}"));
        }
    }
}

/// A closed stderr is nobody's error.
fn write_out(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

fn text_line(now: &str, level: Level, message: &str, data: Data<'_>) -> String {
    let mut line = format!("{now} {} {message}", level.word());
    for (key, value) in data {
        let value = value.to_string();
        let value = printable(&value);
        let _ = if value.is_empty() || value.contains([' ', '"', '=']) {
            write!(line, " {key}=\"{}\"", value.replace('"', "'"))
        } else {
            write!(line, " {key}={value}")
        };
    }
    line
}

fn json_line(now: &str, level: Level, message: &str, data: Data<'_>) -> String {
    let mut object = serde_json::Map::new();
    for (key, value) in [("time", now), ("level", level.word()), ("message", message)] {
        object.insert(key.to_owned(), value.into());
    }
    for (key, value) in data {
        let text = value.to_string();
        let value = match text.parse::<u64>() {
            Ok(number) if number.to_string() == text => number.into(),
            _ => printable(&text).into_owned().into(),
        };
        object.insert((*key).to_owned(), value);
    }
    serde_json::Value::Object(object).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_cannot_be_forged() {
        let line = text_line(
            "t",
            Level::Warn,
            "image failed",
            &[("image", &"a\nb"), ("why", &"x = \"y\"")],
        );
        assert_eq!(line, "t warn image failed image=a\\nb why=\"x = 'y'\"");
        let line = json_line("t", Level::Info, "done", &[("n", &3)]);
        assert_eq!(
            line,
            r#"{"level":"info","message":"done","n":3,"time":"t"}"#
        );
    }
}
