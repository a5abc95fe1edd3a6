//! annulus: a thread-per-core `io_uring` runtime for Linux.

#![cfg_attr(not(test), warn(clippy::unwrap_used))]

pub mod buffer;
pub mod clock;
pub mod cpu;
#[cfg(feature = "daemon")]
#[doc(hidden)]
pub mod daemon;
mod driver;
pub mod engine;
mod error;
mod executor;
pub mod fs;
pub mod limits;
pub mod metrics;
pub mod net;
mod op;
#[cfg(feature = "daemon")]
pub mod protocol;
mod runtime;
#[cfg(feature = "daemon")]
pub mod service;
pub mod shard;
#[cfg(feature = "daemon")]
pub mod store;
mod sync;
pub mod task;
pub mod time;

pub use crate::buffer::{Lease, Payload};
pub use crate::driver::{InFlight, Leaked};
pub use crate::engine::{Engine, EngineReport};
pub use crate::error::{Errno, Error, Result};
pub use crate::op::{Direction, SocketOptions};
pub use crate::runtime::{Builder, Handle, Runtime, ShutdownReport};
