//! `crowsnest version`.

use std::process::ExitCode;

use crate::cli::flags::{Command, any_combination};
use crate::cli::print;

pub(crate) const COMMAND: Command = Command {
    name: "version",
    summary: "Print the version",
    usage: "version",
    about: &[],
    flags: &[],
    positional: None,
    examples: &[],
    exit_codes: &[(0, "printed")],
    is_hidden: false,
    check: any_combination,
    run: |_| {
        print(concat!("crowsnest ", env!("CARGO_PKG_VERSION"), "\n"))?;
        Ok(ExitCode::SUCCESS)
    },
};
