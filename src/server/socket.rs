//! Listening sockets.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Socket, Type};

/// Connections that wait to be accepted. When there are more, the system drops them, and a good sender among them
/// tries again after a second.
const BACKLOG: i32 = 4_096;

/// Binds an address. Errors as the system says.
pub(super) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // A restart shall not wait for connections of the last run to be forgotten.
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit it. An answer goes out in several pieces, each of which would wait for the
    // acknowledgement of the one before.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
