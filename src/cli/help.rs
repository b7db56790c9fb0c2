//! `crowsnest help` and `--help`: texts for a terminal of 80 columns, derived from the rows.

use std::fmt::Write;
use std::process::ExitCode;

use crate::cli::flags::{Command, Flag, HELP, Positional, any_combination};
use crate::cli::{command, print, registries, shown};
use crate::options::OptionRow;

/// Characters of a line.
const WIDTH: usize = 80;
/// Stands for a blank at which no line ends, until the line is written.
const GLUE: char = '\u{1f}';
/// Characters of the left column, at most; what is longer gets its summary on the next line.
const LEFT: usize = 30;

pub(crate) const COMMAND: Command = Command {
    name: "help",
    summary: "Show the help of a command",
    usage: "help [COMMAND]",
    about: &[],
    flags: &[],
    positional: Some(Positional {
        name: "COMMAND",
        summary: "the command to explain; by default all are listed",
        is_required: false,
    }),
    examples: &[],
    exit_codes: &[(0, "shown"), (1, "there is no such command")],
    is_hidden: false,
    check: any_combination,
    run: |given| {
        let text = match given.positional() {
            Some(name) => of(command(name)?, &registries()),
            None => overview(shown()),
        };
        print(&text)?;
        Ok(ExitCode::SUCCESS)
    },
};

/// The keys that one registry product takes in `--registry`.
pub(crate) struct Keys {
    /// `artifactory`, as in `type=artifactory`.
    pub(crate) name: &'static str,
    /// `JFrog Artifactory`
    pub(crate) summary: &'static str,
    pub(crate) rows: &'static [OptionRow],
}

/// The help of one command. `registries` are shown when it has the flag `--registry`.
pub(crate) fn of(command: &Command, registries: &[Keys]) -> String {
    let mut text = format!(
        "{}.\n\nUsage: crowsnest {}\n",
        command.summary, command.usage
    );
    for paragraph in command.about {
        text.push('\n');
        push_wrapped(&mut text, "", paragraph);
    }
    if let Some(positional) = &command.positional {
        let rows = vec![(positional.name.to_owned(), capitalized(positional.summary))];
        push_section(&mut text, "Arguments", &rows);
    }
    push_section(&mut text, "Options", &flag_rows(command));
    if command.flags.iter().any(|flag| flag.long == "registry") {
        for registry in registries {
            let title = format!("Keys of type={} ({})", registry.name, registry.summary);
            let rows: Vec<_> = registry.rows.iter().map(key_row).collect();
            push_section(&mut text, &title, &rows);
        }
    }
    let codes: Vec<_> = command
        .exit_codes
        .iter()
        .map(|(code, meaning)| (code.to_string(), capitalized(meaning)))
        .collect();
    push_section(&mut text, "Exit codes", &codes);
    if !command.examples.is_empty() {
        text.push_str("\nExamples:\n");
        for (what, line) in command.examples {
            push_wrapped(&mut text, "  ", &format!("{what}:"));
            for line in line.lines() {
                let _ = writeln!(text, "    {line}");
            }
        }
    }
    text
}

/// What `crowsnest` alone shows.
pub(crate) fn overview(commands: impl Iterator<Item = &'static Command>) -> String {
    let mut text = String::new();
    push_wrapped(&mut text, "", concat!(env!("CARGO_PKG_DESCRIPTION"), "."));
    text.push_str("\nUsage: crowsnest COMMAND [OPTIONS]\n");
    let rows: Vec<_> = commands
        .map(|command| (command.name.to_owned(), command.summary.to_owned()))
        .collect();
    push_section(&mut text, "Commands", &rows);
    text.push('\n');
    push_wrapped(&mut text, "", "crowsnest COMMAND --help tells more.");
    text
}

/// What follows the summary of a flag: `default: 60`. May be empty.
pub(crate) fn notes(flag: &Flag) -> Vec<String> {
    let mut notes = Vec::new();
    if flag.is_repeated {
        notes.push("repeatable".to_owned());
    }
    let choices = (flag.choices)();
    if !choices.is_empty() {
        notes.push(format!("one of: {}", choices.join(", ")));
    }
    if let Some(default) = flag.default {
        notes.push(format!("default: {default}"));
    }
    if !flag.env.is_empty() {
        notes.push(format!("env: {}", flag.env.join(", ")));
    }
    notes
}

/// The flags of a command that are shown, `--help` last.
pub(crate) fn shown_flags(command: &Command) -> impl Iterator<Item = &Flag> {
    command
        .flags
        .iter()
        .chain(std::iter::once(&HELP))
        .filter(|flag| !flag.is_hidden)
}

/// What follows the summary of a registry key: `required`. May be empty.
pub(crate) fn key_notes(row: &OptionRow) -> Vec<String> {
    let mut notes = Vec::new();
    if row.is_required {
        notes.push("required".to_owned());
    }
    if row.is_list {
        notes.push("list".to_owned());
    }
    if !row.aliases.is_empty() {
        notes.push(format!("also: {}", row.aliases.join(", ")));
    }
    notes
}

fn flag_rows(command: &Command) -> Vec<(String, String)> {
    shown_flags(command)
        .map(|flag| {
            let mut left = match flag.short {
                Some(letter) => format!("-{letter}, --{}", flag.long),
                None => format!("    --{}", flag.long),
            };
            if let Some(value) = flag.value {
                let _ = write!(left, " {value}");
            }
            (left, with_notes(flag.summary, &notes(flag)))
        })
        .collect()
}

fn key_row(row: &OptionRow) -> (String, String) {
    (
        format!("{}={}", row.key, row.value),
        with_notes(row.summary, &key_notes(row)),
    )
}

fn with_notes(summary: &str, notes: &[String]) -> String {
    let mut text = summary.to_owned();
    for note in notes {
        // A note stands in one piece when a line of the right column can hold it.
        let _ = match note.len() + 2 <= WIDTH - LEFT {
            true => write!(text, " [{}]", note.replace(' ', &GLUE.to_string())),
            false => write!(text, " [{note}]"),
        };
    }
    text
}

/// Two columns under a title; nothing when there are no rows.
fn push_section(text: &mut String, title: &str, rows: &[(String, String)]) {
    let Some(longest) = rows
        .iter()
        .map(|(left, _)| left.len() + 4)
        .filter(|width| *width <= LEFT)
        .max()
        .or(rows.first().map(|_| LEFT))
    else {
        return;
    };
    let _ = writeln!(text, "\n{title}:");
    let indent = " ".repeat(longest);
    for (left, right) in rows {
        let mut block = String::new();
        push_wrapped(&mut block, &indent, right);
        let left = format!("  {left}");
        if left.len() + 2 <= longest {
            block.replace_range(..left.len(), &left);
        } else {
            let _ = writeln!(text, "{left}");
        }
        text.push_str(&block);
    }
}

/// Appends `words` in lines of at most [`WIDTH`], each with `indent`; a longer word has a line of its own.
fn push_wrapped(text: &mut String, indent: &str, words: &str) {
    let mut line = String::new();
    for word in words.split(' ') {
        if !line.is_empty() && indent.len() + line.len() + 1 + word.len() > WIDTH {
            let _ = writeln!(text, "{indent}{line}");
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        for c in word.chars() {
            line.push(if c == GLUE { ' ' } else { c });
        }
    }
    let _ = writeln!(text, "{indent}{line}");
}

pub(crate) fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_uppercase().chain(chars).collect(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::COMMANDS;

    const ROWS: &[OptionRow] = &[
        OptionRow {
            key: "api",
            aliases: &[],
            value: "URL",
            summary: "Base of the REST API",
            is_required: true,
            is_list: false,
        },
        OptionRow {
            key: "include",
            aliases: &["includes"],
            value: "GLOB",
            summary: "Repositories to take",
            is_required: false,
            is_list: true,
        },
    ];

    const KEYS: &[Keys] = &[Keys {
        name: "artifactory",
        summary: "JFrog Artifactory",
        rows: ROWS,
    }];

    #[test]
    fn every_help_fits_and_names_every_flag() {
        for command in COMMANDS {
            let text = of(command, KEYS);
            for line in text.lines() {
                // Examples are not broken, since they are there to be copied.
                let is_example = line.starts_with("    crowsnest ");
                assert!(
                    line.len() <= WIDTH || is_example,
                    "{}: {line}",
                    command.name
                );
                assert_eq!(line.trim_end(), line, "{}", command.name);
            }
            for flag in command.flags {
                let is_shown = text.contains(&format!("--{} ", flag.long))
                    || text.contains(&format!("--{}\n", flag.long));
                assert_eq!(is_shown, !flag.is_hidden, "--{}", flag.long);
            }
        }
    }

    #[test]
    fn a_help_reads_like_this() {
        let text = of(&crate::cli::sbom::COMMAND, KEYS);
        let expected = "\
Show the packages of an image in the store.

Usage: crowsnest sbom [OPTIONS] REF

Shows what was found when the image was indexed; the registry is not asked. What
could not be read is shown as well.

REF is repository[:tag], with or without the registry's host and what else
stands before the last part of the name; the tag is latest when none is given.
Or it is a digest of an image or an index, or the first six hexadecimal digits
of one, or more.

Arguments:
  REF  An image in the store, such as r.example.com/app:1.0, or its digest

Options:
      --data-dir DIR       Directory of the store; by default /var/lib/crowsnest
                           as root, else $XDG_DATA_HOME/crowsnest or
                           ~/.local/share/crowsnest [env: CROWSNEST_DATA_DIR]
      --debug              Log what is done in detail [env: CROWSNEST_DEBUG]
      --format FORMAT      Form of the output [one of: list, json]
                           [default: list]
      --platform PLATFORM  The os/arch[/variant] to show of a multi-platform
                           image
  -h, --help               Show this help

Exit codes:
  0  Shown
  1  The image is not in the store or not indexed, or it could not run

Examples:
  List the packages of an image:
    crowsnest sbom --platform linux/arm64 registry.example.com/app:1.0
  Show the purls of an image:
    crowsnest sbom app:1.0 --format json | jq -r '.packages[].purl'
";
        assert_eq!(text, expected);
    }

    #[test]
    fn registry_keys_are_shown_where_the_flag_is() {
        let text = of(&crate::cli::watch::COMMAND, KEYS);
        let section = "
Keys of type=artifactory (JFrog Artifactory):
  api=URL       Base of the REST API [required]
  include=GLOB  Repositories to take [list] [also: includes]
";
        assert!(text.contains(section), "{text}");
        assert!(!of(&COMMAND, KEYS).contains("Keys of"));
    }

    #[test]
    fn the_overview_lists_what_is_not_hidden() {
        let text = overview(shown());
        assert!(text.contains("\n  watch    Watch registries"), "{text}");
        assert!(!text.contains("docker-cli-plugin-metadata"));
    }
}
