//! Listening sockets: accepts connections on 127.0.0.1 (or a given address), one thread each, and
//! hands every request to one function.
//!
//! This is not `tiny_http`: that crate keeps the socket to itself, so it can neither cut a
//! connection in the middle of a body nor send a body shorter than announced, and both are
//! behaviours our client must survive. *Invariant:* a listener that was dropped answers nothing
//! any more; its open connections are shut down.

use std::collections::HashMap;
use std::io::{self, BufReader, Read};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::message::{
    BodyReader, Door, Request, Response, read_head, split_target, write_response,
};

/// Longest unread request body that is read away to keep the connection, in bytes.
const DRAIN_BYTES: u64 = 8 * 1024 * 1024;

/// Answers a request.
pub(crate) type Handler = dyn Fn(&mut Request) -> Response + Send + Sync;

/// A listening socket; stops when dropped.
pub(crate) struct Listener {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    door: Door,
    handler: Arc<Handler>,
    stopped: AtomicBool,
    next_id: AtomicU64,
    open: Mutex<HashMap<u64, TcpStream>>,
}

impl Listener {
    /// Listens on `address` (port 0: any free one); an error when it cannot be bound.
    pub(crate) fn start(address: &str, door: Door, handler: Arc<Handler>) -> io::Result<Listener> {
        let socket = TcpListener::bind(address)?;
        let address = socket.local_addr()?;
        let shared = Arc::new(Shared {
            door,
            handler,
            stopped: AtomicBool::new(false),
            next_id: AtomicU64::new(0),
            open: Mutex::default(),
        });
        let accepting = std::thread::spawn({
            let shared = shared.clone();
            move || accept(&socket, &shared)
        });
        Ok(Listener {
            address,
            shared,
            accepting: Some(accepting),
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // The accepting thread wakes up for this connection and sees the flag.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.accepting.take() {
            let _ = thread.join();
        }
        for stream in lock(&self.shared.open).values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Locks even if another test thread panicked while holding the lock.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn accept(socket: &TcpListener, shared: &Arc<Shared>) {
    for stream in socket.incoming() {
        if shared.stopped.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let id = shared.next_id.fetch_add(1, Ordering::Relaxed);
        if let Ok(clone) = stream.try_clone() {
            lock(&shared.open).insert(id, clone);
        }
        let shared = shared.clone();
        std::thread::spawn(move || {
            // An error here is a client that went away or sent garbage: the connection ends.
            let _ = converse(&stream, &shared);
            let _ = stream.shutdown(Shutdown::Both);
            lock(&shared.open).remove(&id);
        });
    }
}

/// Serves the requests of one connection until either side closes it.
fn converse(stream: &TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut continue_writer = stream.try_clone()?;
    let mut writer = stream.try_clone()?;
    while let Some(head) = read_head(&mut reader)? {
        let closing = head.headers.iter().any(|(name, value)| {
            name.eq_ignore_ascii_case("connection") && value.eq_ignore_ascii_case("close")
        });
        let mut body = BodyReader::new(&head, &mut reader, &mut continue_writer);
        let (path, query) = split_target(&head.target);
        let mut request = Request {
            door: shared.door.clone(),
            method: head.method,
            target: head.target,
            path,
            query,
            headers: head.headers,
            body: &mut body,
        };
        let response = (shared.handler)(&mut request);
        let is_head = request.is_head();
        let drained = io::copy(&mut (&mut body).take(DRAIN_BYTES), &mut io::sink())?;
        let reusable = write_response(&mut writer, response, is_head)?;
        if closing || !reusable || drained == DRAIN_BYTES {
            return Ok(());
        }
    }
    Ok(())
}
