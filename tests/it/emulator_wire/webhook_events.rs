//! Webhook events of the docker domain: what each change of the storage emits, in which order and
//! with which body.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::webhooks::{Receiver, subscription};
use super::{BASIC, BLOB, MANIFEST, send};
use crate::emulator::message::{Request, Response};
use crate::emulator::server::Listener;
use crate::emulator::{Class, Config, Door, Emulator, Repository};
use crate::fake_registry::digest;

/// An emulator with a receiver of all docker events of local repositories, and what it needs to
/// take pushes: an upstream that says 201 to everything.
pub(super) struct Place {
    pub(super) emulator: Emulator,
    receiver: Receiver,
    _upstream: Listener,
}

pub(super) fn place() -> Place {
    let handler = Arc::new(|_: &mut Request<'_>| Response::new(201));
    let upstream = Listener::start("127.0.0.1:0", Door::Main, handler).expect("a free port");
    let local = |key: &str| Repository::new(key, Class::Local);
    let emulator = Emulator::start(Config {
        upstream: Some(format!("http://{}", upstream.address())),
        repositories: vec![local("docker-local"), local("prod")],
        ..Config::default()
    });
    let receiver = Receiver::start();
    emulator.subscribe(&subscription("hook", &receiver.url()));
    Place {
        emulator,
        receiver,
        _upstream: upstream,
    }
}

impl Place {
    pub(super) fn send(&self, method: &str, path: &str, body: &str) -> u16 {
        let url = format!("http://{}{path}", self.emulator.host());
        send(method, &url, &[BASIC, ("Content-Type", "")], body).status
    }

    fn push(&self, image: &str, reference: &str, manifest: &str) {
        let path = format!("/v2/docker-local/{image}/manifests/{reference}");
        assert_eq!(self.send("PUT", &path, manifest), 201, "{path}");
    }

    /// Pushes two platforms and the list of them as `team/app:1`.
    fn push_list(&self) {
        for architecture in ["amd64", "arm64"] {
            self.push(
                "team/app",
                &digest(child(architecture).as_bytes()),
                &child(architecture),
            );
        }
        self.push("team/app", "1", &list());
    }

    /// The bodies received since the last call.
    fn bodies(&self) -> Vec<Value> {
        self.emulator.wait_for_deliveries();
        let kept = self.emulator.deliveries();
        let received = self.receiver.received();
        let new = &received[received.len() - kept.len()..];
        self.emulator.clear_deliveries();
        let parse = |body: &str| serde_json::from_str(body).expect("JSON");
        new.iter().map(|received| parse(&received.body)).collect()
    }

    /// Type, path and tag of the events since the last call.
    fn events(&self) -> Vec<String> {
        let row = |body: Value| {
            let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
            let data = &body["data"];
            format!(
                "{} {} {}",
                word(&body["event_type"]),
                word(&data["path"]),
                word(&data["tag"])
            )
        };
        self.bodies().into_iter().map(row).collect()
    }
}

fn child(architecture: &str) -> String {
    json!({
        "schemaVersion": 2,
        "config": {"digest": BLOB},
        "layers": [],
        "annotations": {"architecture": architecture},
    })
    .to_string()
}

fn list() -> String {
    let entry = |architecture: &str| {
        json!({
            "digest": digest(child(architecture).as_bytes()),
            "platform": {"architecture": architecture, "os": "linux", "variant": "v8"},
        })
    };
    json!({"schemaVersion": 2, "manifests": [entry("amd64"), entry("arm64")]}).to_string()
}

/// The event row of a pushed platform.
fn child_row(architecture: &str) -> String {
    let folder = digest(child(architecture).as_bytes());
    format!("pushed team/app/{folder}/manifest.json {folder}")
}

const TAG_ROW: &str = "pushed team/app/1/list.manifest.json 1";

fn bare(manifest: &[u8]) -> String {
    digest(manifest).replace("sha256:", "")
}

#[test]
fn a_pushed_tag_is_one_event() {
    let place = place();
    let manifest = std::str::from_utf8(MANIFEST).expect("JSON");
    place.push("team/app", "1.4.2", manifest);
    let origin = format!("http://{}", place.emulator.host());
    let body = json!({
        "domain": "docker",
        "event_type": "pushed",
        "data": {
            "repo_key": "docker-local",
            "path": "team/app/1.4.2/manifest.json",
            "name": "manifest.json",
            "sha256": bare(MANIFEST),
            "size": MANIFEST.len(),
            "image_name": "app",
            "tag": "1.4.2",
            "platforms": [],
            "image_type": "docker",
        },
        "subscription_key": "hook",
        "jpd_origin": origin,
        "source": "jfrog/jfrt@emulator-0000-0001",
        "userContext": {"id": "admin", "isToken": false, "realm": "internal"},
    });
    assert_eq!(place.bodies(), [body]);
    place
        .emulator
        .seed_pushed("docker-local", "team/app", "seeded", MANIFEST);
    assert_eq!(
        place.events(),
        ["pushed team/app/seeded/manifest.json seeded"]
    );
    place
        .emulator
        .seed("docker-local", "team/app", "silent", MANIFEST);
    assert_eq!(place.events(), [""; 0]);
}

#[test]
fn bodies_follow_the_switches() {
    let place = place();
    let body = |switch: &str, value: &str| {
        let emulator = &place.emulator;
        emulator.set(switch, value);
        emulator.seed_pushed("docker-local", "team/app", switch, MANIFEST);
        let mut bodies = place.bodies();
        assert_eq!(bodies.len(), 1, "{switch}");
        bodies.remove(0)
    };
    assert_eq!(
        body("webhook_image_name", "full")["data"]["image_name"],
        "team/app"
    );
    assert!(body("webhook_origin", "off").get("jpd_origin").is_none());
    assert!(
        body("webhook_user_context", "off")
            .get("userContext")
            .is_none()
    );
    let flat = body("webhook_form", "flat");
    assert_eq!(flat["event_type"], "pushed");
    assert_eq!(flat["path"], "team/app/webhook_form/manifest.json");
    assert_eq!(flat["sha256"], bare(MANIFEST));
    assert!(
        flat.get("domain").is_none() && flat.get("data").is_none(),
        "{flat}"
    );
    place.emulator.set("webhook_duplicates", "2");
    place
        .emulator
        .seed_pushed("docker-local", "app", "1", MANIFEST);
    let copies = place.bodies();
    assert_eq!(copies.len(), 3);
    assert!(copies.iter().all(|copy| *copy == copies[0]));
}

#[test]
fn overwriting_a_tag_is_deleting_and_pushing() {
    let place = place();
    let pushed = "pushed app/1/manifest.json 1";
    let deleted = "deleted app/1/manifest.json 1";
    place.push("app", "1", &child("amd64"));
    assert_eq!(place.events(), [pushed]);
    place.push("app", "1", &child("arm64"));
    let bodies = place.bodies();
    let rows: Vec<_> = bodies
        .iter()
        .map(|b| (&b["event_type"], &b["data"]["sha256"]))
        .collect();
    let (old, new) = (
        bare(child("amd64").as_bytes()),
        bare(child("arm64").as_bytes()),
    );
    let expected = [
        (&json!("deleted"), &json!(old)),
        (&json!("pushed"), &json!(new)),
    ];
    assert_eq!(rows, expected);
    place.emulator.set("webhook_deleted_sha256", "off");
    place.push("app", "1", &child("amd64"));
    let bodies = place.bodies();
    assert_eq!(bodies[0]["data"]["sha256"], "");
    assert_eq!(bodies[0]["data"]["size"], 0);
    assert_eq!(bodies[1]["data"]["sha256"], bare(child("amd64").as_bytes()));
    place
        .emulator
        .seed_pushed("docker-local", "app", "1", MANIFEST);
    assert_eq!(place.events(), [deleted, pushed]);
}

#[test]
fn a_list_is_an_event_for_each_platform_and_one_for_the_tag() {
    let orders = |order: &str, seed: &str| {
        let place = place();
        place.emulator.set("webhook_order", order);
        place.emulator.set("fault_seed", seed);
        place.push_list();
        place.events()
    };
    let (amd64, arm64) = (child_row("amd64"), child_row("arm64"));
    let tag = TAG_ROW.to_owned();
    assert_eq!(
        orders("children-first", "0"),
        [&amd64, &arm64, &tag].map(String::clone)
    );
    assert_eq!(
        orders("tag-first", "0"),
        [&tag, &amd64, &arm64].map(String::clone)
    );
    let shuffled: Vec<_> = (0..8)
        .map(|seed| orders("shuffled", &seed.to_string()))
        .collect();
    assert_eq!(orders("shuffled", "0"), shuffled[0], "the same seed");
    let different: BTreeSet<_> = shuffled.iter().collect();
    assert!(different.len() > 2, "{different:?}");
    let all: BTreeSet<_> = [amd64, arm64, tag].into();
    for order in shuffled {
        assert_eq!(order.into_iter().collect::<BTreeSet<_>>(), all);
    }
}

#[test]
fn a_list_names_its_platforms() {
    let place = place();
    place.push_list();
    let platforms: Vec<_> = place
        .bodies()
        .iter()
        .map(|b| b["data"]["platforms"].clone())
        .collect();
    let both =
        json!([{"architecture": "amd64", "os": "linux"}, {"architecture": "arm64", "os": "linux"}]);
    assert_eq!(platforms, [json!([]), json!([]), both]);
}

#[test]
fn every_way_to_delete_is_an_event() {
    let place = place();
    for tag in ["1", "2", "3", "4", "5"] {
        let manifest = child(tag);
        place
            .emulator
            .seed("docker-local", "team/app", tag, manifest.as_bytes());
    }
    let row = |tag: &str| format!("deleted team/app/{tag}/manifest.json {tag}");
    assert_eq!(
        place.send("DELETE", "/v2/docker-local/team/app/manifests/1", ""),
        202
    );
    assert_eq!(place.events(), [row("1")]);
    let by_digest = format!(
        "/v2/docker-local/team/app/manifests/{}",
        digest(child("2").as_bytes())
    );
    assert_eq!(place.send("DELETE", &by_digest, ""), 202);
    assert_eq!(place.events(), [row("2")]);
    assert_eq!(
        place.send("DELETE", "/artifactory/docker-local/team/app/3", ""),
        204
    );
    assert_eq!(place.events(), [row("3")]);
    place
        .emulator
        .remove_deleted("docker-local", "team/app/4/manifest.json");
    assert_eq!(place.events(), [row("4")]);
    place
        .emulator
        .seed("docker-local", "team/app", "6", MANIFEST);
    assert_eq!(
        place.send("DELETE", "/artifactory/docker-local/team/", ""),
        204
    );
    assert_eq!(place.events(), [row("5"), row("6")], "the folder of both");
    assert_eq!(
        place.send("DELETE", "/v2/docker-local/team/app/manifests/1", ""),
        404
    );
    assert_eq!(place.emulator.remove_deleted("docker-local", "team"), 0);
    assert_eq!(place.events(), [""; 0]);
}

#[test]
fn promoting_is_an_event_of_its_source() {
    let place = place();
    let receiver = Receiver::start();
    let mut of_target = subscription("target", &receiver.url());
    of_target["event_filter"]["criteria"] = json!({"repoKeys": ["prod"]});
    place.emulator.subscribe(&of_target);
    place.push_list();
    place.bodies();
    let promote = |copy: bool, target_tag: &str| {
        let body = json!({
            "targetRepo": "prod", "dockerRepository": "team/app", "targetDockerRepository": "shop",
            "tag": "1", "targetTag": target_tag, "copy": copy,
        });
        let path = "/artifactory/api/docker/docker-local/v2/promote";
        assert_eq!(place.send("POST", path, &body.to_string()), 200);
    };
    for (copy, tag) in [(true, "new"), (false, "newer")] {
        promote(copy, tag);
        let bodies = place.bodies();
        assert_eq!(bodies.len(), 1, "no `pushed`, no `deleted`: {bodies:?}");
        assert_eq!(bodies[0]["event_type"], "promoted");
        let data = &bodies[0]["data"];
        assert_eq!(data["repo_key"], "docker-local");
        assert_eq!(data["path"], "team/app/1/list.manifest.json");
        assert_eq!(data["tag"], "1");
        assert_eq!(data["sha256"], bare(list().as_bytes()));
        assert_eq!(data["target_repo"], "prod");
        assert_eq!(data["target_tag"], tag);
    }
    assert!(receiver.received().is_empty(), "matched on the target");
    let files = place.emulator.files("prod");
    assert!(
        files.contains(&"shop/new/list.manifest.json".to_owned()),
        "{files:?}"
    );
}
