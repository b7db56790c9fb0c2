//! A run of `crowsnest watch` with a store of its own: what it said, how it ended, how much memory it took.
//!
//! *Invariant:* the process sees no variable, home or folder of the machine, and every run is asked whether it
//! left anything behind but its store.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::stored::Stored;
use crate::temp_dir::TempDir;

/// How long a run may take before it is killed and the test fails.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often a run is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// A place where `crowsnest` runs, with its store in `data/`.
pub(crate) struct Crowsnest {
    place: TempDir,
    variables: Vec<(String, String)>,
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// `None` after a signal.
    pub(crate) code: Option<i32>,
    pub(crate) stderr: String,
    /// The largest resident memory seen, in KiB (`VmHWM`).
    pub(crate) peak_kib: u64,
    pub(crate) elapsed: Duration,
}

impl Crowsnest {
    pub(crate) fn new(name: &str) -> Crowsnest {
        let place = TempDir::new(name);
        for folder in ["data", "home", "work"] {
            std::fs::create_dir(place.path().join(folder)).expect("a new folder can be made");
        }
        Crowsnest {
            place,
            variables: Vec::new(),
        }
    }

    /// Sets an environment variable for all runs from now on.
    pub(crate) fn set(mut self, name: &str, value: &str) -> Crowsnest {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Writes a file below the home folder; returns nothing, since runs know it as `$HOME`.
    pub(crate) fn home_file(self, name: &str, text: &str) -> Crowsnest {
        self.place.write(&format!("home/{name}"), text);
        self
    }

    pub(crate) fn home(&self) -> String {
        self.place.path().join("home").display().to_string()
    }

    /// Runs `watch` with those arguments to its end. Panics when it does not end in time, or leaves files.
    pub(crate) fn watch(&self, arguments: &[&str]) -> Ended {
        self.watch_until(arguments, |_| false)
    }

    /// As [`Crowsnest::watch`], and asks it to stop (SIGTERM) once `is_enough` holds for what it said.
    pub(crate) fn watch_until(
        &self,
        arguments: &[&str],
        is_enough: impl Fn(&str) -> bool,
    ) -> Ended {
        let log = self.place.path().join("stderr");
        let stderr = File::create(&log).expect("a new file can be made");
        let started = Instant::now();
        let mut process = Command::new(env!("CARGO_BIN_EXE_crowsnest"))
            .arg("watch")
            .arg("--data-dir")
            .arg(self.place.path().join("data"))
            .args(arguments)
            .env_clear()
            .env("HOME", self.home())
            .env("TMPDIR", self.place.path().join("work"))
            .envs(self.variables.iter().cloned())
            .current_dir(self.place.path().join("work"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .expect("crowsnest starts");
        let said =
            || String::from_utf8_lossy(&std::fs::read(&log).unwrap_or_default()).into_owned();
        let mut peak_kib = 0;
        let mut was_asked = false;
        let status = loop {
            peak_kib = peak_kib.max(peak_of(process.id()).unwrap_or(0));
            if let Some(status) = process.try_wait().expect("a child can be waited for") {
                break status;
            }
            if !was_asked && is_enough(&said()) {
                let pid = process.id().to_string();
                let kill = Command::new("sh")
                    .args(["-c", "kill -TERM \"$0\"", &pid])
                    .status();
                assert!(
                    kill.is_ok_and(|status| status.success()),
                    "a child can be asked to stop"
                );
                was_asked = true;
            }
            if started.elapsed() > PATIENCE {
                let _ = process.kill();
                let _ = process.wait();
                panic!("crowsnest still ran after {PATIENCE:?}:\n{}", said());
            }
            std::thread::sleep(LOOK);
        };
        let ended = Ended {
            code: status.code(),
            stderr: said(),
            peak_kib,
            elapsed: started.elapsed(),
        };
        self.assert_tidy(&ended);
        ended
    }

    /// Runs another command over the store; returns exit code, stdout and stderr.
    pub(crate) fn run(&self, words: &[&str]) -> (i32, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_crowsnest"))
            .args(words)
            .env_clear()
            .env("CROWSNEST_DATA_DIR", self.place.path().join("data"))
            .output()
            .expect("crowsnest starts");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let code = output.status.code().unwrap_or(-1);
        (code, text(output.stdout), text(output.stderr))
    }

    /// Changes the store as no run would.
    pub(crate) fn change(&self, sql: &str) {
        self.open()
            .execute_batch(sql)
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// Does something while another process is about to write.
    pub(crate) fn while_writing(&self, work: impl FnOnce()) {
        let store = self.open();
        store
            .execute_batch("BEGIN IMMEDIATE")
            .expect("nobody else writes");
        work();
    }

    fn open(&self) -> rusqlite::Connection {
        let file = self.place.path().join("data/crowsnest.db");
        rusqlite::Connection::open(file).expect("there is a store")
    }

    /// The store of the runs so far.
    pub(crate) fn stored(&self) -> Stored {
        Stored::open(&self.place.path().join("data/crowsnest.db"))
    }

    /// Nothing but the store, and no text of the store's that was not ours to keep.
    fn assert_tidy(&self, ended: &Ended) {
        for name in names(&self.place.path().join("data")) {
            assert!(
                name.starts_with("crowsnest.db"),
                "stray file {name}\n{}",
                ended.stderr
            );
        }
        let strays = names(&self.place.path().join("work"));
        assert!(
            strays.is_empty(),
            "stray files {strays:?}\n{}",
            ended.stderr
        );
        assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    }
}

impl Ended {
    /// Fails unless the exit code is `code`; shows what was said.
    #[track_caller]
    pub(crate) fn with_code(self, code: i32) -> Ended {
        assert_eq!(self.code, Some(code), "{}", self.stderr);
        self
    }

    /// Fails unless one line has all of `parts`; returns that line.
    #[track_caller]
    pub(crate) fn says(&self, parts: &[&str]) -> &str {
        let mut lines = self.stderr.lines();
        lines
            .find(|line| parts.iter().all(|part| line.contains(part)))
            .unwrap_or_else(|| panic!("no line with {parts:?} in:\n{}", self.stderr))
    }

    /// A number of the closing summary.
    #[track_caller]
    pub(crate) fn total(&self, name: &str) -> u64 {
        let line = self.says(&[" done images_new="]);
        line.split_whitespace()
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
            .unwrap_or_else(|| panic!("no `{name}` in {line}"))
    }
}

/// `VmHWM` of a process, in KiB; `None` when it has gone.
fn peak_of(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("the folder is there");
    entries
        .map(|entry| {
            entry
                .expect("it can be listed")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect()
}
