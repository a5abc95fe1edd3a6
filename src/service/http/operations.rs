//! `/debug/operations`: what every shard has asked of its driver and not yet got.
//!
//! Called by the connection loop. Invariant: each shard looks at its own operations.

use std::fmt::Write as _;

use crate::{Handle, InFlight};

/// One line for each operation in flight, oldest first.
pub(super) async fn dump() -> crate::Result<String> {
    let mut text = String::from("shard operation descriptor age_us orphaned\n");
    for (shard, operation) in Handle::current().in_flight().await? {
        let InFlight { operation, descriptor, age_ns, orphaned } = operation;
        let age_us = age_ns / 1000;
        // Writing to a string does not fail.
        let _ = writeln!(text, "{} {operation} {descriptor} {age_us} {orphaned}", shard.0);
    }
    Ok(text)
}
