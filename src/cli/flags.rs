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

use std::process::ExitCode;

pub(crate) use crate::cli::given::{Environment, Given, any_combination, parse};
use crate::error::Result;

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

pub(crate) const CA_CERT: Flag = Flag {
    long: "ca-cert",
    value: Some("FILE"),
    is_repeated: true,
    env: &["CROWSNEST_CA_CERT"],
    summary: "File with PEM certificates of authorities to trust in addition",
    ..Flag::NEW
};

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

pub(crate) const INSECURE_HTTP: Flag = Flag {
    long: "insecure-http",
    value: Some("HOST"),
    is_repeated: true,
    env: &["CROWSNEST_INSECURE_HTTP"],
    summary: "Registry host to speak plain HTTP with",
    ..Flag::NEW
};

pub(crate) const HELP: Flag = Flag {
    long: "help",
    short: Some('h'),
    summary: "Show this help",
    ..Flag::NEW
};

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::error::Error;

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
