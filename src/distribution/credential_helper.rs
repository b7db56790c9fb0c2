//! Credential helpers: programs `docker-credential-<name>` that know passwords
//! (<https://github.com/docker/docker-credential-helpers>, "Development").
//!
//! In: a helper's name, the key of the registry, the folders of `PATH`. Out: a [`Credential`]. The helper
//! gets the word `get` and the raw key on stdin, and answers with JSON on stdout; it reports errors on
//! stdout too.
//!
//! *Invariant:* a helper has a time and a number of bytes and is killed beyond either; nothing that it
//! prints is ever shown, apart from the three sentences that the protocol defines.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::distribution::credentials::Credential;
use crate::error::{Context, Error, Result};
use crate::limit::{self, read_all};
use crate::secret::Secret;

/// Time for one answer. A helper may ask a cloud service, and must not wait for a person.
pub(crate) const HELPER_TIME: Duration = Duration::from_secs(10);
/// Pause between two looks at a helper that has closed its stdout and not ended yet.
const POLL: Duration = Duration::from_millis(5);

const NOT_FOUND: &str = "credentials not found in native keychain";
/// Other errors of the protocol, which hold no secret.
const SAFE_TO_SHOW: &[&str] = &["no credentials server URL", "no credentials username"];
/// The user name that says that the secret is an identity token.
const TOKEN_USER: &str = "<token>";

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "Username", default)]
    username: String,
    #[serde(rename = "Secret", default)]
    secret: String,
}

/// Asks the helper `name` for the credential of `key`, within `time`. Anonymous when the helper has none.
/// Errors (`Tell`) when the name is no plain word, there is no such program in `path`, or it answers with
/// something else than the protocol says or with too much; (`Retry`) when it fails or takes too long.
pub(crate) fn ask(name: &str, key: &str, path: &[PathBuf], time: Duration) -> Result<Credential> {
    if !is_plain_word(name) {
        return Err(Error::tell(format_args!(
            "credential helper `{name}`: expected a plain word such as `ecr-login`"
        )));
    }
    run(&find(name, path)?, key, time)
        .and_then(|(status, output)| credential(status, &output))
        .context(|| format!("asking credential helper `{name}` for `{key}`"))
}

fn is_plain_word(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// The program in the first folder of `path` that has it. Relative folders are passed over, as in Go's
/// `exec.LookPath`: the working directory is not to choose the program that gets to see our keys.
fn find(name: &str, path: &[PathBuf]) -> Result<PathBuf> {
    let program = format!("docker-credential-{name}");
    path.iter()
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(&program))
        .find(|file| file.is_file())
        .ok_or_else(|| {
            Error::tell(format_args!("credential helper `{program}` is not in PATH"))
                .hint("install it, or remove it from credHelpers and credsStore in config.json")
        })
}

/// Runs the helper. The bytes of stdout are at most [`limit::HELPER_BYTES`].
fn run(program: &Path, key: &str, time: Duration) -> Result<(ExitStatus, Vec<u8>)> {
    let mut child = Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|err| Error::tell(format_args!("starting `{}`: {err}", program.display())))?;
    let outcome = match (child.stdin.take(), child.stdout.take()) {
        (Some(stdin), Some(stdout)) => converse(&mut child, stdin, stdout, key.to_owned(), time),
        _ => Err(Error::stop("no pipe to the helper")),
    };
    if outcome.is_err() {
        // It may have ended by itself meanwhile; what it left is reaped either way.
        let _ = child.kill();
        let _ = child.wait();
    }
    outcome
}

/// Writes the key and reads the answer on a thread of their own, since both can block: when the time is
/// over, the caller kills the helper, and the thread ends with its pipes. It outlives that only while a
/// process that the helper started holds them open.
fn converse(
    child: &mut Child,
    mut stdin: ChildStdin,
    stdout: ChildStdout,
    key: String,
    time: Duration,
) -> Result<(ExitStatus, Vec<u8>)> {
    let start = Instant::now();
    let late = || Error::retry(format_args!("no answer within {} s", time.as_secs_f64()));
    let (sender, receiver) = mpsc::channel();
    thread::Builder::new()
        .name("credential-helper".to_owned())
        .spawn(move || {
            // A helper that does not read its input has its reasons; its answer counts.
            let _ = stdin.write_all(key.as_bytes());
            drop(stdin);
            let _ = sender.send(read_answer(stdout));
        })
        .map_err(|err| Error::retry(err).context("starting a thread"))?;
    let output = match receiver.recv_timeout(time) {
        Ok(output) => output?,
        Err(RecvTimeoutError::Timeout) => return Err(late()),
        Err(RecvTimeoutError::Disconnected) => {
            return Err(Error::retry("the thread that reads it ended"));
        }
    };
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok((status, output)),
            Ok(None) if start.elapsed() < time => thread::sleep(POLL),
            Ok(None) => return Err(late()),
            Err(err) => return Err(Error::retry(err)),
        }
    }
}

fn read_answer(stdout: impl Read) -> Result<Vec<u8>> {
    // Too much is not a matter of this image, which `Skip` would say, but of the user's helper.
    read_all(stdout, limit::HELPER_BYTES, "answer").map_err(Error::tell)
}

fn credential(status: ExitStatus, output: &[u8]) -> Result<Credential> {
    if !status.success() {
        let text = String::from_utf8_lossy(output);
        let text = text.trim();
        return match SAFE_TO_SHOW.iter().find(|safe| **safe == text) {
            _ if status.code() == Some(1) && text == NOT_FOUND => Ok(Credential::Anonymous),
            Some(safe) => Err(Error::retry(safe)),
            None => Err(Error::retry(format_args!("it failed with {status}"))),
        };
    }
    // Errors of serde_json can quote the text, so only the place is told.
    let answer: Answer = serde_json::from_slice(output).map_err(|err| {
        Error::tell(format_args!(
            "answer is not the JSON expected, line {} column {}",
            err.line(),
            err.column()
        ))
    })?;
    Ok(match (answer.username.as_str(), answer.secret.is_empty()) {
        (TOKEN_USER, false) => Credential::Identity {
            token: Secret::new(answer.secret),
        },
        ("" | TOKEN_USER, _) => Credential::Anonymous,
        _ => Credential::Basic {
            user: answer.username,
            password: Secret::new(answer.secret),
        },
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A folder that goes when the test ends.
    pub(crate) struct Folder(pub(crate) PathBuf);

    impl Folder {
        pub(crate) fn new() -> Self {
            static NEXT: AtomicUsize = AtomicUsize::new(0);
            let next = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("crowsnest-credentials-{}-{next}", std::process::id());
            let folder = std::env::temp_dir().join(name);
            std::fs::create_dir_all(&folder).unwrap();
            Folder(folder)
        }

        /// Writes the helper `name` as a shell script. A shell writes it, not we: a process that another
        /// test starts meanwhile would hold our file open, and Linux runs no file that is being written.
        pub(crate) fn helper(&self, name: &str, script: &str) {
            let mut shell = Command::new("/bin/sh")
                .args(["-c", "cat > \"$0\" && chmod 755 \"$0\""])
                .arg(self.0.join(format!("docker-credential-{name}")))
                .stdin(Stdio::piped())
                .spawn()
                .unwrap();
            let text = format!("#!/bin/sh\n{script}\n");
            shell
                .stdin
                .take()
                .unwrap()
                .write_all(text.as_bytes())
                .unwrap();
            assert!(shell.wait().unwrap().success());
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn answer_of(script: &str) -> Result<Credential> {
        let folder = Folder::new();
        folder.helper("x", script);
        ask(
            "x",
            "r.example",
            std::slice::from_ref(&folder.0),
            HELPER_TIME,
        )
    }

    #[test]
    fn answers_become_credentials() {
        for (script, credential) in [
            (
                "read key; printf '{\"ServerURL\":\"%s\",\"Username\":\"ann\",\"Secret\":\"%s+%s\"}' \
                 \"$key\" \"$key\" \"$1\"",
                Credential::Basic {
                    user: "ann".to_owned(),
                    password: Secret::new("r.example+get"),
                },
            ),
            (
                "echo '{\"Username\":\"<token>\",\"Secret\":\"t\"}'",
                Credential::Identity {
                    token: Secret::new("t"),
                },
            ),
            (
                "echo '{\"Username\":\"\",\"Secret\":\"\"}'",
                Credential::Anonymous,
            ),
            (
                "echo credentials not found in native keychain; exit 1",
                Credential::Anonymous,
            ),
        ] {
            assert_eq!(answer_of(script).unwrap(), credential, "{script}");
        }
    }

    #[test]
    fn failures_are_told_without_what_was_printed() {
        for (script, message) in [
            ("echo hunter2; exit 1", "it failed with exit status: 1"),
            (
                "echo credentials not found in native keychain; exit 2",
                "it failed with exit status: 2",
            ),
            (
                "echo no credentials username; exit 1",
                "no credentials username",
            ),
            (
                "echo '{\"Secret\":[\"hunter2\"]}'",
                "answer is not the JSON expected, line 1 column 10",
            ),
            (
                "echo hunter2",
                "answer is not the JSON expected, line 1 column 1",
            ),
            (
                "exec head -c 10000000 /dev/zero",
                "answer is larger than the limit of 65536 bytes",
            ),
        ] {
            assert_eq!(
                answer_of(script).unwrap_err().to_string(),
                format!("asking credential helper `x` for `r.example`: {message}"),
                "{script}"
            );
        }
    }

    #[test]
    fn a_helper_that_hangs_is_killed() {
        let folder = Folder::new();
        for (name, script) in [
            ("silent", "exec sleep 600"),
            ("closed", "exec sleep 600 >&-"),
        ] {
            folder.helper(name, script);
            let path = std::slice::from_ref(&folder.0);
            let err = ask(name, "r.example", path, Duration::from_millis(250)).unwrap_err();
            assert_eq!(
                err.to_string(),
                format!(
                    "asking credential helper `{name}` for `r.example`: no answer within 0.25 s"
                )
            );
            assert_eq!(err.kind(), crate::error::Kind::Retry);
            assert_eq!(err.hint_text(), None);
        }
    }

    #[test]
    fn only_plain_words_in_absolute_folders_are_run() {
        let folder = Folder::new();
        folder.helper("x", "exit 0");
        for name in ["", "../x", "a/b", "a b", "x;y", "\u{e9}"] {
            let err = ask(name, "r", std::slice::from_ref(&folder.0), HELPER_TIME).unwrap_err();
            assert_eq!(
                err.to_string(),
                format!("credential helper `{name}`: expected a plain word such as `ecr-login`")
            );
        }
        for path in [vec![], vec![PathBuf::from("")], vec![PathBuf::from(".")]] {
            let err = ask("x", "r", &path, HELPER_TIME).unwrap_err();
            assert_eq!(
                err.to_string(),
                "credential helper `docker-credential-x` is not in PATH"
            );
        }
    }
}
