//! `crowsnest retry`: another chance for images that failed.

use std::process::ExitCode;

use wildmatch::WildMatch;

use crate::cli::flags::{Command, DATA_DIR, DEBUG, Given, Positional, any_combination};
use crate::cli::{data_dir, print};
use crate::error::Result;
use crate::printable::printable;
use crate::report::images::is_hit;
use crate::store::Store;
use crate::store::retry::{FailedName, Retried};

pub(crate) const COMMAND: Command = Command {
    name: "retry",
    summary: "Give images that failed another chance",
    usage: "retry [OPTIONS] [IMAGE]",
    about: &[
        "Lets images that failed be read again: also those that are not tried again by themselves, since their \
         content was found to be wrong or over a limit, and at once those that wait for their next try. \
         Nothing is asked of a registry: a running watch takes them within a second, otherwise the \
         next run of crowsnest watch does.",
    ],
    flags: &[DATA_DIR, DEBUG],
    positional: Some(Positional {
        name: "IMAGE",
        summary: "only those of this repository or tag, with or without what stands before a /, or that match this \
                  glob; * crosses /",
        is_required: false,
    }),
    examples: &[
        ("Try everything again that failed", "crowsnest retry"),
        ("Only the images of one team", "crowsnest retry 'team/*'"),
    ],
    exit_codes: &[
        (0, "done, maybe nothing had failed"),
        (1, "it could not run"),
    ],
    is_hidden: false,
    check: any_combination,
    run,
};

fn run(given: Given) -> Result<ExitCode> {
    let store = Store::open_existing(&data_dir(&given)?)?;
    let image = given.positional();
    let glob = image.map(WildMatch::new);
    let retried = store.retry(&|name| glob.as_ref().is_none_or(|glob| takes(glob, name)))?;
    print(&told(retried, image))?;
    Ok(ExitCode::SUCCESS)
}

/// Whether the glob hits the repository, the reference with its tag or digest, or the digest alone.
fn takes(glob: &WildMatch, name: &FailedName) -> bool {
    let repository = &name.repository;
    is_hit(glob, repository)
        || is_hit(glob, &format!("{repository}:{}", name.tag))
        || name.digest.as_ref().is_some_and(|digest| {
            glob.matches(digest) || is_hit(glob, &format!("{repository}@{digest}"))
        })
}

fn told(retried: Retried, image: Option<&str>) -> String {
    let count = |n: u64, noun: &str| format!("{n} {noun}{}", if n == 1 { "" } else { "s" });
    let parts = match (retried.images, retried.events) {
        (0, 0) => {
            return match image {
                Some(image) => format!(
                    "nothing that matches `{}` had failed; crowsnest status shows what has\n",
                    printable(image)
                ),
                None => "nothing had failed\n".to_owned(),
            };
        }
        (n, 0) => count(n, "image"),
        (0, n) => count(n, "webhook"),
        (n, m) => format!("{} and {}", count(n, "image"), count(m, "webhook")),
    };
    format!(
        "to be tried again: {parts}; a running crowsnest watch does it at once, otherwise the next run\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_named_as_elsewhere() {
        let name = FailedName {
            repository: "r.example:5000/team/app".to_owned(),
            tag: "1.0".to_owned(),
            digest: Some("sha256:0123".to_owned()),
        };
        for (image, is_taken) in [
            ("r.example:5000/team/app:1.0", true),
            ("team/app:1.0", true),
            ("team/app", true),
            ("app:1.0", true),
            ("app", true),
            ("team/*", true),
            ("*:1.*", true),
            ("app@sha256:0123", true),
            ("sha256:0123", true),
            ("app:1", false),
            ("team", false),
            ("r.example:5000", false),
        ] {
            assert_eq!(takes(&WildMatch::new(image), &name), is_taken, "{image}");
        }
    }

    #[test]
    fn the_answer_says_what_becomes_of_them() {
        let tried = |what| {
            format!(
                "to be tried again: {what}; a running crowsnest watch does it at once, otherwise the next run\n"
            )
        };
        for (images, events, image, text) in [
            (0, 0, None, "nothing had failed\n".to_owned()),
            (
                0,
                0,
                Some("x"),
                "nothing that matches `x` had failed; crowsnest status shows what has\n".to_owned(),
            ),
            (1, 0, None, tried("1 image")),
            (2, 1, None, tried("2 images and 1 webhook")),
            (0, 2, None, tried("2 webhooks")),
        ] {
            assert_eq!(told(Retried { images, events }, image), text);
        }
    }
}
