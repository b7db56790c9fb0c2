//! Connections that break, stall or ask to wait for ever.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{assert_bounded, endless_layer, names, pass, place, registry};
use crate::emulator::message::Response;
use crate::fake_registry::{FakeRegistry, GZIP, Layer, dpkg_tar, tar_file, tar_header};

/// A tar of some size that does not compress.
fn noisy_tar(package: &str) -> Vec<u8> {
    let noise: Vec<u8> = (0..500_000u32)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).rotate_left(7).to_le_bytes())
        .collect();
    [tar_file("noise", &noise), dpkg_tar(package)].concat()
}

#[test]
fn a_connection_that_breaks_in_a_blob() {
    for ranges in [true, false] {
        let registry = registry();
        let layer = Layer::plain(&noisy_tar("resumed"));
        registry.image("zoo/evil", "1", std::slice::from_ref(&layer));
        let breaks = AtomicU64::new(3);
        let (digest, bytes) = (layer.digest.clone(), noisy_tar("resumed"));
        registry.hook(move |request| {
            if !request.path.contains(&digest) {
                return None;
            }
            let is_broken = breaks
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
                .is_ok();
            let from = request
                .header("range")
                .and_then(|range| {
                    range
                        .strip_prefix("bytes=")?
                        .strip_suffix('-')?
                        .parse::<usize>()
                        .ok()
                })
                .filter(|_| ranges);
            let mut response = match from {
                Some(from) => Response::new(206)
                    .header(
                        "Content-Range",
                        format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len()),
                    )
                    .body(GZIP, bytes[from..].to_vec()),
                None => Response::new(200).body(GZIP, bytes.clone()),
            };
            response.cut_after = is_broken.then_some(if ranges { 300_000 } else { 600_000 });
            Some(response)
        });
        let place = place("broken");
        let ended = pass(&registry, &place, 0, &[]);
        assert_eq!(names(&place, "zoo/evil", "1"), ["resumed"]);
        assert_eq!(ended.total("layers_read"), 2);
        let asked: Vec<Option<String>> = registry
            .requests()
            .iter()
            .filter(|seen| seen.target.contains(&layer.digest))
            .map(|seen| seen.header("range").map(str::to_owned))
            .collect();
        assert_eq!(asked.len(), 4, "{asked:?}");
        assert!(asked[1..].iter().all(Option::is_some), "{asked:?}");
    }
}

#[test]
fn a_blob_that_always_ends_early_is_given_up() {
    let registry = registry();
    let layer = Layer::plain(&noisy_tar("never"));
    registry.image("zoo/evil", "1", std::slice::from_ref(&layer));
    let digest = layer.digest;
    registry.hook(move |request| {
        request.path.contains(&digest).then(|| {
            let mut response = Response::new(200).body(GZIP, vec![0; 5_000]);
            response.cut_after = Some(0);
            response
        })
    });
    let place = place("never");
    let ended = pass(&registry, &place, 3, &[]);
    ended.says(&["error image failed", "zoo/evil:1", "layer `sha256:"]);
}

#[test]
fn a_slow_first_byte_is_waited_for() {
    let registry = registry();
    registry.hook(|request| {
        if request.path.contains("/blobs/") {
            std::thread::sleep(Duration::from_millis(1_200));
        }
        None
    });
    let place = place("slow");
    pass(&registry, &place, 0, &[]);
}

#[test]
fn a_wait_that_no_one_lives_to_see_the_end_of() {
    for wait in [
        "18446744073709551615",
        "86400",
        "Fri, 31 Dec 9999 23:59:59 GMT",
    ] {
        // Alone, since the host is left alone for its sake.
        let registry = FakeRegistry::start();
        registry.image("zoo/evil", "1", &[Layer::gzip(&dpkg_tar("evil"))]);
        registry.hook(move |request| {
            let is_it = request.path.contains("zoo/evil/manifests/sha256");
            is_it.then(|| Response::status_error(429, "too many").header("Retry-After", wait))
        });
        let ended = place("wait")
            .watch(&["--all-images", "--registry", &registry.host()])
            .with_code(3);
        ended.says(&["zoo/evil:1", "answered 429: too many"]);
        ended.says(&["host asks to wait", "status=429"]);
        assert!(ended.elapsed < Duration::from_secs(30), "{wait}");
    }
}

#[test]
fn a_bomb_that_is_being_read_leaves_nothing_when_stopped_or_killed() {
    for end in ["TERM", "INT", "KILL"] {
        let registry = registry();
        let noise: Vec<u8> = (0..1u32 << 18)
            .flat_map(|n| n.wrapping_mul(2_654_435_761).rotate_left(9).to_le_bytes())
            .collect();
        let layer = endless_layer("bomb", &tar_header("noise", b'0', 1 << 40), &noise);
        let digest = layer.digest.clone();
        registry.image("zoo/evil", "1", &[layer]);
        let place = place("stopped");
        let host = registry.host();
        let mut running = place.start(&["--registry", &host, "--all-images"]);
        running.wait_for("the bomb is being read", || {
            registry.count("GET", &digest) > 0
        });
        if end == "KILL" {
            running.kill();
            continue;
        }
        running.signal(end);
        let ended = running.ended().with_code(0);
        assert_bounded(&ended);
        assert!(
            ended.elapsed < Duration::from_secs(20),
            "{:?}",
            ended.elapsed
        );
    }
}

#[test]
fn a_blob_that_comes_byte_by_byte() {
    let registry = registry();
    let zstd = zstd::encode_all(&dpkg_tar("slow-zstd")[..], 1).unwrap();
    let gzip = Layer::gzip(&dpkg_tar("slow-gzip"));
    let zstd = Layer::stored("", zstd, &dpkg_tar("slow-zstd"));
    registry.image("zoo/evil", "1", &[gzip.clone(), zstd.clone()]);
    let blobs = [
        (
            gzip.digest,
            crate::fake_registry::gzip(&dpkg_tar("slow-gzip")),
        ),
        (
            zstd.digest,
            zstd::encode_all(&dpkg_tar("slow-zstd")[..], 1).unwrap(),
        ),
    ];
    registry.hook(move |request| {
        let (_, bytes) = blobs
            .iter()
            .find(|(digest, _)| request.path.ends_with(digest))?;
        let mut response = Response::new(200).body("", bytes.clone());
        response.bytes_per_pause = Some(1);
        Some(response)
    });
    let place = place("drops");
    pass(&registry, &place, 0, &[]);
    assert_eq!(names(&place, "zoo/evil", "1"), ["slow-zstd"]);
}
