//! Real images, indexed by each kind of source through the real binary: every image is there, with exactly the
//! packages that independent tools find in its file tree ("Done when" 2 of issue 3).

use std::collections::BTreeSet;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::crowsnest::{Crowsnest, Ended};
use crate::emulator::{Class, Config, Door, Emulator, Repository};
use crate::real_images::{RealImages, real_images};
use crate::registry::Registry;

/// An Artifactory with one repository of each class in front of a registry that holds the real images.
struct Artifactory {
    images: RealImages,
    emulator: Emulator,
    _registry: Registry,
}

impl Artifactory {
    fn start() -> Artifactory {
        let images = real_images();
        let registry = Registry::start_on(&images.storage);
        let emulator = Emulator::start(Config {
            upstream: Some(registry.url()),
            repositories: vec![
                Repository::new("docker-local", Class::Local),
                Repository::new("empty-local", Class::Federated),
                Repository::new("hub", Class::Remote),
                Repository::new(
                    "docker",
                    Class::Virtual {
                        members: vec!["empty-local".into(), "docker-local".into(), "hub".into()],
                        default_deployment: None,
                    },
                ),
            ],
            ..Config::default()
        });
        let adopted = emulator
            .adopt("docker-local")
            .expect("the registry has the images");
        assert_eq!(adopted, images.images.len());
        Artifactory {
            images,
            emulator,
            _registry: registry,
        }
    }

    /// One pass over `key` with further options of `--registry`.
    fn pass(&self, place: &Crowsnest, key: &str, options: &str) -> Ended {
        let (host, api) = (self.emulator.host(), self.emulator.base_url());
        let registry =
            format!("type=artifactory,registry={host},api={api},repository={key}{options}");
        place.watch(&["--all-images", "--registry", &registry])
    }

    /// Two passes: the first reads everything, the second nothing. Returns the first.
    #[track_caller]
    fn two_passes(&self, place: &Crowsnest, key: &str, options: &str) -> Ended {
        let first = self.pass(place, key, options).with_code(0);
        assert_eq!(first.total("failed"), 0, "{}", first.stderr);
        assert_eq!(
            first.total("images_new"),
            self.images.images.len() as u64,
            "{}",
            first.stderr
        );
        self.images
            .assert_stored(&place.stored(), &format!("{key}/"));
        self.emulator.clear_requests();
        let second = self.pass(place, key, options).with_code(0);
        assert_nothing_read(&second, self.images.images.len());
        assert_eq!(self.emulator.total_downloads(), 0, "downloads were counted");
        first
    }
}

#[track_caller]
fn assert_nothing_read(ended: &Ended, n_tags: usize) {
    let totals = ["images_new", "layers_read", "failed", "gone"].map(|name| ended.total(name));
    assert_eq!(totals, [0; 4], "{}", ended.stderr);
    assert_eq!(ended.total("unchanged"), n_tags as u64, "{}", ended.stderr);
}

fn place(name: &str) -> Crowsnest {
    Crowsnest::new(name)
        .set("CROWSNEST_ARTIFACTORY_API_USER", "admin")
        .set("CROWSNEST_ARTIFACTORY_API_PASSWORD", "password")
}

#[test]
fn a_plain_registry_is_indexed() {
    let images = real_images();
    let registry = Registry::start_on(&images.storage);
    let place = Crowsnest::new("real-oci");
    let source = format!(
        "type=oci,registry={},include=docker-local/*",
        registry.host()
    );
    let first = place
        .watch(&["--all-images", "--registry", &source])
        .with_code(0);
    assert_eq!(
        first.total("images_new"),
        images.images.len() as u64,
        "{}",
        first.stderr
    );
    assert_eq!(
        first.total("layers_read"),
        place.stored().count("layer"),
        "{}",
        first.stderr
    );
    images.assert_stored(&place.stored(), "docker-local/");
    let stored = place.stored().images();
    assert_eq!(
        stored.len(),
        images.n_images(),
        "attestations are no images"
    );
    let second = place
        .watch(&["--all-images", "--registry", &source])
        .with_code(0);
    assert_nothing_read(&second, images.images.len());
}

#[test]
fn one_platform_of_each_image() {
    let images = real_images();
    let registry = Registry::start_on(&images.storage);
    let place = Crowsnest::new("real-platform");
    let repository = format!("{}/docker-local/distroless/tools", registry.host());
    let arguments = [
        "--all-images",
        "--platform",
        "linux/arm64",
        "--repository",
        &repository,
    ];
    place.watch(&arguments).with_code(0);
    let platforms: BTreeSet<String> = place
        .stored()
        .images()
        .into_iter()
        .map(|(_, _, platform)| platform)
        .collect();
    assert_eq!(platforms, BTreeSet::from(["linux/arm64".to_owned()]));
    // The other platform is wanted later: the same tags are not done.
    place
        .watch(&["--all-images", "--repository", &repository])
        .with_code(0);
    assert_eq!(place.stored().images().len(), 6);
}

#[test]
fn an_artifactory_is_indexed_by_aql() {
    let artifactory = Artifactory::start();
    let place = place("real-aql");
    artifactory.two_passes(&place, "docker-local", "");
    let emulator = &artifactory.emulator;
    let requests: Vec<String> = emulator
        .requests()
        .iter()
        .map(|seen| format!("{} {}", seen.method, seen.target))
        .collect();
    assert_eq!(
        requests,
        ["POST /artifactory/api/search/aql"],
        "of a pass without changes"
    );
}

#[test]
fn layers_come_once_and_redirects_get_no_credentials() {
    let artifactory = Artifactory::start();
    let emulator = &artifactory.emulator;
    emulator.set("redirect", "all");
    let place = place("real-redirect");
    artifactory.pass(&place, "docker-local", "").with_code(0);
    artifactory
        .images
        .assert_stored(&place.stored(), "docker-local/");
    let requests = emulator.requests();
    let mut n_twice = 0;
    for digest in place.stored().layer_digests() {
        let hex = digest.trim_start_matches("sha256:");
        let is_read = |door: &Door| {
            let of = |seen: &&crate::emulator::Logged| {
                seen.door == *door && seen.method == "GET" && seen.target.contains(hex)
            };
            requests.iter().filter(of).count()
        };
        let n_reads = is_read(&Door::Main);
        assert_eq!(n_reads, is_read(&Door::BlobHost), "{digest}");
        assert!(
            (1..=2).contains(&n_reads),
            "{digest} was read {n_reads} times"
        );
        n_twice += n_reads - 1;
    }
    // Those with hard links to files that were of no interest when they went by: `linked` in four forms (in
    // blocks it has the same bytes) and `long` in four.
    assert_eq!(n_twice, 8);
    let secret = STANDARD.encode("admin:password");
    let moved = emulator.blob_host_requests();
    assert!(!moved.is_empty(), "nothing was redirected");
    for request in moved {
        assert_eq!(request.header("authorization"), None, "{request:?}");
        assert!(!format!("{request:?}").contains(&secret), "{request:?}");
    }
    assert_eq!(emulator.total_downloads(), 0);
}

#[test]
fn an_artifactory_that_refuses_aql() {
    let artifactory = Artifactory::start();
    artifactory.emulator.set("aql", "403");
    artifactory.two_passes(&place("real-no-aql"), "docker-local", "");
}

#[test]
fn the_open_source_edition_of_artifactory() {
    let artifactory = Artifactory::start();
    artifactory.emulator.set("aql_oss", "on");
    artifactory.two_passes(&place("real-oss"), "docker-local", "");
    assert_eq!(
        artifactory.emulator.requests().len(),
        1,
        "sorting is not tried again"
    );
}

#[test]
fn both_addressing_methods_and_none_said() {
    let artifactory = Artifactory::start();
    let host = artifactory.emulator.host();
    for (options, prefix) in [
        (",subdomain-mode=true", format!("docker-local.{host}/")),
        (",subdomain-mode=false", format!("{host}/docker-local/")),
        ("", format!("{host}/docker-local/")),
    ] {
        let place = place("real-addressing");
        artifactory.two_passes(&place, "docker-local", options);
        for shown in place.stored().shown() {
            assert!(shown.starts_with(&prefix), "{options}: {shown}");
        }
    }
}

#[test]
fn a_virtual_key() {
    let artifactory = Artifactory::start();
    artifactory.two_passes(&place("real-virtual"), "docker", "");
    artifactory.emulator.set("aql", "403");
    artifactory.two_passes(&place("real-virtual-no-aql"), "docker", "");
}

#[test]
fn a_remote_key_has_what_its_cache_holds() {
    let artifactory = Artifactory::start();
    let emulator = &artifactory.emulator;
    for image in ["svc/api:v1", "distroless/tools:1.0"] {
        let folder = crate::temp_dir::TempDir::new("pulled");
        let output = Command::new("skopeo")
            .args([
                "--insecure-policy",
                "copy",
                "--quiet",
                "--all",
                "--src-tls-verify=false",
            ])
            .args(["--src-creds", "admin:password", "--preserve-digests"])
            .arg(format!("docker://{}/hub/{image}", emulator.host()))
            .arg(format!("dir:{}", folder.path().display()))
            .output()
            .unwrap_or_else(|error| {
                panic!("running `skopeo`: {error} (install it: apt-get install skopeo)")
            });
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let before = emulator.total_downloads();
    let place = place("real-remote");
    let is_pulled = |image: &crate::real_images::Image| {
        (image.repository == "svc/api" && image.tag == "v1")
            || (image.repository == "distroless/tools" && image.tag == "1.0")
    };
    let first = artifactory.pass(&place, "hub", "").with_code(0);
    assert_eq!(first.total("images_new"), 2, "{}", first.stderr);
    artifactory
        .images
        .assert_some_stored(&place.stored(), "hub/", is_pulled);
    emulator.clear_requests();
    assert_nothing_read(&artifactory.pass(&place, "hub", "").with_code(0), 2);
    assert_eq!(emulator.requests().len(), 1);
    assert_eq!(emulator.total_downloads(), before, "downloads were counted");
}

#[test]
fn downloads_are_not_counted_on_a_bad_day_either() {
    let artifactory = Artifactory::start();
    artifactory.emulator.set("fault_seed", "7");
    artifactory.emulator.set("fault_every", "6");
    let place = place("real-faults");
    artifactory.pass(&place, "docker-local", "").with_code(0);
    artifactory
        .images
        .assert_stored(&place.stored(), "docker-local/");
    assert_eq!(
        artifactory.emulator.total_downloads(),
        0,
        "downloads were counted"
    );
}

/// One pass that works only with credentials that were found.
#[track_caller]
fn finds_credentials(place: impl FnOnce(&str) -> Crowsnest) {
    let artifactory = Artifactory::start();
    let place = place(&artifactory.emulator.host());
    let tags = ["--tag", "^v1$", "--all-images"];
    let (host, api) = (artifactory.emulator.host(), artifactory.emulator.base_url());
    let registry = format!("type=artifactory,registry={host},api={api},repository=docker-local");
    place
        .watch(&[&tags[..], &["--registry", &registry]].concat())
        .with_code(0);
    assert_eq!(place.stored().images().len(), 1);
    let basic = format!("Basic {}", STANDARD.encode("admin:password"));
    let requests = artifactory.emulator.requests();
    let with_basic = requests
        .iter()
        .filter(|seen| seen.header("authorization") == Some(&basic));
    assert!(with_basic.count() > 3);
}

#[test]
fn credentials_of_the_product_variables() {
    finds_credentials(|_| {
        Crowsnest::new("real-variables")
            .set("CROWSNEST_ARTIFACTORY_API_USER", "admin")
            .set("CROWSNEST_ARTIFACTORY_API_PASSWORD", "password")
            .set("DOCKER_SCOUT_ARTIFACTORY_API_USER", "admin")
            .set("DOCKER_SCOUT_ARTIFACTORY_API_PASSWORD", "an old one")
    });
}

#[test]
fn credentials_of_the_variables_of_docker_scout() {
    finds_credentials(|_| {
        Crowsnest::new("real-scout")
            .set("DOCKER_SCOUT_ARTIFACTORY_API_USER", "admin")
            .set("DOCKER_SCOUT_ARTIFACTORY_API_PASSWORD", "password")
    });
}

#[test]
fn credentials_of_docker_login() {
    finds_credentials(|host| {
        let auth = STANDARD.encode("admin:password");
        let config = format!(r#"{{"auths":{{"{host}":{{"auth":"{auth}"}}}}}}"#);
        let place = Crowsnest::new("real-login").home_file("elsewhere/config.json", &config);
        let folder = format!("{}/elsewhere", place.home());
        place.set("DOCKER_CONFIG", &folder)
    });
}
