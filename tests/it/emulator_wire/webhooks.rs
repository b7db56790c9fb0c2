//! Webhooks: how a body comes to its receiver. Who may subscribe to what is in
//! [`super::subscriptions`], what is in the bodies in [`super::webhook_events`].

use std::collections::VecDeque;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use super::{Answer, BASIC, MANIFEST, send};
use crate::emulator::message::{Request, Response};
use crate::emulator::server::{Listener, lock};
use crate::emulator::{Config, Delivery, Door, Emulator};

/// What a receiver got.
#[derive(Clone)]
pub(super) struct Received {
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: String,
}

impl Received {
    /// The one header of that name; empty when there is none.
    fn header(&self, name: &str) -> &str {
        let fits = |(field, _): &&(String, String)| field.eq_ignore_ascii_case(name);
        let mut values = self.headers.iter().filter(fits);
        let value = values.next().map_or("", |(_, value)| value);
        assert!(values.next().is_none(), "{name} came twice");
        value
    }
}

/// A server that takes webhooks and answers what it is told to, then 200.
pub(super) struct Receiver {
    listener: Listener,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Receiver {
    pub(super) fn start() -> Receiver {
        Receiver::answering(&[])
    }

    fn answering(statuses: &[u16]) -> Receiver {
        let received = Arc::new(Mutex::new(Vec::new()));
        let answers = Mutex::new(VecDeque::from(statuses.to_vec()));
        let handler = {
            let received = received.clone();
            Arc::new(move |request: &mut Request<'_>| {
                assert_eq!(
                    (request.method.as_str(), request.path.as_str()),
                    ("POST", "/hook")
                );
                let body = request.read_body(1 << 20).expect("a body");
                lock(&received).push(Received {
                    headers: request.headers.clone(),
                    body: String::from_utf8(body).expect("JSON is UTF-8"),
                });
                Response::new(lock(&answers).pop_front().unwrap_or(200))
            })
        };
        let listener = Listener::start("127.0.0.1:0", Door::Main, handler).expect("a free port");
        Receiver { listener, received }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/hook", self.listener.address())
    }

    pub(super) fn received(&self) -> Vec<Received> {
        lock(&self.received).clone()
    }
}

/// A subscription to all docker events of all local repositories.
pub(super) fn subscription(key: &str, url: &str) -> Value {
    json!({
        "key": key,
        "enabled": true,
        "event_filter": {
            "domain": "docker",
            "event_types": ["pushed", "deleted", "promoted"],
            "criteria": {"anyLocal": true},
        },
        "handlers": [{"handler_type": "webhook", "url": url}],
    })
}

pub(super) fn api(emulator: &Emulator, method: &str, path: &str, body: &Value) -> Answer {
    let url = format!(
        "http://{}/event/api/v1/subscriptions{path}",
        emulator.host()
    );
    let body = match body {
        Value::Null => String::new(),
        body => body.to_string(),
    };
    send(
        method,
        &url,
        &[BASIC, ("Content-Type", "application/json")],
        &body,
    )
}

/// An emulator whose retries come at once, with a body that is the same on every run.
fn quick() -> Emulator {
    let emulator = Emulator::start(Config::default());
    emulator.set("webhook_retry_wait_ms", "0");
    emulator.set("webhook_origin", "off");
    emulator
}

/// Pushes one tag; returns the tries of its event.
fn push(emulator: &Emulator) -> Vec<Delivery> {
    emulator.seed_pushed("docker-local", "team/app", "1", MANIFEST);
    emulator.wait_for_deliveries()
}

fn outcomes(deliveries: &[Delivery]) -> Vec<(u32, Result<u16, ()>)> {
    let outcome = |delivery: &Delivery| (delivery.attempt, delivery.outcome.clone().map_err(drop));
    deliveries.iter().map(outcome).collect()
}

/// The body of [`push`] from a [`quick`] emulator, byte for byte.
const BODY: &str = r#"{"data":{"image_name":"app","image_type":"docker","name":"manifest.json","path":"team/app/1/manifest.json","platforms":[],"repo_key":"docker-local","sha256":"950ae076ac8349e21673385c76bf582900ee3cfc6f98d195a9607d7161c8ead1","size":182,"tag":"1"},"domain":"docker","event_type":"pushed","source":"jfrog/jfrt@emulator-0000-0001","subscription_key":"hook","userContext":{"id":"admin","isToken":false,"realm":"internal"}}"#;

#[test]
fn the_header_is_the_secret_or_a_signature_of_the_body() {
    // Each value but the first is what `openssl dgst -sha256 -hmac s3cret` (and `-sha1`) print for
    // BODY.
    let cases = [
        (false, "new", "s3cret"),
        (
            true,
            "new",
            "134fe503dda668a83919a9f67e3e3548bda4007d64fc580bcc003b4e7f476db7",
        ),
        (
            true,
            "sha1",
            "sha1=c684494d5f5a19b64d08197c91a0c3c78b7d500f",
        ),
    ];
    for (signing, form, expected) in cases {
        let (emulator, receiver) = (quick(), Receiver::start());
        emulator.set("webhook_sign", form);
        let mut hook = subscription("hook", &receiver.url());
        hook["handlers"][0]["secret"] = json!("s3cret");
        hook["handlers"][0]["use_secret_for_signing"] = json!(signing);
        emulator.subscribe(&hook);
        push(&emulator);
        let received = receiver.received();
        assert_eq!(received.len(), 1);
        assert_eq!(received[0].body, BODY);
        assert_eq!(
            received[0].header("x-jfrog-event-auth"),
            expected,
            "{signing} {form}"
        );
        assert_eq!(received[0].header("content-type"), "application/json");
    }
}

#[test]
fn without_a_secret_there_is_no_header_and_custom_headers_are_sent() {
    let (emulator, receiver) = (quick(), Receiver::start());
    let mut hook = subscription("hook", &receiver.url());
    hook["handlers"][0]["use_secret_for_signing"] = json!(true);
    hook["handlers"][0]["custom_http_headers"] = json!([{"name": "X-From", "value": "jfrog"}, {"name": "Authorization", "value": "Bearer z"}]);
    emulator.subscribe(&hook);
    push(&emulator);
    let received = &receiver.received()[0];
    assert_eq!(received.header("x-jfrog-event-auth"), "");
    assert_eq!(received.header("x-from"), "jfrog");
    assert_eq!(received.header("authorization"), "Bearer z");
}

#[test]
fn five_tries_are_made_and_the_last_failure_drops_the_event() {
    let (emulator, receiver) = (
        quick(),
        Receiver::answering(&[500, 503, 502, 504, 500, 200]),
    );
    emulator.subscribe(&subscription("hook", &receiver.url()));
    let tries = push(&emulator);
    let expected = [
        (1, Ok(500)),
        (2, Ok(503)),
        (3, Ok(502)),
        (4, Ok(504)),
        (5, Ok(500)),
    ];
    assert_eq!(outcomes(&tries), expected);
    assert_eq!(receiver.received().len(), 5);
    assert!(
        receiver
            .received()
            .iter()
            .all(|received| received.body == tries[0].body)
    );
    emulator.clear_deliveries();
    assert_eq!(
        outcomes(&push(&emulator)).len(),
        2,
        "the next event is sent as ever"
    );
}

#[test]
fn a_status_below_500_is_final() {
    for status in [200, 204, 400, 401, 404, 429, 499] {
        let (emulator, receiver) = (quick(), Receiver::answering(&[status]));
        emulator.subscribe(&subscription("hook", &receiver.url()));
        assert_eq!(outcomes(&push(&emulator)), [(1, Ok(status))]);
        assert_eq!(receiver.received().len(), 1);
    }
    let (emulator, receiver) = (quick(), Receiver::answering(&[503, 200]));
    emulator.subscribe(&subscription("hook", &receiver.url()));
    assert_eq!(outcomes(&push(&emulator)), [(1, Ok(503)), (2, Ok(200))]);
}

#[test]
fn sending_that_fails_is_tried_again() {
    // Bound, never accepted: a connection is made and nobody answers. Or not even bound.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let silent_url = format!("http://{}/hook", silent.local_addr().expect("an address"));
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    let closed_url = format!("http://{}/hook", closed.expect("an address"));
    for (url, text) in [(silent_url, "timeout"), (closed_url, "refused")] {
        let emulator = quick();
        emulator.set("webhook_timeout_ms", "50");
        emulator.subscribe(&subscription("hook", &url));
        let tries = push(&emulator);
        assert_eq!(
            tries.iter().map(|t| t.attempt).collect::<Vec<_>>(),
            [1, 2, 3, 4, 5]
        );
        for delivery in &tries {
            let error = delivery.outcome.clone().expect_err("no answer");
            assert!(error.to_lowercase().contains(text), "{url}: {error}");
        }
    }
}

#[test]
fn the_wait_between_tries_is_fixed_and_holds_up_nobody_else() {
    let (emulator, good) = (quick(), Receiver::start());
    let bad = Receiver::answering(&[500, 500, 500]);
    emulator.set("webhook_retry_wait_ms", "60");
    emulator.subscribe(&subscription("a-bad", &bad.url()));
    emulator.subscribe(&subscription("b-good", &good.url()));
    let tries = push(&emulator);
    let order: Vec<_> = tries
        .iter()
        .map(|t| (t.subscription.as_str(), t.attempt))
        .collect();
    let expected = [
        ("a-bad", 1),
        ("b-good", 1),
        ("a-bad", 2),
        ("a-bad", 3),
        ("a-bad", 4),
    ];
    assert_eq!(order, expected);
    let bad: Vec<_> = tries.iter().filter(|t| t.subscription == "a-bad").collect();
    for pair in bad.windows(2) {
        let wait = pair[1].at - pair[0].at;
        assert!(wait >= Duration::from_millis(60), "{wait:?}");
    }
}

#[test]
fn the_test_delivery_has_placeholders_and_always_succeeds() {
    let (emulator, receiver) = (quick(), Receiver::answering(&[500]));
    let mut hook = subscription("hook", &receiver.url());
    hook["enabled"] = json!(false);
    hook["handlers"][0]["secret"] = json!("s3cret");
    let failed = api(&emulator, "POST", "/test", &hook);
    assert_eq!(failed.status, 200, "also on failure");
    assert_eq!(failed.json()["status_code"], 500);
    let received = receiver.received();
    assert_eq!(received.len(), 1, "tried once");
    assert_eq!(received[0].header("x-jfrog-event-auth"), "s3cret");
    let body: Value = serde_json::from_str(&received[0].body).expect("JSON");
    assert_eq!(
        body["data"],
        json!({
            "repo_key": "sample_repo",
            "path": "sample_dir/sample.txt",
            "name": "sample.txt",
            "sha256": "sample_checksum",
            "size": 0,
            "image_name": "sample_arch",
            "tag": "sample_image",
            "platforms": [{"architecture": "sample_os", "os": "sample_tag"}],
        })
    );
    assert_eq!(
        (&body["domain"], &body["event_type"]),
        (&json!("docker"), &json!("pushed"))
    );
    assert_eq!(body["subscription_key"], "hook");
    assert_eq!(outcomes(&emulator.deliveries()), [(1, Ok(500))]);
    assert_eq!(
        api(&emulator, "GET", "/hook", &Value::Null).status,
        404,
        "it is not kept"
    );
    drop(receiver);
    let unreachable = api(&emulator, "POST", "/test", &hook);
    assert_eq!(unreachable.status, 200);
    assert!(
        unreachable.json()["error"].is_string(),
        "{}",
        unreachable.body
    );
}
