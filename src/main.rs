#![cfg_attr(test, allow(clippy::unwrap_used))]

mod cli;
mod distribution;
mod ecosystem;
mod error;
mod image;
mod limit;
mod options;
mod printable;
mod sbom;
mod secret;
mod time;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
