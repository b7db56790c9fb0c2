//! The command line: one table per command, and one parser for all of them.
//!
//! In: a [`Command`] row, the arguments behind its name, and the environment. Out: what was [`Given`].
//! Parsing, `--help`, the man page and the table tests are derived from the rows; a flag is added in the
//! row of its command and nowhere else.
//!
//! The manners are those of the Docker CLI (Go's pflag), which users bring along: `--flag=false`, comma
//! lists for repeated flags, the last of two values counts. A variable counts when the flag is not on the
//! command line and the variable is not empty.
//!
//! *Invariant:* nothing is executed or opened here, and every error names the flag, the value it found and
//! what was expected.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::ops::RangeInclusive;
use std::process::ExitCode;

use lexopt::Arg;

use crate::error::{Context, Error, Result};
use crate::options::{self, listed, nearest};

/// One command: its row.
pub(crate) struct Command {
    pub(crate) name: &'static str,
    /// One sentence without a period.
    pub(crate) summary: &'static str,
    /// The line behind `crowsnest`: `sbom [OPTIONS] REF`.
    pub(crate) usage: &'static str,
    /// Paragraphs.
    pub(crate) about: &'static [&'static str],
    /// In the order in which they are shown; `--help` is added to all.
    pub(crate) flags: &'static [Flag],
    pub(crate) positional: Option<Positional>,
    /// What it does, and the line that does it.
    pub(crate) examples: &'static [(&'static str, &'static str)],
    pub(crate) exit_codes: &'static [(u8, &'static str)],
    /// Left out of the lists of commands.
    pub(crate) is_hidden: bool,
    /// Which flags go together; called at the end of [`parse`].
    pub(crate) check: fn(&Given) -> Result<()>,
    pub(crate) run: fn(Given) -> Result<ExitCode>,
}

/// One flag of a command: its row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flag {
    /// Without dashes.
    pub(crate) long: &'static str,
    pub(crate) short: Option<char>,
    /// The placeholder of the value: `DIR`. `None` for a flag that is true or false.
    pub(crate) value: Option<&'static str>,
    /// Whether it may stand several times and takes comma lists.
    pub(crate) is_repeated: bool,
    /// With `is_repeated`: the value is taken as it stands, not split at commas.
    pub(crate) is_whole: bool,
    pub(crate) default: Option<&'static str>,
    /// Variables in the order in which they are looked at, our own `CROWSNEST_...` first.
    pub(crate) env: &'static [&'static str],
    /// One sentence without a period.
    pub(crate) summary: &'static str,
    /// The only values taken, from the rows or constants that know them; empty when any is.
    pub(crate) choices: fn() -> Vec<&'static str>,
    pub(crate) is_hidden: bool,
}

impl Flag {
    /// A boolean flag without a name: the base of every row.
    pub(crate) const NEW: Flag = Flag {
        long: "",
        short: None,
        value: None,
        is_repeated: false,
        is_whole: false,
        default: None,
        env: &[],
        summary: "",
        choices: Vec::new,
        is_hidden: false,
    };
}

/// The argument of a command that is not a flag.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Positional {
    /// `REF`
    pub(crate) name: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) is_required: bool,
}

pub(crate) const DATA_DIR: Flag = Flag {
    long: "data-dir",
    value: Some("DIR"),
    env: &["CROWSNEST_DATA_DIR"],
    summary: "Directory of the store; by default /var/lib/crowsnest as root, else \
              $XDG_DATA_HOME/crowsnest or ~/.local/share/crowsnest",
    ..Flag::NEW
};

pub(crate) const DEBUG: Flag = Flag {
    long: "debug",
    env: &["CROWSNEST_DEBUG"],
    summary: "Log what is done in detail",
    ..Flag::NEW
};

pub(crate) const HELP: Flag = Flag {
    long: "help",
    short: Some('h'),
    summary: "Show this help",
    ..Flag::NEW
};

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

#[cfg(test)]
mod tests {
    use super::*;

    const COMMAND: Command = Command {
        name: "look",
        summary: "Look",
        usage: "look [OPTIONS] REF",
        about: &[],
        flags: &[
            Flag {
                long: "all-images",
                env: &["CROWSNEST_ALL_IMAGES"],
                ..Flag::NEW
            },
            Flag {
                long: "sbom",
                default: Some("true"),
                ..Flag::NEW
            },
            Flag {
                long: "quiet",
                short: Some('q'),
                ..Flag::NEW
            },
            Flag {
                long: "workers",
                short: Some('w'),
                value: Some("N"),
                default: Some("3"),
                env: &["CROWSNEST_WORKERS", "OTHER_WORKERS"],
                ..Flag::NEW
            },
            Flag {
                long: "repository",
                value: Some("REF"),
                is_repeated: true,
                env: &["CROWSNEST_REPOSITORY"],
                ..Flag::NEW
            },
            Flag {
                long: "registry",
                value: Some("REGISTRY"),
                is_repeated: true,
                is_whole: true,
                ..Flag::NEW
            },
            Flag {
                long: "format",
                value: Some("FORMAT"),
                default: Some("text"),
                choices: || vec!["text", "json"],
                ..Flag::NEW
            },
            Flag {
                long: "max",
                value: Some("SIZE"),
                default: Some("1K"),
                ..Flag::NEW
            },
        ],
        positional: Some(Positional {
            name: "REF",
            summary: "an image",
            is_required: false,
        }),
        examples: &[],
        exit_codes: &[],
        is_hidden: false,
        check: any_combination,
        run: |_| Ok(ExitCode::SUCCESS),
    };

    const STRICT: Command = Command {
        positional: Some(Positional {
            name: "REF",
            summary: "an image",
            is_required: true,
        }),
        check: |given| match given.is_set("quiet") {
            true => Err(Error::tell("--quiet: not here")),
            false => Ok(()),
        },
        ..COMMAND
    };

    fn with(
        command: &'static Command,
        line: &[&str],
        variables: &'static [(&str, &str)],
    ) -> Result<Given> {
        parse(command, line.iter().map(OsString::from), &|name| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    fn given(line: &[&str]) -> Given {
        with(&COMMAND, line, &[]).unwrap()
    }

    fn refused(line: &[&str]) -> String {
        with(&COMMAND, line, &[]).err().unwrap().to_string()
    }

    #[test]
    fn booleans_come_alone_or_with_a_go_value() {
        for (line, all_images, sbom) in [
            (&[][..], false, true),
            (&["--all-images"], true, true),
            (&["--all-images=true"], true, true),
            (&["--all-images=F", "--sbom=0"], false, false),
            (&["--all-images", "--all-images=false"], false, true),
        ] {
            let given = given(line);
            assert_eq!(given.is_set("all-images"), all_images, "{line:?}");
            assert_eq!(given.is_set("sbom"), sbom, "{line:?}");
        }
    }

    #[test]
    fn values_stand_behind_a_blank_or_an_equals_sign() {
        for line in [
            &["--workers", "5"][..],
            &["--workers=5"],
            &["-w5"],
            &["-w", "5"],
            &["-qw5"],
            &["--workers", "9", "--workers", "5"],
        ] {
            let given = given(line);
            assert_eq!(given.number("workers", 1..=64).unwrap(), 5, "{line:?}");
            assert!(given.is_given("workers"));
        }
        assert!(!given(&[]).is_given("workers"));
        assert_eq!(given(&["--repository=--x"]).many("repository"), ["--x"]);
    }

    #[test]
    fn repeated_flags_split_at_commas_except_whole_ones() {
        let given = given(&[
            "--repository",
            "a,b",
            "--repository=\"c,d\"",
            "--registry",
            "type=oci,registry=x",
            "--registry",
            "y",
        ]);
        assert_eq!(given.many("repository"), ["a", "b", "c,d"]);
        assert_eq!(given.many("registry"), ["type=oci,registry=x", "y"]);
    }

    #[test]
    fn the_line_beats_variables_which_beat_the_default() {
        const VARIABLES: &[(&str, &str)] = &[
            ("CROWSNEST_WORKERS", ""),
            ("OTHER_WORKERS", "7"),
            ("CROWSNEST_REPOSITORY", "a,b"),
        ];
        let given = with(&COMMAND, &["--repository", "c"], VARIABLES).unwrap();
        assert_eq!(given.one("workers"), Some("7"));
        assert_eq!(given.many("repository"), ["c"]);
        assert_eq!(given.one("format"), Some("text"));
        let given = with(&COMMAND, &["-w", "2"], VARIABLES).unwrap();
        assert_eq!(given.one("workers"), Some("2"));
        assert_eq!(given.many("repository"), ["a", "b"]);
    }

    #[test]
    fn mistakes_name_flag_value_and_expectation() {
        for (line, message) in [
            (
                &["--all-image"][..],
                "unknown flag `--all-image`; did you mean `--all-images`?",
            ),
            (&["--zzz"], "unknown flag `--zzz`"),
            (&["-x"], "unknown flag `-x`"),
            (&["-q=true"], "-q takes no value behind `=`"),
            (&["--workers"], "--workers: expected N, found nothing"),
            (
                &["--workers", "--quiet"],
                "--workers: expected N, found the flag `--quiet`",
            ),
            (
                &["--workers="],
                "--workers: expected N, found an empty value",
            ),
            (
                &["--all-images=yes"],
                "--all-images: expected `true` or `false`, found `yes`",
            ),
            (
                &["--format", "xml"],
                "--format: expected `text` or `json`, found `xml`",
            ),
            (
                &["--repository", "a,\"b"],
                "--repository: column 3: the quote that opens here is not closed",
            ),
            (
                &["--repository", "a,,b"],
                "--repository: expected REF, found an empty value",
            ),
            (&["a", "b"], "unexpected argument `b`"),
            (&[""], "argument is empty"),
        ] {
            assert_eq!(refused(line), message, "{line:?}");
        }
        let err = with(&COMMAND, &["ref", "--quiet", "true"], &[]).err();
        assert_eq!(err.unwrap().hint_text(), Some("write --quiet=true"));
    }

    #[test]
    fn a_wrong_variable_is_named() {
        const VARIABLES: &[(&str, &str)] =
            &[("CROWSNEST_ALL_IMAGES", "maybe"), ("OTHER_WORKERS", "x")];
        let err = with(&COMMAND, &[], VARIABLES).err().unwrap();
        assert_eq!(
            err.to_string(),
            "CROWSNEST_ALL_IMAGES: expected `true` or `false`, found `maybe`"
        );
        let given = with(&COMMAND, &["--all-images"], VARIABLES).unwrap();
        assert_eq!(
            given.number("workers", 1..=64).unwrap_err().to_string(),
            "OTHER_WORKERS: expected a whole number from 1 to 64, found `x`"
        );
    }

    #[test]
    fn numbers_and_sizes_have_a_range() {
        for text in ["0", "65", "-1", "1.5", "99999999999999999999"] {
            assert_eq!(
                given(&[&format!("--workers={text}")])
                    .number("workers", 1..=64)
                    .unwrap_err()
                    .to_string(),
                format!("--workers: expected a whole number from 1 to 64, found `{text}`")
            );
        }
        for (text, bytes) in [
            ("0", 0),
            ("100", 100),
            ("1K", 1 << 10),
            ("512m", 512 << 20),
            ("32GiB", 32 << 30),
            ("1tb", 1 << 40),
        ] {
            assert_eq!(
                given(&["--max", text]).size("max").unwrap(),
                bytes,
                "{text}"
            );
        }
        for text in ["K", "1X", "1.5G", "-1", "99999999T", "1 G"] {
            assert_eq!(
                given(&[&format!("--max={text}")])
                    .size("max")
                    .unwrap_err()
                    .to_string(),
                format!(
                    "--max: expected bytes, with a suffix such as 512M or 32GiB if wanted, \
                     found `{text}`"
                )
            );
        }
    }

    #[test]
    fn each_value_is_read_and_an_error_names_the_flag() {
        let given = given(&["--repository", "1,x"]);
        let read = |text: &str| {
            text.parse::<u8>()
                .map_err(|_| Error::tell(format_args!("`{text}` is no number")))
        };
        assert_eq!(
            given.each("repository", read).unwrap_err().to_string(),
            "--repository: `x` is no number"
        );
    }

    #[test]
    fn help_needs_nothing_else() {
        for line in [&["--help"][..], &["-h"], &["--quiet", "-h", "--zzz"]] {
            assert!(with(&STRICT, line, &[]).unwrap().is_set("help"), "{line:?}");
        }
        assert!(!given(&["--help=false"]).is_set("help"));
    }

    #[test]
    fn the_argument_and_the_commands_own_check_are_asked_for() {
        let err = with(&STRICT, &[], &[]).err().unwrap();
        assert_eq!(err.to_string(), "argument `REF` is missing: an image");
        let err = with(&STRICT, &["--quiet", "ref"], &[]).err().unwrap();
        assert_eq!(err.to_string(), "--quiet: not here");
        let given = with(&STRICT, &["--", "--ref"], &[]).unwrap();
        assert_eq!(given.positional(), Some("--ref"));
    }
}
