//! What stands before tiny_http: connections are let in, bounded, and made to make room.
//!
//! tiny_http reads head lines of any length, without a time-out, with a thread for each connection, and it
//! listens no more once an accept fails. So it listens on loopback, and only [`super::inner`] talks to it, with
//! whole requests.

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::inner::Pool;

/// Connections at a time. Each takes a file, of which a process has 1,024 unless told otherwise.
pub(super) const CONNECTIONS: usize = 256;
/// Bytes of all bodies at a time that are larger than a small one.
pub(super) const LARGE_BYTES: usize = 8 << 20;
/// How long to try to wake a thread that accepts.
const WAKE: Duration = Duration::from_millis(100);

/// The state of all connections.
pub(super) struct Guard {
    /// The connections to tiny_http.
    pub(super) pool: Pool,
    /// The bound ports, to be woken at the end.
    ports: Vec<SocketAddr>,
    connections: Mutex<Connections>,
    /// Who stands behind a connection to tiny_http, by its local address.
    peers: Mutex<HashMap<SocketAddr, Peer>>,
    large_bytes: AtomicUsize,
}

/// The other end of a connection, and the index of the port that it came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    pub(super) port_idx: usize,
}

#[derive(Default)]
struct Connections {
    next: u64,
    open: BTreeMap<u64, Open>,
}

struct Open {
    stream: Arc<TcpStream>,
    /// Since when it has not finished a request; `None` while one is answered.
    since: Option<Instant>,
}

impl Guard {
    pub(super) fn new(inner: SocketAddr, ports: Vec<SocketAddr>) -> Self {
        Guard {
            pool: Pool::new(inner),
            ports,
            connections: Mutex::default(),
            peers: Mutex::default(),
            large_bytes: AtomicUsize::new(0),
        }
    }

    /// Takes a connection in; when there are too many, another has to go. `None` when a request of each of them is
    /// being answered.
    pub(super) fn admit(&self, stream: TcpStream) -> Option<u64> {
        let mut connections = lock(&self.connections);
        if connections.open.len() >= CONNECTIONS && !shed(&mut connections) {
            return None;
        }
        let id = connections.next;
        connections.next += 1;
        let open = Open {
            stream: Arc::new(stream),
            since: Some(Instant::now()),
        };
        connections.open.insert(id, open);
        Some(id)
    }

    pub(super) fn make_room(&self) {
        shed(&mut lock(&self.connections));
    }

    pub(super) fn stream(&self, id: u64) -> Option<Arc<TcpStream>> {
        let connections = lock(&self.connections);
        connections
            .open
            .get(&id)
            .map(|open| Arc::clone(&open.stream))
    }

    pub(super) fn dismiss(&self, id: u64) {
        if let Some(open) = lock(&self.connections).open.remove(&id) {
            // It may be shut down already.
            let _ = open.stream.shutdown(Shutdown::Both);
        }
    }

    pub(super) fn close_all(&self) {
        for open in lock(&self.connections).open.values() {
            let _ = open.stream.shutdown(Shutdown::Read);
        }
    }

    /// Notes whether a request of the connection is being answered, so that it is not the one to go.
    pub(super) fn set_busy(&self, id: u64, is_busy: bool) {
        if let Some(open) = lock(&self.connections).open.get_mut(&id) {
            open.since = (!is_busy).then(Instant::now);
        }
    }

    /// Reserves room for a large body. `false` when there is none.
    pub(super) fn reserve(&self, bytes: usize) -> bool {
        let before = self.large_bytes.fetch_add(bytes, Ordering::SeqCst);
        let is_room = before.saturating_add(bytes) <= LARGE_BYTES;
        if !is_room {
            self.give_back(bytes);
        }
        is_room
    }

    pub(super) fn give_back(&self, bytes: usize) {
        self.large_bytes.fetch_sub(bytes, Ordering::SeqCst);
    }

    /// Notes whose request goes to tiny_http from that address.
    pub(super) fn introduce(&self, local: SocketAddr, peer: Peer) {
        lock(&self.peers).insert(local, peer);
    }

    /// Whose request came from that address to tiny_http. `None` for somebody who did not come through here.
    pub(super) fn peer(&self, local: Option<&SocketAddr>) -> Option<Peer> {
        lock(&self.peers).get(local?).copied()
    }

    /// Wakes the threads that accept, so that they see the end.
    pub(super) fn wake(&self) {
        for address in &self.ports {
            let mut address = *address;
            if address.ip().is_unspecified() {
                address.set_ip(match address {
                    SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                    SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
                });
            }
            let _ = TcpStream::connect_timeout(&address, WAKE);
        }
    }
}

/// Closes the connection that has waited longest without a request being answered. Returns whether there was one.
fn shed(connections: &mut Connections) -> bool {
    let waiting = connections.open.iter();
    let oldest = waiting
        .filter_map(|(id, open)| Some((open.since?, *id)))
        .min();
    let Some(open) = oldest.and_then(|(_, id)| connections.open.remove(&id)) else {
        return false;
    };
    let _ = open.stream.shutdown(Shutdown::Both);
    true
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
