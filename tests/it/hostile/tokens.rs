//! What servers ask for and answer before they let anybody in: challenges, tokens, refusals.

use std::time::Duration;

use serde_json::json;

use super::{assert_no_secret, cannot_list, endless, fails, registry};
use crate::emulator::message::Response;
use crate::fake_registry::Recorder;

#[test]
fn token_realms_on_other_hosts() {
    let answer = r#"{"token":"t"}"#;
    let length = answer.len();
    let other = Recorder::start(&format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{answer}"
    ));
    let other_host = other.host();
    for (name, realm, reason) in [
        (
            "http",
            format!("http://{other_host}/token"),
            other_host.as_str(),
        ),
        (
            "https",
            format!("https://{other_host}/token"),
            other_host.as_str(),
        ),
        (
            "metadata",
            "http://169.254.169.254/token".to_owned(),
            "token realm `http://169.254.169.254/token` is an internal address",
        ),
        (
            "metadata-tls",
            "https://169.254.169.254/token".to_owned(),
            "token realm `https://169.254.169.254/token` is an internal address",
        ),
        ("file", "file:///etc/passwd".to_owned(), "token realm"),
        (
            "user",
            format!("http://a:b@{other_host}/token"),
            "token realm",
        ),
    ] {
        let registry = registry();
        registry.hook(move |_| {
            let challenge = format!("Bearer realm=\"{realm}\",service=\"zoo\"");
            Some(Response::status_error(401, "who are you").header("WWW-Authenticate", challenge))
        });
        let ended = cannot_list(&format!("realm-{name}"), &registry, &[reason]);
        assert!(
            ended.elapsed < Duration::from_secs(20),
            "{:?}",
            ended.elapsed
        );
    }
    let heard = other.heard();
    assert!(heard.contains("GET /token?service=zoo"), "{heard}");
    assert!(
        !heard.to_ascii_lowercase().contains("authorization"),
        "{heard}"
    );
    assert_no_secret(&heard);
}

#[test]
fn a_token_that_is_a_header_of_its_own() {
    let registry = registry();
    let realm = format!("{}/token", registry.url());
    registry.hook(move |request| {
        if request.path == "/token" {
            return Some(Response::json(
                200,
                &json!({"token": "a\r\nX-Smuggled: yes"}),
            ));
        }
        let challenge = format!("Bearer realm=\"{realm}\"");
        Some(Response::status_error(401, "who are you").header("WWW-Authenticate", challenge))
    });
    cannot_list("smuggled", &registry, &["answered without a token"]);
    assert!(
        registry
            .requests()
            .iter()
            .all(|seen| seen.header("x-smuggled").is_none())
    );
}

#[test]
fn token_answers_without_end_or_sense() {
    let deep = "[".repeat(1_000_000);
    let cases = [
        (
            "endless",
            None,
            "token answer is larger than the limit of 1048576 bytes",
        ),
        (
            "deep",
            Some(deep[..500_000].to_owned()),
            "answered with something that is no token",
        ),
        (
            "html",
            Some("<html>".to_owned()),
            "answered with something that is no token",
        ),
        ("empty", Some("{}".to_owned()), "answered without a token"),
        (
            "number",
            Some("{\"token\":1}".to_owned()),
            "answered with something that is no token",
        ),
    ];
    for (name, answer, reason) in cases {
        let registry = registry();
        let realm = format!("{}/token", registry.url());
        registry.hook(move |request| {
            if request.path == "/token" {
                return Some(match &answer {
                    Some(text) => {
                        Response::new(200).body("application/json", text.clone().into_bytes())
                    }
                    None => endless("application/json", "{\"token\":\"", "aaaaaaaaaaaa"),
                });
            }
            let challenge = format!("Bearer realm=\"{realm}\"");
            Some(Response::status_error(401, "who are you").header("WWW-Authenticate", challenge))
        });
        cannot_list(&format!("token-{name}"), &registry, &[reason]);
    }
}

#[test]
fn challenges_that_make_no_sense() {
    let many = "Bearer x=1, ".repeat(3_000);
    for (name, challenge) in [
        ("none", String::new()),
        ("words", "Bearer".to_owned()),
        (
            "unterminated",
            "Bearer realm=\"http://127.0.0.1:1/token".to_owned(),
        ),
        ("commas", ",".repeat(30_000)),
        ("equals", "=".repeat(30_000)),
        (
            "backslashes",
            format!("Bearer realm=\"{}", "\\".repeat(30_000)),
        ),
        ("many", many),
        (
            "long",
            format!("Bearer realm=\"http://127.0.0.1:1/{}\"", "t".repeat(30_000)),
        ),
        ("relative", "Bearer realm=\"/token\"".to_owned()),
        ("unknown", "Negotiate, NTLM".to_owned()),
        ("bytes", "Bearer realm=\"\u{e9}\u{202e}\"".to_owned()),
    ] {
        let registry = registry();
        registry.hook(move |_| {
            Some(
                Response::status_error(401, "who are you")
                    .header("WWW-Authenticate", challenge.clone()),
            )
        });
        let ended = cannot_list(&format!("challenge-{name}"), &registry, &[]);
        assert!(
            ended.elapsed < Duration::from_secs(20),
            "{name}: {:?}",
            ended.elapsed
        );
    }
}

#[test]
fn error_bodies_without_end() {
    for (name, first, then) in [
        ("message", "{\"errors\":[{\"message\":\"", "lorem ipsum "),
        ("deep", "{\"errors\":", "["),
        ("text", "<html>", "<p>"),
    ] {
        let registry = registry();
        registry.image("zoo/evil", "1", &[]);
        registry.hook(move |request| {
            let is_it = request.path.contains("zoo/evil/manifests/sha256");
            is_it.then(|| {
                let mut response = endless("application/json", first, then);
                response.status = 403;
                response
            })
        });
        fails(&format!("error-{name}"), &registry, &["answered 403"]);
    }
}
