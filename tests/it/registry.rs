//! A real plain registry for a test: Debian's `docker-registry` (distribution 2.8) on a free port
//! with a folder of its own. Both are gone when it is dropped.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::temp_dir::TempDir;

/// How long the registry may take to answer after its start.
const START: Duration = Duration::from_secs(20);

/// A running registry.
pub(crate) struct Registry {
    process: Child,
    port: u16,
    _folder: TempDir,
}

impl Registry {
    /// Starts a registry and waits until it answers. Panics when the program is missing: a test
    /// that needs it must not pass without it.
    pub(crate) fn start() -> Registry {
        Registry::start_with("")
    }

    /// The same with lines of YAML added to the configuration.
    pub(crate) fn start_with(configuration: &str) -> Registry {
        Registry::started(configuration, None)
    }

    /// A registry whose storage is a folder that stays when it ends. Several may read the same.
    pub(crate) fn start_on(storage: &Path) -> Registry {
        Registry::started("", Some(storage))
    }

    fn started(configuration: &str, storage: Option<&Path>) -> Registry {
        // The port was free a moment ago; another process can still take it, hence the retries.
        for _ in 0..5 {
            if let Some(registry) = Registry::try_start(configuration, storage) {
                return registry;
            }
        }
        panic!("`docker-registry` did not come up");
    }

    fn try_start(configuration: &str, storage: Option<&Path>) -> Option<Registry> {
        let folder = TempDir::new("registry");
        let port = free_port();
        let root = storage.map_or_else(|| folder.path().join("storage"), Path::to_owned);
        let text = format!(
            "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  \
             filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\nhttp:\n  \
             addr: 127.0.0.1:{port}\n{configuration}",
            root.display()
        );
        let file = folder.write("config.yml", text);
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("starting `docker-registry`: {error} (install it: apt-get install docker-registry)")
            });
        let mut registry = Registry {
            process,
            port,
            _folder: folder,
        };
        registry.answers().then_some(registry)
    }

    /// Waits until the registry answers; false when it ended instead.
    fn answers(&mut self) -> bool {
        let until = Instant::now() + START;
        while Instant::now() < until {
            if let Ok(Some(_)) = self.process.try_wait() {
                return false;
            }
            if ureq::get(format!("{}/v2/", self.url())).call().is_ok() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }

    /// `http://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.host())
    }

    /// `127.0.0.1:PORT`.
    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // Errors mean that the process is gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port is free");
    listener
        .local_addr()
        .expect("a bound socket has an address")
        .port()
}
