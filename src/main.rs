#![cfg_attr(test, allow(clippy::unwrap_used))]

mod cli;
mod distribution;
mod ecosystem;
mod error;
mod format;
mod http;
mod image;
mod indexer;
mod layer;
mod limit;
mod log;
mod options;
mod printable;
mod registry;
mod report;
mod sbom;
mod secret;
mod stop;
mod store;
mod time;
mod watch;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
