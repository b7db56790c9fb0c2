//! `crowsnest status`: how far the store is.

use std::process::ExitCode;

use crate::cli::flags::{Command, DATA_DIR, DEBUG, Flag, Given, any_combination};
use crate::cli::{data_dir, print_with};
use crate::error::Result;
use crate::format;
use crate::report::status::status;
use crate::store::Store;

pub(crate) const COMMAND: Command = Command {
    name: "status",
    summary: "Show what the store holds and what waits",
    usage: "status [OPTIONS]",
    about: &[
        "Shows what the store holds, when each registry was listed last, how many images and webhooks wait, \
         and which images could not be indexed: why, and when that is tried again.",
    ],
    flags: &[
        DATA_DIR,
        DEBUG,
        Flag {
            long: "format",
            value: Some("FORMAT"),
            default: Some("table"),
            summary: "Form of the output",
            choices: || format::names(|format| format.status),
            ..Flag::NEW
        },
    ],
    positional: None,
    examples: &[("Show it for a program", "crowsnest status --format json")],
    exit_codes: &[(0, "shown"), (1, "it could not run")],
    is_hidden: false,
    check: any_combination,
    run,
};

fn run(given: Given) -> Result<ExitCode> {
    let write = format::named(given.one("format").unwrap_or_default(), |format| {
        format.status
    })?;
    let store = Store::open_existing(&data_dir(&given)?)?;
    let answer = status(&store)?;
    print_with(|out| write(&answer, out))?;
    Ok(ExitCode::SUCCESS)
}
