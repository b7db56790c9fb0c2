//! What stands before tiny_http: connections are let in, bounded, and made to make room.
//!
//! tiny_http reads head lines of any length, without a time-out, with a thread for each connection, and it
//! listens no more once an accept fails. So it listens on loopback, and only the connections here talk to it,
//! with whole requests.

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::connection;
use crate::error::{Error, Result};
use crate::watch::Inbox;

/// Connections at a time. Each takes up to four files, of which a process has 1,024 unless told otherwise.
pub(super) const CONNECTIONS: usize = 160;
/// Bytes of all bodies at a time that are larger than a small one.
pub(super) const LARGE_BYTES: usize = 8 << 20;
/// Stack of a connection's thread, which has little to remember.
const STACK: usize = 128 << 10;
/// How long to wait after an accept that failed, mostly because the process has no more files.
const PAUSE: Duration = Duration::from_millis(20);

/// The state of all connections.
pub(super) struct Guard {
    /// Where tiny_http listens.
    pub(super) inner: SocketAddr,
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

/// tiny_http on a loopback port of its own.
pub(super) struct Inner {
    pub(super) server: tiny_http::Server,
    pub(super) address: SocketAddr,
}

/// Starts tiny_http. Errors (`Stop`) when there is no loopback port.
pub(super) fn inner() -> Result<Inner> {
    let cannot =
        |err: &dyn std::fmt::Display| Error::stop(format_args!("cannot listen on loopback: {err}"));
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|err| cannot(&err))?;
    let address = socket.local_addr().map_err(|err| cannot(&err))?;
    // An answer goes out in several pieces. Accepted sockets inherit that each is sent at once; std has no
    // `set_nodelay` for a listener, but a listener and a stream are one kind of socket.
    let socket = TcpStream::from(std::os::fd::OwnedFd::from(socket));
    socket.set_nodelay(true).map_err(|err| cannot(&err))?;
    let socket = TcpListener::from(std::os::fd::OwnedFd::from(socket));
    let server = tiny_http::Server::from_listener(socket, None).map_err(|err| cannot(&err))?;
    Ok(Inner { server, address })
}

/// Accepts the connections of one port until the run ends.
pub(super) fn accept(
    guard: &Arc<Guard>,
    port_idx: usize,
    listener: &TcpListener,
    inbox: &Inbox<'_>,
) {
    loop {
        let accepted = listener.accept();
        if inbox.is_ending() {
            return guard.close_all();
        }
        match accepted {
            Ok((stream, address)) => {
                let id = guard.admit(stream);
                let peer = Peer { address, port_idx };
                let started = thread::Builder::new()
                    .name("connection".to_owned())
                    .stack_size(STACK)
                    .spawn({
                        let guard = Arc::clone(guard);
                        move || {
                            if let Some(stream) = guard.stream(id) {
                                connection::serve(&guard, id, peer, &stream);
                            }
                            guard.dismiss(id);
                        }
                    });
                if started.is_err() {
                    guard.dismiss(id);
                }
            }
            Err(err) => {
                inbox
                    .log()
                    .debug("connection not accepted", &[("error", &err)]);
                guard.make_room();
                thread::sleep(PAUSE);
            }
        }
    }
}

impl Guard {
    pub(super) fn new(inner: SocketAddr, ports: Vec<SocketAddr>) -> Self {
        Guard {
            inner,
            ports,
            connections: Mutex::default(),
            peers: Mutex::default(),
            large_bytes: AtomicUsize::new(0),
        }
    }

    /// Takes a connection in; when there are too many, another has to go.
    fn admit(&self, stream: TcpStream) -> u64 {
        let mut connections = lock(&self.connections);
        if connections.open.len() >= CONNECTIONS {
            shed(&mut connections);
        }
        let id = connections.next;
        connections.next += 1;
        let open = Open {
            stream: Arc::new(stream),
            since: Some(Instant::now()),
        };
        connections.open.insert(id, open);
        id
    }

    fn make_room(&self) {
        shed(&mut lock(&self.connections));
    }

    fn stream(&self, id: u64) -> Option<Arc<TcpStream>> {
        let connections = lock(&self.connections);
        connections
            .open
            .get(&id)
            .map(|open| Arc::clone(&open.stream))
    }

    fn dismiss(&self, id: u64) {
        if let Some(open) = lock(&self.connections).open.remove(&id) {
            // It may be shut down already.
            let _ = open.stream.shutdown(Shutdown::Both);
        }
    }

    fn close_all(&self) {
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

    pub(super) fn introduce(&self, local: SocketAddr, peer: Peer) {
        lock(&self.peers).insert(local, peer);
    }

    pub(super) fn forget(&self, local: SocketAddr) {
        lock(&self.peers).remove(&local);
    }

    /// Who sent what came from that address to tiny_http. `None` for somebody who did not come through here.
    pub(super) fn peer(&self, local: Option<&SocketAddr>) -> Option<Peer> {
        lock(&self.peers).get(local?).copied()
    }

    /// Wakes the threads that accept, so that they see the end.
    pub(super) fn wake(&self) {
        for address in &self.ports {
            let mut address = *address;
            if address.ip().is_unspecified() {
                address.set_ip(Ipv4Addr::LOCALHOST.into());
            }
            let _ = TcpStream::connect_timeout(&address, PAUSE);
        }
    }
}

/// Closes the connection that has waited longest without a request being answered.
fn shed(connections: &mut Connections) {
    let waiting = connections.open.iter();
    let oldest = waiting
        .filter_map(|(id, open)| Some((open.since?, *id)))
        .min();
    if let Some(open) = oldest.and_then(|(_, id)| connections.open.remove(&id)) {
        let _ = open.stream.shutdown(Shutdown::Both);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
