//! The pitfalls of `reference/registries.md` section G that concern reading, one test a row, by its number: in
//! front of the emulator with its switches in each position, or of a registry of the test's own.
//!
//! Rows 12 to 15, 17 and 26 are about webhooks and referrers; 28 and parts of 10 are in `hostile`, 31 in `real`.

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::crowsnest::{Crowsnest, Ended};
use crate::emulator::message::Response;
use crate::emulator::{Class, Config, Emulator, Repository};
use crate::fake_registry::{
    FakeRegistry, GZIP, Layer, OCI_INDEX, OCI_MANIFEST, digest, dpkg_tar, gzip,
};

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// An Artifactory with repositories of each class and nothing in them.
pub(crate) fn artifactory() -> Emulator {
    let members = vec!["docker-local".into(), "other-local".into(), "hub".into()];
    Emulator::start(Config {
        repositories: vec![
            Repository::new("docker-local", Class::Local),
            Repository::new("other-local", Class::Federated),
            Repository::new("hub", Class::Remote),
            Repository::new(
                "docker",
                Class::Virtual {
                    members,
                    default_deployment: None,
                },
            ),
        ],
        ..Config::default()
    })
}

/// A manifest whose image has one package, and its blobs.
pub(crate) fn manifest(architecture: &str, package: &str) -> (Vec<u8>, [Vec<u8>; 2]) {
    let tar = dpkg_tar(package);
    let layer = gzip(&tar);
    let config = json!({
        "os": "linux", "architecture": architecture,
        "rootfs": {"type": "layers", "diff_ids": [digest(&tar)]},
    });
    let config = config.to_string().into_bytes();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": {"mediaType": CONFIG, "digest": digest(&config), "size": config.len()},
        "layers": [{"mediaType": GZIP, "digest": digest(&layer), "size": layer.len()}],
    });
    (manifest.to_string().into_bytes(), [config, layer])
}

/// Stores an image in a repository of the emulator.
pub(crate) fn seed(emulator: &Emulator, repository: &str, image: &str, tag: &str) -> String {
    let (manifest, blobs) = manifest("amd64", "harmless");
    for blob in &blobs {
        emulator.seed_blob(blob);
    }
    emulator.seed(repository, image, tag, &manifest)
}

pub(crate) fn place(name: &str) -> Crowsnest {
    Crowsnest::new(name)
        .set("CROWSNEST_ARTIFACTORY_API_USER", "admin")
        .set("CROWSNEST_ARTIFACTORY_API_PASSWORD", "password")
        .set("CROWSNEST_REGISTRY_USER", "admin")
        .set("CROWSNEST_REGISTRY_PASSWORD", "password")
}

/// One pass over a key.
fn pass(emulator: &Emulator, place: &Crowsnest, key: &str) -> Ended {
    let (host, api) = (emulator.host(), emulator.base_url());
    let registry = format!("type=artifactory,registry={host},api={api},repository={key}");
    place.watch(&["--all-images", "--registry", &registry])
}

/// One pass over repositories of a host, by the registry protocol alone.
fn pull(host: &str, place: &Crowsnest, repository: &str) -> Ended {
    place.watch(&[
        "--all-images",
        "--repository",
        &format!("{host}/{repository}"),
    ])
}

/// `repository:tag` of everything indexed.
pub(crate) fn images(place: &Crowsnest) -> BTreeSet<String> {
    let images = place.stored().images().into_iter();
    images
        .map(|(repository, tag, _)| format!("{repository}:{tag}"))
        .collect()
}

pub(crate) fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

/// A registry with the images `app-0` to `app-249`, whose catalog pages as `link` says: it gets the last name of
/// a page and the number of names so far.
fn paged(link: impl Fn(&str, usize) -> Option<String> + Send + Sync + 'static) -> FakeRegistry {
    let registry = FakeRegistry::start();
    let mut names: Vec<String> = (0..250).map(|n| format!("app-{n}")).collect();
    names.sort();
    for name in &names {
        registry.image(name, "1", &[Layer::gzip(&dpkg_tar("harmless"))]);
    }
    registry.hook(move |request| {
        if !request.path.ends_with("/_catalog") {
            return None;
        }
        let n = request
            .parameter("n")
            .and_then(|n| n.parse().ok())
            .unwrap_or(100);
        let start = match request.parameter("last") {
            Some(last) => last
                .parse()
                .unwrap_or_else(|_| names.partition_point(|name| name.as_str() <= last)),
            None => 0,
        };
        let end = (start + n).min(names.len());
        let page = &names[start.min(end)..end];
        let answer = Response::json(200, &json!({"repositories": page}));
        let next = page
            .last()
            .filter(|_| end < names.len())
            .and_then(|last| link(last, end));
        Some(match next {
            Some(next) => answer.header("Link", format!("<{next}>; rel=\"next\"")),
            None => answer,
        })
    });
    registry
}

#[test]
fn pitfall_01_link_without_repository_key_or_with_an_offset() {
    for link in [
        "live", "correct", "no-key", "numeric", "foreign", "absolute", "loop",
    ] {
        let emulator = artifactory();
        let mut wanted = BTreeSet::new();
        for image in ["a", "b", "team/c", "team/d", "z"] {
            for tag in ["1", "2", "3"] {
                seed(&emulator, "docker-local", image, tag);
                wanted.insert(format!("docker-local/{image}:{tag}"));
            }
        }
        emulator.set("aql", "403");
        emulator.set("page_max", "2");
        emulator.set("link", link);
        let place = place(&format!("link-{link}"));
        pass(&emulator, &place, "docker-local").with_code(0);
        if link == "loop" {
            assert!(images(&place).len() >= 4, "{:?}", images(&place));
            assert!(emulator.count_requests("GET", "_catalog") <= 3);
        } else {
            assert_eq!(images(&place), wanted, "{link}");
        }
    }
}

#[test]
fn pitfall_02_link_to_another_path() {
    for prefix in [
        "/repository/docker/v2/_catalog",
        "https://elsewhere.example/v2/_catalog",
        "",
    ] {
        let registry = paged(move |last, _| Some(format!("{prefix}?n=100&last={last}")));
        let place = place("other-path");
        place
            .watch(&["--all-images", "--registry", &registry.host()])
            .with_code(0);
        assert_eq!(images(&place).len(), 250, "{prefix}");
        assert_eq!(registry.count("GET", "/repository/"), 0);
    }
}

#[test]
fn pitfall_03_no_link_though_truncated() {
    let registry = paged(|_, _| None);
    let place = place("no-link");
    place
        .watch(&["--all-images", "--registry", &registry.host()])
        .with_code(0);
    assert_eq!(images(&place).len(), 250);
}

#[test]
fn pitfall_04_catalog_refuses_a_page_size_over_its_maximum() {
    let emulator = artifactory();
    for n in 0..7 {
        seed(&emulator, "docker-local", &format!("app-{n}"), "1");
    }
    emulator.set("aql", "403");
    for (most, page) in [("10", "3"), ("1", "1")] {
        emulator.set("page_refuse_over", most);
        emulator.set("page_max", page);
        let place = place("page-size");
        pass(&emulator, &place, "docker-local").with_code(0);
        assert_eq!(images(&place).len(), 7);
    }
}

#[test]
fn pitfall_05_catalog_empty_or_forbidden() {
    for (status, code, reason) in [
        (
            200,
            0,
            "is empty: registries may hide their catalog; name the repositories with --repository",
        ),
        (403, 1, "answered 403: no catalog for you"),
        (404, 1, "answered 404: no catalog for you"),
        (405, 1, "answered 405: no catalog for you"),
    ] {
        let registry = FakeRegistry::start();
        registry.image("team/app", "1", &[Layer::gzip(&dpkg_tar("harmless"))]);
        registry.hook(move |request| {
            request.path.ends_with("/_catalog").then(|| match status {
                200 => Response::json(200, &json!({"repositories": []})),
                _ => Response::status_error(status, "no catalog for you"),
            })
        });
        let place = place("catalog");
        let ended = place
            .watch(&["--all-images", "--registry", &registry.host()])
            .with_code(code);
        ended.says(&[reason]);
        assert!(
            ended
                .stderr
                .contains("name the repositories with --repository"),
            "{}",
            ended.stderr
        );
        pull(&registry.host(), &place, "team/app").with_code(0);
        assert_eq!(images(&place), set(&["team/app:1"]), "{status}");
    }
}

#[test]
fn pitfall_05_catalog_of_a_remote_key_empty() {
    let emulator = artifactory();
    seed(&emulator, "hub-cache", "team/app", "1");
    emulator.set("aql", "403");
    let place = place("remote-catalog");
    let ended = pass(&emulator, &place, "hub").with_code(0);
    ended.says(&["the catalog of `hub` is empty", "allow AQL"]);
    emulator.set("remote_catalog", "cached");
    pass(&emulator, &place, "hub").with_code(0);
    assert_eq!(images(&place), set(&["hub/team/app:1"]));
}

#[test]
fn pitfall_06_names_that_begin_with_the_key_and_repositories_without_tags() {
    for aql in ["ok", "403"] {
        let emulator = artifactory();
        seed(&emulator, "docker-local", "docker-local/client", "1");
        seed(&emulator, "docker-local", "client", "1");
        emulator.set("aql", aql);
        let place = place("key");
        pass(&emulator, &place, "docker-local").with_code(0);
        let wanted = set(&[
            "docker-local/docker-local/client:1",
            "docker-local/client:1",
        ]);
        assert_eq!(images(&place), wanted, "{aql}");
        emulator.set("tags", "null");
        emulator.set("aql", "403");
        pass(&emulator, &place, "docker-local").with_code(0);
    }
    let registry = FakeRegistry::start();
    registry.image("app", "1", &[Layer::gzip(&dpkg_tar("harmless"))]);
    registry.hook(|request| match request.path.as_str() {
        "/v2/_catalog" => Some(Response::json(
            200,
            &json!({"repositories": ["app", "gone", "null", "none"]}),
        )),
        "/v2/gone/tags/list" => Some(Response::status_error(404, "name unknown")),
        "/v2/null/tags/list" => Some(Response::json(200, &json!({"name": "null", "tags": null}))),
        "/v2/none/tags/list" => Some(Response::json(200, &json!({"name": "none"}))),
        _ => None,
    });
    let place = place("tags");
    place
        .watch(&["--all-images", "--registry", &registry.host()])
        .with_code(0);
    assert_eq!(images(&place), set(&["app:1"]));
}

#[test]
fn pitfall_07_aql_on_virtual_and_remote_keys() {
    for meaning in ["members", "local", "none"] {
        let emulator = artifactory();
        seed(&emulator, "docker-local", "a", "1");
        seed(&emulator, "other-local", "b", "1");
        seed(&emulator, "hub-cache", "library/c", "1");
        emulator.set("aql_virtual", meaning);
        let place = place("virtual");
        pass(&emulator, &place, "docker").with_code(0);
        let wanted = set(&["docker/a:1", "docker/b:1", "docker/library/c:1"]);
        assert_eq!(images(&place), wanted, "{meaning}");
        pass(&emulator, &place, "hub").with_code(0);
        assert!(images(&place).contains("hub/library/c:1"), "{meaning}");
        assert_eq!(emulator.total_downloads(), 0);
    }
}

#[test]
fn pitfall_08_challenge_without_scope_or_without_key() {
    for challenge in ["bearer", "basic"] {
        for scope in ["with-key", "without-key", "none", "none-on-head"] {
            for expires in ["on", "off"] {
                let emulator = artifactory();
                seed(&emulator, "docker-local", "team/app", "1");
                emulator.set("challenge", challenge);
                emulator.set("scope", scope);
                emulator.set("token_expires_sent", expires);
                let place = place("scope");
                pull(&emulator.host(), &place, "docker-local/team/app").with_code(0);
                assert_eq!(images(&place).len(), 1, "{challenge} {scope} {expires}");
            }
        }
    }
}

#[test]
fn pitfall_08_credentials_are_sent_at_once_to_artifactory() {
    let emulator = artifactory();
    seed(&emulator, "docker-local", "team/app", "1");
    pass(&emulator, &place("at-once"), "docker-local").with_code(0);
    assert_eq!(emulator.count_requests("GET", "/token"), 0);
    let bare = emulator.requests();
    let bare = bare
        .iter()
        .filter(|seen| seen.header("authorization").is_none());
    let targets: Vec<&str> = bare.map(|seen| seen.target.as_str()).collect();
    assert_eq!(
        targets,
        ["/v2/"],
        "only the addressing method is asked for without"
    );
}

#[test]
fn pitfall_09_valid_token_still_401() {
    for error in ["new", "old"] {
        let emulator = artifactory();
        seed(&emulator, "docker-local", "team/app", "1");
        emulator.set("token", "rejected");
        emulator.set("token_error", error);
        let place = place("rejected");
        pull(&emulator.host(), &place, "docker-local/team/app").with_code(0);
        assert_eq!(images(&place).len(), 1);
    }
}

#[test]
fn pitfall_09_token_that_expires_at_once() {
    let emulator = artifactory();
    seed(&emulator, "docker-local", "team/app", "1");
    emulator.set("token_expires", "0");
    let place = place("expired");
    // Every token is too old when it arrives; Basic is what works.
    pull(&emulator.host(), &place, "docker-local/team/app").with_code(0);
    assert_eq!(images(&place).len(), 1);
}

#[test]
fn pitfall_10_authorization_stays_with_its_host() {
    for redirect in ["blobs", "all"] {
        let emulator = artifactory();
        seed(&emulator, "docker-local", "team/app", "1");
        emulator.set("redirect", redirect);
        pass(&emulator, &place("redirect"), "docker-local").with_code(0);
        pull(
            &emulator.host(),
            &place("redirect"),
            "docker-local/team/app",
        )
        .with_code(0);
        let moved = emulator.blob_host_requests();
        assert!(!moved.is_empty());
        for request in moved {
            assert_eq!(request.header("authorization"), None, "{request:?}");
        }
    }
}

#[test]
fn pitfall_11_scanning_does_not_count_as_a_download() {
    for (head_counts, v2_skips) in [("off", "off"), ("on", "off"), ("off", "on"), ("on", "on")] {
        let emulator = artifactory();
        seed(&emulator, "docker-local", "team/app", "1");
        seed_index(&emulator, "docker-local", "team/multi", "1");
        emulator.set("head_counts", head_counts);
        emulator.set("v2_skip_stats", v2_skips);
        let place = place("statistics");
        pass(&emulator, &place, "docker-local").with_code(0);
        assert_eq!(emulator.total_downloads(), 0, "{head_counts} {v2_skips}");
        if head_counts == "off" {
            emulator.set("aql", "403");
            pass(&emulator, &self::place("statistics"), "docker-local").with_code(0);
            assert_eq!(emulator.total_downloads(), 0, "without AQL");
        }
    }
}

/// Stores an image of two platforms; returns the index's digest.
pub(crate) fn seed_index(emulator: &Emulator, repository: &str, image: &str, tag: &str) -> String {
    let entries: Vec<Value> = ["amd64", "arm64"]
        .iter()
        .map(|architecture| {
            let (manifest, blobs) = manifest(architecture, "harmless");
            for blob in &blobs {
                emulator.seed_blob(blob);
            }
            let digest = digest(&manifest);
            emulator.seed(repository, image, &digest, &manifest);
            json!({
                "mediaType": OCI_MANIFEST, "digest": digest, "size": manifest.len(),
                "platform": {"os": "linux", "architecture": architecture},
            })
        })
        .collect();
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries});
    emulator.seed(repository, image, tag, index.to_string().as_bytes())
}

#[test]
fn pitfall_16_and_18_tags_of_several_platforms() {
    for (aql, oss) in [("ok", "off"), ("ok", "on"), ("403", "off")] {
        let emulator = artifactory();
        seed_index(&emulator, "docker-local", "team/multi", "1");
        seed(&emulator, "docker-local", "team/app", "1");
        emulator.set("aql", aql);
        emulator.set("aql_oss", oss);
        let place = place("platforms");
        let ended = pass(&emulator, &place, "docker-local").with_code(0);
        assert_eq!(ended.total("images_new"), 2, "{}", ended.stderr);
        let stored: Vec<_> = place.stored().images().into_iter().collect();
        let names: Vec<String> = stored
            .iter()
            .map(|(name, tag, platform)| format!("{name}:{tag} {platform}"))
            .collect();
        let wanted = [
            "docker-local/team/app:1 linux/amd64",
            "docker-local/team/multi:1 linux/amd64",
            "docker-local/team/multi:1 linux/arm64",
        ];
        assert_eq!(names, wanted, "{aql} {oss}");
    }
}

#[test]
fn pitfall_18_a_folder_with_both_manifests() {
    for (order, oss) in [("natural", "off"), ("reversed", "on"), ("natural", "on")] {
        let emulator = artifactory();
        let index = seed_index(&emulator, "docker-local", "team/multi", "1");
        let (manifest, _) = manifest("amd64", "harmless");
        emulator.seed_file(
            "docker-local",
            "team/multi/1/manifest.json",
            OCI_MANIFEST,
            &manifest,
        );
        emulator.set("aql_order", order);
        emulator.set("aql_oss", oss);
        let place = place("both");
        let ended = pass(&emulator, &place, "docker-local").with_code(0);
        assert_eq!(ended.total("images_new"), 1, "{}", ended.stderr);
        assert_eq!(place.stored().images().len(), 2, "{order} {oss}");
        assert_eq!(place.stored().tag_digests(), [index]);
    }
}

#[test]
fn pitfall_19_attestations_in_an_index() {
    let registry = FakeRegistry::start();
    let image = registry.image_of(&[Layer::gzip(&dpkg_tar("harmless"))]);
    let image = registry.manifest(OCI_MANIFEST, &image);
    let statement = registry.blob("application/vnd.in-toto+json", b"{\"_type\":\"x\"}");
    let attestation = |config: Value, artifact_type: Option<&str>| {
        let mut manifest = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [statement]});
        if let Some(artifact_type) = artifact_type {
            manifest["artifactType"] = json!(artifact_type);
            manifest["subject"] = image.clone();
        }
        let mut entry = registry.manifest(OCI_MANIFEST, manifest.to_string().as_bytes());
        entry["platform"] = json!({"os": "unknown", "architecture": "unknown"});
        entry
    };
    let config = registry.blob(
        CONFIG,
        b"{\"os\":\"unknown\",\"architecture\":\"unknown\",\"rootfs\":{\"diff_ids\":[]}}",
    );
    let empty = registry.blob("application/vnd.oci.empty.v1+json", b"{}");
    let old = attestation(config, None);
    let new = attestation(
        empty,
        Some("application/vnd.docker.attestation.manifest.v1+json"),
    );
    for (tag, entry, kind) in [
        ("old", &old, Some("attestation-manifest")),
        ("new", &new, Some("attestation-manifest")),
        ("unmarked", &new, None),
        ("other", &old, Some("something-else")),
    ] {
        let mut entry = entry.clone();
        if let Some(kind) = kind {
            entry["annotations"] = json!({"vnd.docker.reference.type": kind, "vnd.docker.reference.digest": image["digest"]});
        }
        let index =
            json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [image, entry]});
        registry.tag("app", tag, OCI_INDEX, index.to_string().as_bytes());
    }
    let place = place("attestations");
    place
        .watch(&["--all-images", "--registry", &registry.host()])
        .with_code(0);
    let platforms: Vec<String> = place
        .stored()
        .images()
        .into_iter()
        .map(|row| format!("{} {}", row.1, row.2))
        .collect();
    assert_eq!(
        platforms,
        [
            "new linux/amd64",
            "old linux/amd64",
            "other linux/amd64",
            "unmarked linux/amd64"
        ]
    );
}

#[test]
fn pitfall_20_too_many_requests() {
    for wait in ["", "1"] {
        let emulator = artifactory();
        for n in 0..6 {
            seed(&emulator, "docker-local", &format!("app-{n}"), "1");
        }
        emulator.set("fault_status", "429");
        emulator.set("fault_retry_after", wait);
        emulator.set("fault_every", "5");
        let place = place("busy");
        let ended = pass(&emulator, &place, "docker-local").with_code(0);
        assert_eq!(images(&place).len(), 6, "{}", ended.stderr);
        assert_eq!(emulator.total_downloads(), 0);
        if wait == "1" {
            assert!(
                ended.elapsed >= Duration::from_secs(1),
                "Retry-After was not waited for"
            );
        }
    }
}

#[test]
fn pitfall_21_official_images_under_library() {
    let emulator = artifactory();
    seed(&emulator, "hub-cache", "library/nginx", "1");
    let place = place("library");
    pass(&emulator, &place, "hub").with_code(0);
    assert_eq!(images(&place), set(&["hub/library/nginx:1"]));
}

#[test]
fn pitfall_22_a_cache_that_forgets_has_no_tags_gone() {
    for (repository, key, gone) in [("hub-cache", "hub", 0), ("docker-local", "docker-local", 1)] {
        let emulator = artifactory();
        seed(&emulator, repository, "app", "1");
        seed(&emulator, repository, "app", "2");
        let place = place("cache");
        pass(&emulator, &place, key).with_code(0);
        assert!(emulator.remove(repository, "app/1") > 0);
        let ended = pass(&emulator, &place, key).with_code(0);
        assert_eq!(ended.total("gone"), gone, "{key}: {}", ended.stderr);
    }
}

#[test]
fn pitfall_23_aql_forbidden_while_reading_is_allowed() {
    for (aql, code) in [("400", 0), ("403", 0), ("408", 1), ("429", 1), ("500", 1)] {
        let emulator = artifactory();
        seed(&emulator, "docker-local", "app", "1");
        emulator.set("aql", aql);
        let place = place("aql");
        let ended = pass(&emulator, &place, "docker-local").with_code(code);
        if code == 0 {
            assert_eq!(images(&place).len(), 1, "{aql}");
        } else {
            ended.says(&[
                "crowsnest: ",
                "repository key `docker-local`",
                &format!("answered {aql}"),
            ]);
        }
    }
    let emulator = artifactory();
    seed(&emulator, "docker-local", "app", "1");
    for switch in ["aql", "repositories", "storage"] {
        emulator.set(switch, "403");
    }
    let place = place("nothing-else");
    pass(&emulator, &place, "docker-local").with_code(0);
    assert_eq!(images(&place).len(), 1);
    // What may not be asked is asked once, not again for every file that is read.
    assert_eq!(
        emulator.count_requests("GET", "api/repositories/docker-local"),
        1
    );
}

#[test]
fn pitfall_24_forbidden_instead_of_not_found() {
    for missing in ["404", "403"] {
        let emulator = artifactory();
        seed(&emulator, "docker-local", "good", "1");
        let (manifest, _) = manifest("amd64", "never stored");
        emulator.seed("docker-local", "broken", "1", &manifest);
        emulator.set("missing", missing);
        let place = place("missing");
        let ended = pass(&emulator, &place, "docker-local").with_code(3);
        ended.says(&[
            "error image failed",
            "docker-local/broken:1",
            &format!("answered {missing}"),
        ]);
        assert_eq!(images(&place), set(&["docker-local/good:1"]));
    }
}

/// Requests that came with credentials.
fn n_logins(emulator: &Emulator) -> usize {
    let requests = emulator.requests();
    requests
        .iter()
        .filter(|seen| seen.header("authorization").is_some())
        .count()
}

#[test]
fn pitfall_25_wrong_passwords_are_not_tried_again_and_again() {
    let emulator = artifactory();
    for n in 0..10 {
        seed(&emulator, "docker-local", &format!("app-{n}"), "1");
    }
    emulator.set("lock_after", "3");
    let wrong = || {
        place("locked")
            .set("CROWSNEST_ARTIFACTORY_API_PASSWORD", "wrong")
            .set("CROWSNEST_REGISTRY_PASSWORD", "wrong")
    };
    let ended = pass(
        &emulator,
        &wrong(),
        "\"docker-local,other-local\"".trim_matches('"'),
    )
    .code;
    assert_eq!(ended, Some(1));
    for challenge in ["bearer", "basic"] {
        emulator.set("challenge", challenge);
        emulator.clear_requests();
        let ended = pass(&emulator, &wrong(), "docker-local").with_code(1);
        assert!(ended.stderr.contains("hint: "), "{}", ended.stderr);
        assert!(
            n_logins(&emulator) <= 2,
            "{challenge}: {}",
            n_logins(&emulator)
        );
    }
    let emulator = artifactory();
    seed(&emulator, "docker-local", "app", "1");
    for challenge in ["bearer", "basic"] {
        emulator.set("challenge", challenge);
        emulator.clear_requests();
        let names: Vec<String> = (0..6)
            .map(|n| format!("{}/docker-local/app-{n}", emulator.host()))
            .collect();
        let ended = wrong().watch(&["--all-images", "--repository", &names.join(",")]);
        assert!(matches!(ended.code, Some(1 | 3)), "{}", ended.stderr);
        assert!(
            n_logins(&emulator) <= 2,
            "{challenge}: {}\n{}",
            n_logins(&emulator),
            ended.stderr
        );
    }
}

#[test]
fn pitfall_25_a_password_that_changes_during_a_pass() {
    let registry = FakeRegistry::start();
    for n in 0..30 {
        registry.image(
            &format!("app-{n:02}"),
            "1",
            &[Layer::gzip(&dpkg_tar("harmless"))],
        );
    }
    let basic = format!("Basic {}", STANDARD.encode("admin:password"));
    registry.hook(move |request| {
        let is_known =
            request.header("authorization") == Some(&basic) && !request.path.contains("/blobs/");
        let challenge = "Basic realm=\"zoo\"";
        (!is_known).then(|| {
            Response::status_error(401, "Bad Credentials").header("WWW-Authenticate", challenge)
        })
    });
    let place = place("changed");
    let ended = place.watch(&["--all-images", "--registry", &registry.host()]);
    // Which comes first, the end of the listing or the second refusal, is left to chance.
    assert!(matches!(ended.code, Some(1 | 3)), "{}", ended.stderr);
    ended.says(&["error image failed", "answered 401: Bad Credentials"]);
    let refused = registry
        .requests()
        .into_iter()
        .filter(|seen| seen.target.contains("/blobs/") && seen.header("authorization").is_some());
    let n_refused = refused.count();
    // Two, and what the other workers had sent already.
    assert!(
        n_refused <= 4,
        "{n_refused} requests with refused credentials"
    );
}

#[test]
fn pitfall_27_nothing_is_cut_at_a_page() {
    let emulator = artifactory();
    for n in 0..1_100 {
        seed(&emulator, "docker-local", "app", &format!("v{n}"));
    }
    emulator.set("aql", "403");
    let place = place("many");
    let ended = pass(&emulator, &place, "docker-local").with_code(0);
    assert_eq!(images(&place).len(), 1_100);
    ended.says(&["source listed", "tags=1100"]);
    emulator.set("aql", "ok");
    emulator.set("aql_row_limit", "100");
    let ended = pass(&emulator, &place, "docker-local").with_code(0);
    assert_eq!((ended.total("unchanged"), ended.total("gone")), (1_100, 0));
}

#[test]
fn pitfall_29_a_suspended_instance_says_so() {
    let emulator = artifactory();
    let own = format!("{}/reactivate-server/acme", emulator.blob_host_url());
    for suspended in ["on", own.as_str()] {
        emulator.set("suspended", suspended);
        let ended = pass(&emulator, &place("suspended"), "docker-local").with_code(1);
        ended.says(&["crowsnest: ", "is suspended: it redirects to"]);
        assert!(
            ended.stderr.contains("hint: reactivate the JFrog instance"),
            "{}",
            ended.stderr
        );
        assert!(
            ended.elapsed < Duration::from_secs(5),
            "{:?}",
            ended.elapsed
        );
    }
}

#[test]
fn pitfall_30_scheme_in_upper_case() {
    for scheme in ["BASIC", "basic", "Negotiate, BASIC"] {
        let registry = FakeRegistry::start();
        registry.image("app", "1", &[Layer::gzip(&dpkg_tar("harmless"))]);
        let basic = format!("Basic {}", STANDARD.encode("admin:password"));
        registry.hook(move |request| {
            let challenge = format!("{scheme} realm=\"Sonatype Nexus Repository Manager\"");
            (request.header("authorization") != Some(&basic)).then(|| {
                Response::status_error(401, "who are you").header("WWW-Authenticate", challenge)
            })
        });
        let place = place("upper");
        place
            .watch(&["--all-images", "--registry", &registry.host()])
            .with_code(0);
        assert_eq!(images(&place), set(&["app:1"]));
    }
}

#[test]
fn pitfall_32_a_login_page_with_status_200() {
    let emulator = artifactory();
    seed(&emulator, "docker-local", "app", "1");
    emulator.set("login_page", "on");
    let ended = pass(&emulator, &place("login"), "docker-local").with_code(1);
    ended.says(&["crowsnest: ", "something else than a repository"]);
    let ended = place("login")
        .watch(&["--all-images", "--registry", &emulator.host()])
        .with_code(1);
    ended.says(&["crowsnest: ", "answered with a web page, not as a registry"]);
}

#[test]
fn pitfall_33_a_server_that_sends_other_bytes_or_none() {
    for switch in ["wrong_blob", "wrong_manifest"] {
        let emulator = artifactory();
        seed(&emulator, "docker-local", "app", "1");
        emulator.set(switch, "on");
        let place = place("bytes");
        let ended = pull(&emulator.host(), &place, "docker-local/app").with_code(3);
        ended.says(&["error image failed", "docker-local/app:1"]);
        assert_eq!(images(&place), set(&[]));
        // A better day.
        emulator.set(switch, "off");
        pull(&emulator.host(), &place, "docker-local/app").with_code(0);
        assert_eq!(images(&place).len(), 1, "{switch}");
    }
    for (switch, value) in [("short_blob", "100"), ("cut_blob", "100")] {
        let emulator = artifactory();
        seed(&emulator, "docker-local", "app", "1");
        emulator.set(switch, value);
        emulator.set("blob_fault_times", "2");
        let place = place("pieces");
        pass(&emulator, &place, "docker-local").with_code(0);
        assert_eq!(images(&place).len(), 1, "{switch}");
    }
    for switch in ["digest_header", "schema1", "range"] {
        let emulator = artifactory();
        seed(&emulator, "docker-local", "app", "1");
        emulator.set(switch, "off");
        emulator.set("aql", "403");
        let place = place("without");
        pass(&emulator, &place, "docker-local").with_code(0);
        pull(
            &emulator.host(),
            &self::place("without"),
            "docker-local/app",
        )
        .with_code(0);
        assert_eq!(images(&place).len(), 1, "{switch}");
    }
}
