//! Processes that are killed, share a store, meet a poisonous image, a full disk, or a service manager.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::crowsnest::Crowsnest;
use crate::emulator::Emulator;
use crate::fake_registry::{FakeRegistry, GZIP, Layer, digest, dpkg_tar, gzip};
use crate::pitfalls::{artifactory, images, place, set};
use crate::sender::{SECRET, Sender, event};
use crate::temp_dir::TempDir;

const KILLS: u64 = 500;

pub(crate) fn source(emulator: &Emulator) -> String {
    format!(
        "type=artifactory,registry={},api={},repository=docker-local",
        emulator.host(),
        emulator.base_url()
    )
}

/// Seeds an image of three layers: one that all have, one that ten have, one of its own.
pub(crate) fn seed(emulator: &Emulator, n: u64) {
    let tars = [
        dpkg_tar("base"),
        dpkg_tar(&format!("runtime-{}", n / 10)),
        dpkg_tar(&format!("app-{n}")),
    ];
    let layers: Vec<Vec<u8>> = tars.iter().map(|tar| gzip(tar)).collect();
    let config = json!({"os": "linux", "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": tars.iter().map(|tar| digest(tar)).collect::<Vec<_>>()}})
    .to_string();
    let descriptors: Vec<_> = layers
        .iter()
        .map(|layer| json!({"mediaType": GZIP, "digest": digest(layer), "size": layer.len()}))
        .collect();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
                   "digest": digest(config.as_bytes()), "size": config.len()},
        "layers": descriptors,
    });
    for blob in layers.iter().map(Vec::as_slice).chain([config.as_bytes()]) {
        emulator.seed_blob(blob);
    }
    emulator.seed(
        "docker-local",
        &format!("team/app-{}", n / 5),
        &format!("v{n}"),
        manifest.to_string().as_bytes(),
    );
}

/// Numbers that look random and are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: u64) -> u64 {
        // Knuth's MMIX generator; its low bits repeat soon.
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// What a store says of images, without numbers of rows and moments.
fn content(place: &Crowsnest) -> BTreeMap<String, Vec<String>> {
    let stored = place.stored();
    let mut content = BTreeMap::new();
    for (repository, tag, platform) in stored.images() {
        let packages = stored.packages(&repository, &tag, &platform);
        let packages = packages.into_iter().map(|row| format!("{row:?}")).collect();
        content.insert(format!("{repository}:{tag} {platform}"), packages);
    }
    content.insert("layers".to_owned(), {
        let mut layers = stored.layer_digests();
        layers.sort();
        layers
    });
    content
}

#[test]
fn five_hundred_kills_leave_what_an_undisturbed_run_leaves() {
    let emulator = artifactory();
    let registry = source(&emulator);
    let killed = place("kills").set("CROWSNEST_ARTIFACTORY_WEBHOOK_SECRET", SECRET);
    let mut numbers = Numbers(1);
    let mut n_images = 0;
    let mut n_read_again = 0;
    for _ in 0..KILLS {
        // Some are told of, the rest is for the listing to find.
        for _ in 0..numbers.below(3) {
            seed(&emulator, n_images);
            n_images += 1;
        }
        let before: BTreeSet<String> = match killed.data().join("crowsnest.db").exists() {
            true => killed.stored().layers_if_any(),
            false => BTreeSet::new(),
        };
        emulator.clear_requests();
        let running = killed.start(&[
            "--all-images",
            "--interval",
            "3600",
            "--listen",
            "127.0.0.1:0",
            "--registry",
            &registry,
        ]);
        let end = Instant::now() + Duration::from_millis(5 + numbers.below(150));
        let mut n_sent = 0;
        while Instant::now() < end {
            if let Some(address) = running.address_if_any()
                && n_sent < 5
            {
                let n = n_images.saturating_sub(1 + n_sent);
                // It may be killed meanwhile by nobody but us, so that there is an answer.
                let status = Sender::to(&address).signed(&event(
                    "pushed",
                    "docker-local",
                    &format!("team/app-{}", n / 5),
                    &format!("v{n}"),
                ));
                assert_eq!(status, 202);
                n_sent += 1;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        running.kill();
        let requests = emulator.requests();
        n_read_again += before
            .iter()
            .filter(|digest| {
                let hex = digest.trim_start_matches("sha256:");
                requests
                    .iter()
                    .any(|request| request.target.contains(&format!("sha256__{hex}")))
            })
            .count();
    }
    assert_eq!(n_read_again, 0, "layers that had been read were read again");
    let ended = killed
        .watch(&["--all-images", "--registry", &registry])
        .with_code(0);
    assert_eq!(killed.stored().count("job"), 0, "{}", ended.stderr);
    // The kills came while work was done.
    assert!(ended.total("images_new") < n_images / 4, "{}", ended.stderr);

    let undisturbed = place("undisturbed");
    undisturbed
        .watch(&["--all-images", "--registry", &registry])
        .with_code(0);
    assert!(n_images > KILLS / 2);
    assert_eq!(content(&killed), content(&undisturbed));
    // Events that were accepted last wait for a watch, which finds them known.
    let mut running = killed.start(&["--interval", "3600", "--registry", &registry]);
    running.wait_for("no event waits", || killed.stored().count("event") == 0);
    assert_eq!(content(&killed), content(&undisturbed));
    running.stop();
}

#[test]
fn two_processes_share_the_work_of_one_store() {
    let emulator = artifactory();
    for n in 0..60 {
        seed(&emulator, n);
    }
    emulator.set("delay_ms", "3");
    let registry = source(&emulator);
    let place = place("shared");
    let mut watching = place.start(&[
        "--all-images",
        "--interval",
        "3600",
        "--registry",
        &registry,
    ]);
    watching.wait_until(|said| said.contains("image indexed"));
    let passing = place.start(&["--all-images", "--registry", &registry]);
    let passed = passing.ended().with_code(0);
    watching.wait_for("all are indexed", || images(&place).len() == 60);
    let watched = watching.stop();
    assert_eq!(watched.code, Some(0), "{}", watched.stderr);
    let said = passed.stderr.clone() + &watched.stderr;
    for word in [" error ", " warn "] {
        assert!(!said.contains(word), "{said}");
    }
    let lines: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("image indexed"))
        .collect();
    assert_eq!(lines.len(), 60, "{said}");
    let by_passing = passed.stderr.matches("image indexed").count();
    assert!(
        (1..60).contains(&by_passing),
        "the work was not shared: {by_passing}\n{said}"
    );
}

#[test]
fn an_image_over_which_processes_end_is_isolated() {
    let registry = FakeRegistry::start();
    let poison = Layer::plain(&dpkg_tar("poison"));
    registry.image("a-poison", "1", std::slice::from_ref(&poison));
    let is_asked = Arc::new(AtomicBool::new(false));
    // Who asks for this layer is about to be killed.
    let (asked, digest) = (Arc::clone(&is_asked), poison.digest.clone());
    registry.hook(move |request| {
        if request.path.ends_with(&digest) {
            asked.store(true, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(500));
        }
        None
    });
    for n in 0..5 {
        registry.image(
            "good",
            &n.to_string(),
            &[Layer::plain(&dpkg_tar(&format!("good-{n}")))],
        );
    }
    let place = Crowsnest::new("poison");
    let arguments = [
        "--all-images",
        "--interval",
        "3600",
        "--workers",
        "1",
        "--registry",
        &format!("type=oci,registry={}", registry.host()),
    ];
    let mut n_kills = 0;
    loop {
        is_asked.store(false, Ordering::SeqCst);
        let mut running = place.start(&arguments);
        let is_over = || place.run("status", &[]).1.contains("was ended 8 times");
        running.wait_for("the poison is asked for, or given up", || {
            is_asked.load(Ordering::SeqCst) || is_over()
        });
        if !is_asked.load(Ordering::SeqCst) {
            running.wait_for("the good ones are indexed", || images(&place).len() == 5);
            running.stop();
            break;
        }
        running.kill();
        n_kills += 1;
        assert!(n_kills <= 8, "it is taken again and again");
        if n_kills > 4 {
            // By now it waits for the others.
            assert_eq!(images(&place).len(), 5);
        }
    }
    assert_eq!(n_kills, 8);
    let (_, status) = place.run("status", &[]);
    assert!(
        status.contains("crowsnest was ended 8 times while it read this image"),
        "{status}"
    );
    // A new tag of the same content is another chance, and so is the command.
    registry.hook(|_| None);
    let (code, text) = place.run("retry", &[]);
    assert_eq!(code, Some(0), "{text}");
    let mut running = place.start(&arguments);
    running.wait_for("it is indexed too", || images(&place).len() == 6);
    running.stop();
}

/// A file system of its own, which is gone when it is dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn new(mebibytes: u64) -> SmallDisk {
        let folder = TempDir::new("small-disk");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "tmpfs"])
            .arg(folder.path())
            .status();
        assert!(
            mount.is_ok_and(|status| status.success()),
            "mounting a tmpfs, which needs root"
        );
        SmallDisk(folder)
    }

    fn make_read_only(&self) {
        let mount = Command::new("mount")
            .args(["-o", "remount,ro"])
            .arg(self.0.path())
            .status();
        assert!(mount.is_ok_and(|status| status.success()), "remounting");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_disk_that_fills_up_is_waited_for() {
    let emulator = artifactory();
    for n in 0..10 {
        seed(&emulator, n);
    }
    let registry = source(&emulator);
    let disk = SmallDisk::new(8);
    let data = disk.0.path().join("data").display().to_string();
    let place = place("disk")
        .set("CROWSNEST_ARTIFACTORY_WEBHOOK_SECRET", SECRET)
        .set("CROWSNEST_DATA_DIR", &data);
    let filling = disk.0.path().join("filling");
    let mut running = place.start(&[
        "--all-images",
        "--interval",
        "1",
        "--listen",
        "127.0.0.1:0",
        "--registry",
        &registry,
    ]);
    running.wait_until(|said| said.matches("image indexed").count() == 10);
    let sender = Sender::to(&running.address());
    for round in 1..=2 {
        // To the last byte.
        let _ = std::fs::write(&filling, vec![1; 16 << 20]);
        for n in 20 * round - 10..20 * round + 10 {
            seed(&emulator, n);
        }
        let mut n_accepted = 0;
        let refused = loop {
            let image = format!("burst/{round}-{n_accepted}");
            match sender.signed(&event("pushed", "docker-local", &image, "1")) {
                202 => n_accepted += 1,
                status => break status,
            }
        };
        assert_eq!(refused, 503);
        running.wait_until(|said| {
            said.matches("the store cannot be written; waiting").count() as u64 >= round
        });
        assert_eq!(sender.get("/healthz").0, 200);
        assert_eq!(sender.get("/readyz").0, 503);
        std::fs::remove_file(&filling).unwrap();
        running.wait_for("it is ready again", || sender.get("/readyz").0 == 200);
        running.wait_until(|said| said.matches("image indexed").count() as u64 == 20 * round + 10);
        let known = event("pushed", "docker-local", "team/app-0", "v0");
        assert_eq!(sender.signed(&known), 202);
    }
    let ended = running.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let (code, text) = place.run("store", &["check"]);
    assert_eq!(code, Some(0), "{text}");
}

#[test]
fn a_read_only_disk_is_an_error_of_one_line() {
    let emulator = artifactory();
    seed(&emulator, 0);
    let disk = SmallDisk::new(8);
    let data = disk.0.path().join("data").display().to_string();
    let place = place("read-only").set("CROWSNEST_DATA_DIR", &data);
    let arguments = ["--all-images", "--registry", &source(&emulator)];
    place.watch(&arguments).with_code(0);
    disk.make_read_only();
    let ended = place.watch(&arguments).with_code(1);
    assert_eq!(ended.stderr.lines().count(), 2, "{}", ended.stderr);
    ended.says(&["crowsnest: ", "data/crowsnest.db"]);
    ended.says(&["hint: the data directory must be writable"]);
}

#[test]
fn a_single_pass_ends_with_an_error_when_the_disk_is_full() {
    let emulator = artifactory();
    for n in 0..400 {
        seed(&emulator, n);
    }
    let disk = SmallDisk::new(1);
    let data = disk.0.path().join("data").display().to_string();
    let place = place("full").set("CROWSNEST_DATA_DIR", &data);
    let ended = place
        .watch(&["--all-images", "--registry", &source(&emulator)])
        .with_code(1);
    let last = ended
        .stderr
        .lines()
        .rev()
        .take(2)
        .collect::<Vec<_>>()
        .join("\n");
    assert!(
        last.contains("the disk is full") && last.contains("hint: free some space"),
        "{}",
        ended.stderr
    );
}

#[test]
fn the_service_manager_is_told() {
    let emulator = artifactory();
    let folder = TempDir::new("notify");
    let path = folder.path().join("socket");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let place = place("notify")
        .set("NOTIFY_SOCKET", &path.display().to_string())
        .set("WATCHDOG_USEC", "400000");
    let running = place.start(&["--interval", "3600", "--registry", &source(&emulator)]);
    let next = || {
        let mut buffer = [0; 256];
        let n = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..n]).into_owned()
    };
    assert_eq!(next(), "READY=1\nSTATUS=watching");
    let started = Instant::now();
    for _ in 0..3 {
        assert_eq!(next(), "WATCHDOG=1");
    }
    // Each half of what the manager waits for.
    assert!(
        started.elapsed() < Duration::from_millis(1_200),
        "{:?}",
        started.elapsed()
    );
    running.signal("TERM");
    let mut last = next();
    while last == "WATCHDOG=1" {
        last = next();
    }
    assert_eq!(last, "STOPPING=1");
    assert_eq!(running.ended().code, Some(0));
}

#[test]
fn a_source_that_cannot_be_reached_is_said_once_and_said_again_when_it_is_back() {
    let emulator = artifactory();
    for n in 0..3 {
        seed(&emulator, n);
    }
    let place = place("outage");
    let mut running = place.start(&[
        "--all-images",
        "--interval",
        "1",
        "--debug",
        "--registry",
        &source(&emulator),
    ]);
    running.wait_until(|said| said.matches("image indexed").count() == 3);
    emulator.set("fault_every", "1");
    emulator.set("fault_status", "503");
    running.wait_until(|said| said.matches("source still cannot be listed").count() >= 1);
    let (_, status) = place.run("status", &[]);
    assert!(
        status.contains("503") && status.contains("since"),
        "{status}"
    );
    emulator.set("fault_every", "0");
    seed(&emulator, 3);
    running.wait_until(|said| said.contains("source can be listed again"));
    running.wait_until(|said| said.matches("image indexed").count() == 4);
    let said = running.stop().stderr;
    assert_eq!(
        said.matches(" error source cannot be listed").count(),
        1,
        "{said}"
    );
    assert_eq!(
        said.matches(" info source can be listed again").count(),
        1,
        "{said}"
    );
}

#[test]
fn jobs_wait_for_an_outage_to_end() {
    let registry = FakeRegistry::start();
    for n in 0..3 {
        registry.image(
            "app",
            &n.to_string(),
            &[Layer::plain(&dpkg_tar(&format!("app-{n}")))],
        );
    }
    let n_refused = Arc::new(AtomicU64::new(0));
    let is_down = Arc::new(Mutex::new(true));
    let (refused, down) = (Arc::clone(&n_refused), Arc::clone(&is_down));
    registry.hook(move |request| {
        let is_refused = *down.lock().unwrap() && request.path.contains("/blobs/");
        is_refused.then(|| {
            refused.fetch_add(1, Ordering::SeqCst);
            crate::emulator::message::Response::new(503)
        })
    });
    let place = Crowsnest::new("jobs-wait");
    let mut running = place.start(&[
        "--all-images",
        "--interval",
        "3600",
        "--registry",
        &format!("type=oci,registry={}", registry.host()),
    ]);
    running.wait_until(|said| said.matches("image is tried again").count() == 3);
    *is_down.lock().unwrap() = false;
    // Nobody need wait for the next try.
    let (code, text) = place.run("retry", &[]);
    assert_eq!(code, Some(0), "{text}");
    running.wait_for("all are indexed", || images(&place).len() == 3);
    assert_eq!(images(&place), set(&["app:0", "app:1", "app:2"]));
    running.stop();
}

/// A clock for one process, by libfaketime: the file holds what is added to the real one.
struct Clock(TempDir);

impl Clock {
    fn new() -> Clock {
        let clock = Clock(TempDir::new("clock"));
        clock.set("+0");
        clock
    }

    fn set(&self, offset: &str) {
        // Renamed into its place, so that nobody reads half of it.
        let file = self.0.write("next", offset);
        std::fs::rename(file, self.0.path().join("offset")).unwrap();
    }

    fn given_to(&self, place: Crowsnest) -> Crowsnest {
        let library = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
        assert!(
            std::path::Path::new(library).exists(),
            "apt-get install faketime"
        );
        place
            .set("LD_PRELOAD", library)
            .set(
                "FAKETIME_TIMESTAMP_FILE",
                &self.0.path().join("offset").display().to_string(),
            )
            .set("FAKETIME_NO_CACHE", "1")
            .set("FAKETIME_DONT_FAKE_MONOTONIC", "1")
    }
}

#[test]
fn a_clock_that_jumps_does_no_harm() {
    let registry = FakeRegistry::start();
    registry.image("app", "0", &[Layer::plain(&dpkg_tar("app-0"))]);
    let is_down = Arc::new(AtomicBool::new(true));
    let down = Arc::clone(&is_down);
    registry.hook(move |request| {
        let is_refused = down.load(Ordering::SeqCst) && request.path.contains("/blobs/");
        is_refused.then(|| crate::emulator::message::Response::new(503))
    });
    let clock = Clock::new();
    let place = clock.given_to(Crowsnest::new("clock"));
    let arguments = [
        "--all-images",
        "--interval",
        "1",
        "--debug",
        "--registry",
        &format!("type=oci,registry={}", registry.host()),
    ];
    let mut running = place.start(&arguments);
    running.wait_until(|said| said.contains("image is tried again"));
    // A wait of some seconds, planned a year ahead as the clock now says.
    clock.set("-365d");
    is_down.store(false, Ordering::SeqCst);
    running.wait_until(|said| said.contains("the clock was set back"));
    running.wait_for("it is tried again", || images(&place).len() == 1);
    // What happens from now on has older moments than what happened before.
    registry.image("app", "1", &[Layer::plain(&dpkg_tar("app-1"))]);
    running.wait_for("a new tag is seen", || images(&place).len() == 2);
    registry.forget("app", "0");
    running.wait_for("a tag that goes is seen", || {
        images(&place) == set(&["app:1"])
    });
    // Ahead: leases of a process that lives do not end.
    clock.set("+365d");
    let n_passes = running.said().matches("source listed").count();
    running.wait_until(|said| said.matches("source listed").count() > n_passes + 1);
    let again = running.said();
    assert_eq!(again.matches("image indexed").count(), 2, "{again}");
    running.stop();
}
