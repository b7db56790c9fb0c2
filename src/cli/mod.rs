//! The commands: one file each with its row, named once in [`COMMANDS`].
//!
//! In: the process's arguments and environment. Out: text on stdout, errors on stderr, an exit code. A row
//! ([`flags::Command`]) is all that parsing, `--help`, the man page and the table tests know of a command;
//! to add one: a new file with a `pub(crate) const COMMAND`, and its name in the list.
//!
//! crowsnest is also a Docker CLI plugin: under the name `docker-crowsnest` in `~/.docker/cli-plugins` it
//! answers to `docker crowsnest ...`, see [`plugin`].
//!
//! *Invariant:* only [`print`] and [`print_with`] write to stdout, and only [`complain`] to stderr (the log
//! aside).

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::error::{Error, Result};
use crate::http::Settings;
use crate::options::nearest;
use crate::registry;

pub(crate) mod flags;
pub(crate) mod given;
mod help;
mod images;
mod man;
mod plugin;
mod retry;
mod sbom;
mod status;
mod store;
mod version;
mod watch;
mod webhook;

use flags::{Command, Environment, Given};

/// Every command in the order in which they are shown.
const COMMANDS: &[&Command] = &[
    &watch::COMMAND,
    &webhook::COMMAND,
    &images::COMMAND,
    &sbom::COMMAND,
    &status::COMMAND,
    &retry::COMMAND,
    &store::COMMAND,
    &help::COMMAND,
    &version::COMMAND,
    &man::COMMAND,
    &plugin::COMMAND,
];

/// Bytes that are gathered before they are written.
const BUFFER: usize = 64 << 10;

/// The registry products whose keys `watch --help` and the man page show.
fn registries() -> Vec<help::Keys> {
    let keys = |kind: &&registry::Kind| help::Keys {
        name: kind.name,
        summary: kind.summary,
        rows: kind.options,
    };
    registry::ALL.iter().map(keys).collect()
}

/// Runs what the command line asks for. Prints the error, if there is one, and its hint.
pub(crate) fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let program = args.next().unwrap_or_default();
    let args = plugin::without_docker_words(&program, args.collect());
    match dispatch(args, &variable) {
        Ok(code) => code,
        Err(err) => {
            complain(&format!("crowsnest: {err}\n"));
            if let Some(hint) = err.hint_text() {
                complain(&format!("hint: {hint}\n"));
            }
            ExitCode::FAILURE
        }
    }
}

/// A variable of the process. Bytes that are not UTF-8 become replacement characters, so that the error
/// about the value shows them.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

/// Writes to stdout. When the reader has gone (`crowsnest images | head`) the text is dropped without an
/// error. Errors (`Stop`) when it cannot be written for another reason, such as a full disk.
pub(crate) fn print(text: &str) -> Result<()> {
    print_with(|out| out.write_all(text.as_bytes()))
}

/// Lets `write` write to stdout piece by piece. When the reader has gone, `write` gets an error and should
/// end; that is no error. Errors as [`print`] does, and with the [`Error`] that `write` hands through.
pub(crate) fn print_with(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let mut out = io::BufWriter::with_capacity(BUFFER, io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(err) => {
            // What is left in the buffer must not be tried again when it is dropped.
            let _ = out.into_parts();
            if err.kind() == io::ErrorKind::BrokenPipe {
                return Ok(());
            }
            Err(match err.downcast::<Error>() {
                Ok(inner) => inner,
                Err(err) => Error::stop(err).context("writing to stdout"),
            })
        }
    }
}

/// Writes to stderr. There is nowhere to tell that this failed.
pub(crate) fn complain(text: &str) {
    let mut err = io::stderr().lock();
    let _ = err.write_all(text.as_bytes());
}

/// The directory of the store: `--data-dir`, else `/var/lib/crowsnest` as root, else the user's data
/// directory. It may not exist yet. Errors (`Tell`) when there is no home directory.
pub(crate) fn data_dir(given: &Given) -> Result<PathBuf> {
    // The owner of /proc/self is the effective user; without /proc nobody is root.
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
    data_dir_of(given.one(flags::DATA_DIR.long), is_root, &variable)
}

/// A variable of a registry product: ours, else the name that docker scout watch reads.
pub(crate) fn registry_variable(name: &str) -> Option<String> {
    let set = |prefix: &str| variable(&format!("{prefix}{name}")).filter(|value| !value.is_empty());
    set("CROWSNEST_").or_else(|| set("DOCKER_SCOUT_"))
}

/// What the command line says of connections.
pub(crate) fn connections(given: &Given) -> Settings {
    Settings {
        ca_certs: given
            .many(flags::CA_CERT.long)
            .into_iter()
            .map(PathBuf::from)
            .collect(),
        insecure_http: given
            .many(flags::INSECURE_HTTP.long)
            .into_iter()
            .map(str::to_owned)
            .collect(),
        ..Settings::default()
    }
}

/// The command of that name. Errors (`Tell`) with the nearest name when there is none.
pub(crate) fn command(name: &str) -> Result<&'static Command> {
    if let Some(command) = COMMANDS.iter().find(|command| command.name == name) {
        return Ok(command);
    }
    let err = match nearest(name, shown().map(|command| command.name)) {
        Some(near) => Error::tell(format_args!(
            "unknown command `{name}`; did you mean `{near}`?"
        )),
        None => Error::tell(format_args!("unknown command `{name}`")),
    };
    Err(err.hint("crowsnest help lists the commands"))
}

/// The commands that are not hidden.
fn shown() -> impl Iterator<Item = &'static Command> {
    COMMANDS
        .iter()
        .copied()
        .filter(|command| !command.is_hidden)
}

fn dispatch(args: Vec<OsString>, env: Environment<'_>) -> Result<ExitCode> {
    let mut args = args.into_iter();
    let first = args.next().unwrap_or_default();
    let name = match first.to_str() {
        Some("" | "-h" | "--help") => {
            print(&help::overview(shown()))?;
            return Ok(ExitCode::SUCCESS);
        }
        Some("-V" | "--version") => version::COMMAND.name,
        Some(flag) if flag.starts_with('-') => {
            let err = Error::tell(format_args!("expected a command, found the flag `{flag}`"));
            return Err(err.hint("flags stand behind the command: crowsnest watch --debug"));
        }
        Some(name) => name,
        None => return command(&first.to_string_lossy()).map(|_| ExitCode::FAILURE),
    };
    let command = command(name)?;
    let given = flags::parse(command, args, env)
        .map_err(|err| err.hint(format!("see crowsnest {} --help", command.name)))?;
    if given.is_set(flags::HELP.long) {
        print(&help::of(command, &registries()))?;
        return Ok(ExitCode::SUCCESS);
    }
    (command.run)(given)
}

fn data_dir_of(flag: Option<&str>, is_root: bool, env: Environment<'_>) -> Result<PathBuf> {
    if let Some(dir) = flag {
        return Ok(PathBuf::from(dir));
    }
    if is_root {
        return Ok(PathBuf::from("/var/lib/crowsnest"));
    }
    // The XDG base directory specification tells to ignore relative paths.
    let absolute = |name| env(name).map(PathBuf::from).filter(|dir| dir.is_absolute());
    absolute("XDG_DATA_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
        .map(|dir| dir.join("crowsnest"))
        .ok_or_else(|| {
            Error::tell("no directory for the store: neither XDG_DATA_HOME nor HOME is set")
                .hint("name one with --data-dir")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_well_formed() {
        for (at, command) in COMMANDS.iter().enumerate() {
            let name = command.name;
            let is_word = |text: &str| {
                !text.is_empty()
                    && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')
                    && !text.starts_with('-')
            };
            let is_sentence = |text: &str| {
                text.is_ascii()
                    && text.starts_with(|c: char| c.is_uppercase())
                    && !text.ends_with('.')
            };
            assert!(is_word(name), "{name}");
            assert!(
                COMMANDS[at + 1..].iter().all(|other| other.name != name),
                "{name} stands twice"
            );
            assert!(is_sentence(command.summary), "{name}: {}", command.summary);
            assert!(command.usage.starts_with(name), "{name}: {}", command.usage);
            assert!(command.about.iter().all(|text| text.is_ascii()), "{name}");
            assert!(!command.exit_codes.is_empty(), "{name}: no exit codes");
            assert!(
                command.exit_codes.is_sorted_by_key(|(code, _)| *code),
                "{name}"
            );
            for (_, line) in command.examples {
                assert!(line.contains("crowsnest"), "{name}: {line}");
            }
            if let Some(positional) = &command.positional {
                assert!(command.usage.contains(positional.name), "{name}");
                assert!(!positional.summary.ends_with('.'), "{name}");
            }
            for (at, flag) in command.flags.iter().enumerate() {
                let place = format!("{name} --{}", flag.long);
                let others = || command.flags[at + 1..].iter().chain([&flags::HELP]);
                assert!(is_word(flag.long), "{place}");
                assert!(
                    others().all(|other| other.long != flag.long),
                    "{place} stands twice"
                );
                assert!(
                    flag.short.is_none() || others().all(|other| other.short != flag.short),
                    "{place}: its letter stands twice"
                );
                assert!(is_sentence(flag.summary), "{place}: {}", flag.summary);
                let choices = (flag.choices)();
                assert!(choices.is_empty() || flag.value.is_some(), "{place}");
                assert!(!flag.is_repeated || flag.value.is_some(), "{place}");
                assert!(!flag.is_whole || flag.is_repeated, "{place}");
                assert!(!flag.is_repeated || flag.default.is_none(), "{place}");
                if let Some(default) = flag.default {
                    let choices = match flag.value {
                        None => vec!["true", "false"],
                        Some(_) => choices,
                    };
                    assert!(choices.is_empty() || choices.contains(&default), "{place}");
                }
                if let Some(own) = flag.env.first() {
                    let name = flag.long.to_ascii_uppercase().replace('-', "_");
                    assert_eq!(*own, format!("CROWSNEST_{name}"), "{place}");
                }
            }
        }
    }

    #[test]
    fn every_example_is_a_command_line_that_parses() {
        for command in COMMANDS {
            for (_, line) in command.examples {
                let line = line.split(" | ").next().unwrap();
                let mut words: Vec<String> = vec![String::new()];
                let mut is_quoted = false;
                for c in line.chars() {
                    match c {
                        '\'' => is_quoted = !is_quoted,
                        ' ' if !is_quoted => words.push(String::new()),
                        c => words.last_mut().unwrap().push(c),
                    }
                }
                assert_eq!(words[..2], ["crowsnest", command.name]);
                let args = words.iter().skip(2).map(OsString::from);
                let given = flags::parse(command, args, &|_| None).unwrap();
                if command.name == watch::COMMAND.name {
                    given.each("registry", crate::options::parse).unwrap();
                }
            }
        }
    }

    #[test]
    fn unknown_commands_get_the_nearest_name() {
        for (line, message, hint) in [
            (
                &["wacth"][..],
                "unknown command `wacth`; did you mean `watch`?",
                "crowsnest help lists the commands",
            ),
            (
                &["frobnicate"],
                "unknown command `frobnicate`",
                "crowsnest help lists the commands",
            ),
            (
                &["--debug", "watch"],
                "expected a command, found the flag `--debug`",
                "flags stand behind the command: crowsnest watch --debug",
            ),
            (
                &["watch", "--worker", "x"],
                "unknown flag `--worker`; did you mean `--workers`?",
                "see crowsnest watch --help",
            ),
        ] {
            let args = line.iter().map(OsString::from).collect();
            let err = dispatch(args, &|_| None).err().unwrap();
            assert_eq!(err.to_string(), message);
            assert_eq!(err.hint_text(), Some(hint));
        }
    }

    #[test]
    fn the_store_lies_where_the_user_is_at_home() {
        let none = |_: &str| None;
        let home = |name: &str| (name == "HOME").then(|| "/home/ann".to_owned());
        let both = |name: &str| match name {
            "XDG_DATA_HOME" => Some("/data/ann".to_owned()),
            name => home(name),
        };
        let relative = |name: &str| match name {
            "XDG_DATA_HOME" => Some("data".to_owned()),
            name => home(name),
        };
        let cases: &[(Option<&str>, bool, Environment<'_>, &str)] = &[
            (Some("here"), true, &none, "here"),
            (None, true, &home, "/var/lib/crowsnest"),
            (None, false, &home, "/home/ann/.local/share/crowsnest"),
            (None, false, &both, "/data/ann/crowsnest"),
            (None, false, &relative, "/home/ann/.local/share/crowsnest"),
        ];
        for (flag, is_root, env, dir) in cases {
            let found = data_dir_of(*flag, *is_root, env).unwrap();
            assert_eq!(found, PathBuf::from(dir));
        }
        let err = data_dir_of(None, false, &none).unwrap_err();
        assert_eq!(
            err.to_string(),
            "no directory for the store: neither XDG_DATA_HOME nor HOME is set"
        );
    }
}
