//! The listener for webhooks among clients that mean it ill: a good sender is answered, and memory stays bounded.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::crowsnest::{Crowsnest, Running};
use crate::registry::free_port;
use crate::sender::{SECRET, Sender, event, sign};

/// The most that a good sender should wait, as the median: a test machine has its hiccups.
const PATIENCE: Duration = Duration::from_millis(100);
/// Of a debug build.
const MEMORY_KIB: u64 = 64 << 10;

/// A watch whose registry is not there, so that nothing but webhooks happens.
fn listening(place: &Crowsnest) -> (Running<'_>, String) {
    let host = format!("127.0.0.1:{}", free_port());
    let registry = format!(
        "type=artifactory,registry={host},api=http://{host}/artifactory,repository=docker-local"
    );
    let mut running = place.start(&[
        "--interval",
        "3600",
        "--listen",
        "127.0.0.1:0",
        "--registry",
        &registry,
    ]);
    let address = running.address();
    (running, address)
}

fn place(name: &str) -> Crowsnest {
    Crowsnest::new(name).set("CROWSNEST_ARTIFACTORY_WEBHOOK_SECRET", SECRET)
}

#[test]
fn a_good_sender_is_answered_among_bad_ones() {
    let place = place("attacked");
    let (running, address) = listening(&place);
    for (kind, n) in [
        ("slow-head", 1_000),
        ("slow-body", 100),
        ("endless-head", 50),
        ("endless-line", 50),
        ("large-body", 20),
        ("chunked-body", 20),
        ("no-answer-read", 50),
        ("garbage", 50),
    ] {
        let mut attack = Command::new("python3")
            .arg(format!(
                "{}/tests/tools/hostile-clients.py",
                env!("CARGO_MANIFEST_DIR")
            ))
            .args([&address, kind, &n.to_string(), "3"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 is there");
        let mut said = BufReader::new(attack.stdout.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "{kind}");
        let started = Instant::now();
        let mut waits = Vec::new();
        while started.elapsed() < Duration::from_millis(2_500) {
            // A connection of its own for each, as most senders do.
            let body = event("pushed", "docker-local", kind, &format!("v{}", waits.len()));
            let sent = Instant::now();
            assert_eq!(Sender::to(&address).signed(&body), 202, "{kind}");
            waits.push(sent.elapsed());
            std::thread::sleep(Duration::from_millis(20));
        }
        waits.sort();
        let median = waits[waits.len() / 2];
        let mut rest = String::new();
        said.read_to_string(&mut rest).unwrap();
        attack.wait().unwrap();
        let (_, peak, files) = running.footprint();
        crate::tell!(
            "{kind}: {} sent, median {median:?}, worst {:?}, peak {peak} KiB, {files} files, {rest}",
            waits.len(),
            waits[waits.len() - 1]
        );
        assert!(median < PATIENCE, "{kind}: {median:?}");
        assert!(peak < MEMORY_KIB, "{kind}: {peak} KiB");
        assert!(files < 900, "{kind}: {files} files");
    }
    let ended = running.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

/// What is answered to raw bytes, to the end of the connection or one second of silence.
fn answer_to(address: &str, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    // The other end may close before all is sent.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn requests_out_of_bounds_are_refused_by_status() {
    let place = place("bounds");
    let (running, address) = listening(&place);
    let line = "a".repeat(20_000);
    for (what, request, status) in [
        (
            "100 MB announced",
            "POST / HTTP/1.1\r\nContent-Length: 104857600\r\n\r\n".to_owned(),
            "413",
        ),
        (
            "no length",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
            "411",
        ),
        (
            "two lengths",
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab".to_owned(),
            "400",
        ),
        (
            "a long target",
            format!("GET /{line} HTTP/1.1\r\n\r\n"),
            "431",
        ),
        (
            "a long header",
            format!("GET / HTTP/1.1\r\nX: {line}\r\n\r\n"),
            "431",
        ),
        (
            "many headers",
            format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(100)),
            "431",
        ),
        ("not HTTP", "\u{16}\u{3}\u{1}\r\n\r\n".to_owned(), "400"),
        (
            "another method",
            "BREW / HTTP/1.1\r\n\r\n".to_owned(),
            "405",
        ),
        ("a command line", "hello\r\n\r\n".to_owned(), "400"),
    ] {
        let answer = answer_to(&address, request.as_bytes());
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{what}: {answer}"
        );
    }
    running.stop();
}

#[test]
fn several_requests_in_one_packet_are_answered_in_order() {
    let place = place("pipelined");
    let (running, address) = listening(&place);
    let body = event("pushed", "docker-local", "a", "1").to_string();
    let good = format!(
        "POST /x HTTP/1.1\r\nX-JFrog-Event-Auth: {}\r\nContent-Length: {}\r\n\r\n{body}",
        sign(SECRET, body.as_bytes()),
        body.len()
    );
    let text = format!(
        "GET /healthz HTTP/1.1\r\n\r\n{good}POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{{}}\r\n\r\nGET /nothing HTTP/1.1\r\nConnection: close\r\n\r\n"
    );
    let answer = answer_to(&address, text.as_bytes());
    let statuses: Vec<&str> = answer
        .lines()
        .filter_map(|line| line.strip_prefix("HTTP/1.1 ")?.split(' ').next())
        .collect();
    assert_eq!(statuses, ["200", "202", "401", "404"], "{answer}");
    running.stop();
}

#[test]
fn a_request_may_come_in_pieces_and_wait_to_be_asked_for_its_body() {
    let place = place("pieces");
    let (running, address) = listening(&place);
    let body = event("pushed", "docker-local", "a", "1").to_string();
    let head = format!(
        "POST /x HTTP/1.1\r\nExpect: 100-continue\r\nX-JFrog-Event-Auth: {}\r\nContent-Length: {}\r\n\r\n",
        sign(SECRET, body.as_bytes()),
        body.len()
    );
    let mut stream = TcpStream::connect(&address).unwrap();
    stream.set_nodelay(true).unwrap();
    for byte in head.as_bytes() {
        stream.write_all(&[*byte]).unwrap();
    }
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert_eq!(line, "HTTP/1.1 100 Continue\r\n");
    for chunk in body.as_bytes().chunks(7) {
        stream.write_all(chunk).unwrap();
    }
    line.clear();
    reader.read_line(&mut line).unwrap();
    reader.read_line(&mut line).unwrap();
    assert_eq!(line, "\r\nHTTP/1.1 202 Accepted\r\n");
    running.stop();
}

#[test]
fn answers_on_a_kept_connection_do_not_wait_for_acknowledgements() {
    let place = place("nodelay");
    let (running, address) = listening(&place);
    let sender = Sender::to(&address);
    let started = Instant::now();
    for _ in 0..100 {
        assert_eq!(sender.get("/healthz").0, 200);
    }
    // With Nagle's algorithm each but the first takes 40 ms.
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "{:?}",
        started.elapsed()
    );
    running.stop();
}

#[test]
fn a_port_without_a_secret_is_for_this_machine_only() {
    let port = free_port().to_string();
    let host = format!("127.0.0.1:{}", free_port());
    let registry = format!(
        "type=artifactory,registry={host},api=http://{host}/artifactory,repository=docker-local,port={port}"
    );
    let open = Crowsnest::new("open");
    let mut running = open.start(&["--interval", "3600", "--registry", &registry]);
    assert_eq!(running.address(), format!("127.0.0.1:{port}"));
    running.stop().says(&[
        "warn",
        "from this machine only",
        "CROWSNEST_ARTIFACTORY_WEBHOOK_SECRET",
    ]);
    let secret = place("secret");
    let mut running = secret.start(&["--interval", "3600", "--registry", &registry]);
    assert_eq!(running.address(), format!("0.0.0.0:{port}"));
    // Not the first one, which has the port.
    let taken = place("taken").watch(&["--interval", "3600", "--registry", &registry]);
    taken.with_code(1);
    running.stop();
}

#[test]
fn sources_that_share_a_port_are_told_apart_by_secret_and_form() {
    let port = free_port().to_string();
    let host = format!("127.0.0.1:{}", free_port());
    let artifactory = format!(
        "type=artifactory,registry={host},api=http://{host}/artifactory,repository=docker-local,port={port}"
    );
    let oci = format!("type=oci,registry=localhost:{},port={port}", free_port());
    let place = place("shared").set("CROWSNEST_OCI_WEBHOOK_AUTH", "Bearer other");
    let mut running = place.start(&[
        "--interval",
        "3600",
        "--registry",
        &artifactory,
        "--registry",
        &oci,
    ]);
    let sender = Sender::to(&running.address().replace("0.0.0.0", "127.0.0.1"));
    let push = event("pushed", "docker-local", "a", "1");
    let note = json!({"events": [{"action": "push", "target": {
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "repository": "b", "tag": "1"}}]});
    let auth = [("Authorization", "Bearer other")];
    assert_eq!(sender.signed(&push), 202);
    assert_eq!(sender.send(&auth, note.to_string().as_bytes()).0, 202);
    // Who knows the one secret cannot speak for the other.
    assert_eq!(sender.signed(&note), 400);
    assert_eq!(sender.send(&auth, push.to_string().as_bytes()).0, 400);
    assert_eq!(sender.send(&[], push.to_string().as_bytes()).0, 401);
    let mut events = place.stored().events();
    events.sort();
    assert_eq!(events, ["b", "docker-local/a"]);
    running.stop();
}
