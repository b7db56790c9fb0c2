//! Credentials and secrets: other hosts, redirects, and every output.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{
    PASSWORD, USER, assert_bounded, assert_no_secret, fails, names, pass, place, refuses, registry,
    shown,
};
use crate::crowsnest::Crowsnest;
use crate::emulator::message::Response;
use crate::fake_registry::{Layer, OCI_MANIFEST, Recorder, digest, dpkg_tar};

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
fn layers_that_live_elsewhere_are_not_fetched_from_there() {
    let other = Recorder::start("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    for url in [
        format!("http://{}/layer", other.host()),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "file:///etc/passwd".to_owned(),
    ] {
        let registry = registry();
        let config = registry.blob("application/vnd.oci.image.config.v1+json", b"{}");
        let layer = json!({
            "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            "digest": digest(b"elsewhere"), "size": 9, "urls": [url],
        });
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": [layer]});
        registry.tag(
            "zoo/evil",
            "1",
            OCI_MANIFEST,
            manifest.to_string().as_bytes(),
        );
        refuses("elsewhere", &registry, &[], "layer outside of the registry");
    }
    assert_eq!(other.heard(), "");
}

#[test]
fn redirects_to_another_host_port_or_scheme_carry_no_credentials() {
    let other =
        Recorder::start("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let registry = registry();
    let port = registry.host().rsplit_once(':').unwrap().1.to_owned();
    let places = [
        ("port", format!("http://{}/stolen", other.host())),
        ("scheme", format!("https://{}/stolen", other.host())),
        // The registry itself under a name that has no credentials.
        ("host", format!("http://localhost:{port}/stolen")),
    ];
    for (tag, _) in &places {
        registry.image("zoo/evil", tag, &[Layer::gzip(&dpkg_tar(tag))]);
    }
    let blobs: Vec<(String, String)> = places
        .iter()
        .map(|(tag, to)| (Layer::gzip(&dpkg_tar(tag)).digest, to.clone()))
        .collect();
    registry.hook(move |request| {
        if request.path == "/stolen" {
            return Some(Response::status_error(404, "nothing to see"));
        }
        if request.header("authorization").is_none() {
            let basic = "Basic realm=\"zoo\"";
            return Some(
                Response::status_error(401, "who are you").header("WWW-Authenticate", basic),
            );
        }
        let to = blobs
            .iter()
            .find(|(digest, _)| request.path.ends_with(digest))?;
        Some(Response::new(307).header("Location", to.1.clone()))
    });
    let place = place("redirects");
    let ended = pass(&registry, &place, 3, &[]);
    for (tag, _) in &places {
        ended.says(&[
            "error image failed",
            &format!("zoo/evil:{tag} "),
            "layer `sha256:",
        ]);
    }
    let heard = other.heard();
    assert!(heard.contains("GET /stolen HTTP/1.1"), "{heard}");
    assert!(
        !heard.to_ascii_lowercase().contains("authorization"),
        "{heard}"
    );
    assert_no_secret(&heard);
    let stolen: Vec<_> = registry
        .requests()
        .into_iter()
        .filter(|seen| seen.target == "/stolen")
        .collect();
    assert!(!stolen.is_empty());
    assert!(
        stolen
            .iter()
            .all(|seen| seen.header("authorization").is_none()),
        "{stolen:?}"
    );
}

#[test]
fn hosts_that_look_like_a_known_one_get_nothing() {
    let registry = registry();
    registry.hook(|request| {
        let is_signed = request.header("authorization").is_some();
        (!is_signed).then(|| {
            Response::status_error(401, "who are you")
                .header("WWW-Authenticate", "Basic realm=\"zoo\"")
        })
    });
    let host = registry.host();
    let auth = STANDARD.encode(format!("{USER}:{PASSWORD}"));
    // A cloud's registry, the name with no port, another port, more and less of the name, another name of it.
    let port = host.rsplit_once(':').unwrap().1;
    let names = [
        "123456789012.dkr.ecr.eu-west-1.amazonaws.com".to_owned(),
        "https://index.docker.io/v1/".to_owned(),
        "127.0.0.1".to_owned(),
        "127.0.0.1:1".to_owned(),
        format!("x{host}"),
        format!("{host}0"),
        format!("{host}.example"),
        format!("{host}@registry.example"),
        format!("localhost:{port}"),
        format!("registry.example/{host}"),
    ];
    let entries: serde_json::Map<String, Value> = names
        .iter()
        .map(|name| (name.clone(), json!({"auth": auth})))
        .collect();
    let config = json!({"auths": entries}).to_string();
    let place = Crowsnest::new("look-alikes");
    std::fs::create_dir(format!("{}/.docker", place.home())).unwrap();
    let place = place.home_file(".docker/config.json", &config);
    let ended = place
        .watch(&["--registry", &host, "--all-images"])
        .with_code(1);
    assert_bounded(&ended);
    ended.says(&["crowsnest: ", "answered 401"]);
    let requests = registry.requests();
    assert!(
        requests
            .iter()
            .all(|seen| seen.header("authorization").is_none()),
        "{requests:?}"
    );
}

#[test]
fn secrets_of_images_and_of_ours_are_in_no_output() {
    const SECRET: &str = "hunter2-in-the-image";
    let registry = registry();
    let tar = dpkg_tar("secretive");
    let layer = Layer::gzip(&tar);
    registry.hold(&layer);
    let config = json!({
        "os": "linux", "architecture": "amd64", "author": SECRET,
        "config": {
            "Env": [format!("API_TOKEN={SECRET}"), format!("PASSWORD={SECRET}=={SECRET}")],
            "Labels": {"token": SECRET}, "Cmd": ["login", SECRET], "Entrypoint": [SECRET],
        },
        "history": [{"created_by": format!("RUN curl -u x:{SECRET}"), "comment": SECRET}],
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
    });
    let config = registry.blob(
        "application/vnd.oci.image.config.v1+json",
        config.to_string().as_bytes(),
    );
    let manifest = json!({
        "schemaVersion": 2, "config": config, "layers": [layer.descriptor()], "annotations": {"token": SECRET},
    });
    registry.tag(
        "zoo/evil",
        "1",
        OCI_MANIFEST,
        manifest.to_string().as_bytes(),
    );
    registry.hook(|request| {
        // The server tells what it was sent.
        if request.path.ends_with("zoo/evil/manifests/2")
            || request.header("authorization").is_none()
        {
            return Some(
                Response::status_error(401, "who are you")
                    .header("WWW-Authenticate", "Basic realm=\"zoo\""),
            );
        }
        None
    });
    let place = place("secrets");
    for format in ["text", "json"] {
        let ended = pass(&registry, &place, 0, &["--debug", "--log-format", format]);
        assert!(!ended.stderr.contains(SECRET), "{}", ended.stderr);
    }
    assert_eq!(names(&place, "zoo/evil", "1"), ["secretive"]);
    assert!(!shown(&place, Some("zoo/evil:1")).contains(SECRET));
    for file in std::fs::read_dir(place.data()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains(SECRET) && !text.contains(PASSWORD));
    }
}
