//! What crowsnest does to a host, and how long it lets a host take: requests at a time, refusals, time-outs.

use std::io::{self, Cursor, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::json;

use crate::emulator::message::{Payload, Response};
use crate::emulator::server::lock;
use crate::fake_registry::{FakeRegistry, Layer, OCI_MANIFEST, dpkg_tar};
use crate::pitfalls::{artifactory, images, manifest, place, seed_index, set};

/// A server that does to each connection what it is told, until the other side hangs up.
struct Server {
    host: String,
    stopped: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl Server {
    fn start(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Server {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = socket.local_addr().unwrap().to_string();
        let stopped = Arc::new(AtomicBool::new(false));
        let (serve, has_stopped) = (Arc::new(serve), stopped.clone());
        let accepting = std::thread::spawn(move || {
            for stream in socket.incoming() {
                if has_stopped.load(Ordering::SeqCst) {
                    return;
                }
                let serve = serve.clone();
                std::thread::spawn(move || stream.map(|stream| serve(stream)));
            }
        });
        Server {
            host,
            stopped,
            accepting: Some(accepting),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(&self.host);
        if let Some(thread) = self.accepting.take() {
            let _ = thread.join();
        }
    }
}

/// Reads until the other side hangs up.
fn hear(mut stream: &TcpStream) {
    let _ = io::copy(&mut stream, &mut io::sink());
}

/// Answers with a head that promises more than ever comes.
fn begin(mut stream: &TcpStream) {
    let _ = stream.read(&mut [0; 4096]);
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9999\r\n\r\n";
    let _ = stream.write_all(head.as_bytes());
}

fn never_answers(stream: TcpStream) {
    hear(&stream);
}

fn goes_silent(stream: TcpStream) {
    begin(&stream);
    hear(&stream);
}

fn trickles(mut stream: TcpStream) {
    begin(&stream);
    let _ = stream.set_read_timeout(Some(Duration::from_millis(50)));
    while stream.write_all(b" ").is_ok() && stream.read(&mut [0; 16]).ok() != Some(0) {}
}

#[test]
fn servers_that_take_too_long_are_given_up_and_the_time_is_named() {
    type Serve = fn(TcpStream);
    for (serve, flag, said) in [
        (
            never_answers as Serve,
            "--response-timeout",
            "did not begin to answer within 1 s",
        ),
        (goes_silent, "--stall-timeout", "sent nothing for 1 s"),
        (
            trickles,
            "--stall-timeout",
            "bytes in 1 s, less than 1024 a second",
        ),
    ] {
        let server = Server::start(serve);
        let repository = format!("{}/app", server.host);
        let ended = place("slow")
            .watch(&["--all-images", "--repository", &repository, flag, "1"])
            .with_code(1);
        ended.says(&["crowsnest: ", &format!("`{}`", server.host), said]);
        ended.says(&[&format!("hint: give it more time with {flag}")]);
        assert!(ended.elapsed < Duration::from_secs(25), "{ended:?}");
    }
}

#[test]
fn a_server_that_never_shakes_hands_is_given_up() {
    let server = Server::start(never_answers);
    let host = &server.host;
    let registry = format!(
        "type=artifactory,registry={host},api=https://{host}/artifactory,repository=a,subdomain-mode=false"
    );
    let ended = place("handshake")
        .set("CROWSNEST_CONNECT_TIMEOUT", "1")
        .watch(&["--all-images", "--registry", &registry])
        .with_code(1);
    ended.says(&[
        "crowsnest: ",
        &format!("`{host}` could not be connected to within 1 s"),
    ]);
    assert!(ended.elapsed < Duration::from_secs(25), "{ended:?}");
}

/// How many bodies are being sent.
#[derive(Default)]
struct Bodies {
    now_and_most: Mutex<(usize, usize)>,
    news: Condvar,
}

/// A body that is counted until its last byte, and begins when a third one does or some time has passed.
struct Counted {
    bytes: Cursor<Arc<[u8]>>,
    bodies: Arc<Bodies>,
    has_begun: bool,
}

impl Read for Counted {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if !self.has_begun {
            self.has_begun = true;
            let mut count = lock(&self.bodies.now_and_most);
            count.0 += 1;
            count.1 = count.1.max(count.0);
            self.bodies.news.notify_all();
            let patience = Duration::from_millis(100);
            drop(
                self.bodies
                    .news
                    .wait_timeout_while(count, patience, |count| count.0 < 3),
            );
        }
        let had = self.bytes.position();
        let n = self.bytes.read(buf)?;
        let end = self.bytes.get_ref().len() as u64;
        if had < end && self.bytes.position() == end {
            lock(&self.bodies.now_and_most).0 -= 1;
        }
        Ok(n)
    }
}

#[test]
fn no_more_than_so_many_bodies_at_a_time_come_from_a_host() {
    for (most, flags) in [(2, &["--max-per-host", "2"][..]), (8, &[])] {
        let registry = FakeRegistry::start();
        let mut blobs = std::collections::HashMap::new();
        for n in 0..8 {
            let (manifest, parts) = manifest("amd64", &format!("package-{n}"));
            registry.tag("app", &format!("v{n}"), OCI_MANIFEST, &manifest);
            for part in parts {
                let bytes: Arc<[u8]> = part.into();
                blobs.insert(crate::fake_registry::digest(&bytes), bytes);
            }
        }
        let bodies = Arc::new(Bodies::default());
        let counted = bodies.clone();
        registry.hook(move |request| {
            let digest = request.path.strip_prefix("/v2/app/blobs/")?;
            let bytes = blobs.get(digest)?.clone();
            let length = bytes.len() as u64;
            let reader = Box::new(Counted {
                bytes: Cursor::new(bytes),
                bodies: counted.clone(),
                has_begun: false,
            });
            Some(Response::new(200).payload(Payload::Stream { reader, length }))
        });
        let repository = format!("{}/app", registry.host());
        let place = place("places");
        let watch = [
            "--all-images",
            "--workers",
            "8",
            "--repository",
            &repository,
        ];
        place.watch(&[&watch[..], flags].concat()).with_code(0);
        assert_eq!(images(&place).len(), 8);
        let (now, peak) = *lock(&bodies.now_and_most);
        assert_eq!(now, 0);
        assert!(peak <= most, "{peak} at a time");
        // Without the flag the workers do not wait for each other.
        assert!(most == 2 || peak > 2, "{peak} at a time");
    }
}

#[test]
fn one_request_at_a_time_is_enough_for_everything() {
    for (switch, value) in [
        ("aql", "ok"),
        ("aql", "403"),
        ("redirect", "all"),
        ("token", "rejected"),
        ("cut_blob", "100"),
    ] {
        let emulator = artifactory();
        let mut wanted = Vec::new();
        for n in 0..12 {
            seed_index(&emulator, "docker-local", &format!("app-{n:02}"), "1");
            // A second manifest in the folder: the registry has to say which counts. More of these than workers
            // take at once, so that AQL waits for them while they ask.
            let (other, _) = manifest("amd64", "harmless");
            let file = format!("app-{n:02}/1/manifest.json");
            emulator.seed_file("docker-local", &file, OCI_MANIFEST, &other);
            wanted.push(format!("docker-local/app-{n:02}:1"));
        }
        emulator.set(switch, value);
        emulator.set("blob_fault_times", "2");
        let (host, api) = (emulator.host(), emulator.base_url());
        let registry =
            format!("type=artifactory,registry={host},api={api},repository=docker-local");
        let wanted = set(&wanted.iter().map(String::as_str).collect::<Vec<_>>());
        let one = |name: &str| place(name).set("CROWSNEST_MAX_PER_HOST", "1");
        let flags = ["--all-images", "--workers", "2"];
        let by_key = one("one");
        let ended = by_key.watch(&[&flags[..], &["--registry", &registry]].concat());
        assert_eq!(ended.code, Some(0), "{switch}={value}: {}", ended.stderr);
        assert_eq!(images(&by_key), wanted, "{switch}={value}");
        let repositories: Vec<String> = (0..12)
            .map(|n| format!("{host}/docker-local/app-{n:02}"))
            .collect();
        let repositories = repositories.join(",");
        let by_name = one("one");
        let ended = by_name.watch(&[&flags[..], &["--repository", &repositories]].concat());
        assert_eq!(ended.code, Some(0), "{switch}={value}: {}", ended.stderr);
        assert_eq!(images(&by_name), wanted, "{switch}={value}");
    }
}

#[test]
fn a_host_that_asks_for_an_hour_gets_no_request_more() {
    let registry = FakeRegistry::start();
    for n in 0..20 {
        let tar = dpkg_tar(&format!("package-{n}"));
        registry.image("app", &format!("v{n}"), &[Layer::gzip(&tar)]);
    }
    registry.hook(|request| {
        (request.method == "GET" && request.path.contains("/manifests/")).then(|| {
            Response::registry_error(429, "TOOMANYREQUESTS", "slow down", json!(null))
                .header("Retry-After", "3600")
        })
    });
    let host = registry.host();
    let repository = format!("{host}/app");
    let ended = place("hour")
        .watch(&[
            "--all-images",
            "--workers",
            "3",
            "--repository",
            &repository,
        ])
        .with_code(3);
    ended.says(&["answered 429: slow down"]);
    ended.says(&[&format!(
        "`{host}` asked to wait: nothing is sent to it before "
    )]);
    ended.says(&[
        " warn host asks to wait",
        &host,
        "status=429",
        "wait=\"1h 0m\"",
    ]);
    assert_eq!(ended.stderr.matches("host asks to wait").count(), 1);
    // One, and what the other workers had sent already.
    let n_sent = registry.count("GET", "/manifests/");
    assert!((1..=3).contains(&n_sent), "{n_sent} manifests asked for");
}
