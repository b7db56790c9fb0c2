//! The search for a few bytes in a stream that comes in pieces of any size.

use memchr::memmem;

/// Looks for a needle in a stream, and keeps the bytes from there on until they were read.
#[derive(Default)]
pub(super) struct Hunt {
    pub(super) kept: Vec<u8>,
    /// Where in `kept` to go on.
    at: usize,
    /// Bytes from `at` on without which it makes no sense to try again.
    needed: usize,
}

/// What to do after a needle.
pub(super) enum Step {
    /// So many bytes are needed, counted from the needle.
    Need(usize),
    /// Go on so many bytes after the start of the needle, one at least.
    Past(usize),
}

impl Hunt {
    /// Calls `read` with the bytes from each needle on. Every byte is searched once, however many needles
    /// there are, so that hostile files cost no more than others.
    pub(super) fn search(
        &mut self,
        needle: &[u8],
        is_end: bool,
        mut read: impl FnMut(&[u8]) -> Step,
    ) {
        loop {
            let rest = self.kept.get(self.at..).unwrap_or_default();
            if rest.len() < self.needed && !is_end {
                break;
            }
            self.needed = needle.len();
            if rest.starts_with(needle) {
                match read(rest) {
                    Step::Need(bytes) if !is_end => {
                        self.needed = bytes;
                        break;
                    }
                    Step::Need(_) => self.at += 1,
                    Step::Past(bytes) => self.at += bytes,
                }
            } else if let Some(found) = memmem::find(rest, needle) {
                self.at += found;
            } else {
                // The needle may have begun in the last bytes.
                self.at += (rest.len() + 1).saturating_sub(needle.len());
                break;
            }
        }
        // Not at every turn: moving what is kept must not cost more than searching it.
        if self.at >= self.kept.len() / 2 {
            self.kept.drain(..self.at.min(self.kept.len()));
            self.at = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The three bytes after each `ab`, or fewer at the end.
    fn after(text: &[u8], chunk: usize) -> Vec<String> {
        let mut hunt = Hunt::default();
        let mut found = Vec::new();
        let mut search = |piece: &[u8], is_end| {
            hunt.kept.extend_from_slice(piece);
            hunt.search(b"ab", is_end, |rest| match rest.get(2..5) {
                None if !is_end => Step::Need(5),
                value => {
                    let value = value.or(rest.get(2..)).unwrap();
                    found.push(String::from_utf8_lossy(value).into_owned());
                    Step::Past(2)
                }
            });
        };
        text.chunks(chunk).for_each(|piece| search(piece, false));
        search(b"", true);
        found
    }

    #[test]
    fn pieces_of_any_size_give_the_same() {
        for (text, want) in [
            (&b""[..], &[][..]),
            (b"a", &[]),
            (b"abcde", &["cde"]),
            (b"xxabcab12", &["cab", "12"]),
            (b"abababxyz", &["aba", "abx", "xyz"]),
            (b"aabab", &["ab", ""]),
        ] {
            for chunk in 1..=10 {
                assert_eq!(after(text, chunk), want, "{text:?} by {chunk}");
            }
        }
    }
}
