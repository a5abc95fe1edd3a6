//! Listeners and streams over TCP and Unix sockets, and sockets of datagrams.
//!
//! A stream receives into leases of the shard's pool and sends owned payloads. It belongs to the
//! shard that it was made on.

mod async_io;
mod connect;
mod connection;
mod datagram;
mod halves;
mod listener;
mod resolve;
mod sending;
mod stream;
mod udp;
mod unix_datagram;

pub use self::connect::ConnectOptions;
pub use self::datagram::{Datagram, Datagrams, Received};
pub use self::halves::{ReadHalf, ReuniteError, WriteHalf};
pub use self::listener::{TcpListener, UnixListener};
pub use self::resolve::resolve;
pub use self::sending::Sending;
pub use self::stream::{TcpStream, UnixStream};
pub use self::udp::UdpSocket;
pub use self::unix_datagram::UnixDatagram;
pub use crate::shard::connections::ConnectionHandle;

use std::future::Future;
use std::os::fd::OwnedFd;
use std::path::Path;

use socket2::{SockAddr, SockRef};

use crate::error::{Errno, Error, Result};
use crate::runtime;

/// Runs `serve` for one connection: as a task of this shard, or, under the `threads` engine, on a
/// thread of the connection's own. `name` shows in logs and in the process's list of threads.
///
/// # Errors
/// If the connection's thread cannot be started, or the stream has received already (`is_config`);
/// the connection is closed then.
///
/// # Panics
/// Outside a runtime.
#[track_caller]
pub fn serve_connection<F, Fut>(name: &'static str, stream: TcpStream, serve: F) -> Result<()>
where
    F: FnOnce(TcpStream) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let socket = stream.into_unbound()?;
    runtime::spawn_connection(name, move || serve(socket.bind()))
}

/// The address of a Unix socket; a path that begins with a zero byte is an abstract name (unix(7)).
fn unix_address(path: &Path) -> Result<SockAddr> {
    SockAddr::unix(path).map_err(|error| {
        Error::config(format!("{} cannot name a Unix socket: {error}", path.display()))
    })
}

/// Turns O_NONBLOCK off, as the drivers want their sockets: they wait by other means, and the ring
/// would hand EAGAIN through instead of waiting.
fn make_blocking(socket: &OwnedFd) -> Result<()> {
    let done = SockRef::from(socket).set_nonblocking(false);
    done.map_err(|error| Error::io("making a socket wait", Errno::from_io(&error)))
}
