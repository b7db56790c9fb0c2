//! The README says what the program does: its tables have the flags, keys and commands that there are.

use std::collections::BTreeSet;
use std::process::Command;

use crate::sources;

fn help(words: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_crowsnest"))
        .args(words)
        .env_clear()
        .output()
        .unwrap();
    assert!(output.status.success(), "{words:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_watch_table_has_every_flag() {
    let help = help(&["watch", "--help"]);
    // A flag stands behind six columns, which may hold its letter; its text stands further right.
    let in_help: BTreeSet<&str> = help
        .lines()
        .filter_map(|line| line.get(6..))
        .filter(|rest| rest.starts_with("--"))
        .filter_map(|rest| rest.split_whitespace().next())
        .collect();
    assert!(in_help.len() > 10, "{help}");
    let readme = sources::file("README.md");
    let in_readme: BTreeSet<&str> = sources::rows(&readme, "flag")
        .into_iter()
        .map(|cell| cell.split_whitespace().next().unwrap_or(""))
        .collect();
    assert_eq!(
        in_help, in_readme,
        "`watch --help`, and the table in README.md"
    );
}

#[test]
fn the_registry_table_has_every_key() {
    let mut in_code = BTreeSet::new();
    for source in sources::all() {
        if source.path.starts_with("src/registry/") {
            for (at, _) in source.code.match_indices("key: \"") {
                let key = source.text[at + "key: \"".len()..].split('"').next();
                in_code.extend(key.map(str::to_owned));
            }
        }
    }
    let readme = sources::file("README.md");
    let in_readme: BTreeSet<String> = sources::rows(&readme, "key")
        .into_iter()
        .map(str::to_owned)
        .collect();
    assert_eq!(
        in_code, in_readme,
        "the options in src/registry, and the table in README.md"
    );
}

#[test]
fn every_command_is_in_the_command_table() {
    let help = help(&["help"]);
    let in_help: BTreeSet<&str> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| line.starts_with("  "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let readme = sources::file("README.md");
    let in_readme: BTreeSet<&str> = sources::rows(&readme, "command").into_iter().collect();
    assert_eq!(
        in_help, in_readme,
        "`crowsnest help`, and the table in README.md"
    );
}
