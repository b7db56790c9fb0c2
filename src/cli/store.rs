//! `crowsnest store`: care of the store.

use std::io;
use std::process::ExitCode;

use crate::cli::flags::{Command, DATA_DIR, DEBUG, Given, Positional, any_combination};
use crate::cli::{data_dir, print, print_with};
use crate::error::{Error, Result};
use crate::options::nearest;
use crate::printable::printable;
use crate::store::Store;

pub(crate) const COMMAND: Command = Command {
    name: "store",
    summary: "Check the store, or make its file smaller",
    usage: "store [OPTIONS] ACTION",
    about: &[
        "check reads the whole store and prints a line for everything that is wrong: damages of the file, rows that \
         refer to nothing, images without all of their layers, work that is held by a process that has \
         ended. A damaged store can be moved away: everything in it can be read from the registries \
         again.",
        "compact writes the store anew without the gaps that deleted rows left, such as those of --keep, and prints \
         its size before and after. It needs about twice the room of the store while it runs. A running \
         watch may stay, but has to wait with everything that it finds; it is refused while another \
         process writes.",
    ],
    flags: &[DATA_DIR, DEBUG],
    positional: Some(Positional {
        name: "ACTION",
        summary: "check or compact",
        is_required: true,
    }),
    examples: &[
        ("Look whether all is well", "crowsnest store check"),
        (
            "Give the room of deleted images back",
            "crowsnest store compact",
        ),
    ],
    exit_codes: &[
        (0, "it is sound, or was made smaller"),
        (
            1,
            "something is wrong, each a line on stdout; or it could not run",
        ),
    ],
    is_hidden: false,
    check: any_combination,
    run,
};

/// Name and what it does.
type Action = (&'static str, fn(&Store) -> Result<ExitCode>);
const ACTIONS: [Action; 2] = [("check", check), ("compact", compact)];

fn run(given: Given) -> Result<ExitCode> {
    let name = given.positional().unwrap_or_default();
    let Some((_, action)) = ACTIONS.iter().find(|(known, _)| *known == name) else {
        let err = Error::tell(format_args!(
            "ACTION: expected `check` or `compact`, found `{name}`"
        ));
        return Err(
            match nearest(name, ACTIONS.iter().map(|(known, _)| *known)) {
                Some(near) => err.hint(format!("did you mean `{near}`?")),
                None => err.hint("see crowsnest store --help"),
            },
        );
    };
    action(&Store::open_existing(&data_dir(&given)?)?)
}

fn check(store: &Store) -> Result<ExitCode> {
    let mut n_wrong = 0;
    print_with(|out| {
        let mut written = Ok(());
        n_wrong = store
            .check(&mut |line| {
                written = writeln!(out, "{}", printable(line));
                written.is_ok()
            })
            .map_err(io::Error::from)?;
        written?;
        match n_wrong {
            0 => writeln!(out, "no problems"),
            _ => Ok(()),
        }
    })?;
    Ok(match n_wrong {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

fn compact(store: &Store) -> Result<ExitCode> {
    let done = store.compact()?;
    let note = match done.is_held {
        true => "; a reader still holds the old pages, and the file shrinks when it has ended",
        false => "",
    };
    print(&format!(
        "{} bytes before, {} bytes now{note}\n",
        done.before, done.after
    ))?;
    Ok(ExitCode::SUCCESS)
}
