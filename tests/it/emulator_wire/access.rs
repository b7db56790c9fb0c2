//! Who is let in, which repository is meant, and a server that is not well.

use serde_json::json;

use super::{ACCEPT, BASIC, get, seeded, send};
use crate::emulator::{Config, Emulator, SWITCHES, User};

#[test]
fn every_answer_names_the_server() {
    let emulator = seeded();
    let ping = send(
        "GET",
        &format!("{}/api/system/ping", emulator.base_url()),
        &[],
        "",
    );
    assert_eq!((ping.status, ping.body.as_str()), (200, "OK"));
    assert!(
        ping.header("x-jfrog-version")
            .starts_with("Artifactory/7.161.20 ")
    );
    assert!(
        !ping.header("x-artifactory-id").is_empty()
            && !ping.header("x-artifactory-node-id").is_empty()
    );
    assert_eq!(
        get(&emulator, "/artifactory/api/system/version", &[]).json()["version"],
        "7.161.20"
    );
}

#[test]
fn challenges_follow_the_switches() {
    let emulator = seeded();
    let host = emulator.host();
    let path = "/v2/docker-local/app/manifests/1";
    let rest = "/artifactory/api/docker/docker-local/v2/app/manifests/1";
    let challenge = |method: &str, path: &str| {
        let answer = send(method, &format!("http://{host}{path}"), &[ACCEPT], "");
        assert_eq!(answer.status, 401);
        answer.header("www-authenticate").replace(&host, "HOST")
    };
    let bearer = "Bearer realm=\"http://HOST/v2/token\",service=\"HOST\"";
    assert_eq!(challenge("GET", "/v2/"), bearer);
    assert_eq!(
        challenge("GET", path),
        format!("{bearer},scope=\"repository:docker-local/app:pull\"")
    );
    emulator.set("scope", "without-key");
    assert_eq!(
        challenge("GET", rest),
        "Bearer realm=\"http://HOST/artifactory/api/docker/docker-local/v2/token\",service=\"HOST\",\
         scope=\"repository:app:pull\""
    );
    emulator.set("scope", "none-on-head");
    assert_eq!(challenge("HEAD", path), bearer);
    emulator.set("challenge", "basic");
    assert_eq!(challenge("GET", path), "Basic realm=\"Artifactory Realm\"");
    let wrong = send(
        "GET",
        &format!("http://{host}/v2/"),
        &[("Authorization", "Basic YTpi")],
        "",
    );
    assert_eq!(
        wrong.header("www-authenticate"),
        "Basic realm=\"Artifactory Realm\""
    );
    assert!(
        wrong.body.contains("\"message\" : \"Bad Credentials\""),
        "{}",
        wrong.body
    );
}

#[test]
fn tokens_work_expire_and_are_rejected() {
    let emulator = seeded();
    let token = || {
        let answer = get(
            &emulator,
            "/v2/token?service=x&scope=repository:docker-local/app:pull",
            &[],
        )
        .json();
        format!("Bearer {}", answer["token"].as_str().expect("a token"))
    };
    let url = format!("http://{}/v2/docker-local/app/manifests/1", emulator.host());
    let with = |token: &str| send("GET", &url, &[ACCEPT, ("Authorization", token)], "");
    let good = token();
    assert_eq!(with(&good).status, 200);
    emulator.set("token", "rejected");
    assert_eq!(with(&good).status, 401);
    emulator.set("token", "ok");
    emulator.set("token_expires", "0");
    assert!(
        with(&token())
            .body
            .contains("Token failed verification: expired")
    );
    assert!(
        with("Bearer nonsense")
            .body
            .contains("Props Authentication Token not found")
    );
}

#[test]
fn wrong_passwords_lock_the_user() {
    let emulator = seeded();
    emulator.set("lock_after", "2");
    let url = format!("http://{}/v2/", emulator.host());
    for _ in 0..2 {
        let wrong = ("Authorization", "Basic YWRtaW46d3Jvbmc=");
        assert_eq!(send("GET", &url, &[wrong], "").status, 401);
    }
    let right = send("GET", &url, &[BASIC], "");
    assert_eq!(right.status, 403);
    assert!(
        right.body.contains("This request is blocked"),
        "{}",
        right.body
    );
}

#[test]
fn a_key_is_found_in_path_host_and_port() {
    let emulator = seeded();
    let port = format!(
        "http://{}/v2/app/tags/list",
        emulator.port_host("docker-local")
    );
    assert_eq!(
        send("GET", &port, &[BASIC], "").json()["tags"],
        json!(["1"])
    );
    for host in [
        "docker-local.registry.example",
        "inst-docker-local.jfrog.io",
    ] {
        let answer = get(&emulator, "/v2/app/tags/list", &[("Host", host)]);
        assert_eq!(answer.json()["tags"], json!(["1"]), "{host}");
    }
    assert_eq!(get(&emulator, "/docker-local/v2/", &[]).status, 404);
}

#[test]
fn faults_strike_every_nth_request() {
    let emulator = seeded();
    emulator.set("fault_every", "3");
    emulator.set("fault_status", "429");
    emulator.set("fault_retry_after", "1");
    let statuses: Vec<_> = (0..6).map(|_| get(&emulator, "/v2/", &[]).status).collect();
    assert_eq!(statuses, [200, 200, 429, 200, 200, 429]);
    emulator.set("fault_every", "0");
    emulator.set("login_page", "on");
    assert!(
        get(&emulator, "/v2/", &[])
            .body
            .starts_with("<!DOCTYPE html>")
    );
    emulator.set("suspended", "on");
    assert!(
        get(&emulator, "/v2/", &[])
            .header("location")
            .contains("landing.jfrog.com")
    );
}

#[test]
fn every_switch_takes_its_start_value_and_refuses_nonsense() {
    let emulator = Emulator::start(Config::default());
    for (name, value, meaning) in SWITCHES {
        assert!(!meaning.is_empty());
        emulator.set(name, value);
    }
    let refused = |name: &str, value: &str| {
        let switches = vec![(name.to_owned(), value.to_owned())];
        let config = Config {
            switches,
            ..Config::default()
        };
        Emulator::try_start(config).err()
    };
    for (name, value) in [
        ("nonsense", "on"),
        ("link", "sideways"),
        ("aql_oss", "perhaps"),
        ("page_max", "many"),
        ("aql", "bad"),
    ] {
        assert!(
            refused(name, value).is_some_and(|text| text.contains(name)),
            "{name}={value}"
        );
    }
}

#[test]
fn the_token_endpoint_takes_a_form_only_where_told_to() {
    let emulator = seeded();
    let url = format!("http://{}/v2/token", emulator.host());
    let form = "grant_type=password&username=admin&password=password&service=x";
    assert_eq!(send("POST", &url, &[], form).status, 404);
    emulator.set("token_post", "on");
    emulator.set("token_expires_sent", "off");
    let token = send("POST", &url, &[], form).json();
    assert!(token["token"].is_string() && token["expires_in"].is_null());
    emulator.set("token_error", "old");
    let wrong = send("GET", &url, &[("Authorization", "Basic YTpi")], "");
    assert_eq!(wrong.json()["details"], "BAD_CREDENTIAL");
}

#[test]
fn access_tokens_are_taken_in_three_places() {
    let user = User {
        access_token: Some("abc".to_owned()),
        ..User::admin("ann", "secret")
    };
    let emulator = Emulator::start(Config {
        users: vec![user],
        ..Config::default()
    });
    let url = format!("{}/api/repositories", emulator.base_url());
    for header in [
        ("Authorization", "Bearer abc"),
        ("Authorization", "Basic YW5uOmFiYw=="),
        ("X-JFrog-Art-Api", "abc"),
    ] {
        assert_eq!(send("GET", &url, &[header], "").status, 200, "{header:?}");
    }
    let nobody = send("GET", &url, &[], "");
    assert_eq!(nobody.status, 401);
    assert!(nobody.body.contains("Authentication is required"));
}
