//! `crowsnest sbom`: the packages of an image in the store.

use std::process::ExitCode;

use crate::cli::flags::{Command, DATA_DIR, DEBUG, Flag, Given, Positional, any_combination};
use crate::cli::{data_dir, print_with};
use crate::error::{Context, Result};
use crate::format;
use crate::image::Platform;
use crate::options::nearest;
use crate::report::sbom::sbom;
use crate::store::Store;

pub(crate) const COMMAND: Command = Command {
    name: "sbom",
    summary: "Show the packages of an image in the store",
    usage: "sbom [OPTIONS] REF",
    about: &[
        "Shows what was found when the image was indexed; the registry is not asked. What could not be \
         read is shown as well.",
        "REF is repository[:tag], with or without the registry's host and what else stands before the last \
         part of the name; the tag is latest when none is given. Or it is a digest of an image or an \
         index, or the first six hexadecimal digits of one, or more.",
    ],
    flags: &[
        DATA_DIR,
        DEBUG,
        Flag {
            long: "format",
            value: Some("FORMAT"),
            default: Some("list"),
            summary: "Form of the output",
            choices: || format::names(|format| format.sbom),
            ..Flag::NEW
        },
        Flag {
            long: "platform",
            value: Some("PLATFORM"),
            summary: "The os/arch[/variant] to show of a multi-platform image",
            ..Flag::NEW
        },
    ],
    positional: Some(Positional {
        name: "REF",
        summary: "an image in the store, such as r.example.com/app:1.0, or its digest",
        is_required: true,
    }),
    examples: &[
        (
            "List the packages of an image",
            "crowsnest sbom --platform linux/arm64 registry.example.com/app:1.0",
        ),
        (
            "Show the purls of an image",
            "crowsnest sbom app:1.0 --format json | jq -r '.packages[].purl'",
        ),
    ],
    exit_codes: &[
        (0, "shown"),
        (
            1,
            "the image is not in the store or not indexed, or it could not run",
        ),
    ],
    is_hidden: false,
    check: any_combination,
    run,
};

fn run(given: Given) -> Result<ExitCode> {
    let write = format::named(given.one("format").unwrap_or_default(), |format| {
        format.sbom
    })?;
    let reference = given.positional().unwrap_or_default();
    let platform = given
        .one("platform")
        .map(str::parse::<Platform>)
        .transpose();
    let platform = platform.context(|| "--platform")?;
    let store = Store::open_existing(&data_dir(&given)?)?;
    let near = |word: &str, known: &[&str]| nearest(word, known.iter().copied()).map(str::to_owned);
    let answer = sbom(&store, reference, platform.as_ref(), &near)?;
    print_with(|out| write(&answer, out))?;
    Ok(ExitCode::SUCCESS)
}
