//! One image, and a whole registry, from an empty store.
//!
//! One image is paired with the plain pipeline over the same blobs, blob after blob: curl, sha256sum of what
//! comes, gzip or zstd, sha256sum of the tar. Both read from the page cache.
//!
//! Environment: `CROWSNEST_BENCH_REGISTRY` (`host:port` of a registry to use, else one is started and filled
//! with three images out of the files of this machine) and `CROWSNEST_BENCH_IMAGES` (which of its images,
//! `app/java:1.0,app/node:1.0`).

use std::process::Command;

use crate::process::{self, Server};
use crate::push::{Client, Form, Layer};
use crate::registry::Registry;
use crate::table::{self, Series};
use crate::temp_dir::TempDir;
use crate::{images, n_runs};

/// Reads lines `URL TOOL` from its arguments, in pairs.
const PIPELINE: &str = r#"set -eo pipefail
while [ $# -gt 0 ]; do
  case $2 in gzip) plain='gzip -dc' ;; zstd) plain='zstd -dcq' ;; *) plain=cat ;; esac
  curl -sSf "$1" | tee >(sha256sum >/dev/null) | $plain | sha256sum >/dev/null
  shift 2
done"#;

/// Images made when no registry is given.
const MADE: [&str; 3] = ["bench/one", "bench/two", "bench/three"];
const TAG: &str = "1.0";

pub(crate) fn run() {
    let given = std::env::var("CROWSNEST_BENCH_REGISTRY").ok();
    let own = given.is_none().then(Registry::start);
    let host = match (&given, &own) {
        (Some(host), _) => host.clone(),
        (None, Some(registry)) => registry.host(),
        (None, None) => unreachable!("one of the two is there"),
    };
    let client = Client::new(&host);
    let images = std::env::var("CROWSNEST_BENCH_IMAGES").ok();
    let images: Vec<(String, String)> = match images.filter(|_| given.is_some()) {
        Some(text) => text.split(',').map(split).collect(),
        None if given.is_some() => panic!("CROWSNEST_BENCH_IMAGES says which images to read"),
        None => {
            images::push_real(&client, &MADE, TAG);
            MADE.map(|repository| (repository.to_owned(), TAG.to_owned()))
                .to_vec()
        }
    };
    let server = Server::listening_on(&host);
    for (repository, tag) in &images {
        let layers = client.layers(repository, tag);
        for layer in &layers {
            client.warm(repository, &layer.digest);
        }
        let pair = one_image(&client, &host, repository, tag, &layers, server);
        table::print(&pair, Some(1));
    }
    all_tags(&host, server);
}

fn split(image: &str) -> (String, String) {
    let (repository, tag) = image.rsplit_once(':').unwrap_or((image, "latest"));
    (repository.to_owned(), tag.to_owned())
}

/// crowsnest and the pipeline in turns.
fn one_image(
    client: &Client,
    host: &str,
    repository: &str,
    tag: &str,
    layers: &[Layer],
    server: Server,
) -> Vec<Series> {
    let size: u64 = layers.iter().map(|layer| layer.size).sum();
    let megabytes = size as f64 / 1e6;
    let mut ours = Series::new(format!("{repository}:{tag} {megabytes:.0} MB"));
    let mut theirs = Series::new("  plain pipeline");
    ours.amount = Some((megabytes, "MB"));
    theirs.amount = ours.amount;
    let reference = format!("{host}/{repository}");
    let pattern = format!("^{}$", tag.replace('.', r"\."));
    for _ in 0..n_runs(5) {
        let store = TempDir::new("bench-store");
        let arguments = ["--quiet", "--repository", &reference, "--tag", &pattern];
        ours.samples
            .push(process::watch(store.path(), &arguments, &[], server).sample);
        let mut pipeline = Command::new("bash");
        pipeline.args(["-c", PIPELINE, "pipeline"]);
        for layer in layers {
            let tool = match layer.form {
                Form::Tar => "cat",
                Form::Gzip => "gzip",
                Form::Zstd => "zstd",
            };
            pipeline.args([&client.blob_url(repository, &layer.digest), tool]);
        }
        let (sample, code, errors) = process::run(&mut pipeline, server);
        assert_eq!(code, 0, "the pipeline failed: {errors}");
        theirs.samples.push(sample);
    }
    vec![ours, theirs]
}

/// Everything that the registry holds.
fn all_tags(host: &str, server: Server) {
    let mut series = Series::new("all tags");
    let mut facts = String::new();
    for _ in 0..n_runs(5) {
        let store = TempDir::new("bench-store");
        let pass = process::watch(store.path(), &["--registry", host], &[], server);
        series.samples.push(pass.sample);
        let text = |name: &str| pass.done[name].as_str().unwrap_or_default().to_owned();
        let read = text("read");
        series.amount = Some((megabytes(&read), "MB"));
        facts = format!(
            "{} images, {} failed, {} layers read, {read} read, {} saved",
            pass.count("images_new"),
            pass.count("failed"),
            pass.count("layers_read"),
            text("saved"),
        );
    }
    table::print(&[series], None);
    println!("  {facts}");
}

/// Of `933.1 MB` or `4.48 GB`.
fn megabytes(text: &str) -> f64 {
    let (number, unit) = text.split_once(' ').unwrap_or((text, "MB"));
    let number: f64 = number.parse().unwrap_or(0.0);
    if unit == "GB" { number * 1e3 } else { number }
}
