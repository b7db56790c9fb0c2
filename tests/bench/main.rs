//! Benchmarks: the release binary as whole processes, against real and emulated registries.
//!
//! `cargo bench` runs all of [`ALL`], `cargo bench -- NAME` one, `cargo bench -- --list` names them. What is
//! compared runs in turns (A B A B) and is given as a ratio within each pair, since figures move between
//! machines and hours and ratios less. Every line also says how busy the processors were, and by whom, so
//! that a reader sees what bounds the figure. Sizes are decimal (MB) but for memory (MiB).
//!
//! Environment: `CROWSNEST_BENCH_RUNS` (runs of each), `CROWSNEST_BENCH_SCALE` (factor of all sizes, to try
//! a benchmark out), and those named at the head of `one_image.rs`. Needs `/usr/bin/time`, `bash`, `curl`,
//! `zstd` and `docker-registry`.
//!
//! *Invariant:* nothing here fails because something was slow; it fails when crowsnest does.

// A benchmark prints its result, and ends when its tools are missing.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

mod backfill;
#[path = "../emulator/mod.rs"]
mod emulator;
mod images;
mod long_running;
mod memory;
mod no_change;
mod one_image;
mod process;
mod push;
#[allow(dead_code)] // The tests use more of it.
#[path = "../it/registry.rs"]
mod registry;
#[allow(dead_code)] // The tests use more of it.
#[path = "../it/sender.rs"]
mod sender;
mod table;
#[path = "../it/temp_dir.rs"]
mod temp_dir;
mod webhooks;

use std::process::ExitCode;

/// A benchmark.
struct Benchmark {
    name: &'static str,
    summary: &'static str,
    run: fn(),
}

const ALL: &[Benchmark] = &[
    Benchmark {
        name: "one_image",
        summary: "one image and a whole registry from an empty store, against curl, gzip and sha256sum",
        run: one_image::run,
    },
    Benchmark {
        name: "memory",
        summary: "peak memory while a 300 MB and a 3 GB image are indexed",
        run: memory::run,
    },
    Benchmark {
        name: "no_change",
        summary: "a pass over 100,000 known tags with AQL, and over 10,000 without",
        run: no_change::run,
    },
    Benchmark {
        name: "backfill",
        summary: "20,000 small images of which 90 % of the layers repeat",
        run: backfill::run,
    },
    Benchmark {
        name: "webhooks",
        summary: "signed events at full speed, beside a backfill and alone, and a kill under that load",
        run: webhooks::run,
    },
    Benchmark {
        name: "long_running",
        summary: "memory, files and the log over 100,000 events and 10,000 passes",
        run: long_running::run,
    },
];

fn main() -> ExitCode {
    let (flags, names): (Vec<String>, Vec<String>) = std::env::args()
        .skip(1)
        .partition(|argument| argument.starts_with("--"));
    if flags.iter().any(|flag| flag == "--list") {
        for row in ALL {
            println!("{:<10} {}", row.name, row.summary);
        }
        return ExitCode::SUCCESS;
    }
    // `cargo test --all-targets` starts us too, without this flag.
    if !flags.iter().any(|flag| flag == "--bench") {
        return ExitCode::SUCCESS;
    }
    if let Some(unknown) = names
        .iter()
        .find(|name| ALL.iter().all(|row| row.name != *name))
    {
        println!("no benchmark `{unknown}`; `cargo bench -- --list` names them");
        return ExitCode::FAILURE;
    }
    for row in ALL {
        if names.is_empty() || names.iter().any(|name| name == row.name) {
            println!("\n## {}: {}", row.name, row.summary);
            (row.run)();
        }
    }
    ExitCode::SUCCESS
}

/// How often each command is run.
fn n_runs(default: usize) -> usize {
    let given = std::env::var("CROWSNEST_BENCH_RUNS");
    given
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
        .max(1)
}

/// `n` times the factor of all sizes, at least 1.
fn scaled(n: u64) -> u64 {
    let factor = std::env::var("CROWSNEST_BENCH_SCALE")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1.0);
    ((n as f64 * factor) as u64).max(1)
}
