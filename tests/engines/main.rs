//! One suite of the runtime's behaviour, run on every engine: what holds on the ring holds under
//! epoll and under threads.
//!
//! Each module has one subject; its functions take the engine, and `on_every_engine!` makes three
//! tests of each. Peers are plain `std` sockets, so that an error of one side is not repeated on
//! the other. No test asserts how long something takes: time limits are guards against hangs.

#[macro_use]
mod harness;

mod buffers;
mod cancellation;
mod connections;
mod cpu;
mod crowds;
mod files;
mod lifecycle;
mod shards;
mod streams;
mod sync_locks;
mod sync_queues;
mod tasks;
mod timers;
mod unix;
mod wakes;
