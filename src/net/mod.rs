//! Listeners and streams over TCP and Unix sockets.
//!
//! A stream receives into leases of the shard's pool and sends owned payloads. It belongs to the
//! shard that it was made on.

mod listener;
mod stream;

pub use self::listener::{TcpListener, UnixListener};
pub use self::stream::{TcpStream, UnixStream};
pub use crate::runtime::serve_connection;
pub use crate::shard::connections::ConnectionHandle;
