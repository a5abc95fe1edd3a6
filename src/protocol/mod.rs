//! Wire protocols, sans-I/O: bytes in, values out. Called by the services.
//!
//! Invariant: no module below blocks, reads a clock or touches a socket.

pub mod http1;
pub mod resp;
