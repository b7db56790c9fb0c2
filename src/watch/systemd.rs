//! Telling systemd how we are, by the plain datagrams of sd_notify(3).

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

/// The way to the service manager; without one, nothing is told.
pub(super) struct Manager {
    socket: Option<UnixDatagram>,
    /// How often to say that all is well; half of what the manager waits for.
    watchdog: Option<Duration>,
    told: Instant,
}

impl Manager {
    /// As `NOTIFY_SOCKET` and `WATCHDOG_USEC` say.
    pub(super) fn of_environment() -> Self {
        let variable = |name: &str| std::env::var(name).ok();
        let is_ours =
            variable("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string());
        let watchdog = variable("WATCHDOG_USEC")
            .and_then(|text| text.parse().ok())
            .filter(|_| is_ours)
            .map(|usec: u64| Duration::from_micros(usec) / 2);
        Manager {
            socket: variable("NOTIFY_SOCKET").and_then(|name| connect(&name)),
            watchdog,
            told: Instant::now(),
        }
    }

    pub(super) fn ready(&self) {
        self.tell("READY=1\nSTATUS=watching");
    }

    pub(super) fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// Says that the thread that feeds all others goes round; does so only now and then.
    pub(super) fn is_well(&mut self) {
        if self
            .watchdog
            .is_some_and(|every| self.told.elapsed() >= every)
        {
            self.told = Instant::now();
            self.tell("WATCHDOG=1");
        }
    }

    fn tell(&self, text: &str) {
        if let Some(socket) = &self.socket {
            // A manager that does not listen is nobody's error.
            let _ = socket.send(text.as_bytes());
        }
    }
}

/// Connects to a path, or, behind `@`, to a name in the abstract namespace.
fn connect(name: &str) -> Option<UnixDatagram> {
    let socket = UnixDatagram::unbound().ok()?;
    match name.strip_prefix('@') {
        Some(name) => {
            use std::os::linux::net::SocketAddrExt;
            let address = std::os::unix::net::SocketAddr::from_abstract_name(name).ok()?;
            socket.connect_addr(&address).ok()?;
        }
        None => socket.connect(name).ok()?,
    }
    Some(socket)
}
