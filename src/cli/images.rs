//! `crowsnest images`: the images in the store.

use crate::cli::flags::{Command, DATA_DIR, DEBUG, Flag, any_combination};
use crate::error::Error;

pub(crate) const COMMAND: Command = Command {
    name: "images",
    summary: "List the images in the store",
    usage: "images [OPTIONS]",
    about: &["Lists every tag with its image, its platforms and how far indexing has come."],
    flags: &[
        Flag {
            long: "all",
            summary: "Also show images whose tag is gone from the registry",
            ..Flag::NEW
        },
        DATA_DIR,
        DEBUG,
        Flag {
            long: "format",
            value: Some("FORMAT"),
            default: Some("table"),
            summary: "Form of the output",
            choices: &["table", "json", "csv"],
            ..Flag::NEW
        },
        Flag {
            long: "platform",
            value: Some("PLATFORM"),
            is_repeated: true,
            summary: "Show only images for this os/arch[/variant]",
            ..Flag::NEW
        },
        Flag {
            long: "repository",
            value: Some("GLOB"),
            is_repeated: true,
            summary: "Show only repositories that match; * crosses /",
            ..Flag::NEW
        },
        Flag {
            long: "state",
            value: Some("STATE"),
            is_repeated: true,
            summary: "Show only images in this state of indexing",
            choices: &["pending", "indexed", "partial", "failed"],
            ..Flag::NEW
        },
    ],
    positional: None,
    examples: &[(
        "Show what could not be indexed in full",
        "crowsnest images --state partial,failed",
    )],
    exit_codes: &[(0, "listed, maybe nothing"), (1, "it could not run")],
    is_hidden: false,
    check: any_combination,
    run: |_| Err(Error::stop("not built yet")),
};
