//! The `key=value` grammar of `--registry` and its like.
//!
//! In: the text of one option. Out: a plain host, or [`Pair`]s, and from these and a table of [`OptionRow`]s
//! the checked [`Values`]. The text is one CSV record in the dialect of Go's `encoding/csv`
//! (<https://pkg.go.dev/encoding/csv>, RFC 4180), since the Docker CLI reads its options that way: a field
//! with a comma is quoted whole, key included, and a quote inside it is doubled:
//! `type=nexus,"repository=a,b"`.
//!
//! Columns are counted in characters from 1 and point at the first character of a key. Errors are of kind
//! `Tell` and start with the column; the caller adds the name of the flag as context.
//!
//! *Invariant:* values are not interpreted here beyond lists, booleans and numbers, and a value that could
//! be a URL with a password is never put into an error.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use crate::error::{Error, Result};

/// Changes of letters up to which a word counts as a slip of another.
const SLIPS: usize = 2;
/// Characters beyond which a word is not compared with known names.
const WORD_CHARS: usize = 64;

/// A field `key=value` of the text. The key is not empty; the value may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) key: String,
    pub(crate) value: String,
    pub(crate) column: usize,
}

/// What an option says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// The text has no `=`: a registry host, `registry.example.com:5000`.
    Host(String),
    /// In the order of the text, not empty.
    Pairs(Vec<Pair>),
}

/// One known key: a row in a `const` table of the module that understands it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OptionRow {
    pub(crate) key: &'static str,
    /// Other spellings that mean the same.
    pub(crate) aliases: &'static [&'static str],
    /// The placeholder of the value in help texts: `URL`.
    pub(crate) value: &'static str,
    /// One sentence without a period.
    pub(crate) summary: &'static str,
    pub(crate) is_required: bool,
    /// Whether the key may be repeated and its value is a comma list; both accumulate.
    pub(crate) is_list: bool,
}

impl OptionRow {
    fn answers_to(&self, key: &str) -> bool {
        self.key == key || self.aliases.contains(&key)
    }
}

/// The checked values of an option, asked by the key of the row.
#[derive(Clone, Debug)]
pub(crate) struct Values {
    rows: &'static [OptionRow],
    values: BTreeMap<&'static str, Vec<Value>>,
}

#[derive(Clone, Debug)]
struct Value {
    text: String,
    column: usize,
}

/// A field of a CSV record; `text` is without the quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) text: String,
    pub(crate) column: usize,
}

/// Reads an option. Errors when the text is empty or no CSV record, a host has a scheme, path, comma or
/// blank, a field is empty or has no `=`, or a key is empty.
pub(crate) fn parse(text: &str) -> Result<Parsed> {
    if !text.contains('=') {
        return host(text).map(Parsed::Host);
    }
    fields(text)?
        .into_iter()
        .map(pair)
        .collect::<Result<_>>()
        .map(Parsed::Pairs)
}

/// Checks `pairs` against the table of known keys. `what` is the noun for errors: `type=artifactory`.
/// Errors on an unknown key, an empty value or list item, a second value for a key that takes one, and a
/// missing required key.
pub(crate) fn check(pairs: &[Pair], rows: &'static [OptionRow], what: &str) -> Result<Values> {
    let mut values: BTreeMap<&'static str, Vec<Value>> = BTreeMap::new();
    for pair in pairs {
        let Some(row) = rows.iter().find(|row| row.answers_to(&pair.key)) else {
            return Err(unknown_key(pair, rows, what));
        };
        let taken = values.entry(row.key).or_default();
        if let Some(first) = taken.first()
            && !row.is_list
        {
            return Err(at(
                pair.column,
                format_args!(
                    "key `{}` stands twice, first in column {}; expected one `{}={}`",
                    pair.key, first.column, row.key, row.value
                ),
            ));
        }
        let items: Vec<&str> = match row.is_list {
            true => pair.value.split(',').collect(),
            false => vec![&pair.value],
        };
        for item in items {
            if item.is_empty() {
                return Err(at(
                    pair.column,
                    format_args!(
                        "key `{}` has an empty value; expected `{}={}`",
                        pair.key, row.key, row.value
                    ),
                ));
            }
            taken.push(Value {
                text: item.to_owned(),
                column: pair.column,
            });
        }
    }
    match rows
        .iter()
        .find(|row| row.is_required && !values.contains_key(row.key))
    {
        Some(row) => Err(Error::tell(format_args!(
            "key `{}` is missing: `{what}` needs `{}={}`",
            row.key, row.key, row.value
        ))
        .hint(format!("{}: {}", row.key, row.summary))),
        None => Ok(Values { rows, values }),
    }
}

impl Values {
    /// The value of a key that takes one, or the first of a list.
    pub(crate) fn one(&self, key: &str) -> Option<&str> {
        self.of(key).first().map(|value| value.text.as_str())
    }

    /// All values of a list key in the order of the text. May be empty.
    pub(crate) fn many(&self, key: &str) -> Vec<&str> {
        self.of(key)
            .iter()
            .map(|value| value.text.as_str())
            .collect()
    }

    /// The value of a key that is `true` or `false`. Errors on anything else.
    pub(crate) fn boolean(&self, key: &str) -> Result<Option<bool>> {
        match self.one(key) {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(other) => Err(self.found(key, "`true` or `false`", other)),
        }
    }

    /// The value of a key that is a whole number. Errors when it is not, or is out of `range`.
    pub(crate) fn number(&self, key: &str, range: RangeInclusive<u64>) -> Result<Option<u64>> {
        let Some(text) = self.one(key) else {
            return Ok(None);
        };
        match text.parse() {
            Ok(number) if range.contains(&number) => Ok(Some(number)),
            _ => Err(self.found(
                key,
                &format!("a whole number from {} to {}", range.start(), range.end()),
                text,
            )),
        }
    }

    /// The error for a value that its owner does not understand. Does not show the value, which may be a
    /// URL with a password. `expected` is a noun with its article: `an https URL`.
    pub(crate) fn wrong(&self, key: &str, expected: &str) -> Error {
        let column = self.of(key).first().map_or(1, |value| value.column);
        at(column, format_args!("key `{key}`: expected {expected}"))
    }

    fn found(&self, key: &str, expected: &str, found: &str) -> Error {
        self.wrong(key, &format!("{expected}, found `{found}`"))
    }

    fn of(&self, key: &str) -> &[Value] {
        debug_assert!(
            self.rows.iter().any(|row| row.key == key),
            "`{key}` is in no row"
        );
        self.values.get(key).map_or(&[], Vec::as_slice)
    }
}

/// Splits a CSV record. Never empty: the empty text is one empty field. Errors on a quote in an unquoted
/// field, text behind a closing quote, a missing closing quote, and a line break outside quotes.
pub(crate) fn fields(text: &str) -> Result<Vec<Field>> {
    let chars: Vec<char> = text.chars().collect();
    let mut fields = Vec::new();
    let mut at_char = 0;
    loop {
        let (field, end) = match chars.get(at_char) {
            Some('"') => quoted(&chars, at_char)?,
            _ => unquoted(&chars, at_char)?,
        };
        fields.push(field);
        if end >= chars.len() {
            return Ok(fields);
        }
        at_char = end + 1;
    }
}

/// The known name that `word` is most likely a slip of: fewest changed letters, at most two, or one is the
/// start of the other. The first of equals.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let n_chars = word.chars().count();
    if n_chars == 0 || n_chars > WORD_CHARS {
        return None;
    }
    known
        .into_iter()
        .filter_map(|name| {
            let slips = distance(word, name);
            let is_start = n_chars > 1 && (name.starts_with(word) || word.starts_with(name));
            match slips {
                _ if slips <= SLIPS && slips < n_chars => Some((slips, name)),
                _ if is_start => Some((SLIPS + 1, name)),
                _ => None,
            }
        })
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, name)| name)
}

/// `a`, `b` or `c`: the names in backticks for a sentence.
pub(crate) fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        Some((last, _)) => last.clone(),
        None => String::new(),
    }
}

fn at(column: usize, message: impl std::fmt::Display) -> Error {
    Error::tell(format_args!("column {column}: {message}"))
}

fn host(text: &str) -> Result<String> {
    const EXPECTED: &str =
        "expected a host such as `registry.example.com:5000`, or `key=value` fields";
    let stray = |c: char| c.is_whitespace() || c.is_control() || matches!(c, ',' | '/' | '"');
    if text.is_empty() {
        return Err(Error::tell(format_args!("value is empty; {EXPECTED}")));
    }
    match text.chars().position(stray) {
        Some(_) if text.contains("://") => Err(at(
            1,
            "expected a host such as `registry.example.com:5000`, without `http://` or `https://`",
        )),
        Some(place) => Err(at(
            place + 1,
            format_args!("not part of a host; {EXPECTED}"),
        )),
        None => Ok(text.to_owned()),
    }
}

fn pair(field: Field) -> Result<Pair> {
    let Field { text, column } = field;
    match text.split_once('=') {
        Some(("", _)) => Err(at(column, "expected a key before `=`")),
        Some((key, value)) => Ok(Pair {
            key: key.to_owned(),
            value: value.to_owned(),
            column,
        }),
        None if text.is_empty() => Err(at(column, "expected `key=value`, found nothing")),
        None => Err(
            at(column, format_args!("expected `key=value`, found `{text}`"))
                .hint("a value with a comma is quoted together with its key: \"repository=a,b\""),
        ),
    }
}

/// The quoted field whose opening quote is at `start`, and the index behind its closing quote.
fn quoted(chars: &[char], start: usize) -> Result<(Field, usize)> {
    let mut text = String::new();
    let mut at_char = start + 1;
    loop {
        match (chars.get(at_char), chars.get(at_char + 1)) {
            (Some('"'), Some('"')) => {
                text.push('"');
                at_char += 2;
            }
            (Some('"'), None | Some(',')) => {
                let column = start + 2;
                return Ok((Field { text, column }, at_char + 1));
            }
            (Some('"'), Some(_)) => {
                return Err(at(
                    at_char + 2,
                    "text behind a closing quote; expected `,` or the end",
                )
                .hint("a quote inside a quoted field is doubled: \"\""));
            }
            (Some(c), _) => {
                text.push(*c);
                at_char += 1;
            }
            (None, _) => return Err(at(start + 1, "the quote that opens here is not closed")),
        }
    }
}

/// The unquoted field that starts at `start`, and the index of its comma or of the end.
fn unquoted(chars: &[char], start: usize) -> Result<(Field, usize)> {
    let mut text = String::new();
    for (at_char, c) in chars.iter().enumerate().skip(start) {
        match c {
            ',' => {
                let column = start + 1;
                return Ok((Field { text, column }, at_char));
            }
            '"' => {
                return Err(
                    at(at_char + 1, "a quote inside a field that is not quoted").hint(
                        "quotes stand around the whole field, key included: \"repository=a,b\"",
                    ),
                );
            }
            '\n' | '\r' => return Err(at(at_char + 1, "a line break outside quotes")),
            c => text.push(*c),
        }
    }
    let column = start + 1;
    Ok((Field { text, column }, chars.len()))
}

fn unknown_key(pair: &Pair, rows: &[OptionRow], what: &str) -> Error {
    let names = rows
        .iter()
        .flat_map(|row| std::iter::once(row.key).chain(row.aliases.iter().copied()));
    let key = &pair.key;
    match nearest(key, names) {
        Some(name) => at(
            pair.column,
            format_args!("unknown key `{key}`; did you mean `{name}`?"),
        ),
        None => at(
            pair.column,
            format_args!(
                "unknown key `{key}`; `{what}` knows {}",
                listed(rows.iter().map(|row| row.key))
            ),
        ),
    }
}

/// Levenshtein distance in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn row(key: &'static str, aliases: &'static [&'static str]) -> OptionRow {
        OptionRow {
            key,
            aliases,
            value: "X",
            summary: "what it is",
            is_required: false,
            is_list: false,
        }
    }

    const ROWS: &[OptionRow] = &[
        OptionRow {
            is_required: true,
            ..row("type", &[])
        },
        OptionRow {
            is_required: true,
            value: "HOST",
            ..row("registry", &[])
        },
        OptionRow {
            is_list: true,
            ..row("repository", &[])
        },
        OptionRow {
            is_list: true,
            ..row("include", &["includes"])
        },
        OptionRow {
            is_list: true,
            ..row("exclude", &["excludes"])
        },
        row("api", &[]),
        row("port", &[]),
        row("subdomain-mode", &[]),
    ];

    fn checked(text: &str) -> Result<Values> {
        match parse(text)? {
            Parsed::Host(host) => panic!("`{host}` is a host"),
            Parsed::Pairs(pairs) => check(&pairs, ROWS, "type=artifactory"),
        }
    }

    fn refused(text: &str) -> String {
        checked(text).unwrap_err().context("--registry").to_string()
    }

    #[test]
    fn a_value_without_equals_is_a_host() {
        for text in ["registry.example.com", "localhost:5000", "[::1]:5000"] {
            assert_eq!(parse(text).unwrap(), Parsed::Host(text.to_owned()));
        }
        for (text, message) in [
            (
                "",
                "value is empty; expected a host such as `registry.example.com:5000`, or \
                 `key=value` fields",
            ),
            (
                "https://r.example",
                "column 1: expected a host such as `registry.example.com:5000`, without \
                 `http://` or `https://`",
            ),
            (
                "a.example,b.example",
                "column 10: not part of a host; expected a host such as \
                 `registry.example.com:5000`, or `key=value` fields",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn the_strings_of_the_scout_manual_are_understood() {
        for text in [
            "type=artifactory,registry=example.jfrog.io,api=https://example.jfrog.io/artifactory,\
             include=*/frontend*,exclude=*/dta/*,repository=docker-local,port=9000,\
             subdomain-mode=true",
            "type=harbor,registry=demo.goharbor.io,api=https://demo.goharbor.io,include=*/foo/*,\
             exclude=*/bar/*,port=9000",
            "type=nexus,registry=localhost:8082,api=http://localhost:8081,include=*/foo/*,\
             exclude=*/bar/*,\"repository=docker-test1,docker-test2\",port=9000",
            "type=oci,registry=registry.example.com,include=*/scout-artifact-registry/*",
        ] {
            checked(text).unwrap();
        }
    }

    #[test]
    fn records_split_as_in_go() {
        let texts = |text: &str| -> Vec<(String, usize)> {
            fields(text)
                .unwrap()
                .into_iter()
                .map(|field| (field.text, field.column))
                .collect()
        };
        let own = |text: &str, column| (text.to_owned(), column);
        assert_eq!(texts(""), [own("", 1)]);
        assert_eq!(texts("a,"), [own("a", 1), own("", 3)]);
        assert_eq!(texts("ä,b"), [own("ä", 1), own("b", 3)]);
        assert_eq!(texts("\"a,b\",c"), [own("a,b", 2), own("c", 7)]);
        assert_eq!(texts("\"say \"\"hi\"\"\""), [own("say \"hi\"", 2)]);
        assert_eq!(texts("\"\""), [own("", 2)]);
        assert_eq!(texts("\"a\nb\""), [own("a\nb", 2)]);
        assert_eq!(texts(" a , b"), [own(" a ", 1), own(" b", 5)]);
    }

    #[test]
    fn keys_accumulate_by_repetition_list_and_alias() {
        let values = checked(
            "type=t,registry=r,include=a,\"includes=b,c\",\"repository=x,y\",exclude=e,port=90",
        )
        .unwrap();
        assert_eq!(values.many("include"), ["a", "b", "c"]);
        assert_eq!(values.many("repository"), ["x", "y"]);
        assert_eq!(values.many("exclude"), ["e"]);
        assert_eq!(values.one("registry"), Some("r"));
        assert_eq!(values.one("api"), None);
        assert_eq!(values.boolean("subdomain-mode").unwrap(), None);
        assert_eq!(values.number("port", 1..=65_535).unwrap(), Some(90));
    }

    #[test]
    fn values_may_hold_equals_signs_and_commas() {
        let values = checked("type=t,registry=r,\"api=https://x/?a=b,c\"").unwrap();
        assert_eq!(values.one("api"), Some("https://x/?a=b,c"));
        assert_eq!(
            values.wrong("api", "an https URL").to_string(),
            "column 20: key `api`: expected an https URL"
        );
    }

    #[test]
    fn mistakes_name_key_place_and_expectation() {
        for (text, message) in [
            (
                "type=t,registry=r.example,includ=x",
                "--registry: column 27: unknown key `includ`; did you mean `include`?",
            ),
            (
                "type=t,sub=true",
                "--registry: column 8: unknown key `sub`; did you mean `subdomain-mode`?",
            ),
            (
                "type=t,password=x",
                "--registry: column 8: unknown key `password`; `type=artifactory` knows `type`, \
                 `registry`, `repository`, `include`, `exclude`, `api`, `port` or `subdomain-mode`",
            ),
            (
                "type=t,api=x",
                "--registry: key `registry` is missing: `type=artifactory` needs `registry=HOST`",
            ),
            (
                "type=t,registry=",
                "--registry: column 8: key `registry` has an empty value; expected \
                 `registry=HOST`",
            ),
            (
                "type=t,\"include=a,,b\"",
                "--registry: column 9: key `include` has an empty value; expected `include=X`",
            ),
            (
                "type=t,registry=a,registry=b",
                "--registry: column 19: key `registry` stands twice, first in column 8; \
                 expected one `registry=HOST`",
            ),
            (
                "type=t,repository=a,b",
                "--registry: column 21: expected `key=value`, found `b`",
            ),
            (
                "type=t,",
                "--registry: column 8: expected `key=value`, found nothing",
            ),
            (
                "type=t,=x",
                "--registry: column 8: expected a key before `=`",
            ),
            (
                "type=t,repository=\"a,b\"",
                "--registry: column 19: a quote inside a field that is not quoted",
            ),
            (
                "type=t,\"repository=a\"b",
                "--registry: column 22: text behind a closing quote; expected `,` or the end",
            ),
            (
                "type=t,\"repository=a",
                "--registry: column 8: the quote that opens here is not closed",
            ),
            (
                "type=t\nx=y",
                "--registry: column 7: a line break outside quotes",
            ),
        ] {
            assert_eq!(refused(text), message, "{text}");
        }
    }

    #[test]
    fn booleans_and_numbers_say_what_they_expect() {
        let values = checked("type=t,registry=r,subdomain-mode=yes,port=70000").unwrap();
        assert_eq!(
            values.boolean("subdomain-mode").unwrap_err().to_string(),
            "column 19: key `subdomain-mode`: expected `true` or `false`, found `yes`"
        );
        assert_eq!(
            values.number("port", 1..=65_535).unwrap_err().to_string(),
            "column 38: key `port`: expected a whole number from 1 to 65535, found `70000`"
        );
    }

    #[test]
    fn the_nearest_name_is_a_slip_or_a_start() {
        let known = ["include", "exclude", "port", "api"];
        for (word, name) in [
            ("includ", Some("include")),
            ("exlcude", Some("exclude")),
            ("ports", Some("port")),
            ("inc", Some("include")),
            ("zzz", None),
            ("p", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known), name, "{word}");
        }
    }
}
