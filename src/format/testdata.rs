//! Answers with hostile and ordinary texts, for the tests of all formats.

use super::{
    EventsStatus, Failure, ImageRow, NextTry, QueueStatus, SbomAnswer, SourceStatus, StatusAnswer,
};
use crate::image::Digest;
use crate::sbom::{
    Coverage, Distro, ImageLayer, ImagePackage, Location, Problem, Sbom, Source, State,
};
use crate::time::Timestamp;

/// 2026-11-24T08:00:00Z.
const MOMENT: Timestamp = Timestamp::from_millis(1_795_507_200_000);

/// An image that was indexed, one that failed with a name that no registry should allow, and one that is gone.
pub(super) fn images() -> Vec<ImageRow> {
    let plain = ImageRow {
        repository: "r.example/app".to_owned(),
        tag: "1.0".to_owned(),
        digest: Digest::of(b"index"),
        image_digest: Some(Digest::of(b"image")),
        platform: Some("linux/amd64".to_owned()),
        packages: Some(104),
        size: Some(28_231_124),
        first_seen: MOMENT,
        last_seen: MOMENT,
        gone_at: None,
        state: State::Indexed,
        error: None,
    };
    let hostile = ImageRow {
        repository: "=cmd|' /C calc'!A0".to_owned(),
        tag: "a,\"b\"\n\u{1b}[2J\u{202e}".to_owned(),
        image_digest: None,
        platform: None,
        packages: None,
        size: None,
        state: State::Failed,
        error: Some("manifest: not found".to_owned()),
        ..plain.clone()
    };
    let gone = ImageRow {
        tag: "0.9".to_owned(),
        gone_at: Some(MOMENT),
        state: State::Partial,
        ..plain.clone()
    };
    vec![hostile, gone, plain]
}

/// An image of two layers, the upper one not read.
pub(super) fn sbom() -> SbomAnswer {
    let package =
        |kind: &str, namespace: Option<&str>, name: &str, paths: &[(usize, &str)]| ImagePackage {
            purl: format!("pkg:{kind}/{name}@1.0"),
            kind: kind.to_owned(),
            namespace: namespace.map(str::to_owned),
            name: name.to_owned(),
            version: "1.0".to_owned(),
            architecture: None,
            source: None,
            licenses: Vec::new(),
            ecosystem: kind.to_owned(),
            locations: paths
                .iter()
                .map(|&(layer, path)| Location {
                    layer,
                    path: path.to_owned(),
                })
                .collect(),
        };
    SbomAnswer {
        names: vec![
            "r.example/app:1.0".to_owned(),
            "r.example/app:latest".to_owned(),
        ],
        sbom: Sbom {
            digest: Digest::of(b"image"),
            media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
            config_digest: Some(Digest::of(b"config")),
            platform: "linux/amd64".to_owned(),
            created: None,
            distro: Some(Distro {
                id: "debian".to_owned(),
                version_id: Some("12".to_owned()),
                pretty_name: Some("Debian \u{1b}]0;x\u{7}".to_owned()),
                ..Distro::default()
            }),
            size: 1_500,
            layers: vec![
                ImageLayer {
                    digest: Digest::of(b"lower"),
                    diff_id: Some(Digest::of(b"tar")),
                    size: 1_000,
                    refused: None,
                },
                ImageLayer {
                    digest: Digest::of(b"upper"),
                    diff_id: None,
                    size: 500,
                    refused: Some("over the limit".to_owned()),
                },
            ],
            packages: vec![
                ImagePackage {
                    architecture: Some("amd64".to_owned()),
                    source: Some(Source {
                        name: "glibc".to_owned(),
                        version: "1.0".to_owned(),
                    }),
                    licenses: vec!["MIT".to_owned()],
                    ..package(
                        "deb",
                        Some("debian"),
                        "libc6",
                        &[(0, "var/lib/dpkg/status")],
                    )
                },
                package(
                    "npm",
                    Some("@a"),
                    "b\u{9b}c",
                    &[(0, "x\ny/package.json"), (1, "z/package.json")],
                ),
            ],
            coverage: Coverage {
                layers_read: 1,
                layers_total: 2,
                evidence: 3,
                masked: 1,
                problems: vec![Problem {
                    subject: "npm".to_owned(),
                    path: "q/package.json".to_owned(),
                    message: "not JSON".to_owned(),
                }],
                problems_unlisted: 7,
            },
        },
    }
}

/// A store with a source that cannot be listed and four failures.
pub(super) fn status() -> StatusAnswer {
    let failure = |image: &str, attempts, next_try| Failure {
        image: image.to_owned(),
        digest: Digest::of(b"index").to_string(),
        error: "manifest: status 500".to_owned(),
        hint: None,
        attempts,
        next_try,
    };
    StatusAnswer {
        path: "/var/lib/crowsnest/crowsnest.db".to_owned(),
        bytes: 5_013_504,
        repositories: 2,
        tags: 42,
        images: 43,
        incomplete_images: 1,
        layers: 51,
        layer_bytes: 933_400_000,
        packages: 2_743,
        sources: vec![
            SourceStatus {
                name: "oci r.example".to_owned(),
                repositories: 2,
                tags: 42,
                listed_at: Some(MOMENT),
                error: Some("catalog: status 503".to_owned()),
                error_since: Some(MOMENT),
            },
            SourceStatus {
                name: "oci s.example".to_owned(),
                repositories: 0,
                tags: 0,
                listed_at: None,
                error: None,
                error_since: None,
            },
        ],
        queue: QueueStatus {
            waiting: 5,
            retrying: 1,
            pushed: 2,
            next_try: Some(MOMENT),
            running: 3,
            failed: 2,
        },
        events: EventsStatus {
            waiting: 3,
            waiting_since: Some(MOMENT),
        },
        failures: vec![
            failure("r.example/a:1", 2, NextTry::At(MOMENT)),
            failure("r.example/b:1", 1, NextTry::NextRun),
            Failure {
                hint: Some("log in".to_owned()),
                ..failure("r.example/c:1\u{1b}", 1, NextTry::WhenChanged)
            },
            failure("r.example/d:1", 0, NextTry::Now),
        ],
        failures_unlisted: 4,
    }
}
