//! Values of fields in files from outside: lines, what a name may look like, and how a problem is told.
//!
//! *Invariant:* never guesses. A value is taken as it stands or refused with a problem.

use crate::ecosystem::Found;
use crate::limit;
use crate::printable::printable;
use crate::sbom::Package;

/// Characters of a value from outside that a problem shows.
const SHOWN_CHARS: usize = 80;

impl Found {
    /// Adds a package. Past [`limit::PACKAGES`] they are left out, and a problem says so: a file of the shortest
    /// entries must not take a multiple of its size.
    pub(super) fn package(&mut self, package: Package) {
        if self.packages.len() < limit::PACKAGES {
            return self.packages.push(package);
        }
        let message = format!(
            "more than the limit of {} packages in this file; the rest is left out",
            limit::PACKAGES
        );
        if !self.problems.contains(&message) {
            // Not by `problem`, which may have its fill.
            self.problems.push(message);
        }
    }

    /// Adds a problem. Past [`limit::PROBLEMS`] they are left out, and one last line says so: a file of
    /// nothing but mistakes must not fill the memory with messages.
    pub(super) fn problem(&mut self, message: String) {
        match self.problems.len() {
            n if n < limit::PROBLEMS => self.problems.push(message),
            limit::PROBLEMS => self
                .problems
                .push("more problems in this file are not listed".to_owned()),
            _ => {}
        }
    }
}

/// The lines without their ends, `\n` or `\r\n`; an empty last one when the file ends with a line end. A byte
/// order mark at the start is passed over.
pub(super) fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    without_bom(bytes)
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}

/// The bytes after a UTF-8 byte order mark, which editors on Windows put first.
pub(super) fn without_bom(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

/// Splits `Key: value` at the first colon; the value is trimmed. `None` when there is no colon.
pub(super) fn key_value(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (key, value) = line.split_at(colon);
    Some((key, value.get(1..).unwrap_or_default().trim_ascii()))
}

/// The text if it can be a name or a version: UTF-8, not empty, no longer than [`limit::FIELD_BYTES`],
/// without white space and control characters.
pub(super) fn word(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    let is_word = !text.is_empty()
        && text.len() <= limit::FIELD_BYTES
        && !text.chars().any(|c| c.is_whitespace() || c.is_control());
    is_word.then_some(text)
}

/// The text if it can be a license: one line that is not empty and no longer than `max` bytes. What is not
/// UTF-8 is replaced, as old packages name authors in Latin-1.
pub(super) fn license(bytes: &[u8], max: usize) -> Option<String> {
    let bytes = bytes.trim_ascii();
    if bytes.is_empty() || bytes.len() > max {
        return None;
    }
    let text = String::from_utf8_lossy(bytes).into_owned();
    (!text.chars().any(char::is_control)).then_some(text)
}

/// Name and version of a package if both are words; else adds a problem.
pub(super) fn name_and_version<'a>(
    name: Option<&'a [u8]>,
    version: Option<&'a [u8]>,
    found: &mut Found,
) -> Option<(&'a str, &'a str)> {
    let Some(name) = name else {
        found.problem("package without a name".to_owned());
        return None;
    };
    let Some(version) = version else {
        found.problem(format!("package `{}` has no version", shown(name)));
        return None;
    };
    let Some(name) = word(name) else {
        found.problem(format!("`{}` is not a package name", shown(name)));
        return None;
    };
    let Some(version) = word(version) else {
        found.problem(format!(
            "package `{name}`: `{}` is not a version",
            shown(version),
            name = shown(name.as_bytes())
        ));
        return None;
    };
    Some((name, version))
}

/// The value as a problem shows it: one line, safe to print, cut after [`SHOWN_CHARS`].
pub(super) fn shown(bytes: &[u8]) -> String {
    // A character has four bytes at most, so the cut before decoding loses nothing that would be shown.
    let head = bytes.get(..SHOWN_CHARS * 4).unwrap_or(bytes);
    let text = String::from_utf8_lossy(head);
    let mut cut: String = text.chars().take(SHOWN_CHARS).collect();
    if cut.len() < text.len() || head.len() < bytes.len() {
        cut.push('…');
    }
    printable(&cut).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_in_any_way() {
        let got: Vec<_> = lines(b"\xef\xbb\xbfa\r\n\nb\n").collect();
        assert_eq!(got, [&b"a"[..], b"", b"b", b""]);
    }

    #[test]
    fn words_are_neither_empty_nor_spaced_nor_long() {
        for (bytes, is_word) in [
            (&b"libc6"[..], true),
            ("ärger".as_bytes(), true),
            (b"", false),
            (b"a b", false),
            (b"a\xc2\xa0b", false),
            (b"a\0", false),
            (b"\x1b[2J", false),
            (b"\xff", false),
            (&[b'a'; limit::FIELD_BYTES], true),
            (&[b'a'; limit::FIELD_BYTES + 1], false),
        ] {
            assert_eq!(word(bytes).is_some(), is_word, "{:?}", shown(bytes));
        }
    }

    #[test]
    fn shown_values_are_short_single_lines() {
        assert_eq!(shown(b"a\nb\x1b\xff"), "a\\nb\\x1b\u{fffd}");
        assert_eq!(shown(&[b'x'; 80]), "x".repeat(80));
        assert_eq!(shown(&[b'x'; 81]), "x".repeat(80) + "…");
        assert_eq!(shown(&[b'x'; 9_999]), "x".repeat(80) + "…");
    }

    #[test]
    fn endless_problems_are_cut_and_the_cut_is_told() {
        let mut found = Found::default();
        for n in 0..1_000 {
            found.problem(n.to_string());
        }
        assert_eq!(found.problems.len(), limit::PROBLEMS + 1);
        assert_eq!(
            found.problems.last().unwrap(),
            "more problems in this file are not listed"
        );
    }
}
