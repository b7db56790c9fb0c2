//! What the emulator says on the wire, one table or case for each behaviour that no other client
//! shows.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Instant;

use serde_json::{Value, json};
use ureq::http;

use crate::emulator::{Class, Config, Emulator, Repository, SWITCHES, Times, User};

/// An answer with its body read.
struct Answer {
    status: u16,
    headers: http::HeaderMap,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().expect("ASCII"))
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// Sends a request without following redirects; `headers` are name and value.
fn send(method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .allow_non_standard_methods(true)
        .accept("")
        .proxy(None)
        .build();
    let agent: ureq::Agent = config.into();
    let mut request = http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(body.to_owned()).expect("a request");
    let answer = agent
        .run(request)
        .unwrap_or_else(|error| panic!("{method} {url}: {error}"));
    let (head, mut answer) = answer.into_parts();
    Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        body: answer.read_to_string().unwrap_or_default(),
    }
}

const BASIC: (&str, &str) = ("Authorization", "Basic YWRtaW46cGFzc3dvcmQ=");
const ACCEPT: (&str, &str) = ("Accept", "*/*");
const MANIFEST: &[u8] = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"digest":"sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"},"layers":[]}"#;
const BLOB: &str = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

/// An emulator with the image `app:1` whose configuration is the blob `hello`.
fn seeded() -> Emulator {
    let emulator = Emulator::start(Config::default());
    assert_eq!(emulator.seed_blob(b"hello"), BLOB);
    emulator.seed("docker-local", "app", "1", MANIFEST);
    emulator
}

fn get(emulator: &Emulator, path: &str, headers: &[(&str, &str)]) -> Answer {
    let headers = [&[BASIC], headers].concat();
    send(
        "GET",
        &format!("http://{}{path}", emulator.host()),
        &headers,
        "",
    )
}

fn aql(emulator: &Emulator, query: &str) -> Answer {
    let url = format!("{}/api/search/aql", emulator.base_url());
    send(
        "POST",
        &url,
        &[BASIC, ("Content-Type", "text/plain")],
        query,
    )
}

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
fn manifests_carry_the_headers_and_the_conditions() {
    let emulator = seeded();
    let path = "/v2/docker-local/app/manifests/1";
    let answer = get(&emulator, path, &[ACCEPT]);
    assert_eq!(answer.body.as_bytes(), MANIFEST);
    let sha1 = answer.header("x-checksum-sha1").to_owned();
    assert_eq!(answer.header("etag"), sha1);
    assert_eq!(
        answer.header("docker-content-digest"),
        format!("sha256:{}", answer.header("x-checksum-sha256"))
    );
    assert_eq!(
        answer.header("x-artifactory-docker-registry"),
        "docker-local"
    );
    let quoted = format!("\"{sha1}\"");
    for etag in [&sha1, &quoted] {
        assert_eq!(
            get(&emulator, path, &[ACCEPT, ("If-None-Match", etag)]).status,
            304
        );
    }
    let url = format!("http://{}{path}", emulator.host());
    assert_eq!(
        send("HEAD", &url, &[BASIC, ACCEPT, ("If-None-Match", &sha1)], "").status,
        200
    );
    let converted = get(&emulator, path, &[]);
    assert!(converted.header("content-type").ends_with("v1+prettyjws"));
    assert_ne!(
        converted.header("docker-content-digest"),
        answer.header("docker-content-digest")
    );
    let unknown = get(&emulator, "/v2/docker-local/app/manifests/2", &[ACCEPT]);
    assert_eq!(
        (unknown.status, &unknown.json()["errors"][0]["code"]),
        (404, &json!("MANIFEST_UNKNOWN"))
    );
    let wrong_order = get(
        &emulator,
        "/artifactory/api/docker/v2/docker-local/_catalog",
        &[],
    );
    assert_eq!(wrong_order.status, 400);
    assert!(
        wrong_order
            .body
            .contains("Unsupported docker repository request for 'v2'")
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
fn links_come_in_every_form() {
    let emulator = Emulator::start(Config::default());
    emulator.seed_many("docker-local", "app", 3, 5, 0);
    let base = "/artifactory/api/docker/docker-local/v2";
    let cases = [
        (
            "live",
            "</v2/docker-local/app-0000/tags/list?last=v0001&n=2>",
            "</v2/_catalog?last=app-0001&n=2>",
        ),
        (
            "correct",
            "</artifactory/api/docker/docker-local/v2/app-0000/tags/list?last=v0001&n=2>",
            "</artifactory/api/docker/docker-local/v2/_catalog?last=app-0001&n=2>",
        ),
        (
            "no-key",
            "</v2/app-0000/tags/list?last=v0001&n=2>",
            "</v2/_catalog?last=app-0001&n=2>",
        ),
        (
            "numeric",
            "</v2/app-0000/tags/list?last=2&n=2>",
            "</v2/_catalog?last=2&n=2>",
        ),
        ("absent", "", ""),
    ];
    for (style, tags, catalog) in cases {
        emulator.set("link", style);
        for (path, expected) in [("app-0000/tags/list", tags), ("_catalog", catalog)] {
            let answer = get(&emulator, &format!("{base}/{path}?n=2"), &[]);
            let link = answer.header("link").trim_end_matches("; rel=\"next\"");
            assert_eq!(link, expected, "{style}");
        }
    }
    emulator.set("link", "numeric");
    let page = get(
        &emulator,
        &format!("{base}/app-0000/tags/list?n=2&last=4"),
        &[],
    );
    assert_eq!(page.json()["tags"], json!(["v0004"]));
    emulator.set("link", "loop");
    let page = get(
        &emulator,
        &format!("{base}/app-0000/tags/list?n=2&last=v0001"),
        &[],
    );
    assert!(page.header("link").contains("last=v0001"));
    emulator.set("link", "live");
    let all = get(&emulator, &format!("{base}/app-0000/tags/list"), &[]);
    assert_eq!(
        (
            all.json()["tags"].as_array().map(Vec::len),
            all.header("link")
        ),
        (Some(5), "")
    );
    assert_eq!(
        get(&emulator, &format!("{base}/app-0000/tags/list?n=abc"), &[]).status,
        404
    );
    emulator.set("tags", "null");
    let null = get(&emulator, &format!("{base}/app-0000/tags/list"), &[]);
    assert_eq!(null.json(), json!({"name": "app-0000", "tags": null}));
}

#[test]
fn blobs_have_ranges_and_redirects() {
    let emulator = seeded();
    let path = format!("/v2/docker-local/app/blobs/{BLOB}");
    assert_eq!(get(&emulator, &path, &[]).body, "hello");
    let part = get(&emulator, &path, &[("Range", "bytes=2-")]);
    assert_eq!(
        (
            part.status,
            part.body.as_str(),
            part.header("content-range")
        ),
        (206, "llo", "bytes 2-4/5")
    );
    assert_eq!(get(&emulator, &path, &[("Range", "bytes=9-")]).status, 416);
    emulator.set("redirect", "blobs");
    let redirect = get(&emulator, &path, &[]);
    let location = redirect.header("location").to_owned();
    assert!(
        redirect.status == 302 && location.starts_with(&emulator.blob_host_url()),
        "{location}"
    );
    assert_eq!(send("GET", &location, &[], "").body, "hello");
    assert_eq!(send("GET", &location, &[BASIC], "").status, 400);
    assert_eq!(emulator.blob_host_requests().len(), 2);
    assert_eq!(
        get(
            &emulator,
            &path,
            &[("X-JFrog-Download-Redirect-To", "None")]
        )
        .body,
        "hello"
    );
    emulator.set("redirect_expires_ms", "0");
    let expired = get(&emulator, &path, &[]).header("location").to_owned();
    assert_eq!(send("GET", &expired, &[], "").status, 403);
}

/// Sends a bare request and returns everything until the server closes the connection.
fn raw(emulator: &Emulator, path: &str) -> String {
    let mut stream = TcpStream::connect(emulator.host()).expect("the emulator listens");
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{}: {}\r\n\r\n",
        BASIC.0, BASIC.1
    );
    stream.write_all(request.as_bytes()).expect("sending");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

#[test]
fn transfers_are_cut_shortened_and_spoiled() {
    let emulator = seeded();
    let path = format!("/v2/docker-local/app/blobs/{BLOB}");
    emulator.set("blob_fault_times", "1");
    emulator.set("cut_blob", "2");
    let cut = raw(&emulator, &path);
    assert!(
        cut.contains("Content-Length: 5\r\n") && cut.ends_with("\r\n\r\nhe"),
        "{cut}"
    );
    assert!(raw(&emulator, &path).ends_with("hello"));
    emulator.set("cut_blob", "0");
    emulator.set("short_blob", "3");
    assert_eq!(get(&emulator, &path, &[]).body, "hel");
    assert_eq!(get(&emulator, &path, &[]).body, "hello");
    emulator.set("short_blob", "0");
    emulator.set("wrong_blob", "on");
    assert_eq!(get(&emulator, &path, &[]).body, "iello");
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
fn downloads_are_counted_unless_asked_not_to() {
    let emulator = seeded();
    let file = "/artifactory/docker-local/app/1/manifest.json";
    let manifest = "/v2/docker-local/app/manifests/1";
    assert_eq!(
        get(&emulator, &format!("{file}?skipUpdateStats=true"), &[])
            .body
            .as_bytes(),
        MANIFEST
    );
    let head = format!("http://{}{manifest}", emulator.host());
    send("HEAD", &head, &[BASIC, ACCEPT], "");
    assert_eq!(emulator.total_downloads(), 0);
    get(&emulator, file, &[]);
    get(
        &emulator,
        &format!("{manifest}?skipUpdateStats=true"),
        &[ACCEPT],
    );
    assert_eq!(emulator.downloads("docker-local", "app/1/manifest.json"), 2);
    emulator.set("v2_skip_stats", "on");
    get(
        &emulator,
        &format!("{manifest}?skipUpdateStats=true"),
        &[ACCEPT],
    );
    assert_eq!(emulator.total_downloads(), 2);
}

#[test]
fn aql_selects_what_it_is_asked_for() {
    let emulator = seeded();
    emulator.seed_many("docker-local", "many", 2, 3, 1_700_000_000_000);
    emulator.set_times("docker-local", "app", "1", Times::at(1_000_000_000_000));
    let cases = [
        (r#"items.find({"repo":"docker-local"})"#, 8),
        (r#"items.find({"repo":"nothing"})"#, 0),
        (
            r#"items.find({"repo":"docker-local","name":"manifest.json"})"#,
            7,
        ),
        (r#"items.find({"path":{"$match":"many-0000/*"}})"#, 3),
        (r#"items.find({"path":{"$nmatch":"many-*"}})"#, 2),
        (
            r#"items.find({"$or":[{"path":"app/1"},{"path":"many-0001/v0002"}]})"#,
            3,
        ),
        (
            r#"items.find({"$and":[{"path":"app/1"},{"name":{"$ne":"manifest.json"}}]})"#,
            1,
        ),
        (
            r#"items.find({"modified":{"$gte":"2023-11-14T22:13:24.000Z"}})"#,
            2,
        ),
        (r#"items.find({"modified":{"$lt":"2002-01-01"}})"#, 2),
        (r#"items.find({"created":{"$last":"3d"}})"#, 0),
        (r#"items.find({"created":{"$before":"2w"}})"#, 8),
        (r#"items.find({"size":{"$lte":5}})"#, 1),
        (r#"items.find({"@docker.manifest":"v0001"})"#, 2),
        (
            r#"items.find({"$msp":[{"property.key":"docker.repoName"},{"property.value":"many-0000"}]})"#,
            3,
        ),
        (
            r#"items.find({"$msp":[{"property.key":"docker.manifest"},{"property.value":"many-0000"}]})"#,
            0,
        ),
        (r#"items.find({"stat.downloads":{"$eq":null}})"#, 8),
        (
            r#"items.find({"type":"folder","repo":"docker-local","name":{"$match":"v*"}})"#,
            6,
        ),
        (
            r#"items.find({"repo":"docker-local"}).include("name").sort({"$desc":["created"]}).offset(1).limit(4)"#,
            4,
        ),
        (r#"items.find({"name":"a","name":"manifest.json"})"#, 0),
    ];
    for (query, expected) in cases {
        let answer = aql(&emulator, query);
        let rows = answer.json()["results"].as_array().map(Vec::len);
        assert_eq!(
            (answer.status, rows),
            (200, Some(expected)),
            "{query}\n{}",
            answer.body
        );
    }
}

#[test]
fn aql_shows_the_fields_it_is_asked_for() {
    let emulator = seeded();
    emulator.set_times("docker-local", "app", "1", Times::at(1_700_000_000_123));
    let row = |query: &str| aql(&emulator, query).json()["results"][0].clone();
    let plain = row(
        r#"items.find({"name":"manifest.json"}).include("repo","path","name","created","sha256","size")"#,
    );
    let digest = plain["sha256"].clone();
    assert_eq!(
        plain,
        json!({"repo": "docker-local", "path": "app/1", "name": "manifest.json", "created": "2023-11-14T22:13:20.123Z", "sha256": digest, "size": MANIFEST.len()})
    );
    let all = row(r#"items.find({"name":"manifest.json"}).include("*","property","stat")"#);
    for field in [
        "depth",
        "actual_sha1",
        "actual_md5",
        "type",
        "properties",
        "stats",
        "updated",
    ] {
        assert!(!all[field].is_null(), "{field}: {all}");
    }
    let one = row(r#"items.find({"name":"manifest.json"}).include("name","@docker.repoName")"#);
    assert_eq!(
        one["properties"],
        json!([{"key": "docker.repoName", "value": "app"}])
    );
    let blob = row(r#"items.find({"name":{"$match":"sha256__*"}}).include("name","property")"#);
    assert_eq!(blob.get("properties"), None);
}

#[test]
fn aql_is_refused_where_the_server_refuses() {
    let emulator = seeded();
    let sort = r#"items.find({"repo":"docker-local"}).sort({"$asc":["name"]})"#;
    let good = r#"items.find({"repo":"docker-local"})"#;
    for query in [
        "items.find({",
        "builds.find({})",
        r#"items.find({"nonsense":"x"})"#,
        r#"items.find({"repo":{"$near":"x"}})"#,
        r#"items.find({"repo":"a"}).limit(1).include("name")"#,
        r#"items.find({"repo":"a"}).include("name","property").limit(1)"#,
    ] {
        assert_eq!(aql(&emulator, query).status, 400, "{query}");
    }
    emulator.set("aql_oss", "on");
    assert!(
        aql(&emulator, sort)
            .body
            .contains("Sorting is not supported by AQL in the open source version")
    );
    assert_eq!(aql(&emulator, good).status, 200);
    for status in ["400", "403", "408", "429"] {
        emulator.set("aql", status);
        assert_eq!(aql(&emulator, good).status.to_string(), status);
    }
    emulator.set("aql_retry_after", "7");
    assert_eq!(aql(&emulator, good).header("retry-after"), "7");
    emulator.set("aql", "ok");
    emulator.set("aql_row_limit", "1");
    let cut = aql(&emulator, good).json();
    assert_eq!(cut["range"]["total"], 1);
    assert!(cut["range"]["notification"].is_string(), "{cut}");
    emulator.set("aql_max_chars", "10");
    assert_eq!(aql(&emulator, good).status, 400);
}

#[test]
fn aql_filters_by_permission_after_the_limit() {
    let emulator = Emulator::start(Config {
        users: vec![User::reader("bob", "b", &["docker-local/seen-*"])],
        ..Config::default()
    });
    emulator.seed_many("docker-local", "hidden", 1, 3, 0);
    emulator.seed_many("docker-local", "seen", 1, 3, 0);
    let bob = ("Authorization", "Basic Ym9iOmI=");
    let url = format!("{}/api/search/aql", emulator.base_url());
    let names = r#"items.find({"repo":"docker-local"}).include("repo","path","name")"#;
    let all = send("POST", &url, &[bob], names).json();
    assert_eq!(all["results"].as_array().map(Vec::len), Some(3));
    let first = send("POST", &url, &[bob], &format!("{names}.limit(3)")).json();
    assert_eq!(first["results"], json!([]));
    let no_path = r#"items.find({"repo":"docker-local"}).include("name")"#;
    assert_eq!(send("POST", &url, &[bob], no_path).status, 400);
    let hidden = format!(
        "http://{}/v2/docker-local/hidden-0000/tags/list",
        emulator.host()
    );
    assert_eq!(send("GET", &hidden, &[bob], "").status, 403);
}

#[test]
fn aql_knows_virtual_and_remote_keys() {
    let emulator = Emulator::start(Config {
        repositories: vec![
            Repository::new("a", Class::Local),
            Repository::new("r", Class::Remote),
            Repository::parse("all=virtual:a+r").expect("a virtual repository"),
        ],
        ..Config::default()
    });
    emulator.seed("a", "x", "1", MANIFEST);
    emulator.seed("r-cache", "y", "1", MANIFEST);
    let count = |repo: &str| {
        let answer = aql(&emulator, &format!(r#"items.find({{"repo":"{repo}"}})"#)).json();
        answer["results"].as_array().map(Vec::len)
    };
    assert_eq!(
        (count("all"), count("r"), count("r-cache")),
        (Some(2), Some(0), Some(1))
    );
    emulator.set("aql_virtual", "local");
    assert_eq!(count("all"), Some(1));
    emulator.set("aql_virtual", "none");
    assert_eq!(count("all"), Some(0));
    let catalog = |key: &str| {
        get(
            &emulator,
            &format!("/artifactory/api/docker/{key}/v2/_catalog"),
            &[],
        )
        .json()
    };
    assert_eq!(catalog("r"), json!({"repositories": []}));
    assert_eq!(catalog("all"), json!({"repositories": ["x"]}));
    let list = get(
        &emulator,
        "/artifactory/api/repositories?type=virtual&packageType=docker",
        &[],
    )
    .json();
    assert_eq!(
        (&list[0]["key"], &list[0]["type"], &list[0]["packageType"]),
        (&json!("all"), &json!("VIRTUAL"), &json!("Docker"))
    );
    assert_eq!(
        get(&emulator, "/artifactory/api/repositories/all", &[]).json()["repositories"],
        json!(["a", "r"])
    );
    emulator.set("repositories", "403");
    assert_eq!(
        get(&emulator, "/artifactory/api/repositories", &[]).status,
        403
    );
}

#[test]
fn storage_answers_have_their_shapes() {
    let emulator = seeded();
    let storage = "/artifactory/api/storage/docker-local";
    let file = get(&emulator, &format!("{storage}/app/1/manifest.json"), &[]).json();
    assert_eq!(file["size"], MANIFEST.len().to_string());
    let folder = get(&emulator, &format!("{storage}/app"), &[]).json();
    assert_eq!(folder["children"], json!([{"uri": "/1", "folder": true}]));
    let missing = get(&emulator, &format!("{storage}/none"), &[]);
    assert!(missing.status == 404 && missing.body.contains("Unable to find item"));
    let list = get(
        &emulator,
        &format!("{storage}/?list&deep=1&listFolders=1"),
        &[],
    )
    .json();
    let uris: Vec<_> = list["files"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|row| row["uri"].clone())
        .collect();
    assert_eq!(
        json!(uris[..3]),
        json!(["/app", "/app/1", "/app/1/manifest.json"])
    );
    let properties = format!(
        "http://{}{storage}/app/1/manifest.json?properties=",
        emulator.host()
    );
    assert_eq!(
        send(
            "PUT",
            &format!("{properties}a=1,2;b=x%5C%2Cy"),
            &[BASIC],
            ""
        )
        .status,
        204
    );
    let answer = send("GET", &format!("{properties}a,b"), &[BASIC], "").json();
    assert_eq!(answer["properties"], json!({"a": ["1", "2"], "b": ["x,y"]}));
    assert_eq!(
        send("DELETE", &format!("{properties}a"), &[BASIC], "").status,
        204
    );
    assert_eq!(
        send("GET", &format!("{properties}a"), &[BASIC], "").status,
        404
    );
    let stats = get(
        &emulator,
        &format!("{storage}/app/1/manifest.json?stats"),
        &[],
    )
    .json();
    assert_eq!(stats["downloadCount"], 0);
}

#[test]
fn referrers_can_be_off() {
    let emulator = seeded();
    let subject = format!(
        r#"{{"schemaVersion":2,"artifactType":"a/b","layers":[],"subject":{{"digest":"{BLOB}"}}}}"#
    );
    let digest = emulator.seed("docker-local", "app", "sig", subject.as_bytes());
    let path = format!("/v2/docker-local/app/referrers/{BLOB}");
    assert_eq!(
        get(&emulator, &path, &[]).json()["manifests"][0]["digest"],
        json!(digest)
    );
    let filtered = get(&emulator, &format!("{path}?artifactType=c/d"), &[]);
    assert_eq!(filtered.json()["manifests"], json!([]));
    assert_eq!(filtered.header("oci-filters-applied"), "artifactType");
    emulator.set("referrers", "off");
    assert_eq!(get(&emulator, &path, &[]).status, 404);
}

#[test]
fn a_hundred_thousand_rows_come_quickly() {
    let emulator = Emulator::start(Config::default());
    let before = Instant::now();
    emulator.seed_many("docker-local", "app", 1000, 100, 1_700_000_000_000);
    let seeded = before.elapsed();
    let before = Instant::now();
    let query = r#"items.find({"repo":"docker-local","$or":[{"name":"manifest.json"},{"name":"list.manifest.json"}]}).include("repo","path","name","created","modified","updated","sha256","size")"#;
    let url = format!("{}/api/search/aql", emulator.base_url());
    let mut answer = ureq::post(&url)
        .header(BASIC.0, BASIC.1)
        .send(query)
        .expect("an answer");
    let text = answer
        .body_mut()
        .with_config()
        .limit(u64::MAX)
        .read_to_string()
        .expect("text");
    let took = before.elapsed();
    assert_eq!(text.matches("\"sha256\" : ").count(), 100_000);
    // Far above what it takes alone; the tests share the machine.
    assert!(
        took.as_secs() < 5 && seeded.as_secs() < 10,
        "seeding {seeded:?}, query {took:?}"
    );
    let mut out = std::io::stderr();
    let _ = writeln!(
        out,
        "100,000 rows: seeding {seeded:?}, query {took:?}, {} bytes",
        text.len()
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
