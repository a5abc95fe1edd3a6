//! annulus: a thread-per-core `io_uring` runtime for Linux.

pub mod metrics;
#[cfg(feature = "daemon")]
pub mod protocol;
#[cfg(feature = "daemon")]
pub mod service;
