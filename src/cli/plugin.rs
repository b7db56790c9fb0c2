//! crowsnest as a plugin of the Docker CLI
//! (<https://github.com/docker/cli/blob/master/cli-plugins/metadata/metadata.go>).
//!
//! Docker runs each `docker-*` file of its plugin folders with the word `docker-cli-plugin-metadata` and
//! expects JSON. For `docker crowsnest watch` it runs the file with all words behind `docker`, its own
//! flags included: `docker-crowsnest --context x crowsnest watch`.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use serde_json::json;

use crate::cli::flags::{Command, any_combination};
use crate::cli::{print, watch};

/// What docker calls the plugin.
const WORD: &str = "crowsnest";

pub(crate) const COMMAND: Command = Command {
    name: "docker-cli-plugin-metadata",
    summary: "Print what the Docker CLI wants to know of a plugin",
    usage: "docker-cli-plugin-metadata",
    about: &[],
    flags: &[],
    positional: None,
    examples: &[],
    exit_codes: &[(0, "printed")],
    is_hidden: true,
    check: any_combination,
    run: |_| {
        print(&metadata())?;
        Ok(ExitCode::SUCCESS)
    },
};

/// The words that are meant for crowsnest: without the `crowsnest` that docker puts before them, and, under
/// the plugin's file name, without what docker says before that.
pub(crate) fn without_docker_words(program: &OsStr, mut args: Vec<OsString>) -> Vec<OsString> {
    let is_plugin = Path::new(program)
        .file_stem()
        .is_some_and(|name| name == "docker-crowsnest");
    match args.iter().position(|arg| arg == WORD) {
        Some(at) if is_plugin || at == 0 => args.split_off(at + 1),
        _ => args,
    }
}

fn metadata() -> String {
    let metadata = json!({
        "SchemaVersion": "0.1.0",
        "Vendor": "crowsnest",
        "Version": env!("CARGO_PKG_VERSION"),
        "ShortDescription": watch::COMMAND.summary,
    });
    format!("{metadata}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_words_are_taken_off() {
        for (program, line, left) in [
            ("crowsnest", "watch --debug", "watch --debug"),
            ("crowsnest", "crowsnest watch", "watch"),
            ("crowsnest", "help crowsnest", "help crowsnest"),
            ("/p/docker-crowsnest", "crowsnest watch", "watch"),
            (
                "/p/docker-crowsnest",
                "--context x crowsnest watch",
                "watch",
            ),
            (
                "/p/docker-crowsnest",
                "docker-cli-plugin-metadata",
                "docker-cli-plugin-metadata",
            ),
        ] {
            let args = line.split(' ').map(OsString::from).collect();
            let left: Vec<OsString> = left.split(' ').map(OsString::from).collect();
            assert_eq!(without_docker_words(OsStr::new(program), args), left);
        }
    }

    #[test]
    fn metadata_has_the_fields_that_docker_checks() {
        let parsed: serde_json::Value = serde_json::from_str(&metadata()).unwrap();
        for (field, value) in [("SchemaVersion", "0.1.0"), ("Vendor", "crowsnest")] {
            assert_eq!(parsed[field], value);
        }
        assert!(parsed["ShortDescription"].is_string());
    }
}
