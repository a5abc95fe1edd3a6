//! annulus: a thread-per-core `io_uring` runtime for Linux.

pub mod metrics;
pub mod shard;
