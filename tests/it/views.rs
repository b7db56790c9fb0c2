//! `crowsnest images`, `sbom` and `status` over a store that `crowsnest watch` filled from a real registry.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::registry::Registry;
use crate::temp_dir::TempDir;

/// Tag in `tests/images/debian`, and the name it gets here.
const IMAGES: [(&str, &str); 4] = [
    ("slim", "team/slim:1.0"),
    ("python-next", "team/python:latest"),
    ("tools", "team/tools:1.0"),
    ("python", "broken/app:1.0"),
];

/// Exit code, stdout and stderr of a run.
struct Ran(i32, String, String);

fn crowsnest(data: &Path, words: &[&str]) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_crowsnest"))
        .args(words)
        .env_clear()
        .env("CROWSNEST_DATA_DIR", data)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran(
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// The standard output of a run that goes well and complains of nothing.
fn shown(data: &Path, words: &[&str]) -> String {
    let Ran(code, out, err) = crowsnest(data, words);
    assert_eq!((code, err.as_str()), (0, ""), "{words:?}: {out}");
    out
}

fn json(data: &Path, words: &[&str]) -> Value {
    let words = [words, &["--format", "json"]].concat();
    let document: Value = serde_json::from_str(&shown(data, &words)).unwrap();
    assert_eq!(document["version"], 1);
    document
}

/// The standard error of a run that fails.
fn refused(data: &Path, words: &[&str]) -> String {
    let Ran(code, out, err) = crowsnest(data, words);
    assert_eq!((code, out.as_str()), (1, ""), "{words:?}: {err}");
    err
}

/// A registry with the images of `tests/images/debian`, of which one has lost its configuration.
fn registry() -> Registry {
    let registry = Registry::start();
    for (tag, name) in IMAGES {
        let from = format!(
            "oci:{}/tests/images/debian:{tag}",
            env!("CARGO_MANIFEST_DIR")
        );
        let to = format!("docker://{}/{name}", registry.host());
        let output = Command::new("skopeo")
            .args(["--insecure-policy", "copy", "--all", "--preserve-digests"])
            .args(["--dest-tls-verify=false", &from, &to])
            .output()
            .unwrap_or_else(|error| panic!("running `skopeo`: {error} (apt-get install skopeo)"));
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let base = format!("{}/v2/broken/app", registry.url());
    let manifest = ureq::get(format!("{base}/manifests/1.0"))
        .header("Accept", "application/vnd.oci.image.manifest.v1+json")
        .call()
        .unwrap()
        .body_mut()
        .read_to_string()
        .unwrap();
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    let config = manifest["config"]["digest"].as_str().unwrap();
    ureq::delete(format!("{base}/blobs/{config}"))
        .call()
        .unwrap();
    registry
}

/// Type, name and version of the packages of an image, by tools that are not ours.
fn expected(image: &str, platform: &str) -> BTreeSet<[String; 3]> {
    let table = include_str!("../images/expected.tsv");
    let rows = table
        .lines()
        .map(|line| line.split('\t').collect::<Vec<_>>());
    rows.filter(|row| row[0] == image && row[1] == platform)
        .map(|row| [row[2].to_owned(), row[3].to_owned(), row[4].to_owned()])
        .collect()
}

#[test]
fn a_filled_store_is_shown() {
    let registry = registry();
    let (host, folder) = (registry.host(), TempDir::new("views"));
    let data = folder.path();
    let Ran(code, _, err) = crowsnest(data, &["watch", "--registry", &host, "--all-images"]);
    assert_eq!(code, 3, "{err}");

    images(data, &host);
    sboms(data, &host);
    references(data, &host);
    statuses(data, &host);
}

fn images(data: &Path, host: &str) {
    let document = json(data, &["images"]);
    let rows = document["images"].as_array().unwrap();
    let names: Vec<String> = rows
        .iter()
        .map(|row| {
            let text = |key: &str| row[key].as_str().unwrap_or("-").to_owned();
            let name = text("repository").replace(host, "HOST");
            format!(
                "{name} {} {} {} {}",
                text("tag"),
                text("platform"),
                row["packages"],
                text("state")
            )
        })
        .collect();
    assert_eq!(
        names,
        [
            "HOST/broken/app 1.0 - null failed",
            "HOST/team/python latest linux/amd64 4 indexed",
            "HOST/team/slim 1.0 linux/amd64 3 indexed",
            "HOST/team/tools 1.0 linux/amd64 4 indexed",
            "HOST/team/tools 1.0 linux/arm64 4 indexed",
        ]
    );
    assert!(rows[0]["error"].as_str().unwrap().contains("configuration"));
    assert_eq!(rows[2]["digest"], rows[2]["image_digest"]);
    assert_eq!(rows[3]["digest"], rows[4]["digest"]);
    assert_ne!(rows[3]["image_digest"], rows[4]["image_digest"]);

    let csv = shown(data, &["images", "--format", "csv"]);
    assert_eq!(csv.lines().count(), 1 + rows.len(), "{csv}");
    for (line, row) in csv.lines().skip(1).zip(rows) {
        let start = ["repository", "tag", "digest"].map(|key| row[key].as_str().unwrap());
        assert!(line.starts_with(&start.join(",")), "{line}");
    }
    let table = shown(data, &["images"]);
    assert_eq!(table.lines().count(), 1 + rows.len(), "{table}");

    for (words, n) in [
        (&["--repository", "team/*"][..], 4),
        (&["--repository", "slim,app"], 2),
        (&["--tag", "^1"], 4),
        (&["--state", "failed"], 1),
        (&["--platform", "linux/arm64"], 1),
        (&["--all", "--state", "indexed", "--tag", "latest"], 1),
    ] {
        let words = [&["images"], words].concat();
        assert_eq!(
            json(data, &words)["images"].as_array().unwrap().len(),
            n,
            "{words:?}"
        );
    }
    let Ran(code, out, err) = crowsnest(
        data,
        &["images", "--repository", "nope", "--format", "json"],
    );
    assert_eq!(
        (code, out.as_str()),
        (0, "{\"version\":1,\n\"images\":[]}\n")
    );
    assert_eq!(err, "crowsnest: none of the 4 tags in the store matches\n");
    assert_eq!(
        refused(data, &["images", "--tag", "("])
            .lines()
            .next()
            .unwrap(),
        "crowsnest: --tag: `(` is not a regular expression: found open group without closing ')'"
    );
}

fn sboms(data: &Path, host: &str) {
    for (tag, name, platform) in [
        ("slim", "team/slim:1.0", "linux/amd64"),
        ("python-next", "team/python", "linux/amd64"),
        ("tools", "team/tools:1.0", "linux/amd64"),
        ("tools", "team/tools:1.0", "linux/arm64"),
    ] {
        let name = format!("{host}/{name}");
        let document = json(data, &["sbom", &name, "--platform", platform]);
        let packages = document["packages"].as_array().unwrap();
        let found: BTreeSet<[String; 3]> = packages
            .iter()
            .map(|package| {
                ["type", "name", "version"].map(|key| package[key].as_str().unwrap().to_owned())
            })
            .collect();
        assert_eq!(
            found,
            expected(&format!("debian:{tag}"), platform),
            "{name}"
        );
        assert_eq!(document["image"]["platform"], platform);
        assert_eq!(document["coverage"]["is_complete"], true);
        let n_layers = document["layers"].as_array().unwrap().len() as u64;
        for package in packages {
            let locations = package["locations"].as_array().unwrap();
            assert!(
                locations
                    .iter()
                    .all(|location| location["layer"].as_u64().unwrap() < n_layers)
            );
            assert!(!locations.is_empty());
        }
    }
    // A package that an upper layer replaced is found where it was replaced.
    let document = json(data, &["sbom", "team/python"]);
    let six = document["packages"]
        .as_array()
        .unwrap()
        .iter()
        .find(|package| package["name"] == "six")
        .unwrap();
    assert_eq!(
        (&six["version"], &six["locations"][0]["layer"]),
        (&"1.17.0".into(), &2.into())
    );
    assert!(
        document["coverage"]["masked"].as_u64().unwrap() >= 3,
        "{document}"
    );

    let list = shown(data, &["sbom", "team/python"]);
    assert!(
        list.starts_with(&format!(
            "image:     {host}/team/python:latest\ndigest:    sha256:"
        )),
        "{list}"
    );
    assert!(list.contains("\ncoverage:  3 of 3 layers read, "), "{list}");
    assert!(list.contains(", 0 problems\n\nTYPE  NAME"), "{list}");
}

fn references(data: &Path, host: &str) {
    let document = json(data, &["sbom", "slim:1.0"]);
    let digest = document["image"]["digest"].as_str().unwrap();
    let tools = json(data, &["images", "--repository", "tools"]);
    let index = tools["images"][0]["digest"].as_str().unwrap();
    for reference in [
        "team/slim:1.0",
        &format!("{host}/team/slim:1.0"),
        &format!("team/slim@{digest}"),
        digest,
        &digest[..17],
        &digest[7..19],
    ] {
        assert_eq!(json(data, &["sbom", reference]), document, "{reference}");
    }
    for reference in ["tools:1.0", index] {
        let err = refused(data, &["sbom", reference]);
        assert!(
            err.contains("has images for several platforms\nhint: choose with --platform"),
            "{err}"
        );
        assert!(
            err.contains("linux/amd64 (") && err.contains("linux/arm64 ("),
            "{err}"
        );
        json(data, &["sbom", reference, "--platform", "linux/arm64"]);
    }
    for (words, message) in [
        (
            &["team/slim"][..],
            "`HOST/team/slim` has no tag `latest` in the store\nhint: it has: 1.0\n",
        ),
        (
            &["team/slin:1.0"],
            "no repository in the store is called `team/slin`\n\
             hint: did you mean `team/slim`? crowsnest images lists what there is\n",
        ),
        (
            &["tools:1.0", "--platform", "linux/s390x"],
            "`tools:1.0` has no image for `linux/s390x`\nhint: it has: linux/amd64, linux/arm64\n",
        ),
        (
            &["sha256:0123"],
            "`sha256:0123` is too short for a digest: expected 6 digits or more\n",
        ),
        (
            &["0123456789ab"],
            "no image in the store has the digest `0123456789ab`\n\
             hint: crowsnest images lists what there is\n",
        ),
        (
            &["a//x"],
            "`a//x` is not a repository name\nhint: expected REPOSITORY[:TAG], REPOSITORY@DIGEST, or a digest\n",
        ),
    ] {
        let words = [&["sbom"], words].concat();
        let err = refused(data, &words).replace(host, "HOST");
        assert_eq!(err, format!("crowsnest: {message}"), "{words:?}");
    }
    let err = refused(data, &["sbom", "app:1.0"]);
    assert!(
        err.contains("broken/app:1.0` could not be indexed: configuration `sha256:"),
        "{err}"
    );
}

fn statuses(data: &Path, host: &str) {
    let document = json(data, &["status"]);
    assert_eq!(document["counts"]["tags"], 4);
    assert_eq!(document["counts"]["images"], 4);
    assert_eq!(document["queue"]["failed"], 1);
    assert_eq!(document["queue"]["waiting"], 0);
    assert_eq!(document["sources"][0]["repositories"], 4);
    assert!(document["sources"][0]["listed_at"].is_string());
    let failures = document["failures"].as_array().unwrap();
    assert_eq!(failures.len(), 1);
    assert_eq!(failures[0]["image"], format!("{host}/broken/app:1.0"));
    assert_eq!(failures[0]["next_try"], Value::Null);
    assert!(failures[0]["attempts"].as_u64().unwrap() >= 1);

    let table = shown(data, &["status"]);
    for text in [
        "holds   4 tags in 4 repositories\n",
        "queue   0 waiting, 0 running, 1 failed\n",
        "\nnot indexed:\n  HOST/broken/app:1.0\n    configuration `sha256:",
    ] {
        assert!(table.contains(&text.replace("HOST", host)), "{table}");
    }
}

#[test]
fn without_a_store_there_is_a_hint() {
    let folder = TempDir::new("no-store");
    let missing = folder.path().join("none");
    for words in [&["images"][..], &["sbom", "app"], &["status"]] {
        let err = refused(&missing, words);
        assert_eq!(
            err,
            format!(
                "crowsnest: there is no store in `{}` yet\n\
                 hint: run `crowsnest watch` first, or name its data directory with --data-dir\n",
                missing.display()
            )
        );
    }
    assert!(!missing.exists(), "looking must not make a store");
}
