//! A pass over tags that are known already: with AQL, where the listing tells every digest, and without, where
//! each tag costs a request. Served by the emulator in this process.

use crate::emulator::{Config, Emulator};
use crate::process::{self, Pass, Server};
use crate::table::{self, Series};
use crate::temp_dir::TempDir;
use crate::{images, n_runs, push, scaled};

const KEY: &str = "docker-local";
/// Tags of one image name.
const TAGS: u64 = 1_000;
/// Tags that point to the same image.
const SAME: u64 = 100;

pub(crate) fn run() {
    let with = Case::new("AQL", scaled(100_000), "ok");
    let without = Case::new("registry API", scaled(10_000), "403");
    let cases = [with, without];
    let passes: [(&str, &str); 3] = [
        ("only recorded", "--sbom=false"),
        ("from an empty store", "--sbom=true"),
        ("no change", "--sbom=true"),
    ];
    let mut all: Vec<Series> = Vec::new();
    let mut facts = vec![
        [
            "",
            "tags",
            "new",
            "unchanged",
            "failed",
            "AQL",
            "HEAD",
            "all requests",
            "requests a tag",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    let stores = [(); 2].map(|()| TempDir::new("bench-store"));
    for (pass_idx, (pass_name, sbom)) in passes.into_iter().enumerate() {
        let mut series: Vec<Series> = cases
            .iter()
            .map(|case| Series::new(format!("{pass_name}, {}", case.name)))
            .collect();
        // Only the last one can be repeated on the same store.
        let n_runs = if pass_idx == 2 { n_runs(5) } else { 1 };
        for run_idx in 0..n_runs {
            for (at, case) in cases.iter().enumerate() {
                let fresh = TempDir::new("bench-store");
                let store = if pass_idx == 0 { &fresh } else { &stores[at] };
                let pass = case.pass(store, sbom);
                series[at].samples.push(pass.sample);
                series[at].amount = Some((case.n_tags as f64, "tags"));
                if pass_idx == 2 {
                    assert_eq!(pass.count("unchanged"), case.n_tags, "not all were known");
                }
                if run_idx == 0 {
                    facts.push(case.facts(&series[at].name, &pass));
                }
            }
        }
        all.append(&mut series);
    }
    table::print(&all, None);
    println!();
    table::print_rows(&facts);
}

/// A server with so many tags.
struct Case {
    name: &'static str,
    n_tags: u64,
    emulator: Emulator,
}

impl Case {
    fn new(name: &'static str, n_tags: u64, aql: &str) -> Case {
        let emulator = Emulator::start(Config {
            switches: vec![("aql".to_owned(), aql.to_owned())],
            ..Config::default()
        });
        let mut manifest = Vec::new();
        for at in 0..n_tags {
            if at % SAME == 0 {
                let files = images::npm("srv", at, 3);
                let (layer, bytes) = images::small_layer(&files);
                emulator.seed_blob(&bytes);
                let (document, config) = push::documents(&[layer], &at.to_string());
                emulator.seed_blob(&config);
                manifest = document;
            }
            let (image, tag) = (
                format!("team/app-{:03}", at / TAGS),
                format!("v{:04}", at % TAGS),
            );
            emulator.seed(KEY, &image, &tag, &manifest);
        }
        Case {
            name,
            n_tags,
            emulator,
        }
    }

    fn pass(&self, store: &TempDir, sbom: &str) -> Pass {
        self.emulator.clear_requests();
        let source = source(&self.emulator);
        let arguments = ["--registry", &source, sbom];
        process::watch(store.path(), &arguments, CREDENTIALS, Server::Here)
    }

    /// What the last pass did and asked for.
    fn facts(&self, name: &str, pass: &Pass) -> Vec<String> {
        let n_requests = self.emulator.n_requests();
        let mut row = vec![name.to_owned(), self.n_tags.to_string()];
        row.extend(["images_new", "unchanged", "failed"].map(|name| pass.count(name).to_string()));
        row.push(
            self.emulator
                .count_requests("POST", "search/aql")
                .to_string(),
        );
        row.push(
            self.emulator
                .count_requests("HEAD", "/manifests/")
                .to_string(),
        );
        row.push(n_requests.to_string());
        row.push(format!("{:.3}", n_requests as f64 / self.n_tags as f64));
        row
    }
}

/// For every kind of source of the emulator.
pub(crate) const CREDENTIALS: &[(&str, &str)] = &[
    ("CROWSNEST_ARTIFACTORY_API_USER", "admin"),
    ("CROWSNEST_ARTIFACTORY_API_PASSWORD", "password"),
    ("CROWSNEST_REGISTRY_USER", "admin"),
    ("CROWSNEST_REGISTRY_PASSWORD", "password"),
];

/// The emulator as a value of `--registry`.
pub(crate) fn source(emulator: &Emulator) -> String {
    let (host, api) = (emulator.host(), emulator.base_url());
    format!("type=artifactory,registry={host},api={api},repository={KEY}")
}
