//! The project's own source files, for tests of the house rules.
//!
//! Out: each file under `src` with its lines, and a copy of the same shape in which comments and the contents of
//! strings are blank. Test code (what `#[cfg(test)]` stands before, and files that such a `mod` names) is blank in
//! the copy too, so that a rule about the program looks at the program alone.
//!
//! *Invariant:* this is no parser of Rust; it knows strings, characters, comments, braces and `#[cfg(test)]`.

use std::fs;
use std::path::{Path, PathBuf};

/// One file of the program.
pub(crate) struct Source {
    /// Below the project: `src/watch/mod.rs`.
    pub(crate) path: String,
    pub(crate) text: String,
    /// `text` with comments, contents of strings and test code turned into spaces; the lines are the same.
    pub(crate) code: String,
    /// Lines that are not test code.
    pub(crate) n_lines: usize,
}

impl Source {
    fn new(path: String, text: String) -> Source {
        let masked = without_comments_and_strings(&text);
        let (code, n_test_lines) = without_tests(&masked);
        let n_lines = text.lines().count() - n_test_lines;
        Source {
            path,
            text,
            code,
            n_lines,
        }
    }

    /// The names between `src` and the file's own: `["watch"]` for `src/watch/mod.rs` and `src/watch.rs`.
    pub(crate) fn module(&self) -> Vec<&str> {
        let inner = self.path.trim_start_matches("src/").trim_end_matches(".rs");
        let mut names: Vec<&str> = inner.split('/').collect();
        if names.last() == Some(&"mod") {
            names.pop();
        }
        names
    }

    /// The number of the line, from 1, that a position in `code` is on.
    pub(crate) fn line_at(&self, position: usize) -> usize {
        line_at(&self.code, position)
    }
}

/// The project's folder.
pub(crate) fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file of the project as text; panics with its name when it is not there.
pub(crate) fn file(name: &str) -> String {
    let path = project().join(name);
    fs::read_to_string(&path).unwrap_or_else(|err| panic!("{}: {err}", path.display()))
}

/// The first cells of the Markdown table whose first column has that name, without their backticks.
pub(crate) fn rows<'a>(markdown: &'a str, column: &str) -> Vec<&'a str> {
    let rows: Vec<&str> = markdown
        .lines()
        .skip_while(|line| !line.starts_with(&format!("| {column} |")))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .filter_map(|line| line.split('|').nth(1))
        .map(|cell| cell.trim().trim_matches('`'))
        .collect();
    assert!(
        !rows.is_empty(),
        "no table whose first column is `{column}`"
    );
    rows
}

/// Every file of the program, sorted by path, without those that are test code as a whole.
pub(crate) fn all() -> Vec<Source> {
    let mut paths = Vec::new();
    find(&project().join("src"), &mut paths);
    paths.sort();
    let mut test_only = Vec::new();
    let mut sources = Vec::new();
    for path in &paths {
        let text = fs::read_to_string(path).unwrap();
        let folder = folder_of_children(path);
        test_only.extend(test_modules(&text).map(|name| folder.join(name)));
        let name = path.strip_prefix(project()).unwrap();
        sources.push((path, Source::new(name.display().to_string(), text)));
    }
    sources
        .into_iter()
        .filter(|(path, _)| {
            let stem = path.with_extension("");
            !test_only.iter().any(|module| stem.starts_with(module))
        })
        .map(|(_, source)| source)
        .collect()
}

fn find(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Where the modules that a file declares lie.
fn folder_of_children(path: &Path) -> PathBuf {
    let is_head = matches!(
        path.file_name().and_then(|name| name.to_str()),
        Some("mod.rs" | "main.rs")
    );
    if is_head {
        path.parent().unwrap().to_owned()
    } else {
        path.with_extension("")
    }
}

/// The names of the modules in files of their own that `#[cfg(test)]` stands before.
fn test_modules(text: &str) -> impl Iterator<Item = &str> {
    text.split("#[cfg(test)]").skip(1).filter_map(|rest| {
        let rest = rest.trim_start();
        let rest = rest.strip_prefix("pub(crate) ").unwrap_or(rest);
        let (name, _) = rest.strip_prefix("mod ")?.split_once(';')?;
        name.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_')
            .then_some(name)
    })
}

fn line_at(text: &str, position: usize) -> usize {
    text[..position].matches('\n').count() + 1
}

/// Turns comments and the contents of strings and characters into spaces. The quotes stay.
fn without_comments_and_strings(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    let blank = |out: &mut [u8], from: usize, to: usize| {
        for byte in &mut out[from..to] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
    };
    while at < bytes.len() {
        let rest = &bytes[at..];
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let is_inside_name = at > 0 && is_name(bytes[at - 1]);
        if rest.starts_with(b"//") {
            let end = at + find_bytes(rest, b"\n").unwrap_or(rest.len());
            blank(&mut out, at, end);
            at = end;
        } else if rest.starts_with(b"/*") {
            let end = at + find_bytes(rest, b"*/").map_or(rest.len(), |found| found + 2);
            blank(&mut out, at, end);
            at = end;
        } else if !is_inside_name && (rest.starts_with(b"r\"") || rest.starts_with(b"r#")) {
            let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
            if rest.get(1 + hashes) == Some(&b'"') {
                let start = at + 2 + hashes;
                let close = [&b"\""[..], &vec![b'#'; hashes]].concat();
                let end = start + find_bytes(&bytes[start..], &close).expect("a raw string ends");
                blank(&mut out, start, end);
                at = end + close.len();
            } else {
                at += 1;
            }
        } else if rest[0] == b'"' {
            let mut end = at + 1;
            while bytes[end] != b'"' {
                end += if bytes[end] == b'\\' { 2 } else { 1 };
            }
            blank(&mut out, at + 1, end);
            at = end + 1;
        } else if rest[0] == b'\'' {
            // A character, or else a lifetime, behind which no quote follows.
            let close = match rest.get(1) {
                Some(b'\\') => find_bytes(&rest[3..], b"'").map(|found| found + 3),
                _ => text[at + 1..]
                    .chars()
                    .next()
                    .map(|c| 1 + c.len_utf8())
                    .filter(|close| rest.get(*close) == Some(&b'\'')),
            };
            if let Some(close) = close {
                blank(&mut out, at + 1, at + close);
                at += close + 1;
            } else {
                at += 1;
            }
        } else {
            at += 1;
        }
    }
    String::from_utf8(out).expect("only whole characters were replaced")
}

/// Turns what `#[cfg(test)]` stands before into spaces; tells how many lines that were.
fn without_tests(code: &str) -> (String, usize) {
    let mut out = code.to_owned();
    let mut n_lines = 0;
    while let Some(start) = out.find("#[cfg(test)]") {
        let end = end_of_item(&out, start);
        n_lines += line_at(&out, end) - line_at(&out, start) + 1;
        let blanks: String = out[start..end]
            .chars()
            .map(|c| if c == '\n' { '\n' } else { ' ' })
            .collect();
        out.replace_range(start..end, &blanks);
    }
    (out, n_lines)
}

/// Behind the `;` or the last `}` of the item with attributes at `start`.
fn end_of_item(code: &str, start: usize) -> usize {
    let mut depth = 0_usize;
    let mut is_use = false;
    for (at, c) in code[start..].char_indices() {
        let rest = &code[start + at..];
        if depth == 0 && rest.starts_with("use ") {
            is_use = true;
        }
        match c {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 && c == '}' && !is_use {
                    return start + at + 1;
                }
            }
            ';' if depth == 0 => return start + at + 1,
            // A field or a variant.
            ',' if depth == 0 => return start + at + 1,
            _ => {}
        }
    }
    code.len()
}

fn find_bytes(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}

#[test]
fn comments_strings_and_tests_are_blank() {
    let text = "use a; // b\nfn f<'a>() { g('\"', \"x \\\" {\", r#\"}\"#, 'a'); }\n#[cfg(test)]\nmod tests {\n    \
                fn h() {}\n}\n#[cfg(test)]\nuse x::{y};\nfn last() {}\n";
    let source = Source::new("src/a/b.rs".to_owned(), text.to_owned());
    assert_eq!(source.n_lines, 3);
    assert_eq!(source.module(), ["a", "b"]);
    let lines: Vec<&str> = source.code.lines().map(str::trim_end).collect();
    assert_eq!(
        lines[..2],
        [
            "use a;",
            "fn f<'a>() { g(' ', \"      \", r#\" \"#, ' '); }"
        ]
    );
    assert!(lines[2..8].iter().all(|line| line.is_empty()));
    assert_eq!(lines[8], "fn last() {}");
    assert_eq!(source.line_at(source.code.find("last").unwrap()), 9);
}
