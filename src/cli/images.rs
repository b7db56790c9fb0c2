//! `crowsnest images`: the images in the store.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::process::ExitCode;

use regex_lite::RegexBuilder;
use wildmatch::WildMatch;

use crate::cli::flags::{Command, DATA_DIR, DEBUG, Flag, Given, any_combination};
use crate::cli::{complain, data_dir, print_with};
use crate::error::{Error, Result};
use crate::format::{self, ImageRow, ImagesAnswer};
use crate::image::Platform;
use crate::report::images::{Filter, images};
use crate::sbom::State;
use crate::store::Store;

pub(crate) const COMMAND: Command = Command {
    name: "images",
    summary: "List the images in the store",
    usage: "images [OPTIONS]",
    about: &[
        "Lists every tag with its image, a line for each platform, and how far indexing has come. Nothing \
         is asked of a registry, and a running watch is not disturbed.",
        "States: indexed; partial, indexed but for layers or files that could not be read (crowsnest sbom \
         names them); pending, in the queue; retrying, failed and to be tried again; failed; recorded, \
         known and not wanted so far; skipped, a platform that was not asked for; artifact, not an image.",
    ],
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
            choices: || format::names(|format| format.images),
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
            summary: "Show only repositories that match, with or without what stands before a /; * \
                      crosses /",
            ..Flag::NEW
        },
        Flag {
            long: "state",
            value: Some("STATE"),
            is_repeated: true,
            summary: "Show only images in this state of indexing",
            choices: || State::ALL.map(State::name).to_vec(),
            ..Flag::NEW
        },
        Flag {
            long: "tag",
            value: Some("REGEX"),
            is_repeated: true,
            summary: "Show only tags that match this regular expression, not anchored",
            ..Flag::NEW
        },
    ],
    positional: None,
    examples: &[
        (
            "Show what could not be indexed in full",
            "crowsnest images --state partial,failed",
        ),
        (
            "Count the packages of the release images of one team",
            "crowsnest images --repository 'team/*' --tag '^v[0-9]' --format csv",
        ),
    ],
    exit_codes: &[(0, "listed, maybe nothing"), (1, "it could not run")],
    is_hidden: false,
    check: any_combination,
    run,
};

/// Bytes of a compiled expression; regex-lite refuses larger ones.
const REGEX_BYTES: usize = 1 << 20;

fn run(given: Given) -> Result<ExitCode> {
    let write = format::named(given.one("format").unwrap_or_default(), |format| {
        format.images
    })?;
    let filter = filter(&given)?;
    let store = Store::open_existing(&data_dir(&given)?)?;
    let mut totals = Totals::default();
    let mut rows = images(&store, &filter)?.inspect(|row| {
        if let Ok(row) = row {
            totals.add(row);
        }
    });
    let answer = ImagesAnswer {
        rows: &mut rows,
        with_gone: filter.with_gone,
    };
    print_with(|out| write(answer, out))?;
    drop(rows);
    if totals.images == 0 {
        complain(&format!("crowsnest: {}\n", nothing(&store, &filter)?));
    } else if io::stdout().is_terminal() && io::stderr().is_terminal() {
        complain(&format!("{}\n", totals.line()));
    }
    Ok(ExitCode::SUCCESS)
}

fn filter(given: &Given) -> Result<Filter> {
    Ok(Filter {
        with_gone: given.is_set("all"),
        repositories: given
            .many("repository")
            .into_iter()
            .map(WildMatch::new)
            .collect(),
        tags: given.each("tag", |text| {
            let expression = RegexBuilder::new(text).size_limit(REGEX_BYTES).build();
            expression.map_err(|err| {
                Error::tell(format_args!("`{text}` is not a regular expression: {err}"))
            })
        })?,
        platforms: given.each("platform", str::parse::<Platform>)?,
        states: given.each("state", str::parse::<State>)?,
    })
}

/// Why there is nothing to list, and what to do about it.
fn nothing(store: &Store, filter: &Filter) -> Result<String> {
    let counts = store.counts()?;
    let waiting = store
        .sources()?
        .iter()
        .any(|source| source.listed_at.is_none());
    Ok(match counts.tags {
        0 if waiting => {
            "no images yet: the first listing has not come to its end; crowsnest status tells why"
                .to_owned()
        }
        0 if filter.with_gone => {
            "no images yet: index some with crowsnest watch --all-images".to_owned()
        }
        0 => "no images; --all shows also those whose tag is gone".to_owned(),
        n => format!("none of the {n} tags in the store matches"),
    })
}

/// What was listed, for the line below the table.
#[derive(Default)]
struct Totals {
    images: u64,
    by_state: BTreeMap<State, u64>,
}

impl Totals {
    fn add(&mut self, row: &ImageRow) {
        self.images += 1;
        if row.state != State::Indexed {
            *self.by_state.entry(row.state).or_default() += 1;
        }
    }

    /// `42 images, 3 failed`
    fn line(&self) -> String {
        let plural = if self.images == 1 { "" } else { "s" };
        let states = self
            .by_state
            .iter()
            .map(|(state, n)| format!(", {n} {state}"));
        format!(
            "{} image{plural}{}",
            self.images,
            states.collect::<String>()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_explains_every_state() {
        for state in State::ALL {
            assert!(COMMAND.about[1].contains(state.name()), "{state}");
        }
    }
}
