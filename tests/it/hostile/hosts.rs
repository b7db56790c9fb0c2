//! Credentials and secrets: other hosts, redirects, token realms, and every output.

use std::time::Duration;

use serde_json::json;

use super::{assert_no_secret, cannot_list, fails, pass, place, registry};
use crate::emulator::message::Response;
use crate::fake_registry::{Layer, Recorder, dpkg_tar};

#[test]
fn blobs_and_manifests_redirected_to_another_host() {
    let other =
        Recorder::start("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi");
    let registry = registry();
    let layer = Layer::gzip(&dpkg_tar("evil"));
    registry.image("zoo/evil", "1", std::slice::from_ref(&layer));
    let manifest = registry.image("zoo/moved", "1", &[Layer::gzip(&dpkg_tar("moved"))]);
    let location = format!("http://{}/blob?X-Amz-Signature=s1gned", other.host());
    registry.hook(move |request| {
        if request.header("authorization").is_none() {
            let basic = "Basic realm=\"zoo\"";
            return Some(
                Response::status_error(401, "who are you").header("WWW-Authenticate", basic),
            );
        }
        let is_it = request.path.contains(&layer.digest)
            || (request.path.ends_with(&manifest) && !request.is_head());
        is_it.then(|| Response::new(307).header("Location", location.clone()))
    });
    let place = place("redirect");
    let ended = pass(&registry, &place, 3, &[]);
    ended.says(&["error image failed", "zoo/evil:1"]);
    ended.says(&["error image failed", "zoo/moved:1"]);
    assert!(!ended.stderr.contains("s1gned"), "{}", ended.stderr);
    let heard = other.heard();
    assert!(
        heard.contains("GET /blob?X-Amz-Signature=s1gned HTTP/1.1"),
        "{heard}"
    );
    assert!(
        !heard.to_ascii_lowercase().contains("authorization"),
        "{heard}"
    );
    assert_no_secret(&heard);
}

#[test]
fn redirects_that_never_arrive() {
    let registry = registry();
    registry.image("zoo/evil", "1", &[Layer::gzip(&dpkg_tar("evil"))]);
    let (own, host) = (registry.url(), registry.host());
    registry.hook(move |request| {
        let is_it = request.path.contains("zoo/evil/manifests/sha256");
        is_it.then(|| Response::new(302).header("Location", format!("{own}{}", request.path)))
    });
    fails("circle", &registry, &["more than 5 redirects from", &host]);
}

#[test]
fn redirects_to_places_that_are_no_registry() {
    for (name, location, reason) in [
        ("file", "file:///etc/passwd", "is not http"),
        (
            "metadata",
            "http://169.254.169.254/latest/meta-data/",
            "169.254.169.254",
        ),
        (
            "metadata-tls",
            "https://169.254.169.254/latest/meta-data/",
            "internal address `169.254.169.254`",
        ),
        (
            "plain",
            "http://192.0.2.1/x",
            "plain HTTP to `192.0.2.1` is not allowed",
        ),
        (
            "password",
            "http://u:p@127.0.0.1/x",
            "credentials do not belong",
        ),
    ] {
        let registry = registry();
        registry.image("zoo/evil", "1", &[Layer::gzip(&dpkg_tar("evil"))]);
        registry.hook(move |request| {
            let is_it = request.path.contains("zoo/evil/manifests/sha256");
            is_it.then(|| Response::new(302).header("Location", location))
        });
        fails(&format!("redirect-{name}"), &registry, &[reason]);
    }
}

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
