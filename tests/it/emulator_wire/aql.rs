//! The query language.

use std::io::Write as _;
use std::time::Instant;

use serde_json::json;

use super::{BASIC, MANIFEST, aql, get, seeded, send};
use crate::emulator::{Class, Config, Emulator, Repository, Times, User};

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
