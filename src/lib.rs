//! annulus: a thread-per-core `io_uring` runtime for Linux.
//!
//! Each shard is one pinned thread with one ring, one executor and its own tasks, which need not be
//! `Send`. The same code runs on epoll and on plain threads ([`Engine`]). A server that echoes, and
//! a client that asks it once:
//!
//! ```
//! use annulus::{Runtime, net::{TcpListener, TcpStream}, task};
//!
//! async fn echo(stream: TcpStream) {
//!     while let Ok(Some(chunk)) = stream.recv().await {
//!         if stream.send(chunk).await.is_err() { break }
//!     }
//! }
//!
//! Runtime::new()?.block_on(async {
//!     let listener = TcpListener::bind(([127, 0, 0, 1], 0).into())?;
//!     let client = TcpStream::connect(listener.local_addr()?).await?;
//!     task::spawn(echo(listener.accept().await?)).detach();
//!     client.send(b"hello").await?;
//!     assert_eq!(client.recv().await?.as_deref(), Some(&b"hello"[..]));
//!     annulus::Result::Ok(())
//! })?;
//! # annulus::Result::Ok(())
//! ```
//!
//! | for | module |
//! |---|---|
//! | starting, running and ending a runtime | [`Runtime`], [`Builder`], [`Handle`] |
//! | tasks: spawn, join, abort, look at; sets, scopes, tokens | [`task`] |
//! | futures put together: all, first, each | [`future`] |
//! | values one after another; streams in code that is not async | [`stream`] |
//! | locks, queues, events; within a shard, and [`sync::shared`] across threads | [`sync`] |
//! | sleeps, limits, intervals, callbacks at an instant | [`time`], [`clock`] |
//! | TCP, UDP, Unix sockets | [`net`] |
//! | readers and writers of futures-io, lines, copies, readiness | [`io`] |
//! | files | [`fs`] |
//! | what computes, what blocks | [`cpu`], [`blocking`] |
//! | child processes, pools of them, pipes, shared memory | [`process`], [`ipc`] |
//! | signals | [`signal`] |
//! | other shards; which thread runs on which CPU | [`shard`] |
//! | counters and histograms; every limit by name | [`metrics`], [`limits`] |
//! | hyper, and the I/O traits of tokio | `compat`, by the features `hyper` and `tokio-io` |
//!
//! Dropping a future gives up what it was doing and leaves nothing behind; what that may lose is
//! said at each async function. What runs on without its handle is a task. What waits for the
//! kernel or for time is polled on the shard that it began on; elsewhere it panics with the reason.
//!
//! A stream belongs to its shard and cannot be taken to another:
//!
//! ```compile_fail
//! fn may_move<T: Send>() {}
//! may_move::<annulus::net::TcpStream>();
//! ```

#![cfg_attr(not(test), warn(clippy::unwrap_used))]

pub mod blocking;
pub mod buffer;
pub mod clock;
#[cfg(any(feature = "hyper", feature = "tokio-io"))]
pub mod compat;
pub mod cpu;
#[cfg(feature = "daemon")]
#[doc(hidden)]
pub mod daemon;
mod driver;
pub mod engine;
mod error;
mod executor;
pub mod fs;
pub mod future;
pub mod io;
pub mod ipc;
pub mod limits;
// The model checker looks at the log, and at nothing else of the daemon.
#[cfg(any(feature = "daemon", loom))]
pub mod log;
pub mod metrics;
pub mod net;
mod op;
pub mod process;
#[cfg(feature = "daemon")]
pub mod protocol;
mod reply;
mod runtime;
#[cfg(feature = "daemon")]
pub mod service;
pub mod shard;
pub mod signal;
#[cfg(feature = "daemon")]
pub mod store;
pub mod stream;
pub mod sync;
pub mod task;
pub mod time;

pub use crate::buffer::{Lease, Payload};
pub use crate::driver::{InFlight, Leaked};
pub use crate::engine::{Engine, EngineReport};
pub use crate::error::{Errno, Error, Result};
pub use crate::op::{Direction, SocketOptions};
pub use crate::reply::{JobState, WaitError};
pub use crate::runtime::{Builder, EnterGuard, Handle, Runtime, ShutdownReport};
