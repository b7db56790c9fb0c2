//! Signed events at full speed: how many are accepted durably, how long a sender waits, with and without a backfill
//! beside; how long until a pushed image is in the store; and a kill under that load, after which every event that
//! was answered 202 is in the store.
//!
//! Senders keep their connections and send the next event when the last was answered.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::emulator::{Config, Emulator};
use crate::no_change::{CREDENTIALS, source};
use crate::sender::{SECRET, event, sign};
use crate::temp_dir::TempDir;
use crate::{backfill, n_runs, scaled, table};

const KEY: &str = "docker-local";
const CONNECTIONS: [usize; 3] = [8, 32, 64];

pub(crate) fn run() {
    let n_images = scaled(20_000);
    let emulator = Emulator::start(Config::default());
    backfill::seed(&emulator, n_images);
    println!("  fdatasync of 4 KiB: {:.2} ms", fdatasync());
    let mut rows = vec![
        [
            "", "senders", "events", "events/s", "p50 ms", "p99 ms", "worst ms", "not 202", "lost",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    for n_senders in CONNECTIONS {
        for _ in 0..n_runs(2) {
            for name in ["while a backfill runs", "nothing else"] {
                rows.push(load(&emulator, name, n_senders, n_images));
            }
        }
    }
    table::print_rows(&rows);
    latency(&emulator);
}

/// One store, watched while `n_senders` send for some seconds; then it is killed.
fn load(emulator: &Emulator, name: &str, n_senders: usize, n_images: u64) -> Vec<String> {
    let folder = TempDir::new("bench-store");
    let is_backfill = name.contains("backfill");
    let mut watch = Watch::start(emulator, folder.path(), is_backfill);
    watch.wait_for(if is_backfill {
        "image indexed"
    } else {
        "source listed"
    });
    let (stop, n_accepted) = (AtomicBool::new(false), AtomicU64::new(0));
    let started = Instant::now();
    let results: Vec<Sent> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..n_senders)
            .map(|at| {
                let (stop, address, n_accepted) = (&stop, watch.address.as_str(), &n_accepted);
                scope.spawn(move || {
                    send(
                        address,
                        at as u64,
                        n_senders as u64,
                        n_images,
                        stop,
                        n_accepted,
                    )
                })
            })
            .collect();
        std::thread::sleep(Duration::from_secs_f64(scaled(800) as f64 / 100.0));
        // Under load: whatever is answered before is to be found afterwards.
        let elapsed = started.elapsed();
        let _ = watch.process.kill();
        let _ = watch.process.wait();
        stop.store(true, Ordering::SeqCst);
        let mut results: Vec<Sent> = threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect();
        results[0].elapsed = elapsed.as_secs_f64();
        results
    });
    let elapsed = results[0].elapsed;
    let mut waits: Vec<f64> = results
        .iter()
        .flat_map(|sent| sent.waits.iter().copied())
        .collect();
    waits.sort_by(f64::total_cmp);
    let n_other: u64 = results.iter().map(|sent| sent.n_other).sum();
    let accepted: BTreeSet<String> = results.into_iter().flat_map(|sent| sent.accepted).collect();
    let stored = stored(folder.path());
    let n_lost = accepted.difference(&stored).count();
    assert_eq!(n_lost, 0, "accepted events are lost");
    let at = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize];
    vec![
        name.to_owned(),
        n_senders.to_string(),
        waits.len().to_string(),
        format!("{:.0}", waits.len() as f64 / elapsed),
        format!("{:.1}", at(0.5)),
        format!("{:.1}", at(0.99)),
        format!("{:.1}", at(1.0)),
        n_other.to_string(),
        n_lost.to_string(),
    ]
}

#[derive(Default)]
struct Sent {
    waits: Vec<f64>,
    accepted: BTreeSet<String>,
    n_other: u64,
    elapsed: f64,
}

/// Sends events about every `step`th image, again and again.
fn send(
    address: &str,
    first: u64,
    step: u64,
    n_images: u64,
    stop: &AtomicBool,
    n_accepted: &AtomicU64,
) -> Sent {
    let mut sent = Sent::default();
    let Ok(stream) = TcpStream::connect(address) else {
        return sent;
    };
    stream.set_nodelay(true).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut at = first;
    while !stop.load(Ordering::Relaxed) {
        let (image, tag) = backfill::name(at % n_images);
        at += step;
        let body = event("pushed", KEY, &image, &tag).to_string();
        let text = format!(
            "POST /hook HTTP/1.1\r\nHost: crowsnest\r\nContent-Type: application/json\r\nX-JFrog-Event-Auth: {}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            sign(SECRET, body.as_bytes()),
            body.len()
        );
        let started = Instant::now();
        if (&stream).write_all(text.as_bytes()).is_err() {
            break;
        }
        match read_answer(&mut reader) {
            Some(202) => {
                n_accepted.fetch_add(1, Ordering::Relaxed);
                sent.waits.push(started.elapsed().as_secs_f64() * 1e3);
                sent.accepted.insert(format!("{KEY}/{image}:{tag}"));
            }
            Some(_) => sent.n_other += 1,
            None => break,
        }
    }
    sent
}

/// Reads an answer; returns its status, `None` when there is none.
fn read_answer(reader: &mut BufReader<TcpStream>) -> Option<u16> {
    let (mut status, mut length) = (None, 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end();
        if status.is_none() {
            status = line.split(' ').nth(1)?.parse().ok();
        } else if let Some(value) = line.strip_prefix("Content-Length: ") {
            length = value.parse().ok()?;
        } else if line.is_empty() {
            let mut body = vec![0; length];
            reader.read_exact(&mut body).ok()?;
            return status;
        }
    }
}

/// How long it takes from an event to its image in the store, on an idle watch.
fn latency(emulator: &Emulator) {
    let folder = TempDir::new("bench-store");
    let mut watch = Watch::start(emulator, folder.path(), false);
    watch.wait_for("source listed");
    let store = open(folder.path());
    let mut waits = Vec::new();
    for at in 0..scaled(200) {
        let (image, tag) = backfill::name(at * 7);
        let body = event("pushed", KEY, &image, &tag).to_string();
        let mut stream = TcpStream::connect(&watch.address).unwrap();
        let started = Instant::now();
        write!(
            stream,
            "POST / HTTP/1.1\r\nX-JFrog-Event-Auth: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            sign(SECRET, body.as_bytes()),
            body.len()
        )
        .unwrap();
        let query = "SELECT count(*) FROM tag JOIN repository r ON r.id = repository_id JOIN manifest m ON m.digest = tag.digest
                     WHERE r.name = ?1 AND tag.name = ?2 AND m.indexed_at IS NOT NULL";
        let key = format!("{KEY}/{image}");
        while store
            .query_row(query, [&key, &tag], |row| row.get::<_, u64>(0))
            .unwrap()
            == 0
        {
            assert!(
                started.elapsed() < Duration::from_secs(30),
                "{key}:{tag} did not come"
            );
            std::thread::sleep(Duration::from_micros(500));
        }
        waits.push(started.elapsed().as_secs_f64() * 1e3);
    }
    let _ = watch.process.kill();
    let _ = watch.process.wait();
    waits.sort_by(f64::total_cmp);
    let at = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize];
    println!(
        "\n  from a webhook to the image in the store, {} small images: p50 {:.1} ms, p99 {:.1} ms, worst {:.1} ms",
        waits.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

/// `repository:tag` of all events that wait, and of all tags.
fn stored(folder: &Path) -> BTreeSet<String> {
    let store = open(folder);
    let query = "SELECT repository || ':' || tag FROM event
                 UNION SELECT r.name || ':' || tag.name FROM tag JOIN repository r ON r.id = repository_id";
    let mut query = store.prepare(query).unwrap();
    let rows = query.query_map([], |row| row.get(0)).unwrap();
    rows.map(Result::unwrap).collect()
}

fn open(folder: &Path) -> rusqlite::Connection {
    let file = folder.join("crowsnest.db");
    let store = rusqlite::Connection::open(&file).unwrap();
    let events = format!("{}-events", file.display());
    store.execute("ATTACH ?1 AS beside", [events]).unwrap();
    store
}

/// A `crowsnest watch` that runs.
pub(crate) struct Watch {
    pub(crate) process: Child,
    pub(crate) address: String,
    pub(crate) log: PathBuf,
    _place: TempDir,
}

impl Watch {
    fn start(emulator: &Emulator, folder: &Path, is_backfill: bool) -> Watch {
        let mut arguments = vec!["--interval".to_owned(), "3600".to_owned()];
        arguments.extend(["--registry".to_owned(), source(emulator)]);
        arguments.extend(is_backfill.then(|| "--all-images".to_owned()));
        Watch::start_with(&arguments, folder)
    }

    /// With those arguments, a port for webhooks, and the store in `folder`.
    pub(crate) fn start_with(arguments: &[String], folder: &Path) -> Watch {
        let place = TempDir::new("bench-log");
        let log = place.path().join("log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_crowsnest"));
        command
            .args(["watch", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(folder)
            .args(arguments)
            .envs(CREDENTIALS.iter().copied())
            .env("CROWSNEST_ARTIFACTORY_WEBHOOK_SECRET", SECRET)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap());
        let mut watch = Watch {
            process: command.spawn().unwrap(),
            address: String::new(),
            log,
            _place: place,
        };
        let said = watch.wait_for("127.0.0.1:");
        let (_, rest) = said.split_once("127.0.0.1:").unwrap();
        let port = rest.split(' ').next().unwrap();
        watch.address = format!("127.0.0.1:{port}");
        watch
    }

    fn wait_for(&mut self, text: &str) -> String {
        for _ in 0..6_000 {
            let said = std::fs::read_to_string(&self.log).unwrap_or_default();
            if said.contains(text) {
                return said;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it never said `{text}`");
    }

    pub(crate) fn end(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Sends `n` events by `n_senders` at once; returns how many were accepted.
pub(crate) fn send_events(address: &str, n_senders: u64, n: u64, n_images: u64) -> u64 {
    let stop = AtomicBool::new(false);
    let n_accepted = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for at in 0..n_senders {
            let (stop, n_accepted) = (&stop, &n_accepted);
            scope.spawn(move || send(address, at, n_senders, n_images, stop, n_accepted));
        }
        while n_accepted.load(Ordering::Relaxed) < n {
            std::thread::sleep(Duration::from_millis(5));
        }
        stop.store(true, Ordering::SeqCst);
    });
    n_accepted.into_inner()
}

/// Milliseconds that a small write takes to reach the disk.
fn fdatasync() -> f64 {
    let folder = TempDir::new("bench-sync");
    let mut file = std::fs::File::create(folder.path().join("file")).unwrap();
    let started = Instant::now();
    for _ in 0..100 {
        file.write_all(&[0; 4096]).unwrap();
        file.sync_data().unwrap();
    }
    started.elapsed().as_secs_f64() * 10.0
}
