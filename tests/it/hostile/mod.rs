//! Registries and images that mean harm: each ends in one clear line, in little memory, beside images that
//! are indexed all the same ("Done when" 6 of issue 3; `reference/peers.md` 6.3).

mod archives;
mod connections;
mod files;
mod hosts;
mod layers;
mod listings;
mod manifests;
mod text;

use std::io::{self, Read, Write};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::crowsnest::{Crowsnest, Ended};
use crate::emulator::message::{Payload, Response};
use crate::fake_registry::{FakeRegistry, Layer, OCI_INDEX, dpkg_tar};

/// Resident memory that no run may pass, in KiB: what is promised, and half of it for the debug build.
const MEMORY_KIB: u64 = if cfg!(debug_assertions) {
    96 << 10
} else {
    64 << 10
};
/// What a run may take, with all tests at once on a small machine.
const QUICK: Duration = Duration::from_secs(60);
const USER: &str = "crow";
const PASSWORD: &str = "s3cret-Passw0rd";
/// No line on stderr is longer: one clear line can be read.
const LINE_BYTES: usize = 4_096;
/// More than anybody will read.
const ENDLESS: u64 = 1 << 40;

/// A registry that holds one harmless image `zoo/good:1`.
fn registry() -> FakeRegistry {
    let registry = FakeRegistry::start();
    registry.image("zoo/good", "1", &[Layer::gzip(&dpkg_tar("harmless"))]);
    registry
}

fn place(name: &str) -> Crowsnest {
    Crowsnest::new(name)
        .set("CROWSNEST_REGISTRY_USER", USER)
        .set("CROWSNEST_REGISTRY_PASSWORD", PASSWORD)
}

/// One pass over the registry with those further arguments; checks memory, time, secrets, and the harmless image.
#[track_caller]
fn pass(registry: &FakeRegistry, place: &Crowsnest, code: i32, arguments: &[&str]) -> Ended {
    let host = registry.host();
    let all = [&["--registry", &host, "--all-images"], arguments].concat();
    let ended = place.watch(&all).with_code(code);
    assert_bounded(&ended);
    assert_eq!(
        names(place, "zoo/good", "1"),
        ["harmless"],
        "{}",
        ended.stderr
    );
    ended
}

#[track_caller]
fn assert_bounded(ended: &Ended) {
    let Ended {
        peak_kib,
        elapsed,
        stderr,
        ..
    } = ended;
    assert!(*peak_kib < MEMORY_KIB, "{peak_kib} KiB of memory\n{stderr}");
    assert!(*elapsed < QUICK, "{elapsed:?}\n{stderr}");
    assert_no_secret(stderr);
    assert_harmless(stderr);
    let longest = stderr.lines().map(str::len).max();
    assert!(longest < Some(LINE_BYTES), "a line of {longest:?} bytes");
}

/// Nothing but line ends that a terminal would act on or hide, and no line that a CI system takes for a command.
#[track_caller]
fn assert_harmless(text: &str) {
    let acts = |c: char| {
        c.is_control() && c != '\n'
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    if let Some(at) = text.find(acts) {
        let from = text[..at].rfind('\n').map_or(0, |end| end + 1);
        let line = text[from..].lines().next().unwrap_or("");
        panic!("raw in the output: {:?}", &line[..line.len().min(500)]);
    }
    let commands = text.lines().filter(|line| line.starts_with("::"));
    assert_eq!(commands.collect::<Vec<_>>(), [""; 0]);
}

/// What the commands that only show print of this store, in all formats; `image` is shown as an SBOM too.
#[track_caller]
fn shown(place: &Crowsnest, image: Option<&str>) -> String {
    let mut runs = vec![
        ("images", vec!["--all", "--format", "table"]),
        ("images", vec!["--all", "--format", "csv"]),
        ("images", vec!["--all", "--format", "json"]),
        ("status", vec!["--format", "table"]),
        ("status", vec!["--format", "json"]),
    ];
    if let Some(image) = image {
        runs.push(("sbom", vec![image, "--format", "list"]));
        runs.push(("sbom", vec![image, "--format", "json"]));
    }
    let mut all = String::new();
    for (name, arguments) in runs {
        let (code, text) = place.run(name, &arguments);
        assert_eq!(code, Some(0), "{name} {arguments:?}: {text}");
        assert_harmless(&text);
        assert_no_secret(&text);
        if arguments.contains(&"json") {
            serde_json::from_str::<Value>(&text).expect("it is JSON");
        }
        all.push_str(&text);
    }
    all
}

#[track_caller]
fn assert_no_secret(text: &str) {
    let pair = STANDARD.encode(format!("{USER}:{PASSWORD}"));
    for secret in [PASSWORD, &STANDARD.encode(PASSWORD), &pair] {
        assert!(!text.contains(secret), "a secret in:\n{text}");
    }
}

/// Names of the packages of an image for linux/amd64.
fn names(place: &Crowsnest, repository: &str, tag: &str) -> Vec<String> {
    let packages = place.stored().packages(repository, tag, "linux/amd64");
    packages.into_iter().map(|row| row.1).collect()
}

/// One pass that must fail exactly `zoo/evil:1`, with a line that has all of `parts`.
#[track_caller]
fn fails(name: &str, registry: &FakeRegistry, parts: &[&str]) {
    let place = place(name);
    let ended = pass(registry, &place, 3, &[]);
    ended.says(&[&["error image failed", "zoo/evil:1"], parts].concat());
    assert_eq!(place.stored().troubles().len(), 1, "{}", ended.stderr);
    assert_eq!(ended.total("failed"), 1, "{}", ended.stderr);
}

/// One pass in which a layer of `zoo/evil:1` is over a limit: the image is there, and says what it lacks.
#[track_caller]
fn refuses(name: &str, registry: &FakeRegistry, arguments: &[&str], reason: &str) {
    let place = place(name);
    let ended = pass(registry, &place, 0, arguments);
    ended.says(&["warn layer is not read", "zoo/evil", reason]);
    assert_eq!(ended.total("incomplete"), 1, "{}", ended.stderr);
    let refused = place.stored().refused();
    assert!(
        refused.len() == 1 && refused[0].contains(reason),
        "{refused:?}"
    );
}

/// `bytes` again and again.
struct Again(Vec<u8>, usize);

impl Read for Again {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = buffer.len().min(self.0.len() - self.1);
        buffer[..n].copy_from_slice(&self.0[self.1..self.1 + n]);
        self.1 = (self.1 + n) % self.0.len();
        Ok(n)
    }
}

fn again(bytes: impl Into<Vec<u8>>) -> Box<dyn Read + Send> {
    Box::new(Again(bytes.into(), 0))
}

fn endless(media_type: &str, first: &str, then: &str) -> Response {
    let reader = io::Cursor::new(first.to_owned()).chain(again(then));
    Response::new(200)
        .header("Content-Type", media_type)
        .payload(Payload::Stream {
            reader: Box::new(reader),
            length: ENDLESS,
        })
}

/// The head of a gzip member, and `piece` deflated so that its end is a byte's end: the same bytes can follow
/// again, as often as one likes.
fn gzip_pieces(first: &[u8], piece: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let deflated = |bytes: &[u8]| {
        let mut encoder =
            flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::new(6));
        encoder.write_all(bytes).expect("writing to memory");
        encoder.flush().expect("writing to memory");
        encoder.get_ref().clone()
    };
    let head = [
        &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff][..],
        &deflated(first),
    ]
    .concat();
    (head, deflated(piece))
}

/// A layer that is `first`, then `piece` for ever.
fn endless_layer(seed: &str, first: &[u8], piece: &[u8]) -> Layer {
    let (head, piece) = gzip_pieces(first, piece);
    Layer::made(seed, ENDLESS, move || {
        Box::new(io::Cursor::new(head.clone()).chain(again(piece.clone())))
    })
}

/// One pass that lists nothing.
#[track_caller]
fn cannot_list(name: &str, registry: &FakeRegistry, parts: &[&str]) -> Ended {
    let place = place(name);
    let ended = place
        .watch(&["--registry", &registry.host(), "--all-images"])
        .with_code(1);
    assert_bounded(&ended);
    ended.says(&[&["crowsnest: "], parts].concat());
    ended
}

fn index_of(entries: &[Value]) -> Vec<u8> {
    json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})
        .to_string()
        .into_bytes()
}
