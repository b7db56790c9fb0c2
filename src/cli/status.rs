//! `crowsnest status`: how far the store is.

use crate::cli::flags::{Command, DATA_DIR, DEBUG, Flag, any_combination};
use crate::error::Error;

pub(crate) const COMMAND: Command = Command {
    name: "status",
    summary: "Show what the store holds and what waits",
    usage: "status [OPTIONS]",
    about: &[
        "Shows counts of registries, repositories, images, layers and waiting jobs, and the last errors.",
    ],
    flags: &[
        DATA_DIR,
        DEBUG,
        Flag {
            long: "format",
            value: Some("FORMAT"),
            default: Some("table"),
            summary: "Form of the output",
            choices: &["table", "json"],
            ..Flag::NEW
        },
    ],
    positional: None,
    examples: &[("Show it for a program", "crowsnest status --format json")],
    exit_codes: &[(0, "shown"), (1, "it could not run")],
    is_hidden: false,
    check: any_combination,
    run: |_| Err(Error::stop("not built yet")),
};
