//! Watching that goes on: the first pass ever records, later ones index what is new.

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
