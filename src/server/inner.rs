//! tiny_http on a loopback port of its own, and the connections to it.
//!
//! Its pool of threads forgets a connection that comes while a thread that was woken for another has not begun
//! yet: nobody reads it until some other connection ends. So connections are opened one after the other, each
//! proven by an answer, and kept; a request borrows one for as long as its answer takes.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::socket;
use crate::error::{Error, Result};

/// Requests at a time, which is also how many can share one commit.
const CONNECTIONS: usize = 64;
/// Until an answer, or a free connection.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// tiny_http, and where it listens.
pub(super) struct Inner {
    pub(super) server: tiny_http::Server,
    pub(super) address: SocketAddr,
}

/// Starts tiny_http. Errors (`Stop`) when there is no loopback port.
pub(super) fn start() -> Result<Inner> {
    let cannot =
        |err: &dyn std::fmt::Display| Error::stop(format_args!("cannot listen on loopback: {err}"));
    let socket = socket::bind((Ipv4Addr::LOCALHOST, 0).into()).map_err(|err| cannot(&err))?;
    let address = socket.local_addr().map_err(|err| cannot(&err))?;
    let server = tiny_http::Server::from_listener(socket, None).map_err(|err| cannot(&err))?;
    Ok(Inner { server, address })
}

/// Connections to tiny_http.
pub(super) struct Pool {
    address: SocketAddr,
    state: Mutex<State>,
    /// Told when a connection was given back, or one less is open.
    change: Condvar,
}

#[derive(Default)]
struct State {
    idle: Vec<TcpStream>,
    n_open: usize,
    is_opening: bool,
}

/// A borrowed connection. Closed when it is dropped before it is given back.
pub(super) struct Borrowed<'a> {
    pool: &'a Pool,
    /// `None` once it was given back.
    stream: Option<TcpStream>,
    local: SocketAddr,
}

impl Pool {
    pub(super) fn new(address: SocketAddr) -> Self {
        Pool {
            address,
            state: Mutex::default(),
            change: Condvar::new(),
        }
    }

    /// Borrows a connection, waiting for one when all are in use.
    pub(super) fn take(&self) -> io::Result<Borrowed<'_>> {
        let end = Instant::now() + ANSWER_TIME;
        let mut state = self.lock();
        loop {
            if let Some(stream) = state.idle.pop() {
                drop(state);
                return self.borrowed(stream);
            }
            if state.n_open < CONNECTIONS && !state.is_opening {
                state.is_opening = true;
                state.n_open += 1;
                drop(state);
                let opened = open(self.address);
                let mut state = self.lock();
                state.is_opening = false;
                if opened.is_err() {
                    state.n_open -= 1;
                }
                drop(state);
                self.change.notify_all();
                return self.borrowed(opened?);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            state = self
                .change
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn borrowed(&self, stream: TcpStream) -> io::Result<Borrowed<'_>> {
        let local = stream.local_addr();
        let borrowed = Borrowed {
            pool: self,
            stream: Some(stream),
            local: *local.as_ref().unwrap_or(&self.address),
        };
        local.map(|_| borrowed)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens a connection and waits for its first answer.
fn open(address: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER_TIME))?;
    stream.set_write_timeout(Some(ANSWER_TIME))?;
    // Whoever is not introduced is answered 403, without a body to a HEAD.
    stream.write_all(b"HEAD / HTTP/1.1\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut chunk = [0; 1024];
    while !answer.ends_with(b"\r\n\r\n") {
        let n = stream.read(&mut chunk)?;
        if n == 0 || answer.len() > chunk.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        answer.extend_from_slice(&chunk[..n]);
    }
    Ok(stream)
}

impl Borrowed<'_> {
    pub(super) fn local(&self) -> SocketAddr {
        self.local
    }

    pub(super) fn stream(&mut self) -> impl Read + Write {
        Half(self.stream.as_ref())
    }

    /// Gives it back, its answer read to the end.
    pub(super) fn give_back(mut self) {
        if let Some(stream) = self.stream.take() {
            self.pool.lock().idle.push(stream);
            self.pool.change.notify_one();
        }
    }
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        if self.stream.take().is_some() {
            self.pool.lock().n_open -= 1;
            self.pool.change.notify_one();
        }
    }
}

/// A stream that may be gone.
struct Half<'a>(Option<&'a TcpStream>);

impl Read for Half<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.map_or(Ok(0), |mut stream| stream.read(buf))
    }
}

impl Write for Half<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.map_or(Ok(0), |mut stream| stream.write(buf))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
