//! What webhooks do to the store: a real registry's notifications, Artifactory's events, signatures, replays,
//! bursts, and a process that is killed.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::crowsnest::{Crowsnest, Running};
use crate::emulator::Emulator;
use crate::fake_registry::{FakeRegistry, Layer, dpkg_tar};
use crate::pitfalls::{artifactory, images, manifest, place, seed, set};
use crate::registry::{Registry, free_port};
use crate::sender::{SECRET, Sender, event, sign};

/// So long that only a webhook can have told of something.
const NEVER: &str = "3600";

fn with_secret(name: &str) -> Crowsnest {
    place(name).set("CROWSNEST_ARTIFACTORY_WEBHOOK_SECRET", SECRET)
}

/// Watches a key of the emulator, with webhooks on a free port. Returns when the first pass is over.
fn watching<'a>(place: &'a Crowsnest, emulator: &Emulator, key: &str) -> (Running<'a>, Sender) {
    let registry = format!(
        "type=artifactory,registry={},api={},repository={key}",
        emulator.host(),
        emulator.base_url()
    );
    let arguments = [
        "--interval",
        NEVER,
        "--debug",
        "--listen",
        "127.0.0.1:0",
        "--registry",
        &registry,
    ];
    let mut running = place.start(&arguments);
    running.wait_until(|said| said.contains("source listed"));
    let sender = Sender::to(&running.address());
    (running, sender)
}

/// Everything that must not change by events that tell nothing new.
fn content(place: &Crowsnest) -> Vec<String> {
    place.stored().dump(&[
        "repository",
        "tag",
        "tag_history",
        "manifest",
        "layer",
        "job",
    ])
}

#[test]
fn a_real_registry_tells_of_pushes_and_deletions() {
    let port = free_port();
    let registry = Registry::start_with(&format!(
        "notifications:\n  endpoints:\n    - name: crowsnest\n      url: http://127.0.0.1:{port}/any/path\n      \
         headers:\n        Authorization: [Bearer {SECRET}]\n      timeout: 5s\n      threshold: 3\n      backoff: 1s\n"
    ));
    let place =
        Crowsnest::new("notified").set("CROWSNEST_OCI_WEBHOOK_AUTH", &format!("Bearer {SECRET}"));
    let mut running = place.start(&[
        "--interval",
        NEVER,
        "--debug",
        "--registry",
        &format!("type=oci,registry={},port={port}", registry.host()),
    ]);
    running.wait_until(|said| said.contains("source listed"));
    for tag in ["1", "2"] {
        let pushed = Command::new("skopeo")
            .args(["copy", "-q", "--all", "--dest-tls-verify=false"])
            .arg(format!(
                "docker-archive:{}/tests/images/node.tar:@0",
                env!("CARGO_MANIFEST_DIR")
            ))
            .arg(format!("docker://{}/team/app:{tag}", registry.host()))
            .status();
        assert!(pushed.is_ok_and(|status| status.success()));
    }
    running.wait_for("both tags are indexed", || images(&place).len() == 2);
    assert_eq!(images(&place), set(&["team/app:1", "team/app:2"]));

    let manifest = format!("{}/v2/team/app/manifests", registry.url());
    let head = ureq::head(format!("{manifest}/1"))
        .header(
            "Accept",
            "application/vnd.docker.distribution.manifest.v2+json",
        )
        .header("Accept", "application/vnd.oci.image.manifest.v1+json")
        .call()
        .unwrap();
    let digest = head.headers()["docker-content-digest"]
        .to_str()
        .unwrap()
        .to_owned();
    ureq::delete(format!("{manifest}/{digest}")).call().unwrap();
    running.wait_for("both tags are gone", || images(&place).is_empty());
    let ended = running.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    // Blobs, pulls and manifests without a tag are of no interest, and are not refused.
    assert!(!ended.stderr.contains("refused"), "{}", ended.stderr);
    ended.says(&["webhook", "result=accepted", "event=deleted"]);
}

#[test]
fn signatures_decide_who_is_heard() {
    let emulator = artifactory();
    let place = with_secret("signatures");
    let (mut running, sender) = watching(&place, &emulator, "docker-local");
    seed(&emulator, "docker-local", "team/app", "1");
    let before = content(&place);
    let body = event("pushed", "docker-local", "team/app", "1").to_string();
    let code = sign(SECRET, body.as_bytes());
    let header = "X-JFrog-Event-Auth";
    let base64 = {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(&code)
    };
    for (what, given) in [
        ("truncated", &code[..63]),
        ("of another body", &sign(SECRET, b"{}")),
        ("of another secret", &sign("x", body.as_bytes())),
        ("upper case", &code.to_uppercase()),
        ("base64", &base64),
        ("with a prefix", &format!("sha256={code}")),
        ("sha1 of nothing", "sha1="),
        (
            "sha1, wrong",
            "sha1=0000000000000000000000000000000000000000",
        ),
        ("part of the secret", &SECRET[..20]),
        ("empty", ""),
    ] {
        assert_eq!(
            sender.send(&[(header, given)], body.as_bytes()).0,
            401,
            "{what}"
        );
    }
    assert_eq!(sender.send(&[], body.as_bytes()).0, 401);
    assert_eq!(
        sender.send(&[("Authorization", SECRET)], body.as_bytes()).0,
        401
    );
    let changed = body.replace("team/app", "team/apq");
    assert_eq!(sender.send(&[(header, &code)], changed.as_bytes()).0, 401);
    assert_eq!(content(&place), before);
    assert_eq!(place.stored().count("event"), 0);
    assert!(!running.said().contains(SECRET));

    // printf %s BODY | openssl dgst -sha1 -hmac SECRET, done by another program.
    let sha1 = openssl_sha1(&body);
    for given in [&code, SECRET, &format!("sha1={sha1}")] {
        assert_eq!(
            sender.send(&[(header, given)], body.as_bytes()).0,
            202,
            "{given}"
        );
    }
    running.wait_for("it is indexed", || {
        images(&place) == set(&["docker-local/team/app:1"])
    });
}

fn openssl_sha1(body: &str) -> String {
    let script = format!("printf %s \"$0\" | openssl dgst -sha1 -hmac '{SECRET}' | sed 's/.* //'");
    let output = Command::new("sh")
        .args(["-c", &script, body])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn bodies_are_read_leniently_and_answered_as_senders_expect() {
    let emulator = artifactory();
    let place = with_secret("bodies");
    let (mut running, sender) = watching(&place, &emulator, "docker-local");
    for tag in ["1", "2", "3"] {
        seed(&emulator, "docker-local", "team/app", tag);
    }
    let mut index = event("pushed", "docker-local", "team/app", "1");
    index["data"]["path"] = json!("team/app/1/list.manifest.json");
    let flat = json!({"event_type": "pushed", "repo_key": "docker-local", "path": "team/app/2/manifest.json",
                      "name": "manifest.json", "image_name": "app", "tag": "2"});
    let mut extended = event("pushed", "docker-local", "team/app", "3");
    extended["userContext"] = json!({"id": "alice", "isToken": false});
    extended["jpd_origin"] = json!("https://acme.jfrog.io");
    let mut child = event("pushed", "docker-local", "team/app", "1");
    child["data"]["path"] = json!("team/app/sha256:3b1f5d2a/manifest.json");
    let mut sample = event("pushed", "docker-local", "x", "y");
    sample["data"]["path"] = json!("sample_dir/sample.txt");
    let mut layer = event("deployed", "docker-local", "team/app", "1");
    layer["data"]["path"] = json!("team/app/1/sha256__00");
    let mut nameless = event("pushed", "docker-local", "team/app", "1");
    nameless["data"].as_object_mut().unwrap().remove("repo_key");
    let cases: [(&str, Value, u16); 12] = [
        ("an index", index, 202),
        ("without an envelope", flat, 202),
        ("with more fields", extended, 202),
        ("a platform of an index", child, 204),
        ("a layer", layer, 204),
        (
            "another key",
            event("pushed", "other-local", "team/app", "1"),
            204,
        ),
        (
            "another event",
            event("downloaded", "docker-local", "team/app", "1"),
            204,
        ),
        (
            "a name that is none",
            event("pushed", "docker-local", "te am/app", "1"),
            204,
        ),
        ("the test of the connection", sample, 200),
        ("no key", nameless, 400),
        ("another form", json!({"hello": "world"}), 400),
        ("no object", json!([1, 2]), 400),
    ];
    for (what, body, status) in cases {
        assert_eq!(sender.signed(&body), status, "{what}");
    }
    let nested = "[".repeat(100_000);
    for text in ["", "{", "\u{0}", "null", nested.as_str()] {
        let signature = sign(SECRET, text.as_bytes());
        let status = sender
            .send(&[("X-JFrog-Event-Auth", &signature)], text.as_bytes())
            .0;
        assert_eq!(status, 400, "{:?}", &text[..text.len().min(10)]);
    }
    let all = set(&[
        "docker-local/team/app:1",
        "docker-local/team/app:2",
        "docker-local/team/app:3",
    ]);
    running.wait_for("three are indexed", || images(&place) == all);
    assert_eq!(sender.get("/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(sender.get("/readyz"), (200, "ready\n".to_owned()));
    assert_eq!(sender.get("/").0, 404);
}

#[test]
fn ten_thousand_replays_change_nothing() {
    let emulator = artifactory();
    seed(&emulator, "docker-local", "team/app", "1");
    let place = with_secret("replays");
    let (mut running, sender) = watching(&place, &emulator, "docker-local");
    let body = event("pushed", "docker-local", "team/app", "1");
    assert_eq!(sender.signed(&body), 202);
    running.wait_for("it is indexed", || images(&place).len() == 1);
    running.wait_for("the event is done", || place.stored().count("event") == 0);
    let before = content(&place);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..1_250).for_each(|_| assert_eq!(sender.signed(&body), 202)));
        }
    });
    running.wait_for("all events are done", || place.stored().count("event") == 0);
    assert_eq!(content(&place), before);
    // Each is logged, and asked for much less often.
    let said = running.said();
    assert_eq!(said.matches("result=accepted").count(), 10_001);
    assert!(emulator.count_requests("HEAD", "team/app/manifests/1") < 9_000);
}

#[test]
fn a_burst_about_one_image_is_looked_at_once_or_twice() {
    let emulator = artifactory();
    seed(&emulator, "docker-local", "team/app", "1");
    let place = with_secret("burst");
    let (mut running, sender) = watching(&place, &emulator, "docker-local");
    emulator.clear_requests();
    emulator.set("delay_ms", "1000");
    let body = event("pushed", "docker-local", "team/app", "1");
    for _ in 0..50 {
        assert_eq!(sender.signed(&body), 202);
    }
    running.wait_for("all events are done", || place.stored().count("event") == 0);
    emulator.set("delay_ms", "0");
    let n = emulator.count_requests("HEAD", "team/app/manifests/1");
    assert!((1..=3).contains(&n), "{n} looks:\n{}", running.said());
}

#[test]
fn tags_that_move_and_go_are_followed_and_stay_in_the_history() {
    let emulator = artifactory();
    let place = with_secret("moves");
    let (mut running, sender) = watching(&place, &emulator, "docker-local");
    let first = seed(&emulator, "docker-local", "team/app", "1");
    assert_eq!(
        sender.signed(&event("pushed", "docker-local", "team/app", "1")),
        202
    );
    running.wait_for("it is indexed", || images(&place).len() == 1);

    // Overwriting is told as a deletion and a push, in any order.
    let (second, blobs) = manifest("amd64", "second");
    blobs.iter().for_each(|blob| {
        emulator.seed_blob(blob);
    });
    let second = emulator.seed("docker-local", "team/app", "1", &second);
    for kind in ["deleted", "pushed", "deleted"] {
        assert_eq!(
            sender.signed(&event(kind, "docker-local", "team/app", "1")),
            202
        );
    }
    running.wait_for("the tag moved", || {
        place.stored().tag_digests() == [second.clone()]
    });
    running.wait_for("all is read", || {
        place.stored().count("job") + place.stored().count("event") == 0
    });
    assert_eq!(images(&place).len(), 1);
    assert_eq!(place.stored().history(), [("1".to_owned(), first)]);

    emulator.remove("docker-local", "team/app/1");
    assert_eq!(
        sender.signed(&event("deleted", "docker-local", "team/app", "1")),
        202
    );
    running.wait_for("it is gone", || images(&place).is_empty());
    let (_, current) = place.run("images", &[]);
    let (_, all) = place.run("images", &["--all"]);
    assert!(
        !current.contains("team/app") && all.contains("team/app"),
        "{current}\n{all}"
    );
    running.stop().says(&["webhook", "event=deleted"]);
}

#[test]
fn keys_of_members_and_promotions_lead_to_what_is_watched() {
    let emulator = artifactory();
    for (key, image) in [
        ("docker-local", "a"),
        ("other-local", "b"),
        ("hub-cache", "c"),
        ("other-local", "d"),
    ] {
        seed(&emulator, key, image, "1");
    }
    let place = with_secret("virtual");
    let (mut running, sender) = watching(&place, &emulator, "docker");
    for (key, image) in [
        ("docker-local", "a"),
        ("other-local", "b"),
        ("hub-cache", "c"),
    ] {
        assert_eq!(
            sender.signed(&event("pushed", key, image, "1")),
            202,
            "{key}"
        );
    }
    let mut promoted = event("promoted", "elsewhere", "x/d", "rc");
    promoted["data"]["target_repo"] = json!("other-local");
    promoted["data"]["target_tag"] = json!("1");
    promoted["data"]["path"] = json!("d/rc/manifest.json");
    assert_eq!(sender.signed(&promoted), 202);
    let all = set(&["docker/a:1", "docker/b:1", "docker/c:1", "docker/d:1"]);
    running.wait_for("all are indexed", || images(&place) == all);
}

#[test]
fn what_is_pushed_overtakes_a_backfill() {
    let registry = FakeRegistry::start();
    let is_open = Arc::new(AtomicBool::new(false));
    let layers: Vec<Layer> = (0..3)
        .map(|n| Layer::plain(&dpkg_tar(&format!("old-{n}"))))
        .collect();
    for (n, layer) in layers.iter().enumerate() {
        registry.image("old", &n.to_string(), std::slice::from_ref(layer));
    }
    // Every layer that was there before waits until the test lets it go.
    let held: Vec<String> = layers.into_iter().map(|layer| layer.digest).collect();
    let gate = Arc::clone(&is_open);
    registry.hook(move |request| {
        let is_held = held.iter().any(|digest| request.path.ends_with(digest));
        while is_held && !gate.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    });
    let fresh = Layer::plain(&dpkg_tar("fresh"));
    let place = Crowsnest::new("overtakes");
    let mut running = place.start(&[
        "--all-images",
        "--interval",
        NEVER,
        "--workers",
        "1",
        "--listen",
        "127.0.0.1:0",
        "--registry",
        &format!("type=oci,registry={}", registry.host()),
    ]);
    // Its configuration, and its layer.
    running.wait_for("a layer of the backfill is asked for", || {
        registry.count("GET", "/old/blobs/") > 1
    });
    registry.image("new", "1", &[fresh]);
    let sender = Sender::to(&running.address());
    let body = json!({"events": [{"action": "push", "target": {
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "repository": "new", "tag": "1"}}]});
    assert_eq!(sender.send(&[], body.to_string().as_bytes()).0, 202);
    running.wait_for("the pushed image is indexed", || {
        images(&place) == set(&["new:1"])
    });
    is_open.store(true, Ordering::SeqCst);
    running.wait_for("the others too", || images(&place).len() == 4);
}

#[test]
fn no_accepted_event_is_lost_by_a_kill_under_load() {
    // Nobody answers at the registry, so events wait.
    let host = format!("127.0.0.1:{}", free_port());
    let registry = format!(
        "type=artifactory,registry={host},api=http://{host}/artifactory,repository=docker-local"
    );
    let place = with_secret("killed");
    let mut n_accepted = 0;
    for round in 0..5 {
        let mut running = place.start(&[
            "--interval",
            NEVER,
            "--listen",
            "127.0.0.1:0",
            "--registry",
            &registry,
        ]);
        let sender = Sender::to(&running.address());
        let accepted = Mutex::new(BTreeSet::new());
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (sender, accepted) = (&sender, &accepted);
                scope.spawn(move || {
                    for n in 0.. {
                        let image = format!("round-{round}/image-{thread}-{n}");
                        match sender.signed(&event("pushed", "docker-local", &image, "1")) {
                            202 => accepted
                                .lock()
                                .unwrap()
                                .insert(format!("docker-local/{image}")),
                            _ => return,
                        };
                    }
                });
            }
            running.wait_for("enough was accepted", || {
                accepted.lock().unwrap().len() > 300 + 100 * round
            });
            running.kill();
        });
        let stored: BTreeSet<String> = place.stored().events().into_iter().collect();
        let accepted = accepted.into_inner().unwrap();
        let lost: Vec<&String> = accepted.difference(&stored).collect();
        assert!(
            lost.is_empty(),
            "{} of {} lost: {lost:?}",
            lost.len(),
            accepted.len()
        );
        n_accepted += accepted.len();
        assert!(stored.len() >= n_accepted);
    }
}

#[test]
fn the_command_prints_what_to_enter_and_tests_who_listens() {
    let emulator = artifactory();
    let place = with_secret("command");
    let registry = format!(
        "type=artifactory,registry={},api={},repository=docker-local",
        emulator.host(),
        emulator.base_url()
    );
    let mut running = place.start(&[
        "--interval",
        NEVER,
        "--listen",
        "127.0.0.1:0",
        "--registry",
        &registry,
    ]);
    let url = format!("http://{}/", running.address());
    let run = |place: &Crowsnest, action: &str, url: &str| {
        place.run("webhook", &[action, "--url", url, "--registry", &registry])
    };
    let (code, text) = run(&place, "test", &url);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("heard at") && text.contains("without a signature it is refused"),
        "{text}"
    );
    let (code, text) = run(
        &with_secret("other").set("CROWSNEST_ARTIFACTORY_WEBHOOK_SECRET", "x"),
        "test",
        &url,
    );
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("answered 401") && text.contains("same CROWSNEST_ARTIFACTORY_WEBHOOK_SECRET"),
        "{text}"
    );
    let (code, text) = run(
        &place,
        "test",
        &format!("http://127.0.0.1:{}/", free_port()),
    );
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("hint: is it running"), "{text}");

    // What is printed for the API is what the API takes, once the secret is in its place.
    let (code, text) = run(&place, "print", &url);
    assert_eq!(code, Some(0), "{text}");
    let json = text
        .split("<<'EOF'\n")
        .nth(1)
        .unwrap()
        .split("EOF")
        .next()
        .unwrap();
    let json: Value = serde_json::from_str(&json.replace("THE_SECRET", SECRET)).unwrap();
    assert_eq!(json["handlers"][0]["url"], url);
    assert!(!text.contains(SECRET));
    running.stop().says(&["webhook", "test received"]);
}

#[test]
fn what_happened_while_nobody_watched_is_found_after_a_restart() {
    let emulator = artifactory();
    for tag in ["1", "2"] {
        seed(&emulator, "docker-local", "old", tag);
    }
    let place = with_secret("restart");
    let (running, sender) = watching(&place, &emulator, "docker-local");
    seed(&emulator, "docker-local", "app", "1");
    assert_eq!(
        sender.signed(&event("pushed", "docker-local", "app", "1")),
        202
    );
    // An event that was accepted a moment before the end is not lost either.
    running.kill();
    emulator.remove("docker-local", "old/1");
    let (pushed, blobs) = manifest("amd64", "pushed meanwhile");
    blobs.iter().for_each(|blob| {
        emulator.seed_blob(blob);
    });
    emulator.seed("docker-local", "app", "2", &pushed);
    emulator.seed("docker-local", "old", "2", &pushed);

    let (mut running, _) = watching(&place, &emulator, "docker-local");
    let now = set(&[
        "docker-local/app:1",
        "docker-local/app:2",
        "docker-local/old:2",
    ]);
    running.wait_for("all three are indexed", || images(&place) == now);
    let ended = running.stop();
    assert_eq!(
        place.stored().gone(),
        ["docker-local/old:1"],
        "{}",
        ended.stderr
    );
}

#[test]
fn an_artifactory_that_sends_by_itself_is_followed() {
    for (signing, form, order) in [
        (true, "nested", "children-first"),
        (false, "flat", "tag-first"),
        (true, "nested", "shuffled"),
    ] {
        let emulator = artifactory();
        emulator.set("webhook_form", form);
        emulator.set("webhook_order", order);
        emulator.set("webhook_duplicates", "2");
        let place = with_secret("subscribed");
        let (mut running, _) = watching(&place, &emulator, "docker-local");
        // What the command prints is what the server takes.
        let url = format!("http://{}/hook", running.address());
        let registry = format!(
            "type=artifactory,registry={},api={},repository=docker-local",
            emulator.host(),
            emulator.base_url()
        );
        let (_, text) = place.run(
            "webhook",
            &["print", "--url", &url, "--registry", &registry],
        );
        let json = text
            .split("<<'EOF'\n")
            .nth(1)
            .unwrap()
            .split("EOF")
            .next()
            .unwrap();
        let mut subscription: Value =
            serde_json::from_str(&json.replace("THE_SECRET", SECRET)).unwrap();
        subscription["handlers"][0]["use_secret_for_signing"] = json!(signing);
        emulator.subscribe(&subscription);

        let mut entries = Vec::new();
        for architecture in ["amd64", "arm64"] {
            let (child, blobs) = manifest(architecture, "multi");
            blobs.iter().for_each(|blob| {
                emulator.seed_blob(blob);
            });
            let digest = crate::fake_registry::digest(&child);
            emulator.seed_pushed("docker-local", "team/multi", &digest, &child);
            entries.push(json!({
                "mediaType": crate::fake_registry::OCI_MANIFEST, "digest": digest, "size": child.len(),
                "platform": {"os": "linux", "architecture": architecture},
            }));
        }
        let index = json!({"schemaVersion": 2, "mediaType": crate::fake_registry::OCI_INDEX, "manifests": entries});
        emulator.seed_pushed(
            "docker-local",
            "team/multi",
            "1",
            index.to_string().as_bytes(),
        );
        running.wait_for("both platforms are indexed", || {
            place.stored().images().len() == 2
        });

        // Overwritten: deleted, then pushed.
        let (single, blobs) = manifest("amd64", "single");
        blobs.iter().for_each(|blob| {
            emulator.seed_blob(blob);
        });
        let digest = emulator.seed_pushed("docker-local", "team/multi", "1", &single);
        running.wait_for("the tag moved", || {
            place.stored().tag_digests() == [digest.clone()]
        });
        running.wait_for("it is indexed", || place.stored().images().len() == 1);
        emulator.remove_deleted("docker-local", "team/multi/1");
        running.wait_for("it is gone", || images(&place).is_empty());
        emulator.wait_for_deliveries();
        let statuses: BTreeSet<_> = emulator
            .deliveries()
            .into_iter()
            .map(|sent| sent.outcome)
            .collect();
        assert!(
            statuses
                .iter()
                .all(|outcome| matches!(outcome, Ok(202 | 204))),
            "{statuses:?}"
        );
        running.stop();
    }
}
