//! Listeners and streams over TCP and Unix sockets.
//!
//! A stream receives into leases of the shard's pool and sends owned payloads. It belongs to the
//! shard that it was made on.

mod listener;
mod stream;

pub use self::listener::{TcpListener, UnixListener};
pub use self::stream::{TcpStream, UnixStream};
pub use crate::shard::connections::ConnectionHandle;

use std::future::Future;

use crate::error::Result;
use crate::runtime;

/// Runs `serve` for one connection: as a task of this shard, or, under the `threads` engine, on a
/// thread of the connection's own. `name` shows in logs and in the process's list of threads.
///
/// # Errors
/// If the connection's thread cannot be started; the connection is closed then.
///
/// # Panics
/// Outside a runtime.
#[track_caller]
pub fn serve_connection<F, Fut>(name: &'static str, stream: TcpStream, serve: F) -> Result<()>
where
    F: FnOnce(TcpStream) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let socket = stream.into_unbound();
    runtime::spawn_connection(name, move || serve(socket.bind()))
}
