//! The registry protocol, files by path and the storage API.

use serde_json::json;

use super::{ACCEPT, BASIC, BLOB, MANIFEST, get, raw, seeded, send};
use crate::emulator::{Class, Config, Emulator, Repository};

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
fn remotes_refuse_pushes_and_pass_on_limits() {
    let emulator = Emulator::start(Config {
        repositories: vec![
            Repository::new("hub", Class::Remote),
            Repository::parse("all=virtual:hub").expect("a virtual repository"),
        ],
        ..Config::default()
    });
    emulator.seed("hub-cache", "library/app", "1", MANIFEST);
    for key in ["hub", "all"] {
        let path = format!("http://{}/v2/{key}/library/app", emulator.host());
        let push = send("POST", &format!("{path}/blobs/uploads/"), &[BASIC], "");
        assert_eq!(
            (push.status, &push.json()["errors"][0]["status"]),
            (400, &json!(400))
        );
        let manifest = || send("GET", &format!("{path}/manifests/1"), &[BASIC, ACCEPT], "");
        assert_eq!(
            manifest().header("x-artifactory-docker-registry"),
            "hub-cache"
        );
        emulator.set("registry_header", "key");
        assert_eq!(manifest().header("x-artifactory-docker-registry"), "hub");
        emulator.set("remote_status", "429");
        assert_eq!(manifest().status, 429);
        emulator.set("remote_status", "0");
        emulator.set("registry_header", "cache");
    }
}
