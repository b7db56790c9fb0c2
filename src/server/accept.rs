//! The thread of a port: lets connections in, each with a thread of its own.

use std::net::TcpListener;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::connection;
use super::guard::{Guard, Peer};
use crate::watch::Inbox;

/// Stack of a connection's thread, which has little to remember.
const STACK: usize = 128 << 10;
/// How long to wait after an accept that failed, mostly because the process has no more files.
const PAUSE: Duration = Duration::from_millis(20);

/// Accepts the connections of one port until the run ends.
pub(super) fn run(guard: &Arc<Guard>, port_idx: usize, listener: &TcpListener, inbox: &Inbox<'_>) {
    loop {
        let accepted = listener.accept();
        if inbox.is_ending() {
            return guard.close_all();
        }
        match accepted {
            Ok((stream, address)) => {
                let Some(id) = guard.admit(stream) else {
                    continue;
                };
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
