//! The house rules that a person would otherwise have to look for in a review: who may use whom, the map in
//! `main.rs`, the size of files, calls that stand in one place only, and rows that are named once.
//!
//! Each test collects everything that breaks its rule and names file and line.

use std::collections::{BTreeMap, BTreeSet};

use crate::sources::{self, Source};

/// Every module in reading order, and what it may use of the ones above it.
const MODULES: &[(&str, &str)] = &[
    ("printable", ""),
    ("error", "printable"),
    ("secret", ""),
    ("stop", ""),
    ("time", "error"),
    ("log", "printable error secret time"),
    ("limit", "error"),
    ("options", "printable error"),
    ("image", "error limit"),
    ("sbom", "error time image"),
    ("layer", "error limit image"),
    ("http", "printable error secret stop time log limit"),
    (
        "distribution",
        "printable error secret stop time log limit options image http",
    ),
    ("ecosystem", "printable error limit sbom layer"),
    ("indexer", "error limit image sbom layer ecosystem"),
    (
        "registry",
        "printable error secret stop time log limit options image layer http distribution",
    ),
    ("store", "printable error time log limit image sbom"),
    ("format", "printable error time image sbom"),
    ("report", "printable error time image sbom store format"),
    (
        "watch",
        "printable error secret stop time log limit options image sbom layer http distribution \
         ecosystem indexer registry store",
    ),
    (
        "server",
        "printable error secret stop time log limit image registry store format report watch",
    ),
    (
        "cli",
        "printable error secret stop time log limit options image sbom layer http distribution \
         ecosystem indexer registry store format report watch server",
    ),
];

/// Lines of a file without its tests. A longer one has two subjects.
const MAX_LINES: usize = 450;

/// Files that are longer and wait to be split. Nothing is added to this list.
const TOO_LONG: &[&str] = &[];

/// What stands in no file but the ones named, and why.
const BANNED: &[Banned] = &[
    Banned {
        calls: &[".unwrap()", "todo!", "unimplemented!", "dbg!", "panic!"],
        unless: &[],
        reason: "input must not end the process; return an error",
        except: &[],
    },
    Banned {
        calls: &["println!", "print!", "eprintln!", "eprint!"],
        unless: &[],
        reason: "print with cli::print and cli::complain, or log",
        except: &[],
    },
    Banned {
        calls: &["process::exit", "process::abort"],
        unless: &[],
        reason: "main returns the exit code, so that everything is dropped",
        except: &[],
    },
    Banned {
        calls: &[
            ".read_to_end(",
            ".read_to_string(",
            "fs::read(",
            "fs::read_to_string(",
        ],
        unless: &[".take(", "Limited::new("],
        reason: "read with limit::read_all, or a reader that is bounded",
        except: &[(
            "src/store/lease.rs",
            "/proc/PID/stat and the boot's number of this machine",
        )],
    },
    Banned {
        calls: &[
            "File::create",
            "File::options",
            "OpenOptions",
            "fs::write",
            "fs::copy",
            "fs::rename",
        ],
        unless: &[],
        reason: "only the store writes to the disk",
        except: &[],
    },
    Banned {
        calls: &["thread::spawn", "thread::scope", "thread::Builder"],
        unless: &[],
        reason: "all threads start in watch::run",
        except: &[
            ("src/watch/mod.rs", "this is watch::run"),
            (
                "src/server/accept.rs",
                "one for each connection, of which there is a bounded number",
            ),
            (
                "src/distribution/credential_helper.rs",
                "feeds a program's stdin; joined before the call returns",
            ),
        ],
    },
    Banned {
        calls: &["rusqlite"],
        unless: &[],
        reason: "the only SQL is in the store",
        except: &[("src/store/", "this is the store")],
    },
    Banned {
        calls: &["Command::new"],
        unless: &[],
        reason: "programs are started for credentials only",
        except: &[(
            "src/distribution/credential_helper.rs",
            "Docker's credential helpers",
        )],
    },
];

struct Banned {
    calls: &'static [&'static str],
    /// What makes a call right when it stands before it in the same statement.
    unless: &'static [&'static str],
    reason: &'static str,
    /// Beginnings of paths, each with why it is right there.
    except: &'static [(&'static str, &'static str)],
}

/// Folders of rows: the folder, the list that names its rows, and the constant of a row.
const ROWS: &[(&str, &str, &str)] = &[
    ("cli", "COMMANDS", "COMMAND"),
    ("ecosystem", "ALL", "ROW"),
    ("registry", "ALL", "ROW"),
];

#[test]
fn modules_use_only_what_stands_above_them_and_in_the_table() {
    let mut wrong = Vec::new();
    let mut above = BTreeSet::new();
    for (name, allowed) in MODULES {
        for used in allowed.split_whitespace() {
            if !above.contains(used) {
                wrong.push(format!("table: `{used}` does not stand above `{name}`"));
            }
        }
        above.insert(*name);
    }
    let table: BTreeMap<&str, &str> = MODULES.iter().copied().collect();
    for source in sources::all() {
        let module = source.module();
        let allowed: Vec<&str> = match (&module[..], table.get(module[0])) {
            (["main"], _) => vec!["cli"],
            (_, Some(allowed)) => allowed.split_whitespace().collect(),
            (_, None) => {
                wrong.push(format!(
                    "{}: `{}` is not in the table",
                    source.path, module[0]
                ));
                continue;
            }
        };
        for (position, used) in used_modules(&source) {
            if used != module[0] && !allowed.contains(&used.as_str()) {
                let (path, line) = (&source.path, source.line_at(position));
                wrong.push(format!(
                    "{path}:{line}: `{}` may not use `{used}`",
                    module[0]
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The top modules that the code names, with the place.
fn used_modules(source: &Source) -> Vec<(usize, String)> {
    let code = &source.code;
    let mut used = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        for name in first_names(&code[at + "crate::".len()..]) {
            used.push((at, name));
        }
    }
    // A path out of the module by `super` would hide from the rule.
    let depth = source.module().len();
    for (at, _) in code.match_indices("super::") {
        if !code[..at].ends_with("::") {
            let n_up = code[at..]
                .split("::")
                .take_while(|part| *part == "super")
                .count();
            if n_up >= depth {
                used.push((at, "super:: up to the crate".to_owned()));
            }
        }
    }
    if source.path == "src/main.rs" {
        for (name, _) in MODULES {
            used.extend(
                code.match_indices(&format!("{name}::"))
                    .filter(|(at, _)| {
                        !code[..*at].ends_with(|c: char| c == ':' || c.is_alphanumeric())
                    })
                    .map(|(at, _)| (at, (*name).to_owned())),
            );
        }
    }
    used
}

/// The first name of a path, or of each path in a group: `a` of `a::b`; `a` and `c` of `{a::{b}, c}`.
fn first_names(path: &str) -> Vec<String> {
    let word = |text: &str| -> String {
        text.trim_start()
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    };
    let Some(group) = path.strip_prefix('{') else {
        return vec![word(path)];
    };
    let mut names = vec![word(group)];
    let mut depth = 0_usize;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(word(&group[at + 1..])),
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

#[test]
fn groups_of_paths_are_understood() {
    assert_eq!(first_names("log::{Format, Log};"), ["log"]);
    assert_eq!(
        first_names("{a::{b, c}, d,\n e_f::*,\n};"),
        ["a", "d", "e_f"]
    );
}

#[test]
fn the_map_in_main_lists_the_modules_in_reading_order() {
    let text = sources::file("src/main.rs");
    let mapped: Vec<&str> = text
        .lines()
        .take_while(|line| line.starts_with("//!"))
        .filter_map(|line| line.strip_prefix("//! - `")?.split_once("`: "))
        .map(|(name, says)| {
            assert!(says.len() > 10, "main.rs says nothing of `{name}`");
            name
        })
        .collect();
    let table: Vec<&str> = MODULES.iter().map(|(name, _)| *name).collect();
    assert_eq!(mapped, table, "the head of main.rs, and the table here");
    let readme = sources::file("README.md");
    assert_eq!(
        sources::rows(&readme, "module"),
        table,
        "README.md, and the table here"
    );
    let mut declared: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'))
        .collect();
    declared.sort_unstable();
    let mut sorted = table;
    sorted.sort_unstable();
    assert_eq!(declared, sorted, "`mod` in main.rs, and the table here");
}

#[test]
fn files_have_one_subject() {
    let mut wrong = Vec::new();
    let mut waiting = TOO_LONG.to_vec();
    for source in sources::all() {
        let is_long = source.n_lines > MAX_LINES;
        if is_long && !waiting.contains(&source.path.as_str()) {
            let (path, n_lines) = (&source.path, source.n_lines);
            wrong.push(format!("{path}: {n_lines} lines without its tests"));
        }
        waiting.retain(|path| !(is_long && *path == source.path));
    }
    wrong.extend(
        waiting
            .iter()
            .map(|path| format!("{path}: is short now; take it off the list")),
    );
    assert!(
        wrong.is_empty(),
        "over {MAX_LINES} lines:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn files_say_what_they_are() {
    let wrong: Vec<String> = sources::all()
        .iter()
        .filter(|source| !source.text.starts_with("//! "))
        .map(|source| format!("{}: no `//!` at its head", source.path))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn banned_calls_stand_where_they_belong() {
    let all = sources::all();
    let mut wrong = Vec::new();
    for banned in BANNED {
        let mut unused: Vec<&str> = banned.except.iter().map(|(path, _)| *path).collect();
        for source in &all {
            for call in banned.calls {
                for (at, _) in source.code.match_indices(call) {
                    let before = source.code[..at].chars().next_back().unwrap_or(' ');
                    let is_part_of_a_name = call.starts_with(char::is_alphabetic)
                        && (before.is_alphanumeric() || before == '_');
                    let statement = source.code[..at]
                        .rsplit([';', '{', '}'])
                        .next()
                        .unwrap_or("");
                    let is_right = banned.unless.iter().any(|word| statement.contains(word));
                    if is_part_of_a_name || is_right {
                        continue;
                    }
                    if let Some(excepted) = banned
                        .except
                        .iter()
                        .find(|(path, _)| source.path.starts_with(path))
                    {
                        unused.retain(|path| *path != excepted.0);
                        continue;
                    }
                    let (path, line) = (&source.path, source.line_at(at));
                    wrong.push(format!("{path}:{line}: `{call}`: {}", banned.reason));
                }
            }
        }
        for path in unused {
            wrong.push(format!(
                "{path}: no `{}` there any more",
                banned.calls.join("`, `")
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// `expect` is for what cannot fail, and its message says why.
#[test]
fn expect_carries_its_proof() {
    let mut wrong = Vec::new();
    for source in sources::all() {
        for (at, call) in source.code.match_indices(".expect(") {
            let Some(message) = source.text[at + call.len()..]
                .trim_start()
                .strip_prefix('"')
            else {
                continue; // A function of our own of that name.
            };
            let words = message
                .split('"')
                .next()
                .unwrap_or("")
                .split_whitespace()
                .count();
            if words < 3 {
                wrong.push(format!("{}:{}: no proof", source.path, source.line_at(at)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// To add an ecosystem, a registry or a command is a new file and one entry in the list of its folder.
#[test]
fn each_row_is_named_once_in_the_list_of_its_folder() {
    let all = sources::all();
    let mut wrong = Vec::new();
    for (folder, list, row) in ROWS {
        let head = format!("src/{folder}/mod.rs");
        let code = &all.iter().find(|source| source.path == head).unwrap().code;
        let (_, behind) = code
            .split_once(&format!("const {list}: "))
            .expect("the list of rows");
        let entries = behind
            .split_once("= &[")
            .unwrap()
            .1
            .split_once("];")
            .unwrap()
            .0;
        let mut named: Vec<&str> = entries
            .split(',')
            .filter_map(|entry| {
                entry
                    .trim()
                    .strip_suffix(row)?
                    .trim_start_matches('&')
                    .strip_suffix("::")
            })
            .collect();
        let mut defined: Vec<&str> = all
            .iter()
            .filter(|source| source.code.contains(&format!("const {row}: ")))
            .map(Source::module)
            .filter(|module| module[0] == *folder && module.len() > 1)
            .map(|module| module[1])
            .collect();
        named.sort_unstable();
        defined.sort_unstable();
        if named != defined {
            wrong.push(format!(
                "{head}: `{list}` has {named:?}, and the folder has {defined:?}"
            ));
        }
        // A row that is named elsewhere is a second list in the making.
        for source in all.iter().filter(|source| source.path != head) {
            for (at, _) in source.code.match_indices(&format!("::{row}")) {
                let name = source.code[..at]
                    .rsplit(|c: char| !c.is_alphanumeric() && c != '_')
                    .next();
                let is_behind = source.code[at + 2 + row.len()..]
                    .starts_with(|c: char| c.is_alphanumeric() || c == '_');
                if name.is_some_and(|name| defined.contains(&name))
                    && !is_behind
                    && source.module()[0] != *folder
                {
                    wrong.push(format!(
                        "{}:{}: names a row",
                        source.path,
                        source.line_at(at)
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
