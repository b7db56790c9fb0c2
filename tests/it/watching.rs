//! Watching that goes on: the first pass ever records, later ones index what is new.

use crate::crowsnest::Crowsnest;
use crate::fake_registry::{FakeRegistry, Layer, dpkg_tar};
use crate::pitfalls::{artifactory, images, manifest, place, seed, set};

#[test]
fn the_first_pass_records_and_later_ones_index_what_is_new() {
    // With AQL the listing tells digests; without, workers ask for each while the listing goes on.
    for aql in ["ok", "403"] {
        let emulator = artifactory();
        emulator.set("aql", aql);
        emulator.set("delay_ms", "10");
        for tag in 1..=20 {
            seed(&emulator, "docker-local", "old", &tag.to_string());
        }
        let (host, api) = (emulator.host(), emulator.base_url());
        let registry =
            format!("type=artifactory,registry={host},api={api},repository=docker-local");
        let watch = ["--interval", "1", "--debug", "--registry", &registry];
        let n_passes = |said: &str| said.matches("source listed").count();
        let place = place("watching");

        let ended = place.watch_until(&watch, |said| n_passes(said) >= 3);
        assert_eq!(ended.code, Some(0), "{aql}: {}", ended.stderr);
        assert_eq!(images(&place), set(&[]), "{aql}: {}", ended.stderr);

        // Pushed while nobody watched; other content than the old ones, which are all one image.
        let (pushed, blobs) = manifest("arm64", "new");
        for blob in &blobs {
            emulator.seed_blob(blob);
        }
        emulator.seed("docker-local", "new", "1", &pushed);
        let ended = place.watch_until(&watch, |said| {
            n_passes(said) >= 3 && said.contains("image indexed")
        });
        assert_eq!(
            images(&place),
            set(&["docker-local/new:1"]),
            "{aql}: {}",
            ended.stderr
        );

        place
            .watch(&["--all-images", "--registry", &registry])
            .with_code(0);
        assert_eq!(images(&place).len(), 21, "{aql}");
    }
}

#[test]
fn credentials_are_read_anew_at_a_signal() {
    let emulator = artifactory();
    seed(&emulator, "docker-local", "app", "1");
    let host = emulator.host();
    let registry = format!(
        "type=artifactory,registry={host},api={},repository=docker-local",
        emulator.base_url()
    );
    // base64 of admin:wrong and of admin:password.
    let file = |pair: &str| format!("{{\"auths\":{{\"{host}\":{{\"auth\":\"{pair}\"}}}}}}");
    let place =
        Crowsnest::new("reload").home_file(".docker/config.json", &file("YWRtaW46d3Jvbmc="));
    let mut running = place.start(&[
        "--all-images",
        "--interval",
        "3600",
        "--registry",
        &registry,
    ]);
    running.wait_until(|said| said.contains("source cannot be listed"));
    let place_of_file = std::path::Path::new(&place.home()).join(".docker/config.json");
    std::fs::write(&place_of_file, "{").unwrap();
    running.signal("HUP");
    running.wait_until(|said| said.contains("credentials stay as they were"));
    std::fs::write(&place_of_file, file("YWRtaW46cGFzc3dvcmQ=")).unwrap();
    running.signal("HUP");
    running.wait_until(|said| said.contains("image indexed"));
    let ended = running.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended.says(&["info credentials looked at anew"]);
    ended.says(&["info source can be listed again"]);
}

#[test]
fn debug_says_why_something_is_not_read() {
    let emulator = artifactory();
    for (image, tag) in [("app", "v1"), ("app", "latest"), ("legacy", "v1")] {
        seed(&emulator, "docker-local", image, tag);
    }
    let registry = format!(
        "type=artifactory,registry={},api={},repository=docker-local,exclude=*legacy*",
        emulator.host(),
        emulator.base_url()
    );
    let place = place("debug");
    let arguments = [
        "--all-images",
        "--debug",
        "--tag",
        "^v",
        "--registry",
        &registry,
    ];
    let ended = place.watch(&arguments).with_code(0);
    ended.says(&[
        "debug filtered out",
        "docker-local/legacy",
        "it is excluded",
    ]);
    ended.says(&["debug filtered out", "app:latest", "no --tag matches"]);
    let ended = place.watch(&arguments).with_code(0);
    ended.says(&[
        "debug nothing to do",
        "docker-local/app:v1",
        "it is indexed",
    ]);
}

#[test]
fn a_tag_that_goes_from_a_named_repository_is_seen() {
    let registry = FakeRegistry::start();
    for (repository, tag) in [("app", "1"), ("app", "2"), ("other", "1")] {
        registry.image(repository, tag, &[Layer::plain(&dpkg_tar("x"))]);
    }
    let place = Crowsnest::new("named");
    let host = registry.host();
    let both = [
        "--all-images",
        "--repository",
        &format!("{host}/app,{host}/other"),
    ];
    place.watch(&both).with_code(0);
    assert_eq!(images(&place), set(&["app:1", "app:2", "other:1"]));
    registry.forget("app", "1");
    registry.forget("other", "1");
    // Of what was not asked for, nothing is known.
    place
        .watch(&["--all-images", "--repository", &format!("{host}/app")])
        .with_code(0);
    assert_eq!(images(&place), set(&["app:2", "other:1"]));
}

#[test]
fn a_registry_that_is_named_twice_is_refused() {
    let place = Crowsnest::new("twice");
    let registry = "type=oci,registry=127.0.0.1:1";
    let ended = place.watch(&[
        "--all-images",
        "--registry",
        registry,
        "--registry",
        "127.0.0.1:1",
    ]);
    ended
        .with_code(1)
        .says(&["`oci 127.0.0.1:1` is named twice"]);
}
