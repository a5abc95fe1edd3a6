//! Durability, shown from outside: the daemon is killed, its power is cut, its disk fails, and a
//! checker that knows what was acknowledged compares what is there afterwards.
//!
//! Every test speaks RESP to a process. Invariant under test: what was acknowledged is there, what
//! is there is a prefix of what was sent.
#![cfg(feature = "daemon")]

mod client;
mod cycle;
mod during_save;
mod explain;
mod failing_disk;
#[path = "../faults/mod.rs"]
mod faults;
mod full_disk;
mod full_memory;
mod image;
mod kill;
mod long;
mod model;
mod operation;
mod power;
mod random;
mod resp;
mod scratch;
mod server;

use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One after the other: each test keeps several processes and threads busy.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As [`turn`], if there is a `redis-server` to stand in.
fn turn_with_redis() -> Option<MutexGuard<'static, ()>> {
    if Command::new("redis-server").arg("--version").output().is_err() {
        println!("skipped: redis-server is not installed");
        return None;
    }
    Some(turn())
}
