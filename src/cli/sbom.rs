//! `crowsnest sbom`: the packages of an image in the store.

use crate::cli::flags::{Command, DATA_DIR, DEBUG, Flag, Positional, any_combination};
use crate::error::Error;

pub(crate) const COMMAND: Command = Command {
    name: "sbom",
    summary: "Show the packages of an image in the store",
    usage: "sbom [OPTIONS] REF",
    about: &[
        "Shows what was found when the image was indexed; the registry is not asked. What could not be \
         read is shown as well.",
    ],
    flags: &[
        DATA_DIR,
        DEBUG,
        Flag {
            long: "format",
            value: Some("FORMAT"),
            default: Some("list"),
            summary: "Form of the output",
            choices: &["list", "json"],
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
    examples: &[(
        "List the packages of an image",
        "crowsnest sbom --platform linux/arm64 registry.example.com/app:1.0",
    )],
    exit_codes: &[
        (0, "shown"),
        (
            1,
            "the image is not in the store or not indexed, or it could not run",
        ),
    ],
    is_hidden: false,
    check: any_combination,
    run: |_| Err(Error::stop("not built yet")),
};
