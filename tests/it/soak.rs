//! Every fault at once, each at one request in ten: whatever can be read is read in the end, the rest is named with
//! its cause, nothing hangs, and no foreign host learns a credential.
//!
//! `CROWSNEST_SOAK_IMAGES=2000` makes it long; as it stands it is short.

use std::time::{Duration, Instant};

use crate::emulator::Door;
use crate::pitfalls::{artifactory, place};
use crate::survival::{seed, source};

/// Faults of the emulator that exclude one another, each per mille of all requests.
const FAULTS: &[&str] = &[
    "fault_429",
    "fault_5xx",
    "fault_cut",
    "fault_wrong",
    "fault_slow",
    "fault_loop_link",
    "fault_login",
    "fault_expired",
];
/// Passes after which everything should have come through. Many end at once, since not even the listing does.
const PASSES: u64 = 60;

#[test]
fn every_fault_at_once_loses_nothing() {
    let n_images = std::env::var("CROWSNEST_SOAK_IMAGES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(20);
    let emulator = artifactory();
    for n in 0..n_images {
        seed(&emulator, n);
    }
    let place = place("soak");
    emulator.set("redirect", "blobs");
    emulator.set("fault_seed", "7");
    emulator.set("fault_retry_after", "1");
    for fault in FAULTS {
        emulator.set(fault, "100");
    }
    let registry = source(&emulator);
    let started = Instant::now();
    let mut n_left = n_images;
    let mut n_passes = 0;
    while n_left > 0 {
        assert!(
            n_passes < PASSES,
            "{n_left} of {n_images} images never came through"
        );
        n_passes += 1;
        let ended = place
            .start(&["--all-images", "--workers", "6", "--registry", &registry])
            .within(Duration::from_secs(60 + 2 * n_images))
            .ended();
        // 1: not even a listing came through. 3: some images did not.
        assert!(matches!(ended.code, Some(0 | 1 | 3)), "{}", ended.stderr);
        let stored = place.stored();
        let n_indexed = stored.images().len() as u64;
        let troubles = stored.troubles();
        assert!(
            troubles.iter().all(|(_, error)| !error.is_empty()),
            "{troubles:?}"
        );
        if stored.count("tag") == n_images {
            // No image is lost: each is indexed, or named with its cause.
            assert_eq!(
                n_indexed + troubles.len() as u64,
                n_images,
                "{}",
                ended.stderr
            );
            n_left = n_images - n_indexed;
        }
        crate::tell!(
            "pass {n_passes}: {n_indexed} indexed, {} left, exit code {:?}, {:.0?} since the start, {} requests, peak {} MiB",
            troubles.len(),
            ended.code,
            started.elapsed(),
            emulator.n_requests(),
            ended.peak_kib >> 10
        );
    }
    for request in emulator.requests() {
        let is_foreign = request.door == Door::BlobHost;
        assert!(
            !is_foreign || request.header("authorization").is_none(),
            "{}",
            request.target
        );
    }
}
