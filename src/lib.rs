//! annulus: a thread-per-core `io_uring` runtime for Linux.

#[cfg(feature = "daemon")]
#[doc(hidden)]
pub mod daemon;
pub mod engine;
pub mod metrics;
pub mod shard;
