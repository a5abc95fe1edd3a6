//! annulus: a thread-per-core `io_uring` runtime for Linux.

#[cfg(feature = "daemon")]
pub mod protocol;
