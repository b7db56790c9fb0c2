//! Catalogs and tag lists that never end, go in circles or are one enormous page.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;

use super::{assert_bounded, cannot_list, endless, pass, place, registry, shown};
use crate::emulator::message::Response;
use crate::fake_registry::Recorder;

#[test]
fn a_catalog_without_end() {
    let registry = registry();
    let next = AtomicU64::new(0);
    registry.hook(move |request| {
        request.path.ends_with("/_catalog").then(|| {
            let at = next.fetch_add(100, Ordering::Relaxed);
            let names: Vec<String> = (at..at + 100)
                .map(|n| format!("endless/name-of-some-length-{n}"))
                .collect();
            Response::json(200, &json!({"repositories": names})).header(
                "Link",
                format!("</v2/_catalog?n=100&last={}>; rel=\"next\"", at + 99),
            )
        })
    });
    cannot_list("catalog", &registry, &["listing the catalog", "limit of"]);
}

#[test]
fn a_catalog_of_large_pages_without_end() {
    let registry = registry();
    let next = AtomicU64::new(0);
    registry.hook(move |request| {
        request.path.ends_with("/_catalog").then(|| {
            let at = next.fetch_add(100_000, Ordering::Relaxed);
            let names: Vec<String> = (at..at + 100_000).map(|n| format!("{n:x}")).collect();
            Response::json(200, &json!({"repositories": names})).header(
                "Link",
                format!("</v2/_catalog?n=100&last={}>; rel=\"next\"", at + 99),
            )
        })
    });
    cannot_list(
        "large-pages",
        &registry,
        &["listing the catalog", "limit of"],
    );
}

#[test]
fn a_catalog_page_without_end() {
    for (name, then) in [
        ("long", "\"some/name-of-a-repository\","),
        ("short", "\"a\","),
        ("one-name", "aaaaaaaaaaaaaaaaa"),
    ] {
        let registry = registry();
        registry.hook(move |request| {
            let is_it = request.path.ends_with("/_catalog");
            is_it.then(|| {
                endless(
                    "application/json",
                    if name == "one-name" {
                        "{\"repositories\":[\""
                    } else {
                        "{\"repositories\":["
                    },
                    then,
                )
            })
        });
        cannot_list(
            &format!("page-{name}"),
            &registry,
            &["listing the catalog", "limit of"],
        );
    }
}

#[test]
fn tags_without_end() {
    let registry = registry();
    registry.image("zoo/evil", "1", &[]);
    let next = AtomicU64::new(0);
    registry.hook(move |request| {
        request.path.ends_with("zoo/evil/tags/list").then(|| {
            let at = next.fetch_add(100_000, Ordering::Relaxed);
            // Not tags, so that nothing has to be asked of them.
            let names: Vec<String> = (at..at + 100_000).map(|n| format!("-{n:x}")).collect();
            Response::json(200, &json!({"name": "zoo/evil", "tags": names})).header(
                "Link",
                format!("</v2/zoo/evil/tags/list?n=1000&last={at}>; rel=\"next\""),
            )
        })
    });
    let place = place("tags");
    let ended = pass(&registry, &place, 3, &[]);
    ended.says(&["zoo/evil", "listing the tags", "limit of"]);
}

#[test]
fn links_that_go_round_in_circles() {
    let registry = registry();
    registry.hook(|request| {
        let names = match request.path.as_str() {
            "/v2/_catalog" => json!({"repositories": ["zoo/good"]}),
            "/v2/zoo/good/tags/list" => json!({"name": "zoo/good", "tags": ["1"]}),
            _ => return None,
        };
        Some(
            Response::json(200, &names)
                .header("Link", format!("<{}?n=100>; rel=\"next\"", request.path)),
        )
    });
    let place = place("circles");
    pass(&registry, &place, 0, &[]);
    assert!(registry.count("GET", "/_catalog") <= 2);
}

#[test]
fn a_head_of_an_answer_without_end() {
    let registry = Recorder::start(&format!(
        "HTTP/1.1 200 OK\r\nX-Long: {}",
        "a".repeat(50 << 20)
    ));
    let place = place("head");
    let ended = place
        .watch(&["--registry", &registry.host(), "--all-images"])
        .with_code(1);
    assert_bounded(&ended);
    ended.says(&["crowsnest: ", &registry.host()]);
}

#[test]
fn listings_a_million_deep() {
    for (name, path, text) in [
        ("brackets", "/_catalog", "[".repeat(1_000_000)),
        (
            "names",
            "/_catalog",
            format!("{{\"repositories\":{}", "[".repeat(1_000_000)),
        ),
        (
            "unknown",
            "/_catalog",
            format!("{{\"x\":{}", "[".repeat(1_000_000)),
        ),
    ] {
        let registry = registry();
        registry.hook(move |request| {
            let is_it = request.path.ends_with(path);
            is_it.then(|| Response::new(200).body("application/json", text.clone().into_bytes()))
        });
        cannot_list(&format!("deep-{name}"), &registry, &["listing the catalog"]);
    }
    let registry = registry();
    registry.image("zoo/evil", "1", &[]);
    registry.hook(|request| {
        let text = format!("{{\"tags\":{}", "[".repeat(1_000_000));
        let is_it = request.path.ends_with("zoo/evil/tags/list");
        is_it.then(|| Response::new(200).body("application/json", text.into_bytes()))
    });
    let ended = pass(&registry, &place("deep-tags"), 3, &[]);
    ended.says(&["zoo/evil", "listing the tags"]);
}

/// What is no name of a repository or tag, and one that is.
fn odd_names(good: &str) -> Vec<String> {
    let long = "n".repeat(1 << 20);
    [
        "../../etc",
        "zoo/../../x",
        "http://169.254.169.254/x",
        "good?x=",
        "good#",
        "good\0",
        "\u{202e}doog",
        "\u{1b}[2J\r\n::set-output name=x::y",
        &long,
        "",
        good,
    ]
    .map(str::to_owned)
    .to_vec()
}

#[test]
fn names_that_are_paths_or_orders() {
    for (kind, what) in [
        ("repositories", "is not a repository name"),
        ("tags", "is not a tag"),
    ] {
        let registry = registry();
        registry.hook(move |request| {
            let is_tags = request.path.ends_with("/tags/list");
            if kind == "tags" && is_tags {
                return Some(Response::json(
                    200,
                    &json!({"name": "x", "tags": odd_names("1")}),
                ));
            }
            let is_it = kind != "tags" && request.path.ends_with("/_catalog");
            is_it.then(|| Response::json(200, &json!({"repositories": odd_names("zoo/good")})))
        });
        let place = place(kind);
        let ended = pass(&registry, &place, 0, &[]);
        for name in [
            "`../../etc`",
            "`http://169.254.169.254/x`",
            "`good\\x00`",
            "`\\u{202e}doog`",
            "`\\x1b[2J\\r\\n::set-output name=x::y`",
            "n…n",
        ] {
            ended.says(&["left out of the listing", name, what]);
        }
        for seen in registry.requests() {
            let target = seen.target.as_str();
            let is_known =
                target.starts_with("/v2/zoo/good/") || target.starts_with("/v2/_catalog?");
            assert!(is_known || target == "/v2/", "{target}");
        }
        shown(&place, Some("zoo/good:1"));
    }
}
