//! The emulator answers clients that are not ours: skopeo, dohq-artifactory, artifactory-cleanup.
//!
//! These programs decide whether the emulator is faithful; none of our own code takes part. A
//! missing program is a failure that says what to install.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::emulator::{Class, Config, Emulator, Repository};
use crate::registry::Registry;
use crate::temp_dir::TempDir;

const CREDENTIALS: &str = "admin:password";

/// An emulator with one repository of each class in front of a plain registry.
fn started() -> (Registry, Emulator) {
    let registry = Registry::start();
    let emulator = Emulator::start(Config {
        upstream: Some(registry.url()),
        repositories: vec![
            Repository::new("docker-local", Class::Local),
            Repository::new("docker-prod", Class::Federated),
            Repository::new("hub", Class::Remote),
            Repository::new(
                "docker",
                Class::Virtual {
                    members: vec!["docker-local".into(), "docker-prod".into(), "hub".into()],
                    default_deployment: Some("docker-local".into()),
                },
            ),
        ],
        ..Config::default()
    });
    (registry, emulator)
}

/// Runs a program and returns what it printed; panics with all output when it fails.
fn run(program: &str, arguments: &[&str], install: &str) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("running `{program}`: {error} ({install})"));
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "`{program} {}` failed:\n{printed}\n{}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    printed
}

fn skopeo(arguments: &[&str]) -> String {
    let all = [&["--insecure-policy"], arguments].concat();
    run("skopeo", &all, "install it: apt-get install skopeo")
}

/// The Python that has the packages of `tests/clients/requirements.txt`.
fn python() -> String {
    let program = std::env::var("CROWSNEST_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let install = "install them: python3 -m venv target/clients && target/clients/bin/pip install -r \
                   tests/clients/requirements.txt, then set CROWSNEST_TEST_PYTHON=target/clients/bin/python3";
    run(
        &program,
        &["-c", "import artifactory, artifactory_cleanup"],
        install,
    );
    program
}

/// Writes a blob into an OCI layout; returns its descriptor.
fn blob(layout: &TempDir, media_type: &str, bytes: &[u8]) -> Value {
    let hex: String = Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    layout.write(&format!("blobs/sha256/{hex}"), bytes);
    json!({"mediaType": media_type, "digest": format!("sha256:{hex}"), "size": bytes.len()})
}

/// Writes an image for one platform; returns its descriptor.
fn image(layout: &TempDir, architecture: &str) -> Value {
    let tar = vec![0_u8; 10_240];
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar).expect("writing to memory");
    let compressed = gzip.finish().expect("writing to memory");
    let layer = blob(
        layout,
        "application/vnd.oci.image.layer.v1.tar+gzip",
        &compressed,
    );
    let diff: String = Sha256::digest(&tar)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "config": {"Labels": {"org.example.team": "crow"}},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{diff}")]},
    });
    let config = blob(
        layout,
        "application/vnd.oci.image.config.v1+json",
        config.to_string().as_bytes(),
    );
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest =
        json!({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": [layer]});
    let mut descriptor = blob(layout, media_type, manifest.to_string().as_bytes());
    descriptor["platform"] = json!({"os": "linux", "architecture": architecture});
    descriptor
}

/// An OCI layout with a single image `one` and an index `two` for two platforms.
fn layout() -> TempDir {
    let layout = TempDir::new("layout");
    layout.write("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
    let mut one = image(&layout, "amd64");
    let arm = image(&layout, "arm64");
    let media_type = "application/vnd.oci.image.index.v1+json";
    let index = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": [one, arm]});
    let mut two = blob(&layout, media_type, index.to_string().as_bytes());
    one["annotations"] = json!({"org.opencontainers.image.ref.name": "one"});
    two["annotations"] = json!({"org.opencontainers.image.ref.name": "two"});
    let top = json!({"schemaVersion": 2, "manifests": [one, two]});
    layout.write("index.json", top.to_string());
    layout
}

/// Copies `one` or `two` of the layout to an image name.
fn push(layout: &Path, which: &str, to: &str) {
    let from = format!("oci:{}:{which}", layout.display());
    let to = format!("docker://{to}");
    skopeo(&[
        "copy",
        "--all",
        "--preserve-digests",
        "--dest-tls-verify=false",
        "--dest-creds",
        CREDENTIALS,
        &from,
        &to,
    ]);
}

/// The digest of an image name as skopeo sees it.
fn digest(image: &str) -> String {
    let raw = skopeo(&[
        "inspect",
        "--raw",
        "--tls-verify=false",
        "--creds",
        CREDENTIALS,
        &format!("docker://{image}"),
    ]);
    let hex: String = Sha256::digest(raw.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{hex}")
}

fn digest_in(layout: &Path, which: &str) -> String {
    let text = std::fs::read_to_string(layout.join("index.json")).expect("the layout has an index");
    let index: Value = serde_json::from_str(&text).expect("the index is JSON");
    let mut entries = index["manifests"].as_array().expect("a list").iter();
    let entry =
        entries.find(|entry| entry["annotations"]["org.opencontainers.image.ref.name"] == which);
    entry.expect("the reference is in the layout")["digest"]
        .as_str()
        .expect("text")
        .to_owned()
}

#[test]
fn skopeo_pushes_and_reads_a_single_image() {
    let (_registry, emulator) = started();
    let layout = layout();
    let image = format!("{}/docker-local/team/one:1.0", emulator.host());
    push(layout.path(), "one", &image);
    let files = emulator.files("docker-local");
    assert_eq!(files.len(), 3, "{files:?}");
    assert!(
        files.contains(&"team/one/1.0/manifest.json".to_owned()),
        "{files:?}"
    );
    assert!(
        files
            .iter()
            .filter(|file| file.starts_with("team/one/1.0/sha256__"))
            .count()
            == 2,
        "{files:?}"
    );
    assert_eq!(digest(&image), digest_in(layout.path(), "one"));
    let inspected = skopeo(&[
        "inspect",
        "--tls-verify=false",
        "--creds",
        CREDENTIALS,
        &format!("docker://{image}"),
    ]);
    let inspected: Value = serde_json::from_str(&inspected).expect("skopeo prints JSON");
    assert_eq!(inspected["Labels"]["org.example.team"], "crow");
    assert_eq!(inspected["RepoTags"], json!(["1.0"]));
}

#[test]
fn skopeo_pushes_an_index_and_copies_it_back() {
    for switches in [
        &[][..],
        &[("redirect", "blobs")],
        &[("challenge", "basic")],
        &[("scope", "none"), ("registry_header", "key")],
    ] {
        let (_registry, emulator) = started();
        for (name, value) in switches {
            emulator.set(name, value);
        }
        let layout = layout();
        let image = format!("{}/docker/team/app:2.0", emulator.host());
        push(layout.path(), "two", &image);
        let files = emulator.files("docker-local");
        assert_eq!(files[0], "team/app/2.0/list.manifest.json", "{files:?}");
        assert_eq!(
            files
                .iter()
                .filter(|file| file.contains("/sha256:"))
                .count(),
            6,
            "{files:?}"
        );
        let back = TempDir::new("back");
        skopeo(&[
            "copy",
            "--all",
            "--preserve-digests",
            "--src-tls-verify=false",
            "--src-creds",
            CREDENTIALS,
            &format!("docker://{image}"),
            &format!("oci:{}:two", back.path().display()),
        ]);
        assert_eq!(
            digest_in(back.path(), "two"),
            digest_in(layout.path(), "two")
        );
        for request in emulator.blob_host_requests() {
            assert_eq!(request.header("authorization"), None);
        }
    }
}

#[test]
fn skopeo_lists_tags_over_pages() {
    let (_registry, emulator) = started();
    emulator.seed_many("docker-local", "app", 1, 25, 0);
    // skopeo 1.9 follows the link it is given, so only a link that is right as it stands will do.
    for (link, page) in [("live", "0"), ("correct", "7"), ("live", "7")] {
        emulator.set("link", link);
        emulator.set("page_max", page);
        let image = format!("docker://{}/docker-local/app-0000", emulator.host());
        let listed = skopeo(&[
            "list-tags",
            "--tls-verify=false",
            "--creds",
            CREDENTIALS,
            &image,
        ]);
        let listed: Value = serde_json::from_str(&listed).expect("skopeo prints JSON");
        assert_eq!(
            listed["Tags"].as_array().map(Vec::len),
            Some(25),
            "link={link}"
        );
    }
}

#[test]
fn skopeo_pulls_through_a_remote() {
    let (registry, emulator) = started();
    let layout = layout();
    let from = format!("oci:{}:two", layout.path().display());
    let direct = format!("docker://{}/hub/library/app:3", registry.host());
    skopeo(&[
        "copy",
        "--all",
        "--preserve-digests",
        "--dest-tls-verify=false",
        &from,
        &direct,
    ]);
    assert!(emulator.files("hub-cache").is_empty());
    let image = format!("docker://{}/hub/library/app:3", emulator.host());
    let back = TempDir::new("back");
    let to = format!("oci:{}:two", back.path().display());
    skopeo(&[
        "copy",
        "--all",
        "--preserve-digests",
        "--src-tls-verify=false",
        "--src-creds",
        CREDENTIALS,
        &image,
        &to,
    ]);
    assert_eq!(
        digest_in(back.path(), "two"),
        digest_in(layout.path(), "two")
    );
    let files = emulator.files("hub-cache");
    assert!(
        files.contains(&"library/app/3/list.manifest.json".to_owned()),
        "{files:?}"
    );
    assert_eq!(
        files
            .iter()
            .filter(|file| file.contains("/sha256__") && file.ends_with("/manifest.json"))
            .count(),
        2,
        "{files:?}"
    );
    assert!(
        !files.iter().any(|file| file.ends_with(".marker")),
        "{files:?}"
    );
    assert!(emulator.files("hub").is_empty());
}

#[test]
fn skopeo_is_refused_with_wrong_credentials() {
    let (_registry, emulator) = started();
    emulator.seed_many("docker-local", "app", 1, 1, 0);
    let image = format!("docker://{}/docker-local/app-0000:v0000", emulator.host());
    let output = Command::new("skopeo")
        .args([
            "inspect",
            "--tls-verify=false",
            "--creds",
            "admin:wrong",
            &image,
        ])
        .output()
        .expect("skopeo runs (apt-get install skopeo)");
    assert!(!output.status.success());
}

#[test]
fn dohq_artifactory_agrees_with_what_was_pushed() {
    let python = python();
    let (_registry, emulator) = started();
    let layout = layout();
    push(
        layout.path(),
        "two",
        &format!("{}/docker-local/team/app:1.0", emulator.host()),
    );
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/dohq.py");
    let printed = run(
        &python,
        &[script, &emulator.base_url(), "admin", "password"],
        "",
    );
    let digest = digest_in(layout.path(), "two");
    let hex = digest.trim_start_matches("sha256:");
    assert!(printed.contains(&format!("stat {hex} ")), "{printed}");
    for line in [
        "list ['list.manifest.json']",
        "properties changed",
        "aql 3 ",
        "promoted 2",
        "downloads 1",
    ] {
        assert!(printed.contains(line), "no `{line}` in:\n{printed}");
    }
    // The promoted image is a whole one for the registry protocol too.
    let promoted = format!("{}/docker-prod/team/app:1.0", emulator.host());
    let back = TempDir::new("back");
    skopeo(&[
        "copy",
        "--all",
        "--preserve-digests",
        "--src-tls-verify=false",
        "--src-creds",
        CREDENTIALS,
        &format!("docker://{promoted}"),
        &format!("oci:{}:two", back.path().display()),
    ]);
    assert_eq!(digest_in(back.path(), "two"), digest);
}

#[test]
fn artifactory_cleanup_keeps_the_newest_images() {
    let python = python();
    let (_registry, emulator) = started();
    // Five tags of 2001; the policy keeps two of them.
    emulator.seed_many("docker-local", "app", 1, 5, 1_000_000_000_000);
    emulator.seed(
        "docker-local",
        "fresh",
        "new",
        br#"{"schemaVersion":2,"layers":[]}"#,
    );
    let folder = TempDir::new("cleanup");
    let config = folder.write(
        "cleanup.yaml",
        format!(
            "artifactory-cleanup:\n  server: {}\n  user: admin\n  password: password\n  policies:\n    \
             - name: old\n      rules:\n        - rule: Repo\n          name: docker-local\n        \
             - rule: DeleteDockerImagesOlderThan\n          days: 30\n        \
             - rule: KeepLatestNDockerImages\n          count: 2\n",
            emulator.base_url()
        ),
    );
    let config = config.display().to_string();
    let arguments = [
        "-m",
        "artifactory_cleanup.cli",
        "--destroy",
        "--config",
        &config,
    ];
    let printed = run(&python, &arguments, "");
    let files = emulator.files("docker-local");
    let expected = [
        "app-0000/v0003/manifest.json",
        "app-0000/v0004/manifest.json",
        "fresh/new/manifest.json",
    ];
    assert_eq!(files, expected, "{printed}");
}
