//! Many small images from an empty store, of which most layers repeat: 20,000 images of 4 layers, 8,000 of them
//! distinct. Served by the emulator in this process from memory, as Artifactory and by the registry API.

use crate::emulator::{Config, Emulator};
use crate::no_change::{CREDENTIALS, source};
use crate::process::{self, Server};
use crate::push::Layer;
use crate::table::{self, Series};
use crate::temp_dir::TempDir;
use crate::{images, n_runs, push, scaled};

const KEY: &str = "docker-local";
const IMAGES: u64 = 20_000;
/// Tags of one image name.
const TAGS: u64 = 50;
/// How many layers there are to choose from at each place: a tenth of 4 times [`IMAGES`] together, and no two
/// images get the same four.
const POOLS: [u64; 4] = [50, 450, 2_500, 5_000];

pub(crate) fn run() {
    let n_images = scaled(IMAGES);
    let emulator = Emulator::start(Config::default());
    let n_layers = seed(&emulator, n_images);
    println!(
        "  {n_images} images, {} layers named, {n_layers} distinct",
        n_images * POOLS.len() as u64
    );
    let sources = [
        ("Artifactory", source(&emulator)),
        (
            "registry API",
            format!("type=oci,registry={}", emulator.port_host(KEY)),
        ),
    ];
    let mut series: Vec<Series> = sources.iter().map(|(name, _)| Series::new(*name)).collect();
    let mut facts = vec![
        [
            "",
            "images",
            "failed",
            "layers read",
            "reused",
            "packages",
            "requests an image",
            "store bytes an image",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    for run_idx in 0..n_runs(3) {
        for (one, (name, source)) in series.iter_mut().zip(&sources) {
            let store = TempDir::new("bench-store");
            emulator.clear_requests();
            let arguments = ["--registry", source];
            let pass = process::watch(store.path(), &arguments, CREDENTIALS, Server::Here);
            one.samples.push(pass.sample);
            one.amount = Some((n_images as f64, "images"));
            if run_idx > 0 {
                continue;
            }
            let an_image = |n: u64| n as f64 / n_images as f64;
            let mut row = vec![(*name).to_owned()];
            row.extend(
                ["images_new", "failed", "layers_read", "layers_reused"]
                    .map(|name| pass.count(name).to_string()),
            );
            row.push(pass.n_packages.to_string());
            row.push(format!("{:.2}", an_image(emulator.n_requests() as u64)));
            row.push(format!("{:.0}", an_image(folder_bytes(&store))));
            facts.push(row);
        }
    }
    table::print(&series, Some(0));
    println!();
    table::print_rows(&facts);
}

/// Image and tag of a number.
pub(crate) fn name(at: u64) -> (String, String) {
    (
        format!("team/app-{:04}", at / TAGS),
        format!("v{}", at % TAGS),
    )
}

/// Returns how many distinct layers there are.
pub(crate) fn seed(emulator: &Emulator, n_images: u64) -> u64 {
    let pools: Vec<Vec<Layer>> = (0..POOLS.len())
        .map(|place| {
            let n_layers = (POOLS[place] * n_images).div_ceil(IMAGES);
            (0..n_layers)
                .map(|at| {
                    let (layer, bytes) = images::small_layer(&files(place, at));
                    emulator.seed_blob(&bytes);
                    layer
                })
                .collect()
        })
        .collect();
    for at in 0..n_images {
        let layers: Vec<Layer> = pools
            .iter()
            .map(|pool| pool[at as usize % pool.len()].clone())
            .collect();
        let (manifest, config) = push::documents(&layers, &at.to_string());
        emulator.seed_blob(&config);
        let (image, tag) = name(at);
        emulator.seed(KEY, &image, &tag, &manifest);
    }
    pools.iter().map(|pool| pool.len() as u64).sum()
}

/// A distribution at the bottom, then a runtime, dependencies, and the application.
fn files(place: usize, at: u64) -> Vec<(String, String)> {
    match place {
        0 => images::distribution(at, 90),
        1 => images::python(at, 5),
        2 => images::npm("srv/lib", at, 10),
        _ => images::npm("srv/app", at, 1),
    }
}

fn folder_bytes(folder: &TempDir) -> u64 {
    let files = std::fs::read_dir(folder.path()).unwrap().flatten();
    files
        .filter_map(|file| file.metadata().ok())
        .map(|file| file.len())
        .sum()
}
