//! 100,000 events and 10,000 passes in one process: memory, open files, threads and the store's log, on the way.
//!
//! Sixty-four folders are listed every second, beside an Artifactory whose events come as fast as they are taken.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::emulator::{Config, Emulator};
use crate::no_change::source;
use crate::temp_dir::TempDir;
use crate::webhooks::{Watch, send_events};
use crate::{backfill, scaled, table};

const FOLDERS: u64 = 64;

pub(crate) fn run() {
    let (n_events, n_passes) = (scaled(100_000), scaled(10_000));
    let n_images = scaled(2_000);
    let emulator = Emulator::start(Config::default());
    backfill::seed(&emulator, n_images);
    let folders = TempDir::new("bench-folders");
    let mut arguments = vec![
        "--interval".to_owned(),
        "1".to_owned(),
        "--debug".to_owned(),
        "--log-format".to_owned(),
        "json".to_owned(),
    ];
    for n in 0..FOLDERS {
        let folder = folders.path().join(format!("folder-{n}"));
        std::fs::create_dir(&folder).unwrap();
        let image = format!("{}/tests/images/node.tar", env!("CARGO_MANIFEST_DIR"));
        std::fs::copy(image, folder.join("node.tar")).unwrap();
        arguments.extend([
            "--registry".to_owned(),
            format!("type=dir,path={}", folder.display()),
        ]);
    }
    arguments.extend(["--registry".to_owned(), source(&emulator)]);
    let store = TempDir::new("bench-store");
    let mut watch = Watch::start_with(&arguments, store.path());
    let mut rows = vec![
        [
            "after",
            "passes",
            "events",
            "memory MiB",
            "peak MiB",
            "files",
            "threads",
            "log MiB",
            "store MiB",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    let started = Instant::now();
    let mut n_sent = 0;
    let mut said = Said::default();
    for tenth in 1..=10 {
        while n_sent < n_events * tenth / 10 {
            n_sent += send_events(&watch.address, 16, (n_events / 40).max(16), n_images);
        }
        while said.n_passes < n_passes * tenth / 10 {
            std::thread::sleep(Duration::from_millis(500));
            said.read(&watch.log);
        }
        let id = watch.process.id();
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let line = |name: &str| -> f64 {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap();
            line.split_whitespace().next().unwrap().parse().unwrap()
        };
        let files = std::fs::read_dir(format!("/proc/{id}/fd")).unwrap().count();
        let size = |name: &str| {
            let file = std::fs::metadata(store.path().join(name));
            file.map_or(0.0, |file| file.len() as f64 / 1_048_576.0)
        };
        rows.push(vec![
            format!("{:.0} s", started.elapsed().as_secs_f64()),
            said.n_passes.to_string(),
            n_sent.to_string(),
            format!("{:.1}", line("VmRSS:") / 1024.0),
            format!("{:.1}", line("VmHWM:") / 1024.0),
            files.to_string(),
            format!("{:.0}", line("Threads:")),
            format!("{:.1}", size("crowsnest.db-wal")),
            format!("{:.1}", size("crowsnest.db")),
        ]);
    }
    watch.end();
    table::print_rows(&rows);
}

/// What the log says, read as it grows.
#[derive(Default)]
struct Said {
    at: u64,
    n_passes: u64,
}

impl Said {
    fn read(&mut self, log: &Path) {
        use std::io::{Read, Seek, SeekFrom};
        let mut file = std::fs::File::open(log).unwrap();
        file.seek(SeekFrom::Start(self.at)).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        let end = text.rfind('\n').map_or(0, |at| at + 1);
        self.at += end as u64;
        for line in text[..end].lines() {
            let line: Value = serde_json::from_str(line).unwrap_or_default();
            self.n_passes += u64::from(line["message"] == "source listed");
        }
    }
}
