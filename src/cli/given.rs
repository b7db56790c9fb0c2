//! A command line parsed by the table of its command: what was given, by whom, and what it means.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::ops::RangeInclusive;

use lexopt::Arg;

use crate::cli::flags::{Command, Flag, HELP};
use crate::error::{Context, Error, Result};
use crate::options::{self, listed, nearest};

/// Reads a variable; absent when it is not set. The process's own in `main`, a table in tests.
pub(crate) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What the user gave to a command. Flags are asked by their long name without dashes.
pub(crate) struct Given {
    flags: &'static [Flag],
    values: BTreeMap<&'static str, Vec<Value>>,
    positional: Option<String>,
}

struct Value {
    text: String,
    source: Source,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Line,
    Variable(&'static str),
    Default,
}

/// Parses `args`, which do not hold the command's name. `--help` ends the parsing: it is then the only
/// thing asked for, and nothing else is checked. Errors (`Tell`) on an unknown or incomplete flag, a value
/// out of its choices, a surplus or missing argument, and what the command's own check refuses.
pub(crate) fn parse(
    command: &'static Command,
    args: impl IntoIterator<Item = OsString>,
    env: Environment<'_>,
) -> Result<Given> {
    let mut given = Given {
        flags: command.flags,
        values: BTreeMap::new(),
        positional: None,
    };
    let mut parser = lexopt::Parser::from_args(args);
    // The flag before, when it was a boolean without a value: for the error about `--flag true`.
    let mut bare = None;
    while let Some(arg) = parser.next().map_err(unexpected)? {
        let (flag, is_long) = match arg {
            Arg::Long(name) => (known(command, name)?, true),
            Arg::Short(letter) => (known_short(command, letter)?, false),
            Arg::Value(text) => {
                let text = utf8(text, "argument")?;
                if text.is_empty() {
                    return Err(Error::tell("argument is empty"));
                }
                take_positional(command, &mut given, text, bare)?;
                continue;
            }
        };
        bare = None;
        let label = Label(flag, Source::Line);
        let text = if flag.value.is_some() {
            value_of(&mut parser, flag)?
        } else if let Some(text) = is_long.then(|| parser.optional_value()).flatten() {
            utf8(text, &label)?
        } else {
            bare = Some(flag);
            "true".to_owned()
        };
        take(&mut given, flag, text, Source::Line)?;
        if given.is_set(HELP.long) {
            return Ok(given);
        }
    }
    take_variables(command, &mut given, env)?;
    take_defaults(command, &mut given);
    if let Some(positional) = &command.positional
        && positional.is_required
        && given.positional.is_none()
    {
        return Err(Error::tell(format_args!(
            "argument `{}` is missing: {}",
            positional.name, positional.summary
        )));
    }
    (command.check)(&given)?;
    Ok(given)
}

/// The check of a command whose flags all go together.
pub(crate) fn any_combination(_: &Given) -> Result<()> {
    Ok(())
}

/// Reads a number of bytes: digits and a suffix K, M, G or T, also as KB or KiB, in either case. All are
/// powers of 1,024, as in `docker run --memory`. Errors (`Tell`) on anything else and on an overflow.
pub(crate) fn size(text: &str) -> Result<u64> {
    let wrong = || {
        Error::tell(format_args!(
            "expected bytes, with a suffix such as 512M or 32GiB if wanted, found `{text}`"
        ))
    };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, suffix) = text.split_at(digits);
    let shift = match suffix.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).ok_or_else(wrong)
}

impl Given {
    /// Whether a boolean flag is true, by the command line, a variable or its default.
    pub(crate) fn is_set(&self, flag: &str) -> bool {
        self.one(flag) == Some("true")
    }

    /// Whether the user said something about the flag, on the command line or by a variable.
    pub(crate) fn is_given(&self, flag: &str) -> bool {
        self.of(flag)
            .iter()
            .any(|value| value.source != Source::Default)
    }

    /// The value of a flag, or its default; the last one when it was given several times.
    pub(crate) fn one(&self, flag: &str) -> Option<&str> {
        self.of(flag).last().map(|value| value.text.as_str())
    }

    /// The values of a repeated flag in the order given. May be empty.
    pub(crate) fn many(&self, flag: &str) -> Vec<&str> {
        self.of(flag)
            .iter()
            .map(|value| value.text.as_str())
            .collect()
    }

    /// The values of a repeated flag, each turned into a type by `read`; an error names the flag.
    pub(crate) fn each<T>(&self, flag: &str, read: impl Fn(&str) -> Result<T>) -> Result<Vec<T>> {
        self.of(flag)
            .iter()
            .map(|value| read(&value.text).context(|| self.label(flag, value)))
            .collect()
    }

    /// The value of a flag that has a default and is a whole number. Errors (`Tell`) when it is not, or is
    /// out of `range`.
    pub(crate) fn number(&self, flag: &str, range: RangeInclusive<u64>) -> Result<u64> {
        self.read(flag, |text| match text.parse() {
            Ok(number) if range.contains(&number) => Ok(number),
            _ => Err(Error::tell(format_args!(
                "expected a whole number from {} to {}, found `{text}`",
                range.start(),
                range.end()
            ))),
        })
    }

    /// The value of a flag that has a default and is a number of bytes, see [`size`].
    pub(crate) fn size(&self, flag: &str) -> Result<u64> {
        self.read(flag, size)
    }

    /// The argument that is not a flag.
    pub(crate) fn positional(&self) -> Option<&str> {
        self.positional.as_deref()
    }

    fn read<T>(&self, flag: &str, read: impl Fn(&str) -> Result<T>) -> Result<T> {
        match self.of(flag).last() {
            Some(value) => read(&value.text).context(|| self.label(flag, value)),
            None => Err(Error::tell(format_args!("--{flag}: value is missing"))),
        }
    }

    fn label(&self, flag: &str, value: &Value) -> String {
        match find(self.flags, flag) {
            Some(row) => Label(row, value.source).to_string(),
            None => format!("--{flag}"),
        }
    }

    fn of(&self, flag: &str) -> &[Value] {
        debug_assert!(
            find(self.flags, flag).is_some(),
            "`{flag}` is not in the table"
        );
        self.values.get(flag).map_or(&[], Vec::as_slice)
    }
}

/// The flag as the user knows it, for the start of an error.
struct Label(&'static Flag, Source);

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            Source::Variable(name) => f.write_str(name),
            Source::Line | Source::Default => write!(f, "--{}", self.0.long),
        }
    }
}

fn find(flags: &'static [Flag], long: &str) -> Option<&'static Flag> {
    flags
        .iter()
        .chain(std::iter::once(&HELP))
        .find(|flag| flag.long == long)
}

fn known(command: &Command, long: &str) -> Result<&'static Flag> {
    find(command.flags, long).ok_or_else(|| {
        let shown = command.flags.iter().chain(std::iter::once(&HELP));
        let names = shown.filter(|flag| !flag.is_hidden).map(|flag| flag.long);
        match nearest(long, names) {
            Some(name) => Error::tell(format_args!(
                "unknown flag `--{long}`; did you mean `--{name}`?"
            )),
            None => Error::tell(format_args!("unknown flag `--{long}`")),
        }
    })
}

fn known_short(command: &Command, letter: char) -> Result<&'static Flag> {
    command
        .flags
        .iter()
        .chain(std::iter::once(&HELP))
        .find(|flag| flag.short == Some(letter))
        .ok_or_else(|| Error::tell(format_args!("unknown flag `-{letter}`")))
}

fn unexpected(err: lexopt::Error) -> Error {
    match err {
        lexopt::Error::UnexpectedValue { option, .. } => {
            Error::tell(format_args!("{option} takes no value behind `=`"))
        }
        err => Error::tell(err),
    }
}

fn utf8(text: OsString, what: impl fmt::Display) -> Result<String> {
    text.into_string().map_err(|text| {
        Error::tell(format_args!(
            "{what}: `{}` is not UTF-8",
            text.to_string_lossy()
        ))
    })
}

/// The value behind `=`, or the next argument unless that is a flag: `--workers --debug` is a slip, and
/// a value that does start with two dashes can stand behind `=`.
fn value_of(parser: &mut lexopt::Parser, flag: &'static Flag) -> Result<String> {
    let label = Label(flag, Source::Line);
    if let Some(text) = parser.optional_value() {
        return utf8(text, label);
    }
    let placeholder = flag.value.unwrap_or("VALUE");
    let missing = |found: &str| {
        Error::tell(format_args!(
            "{label}: expected {placeholder}, found {found}"
        ))
    };
    let Some(mut rest) = parser.try_raw_args() else {
        return Err(missing("nothing"));
    };
    match rest.peek().map(|next| next.to_string_lossy().into_owned()) {
        None => Err(missing("nothing")),
        Some(next) if next.starts_with("--") => Err(missing(&format!("the flag `{next}`"))),
        Some(_) => utf8(rest.next().unwrap_or_default(), label),
    }
}

fn take_positional(
    command: &Command,
    given: &mut Given,
    text: String,
    bare: Option<&Flag>,
) -> Result<()> {
    if command.positional.is_some() && given.positional.is_none() {
        given.positional = Some(text);
        return Ok(());
    }
    let err = Error::tell(format_args!("unexpected argument `{text}`"));
    Err(match bare {
        Some(flag) if boolean(&text).is_some() => err.hint(format!("write --{}={text}", flag.long)),
        _ => err,
    })
}

/// Checks one value text and adds what it says.
fn take(given: &mut Given, flag: &'static Flag, text: String, source: Source) -> Result<()> {
    let items = items(flag, text).context(|| Label(flag, source))?;
    let taken = given.values.entry(flag.long).or_default();
    if !flag.is_repeated {
        taken.clear();
    }
    taken.extend(items.into_iter().map(|text| Value { text, source }));
    Ok(())
}

fn items(flag: &Flag, text: String) -> Result<Vec<String>> {
    let Some(placeholder) = flag.value else {
        return match boolean(&text) {
            Some(value) => Ok(vec![value.to_string()]),
            None => Err(Error::tell(format_args!(
                "expected `true` or `false`, found `{text}`"
            ))),
        };
    };
    let items = match flag.is_repeated && !flag.is_whole {
        true => options::fields(&text)?
            .into_iter()
            .map(|field| field.text)
            .collect(),
        false => vec![text],
    };
    let choices = (flag.choices)();
    for item in &items {
        if item.is_empty() {
            return Err(Error::tell(format_args!(
                "expected {placeholder}, found an empty value"
            )));
        }
        if !choices.is_empty() && !choices.contains(&item.as_str()) {
            let choices = listed(choices);
            return Err(Error::tell(format_args!(
                "expected {choices}, found `{item}`"
            )));
        }
    }
    Ok(items)
}

/// The words of Go's `strconv.ParseBool`, which the Docker CLI takes.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn take_variables(command: &Command, given: &mut Given, env: Environment<'_>) -> Result<()> {
    for flag in command.flags {
        if given.values.contains_key(flag.long) {
            continue;
        }
        let found = flag
            .env
            .iter()
            .find_map(|name| Some((*name, env(name).filter(|text| !text.is_empty())?)));
        if let Some((name, text)) = found {
            take(given, flag, text, Source::Variable(name))?;
        }
    }
    Ok(())
}

fn take_defaults(command: &Command, given: &mut Given) {
    for flag in command.flags {
        if let Some(default) = flag.default {
            given.values.entry(flag.long).or_insert_with(|| {
                vec![Value {
                    text: default.to_owned(),
                    source: Source::Default,
                }]
            });
        }
    }
}
