//! annulus: a thread-per-core `io_uring` runtime for Linux.

pub mod protocol;
#[cfg(feature = "daemon")]
pub mod service;
#[cfg(feature = "daemon")]
pub mod store;
