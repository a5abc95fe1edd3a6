//! One suite of the runtime's behaviour, run on every engine: what holds on the ring holds under
//! epoll and under threads.
//!
//! Each module has one subject; its functions take the engine, and `on_every_engine!` makes three
//! tests of each. Peers are plain `std` sockets, so that an error of one side is not repeated on
//! the other. No test asserts how long something takes: time limits are guards against hangs.

#[macro_use]
mod harness;

mod buffers;
mod callbacks;
mod cancellation;
mod combinators;
mod connections;
mod cpu;
mod cross_thread;
mod crowds;
mod datagram;
mod endings;
mod files;
mod intervals;
mod lifecycle;
mod loops;
mod outside;
mod paused_clock;
mod scopes;
mod script;
mod shards;
mod streams;
mod streams_async;
mod task_life;
mod task_sets;
mod tasks;
mod timers;
mod udp;
mod unix;
mod wakes;
