//! Peak memory while one image is indexed by 3 workers: it must not depend on the size of the image.
//!
//! The images are generated: layers of plain tar, gzip and zstd with many small files, half of them random and
//! half text, package files of three ecosystems, and large programs that have to be searched.

use crate::process::{self, Server};
use crate::push::Client;
use crate::registry::Registry;
use crate::table::{self, Series, spread};
use crate::temp_dir::TempDir;
use crate::{images, n_runs, scaled};

const LIMIT_MIB: f64 = 64.0;

pub(crate) fn run() {
    let registry = Registry::start();
    let client = Client::new(&registry.host());
    let server = Server::listening_on(&registry.host());
    let mut series = Vec::new();
    let mut facts = Vec::new();
    for (repository, size) in [
        ("generated/300mb", scaled(300_000_000)),
        ("generated/3gb", scaled(3_000_000_000)),
    ] {
        let size = images::push_generated(&client, repository, "1.0", size);
        let megabytes = size as f64 / 1e6;
        let mut one = Series::new(format!("{megabytes:.0} MB"));
        one.amount = Some((megabytes, "MB"));
        series.push(one);
        facts.push((repository, String::new()));
    }
    for _ in 0..n_runs(3) {
        for (one, (repository, facts)) in series.iter_mut().zip(&mut facts) {
            let store = TempDir::new("bench-store");
            let reference = format!("{}/{repository}", registry.host());
            let arguments = ["--workers", "3", "--repository", &reference];
            let pass = process::watch(store.path(), &arguments, &[], server);
            assert_eq!(pass.count("images_new"), 1);
            one.samples.push(pass.sample);
            *facts = format!(
                "{} layers, {} packages",
                pass.count("layers_read"),
                pass.n_packages
            );
        }
    }
    table::print(&series, Some(0));
    for (one, (_, facts)) in series.iter().zip(&facts) {
        let peaks = spread(one.samples.iter().map(|sample| sample.peak as f64));
        let [least, middle, most] = peaks.map(|peak| peak / f64::from(1 << 20));
        println!(
            "  {}: peak {least:.1} {middle:.1} {most:.1} MiB (min median max), limit {LIMIT_MIB} MiB: {}; {facts}",
            one.name,
            if most <= LIMIT_MIB { "kept" } else { "BROKEN" },
        );
    }
}
