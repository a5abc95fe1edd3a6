//! One suite of the runtime's behaviour, run on every engine: what holds on the ring holds under
//! epoll and under threads.
//!
//! Each module has one subject; its functions take the engine, and `on_every_engine!` makes three
//! tests of each. Peers are plain `std` sockets, so that an error of one side is not repeated on
//! the other. No test asserts how long something takes: time limits are guards against hangs.

#[macro_use]
mod harness;

mod async_fd;
mod buffers;
mod callbacks;
mod cancellation;
mod combinators;
#[cfg(all(feature = "hyper", feature = "tokio-io"))]
mod compat;
mod completions;
mod connect;
mod connections;
mod cpu;
mod cross_thread;
mod crowds;
mod datagram;
mod direct;
mod direct_streams;
mod endings;
#[path = "../faults/mod.rs"]
mod faults;
mod files;
mod fs_faults;
mod fs_names;
mod fs_refusals;
mod fs_short_writes;
mod fs_whole;
mod fs_writes;
mod intervals;
mod io;
mod lifecycle;
#[cfg(feature = "daemon")]
mod log_writer;
mod loops;
mod outside;
mod paused_clock;
mod pieces;
mod pipes;
mod pools;
#[cfg(feature = "daemon")]
mod power_cuts;
mod processes;
mod scopes;
mod script;
mod seats;
mod shards;
mod sharing;
mod signals;
#[cfg(feature = "daemon")]
mod snapshots;
mod streams;
mod streams_async;
mod sync_locks;
mod sync_queues;
mod task_life;
mod task_locals;
mod task_sets;
mod tasks;
mod timers;
mod udp;
mod unix;
mod wakes;
