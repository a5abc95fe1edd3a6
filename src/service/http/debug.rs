//! `/debug/operations` and `/debug/tasks`: what every shard has asked of its driver and not yet
//! got, and what its tasks are doing.
//!
//! Called by the connection loop. Invariant: each shard looks at its own.

use std::fmt::Write as _;

use crate::{Handle, InFlight};

/// One line for each operation in flight, oldest first.
pub(super) async fn operations() -> crate::Result<String> {
    let mut text = String::from("shard operation descriptor age_us orphaned\n");
    for (shard, operation) in Handle::current().in_flight().await? {
        let InFlight { operation, descriptor, age_ns, orphaned } = operation;
        let age_us = age_ns / 1000;
        // Writing to a string does not fail.
        let _ = writeln!(text, "{} {operation} {descriptor} {age_us} {orphaned}", shard.0);
    }
    Ok(text)
}

/// One line for each task that has not ended, by shard, oldest first.
pub(super) async fn tasks() -> crate::Result<String> {
    let mut text = String::from("shard task\n");
    for task in Handle::current().dump_tasks().await? {
        let _ = writeln!(text, "{} {task}", task.shard.0);
    }
    Ok(text)
}
