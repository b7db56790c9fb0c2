//! JSON: one document, `"version": 1`, each row of a list on a line of its own.
//!
//! The shapes are documented in the manual page (JSON OUTPUT). Keys are only added; a document whose old
//! readers would go wrong gets another version.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter};

use super::{
    Failure, Format, ImageRow, ImagesAnswer, NextTry, SbomAnswer, SourceStatus, StatusAnswer,
};
use crate::printable::is_unsafe;
use crate::sbom::{Coverage, Distro, ImageLayer, ImagePackage, Source};

pub(super) const FORMAT: Format = Format {
    name: "json",
    summary: "One JSON document with everything, for programs; see JSON OUTPUT",
    images: Some(images),
    sbom: Some(sbom),
    status: Some(status),
};

const VERSION: u32 = 1;

fn images(answer: ImagesAnswer<'_>, out: &mut dyn Write) -> io::Result<()> {
    write!(out, "{{\"version\":{VERSION},\n\"images\":")?;
    let rows = answer
        .rows
        .map(|row| row.map(|row| Image::from(&row).encoded()));
    list(
        out,
        rows.map(|row| row.map_err(io::Error::from).and_then(|bytes| bytes)),
    )?;
    out.write_all(b"}\n")
}

fn sbom(answer: &SbomAnswer, out: &mut dyn Write) -> io::Result<()> {
    let sbom = &answer.sbom;
    write!(out, "{{\"version\":{VERSION},\n\"image\":")?;
    out.write_all(&encoded(&SbomImage {
        names: &answer.names,
        digest: sbom.digest.as_str(),
        media_type: &sbom.media_type,
        config_digest: sbom.config_digest.as_ref().map(|digest| digest.as_str()),
        platform: &sbom.platform,
        created: sbom.created.as_deref(),
        size: sbom.size,
        distro: sbom.distro.as_ref().map(WireDistro::from),
    })?)?;
    out.write_all(b",\n\"layers\":")?;
    let layers = sbom.layers.iter().enumerate();
    list(
        out,
        layers.map(|(position, layer)| encoded(&Layer::new(position, layer))),
    )?;
    out.write_all(b",\n\"packages\":")?;
    list(
        out,
        sbom.packages
            .iter()
            .map(|package| encoded(&WirePackage::from(package))),
    )?;
    out.write_all(b",\n\"coverage\":")?;
    out.write_all(&encoded(&WireCoverage::from(&sbom.coverage))?)?;
    out.write_all(b"}\n")
}

fn status(answer: &StatusAnswer, out: &mut dyn Write) -> io::Result<()> {
    write!(out, "{{\"version\":{VERSION},\n\"store\":")?;
    out.write_all(&encoded(&StoreFile {
        path: &answer.path,
        bytes: answer.bytes,
    })?)?;
    out.write_all(b",\n\"counts\":")?;
    out.write_all(&encoded(&Counts {
        repositories: answer.repositories,
        tags: answer.tags,
        images: answer.images,
        incomplete_images: answer.incomplete_images,
        layers: answer.layers,
        layer_bytes: answer.layer_bytes,
        packages: answer.packages,
    })?)?;
    out.write_all(b",\n\"queue\":")?;
    out.write_all(&encoded(&Queue {
        waiting: answer.queue.waiting,
        retrying: answer.queue.retrying,
        pushed: answer.queue.pushed,
        next_try: answer.queue.next_try.map(|at| at.to_string()),
        running: answer.queue.running,
        failed: answer.queue.failed,
    })?)?;
    out.write_all(b",\n\"events\":")?;
    out.write_all(&encoded(&Events {
        waiting: answer.events.waiting,
        waiting_since: answer.events.waiting_since.map(|at| at.to_string()),
    })?)?;
    out.write_all(b",\n\"sources\":")?;
    list(
        out,
        answer
            .sources
            .iter()
            .map(|source| encoded(&WireSource::from(source))),
    )?;
    out.write_all(b",\n\"failures\":")?;
    list(
        out,
        answer
            .failures
            .iter()
            .map(|failure| encoded(&WireFailure::from(failure))),
    )?;
    writeln!(
        out,
        ",\n\"failures_unlisted\":{}}}",
        answer.failures_unlisted
    )
}

/// An array with an item a line.
fn list(out: &mut dyn Write, items: impl Iterator<Item = io::Result<Vec<u8>>>) -> io::Result<()> {
    let mut separator: &[u8] = b"[\n";
    for item in items {
        out.write_all(separator)?;
        out.write_all(&item?)?;
        separator = b",\n";
    }
    out.write_all(if separator == b"[\n" { b"[]" } else { b"\n]" })
}

fn encoded(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(512);
    value.serialize(&mut serde_json::Serializer::with_formatter(
        &mut bytes,
        Safe(CompactFormatter),
    ))?;
    Ok(bytes)
}

/// JSON without blanks, in which characters that a terminal acts on are escaped too.
struct Safe(CompactFormatter);

impl Formatter for Safe {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        out: &mut W,
        text: &str,
    ) -> io::Result<()> {
        if !text.chars().any(is_unsafe) {
            return self.0.write_string_fragment(out, text);
        }
        for c in text.chars() {
            if is_unsafe(c) {
                // None of them is beyond the basic plane.
                write!(out, "\\u{:04x}", c as u32)?;
            } else {
                write!(out, "{c}")?;
            }
        }
        Ok(())
    }
}

#[derive(Serialize)]
struct Image<'a> {
    repository: &'a str,
    tag: &'a str,
    digest: &'a str,
    image_digest: Option<&'a str>,
    platform: Option<&'a str>,
    packages: Option<u64>,
    size: Option<u64>,
    first_seen: String,
    last_seen: String,
    gone_at: Option<String>,
    state: &'static str,
    error: Option<&'a str>,
}

impl Image<'_> {
    fn encoded(&self) -> io::Result<Vec<u8>> {
        encoded(self)
    }
}

impl<'a> From<&'a ImageRow> for Image<'a> {
    fn from(row: &'a ImageRow) -> Self {
        Image {
            repository: &row.repository,
            tag: &row.tag,
            digest: row.digest.as_str(),
            image_digest: row.image_digest.as_ref().map(|digest| digest.as_str()),
            platform: row.platform.as_deref(),
            packages: row.packages,
            size: row.size,
            first_seen: row.first_seen.to_string(),
            last_seen: row.last_seen.to_string(),
            gone_at: row.gone_at.map(|at| at.to_string()),
            state: row.state.name(),
            error: row.error.as_deref(),
        }
    }
}

#[derive(Serialize)]
struct SbomImage<'a> {
    names: &'a [String],
    digest: &'a str,
    media_type: &'a str,
    config_digest: Option<&'a str>,
    platform: &'a str,
    created: Option<&'a str>,
    size: u64,
    distro: Option<WireDistro<'a>>,
}

#[derive(Serialize)]
struct WireDistro<'a> {
    id: &'a str,
    id_like: Option<&'a str>,
    version_id: Option<&'a str>,
    codename: Option<&'a str>,
    pretty_name: Option<&'a str>,
    cpe: Option<&'a str>,
}

impl<'a> From<&'a Distro> for WireDistro<'a> {
    fn from(distro: &'a Distro) -> Self {
        WireDistro {
            id: &distro.id,
            id_like: distro.id_like.as_deref(),
            version_id: distro.version_id.as_deref(),
            codename: distro.codename.as_deref(),
            pretty_name: distro.pretty_name.as_deref(),
            cpe: distro.cpe.as_deref(),
        }
    }
}

#[derive(Serialize)]
struct Layer<'a> {
    position: usize,
    digest: &'a str,
    diff_id: Option<&'a str>,
    size: u64,
    refused: Option<&'a str>,
}

impl<'a> Layer<'a> {
    fn new(position: usize, layer: &'a ImageLayer) -> Self {
        Layer {
            position,
            digest: layer.digest.as_str(),
            diff_id: layer.diff_id.as_ref().map(|digest| digest.as_str()),
            size: layer.size,
            refused: layer.refused.as_deref(),
        }
    }
}

#[derive(Serialize)]
struct WirePackage<'a> {
    purl: &'a str,
    r#type: &'a str,
    namespace: Option<&'a str>,
    name: &'a str,
    version: &'a str,
    architecture: Option<&'a str>,
    source: Option<WireSourcePackage<'a>>,
    licenses: &'a [String],
    ecosystem: &'a str,
    locations: Vec<WireLocation<'a>>,
}

#[derive(Serialize)]
struct WireSourcePackage<'a> {
    name: &'a str,
    version: &'a str,
}

#[derive(Serialize)]
struct WireLocation<'a> {
    layer: usize,
    path: &'a str,
}

impl<'a> From<&'a ImagePackage> for WirePackage<'a> {
    fn from(package: &'a ImagePackage) -> Self {
        let locations = package.locations.iter().map(|location| WireLocation {
            layer: location.layer,
            path: &location.path,
        });
        WirePackage {
            purl: &package.purl,
            r#type: &package.kind,
            namespace: package.namespace.as_deref(),
            name: &package.name,
            version: &package.version,
            architecture: package.architecture.as_deref(),
            source: package
                .source
                .as_ref()
                .map(|Source { name, version }| WireSourcePackage { name, version }),
            licenses: &package.licenses,
            ecosystem: &package.ecosystem,
            locations: locations.collect(),
        }
    }
}

#[derive(Serialize)]
struct WireCoverage<'a> {
    is_complete: bool,
    layers_read: u64,
    layers_total: u64,
    evidence: u64,
    masked: u64,
    problems: Vec<WireProblem<'a>>,
    problems_unlisted: u64,
}

#[derive(Serialize)]
struct WireProblem<'a> {
    subject: &'a str,
    path: &'a str,
    message: &'a str,
}

impl<'a> From<&'a Coverage> for WireCoverage<'a> {
    fn from(coverage: &'a Coverage) -> Self {
        let problems = coverage.problems.iter().map(|problem| WireProblem {
            subject: &problem.subject,
            path: &problem.path,
            message: &problem.message,
        });
        WireCoverage {
            is_complete: coverage.is_complete(),
            layers_read: coverage.layers_read,
            layers_total: coverage.layers_total,
            evidence: coverage.evidence,
            masked: coverage.masked,
            problems: problems.collect(),
            problems_unlisted: coverage.problems_unlisted,
        }
    }
}

#[derive(Serialize)]
struct StoreFile<'a> {
    path: &'a str,
    bytes: u64,
}

#[derive(Serialize)]
struct Counts {
    repositories: u64,
    tags: u64,
    images: u64,
    incomplete_images: u64,
    layers: u64,
    layer_bytes: u64,
    packages: u64,
}

#[derive(Serialize)]
struct Events {
    waiting: u64,
    waiting_since: Option<String>,
}

#[derive(Serialize)]
struct Queue {
    waiting: u64,
    retrying: u64,
    pushed: u64,
    next_try: Option<String>,
    running: u64,
    failed: u64,
}

#[derive(Serialize)]
struct WireSource<'a> {
    name: &'a str,
    repositories: u64,
    tags: u64,
    listed_at: Option<String>,
    error: Option<&'a str>,
    error_since: Option<String>,
}

impl<'a> From<&'a SourceStatus> for WireSource<'a> {
    fn from(source: &'a SourceStatus) -> Self {
        WireSource {
            name: &source.name,
            repositories: source.repositories,
            tags: source.tags,
            listed_at: source.listed_at.map(|at| at.to_string()),
            error: source.error.as_deref(),
            error_since: source.error_since.map(|at| at.to_string()),
        }
    }
}

#[derive(Serialize)]
struct WireFailure<'a> {
    image: &'a str,
    digest: &'a str,
    error: &'a str,
    hint: Option<&'a str>,
    attempts: u32,
    next_try: Option<String>,
    is_due: bool,
    is_final: bool,
}

impl<'a> From<&'a Failure> for WireFailure<'a> {
    fn from(failure: &'a Failure) -> Self {
        WireFailure {
            image: &failure.image,
            digest: &failure.digest,
            error: &failure.error,
            hint: failure.hint.as_deref(),
            attempts: failure.attempts,
            next_try: match failure.next_try {
                NextTry::At(at) => Some(at.to_string()),
                NextTry::Now | NextTry::NextRun | NextTry::WhenChanged => None,
            },
            is_due: failure.next_try == NextTry::Now,
            is_final: failure.next_try == NextTry::WhenChanged,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::format::testdata;

    fn text(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        write(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn parsed(text: &str) -> serde_json::Value {
        assert!(!text.replace('\n', "").chars().any(is_unsafe), "{text:?}");
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn images_are_one_document_with_a_row_a_line() {
        let mut rows = testdata::images().into_iter().map(Ok);
        let text = text(|out| {
            images(
                ImagesAnswer {
                    rows: &mut rows,
                    with_gone: true,
                },
                out,
            )
        });
        assert_eq!(text.lines().count(), 6, "{text}");
        let document = parsed(&text);
        assert_eq!(document["version"], 1);
        assert_eq!(document["images"][0]["tag"], "a,\"b\"\n\u{1b}[2J\u{202e}");
        assert_eq!(document["images"][0]["packages"], serde_json::Value::Null);
        assert_eq!(document["images"][2]["size"], 28_231_124);
        assert_eq!(document["images"][1]["gone_at"], "2026-11-24T08:00:00Z");
    }

    #[test]
    fn no_images_are_an_empty_list() {
        let mut rows = std::iter::empty();
        let text = text(|out| {
            images(
                ImagesAnswer {
                    rows: &mut rows,
                    with_gone: false,
                },
                out,
            )
        });
        assert_eq!(text, "{\"version\":1,\n\"images\":[]}\n");
    }

    #[test]
    fn an_error_of_the_rows_comes_through() {
        let mut rows = std::iter::once(Err(Error::stop("the disk is gone")));
        let answer = ImagesAnswer {
            rows: &mut rows,
            with_gone: false,
        };
        let err = images(answer, &mut Vec::new()).unwrap_err();
        assert_eq!(
            err.downcast::<Error>().unwrap().to_string(),
            "the disk is gone"
        );
    }

    #[test]
    fn an_sbom_has_everything() {
        let document = parsed(&text(|out| sbom(&testdata::sbom(), out)));
        assert_eq!(document["image"]["distro"]["id"], "debian");
        assert_eq!(document["layers"][1]["refused"], "over the limit");
        assert_eq!(document["packages"][0]["type"], "deb");
        assert_eq!(document["packages"][0]["source"]["name"], "glibc");
        assert_eq!(document["packages"][1]["name"], "b\u{9b}c");
        assert_eq!(
            document["packages"][1]["locations"][0]["path"],
            "x\ny/package.json"
        );
        assert_eq!(document["coverage"]["is_complete"], false);
        assert_eq!(document["coverage"]["problems"][0]["message"], "not JSON");
    }

    #[test]
    fn a_status_has_everything() {
        let document = parsed(&text(|out| status(&testdata::status(), out)));
        assert_eq!(document["counts"]["images"], 43);
        assert_eq!(document["queue"]["retrying"], 1);
        assert_eq!(document["sources"][1]["listed_at"], serde_json::Value::Null);
        assert_eq!(document["failures"][0]["next_try"], "2026-11-24T08:00:00Z");
        assert_eq!(document["queue"]["pushed"], 2);
        assert_eq!(document["queue"]["next_try"], "2026-11-24T08:00:00Z");
        assert_eq!(document["events"]["waiting"], 3);
        assert_eq!(document["events"]["waiting_since"], "2026-11-24T08:00:00Z");
        assert_eq!(document["failures"][2]["is_final"], true);
        assert_eq!(document["failures"][3]["next_try"], serde_json::Value::Null);
        assert_eq!(document["failures"][3]["is_due"], true);
        assert_eq!(document["failures_unlisted"], 4);
    }
}
