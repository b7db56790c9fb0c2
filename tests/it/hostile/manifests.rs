//! Manifests and indexes: endless, contradictory, deep, or with digests that are paths.

use serde_json::{Value, json};

use super::{endless, fails, index_of, pass, place, registry};
use crate::emulator::message::Response;
use crate::fake_registry::{GZIP, Layer, OCI_INDEX, OCI_MANIFEST, digest, dpkg_tar};

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

#[test]
fn a_manifest_with_other_content() {
    let registry = registry();
    let asked = registry.image("zoo/evil", "1", &[Layer::gzip(&dpkg_tar("evil"))]);
    let other = registry.image_of(&[Layer::gzip(&dpkg_tar("other"))]);
    let found = digest(&other);
    registry.hook(move |request| {
        let is_it = request.path.ends_with(&asked) && !request.is_head();
        is_it.then(|| {
            // The header says what was asked for, and only the bytes do not.
            Response::new(200)
                .header("Docker-Content-Digest", asked.clone())
                .body(OCI_MANIFEST, other.clone())
        })
    });
    fails("manifest", &registry, &["manifest has the digest", &found]);
}

#[test]
fn an_index_without_end() {
    let entry = json!({"mediaType": OCI_MANIFEST, "digest": digest(b"x"), "size": 3}).to_string();
    let registry = registry();
    registry.tag("zoo/evil", "1", OCI_INDEX, b"{}");
    registry.hook(move |request| {
        let is_it = request.path.contains("zoo/evil/manifests/sha256");
        is_it.then(|| {
            let first = "{\"schemaVersion\":2,\"manifests\":[";
            endless(OCI_INDEX, first, &format!("{entry},"))
        })
    });
    let limit = "manifest is larger than the limit of 4194304 bytes";
    fails("index", &registry, &[limit]);
}
