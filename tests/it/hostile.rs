//! Registries and images that mean harm: each ends in one clear line, in little memory, beside images that
//! are indexed all the same ("Done when" 6 of issue 3; `reference/peers.md` 6.3).

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::crowsnest::{Crowsnest, Ended};
use crate::emulator::message::{Payload, Response};
use crate::fake_registry::{
    FakeRegistry, GZIP, Layer, OCI_INDEX, OCI_MANIFEST, Recorder, digest, dpkg_tar, gzip, tar,
    tar_file, tar_header, tar_pax, text,
};

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

// ---- layers ---------------------------------------------------------------------

#[test]
fn a_blob_with_other_content_than_its_digest_says() {
    let registry = registry();
    let layer = Layer::gzip(&dpkg_tar("evil"));
    registry.image("zoo/evil", "1", std::slice::from_ref(&layer));
    let other = gzip(&dpkg_tar("else"));
    assert_eq!(
        other.len() as u64,
        layer.size,
        "the test wants the same length"
    );
    registry.hook(move |request| {
        let is_it = request.path.contains(&layer.digest);
        is_it.then(|| Response::new(200).body(GZIP, other.clone()))
    });
    let found = digest(&gzip(&dpkg_tar("else")));
    fails(
        "wrong-digest",
        &registry,
        &["layer `sha256:", "other content", &found],
    );
}

#[test]
fn a_configuration_with_other_content() {
    let registry = registry();
    registry.image("zoo/evil", "1", &[Layer::gzip(&dpkg_tar("evil"))]);
    let manifest = registry.image_of(&[Layer::gzip(&dpkg_tar("evil"))]);
    let config: Value = serde_json::from_slice(&manifest).unwrap();
    let config = text(&config["config"]["digest"]);
    registry.hook(move |request| {
        if request.path.contains(&config) {
            let body = br#"{"os":"linux","architecture":"arm64"}"#;
            Some(Response::new(200).body("application/json", body.to_vec()))
        } else {
            None
        }
    });
    fails("wrong-config", &registry, &["configuration `sha256:"]);
}

#[test]
fn a_layer_that_unpacks_to_something_else_than_the_configuration_says() {
    let registry = registry();
    let tar = dpkg_tar("evil");
    let layer = Layer::stored(GZIP, gzip(&tar), b"something else");
    registry.image("zoo/evil", "1", &[layer]);
    let (is, says) = (digest(&tar), digest(b"something else"));
    fails("wrong-diff-id", &registry, &["unpacks to", &is, &says]);
}

#[test]
fn a_gzip_stored_cut_short() {
    let registry = registry();
    let noise: Vec<u8> = (0..200_000u32)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    let tar = tar(&[tar_file("noise", &noise)]);
    let mut blob = gzip(&tar);
    blob.truncate(blob.len() / 2);
    registry.image("zoo/evil", "1", &[Layer::stored(GZIP, blob, &tar)]);
    fails("cut-gzip", &registry, &["layer `sha256:", "gzip: "]);
}

#[test]
fn ten_gigabytes_of_zeros() {
    let registry = registry();
    let file = tar_header("zeros", b'0', 10 << 30);
    let (head, piece) = gzip_pieces(&file, &vec![0; 16 << 20]);
    let blob = [head, piece.repeat(640)].concat();
    registry.image("zoo/evil", "1", &[Layer::stored(GZIP, blob, b"")]);
    let limit = "the layer's tar is larger than the limit of 104857600 bytes";
    refuses("zeros", &registry, &["--max-layer-size", "100M"], limit);
    refuses(
        "zeros-ratio",
        &registry,
        &[],
        "more than 200 times larger than the blob",
    );
}

#[test]
fn ten_gigabytes_of_zeros_behind_the_end_of_the_archive() {
    let registry = registry();
    let layer = endless_layer("zeros behind", &tar(&[]), &vec![0; 16 << 20]);
    registry.image("zoo/evil", "1", &[layer]);
    let limit = "the layer's tar is larger than the limit of 104857600 bytes";
    refuses(
        "zeros-behind",
        &registry,
        &["--max-layer-size", "100M"],
        limit,
    );
}

#[test]
fn two_million_entries() {
    let registry = registry();
    let entries: Vec<Vec<u8>> = (0..20_000)
        .map(|n| tar_header(&format!("d/{n}"), b'0', 0))
        .collect();
    let (head, piece) = gzip_pieces(b"", &entries.concat());
    let layer = Layer::stored(GZIP, [head, piece.repeat(100)].concat(), b"");
    registry.image("zoo/evil", "1", &[layer]);
    refuses(
        "entries",
        &registry,
        &[],
        "more than the limit of 1000000 entries",
    );
}

#[test]
fn names_that_lead_out_of_the_image() {
    let registry = registry();
    let status = b"Package: sneaky\nStatus: install ok installed\nVersion: 1\n\n";
    let escape = "/../../../../../../tmp/crowsnest-was-here";
    let entries = [
        tar_file("../../var/lib/dpkg/status", status),
        tar_file("etc/../../../var/lib/dpkg/status", status),
        tar_file(escape, b"x"),
        tar_header("link", b'2', 0),
        tar_file("/usr/lib/os-release", b"ID=debian\n"),
        tar_file(
            "/var/lib/dpkg/status",
            b"Package: absolute\nStatus: install ok installed\nVersion: 1\n\n",
        ),
        tar_file(".wh...", b""),
        tar_file("etc/.wh.", b""),
    ];
    registry.image("zoo/evil", "1", &[Layer::gzip(&tar(&entries))]);
    let place = place("names");
    let ended = pass(&registry, &place, 0, &[]);
    assert_eq!(ended.total("incomplete"), 1);
    assert_eq!(names(&place, "zoo/evil", "1"), ["absolute"]);
    let problems = place.stored().problems();
    let leading_out = problems
        .iter()
        .filter(|problem| problem.contains("leads out of the image"));
    assert_eq!(leading_out.count(), 3, "{problems:#?}");
    assert!(!std::path::Path::new("/tmp/crowsnest-was-here").exists());
}

#[test]
fn a_zstd_frame_with_a_window_of_two_gigabytes() {
    let registry = registry();
    // RFC 8878 3.1.1: no content size; window of 2^31; one raw block of one byte, the last.
    let blob = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x09, 0x00, 0x00, 0x00];
    registry.image(
        "zoo/evil",
        "1",
        &[Layer::stored(
            "application/vnd.oci.image.layer.v1.tar+zstd",
            blob,
            b"",
        )],
    );
    refuses(
        "window",
        &registry,
        &[],
        "zstd window is larger than the limit of 8388608 bytes",
    );
}

#[test]
fn a_gzip_of_a_million_empty_members_is_read_to_its_end() {
    let registry = registry();
    let tar = dpkg_tar("patient");
    let blob = [gzip(b"").repeat(1_000_000), gzip(&tar)].concat();
    registry.image("zoo/evil", "1", &[Layer::stored(GZIP, blob, &tar)]);
    let place = place("members");
    pass(&registry, &place, 0, &[]);
    assert_eq!(names(&place, "zoo/evil", "1"), ["patient"]);
}

#[test]
fn a_zstd_of_a_million_skippable_frames_is_read_to_its_end() {
    let registry = registry();
    let tar = dpkg_tar("patient");
    let skippable = [0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 0];
    let frame = zstd::encode_all(&tar[..], 1).unwrap();
    let blob = [skippable.repeat(1_000_000), frame].concat();
    registry.image(
        "zoo/evil",
        "1",
        &[Layer::stored(
            "application/vnd.oci.image.layer.v1.tar+zstd",
            blob,
            &tar,
        )],
    );
    let place = place("skippable");
    pass(&registry, &place, 0, &[]);
    assert_eq!(names(&place, "zoo/evil", "1"), ["patient"]);
}

#[test]
fn a_pax_header_of_a_gigabyte() {
    for (name, type_flag) in [
        ("pax", b'x'),
        ("pax-global", b'g'),
        ("long-name", b'L'),
        ("long-link", b'K'),
    ] {
        let registry = registry();
        let layer = endless_layer(
            name,
            &tar_header("pax", type_flag, 1 << 30),
            &[b'9'; 1 << 16],
        );
        registry.image("zoo/evil", "1", &[layer]);
        refuses(
            name,
            &registry,
            &[],
            "a tar header is larger than the limit of 1048576 bytes",
        );
    }
}

#[test]
fn a_path_longer_than_any_system_has() {
    let registry = registry();
    let entries = [tar_pax("path", &"a/".repeat(5_000)), tar_file("x", b"")];
    registry.image("zoo/evil", "1", &[Layer::gzip(&tar(&entries))]);
    refuses(
        "path",
        &registry,
        &[],
        "a path is larger than the limit of 4096 bytes",
    );
}

#[test]
fn sparse_files_of_eight_exbibytes() {
    let status = "var/lib/dpkg/status";
    let mut old = tar_header(status, b'S', 512);
    old[386..398].copy_from_slice(b"00000000000\0");
    old[398..410].copy_from_slice(b"00000001000\0");
    old[483] = 0x80;
    old[487..495].copy_from_slice(&(i64::MAX as u64).to_be_bytes());
    old[148..156].fill(b' ');
    let sum: u64 = old.iter().map(|&byte| u64::from(byte)).sum();
    old[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    old.extend([b'x'; 512]);
    let new = [
        tar_pax("GNU.sparse.realsize", "9223372036854775807"),
        tar_file(status, b"Package: x\n"),
    ];
    for (name, entries) in [("old", vec![old]), ("new", new.to_vec())] {
        let registry = registry();
        registry.image("zoo/evil", "1", &[Layer::gzip(&tar(&entries))]);
        let place = place(&format!("sparse-{name}"));
        let ended = pass(&registry, &place, 0, &[]);
        assert_eq!(ended.total("incomplete"), 1);
        let problems = place.stored().problems();
        assert!(
            problems[0].contains("sparse file; its contents are not read"),
            "{problems:?}"
        );
    }
    let huge = [
        ("size", vec![tar_header("x", b'0', u64::MAX)], "tar: size"),
        (
            "pax-size",
            vec![
                tar_pax("size", "18446744073709551615"),
                tar_header("x", b'0', 0),
            ],
            "tar: size is too large",
        ),
        (
            "eof",
            vec![
                tar_pax("size", "9223372036854775807"),
                tar_header("x", b'0', 0),
            ],
            "tar: ends inside a file",
        ),
    ];
    for (name, entries, reason) in huge {
        let registry = registry();
        registry.image("zoo/evil", "1", &[Layer::gzip(&entries.concat())]);
        fails(&format!("huge-{name}"), &registry, &[reason]);
    }
}

#[test]
fn a_million_whiteouts() {
    let registry = registry();
    let entries: Vec<Vec<u8>> = (0..900_000)
        .map(|n| tar_header(&format!(".wh.{n:x}"), b'0', 0))
        .collect();
    registry.image("zoo/evil", "1", &[Layer::gzip(&tar(&entries))]);
    drop(entries);
    refuses(
        "whiteouts",
        &registry,
        &[],
        "the list of whiteouts is larger than the limit",
    );
}

#[test]
fn evidence_under_very_long_names() {
    let registry = registry();
    let folder = "long/".repeat(100) + &"n".repeat(3_000) + "/node_modules/";
    let mut bytes = Vec::new();
    for n in 0..40_000 {
        bytes.extend(tar_pax("path", &format!("{folder}{n}/package.json")));
        bytes.extend(tar_file("x", b"{\"name\":\"x\",\"version\":\"1\"}"));
    }
    registry.image("zoo/evil", "1", &[Layer::gzip(&bytes)]);
    drop(bytes);
    let place = place("evidence");
    let ended = pass(&registry, &place, 0, &[]);
    assert_eq!(ended.total("incomplete"), 1);
    let problems = place.stored().problems();
    assert!(
        problems[0].contains("more evidence than the limit"),
        "{}",
        problems[0]
    );
}

#[test]
fn one_large_layer_three_hundred_times() {
    let registry = registry();
    let mut entries: Vec<Vec<u8>> = (0..300_000)
        .map(|n| tar_header(&format!("f/{n:x}"), b'0', 0))
        .collect();
    entries.push(dpkg_tar("repeated"));
    let layer = Layer::gzip(&tar(&entries));
    drop(entries);
    registry.image("zoo/evil", "1", &vec![layer; 300]);
    let place = place("repeated");
    pass(&registry, &place, 0, &[]);
    assert_eq!(names(&place, "zoo/evil", "1"), ["repeated"]);
}

#[test]
fn refused_layers_of_sizes_that_cannot_be_added() {
    let registry = registry();
    let (head, piece) = gzip_pieces(b"", &[b'x'; 1 << 16]);
    let mut layer = Layer::stored(GZIP, [head, piece].concat(), b"");
    layer.size = 1 << 46;
    let mut window = Layer::stored(
        GZIP,
        vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x09, 0, 0, 0],
        b"",
    );
    window.size = 1 << 46;
    registry.image("zoo/evil", "1", &vec![window; 3]);
    registry.image("zoo/evil", "2", &[layer]);
    let place = place("sums");
    let ended = pass(&registry, &place, 3, &[]);
    ended.says(&["image indexed", "zoo/evil:1", "gaps=3"]);
    ended.says(&[
        "error image failed",
        "zoo/evil:2",
        "bytes of 70368744177664",
    ]);
}

#[test]
fn sizes_at_the_end_of_numbers() {
    let registry = registry();
    let layer = Layer::gzip(&dpkg_tar("evil"));
    for (tag, size) in [
        ("1", u64::MAX),
        ("2", i64::MAX as u64),
        ("3", 1 << 62),
        ("4", 0),
    ] {
        let mut layer = layer.clone();
        layer.size = size;
        layer.digest = digest(tag.as_bytes());
        registry.image("zoo/evil", tag, &vec![layer; 3]);
    }
    let place = place("sizes");
    let ended = pass(&registry, &place, 3, &[]);
    for tag in 1..=4 {
        ended.says(&["error image failed", &format!("zoo/evil:{tag}")]);
    }
}

// ---- documents --------------------------------------------------------------------

#[test]
fn a_manifest_without_end() {
    let registry = registry();
    registry.image("zoo/evil", "1", &[]);
    registry.hook(|request| {
        let is_it = request.path.contains("zoo/evil/manifests/sha256");
        is_it.then(|| {
            endless(
                OCI_MANIFEST,
                "{\"schemaVersion\":2,\"annotations\":{\"a\":\"",
                "lorem ipsum ",
            )
        })
    });
    fails(
        "manifest",
        &registry,
        &["manifest is larger than the limit of 4194304 bytes"],
    );
}

#[test]
fn a_configuration_without_end() {
    let registry = registry();
    let config = json!({"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(b"x"), "size": 1u64 << 30});
    let manifest =
        json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": []});
    registry.tag(
        "zoo/evil",
        "1",
        OCI_MANIFEST,
        manifest.to_string().as_bytes(),
    );
    fails(
        "config",
        &registry,
        &["image configuration is larger than the limit of 4194304 bytes"],
    );
}

#[test]
fn documents_that_are_no_manifests() {
    let registry = registry();
    let config = registry.blob("application/vnd.oci.image.config.v1+json", b"{}");
    let image = |digest: &str| {
        json!({"schemaVersion": 2, "config": config, "layers": [{"mediaType": GZIP, "digest": digest, "size": 3}]}).to_string()
    };
    let both =
        json!({"schemaVersion": 2, "config": config, "layers": [], "manifests": []}).to_string();
    let sha = |hex: &str| format!("sha256:{hex}");
    let entry = json!({"mediaType": OCI_MANIFEST, "digest": digest(b"x"), "size": 3});
    let layer = json!({"mediaType": GZIP, "digest": digest(b"x"), "size": 3});
    let mismatch =
        json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "config": config, "layers": []})
            .to_string();
    let cases = [
        ("brackets", "[".repeat(1_000_000), "not a manifest: "),
        ("braces", "{\"a\":".repeat(500_000), "not a manifest: "),
        ("both", both, "manifest is both an index and an image"),
        ("mismatch", mismatch, "the server says"),
        (
            "path",
            image("sha256:../../../../etc/passwd"),
            "is not a digest",
        ),
        ("slashes", image(&sha(&"/".repeat(64))), "is not a digest"),
        ("short", image(&sha("abc")), "is not a digest"),
        ("upper", image(&sha(&"A".repeat(64))), "is not a digest"),
        (
            "unknown",
            image("md5:d41d8cd98f00b204e9800998ecf8427e"),
            "digest algorithm `md5` is not supported",
        ),
        (
            "negative",
            image(&digest(b"x")).replace("\"size\":3", "\"size\":-3"),
            "has the size -3",
        ),
        (
            "layers",
            json!({"schemaVersion": 2, "config": config, "layers": vec![layer; 10_000]})
                .to_string(),
            "10000 layers are over the limit of 1000",
        ),
        (
            "entries",
            json!({"schemaVersion": 2, "manifests": vec![entry; 10_000]}).to_string(),
            "index of 10000 manifests is over the limit of 1000",
        ),
    ];
    for (tag, text, _) in &cases {
        registry.tag("zoo/evil", tag, OCI_MANIFEST, text.as_bytes());
    }
    let place = place("documents");
    let ended = pass(&registry, &place, 3, &[]);
    for (tag, _, reason) in &cases {
        ended.says(&["error image failed", &format!("zoo/evil:{tag} "), reason]);
    }
    assert_eq!(ended.total("failed"), cases.len() as u64);
    for blob in registry
        .requests()
        .iter()
        .filter(|seen| seen.target.contains("/blobs/"))
    {
        assert!(
            !blob.target.contains("..") && !blob.target.contains("passwd"),
            "{}",
            blob.target
        );
    }
}

fn index_of(entries: &[Value]) -> Vec<u8> {
    json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})
        .to_string()
        .into_bytes()
}

#[test]
fn indexes_inside_indexes() {
    let registry = registry();
    let image = registry.image_of(&[Layer::gzip(&dpkg_tar("deep"))]);
    let mut entry = registry.manifest(OCI_MANIFEST, &image);
    for _ in 0..6 {
        entry = registry.manifest(OCI_INDEX, &index_of(&[entry]));
    }
    registry.tag("zoo/evil", "1", OCI_INDEX, &index_of(&[entry]));
    fails(
        "nested",
        &registry,
        &["indexes are nested deeper than the limit of 4"],
    );
}

#[test]
fn indexes_that_name_each_other_or_themselves() {
    let registry = registry();
    // The registry hands out the same document under every digest, which names itself.
    let claimed = digest(b"loop");
    let entry = json!({"mediaType": OCI_INDEX, "digest": claimed, "size": 3});
    let bytes = index_of(&[entry]);
    registry.tag("zoo/evil", "1", OCI_INDEX, &bytes);
    registry.hook(move |request| {
        let is_it = request.path.ends_with(&claimed);
        is_it.then(|| Response::new(200).body(OCI_INDEX, bytes.clone()))
    });
    fails("loop", &registry, &["manifest has the digest"]);
}

#[test]
fn an_index_of_indexes_of_indexes() {
    let registry = registry();
    // A thousand times a thousand manifests, each another, made when they are asked for.
    let leaf = |of: u64, n: u64| {
        format!(r#"{{"schemaVersion":2,"manifests":[],"annotations":{{"n":"{of}.{n}"}}}}"#)
    };
    let branch = move |of: u64| {
        let entries: Vec<Value> = (0..1_000)
            .map(|n| json!({"mediaType": OCI_INDEX, "digest": digest(leaf(of, n).as_bytes()), "size": 3}))
            .collect();
        index_of(&entries)
    };
    let branches: Vec<Value> = (0..20)
        .map(|of| {
            let bytes = branch(of);
            (0..1_000).for_each(|n| {
                registry.manifest(OCI_INDEX, leaf(of, n).as_bytes());
            });
            registry.manifest(OCI_INDEX, &bytes)
        })
        .collect();
    registry.tag("zoo/evil", "1", OCI_INDEX, &index_of(&branches));
    fails(
        "fan-out",
        &registry,
        &["more than the limit of 1000 manifests"],
    );
    assert!(registry.count("GET", "zoo/evil/manifests") < 4_100);
}

#[test]
fn an_index_of_images_with_very_many_layers() {
    let registry = registry();
    let layer = json!({"mediaType": GZIP, "digest": digest(b"layer"), "size": 3});
    let entries: Vec<Value> = (0..300)
        .map(|n| {
            let config = registry.blob(
                "application/vnd.oci.image.config.v1+json",
                format!(r#"{{"os":"linux","architecture":"a{n}"}}"#).as_bytes(),
            );
            let manifest =
                json!({"schemaVersion": 2, "config": config, "layers": vec![&layer; 1_000]});
            registry.manifest(OCI_MANIFEST, manifest.to_string().as_bytes())
        })
        .collect();
    registry.tag("zoo/evil", "1", OCI_INDEX, &index_of(&entries));
    fails(
        "many-layers",
        &registry,
        &["the 6000 layers of the tag's images are over the limit of 5000"],
    );
}

// ---- listings ---------------------------------------------------------------------

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

#[test]
fn a_catalog_without_end() {
    let registry = registry();
    let next = AtomicU64::new(0);
    registry.hook(move |request| {
        request.path.ends_with("/_catalog").then(|| {
            let at = next.fetch_add(100, Ordering::Relaxed);
            let names: Vec<String> = (at..at + 100)
                .map(|n| format!("endless/name-of-some-length-{n}"))
                .collect();
            Response::json(200, &json!({"repositories": names})).header(
                "Link",
                format!("</v2/_catalog?n=100&last={}>; rel=\"next\"", at + 99),
            )
        })
    });
    cannot_list("catalog", &registry, &["listing the catalog", "limit of"]);
}

#[test]
fn a_catalog_of_large_pages_without_end() {
    let registry = registry();
    let next = AtomicU64::new(0);
    registry.hook(move |request| {
        request.path.ends_with("/_catalog").then(|| {
            let at = next.fetch_add(100_000, Ordering::Relaxed);
            let names: Vec<String> = (at..at + 100_000).map(|n| format!("{n:x}")).collect();
            Response::json(200, &json!({"repositories": names})).header(
                "Link",
                format!("</v2/_catalog?n=100&last={}>; rel=\"next\"", at + 99),
            )
        })
    });
    cannot_list(
        "large-pages",
        &registry,
        &["listing the catalog", "limit of"],
    );
}

#[test]
fn a_catalog_page_without_end() {
    for (name, then) in [
        ("long", "\"some/name-of-a-repository\","),
        ("short", "\"a\","),
        ("one-name", "aaaaaaaaaaaaaaaaa"),
    ] {
        let registry = registry();
        registry.hook(move |request| {
            let is_it = request.path.ends_with("/_catalog");
            is_it.then(|| {
                endless(
                    "application/json",
                    if name == "one-name" {
                        "{\"repositories\":[\""
                    } else {
                        "{\"repositories\":["
                    },
                    then,
                )
            })
        });
        cannot_list(
            &format!("page-{name}"),
            &registry,
            &["listing the catalog", "limit of"],
        );
    }
}

#[test]
fn tags_without_end() {
    let registry = registry();
    registry.image("zoo/evil", "1", &[]);
    let next = AtomicU64::new(0);
    registry.hook(move |request| {
        request.path.ends_with("zoo/evil/tags/list").then(|| {
            let at = next.fetch_add(100_000, Ordering::Relaxed);
            // Not tags, so that nothing has to be asked of them.
            let names: Vec<String> = (at..at + 100_000).map(|n| format!("-{n:x}")).collect();
            Response::json(200, &json!({"name": "zoo/evil", "tags": names})).header(
                "Link",
                format!("</v2/zoo/evil/tags/list?n=1000&last={at}>; rel=\"next\""),
            )
        })
    });
    let place = place("tags");
    let ended = pass(&registry, &place, 3, &[]);
    ended.says(&["zoo/evil", "listing the tags", "limit of"]);
}

#[test]
fn links_that_go_round_in_circles() {
    let registry = registry();
    registry.hook(|request| {
        let names = match request.path.as_str() {
            "/v2/_catalog" => json!({"repositories": ["zoo/good"]}),
            "/v2/zoo/good/tags/list" => json!({"name": "zoo/good", "tags": ["1"]}),
            _ => return None,
        };
        Some(
            Response::json(200, &names)
                .header("Link", format!("<{}?n=100>; rel=\"next\"", request.path)),
        )
    });
    let place = place("circles");
    pass(&registry, &place, 0, &[]);
    assert!(registry.count("GET", "/_catalog") <= 2);
}

#[test]
fn a_head_of_an_answer_without_end() {
    let registry = Recorder::start(&format!(
        "HTTP/1.1 200 OK\r\nX-Long: {}",
        "a".repeat(50 << 20)
    ));
    let place = place("head");
    let ended = place
        .watch(&["--registry", &registry.host(), "--all-images"])
        .with_code(1);
    assert_bounded(&ended);
    ended.says(&["crowsnest: ", &registry.host()]);
}

// ---- other hosts ------------------------------------------------------------------

#[test]
fn blobs_and_manifests_redirected_to_another_host() {
    let other =
        Recorder::start("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi");
    let registry = registry();
    let layer = Layer::gzip(&dpkg_tar("evil"));
    registry.image("zoo/evil", "1", std::slice::from_ref(&layer));
    let manifest = registry.image("zoo/moved", "1", &[Layer::gzip(&dpkg_tar("moved"))]);
    let location = format!("http://{}/blob?X-Amz-Signature=s1gned", other.host());
    registry.hook(move |request| {
        if request.header("authorization").is_none() {
            let basic = "Basic realm=\"zoo\"";
            return Some(
                Response::status_error(401, "who are you").header("WWW-Authenticate", basic),
            );
        }
        let is_it = request.path.contains(&layer.digest)
            || (request.path.ends_with(&manifest) && !request.is_head());
        is_it.then(|| Response::new(307).header("Location", location.clone()))
    });
    let place = place("redirect");
    let ended = pass(&registry, &place, 3, &[]);
    ended.says(&["error image failed", "zoo/evil:1"]);
    ended.says(&["error image failed", "zoo/moved:1"]);
    assert!(!ended.stderr.contains("s1gned"), "{}", ended.stderr);
    let heard = other.heard();
    assert!(
        heard.contains("GET /blob?X-Amz-Signature=s1gned HTTP/1.1"),
        "{heard}"
    );
    assert!(
        !heard.to_ascii_lowercase().contains("authorization"),
        "{heard}"
    );
    assert_no_secret(&heard);
}

#[test]
fn redirects_that_never_arrive() {
    let registry = registry();
    registry.image("zoo/evil", "1", &[Layer::gzip(&dpkg_tar("evil"))]);
    let (own, host) = (registry.url(), registry.host());
    registry.hook(move |request| {
        let is_it = request.path.contains("zoo/evil/manifests/sha256");
        is_it.then(|| Response::new(302).header("Location", format!("{own}{}", request.path)))
    });
    fails("circle", &registry, &["more than 5 redirects from", &host]);
}

#[test]
fn redirects_to_places_that_are_no_registry() {
    for (name, location, reason) in [
        ("file", "file:///etc/passwd", "is not http"),
        (
            "metadata",
            "http://169.254.169.254/latest/meta-data/",
            "169.254.169.254",
        ),
        (
            "metadata-tls",
            "https://169.254.169.254/latest/meta-data/",
            "internal address `169.254.169.254`",
        ),
        (
            "plain",
            "http://192.0.2.1/x",
            "plain HTTP to `192.0.2.1` is not allowed",
        ),
        (
            "password",
            "http://u:p@127.0.0.1/x",
            "credentials do not belong",
        ),
    ] {
        let registry = registry();
        registry.image("zoo/evil", "1", &[Layer::gzip(&dpkg_tar("evil"))]);
        registry.hook(move |request| {
            let is_it = request.path.contains("zoo/evil/manifests/sha256");
            is_it.then(|| Response::new(302).header("Location", location))
        });
        fails(&format!("redirect-{name}"), &registry, &[reason]);
    }
}

#[test]
fn token_realms_on_other_hosts() {
    let answer = r#"{"token":"t"}"#;
    let length = answer.len();
    let other = Recorder::start(&format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{answer}"
    ));
    let other_host = other.host();
    for (name, realm, reason) in [
        (
            "http",
            format!("http://{other_host}/token"),
            other_host.as_str(),
        ),
        (
            "https",
            format!("https://{other_host}/token"),
            other_host.as_str(),
        ),
        (
            "metadata",
            "http://169.254.169.254/token".to_owned(),
            "token realm `http://169.254.169.254/token` is an internal address",
        ),
        (
            "metadata-tls",
            "https://169.254.169.254/token".to_owned(),
            "token realm `https://169.254.169.254/token` is an internal address",
        ),
        ("file", "file:///etc/passwd".to_owned(), "token realm"),
        (
            "user",
            format!("http://a:b@{other_host}/token"),
            "token realm",
        ),
    ] {
        let registry = registry();
        registry.hook(move |_| {
            let challenge = format!("Bearer realm=\"{realm}\",service=\"zoo\"");
            Some(Response::status_error(401, "who are you").header("WWW-Authenticate", challenge))
        });
        let ended = cannot_list(&format!("realm-{name}"), &registry, &[reason]);
        assert!(
            ended.elapsed < Duration::from_secs(20),
            "{:?}",
            ended.elapsed
        );
    }
    let heard = other.heard();
    assert!(heard.contains("GET /token?service=zoo"), "{heard}");
    assert!(
        !heard.to_ascii_lowercase().contains("authorization"),
        "{heard}"
    );
    assert_no_secret(&heard);
}

#[test]
fn a_token_that_is_a_header_of_its_own() {
    let registry = registry();
    let realm = format!("{}/token", registry.url());
    registry.hook(move |request| {
        if request.path == "/token" {
            return Some(Response::json(
                200,
                &json!({"token": "a\r\nX-Smuggled: yes"}),
            ));
        }
        let challenge = format!("Bearer realm=\"{realm}\"");
        Some(Response::status_error(401, "who are you").header("WWW-Authenticate", challenge))
    });
    cannot_list("smuggled", &registry, &["answered without a token"]);
    assert!(
        registry
            .requests()
            .iter()
            .all(|seen| seen.header("x-smuggled").is_none())
    );
}

// ---- connections ------------------------------------------------------------------

/// A tar of some size that does not compress.
fn noisy_tar(package: &str) -> Vec<u8> {
    let noise: Vec<u8> = (0..500_000u32)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).rotate_left(7).to_le_bytes())
        .collect();
    [tar_file("noise", &noise), dpkg_tar(package)].concat()
}

#[test]
fn a_connection_that_breaks_in_a_blob() {
    for ranges in [true, false] {
        let registry = registry();
        let layer = Layer::plain(&noisy_tar("resumed"));
        registry.image("zoo/evil", "1", std::slice::from_ref(&layer));
        let breaks = AtomicU64::new(3);
        let (digest, bytes) = (layer.digest.clone(), noisy_tar("resumed"));
        registry.hook(move |request| {
            if !request.path.contains(&digest) {
                return None;
            }
            let is_broken = breaks
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
                .is_ok();
            let from = request
                .header("range")
                .and_then(|range| {
                    range
                        .strip_prefix("bytes=")?
                        .strip_suffix('-')?
                        .parse::<usize>()
                        .ok()
                })
                .filter(|_| ranges);
            let mut response = match from {
                Some(from) => Response::new(206)
                    .header(
                        "Content-Range",
                        format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len()),
                    )
                    .body(GZIP, bytes[from..].to_vec()),
                None => Response::new(200).body(GZIP, bytes.clone()),
            };
            response.cut_after = is_broken.then_some(if ranges { 300_000 } else { 600_000 });
            Some(response)
        });
        let place = place("broken");
        let ended = pass(&registry, &place, 0, &[]);
        assert_eq!(names(&place, "zoo/evil", "1"), ["resumed"]);
        assert_eq!(ended.total("layers_read"), 2);
        let asked: Vec<Option<String>> = registry
            .requests()
            .iter()
            .filter(|seen| seen.target.contains(&layer.digest))
            .map(|seen| seen.header("range").map(str::to_owned))
            .collect();
        assert_eq!(asked.len(), 4, "{asked:?}");
        assert!(asked[1..].iter().all(Option::is_some), "{asked:?}");
    }
}

#[test]
fn a_blob_that_always_ends_early_is_given_up() {
    let registry = registry();
    let layer = Layer::plain(&noisy_tar("never"));
    registry.image("zoo/evil", "1", std::slice::from_ref(&layer));
    let digest = layer.digest;
    registry.hook(move |request| {
        request.path.contains(&digest).then(|| {
            let mut response = Response::new(200).body(GZIP, vec![0; 5_000]);
            response.cut_after = Some(0);
            response
        })
    });
    let place = place("never");
    let ended = pass(&registry, &place, 3, &[]);
    ended.says(&["error image failed", "zoo/evil:1", "layer `sha256:"]);
}

#[test]
fn a_slow_first_byte_is_waited_for() {
    let registry = registry();
    registry.hook(|request| {
        if request.path.contains("/blobs/") {
            std::thread::sleep(Duration::from_millis(1_200));
        }
        None
    });
    let place = place("slow");
    pass(&registry, &place, 0, &[]);
}

#[test]
fn a_wait_that_no_one_lives_to_see_the_end_of() {
    for wait in [
        "18446744073709551615",
        "86400",
        "Fri, 31 Dec 9999 23:59:59 GMT",
    ] {
        // Alone, since the host is left alone for its sake.
        let registry = FakeRegistry::start();
        registry.image("zoo/evil", "1", &[Layer::gzip(&dpkg_tar("evil"))]);
        registry.hook(move |request| {
            let is_it = request.path.contains("zoo/evil/manifests/sha256");
            is_it.then(|| Response::status_error(429, "too many").header("Retry-After", wait))
        });
        let ended = place("wait")
            .watch(&["--all-images", "--registry", &registry.host()])
            .with_code(3);
        ended.says(&["zoo/evil:1", "answered 429: too many"]);
        ended.says(&["host asks to wait", "status=429"]);
        assert!(ended.elapsed < Duration::from_secs(30), "{wait}");
    }
}

#[test]
fn text_from_outside_cannot_write_to_the_terminal_or_into_the_log() {
    let registry = registry();
    registry.image("zoo/evil", "1", &[Layer::gzip(&dpkg_tar("evil"))]);
    registry.hook(|request| {
        let is_it = request.path.contains("zoo/evil/manifests/sha256");
        let message = "\u{1b}]0;title\u{7}\u{1b}[2J\r\n::set-output name=x::y\n2026 error image failed \u{202e}";
        is_it.then(|| Response::status_error(404, message))
    });
    let place = place("text");
    let ended = pass(&registry, &place, 3, &[]);
    ended.says(&["error image failed", "zoo/evil:1", "set-output"]);
    assert!(
        !ended.stderr.contains(['\u{1b}', '\u{7}', '\r', '\u{202e}']),
        "{:?}",
        ended.stderr
    );
    assert!(
        ended.stderr.lines().all(|line| !line.starts_with("::")),
        "{}",
        ended.stderr
    );
}
