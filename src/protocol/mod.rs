//! Protocols without I/O: bytes in, values or bytes out.
//!
//! Called by `service`. Invariant: no clock, no async, no unsafe in here.

pub mod http1;
