//! Registries and images that mean harm: each ends in one clear line, in little memory, beside images that
//! are indexed all the same ("Done when" 6 of issue 3; `reference/peers.md` 6.3).
//!
//! Inputs of `reference/peers.md` 6.3 that concern reading, one a row, and the test that shows each; what stands
//! there for advisories, archives inside of images (jar, zip, pom), referrers, dashboard and notifications is not
//! read yet, and webhooks have tests of their own. Where 6.3 names several ids for an input, one of them is here.
//!
//! | of 6.3 | input | test |
//! |---|---|---|
//! | claircore CVE-2021-3762 | file names `../../x` | `names_that_lead_out_of_the_image` |
//! | claircore CVE-2021-3762 | absolute file names | `names_that_lead_out_of_the_image` |
//! | claircore CVE-2021-3762 | a file through a symlink that leaves the image | `links_that_lead_out_of_the_image` |
//! | claircore CVE-2026-10517 | layer `urls` that point to another host | `layers_that_live_elsewhere_are_not_fetched_from_there` |
//! | claircore CVE-2026-10517 | layer `urls` with 169.254.169.254 | `layers_that_live_elsewhere_are_not_fetched_from_there` |
//! | claircore CVE-2026-10517 | a redirect to 169.254.169.254 | `redirects_to_places_that_are_no_registry` |
//! | claircore CVE-2026-10517 | a redirect from a public host to loopback | `redirects_to_internal_or_plain_places_are_refused` |
//! | osv-scalibr CVE-2025-5981 | a database that is a symlink out of the image | `links_that_lead_out_of_the_image` |
//! | osv-scalibr CVE-2025-5981 | a database that is a hard link out of the image | `links_that_lead_out_of_the_image` |
//! | osv-scalibr CVE-2025-13425 | archives that end or break anywhere | `archives_that_end_or_break_anywhere` |
//! | osv-scalibr CVE-2025-13425 | names that are empty, dots or no text | `names_that_are_empty_or_odd` |
//! | stereoscope CVE-2024-24579 | `blobs/sha256/../../x` in an archive of images | `names_of_archives_are_never_paths` |
//! | syft CVE-2026-33481 | killed in the middle of a bomb | `a_bomb_that_is_being_read_leaves_nothing_when_stopped_or_killed` |
//! | syft CVE-2026-33481 | SIGTERM in the middle of a bomb | `a_bomb_that_is_being_read_leaves_nothing_when_stopped_or_killed` |
//! | syft CVE-2026-33481 | an error in the middle of a layer | `a_blob_that_always_ends_early_is_given_up` |
//! | syft CVE-2023-24827 | secrets in `Env`, labels, commands and history | `secrets_of_images_and_of_ours_are_in_no_output` |
//! | grype CVE-2025-65965 | our own credentials in log, views or store | `secrets_of_images_and_of_ours_are_in_no_output` |
//! | harbor GHSA-prh4-vhfh-24mj, zot CVE-2025-48374 | credentials in debug and JSON logs | `secrets_of_images_and_of_ours_are_in_no_output` |
//! | trivy CVE-2024-35192 | a host whose name is like a known one | `hosts_that_look_like_a_known_one_get_nothing` |
//! | trivy CVE-2024-35192 | a token realm on another host | `token_realms_on_other_hosts` |
//! | trivy CVE-2026-54448 | 10 GB of zeros in a small layer | `ten_gigabytes_of_zeros` |
//! | trivy CVE-2026-54448 | 10 GB behind the end of the archive | `ten_gigabytes_of_zeros_behind_the_end_of_the_archive` |
//! | trivy CVE-2026-54448 | gzip in gzip | `compressed_bytes_that_are_damaged` |
//! | regclient GHSA-qv35-3gw6-8q4j | other content for a manifest's digest | `a_manifest_with_other_content` |
//! | regclient GHSA-qv35-3gw6-8q4j | other content for a configuration's digest | `a_configuration_with_other_content` |
//! | regclient GHSA-qv35-3gw6-8q4j | other content for a layer's digest | `a_blob_with_other_content_than_its_digest_says` |
//! | regclient CVE-2026-49349 | a blob redirected to another host | `redirects_to_another_host_port_or_scheme_carry_no_credentials` |
//! | regclient CVE-2026-49349 | a blob redirected to another port | `redirects_to_another_host_port_or_scheme_carry_no_credentials` |
//! | regclient CVE-2026-49349 | a blob redirected to another scheme | `redirects_to_another_host_port_or_scheme_carry_no_credentials` |
//! | oras-go CVE-2026-50151 | a manifest redirected to another host | `blobs_and_manifests_redirected_to_another_host` |
//! | oras-go CVE-2026-48978 | a `realm` of plain HTTP for a registry of HTTPS | `realms_that_are_plain_or_internal_are_not_asked` |
//! | oras-go GHSA-vh4v-2xq2-g5cg | a redirect whose URL has credentials | `redirects_to_places_that_are_no_registry` |
//! | distribution CVE-2026-33540 | a `realm` with an internal address | `realms_that_are_plain_or_internal_are_not_asked` |
//! | distribution CVE-2026-33540 | challenges that are endless, cut off or nonsense | `challenges_that_make_no_sense` |
//! | distribution CVE-2026-33540 | token answers that are endless, deep or no token | `token_answers_without_end_or_sense` |
//! | distribution CVE-2026-33540 | a token with a line end in it | `a_token_that_is_a_header_of_its_own` |
//! | distribution CVE-2023-2253 | pages far over the size asked for | `a_catalog_of_large_pages_without_end` |
//! | distribution CVE-2023-2253 | a page that never ends | `a_catalog_page_without_end` |
//! | distribution CVE-2023-2253 | a chain of `Link` that never ends | `a_catalog_without_end` |
//! | distribution CVE-2023-2253 | a chain of `Link` that goes in circles | `links_that_go_round_in_circles` |
//! | distribution CVE-2023-2253 | tags without end | `tags_without_end` |
//! | containers/image CVE-2019-10214 | credentials over plain HTTP | `plain_http_needs_permission` |
//! | containers/image CVE-2024-3727 | a digest `sha256:../..` | `documents_that_are_no_manifests` |
//! | containers/image CVE-2024-3727 | a digest of the wrong length | `documents_that_are_no_manifests` |
//! | containers/image CVE-2024-3727 | a digest in upper case | `documents_that_are_no_manifests` |
//! | containers/image CVE-2024-3727 | a digest of an unknown algorithm | `documents_that_are_no_manifests` |
//! | containers/image CVE-2024-3727 | a diff id `sha256:../..` | `configurations_that_are_none` |
//! | containers/image CVE-2024-3727 | repositories and tags that are paths | `names_that_are_paths_or_orders` |
//! | containerd CVE-2020-15157 | credentials to the host of a foreign layer | `layers_that_live_elsewhere_are_not_fetched_from_there` |
//! | containerd CVE-2023-25153 | a manifest without end | `a_manifest_without_end` |
//! | containerd CVE-2023-25153 | an index without end | `an_index_without_end` |
//! | containerd CVE-2023-25153 | a configuration of a gigabyte | `a_configuration_without_end` |
//! | containerd CVE-2023-25153 | documents of a gigabyte in an archive of images | `documents_without_end_stop_at_their_limit` |
//! | containerd CVE-2023-25153 | a manifest of 300,000 layers, or an index of as many manifests | `documents_of_a_million_small_things` |
//! | containerd CVE-2023-25153 | a million urls, annotations, variables, labels or diff ids | `documents_of_a_million_small_things` |
//! | containerd CVE-2023-25153 | words of megabytes in a manifest or configuration | `documents_with_very_long_words` |
//! | containerd GHSA-5j5w-g665-5m35 | `manifests` and `layers` in one document | `documents_that_are_no_manifests` |
//! | distribution GHSA-qq97-vm5h-rrhg | a `mediaType` that is not the server's | `documents_that_are_no_manifests` |
//! | containerd CVE-2026-47262 | a `status` that is far too large | `databases_of_a_hundred_and_fifty_megabytes` |
//! | containerd CVE-2026-47262 | an `installed` that is far too large | `databases_of_a_hundred_and_fifty_megabytes` |
//! | containerd CVE-2026-47262 | an `os-release` that is far too large | `databases_of_a_hundred_and_fifty_megabytes` |
//! | containerd CVE-2026-47262 | an `/etc/passwd` that is far too large | `databases_of_a_hundred_and_fifty_megabytes` |
//! | containerd CVE-2026-47262 | a `status` and an `installed` of a million packages | `databases_of_very_many_packages` |
//! | containerd CVE-2026-47262 | a database of nothing but mistakes | `a_file_of_nothing_but_mistakes` |
//! | cosign CVE-2024-29902 | indexes that fan out to a million manifests | `an_index_of_indexes_of_indexes` |
//! | go archive/tar CVE-2022-2879 | pax headers and long names of a gigabyte | `a_pax_header_of_a_gigabyte` |
//! | go archive/tar CVE-2025-58183 | an old GNU sparse map that never ends | `headers_without_end` |
//! | go archive/tar CVE-2022-2879 | pax headers and long names with no entry behind them, for ever | `headers_without_end` |
//! | go archive/tar CVE-2026-32288 | sparse files of GNU, old and new | `sparse_files_of_eight_exbibytes` |
//! | go archive/tar CVE-2026-32288 | a file of 8 EiB | `sparse_files_of_eight_exbibytes` |
//! | xz CVE-2025-58058 | xz and lzma with giant dictionaries | `compressions_that_are_not_read` |
//! | s2 CVE-2025-11579 | a zstd frame with a giant window | `a_zstd_frame_with_a_window_of_two_gigabytes` |
//! | xz GHSA-259r-337f-4rfw | a flood of skippable zstd frames | `a_zstd_of_a_million_skippable_frames_is_read_to_its_end` |
//! | rardecode CVE-2021-29482 | a million empty gzip members | `a_gzip_of_a_million_empty_members_is_read_to_its_end` |
//! | rardecode CVE-2021-29482 | damaged gzip and zstd | `compressed_bytes_that_are_damaged` |
//! | encoding CVE-2022-30633 | a manifest of a million `[` | `documents_that_are_no_manifests` |
//! | encoding CVE-2022-30633 | a configuration of a million `[` | `configurations_that_are_none` |
//! | encoding CVE-2022-30633 | a `package.json` of a million `[` | `package_files_a_million_deep` |
//! | encoding CVE-2022-30633 | a catalog and tags of a million `[` | `listings_a_million_deep` |
//! | encoding CVE-2022-30633 | an error body of a million `[` | `error_bodies_without_end` |
//! | stereoscope #647 | `.wh.` at the root and in a folder | `whiteouts_without_a_name_or_a_folder` |
//! | stereoscope #647 | `.wh..wh.` and other names of aufs | `whiteouts_without_a_name_or_a_folder` |
//! | stereoscope #647 | a whiteout below a file | `whiteouts_without_a_name_or_a_folder` |
//! | claircore 1.5.54 | an apk line of one byte | `databases_that_are_odd` |
//! | claircore 1.5.54 | blank lines, and no line end at the end | `databases_that_are_odd` |
//! | claircore 1.5.54 | NUL bytes | `databases_that_are_odd` |
//! | claircore 1.5.54 | text that is not UTF-8 | `databases_that_are_odd` |
//! | osv-scanner #2837 | files of ecosystems that are not known | `files_of_unread_ecosystems` |
//! | osv-scanner #2750 | escape sequences in packages, paths and labels | `text_of_images_is_harmless_in_every_output` |
//! | osv-scanner #2807 | `::set-output` behind a line end in them | `text_of_images_is_harmless_in_every_output` |
//! | osv-scanner #2669 | bidirectional and invisible marks in them | `text_of_images_is_harmless_in_every_output` |
//! | osv-scanner #2669 | all of these in a server's error | `text_from_outside_cannot_write_to_the_terminal_or_into_the_log` |
//! | harbor CVE-2024-22261 | SQL in the name of a package | `databases_that_are_odd` |

mod archives;
mod configurations;
mod connections;
mod files;
mod hosts;
mod layers;
mod listings;
mod manifests;
mod text;
mod tokens;

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::crowsnest::{Crowsnest, Ended};
use crate::emulator::message::{Payload, Response};
use crate::fake_registry::{FakeRegistry, Layer, OCI_INDEX, dpkg_tar};
use crate::sources;

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

/// Every test of the table above is there, and no input stands there twice.
#[test]
fn the_table_of_inputs_names_tests_that_exist() {
    let table = include_str!("mod.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("//! | "));
    let rows: Vec<Vec<&str>> = table
        .skip(1)
        .map(|row| row.trim_end_matches(" |").split(" | ").collect())
        .collect();
    let inputs: BTreeSet<&str> = rows.iter().map(|row| row[1]).collect();
    assert_eq!(inputs.len(), rows.len(), "an input is there twice");
    assert!(rows.len() >= 80, "{} inputs", rows.len());
    let mut tests = BTreeSet::new();
    for folder in ["src", "tests/it"] {
        let mut texts = Vec::new();
        rust_files(&sources::project().join(folder), &mut texts);
        for text in texts {
            let behind = text.split("#[test]").skip(1);
            tests.extend(behind.filter_map(|text| {
                Some(
                    text.trim_start()
                        .strip_prefix("fn ")?
                        .split_once('(')?
                        .0
                        .to_owned(),
                )
            }));
        }
    }
    let missing: Vec<&str> = rows
        .iter()
        .map(|row| row[2].trim_matches('`'))
        .filter(|name| !tests.contains(*name))
        .collect();
    assert_eq!(missing, [""; 0]);
}

fn rust_files(folder: &Path, texts: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, texts);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            texts.push(std::fs::read_to_string(path).unwrap());
        }
    }
}
