//! Text from outside, made safe to show on a terminal, in a log line or in a table.
//!
//! Registries, images and advisories choose these bytes. Control characters could move the cursor, forge a
//! log line or start a command of a CI system; bidirectional marks could show a name as another.

use std::borrow::Cow;
use std::fmt::Write;

/// Returns `text` with control characters, line separators and bidirectional marks written as escapes.
/// Borrows when there is nothing to escape.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\n' => safe.push_str("\\n"),
            '\r' => safe.push_str("\\r"),
            '\t' => safe.push_str("\\t"),
            c if is_unsafe(c) && (c as u32) < 0x100 => {
                let _ = write!(safe, "\\x{:02x}", c as u32);
            }
            c if is_unsafe(c) => {
                let _ = write!(safe, "\\u{{{:x}}}", c as u32);
            }
            c => safe.push(c),
        }
    }
    Cow::Owned(safe)
}

/// Whether a terminal may do something else than show `c`.
pub(crate) fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_is_borrowed() {
        assert!(matches!(printable("app/ärger:1.0"), Cow::Borrowed(_)));
    }

    #[test]
    fn escapes_and_marks_are_spelled_out() {
        assert_eq!(
            printable("a\u{1b}[2Jb\u{202e}c\u{9b}"),
            "a\\x1b[2Jb\\u{202e}c\\x9b"
        );
    }
}
