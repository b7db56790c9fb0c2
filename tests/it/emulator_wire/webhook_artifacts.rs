//! Webhook events of the artifact domain, and what a pull through a remote emits.

use serde_json::{Value, json};

use super::webhook_events::place;
use super::webhooks::{Receiver, subscription};
use super::{ACCEPT, BLOB, MANIFEST, get};
use crate::emulator::{Class, Config, Emulator, Repository};
use crate::fake_registry::FakeRegistry;

#[test]
fn artifact_events_are_about_files() {
    let place = place();
    let receiver = Receiver::start();
    let mut artifact = subscription("artifact", &receiver.url());
    artifact["event_filter"]["domain"] = json!("artifact");
    artifact["event_filter"]["event_types"] = json!(["deployed", "deleted", "copied", "moved"]);
    place.emulator.subscribe(&artifact);
    place.emulator.seed_blob(b"hello");
    place
        .emulator
        .seed_pushed("docker-local", "app", "1", MANIFEST);
    let body = json!({"targetRepo": "prod", "dockerRepository": "app", "tag": "1", "copy": true});
    let path = "/artifactory/api/docker/docker-local/v2/promote";
    assert_eq!(place.send("POST", path, &body.to_string()), 200);
    place.emulator.remove_deleted("docker-local", "app/1");
    place.emulator.wait_for_deliveries();
    let blob = BLOB.replace(':', "__");
    let row = |body: &Value| {
        let data = &body["data"];
        assert!(
            data.get("tag").is_none() && body["domain"] == "artifact",
            "{body}"
        );
        format!("{} {}", body["event_type"], data["path"]).replace('"', "")
    };
    let bodies: Vec<Value> = receiver
        .received()
        .iter()
        .map(|received| serde_json::from_str(&received.body).expect("JSON"))
        .collect();
    let rows: Vec<String> = bodies.iter().map(row).collect();
    let expected = ["deployed", "copied", "deleted"].map(|kind| {
        [
            format!("{kind} app/1/manifest.json"),
            format!("{kind} app/1/{blob}"),
        ]
    });
    assert_eq!(rows, expected.concat());
    let copied = &bodies[2]["data"];
    assert_eq!(
        copied["source_repo_path"],
        "docker-local/app/1/manifest.json"
    );
    assert_eq!(copied["target_repo_path"], "prod/app/1/manifest.json");
}

#[test]
fn pulling_through_a_remote_caches() {
    let hub = FakeRegistry::start();
    let image = hub.image("hub/app", "1", &[]);
    let receiver = Receiver::start();
    let emulator = Emulator::start(Config {
        upstream: Some(hub.url()),
        repositories: vec![Repository::new("hub", Class::Remote)],
        ..Config::default()
    });
    for (key, domain, types) in [
        ("a", "artifact", json!(["cached"])),
        ("d", "docker", json!(["pushed"])),
    ] {
        let mut hook = subscription(key, &receiver.url());
        hook["event_filter"]["domain"] = json!(domain);
        hook["event_filter"]["event_types"] = types;
        hook["event_filter"]["criteria"] =
            json!({"anyRemote": true, "includePatterns": ["**/*manifest.json"]});
        emulator.subscribe(&hook);
    }
    let told = || -> Vec<String> {
        let told = emulator.wait_for_deliveries();
        emulator.clear_deliveries();
        let row = |body: Value| {
            let data = &body["data"];
            assert_eq!(data["repo_key"], "hub-cache");
            format!("{} {} {}", body["event_type"], data["path"], data["sha256"]).replace('"', "")
        };
        told.iter().map(|delivery| row(delivery.json())).collect()
    };
    let hex = image.replace("sha256:", "");
    let pull = |reference: &str| {
        get(
            &emulator,
            &format!("/v2/hub/app/manifests/{reference}"),
            &[ACCEPT],
        )
        .status
    };
    assert_eq!(pull("1"), 200);
    assert_eq!(told(), [format!("cached app/1/manifest.json {hex}")]);
    assert_eq!(pull("1"), 200);
    assert_eq!(told(), [""; 0], "it is cached");
    emulator.set("webhook_remote_pushed", "on");
    emulator.remove("hub-cache", "app");
    assert_eq!(pull("1"), 200);
    let rows = ["cached", "pushed"].map(|kind| format!("{kind} app/1/manifest.json {hex}"));
    assert_eq!(told(), rows);
}
