//! Webhook subscriptions: who may make which, and which of them an event fits.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::webhooks::{Receiver, api, subscription};
use super::{BASIC, MANIFEST, send};
use crate::emulator::{Class, Config, Emulator, Repository, User};

#[test]
fn subscriptions_are_kept_changed_and_removed() {
    let emulator = Emulator::start(Config::default());
    let mut hook = subscription("hook", "http://127.0.0.1:9/hook");
    hook["handlers"][0]["secret"] = json!("s3cret");
    hook.as_object_mut().expect("an object").remove("enabled");
    let created = api(&emulator, "POST", "", &hook);
    assert_eq!(created.status, 201);
    assert_eq!(api(&emulator, "POST", "", &hook).status, 409);
    let kept = api(&emulator, "GET", "/hook", &Value::Null);
    assert_eq!(kept.status, 200);
    assert_eq!(kept.json()["enabled"], false, "the default");
    assert_eq!(kept.json()["event_filter"]["criteria"]["anyLocal"], true);
    assert_eq!(kept.json()["handlers"][0]["url"], "http://127.0.0.1:9/hook");

    hook["description"] = json!("changed");
    let changed = api(&emulator, "PUT", "/hook", &hook);
    assert_eq!((changed.status, changed.body.as_str()), (204, ""));
    let list = api(&emulator, "GET", "", &Value::Null);
    assert_eq!(list.json().as_array().map(Vec::len), Some(1));
    assert_eq!(list.json()[0]["description"], "changed");
    for answer in [&created, &kept, &list] {
        assert!(!answer.body.contains("secret\""), "{}", answer.body);
        assert!(!answer.body.contains("s3cret"), "{}", answer.body);
    }

    let removed = api(&emulator, "DELETE", "/hook", &Value::Null);
    assert_eq!((removed.status, removed.body.as_str()), (204, ""));
    for method in ["GET", "PUT", "DELETE"] {
        assert_eq!(
            api(&emulator, method, "/hook", &hook).status,
            404,
            "{method}"
        );
    }
    assert_eq!(api(&emulator, "GET", "", &Value::Null).json(), json!([]));
    let below = format!("{}/event/api/v1/subscriptions", emulator.base_url());
    assert_eq!(send("GET", &below, &[BASIC], "").status, 404);
}

#[test]
fn only_administrators_subscribe() {
    let emulator = Emulator::start(Config {
        users: vec![User::reader("ann", "x", &["docker-local/**"])],
        ..Config::default()
    });
    let hook = subscription("hook", "http://127.0.0.1:9/hook").to_string();
    let reader = ("Authorization", "Basic YW5uOng=");
    for (method, path) in [
        ("GET", ""),
        ("POST", ""),
        ("POST", "/test"),
        ("DELETE", "/hook"),
    ] {
        let url = format!(
            "http://{}/event/api/v1/subscriptions{path}",
            emulator.host()
        );
        assert_eq!(
            send(method, &url, &[], &hook).status,
            401,
            "{method} {path}"
        );
        assert_eq!(
            send(method, &url, &[reader], &hook).status,
            403,
            "{method} {path}"
        );
    }
    emulator.set("anonymous", "on");
    let url = format!("http://{}/event/api/v1/subscriptions", emulator.host());
    assert_eq!(send("GET", &url, &[], "").status, 403);
}

#[test]
fn wrong_subscriptions_are_refused() {
    let emulator = Emulator::start(Config::default());
    let handler = json!({"handler_type": "webhook", "url": "http://127.0.0.1:9/hook"});
    let header = json!({"name": "X-A", "value": "b"});
    let long = json!({"name": "X-A", "value": "b".repeat(5200)});
    let cases = [
        ("/key", json!("1hook"), "invalid key '1hook'"),
        ("/key", json!("a.b"), "invalid key 'a.b'"),
        ("/key", json!("k".repeat(501)), "invalid key"),
        (
            "/event_filter/domain",
            json!("build"),
            "unknown domain 'build'",
        ),
        (
            "/event_filter/domain",
            json!("artifact"),
            "unknown event type 'pushed'",
        ),
        (
            "/event_filter/event_types",
            json!(["deployed"]),
            "unknown event type 'deployed'",
        ),
        ("/event_filter/event_types", json!([]), "no event types"),
        ("/handlers", json!([]), "exactly one handler"),
        (
            "/handlers",
            json!([handler, handler]),
            "exactly one handler",
        ),
        ("/handlers/0/url", json!("ftp://x/"), "invalid url"),
        (
            "/handlers/0/handler_type",
            json!("custom-webhook"),
            "unknown handler type",
        ),
        (
            "/handlers",
            json!([merged(&handler, &vec![header; 51])]),
            "too many custom headers",
        ),
        (
            "/handlers",
            json!([merged(&handler, &[long])]),
            "too many custom headers",
        ),
        ("/event_filter", json!(7), "invalid type"),
    ];
    for (pointer, value, text) in cases {
        let mut wrong = subscription("hook", "http://127.0.0.1:9/hook");
        *wrong.pointer_mut(pointer).expect("a field") = value.clone();
        let answer = api(&emulator, "POST", "", &wrong);
        assert_eq!(answer.status, 400, "{pointer} {value}");
        assert!(answer.body.contains(text), "{pointer}: {}", answer.body);
    }
    assert_eq!(api(&emulator, "GET", "", &Value::Null).json(), json!([]));
    let right = subscription(&"k".repeat(500), "http://127.0.0.1:9/hook");
    assert_eq!(api(&emulator, "POST", "", &right).status, 201);
    let mut artifact = subscription("a_B-1", "http://127.0.0.1:9/hook");
    artifact["event_filter"] = json!({"domain": "artifact", "event_types": ["cached", "copied"]});
    assert_eq!(api(&emulator, "POST", "", &artifact).status, 201);
}

fn merged(handler: &Value, headers: &[Value]) -> Value {
    let mut handler = handler.clone();
    handler["custom_http_headers"] = json!(headers);
    handler
}

#[test]
fn private_addresses_are_refused_by_the_strict_rule() {
    let emulator = Emulator::start(Config::default());
    emulator.set("webhook_strict_urls", "on");
    let status = |host: &str| {
        let key = format!("k{}", host.replace(['.', ':', '[', ']'], "-"));
        api(
            &emulator,
            "POST",
            "",
            &subscription(&key, &format!("http://{host}/hook")),
        )
        .status
    };
    for host in [
        "127.0.0.1:80",
        "10.1.2.3",
        "192.168.0.1",
        "169.254.0.1",
        "[::1]:8",
        "[fd00::1]",
        "localhost",
    ] {
        assert_eq!(status(host), 400, "{host}");
    }
    assert_eq!(status("crowsnest.example"), 201);
    assert_eq!(status("192.0.2.1"), 201);
}

#[test]
fn criteria_choose_the_subscriptions() {
    let local = |key: &str| Repository::new(key, Class::Local);
    let receiver = Receiver::start();
    let emulator = Emulator::start(Config {
        repositories: vec![
            local("docker-local"),
            local("other"),
            Repository::new("fed", Class::Federated),
        ],
        ..Config::default()
    });
    let all = json!({"anyLocal": true});
    let patterns = |include: &[&str], exclude: &[&str]| json!({"anyLocal": true, "includePatterns": include, "excludePatterns": exclude});
    // Pushed is docker-local/team/sub/app/1.2/manifest.json.
    let cases = [
        ("any-local", all.clone(), true),
        ("any-remote", json!({"anyRemote": true}), false),
        ("any-federated", json!({"anyFederated": true}), false),
        (
            "named",
            json!({"repoKeys": ["other", "docker-local"]}),
            true,
        ),
        ("other", json!({"repoKeys": ["other"]}), false),
        ("nothing", json!({}), false),
        ("below", patterns(&["team/**"], &[]), true),
        ("slash", patterns(&["team/"], &[]), true),
        ("anywhere", patterns(&["**/app/**"], &[]), true),
        ("everything", patterns(&["**"], &[]), true),
        ("by-name", patterns(&["**/manifest.json"], &[]), true),
        (
            "no-folder",
            patterns(&["team/**/sub/app/1.?/*.json"], &[]),
            true,
        ),
        ("one-level", patterns(&["team/*"], &[]), false),
        (
            "star-stays",
            patterns(&["team/*/1.2/manifest.json"], &[]),
            false,
        ),
        ("too-short", patterns(&["team/sub"], &[]), false),
        ("question", patterns(&["tea?/sub/**"], &[]), true),
        ("case", patterns(&["Team/**"], &[]), false),
        ("second", patterns(&["x/**", "team/**"], &[]), true),
        ("excluded", patterns(&[], &["**/1.*/**"]), false),
        ("exclude-wins", patterns(&["team/**"], &["team/**"]), false),
        ("not-excluded", patterns(&["team/**"], &["**/2.*/**"]), true),
    ];
    for (key, criteria, _) in &cases {
        let mut hook = subscription(key, &receiver.url());
        hook["event_filter"]["criteria"] = criteria.clone();
        emulator.subscribe(&hook);
    }
    let mut disabled = subscription("disabled", &receiver.url());
    disabled["enabled"] = json!(false);
    emulator.subscribe(&disabled);
    let mut other_type = subscription("other-type", &receiver.url());
    other_type["event_filter"]["event_types"] = json!(["deleted"]);
    emulator.subscribe(&other_type);
    emulator.seed_pushed("docker-local", "team/sub/app", "1.2", MANIFEST);
    let told = emulator.wait_for_deliveries();
    let told: BTreeSet<&str> = told.iter().map(|row| row.subscription.as_str()).collect();
    let expected: BTreeSet<&str> = cases
        .iter()
        .filter(|case| case.2)
        .map(|case| case.0)
        .collect();
    assert_eq!(told, expected);
}
