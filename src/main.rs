//! crowsnest watches container registries and records what is inside every image.
//!
//! The map: all modules in reading order. A module uses only what stands above it, and of that only what
//! `tests/it/tidy.rs` lists.
//!
//! - `printable`: text from outside, made safe to show
//! - `error`: the one error type: what the caller should do, what went wrong, what we were doing
//! - `secret`: a password or token that cannot be printed by accident
//! - `stop`: the request to stop, shared by all threads
//! - `time`: moments in UTC, and durations as people write them
//! - `log`: lines on stderr, a constant message with `key=value` data
//! - `limit`: the bounds on everything that comes from outside, and the readers that hold them
//! - `options`: the `key=value` grammar of `--registry`
//! - `image`: the nouns of the OCI image specification, data only
//! - `sbom`: what is inside an image: packages, distribution, evidence, coverage
//! - `layer`: a blob's bytes become the files of a layer, streaming
//! - `http`: outbound HTTP with time-outs, certificates and proxies
//! - `distribution`: a client of the OCI distribution API, and Docker's credentials
//! - `ecosystem`: one file per kind of package: which files tell of them, and what they say
//! - `indexer`: one layer to facts; the facts of an image's layers to its packages
//! - `registry`: one file per product that holds images: lists them, hands out their bytes
//! - `store`: the embedded store, and the only SQL
//! - `format`: one file per output: table, list, JSON, CSV
//! - `report`: answers out of the store, for whoever shows them
//! - `watch`: the pipeline and all its threads: tags become jobs, jobs become images in the store
//! - `server`: HTTP in: webhooks, and whether all is well
//! - `cli`: one file per command

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
mod server;
mod stop;
mod store;
mod time;
mod watch;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
