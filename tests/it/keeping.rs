//! Care of a store that `crowsnest watch` filled: `--keep`, `crowsnest retry` and `crowsnest store`.

use std::cell::Cell;

use serde_json::Value;

use crate::crowsnest::Crowsnest;
use crate::fake_registry::{FakeRegistry, Layer, OCI_MANIFEST, dpkg_tar};
use crate::pitfalls::{artifactory, images, manifest, place, seed, set};

/// Lets everything in the store be 40 days older.
fn age(place: &Crowsnest) {
    place.change(
        "UPDATE tag SET gone_at = gone_at - 3456000000;
         UPDATE manifest SET indexed_at = indexed_at - 3456000000;
         UPDATE layer SET read_at = read_at - 3456000000;",
    );
}

#[test]
fn what_is_gone_is_kept_for_ever_or_so_many_days() {
    let emulator = artifactory();
    seed(&emulator, "docker-local", "old", "1");
    let (pushed, blobs) = manifest("arm64", "new");
    for blob in &blobs {
        emulator.seed_blob(blob);
    }
    emulator.seed("docker-local", "new", "1", &pushed);
    let (host, api) = (emulator.host(), emulator.base_url());
    let registry = format!("type=artifactory,registry={host},api={api},repository=docker-local");
    let place = place("keeping");
    let watch = |more: &[&str]| {
        let words = [&["--all-images", "--registry", &registry], more].concat();
        place.watch(&words).with_code(0)
    };
    watch(&["--keep", "1"]);
    assert!(emulator.remove("docker-local", "old/1") > 0);
    assert_eq!(watch(&[]).total("gone"), 1);
    age(&place);
    for more in [&[][..], &["--keep", "50"]] {
        assert!(!watch(more).stderr.contains("pruned"));
        assert_eq!(place.stored().count("tag"), 2);
    }
    let ended = watch(&["--keep", "30"]);
    let line = ended.says(&["pruned what is gone for long"]);
    assert!(
        line.contains(
            " tags=1 earlier_digests=0 manifests=1 layers=1 files=1 packages=1 repositories=1 "
        ),
        "{line}"
    );
    // Of the files of both images, os-release is the same.
    for (table, n) in [
        ("repository", 1),
        ("tag", 1),
        ("manifest", 1),
        ("layer", 1),
        ("content", 2),
        ("evidence", 2),
        ("package", 1),
    ] {
        assert_eq!(place.stored().count(table), n, "{table}");
    }
    assert_eq!(images(&place), set(&["docker-local/new:1"]));
    assert_eq!(place.answer(&["store", "check"]).0, 0);

    // It comes back, and everything of it is read again.
    seed(&emulator, "docker-local", "old", "1");
    assert_eq!(watch(&["--keep", "30"]).total("layers_read"), 1);
    assert_eq!(images(&place).len(), 2);

    let words = ["--keep", "0", "--registry", &registry];
    let ended = place.watch(&words).with_code(1);
    ended.says(&["--keep: expected a whole number from 1 to 36500, found `0`"]);
}

/// A registry with an image that is none, and one that is well.
fn broken() -> FakeRegistry {
    let registry = FakeRegistry::start();
    registry.image("team/well", "1", &[Layer::gzip(&dpkg_tar("harmless"))]);
    registry.tag("team/broken", "1", OCI_MANIFEST, b"{\"schemaVersion\": 2}");
    registry
}

#[test]
fn what_failed_for_good_is_tried_again_when_told() {
    let registry = broken();
    let place = place("retry");
    let host = registry.host();
    let pass = |code| {
        place
            .watch(&["--all-images", "--registry", &host])
            .with_code(code)
    };
    let n_tries = || registry.count("GET", "/team/broken/manifests/sha256");
    let status = || -> Value {
        serde_json::from_str(&place.answer(&["status", "--format", "json"]).1).unwrap()
    };
    pass(3);
    pass(3);
    assert_eq!(
        (n_tries(), status()["queue"]["failed"].as_u64()),
        (1, Some(1))
    );

    let told = |words: &[&str]| {
        let (code, out, err) = place.answer(&[&["retry"], words].concat());
        assert_eq!((code, err.as_str()), (0, ""), "{words:?}");
        out
    };
    let who = "; a running crowsnest watch does it at once, otherwise the next run\n";
    assert_eq!(
        told(&["team/well"]),
        "nothing that matches `team/well` had failed; crowsnest status shows what has\n"
    );
    assert_eq!(
        told(&["team/broken:1"]),
        format!("to be tried again: 1 image{who}")
    );
    assert_eq!(told(&[]), "nothing had failed\n");
    let failure = &status()["failures"][0];
    assert_eq!(
        (&failure["is_due"], &failure["is_final"]),
        (&true.into(), &false.into())
    );
    pass(3);
    assert_eq!(n_tries(), 2);

    // A running watch takes it at once.
    let was_told = Cell::new(false);
    let watch = [
        "--all-images",
        "--interval",
        "3600",
        "--debug",
        "--registry",
        &host,
    ];
    let ended = place.watch_until(&watch, |said| {
        if said.contains("source listed") && !was_told.replace(true) {
            assert_eq!(
                told(&["*broken"]),
                format!("to be tried again: 1 image{who}")
            );
        }
        n_tries() == 3 && said.contains("image failed")
    });
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(n_tries(), 3, "{}", ended.stderr);
}

#[test]
fn a_store_is_checked_and_compacted() {
    let registry = broken();
    let place = place("care");
    let host = registry.host();
    place
        .watch(&["--all-images", "--registry", &host])
        .with_code(3);
    assert_eq!(
        place.answer(&["store", "check"]),
        (0, "no problems\n".to_owned(), String::new())
    );
    let (code, out, err) = place.answer(&["store", "cehck"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert_eq!(
        err,
        "crowsnest: ACTION: expected `check` or `compact`, found `cehck`\nhint: did you mean `check`?\n"
    );

    // Room for a large file that is gone, given back beside a watch that goes on.
    place.change(
        "CREATE TABLE large (x); INSERT INTO large VALUES (zeroblob(9000000)); DROP TABLE large;",
    );
    let compacted = Cell::new(false);
    let watch = [
        "--all-images",
        "--interval",
        "3600",
        "--debug",
        "--registry",
        &host,
    ];
    let ended = place.watch_until(&watch, |said| {
        if said.contains("source listed") && !compacted.replace(true) {
            let (code, out, err) = place.answer(&["store", "compact"]);
            assert_eq!((code, err.as_str()), (0, ""), "{out}");
            let numbers: Vec<u64> = out
                .split(' ')
                .filter_map(|word| word.parse().ok())
                .collect();
            assert!(numbers[0] > 9_000_000 && numbers[1] < 1_000_000, "{out}");
        }
        compacted.get()
    });
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(place.answer(&["store", "check"]).0, 0);

    place.while_writing(|| {
        let (code, out, err) = place.answer(&["store", "compact"]);
        assert_eq!((code, out.as_str()), (1, ""));
        assert_eq!(
            err,
            "crowsnest: another process writes to the store, so it cannot be compacted now\n\
             hint: try again when that is done, or stop it first\n"
        );
    });

    place.change("DELETE FROM image_layer; UPDATE job SET lease_owner = 'nobody'");
    assert_eq!(
        place.answer(&["store", "check"]).0,
        0,
        "an image without layers is one"
    );
    place.change("PRAGMA foreign_keys = 0; DELETE FROM tag WHERE id = (SELECT tag_id FROM job)");
    let (code, out, err) = place.answer(&["store", "check"]);
    assert_eq!((code, err.as_str()), (1, ""));
    // Workers note tags in any order.
    let out = out.replace('2', "1");
    assert_eq!(
        out,
        "row 1 of job refers to a row of tag that is not there\njob 1 has no tag\n"
    );
}
