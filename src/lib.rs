//! annulus: a thread-per-core `io_uring` runtime for Linux.

pub mod protocol;
