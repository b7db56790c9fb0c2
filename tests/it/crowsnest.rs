//! A run of `crowsnest watch` with a store of its own: what it said, how it ended, how much memory it took.
//!
//! *Invariant:* the process sees no variable, home or folder of the machine, and every run is asked whether it
//! left anything behind but its store.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
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
    n_runs: AtomicU64,
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
            n_runs: AtomicU64::new(0),
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
        self.start(arguments).ended()
    }

    /// As [`Crowsnest::watch`], and asks it to stop (SIGTERM) once `is_enough` holds for what it said.
    pub(crate) fn watch_until(
        &self,
        arguments: &[&str],
        is_enough: impl Fn(&str) -> bool,
    ) -> Ended {
        let mut running = self.start(arguments);
        running.wait_until_ended_or(is_enough);
        running.stop()
    }

    /// Starts `watch` with those arguments.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running<'_> {
        let n = self.n_runs.fetch_add(1, Ordering::Relaxed);
        let log = self.place.path().join(format!("stderr-{n}"));
        let stderr = File::create(&log).expect("a new file can be made");
        let started = Instant::now();
        let process = self
            .command("watch", arguments)
            .stderr(stderr)
            .spawn()
            .expect("crowsnest starts");
        Running {
            place: self,
            process,
            log,
            started,
            patience: PATIENCE,
            peak_kib: 0,
        }
    }

    /// Runs another command to its end. Returns its exit code and what it printed, stdout before stderr.
    pub(crate) fn run(&self, name: &str, arguments: &[&str]) -> (Option<i32>, String) {
        let output = self
            .command(name, arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .output()
            .expect("crowsnest starts");
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.code(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    }

    /// The same; returns exit code, stdout and stderr.
    pub(crate) fn answer(&self, words: &[&str]) -> (i32, String, String) {
        let (name, arguments) = words.split_first().expect("a command has a name");
        let output = self
            .command(name, arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .output()
            .expect("crowsnest starts");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let code = output.status.code().unwrap_or(-1);
        (code, text(output.stdout), text(output.stderr))
    }

    fn command(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_crowsnest"));
        command
            .arg(name)
            .args(arguments)
            .env_clear()
            .env("CROWSNEST_DATA_DIR", self.place.path().join("data"))
            .env("HOME", self.home())
            .env("TMPDIR", self.place.path().join("work"))
            .envs(self.variables.iter().cloned())
            .current_dir(self.place.path().join("work"))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    /// The folder of the store.
    pub(crate) fn data(&self) -> PathBuf {
        self.place.path().join("data")
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
        let store = rusqlite::Connection::open(&file).expect("there is a store");
        store
            .execute(
                "ATTACH ?1 AS beside",
                [format!("{}-events", file.display())],
            )
            .expect("there is a file of events");
        store
    }

    /// The store of the runs so far.
    pub(crate) fn stored(&self) -> Stored {
        Stored::open(&self.place.path().join("data/crowsnest.db"))
    }

    /// Nothing but the store, and no text of the store's that was not ours to keep.
    fn assert_tidy(&self, said: &str) {
        for name in names(&self.place.path().join("data")) {
            assert!(
                name.starts_with("crowsnest.db"),
                "stray file {name}\n{said}"
            );
        }
        let strays = names(&self.place.path().join("work"));
        assert!(strays.is_empty(), "stray files {strays:?}\n{said}");
        assert!(!said.contains("panicked"), "{said}");
    }
}

/// A run that goes on. Killed when it is dropped.
pub(crate) struct Running<'a> {
    place: &'a Crowsnest,
    process: Child,
    log: PathBuf,
    started: Instant,
    patience: Duration,
    peak_kib: u64,
}

impl Running<'_> {
    /// Sets how long it may take, and each wait for it.
    pub(crate) fn within(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// What it said so far.
    pub(crate) fn said(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits until `is_enough` holds for what it said; panics when it ends before, or that takes too long.
    #[track_caller]
    pub(crate) fn wait_until(&mut self, is_enough: impl Fn(&str) -> bool) {
        let is_running = self.wait_until_ended_or(is_enough);
        assert!(is_running, "crowsnest ended:\n{}", self.said());
    }

    /// Waits until `is_so` holds; panics when that takes too long.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, what: &str, is_so: impl Fn() -> bool) {
        let started = Instant::now();
        while !is_so() {
            assert!(
                started.elapsed() < self.patience,
                "not so after {:?}: {what}\n{}",
                self.patience,
                self.said()
            );
            std::thread::sleep(LOOK);
        }
    }

    /// The address on which it receives webhooks.
    #[track_caller]
    pub(crate) fn address(&mut self) -> String {
        self.wait_until(|said| address_in(said).is_some());
        address_in(&self.said()).expect("it was there a moment ago")
    }

    /// The same, unless it was not said yet.
    pub(crate) fn address_if_any(&self) -> Option<String> {
        address_in(&self.said())
    }

    /// The resident memory now and at its largest, in KiB, and the number of open files.
    pub(crate) fn footprint(&self) -> (u64, u64, usize) {
        let files = std::fs::read_dir(format!("/proc/{}/fd", self.id())).map_or(0, Iterator::count);
        (
            memory_of(self.id(), "VmRSS:").unwrap_or(0),
            memory_of(self.id(), "VmHWM:").unwrap_or(0),
            files,
        )
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.id().to_string();
        let kill = Command::new("sh")
            .args(["-c", "kill -\"$0\" \"$1\"", name, &pid])
            .status();
        assert!(
            kill.is_ok_and(|status| status.success()),
            "a child can be sent a signal"
        );
    }

    /// Asks it to stop, and waits for its end.
    pub(crate) fn stop(self) -> Ended {
        if !self.has_ended() {
            self.signal("TERM");
        }
        self.ended()
    }

    /// Ends it at once (SIGKILL). What it leaves behind is looked at as after every end.
    pub(crate) fn kill(mut self) -> String {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let said = self.said();
        self.place.assert_tidy(&said);
        said
    }

    /// Waits for its end. Panics when that takes too long, or it leaves files.
    pub(crate) fn ended(mut self) -> Ended {
        self.wait_until_ended_or(|_| false);
        let status = self.process.wait().expect("a child can be waited for");
        let ended = Ended {
            code: status.code(),
            stderr: self.said(),
            peak_kib: self.peak_kib,
            elapsed: self.started.elapsed(),
        };
        self.place.assert_tidy(&ended.stderr);
        ended
    }

    /// Whether it has ended, without waiting for it.
    fn has_ended(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id()));
        stat.map_or(true, |stat| stat.contains(") Z "))
    }

    /// Returns whether it still runs.
    fn wait_until_ended_or(&mut self, is_enough: impl Fn(&str) -> bool) -> bool {
        let started = Instant::now();
        loop {
            let peak = memory_of(self.id(), "VmHWM:").unwrap_or(0);
            self.peak_kib = self.peak_kib.max(peak);
            if self.has_ended() {
                return false;
            }
            if is_enough(&self.said()) {
                return true;
            }
            if started.elapsed() > self.patience {
                let _ = self.process.kill();
                let _ = self.process.wait();
                panic!(
                    "crowsnest still ran after {:?}:\n{}",
                    self.patience,
                    self.said()
                );
            }
            std::thread::sleep(LOOK);
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        // It may have ended, and been waited for.
        let _ = self.process.kill();
        let _ = self.process.wait();
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

fn address_in(said: &str) -> Option<String> {
    let (_, rest) = said.split_once("listening for webhooks on=\"")?;
    rest.split_once(' ').map(|(address, _)| address.to_owned())
}

/// A line of a process's memory, in KiB; `None` when it has gone.
fn memory_of(process: u32, name: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
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
