//! Configurations that are none, and documents of long words or of very many small things.

use serde_json::{Value, json};

use super::{LINE_BYTES, fails, pass, place, registry, shown};
use crate::emulator::message::Response;
use crate::fake_registry::{FakeRegistry, Layer, OCI_MANIFEST, digest, dpkg_tar, text};

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

/// Tags images whose configurations are those texts.
fn configured(registry: &FakeRegistry, tag: &str, config: &str) {
    let layer = Layer::gzip(&dpkg_tar("evil"));
    registry.hold(&layer);
    let config = registry.blob(
        "application/vnd.oci.image.config.v1+json",
        config.as_bytes(),
    );
    let manifest = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [layer.descriptor()]});
    registry.tag(
        "zoo/evil",
        tag,
        OCI_MANIFEST,
        manifest.to_string().as_bytes(),
    );
}

#[test]
fn configurations_that_are_none() {
    let registry = registry();
    let layers = |diff_ids: Value| {
        json!({"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": diff_ids}})
            .to_string()
    };
    let cases = [
        (
            "brackets",
            "[".repeat(1_000_000),
            "not an image configuration: ",
        ),
        (
            "braces",
            "{\"config\":".repeat(300_000),
            "not an image configuration: ",
        ),
        (
            "ignored",
            format!("{{\"x\":{}", "[".repeat(1_000_000)),
            "not an image configuration: ",
        ),
        ("null", "null".to_owned(), "not an image configuration: "),
        ("page", "<html>".to_owned(), "not an image configuration: "),
        (
            "path",
            layers(json!(["sha256:../../../etc/passwd"])),
            "`sha256:../../../etc/passwd` is not a digest",
        ),
        (
            "unknown",
            layers(json!(["sha1:da39a3ee"])),
            "digest algorithm `sha1` is not supported",
        ),
        (
            "two",
            layers(json!([digest(b"a"), digest(b"b")])),
            "the manifest has 1 layers, the configuration 2",
        ),
        (
            "many",
            layers(json!(vec![digest(b"a"); 10_000])),
            "10000 layers are over the limit of 1000",
        ),
    ];
    for (tag, text, _) in &cases {
        configured(&registry, tag, text);
    }
    let place = place("no-config");
    let ended = pass(&registry, &place, 3, &[]);
    for (tag, _, reason) in &cases {
        ended.says(&["error image failed", &format!("zoo/evil:{tag} "), reason]);
    }
    assert_eq!(ended.total("failed"), cases.len() as u64);
}

#[test]
fn documents_with_very_long_words() {
    let registry = registry();
    let long = "lorem-ipsum-".repeat(250_000);
    let config = registry.blob("application/vnd.oci.image.config.v1+json", b"{}");
    let of =
        |layer: Value| json!({"schemaVersion": 2, "config": config, "layers": [layer]}).to_string();
    let sha = digest(b"x");
    let manifests = [
        ("digest", of(json!({"digest": format!("sha256:{long}"), "size": 3})), "is not a digest: not 64 lower-case hex digits"),
        ("algorithm", of(json!({"digest": format!("{long}:x"), "size": 3})), "is not supported"),
        ("size", of(json!({"digest": sha, "size": long})), "not a manifest: invalid type: string"),
        ("negative", of(json!({"digest": long, "size": -1})), "has the size -1"),
        ("type", of(json!({"mediaType": long, "digest": sha, "size": 3})), "a media type is larger than the limit of 1024 bytes"),
        ("artifact", json!({"artifactType": long, "config": config}).to_string(), "an artifact type is larger than the limit of 1024 bytes"),
        ("platform", json!({"manifests": [{"digest": sha, "size": 3, "platform": {"os": long, "architecture": "x"}}]}).to_string(), "a platform is larger than the limit of 1024 bytes"),
    ];
    let configs = [
        (
            "os",
            json!({"os": long}),
            "a platform is larger than the limit of 1024 bytes",
        ),
        (
            "variant",
            json!({"variant": long}),
            "a platform is larger than the limit of 1024 bytes",
        ),
        (
            "created",
            json!({"created": long}),
            "the time of creation is larger than the limit of 1024 bytes",
        ),
        (
            "user",
            json!({"config": {"User": long}}),
            "the user is larger than the limit of 1024 bytes",
        ),
        (
            "diff-id",
            json!({"rootfs": {"diff_ids": [long]}}),
            "is not a digest",
        ),
        (
            "list",
            json!({"rootfs": {"diff_ids": long}}),
            "not an image configuration: invalid type: string",
        ),
    ];
    for (tag, text, _) in &manifests {
        registry.tag("zoo/evil", tag, "", text.as_bytes());
    }
    for (tag, config, _) in &configs {
        configured(&registry, tag, &config.to_string());
    }
    let place = place("long-words");
    let ended = pass(&registry, &place, 3, &[]);
    let reasons = manifests.iter().map(|(tag, _, reason)| (tag, reason));
    for (tag, reason) in reasons.chain(configs.iter().map(|(tag, _, reason)| (tag, reason))) {
        ended.says(&["error image failed", &format!("zoo/evil:{tag} "), reason]);
    }
    assert_eq!(ended.total("failed"), 13);
    let longest = shown(&place, None).lines().map(str::len).max();
    assert!(longest < Some(LINE_BYTES), "{longest:?}");
}

#[test]
fn documents_of_a_million_small_things() {
    let sha = digest(b"x");
    let fill = |first: &str, item: &str, last: &str| {
        let n = (4_100_000 - first.len() - last.len()) / (item.len() + 1);
        [first, &vec![item; n].join(","), last].concat()
    };
    let numbered = |first: &str, last: &str| {
        let mut text = first.to_owned();
        for n in 0..320_000 {
            text.push_str(&format!("\"{n:x}\":\"\","));
        }
        text.pop();
        text + last
    };
    let config = format!(
        r#"{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{sha}","size":2}}"#
    );
    let entry = format!(r#"{{"manifests":[{{"digest":"{sha}","size":2,"#);
    let manifests = [
        (
            "layers",
            fill(
                &format!(r#"{{"config":{config},"layers":["#),
                r#"{"digest":""}"#,
                "]}",
            ),
            "layers are over the limit of 1000",
        ),
        (
            "manifests",
            fill(r#"{"manifests":["#, r#"{"digest":""}"#, "]}"),
            "manifests is over the limit of 1000",
        ),
        (
            "urls",
            fill(
                &format!(r#"{{"config":{config},"layers":[{{"digest":"","urls":["#),
                r#""""#,
                "]}]}",
            ),
            "is not a digest",
        ),
        (
            "annotations",
            numbered(
                &format!("{entry}\"annotations\":{{"),
                "}},{\"digest\":\"\"}]}",
            ),
            "is not a digest",
        ),
    ];
    let configs = [
        (
            "diff-ids",
            fill(r#"{"rootfs":{"diff_ids":["#, r#""""#, "]}}"),
            "layers are over the limit of 1000",
        ),
        (
            "env",
            fill(r#"{"config":{"Env":["#, r#""""#, "]}}"),
            "variables are over the limit of 10000",
        ),
        (
            "labels",
            numbered(r#"{"config":{"Labels":{"#, "}}}"),
            "labels are over the limit of 10000",
        ),
    ];
    for (tag, text, reason) in &manifests {
        let registry = registry();
        registry.tag("zoo/evil", "1", "", text.as_bytes());
        fails(&format!("small-{tag}"), &registry, &[reason]);
    }
    for (tag, text, reason) in &configs {
        let registry = registry();
        configured(&registry, "1", text);
        fails(&format!("small-{tag}"), &registry, &[reason]);
    }
}
