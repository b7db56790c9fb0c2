//! The command line through the real binary.

use std::fs::File;
use std::process::{Command, Output, Stdio};

fn crowsnest(words: &str, stdout: impl Into<Stdio>) -> Output {
    Command::new(env!("CARGO_BIN_EXE_crowsnest"))
        .args(words.split_whitespace())
        .env_clear()
        .stdout(stdout)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
        .wait_with_output()
        .unwrap()
}

#[test]
fn words_lead_to_texts_and_exit_codes() {
    for (words, code, stdout, stderr) in [
        ("", 0, "Usage: crowsnest COMMAND [OPTIONS]", ""),
        ("--help", 0, "  images   List the images", ""),
        ("help", 0, "  images   List the images", ""),
        ("help watch", 0, "Usage: crowsnest watch", ""),
        ("watch --help", 0, "Usage: crowsnest watch", ""),
        ("crowsnest sbom -h", 0, "Usage: crowsnest sbom", ""),
        ("--version", 0, env!("CARGO_PKG_VERSION"), ""),
        ("version", 0, env!("CARGO_PKG_VERSION"), ""),
        (
            "docker-cli-plugin-metadata",
            0,
            "\"SchemaVersion\":\"0.1.0\"",
            "",
        ),
        ("man", 0, ".TH CROWSNEST 1", ""),
        (
            "wacth",
            1,
            "",
            "crowsnest: unknown command `wacth`; did you mean `watch`?\n\
             hint: crowsnest help lists the commands\n",
        ),
        (
            "watch --intervall 5",
            1,
            "",
            "crowsnest: unknown flag `--intervall`; did you mean `--interval`?\n\
             hint: see crowsnest watch --help\n",
        ),
    ] {
        let output = crowsnest(words, Stdio::piped());
        assert_eq!(output.status.code(), Some(code), "{words}");
        let out = String::from_utf8(output.stdout).unwrap();
        assert!(out.contains(stdout), "{words}: {out}");
        assert_eq!(out.is_empty(), stdout.is_empty(), "{words}: {out}");
        let err = String::from_utf8(output.stderr).unwrap();
        assert!(err.contains(stderr), "{words}: {err}");
        assert_eq!(err.is_empty(), code == 0, "{words}: {err}");
    }
}

#[test]
fn a_reader_that_has_gone_is_no_error_and_a_full_disk_is() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = crowsnest("watch --help", writer);
    assert!(output.status.success());
    assert!(output.stderr.is_empty());

    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = crowsnest("watch --help", full);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "crowsnest: writing to stdout: No space left on device (os error 28)\n"
    );
}
