//! Faults that have a rate each: what they do to an answer, and which requests they strike.

use std::time::{Duration, Instant};

use super::{ACCEPT, Answer, BASIC, BLOB, MANIFEST, get, raw, seeded, send};
use crate::emulator::Emulator;

const MANIFEST_PATH: &str = "/v2/docker-local/app/manifests/1";
const TAGS_PATH: &str = "/v2/docker-local/app/tags/list?n=1";

/// An emulator whose every request gets one kind of fault.
fn broken(switch: &str) -> Emulator {
    let emulator = seeded();
    emulator.set(switch, "1000");
    emulator
}

fn blob_path() -> String {
    format!("/v2/docker-local/app/blobs/{BLOB}")
}

/// The statuses of `n` requests that are good without faults, from the first request on.
fn statuses(emulator: &Emulator, n: usize) -> Vec<u16> {
    (0..n).map(|_| get(emulator, "/v2/", &[]).status).collect()
}

/// The position of the one byte that differs.
#[track_caller]
fn wrong_byte(left: &[u8], right: &[u8]) -> usize {
    assert_eq!(left.len(), right.len());
    let differ = |&at: &usize| left[at] != right[at];
    let positions: Vec<usize> = (0..left.len()).filter(differ).collect();
    assert_eq!(positions.len(), 1, "{positions:?}");
    positions[0]
}

#[test]
fn too_many_requests_come_with_and_without_retry_after() {
    let emulator = broken("fault_429");
    let answers: Vec<Answer> = (0..20).map(|_| get(&emulator, "/v2/", &[])).collect();
    assert!(answers.iter().all(|answer| answer.status == 429));
    let waits: Vec<&str> = answers.iter().map(|a| a.header("retry-after")).collect();
    assert!(waits.contains(&"") && waits.contains(&"1"), "{waits:?}");
    emulator.set("fault_retry_after", "7");
    let answers: Vec<Answer> = (0..20).map(|_| get(&emulator, "/v2/", &[])).collect();
    let again: Vec<&str> = answers.iter().map(|a| a.header("retry-after")).collect();
    let as_before: Vec<&str> = waits
        .iter()
        .map(|wait| if wait.is_empty() { "" } else { "7" })
        .collect();
    assert_eq!(again, as_before);
}

#[test]
fn server_errors_have_all_four_statuses() {
    let mut seen = statuses(&broken("fault_5xx"), 40);
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen, [500, 502, 503, 504]);
}

#[test]
fn a_cut_body_ends_in_the_middle() {
    let emulator = broken("fault_cut");
    let cut = raw(&emulator, &blob_path());
    assert!(
        cut.contains("Content-Length: 5\r\n") && cut.ends_with("\r\n\r\nhe"),
        "{cut}"
    );
}

#[test]
fn one_byte_of_manifests_blobs_and_files_is_wrong() {
    let emulator = broken("fault_wrong");
    let file = "/artifactory/docker-local/app/1/manifest.json";
    let mut positions = Vec::new();
    for path in [MANIFEST_PATH, file, MANIFEST_PATH, file] {
        let answer = get(&emulator, path, &[ACCEPT]);
        positions.push(wrong_byte(answer.body.as_bytes(), MANIFEST));
        let url = format!("http://{}{path}", emulator.host());
        let head = send("HEAD", &url, &[BASIC, ACCEPT], "");
        let checksum = "x-checksum-sha256";
        assert_eq!(answer.header(checksum), head.header(checksum));
    }
    positions.dedup();
    assert!(positions.len() > 1, "always at {positions:?}");
    wrong_byte(get(&emulator, &blob_path(), &[]).body.as_bytes(), b"hello");
    assert!(get(&emulator, TAGS_PATH, &[]).json()["tags"].is_array());
    emulator.set("redirect", "all");
    let redirect = get(&emulator, &blob_path(), &[]);
    let from_blob_host = send("GET", redirect.header("location"), &[], "");
    wrong_byte(from_blob_host.body.as_bytes(), b"hello");
}

#[test]
fn a_slow_body_trickles() {
    let emulator = broken("fault_slow");
    let start = Instant::now();
    assert_eq!(get(&emulator, &blob_path(), &[]).body, "hello");
    assert!(
        start.elapsed() >= Duration::from_millis(40),
        "five pieces, four pauses"
    );
}

#[test]
fn a_looping_link_names_its_own_page() {
    let emulator = broken("fault_loop_link");
    emulator.seed("docker-local", "app", "2", MANIFEST);
    let looping = format!("<{TAGS_PATH}>; rel=\"next\"");
    assert_eq!(get(&emulator, TAGS_PATH, &[]).header("link"), looping);
    assert_eq!(get(&emulator, MANIFEST_PATH, &[ACCEPT]).header("link"), "");
}

#[test]
fn a_login_page_comes_with_status_200() {
    let answer = get(&broken("fault_login"), MANIFEST_PATH, &[ACCEPT]);
    assert_eq!(answer.status, 200);
    assert!(answer.header("content-type").starts_with("text/html"));
    assert!(answer.body.starts_with("<!DOCTYPE html>"));
}

#[test]
fn an_expired_redirect_is_refused_by_the_blob_host() {
    let emulator = broken("fault_expired");
    for path in [
        &blob_path(),
        "/artifactory/docker-local/app/1/manifest.json",
    ] {
        let redirect = get(&emulator, path, &[]);
        assert_eq!(redirect.status, 302, "{path}");
        let location = redirect.header("location");
        assert!(
            location.starts_with(&emulator.blob_host_url()),
            "{location}"
        );
        let refused = send("GET", location, &[], "");
        assert_eq!(refused.status, 403);
        assert!(
            refused.body.contains("Request has expired"),
            "{}",
            refused.body
        );
    }
    let none = ("X-JFrog-Download-Redirect-To", "None");
    assert_eq!(get(&emulator, &blob_path(), &[none]).body, "hello");
    let missing = blob_path().replace("2cf", "000");
    assert_eq!(get(&emulator, &missing, &[]).status, 404);
    assert_eq!(get(&emulator, MANIFEST_PATH, &[ACCEPT]).status, 200);
}

#[test]
fn rates_exclude_one_another_and_follow_the_seed() {
    let emulator = seeded();
    emulator.set("fault_429", "200");
    emulator.set("fault_5xx", "300");
    emulator.set("fault_seed", "7");
    let first = statuses(&emulator, 200);
    let n_busy = first.iter().filter(|&&status| status == 429).count();
    let n_errors = first.iter().filter(|&&status| status >= 500).count();
    let n_clean = first.iter().filter(|&&status| status == 200).count();
    assert_eq!(n_busy + n_errors + n_clean, 200);
    assert!((25..=55).contains(&n_busy), "{n_busy} of about 40");
    assert!((42..=78).contains(&n_errors), "{n_errors} of about 60");
    emulator.set("fault_seed", "7");
    assert_eq!(statuses(&emulator, 200), first, "the same seed");
    emulator.set("fault_seed", "8");
    assert_ne!(statuses(&emulator, 200), first, "another seed");
}

#[test]
fn rates_keep_to_the_path_and_the_number_of_faults() {
    let emulator = broken("fault_429");
    emulator.set("fault_path", "/tags/");
    emulator.set("fault_times", "2");
    assert_eq!(get(&emulator, "/v2/", &[]).status, 200);
    let tags: Vec<_> = (0..3)
        .map(|_| get(&emulator, TAGS_PATH, &[]).status)
        .collect();
    assert_eq!(tags, [429, 429, 200]);
}
