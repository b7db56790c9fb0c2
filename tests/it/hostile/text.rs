//! Text that means to write to a terminal, into a log or into a spreadsheet.

use serde_json::json;

use super::{pass, place, registry, shown};
use crate::emulator::message::Response;
use crate::fake_registry::{
    Layer, OCI_MANIFEST, digest, dpkg_tar, tar, tar_file, tar_header, tar_pax,
};

#[test]
fn text_from_outside_cannot_write_to_the_terminal_or_into_the_log() {
    let registry = registry();
    registry.image("zoo/evil", "1", &[Layer::gzip(&dpkg_tar("evil"))]);
    registry.hook(|request| {
        let is_it = request.path.contains("zoo/evil/manifests/sha256");
        let message = "\u{1b}]0;title\u{7}\u{1b}[2J\r\n::set-output name=x::y\n2026 error image failed \u{202e}";
        is_it.then(|| Response::status_error(404, message))
    });
    let place = place("text");
    let ended = pass(&registry, &place, 3, &[]);
    ended.says(&["error image failed", "zoo/evil:1", "set-output"]);
    assert!(
        !ended.stderr.contains(['\u{1b}', '\u{7}', '\r', '\u{202e}']),
        "{:?}",
        ended.stderr
    );
    assert!(
        ended.stderr.lines().all(|line| !line.starts_with("::")),
        "{}",
        ended.stderr
    );
}

/// Orders to a terminal and to a CI system, and marks that show text as another.
const ORDERS: &str = "\u{1b}]0;title\u{7}\u{1b}[2J\r\n::set-output name=x::y\n\u{9b}31m\u{202e}\u{2066}\u{200b}\u{feff}\u{2028}";

#[test]
fn text_of_images_is_harmless_in_every_output() {
    let registry = registry();
    let word = "\u{202e}gnp\u{2066}.\u{200b}x\u{feff}";
    let files = [
        tar_file(
            "etc/os-release",
            format!("ID=\"{ORDERS}\"\nVERSION_ID=\"{word}\"\nPRETTY_NAME=\"{word}\u{1b}[2J\"\n").as_bytes(),
        ),
        tar_file(
            "var/lib/dpkg/status",
            format!(
                "Package: {word}\nStatus: install ok installed\nVersion: {word}\nArchitecture: {word}\nSource: {word}\n\n\
                 Package: \u{1b}[2J\nStatus: install ok installed\nVersion: 1\n\n"
            )
            .as_bytes(),
        ),
        tar_file(
            "app/node_modules/x/package.json",
            json!({"name": word, "version": word, "license": format!("MIT {word}")}).to_string().as_bytes(),
        ),
        tar_file(
            "app/node_modules/y/package.json",
            json!({"name": ORDERS, "version": ORDERS, "license": ORDERS}).to_string().as_bytes(),
        ),
        tar_pax("path", &format!("{}/node_modules/z/package.json", ORDERS.replace('\n', "\u{b}"))),
        tar_file("z", b"{\"name\":\"z\",\"version\":\"1\"}"),
        tar_pax("path", &format!("x/{ORDERS}/node_modules/z/package.json")),
        tar_file("z", b"{\"name\":\"broken"),
        tar_pax("path", &format!("../{ORDERS}")),
        tar_file("z", b""),
        tar_pax("path", &format!("{ORDERS}/.wh.")),
        tar_file("z", b""),
        tar_pax("linkpath", &format!("{ORDERS}/x")),
        tar_header("b/node_modules/q/package.json", b'1', 0),
    ];
    let layer = Layer::gzip(&tar(&files));
    registry.hold(&layer);
    let config = json!({
        "os": format!("linux{ORDERS}"), "architecture": word, "variant": ORDERS, "created": ORDERS,
        "config": {"User": ORDERS, "Env": [ORDERS], "Labels": {ORDERS: ORDERS}},
        "rootfs": {"diff_ids": [layer.diff_id]},
    });
    let config = registry.blob(
        "application/vnd.oci.image.config.v1+json",
        config.to_string().as_bytes(),
    );
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": [layer.descriptor()]});
    registry.tag(
        "zoo/evil",
        "1",
        OCI_MANIFEST,
        manifest.to_string().as_bytes(),
    );
    let artifact = json!({"schemaVersion": 2, "artifactType": ORDERS, "config": config});
    registry.tag(
        "zoo/evil",
        "artifact",
        OCI_MANIFEST,
        artifact.to_string().as_bytes(),
    );
    for (tag, wrong) in [
        (
            "digest",
            json!({"mediaType": ORDERS, "digest": ORDERS, "size": 1}),
        ),
        (
            "size",
            json!({"mediaType": ORDERS, "digest": digest(b"x"), "size": ORDERS}),
        ),
    ] {
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": [wrong]});
        registry.tag(
            "zoo/evil",
            tag,
            OCI_MANIFEST,
            manifest.to_string().as_bytes(),
        );
    }
    let place = place("orders-in-images");
    for format in ["text", "json"] {
        pass(&registry, &place, 3, &["--debug", "--log-format", format]);
    }
    let text = shown(&place, Some("zoo/evil:1"));
    // It is there, and spelled out.
    for spelled in [
        "\\u{202e}gnp\\u{2066}.\\u{200b}x\\u{feff}",
        "\\u202egnp\\u2066.\\u200bx\\ufeff",
        "\\x1b]0;title\\x07",
    ] {
        assert!(text.contains(spelled), "{spelled} in {text}");
    }
}
