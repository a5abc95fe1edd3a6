//! `/debug/operations`: what every shard has asked of its driver and not yet got.
//!
//! Called by the connection loop. Invariant: each shard looks at its own operations.

use std::fmt::Write as _;

use crate::InFlight;
use crate::shard::{self, ShardId};

/// One line for each operation in flight, oldest first within a shard.
pub(super) async fn dump() -> String {
    let mut text = String::from("shard operation descriptor age_us orphaned\n");
    for index in 0..shard::count() {
        match shard::shard(ShardId(index as u16)).call(shard::operations).await {
            Ok(mut operations) => {
                operations.sort_by_key(|operation| std::cmp::Reverse(operation.age_ns));
                for operation in &operations {
                    write_line(&mut text, index, operation);
                }
            }
            Err(error) => {
                let _ = writeln!(text, "{index} {error}");
            }
        }
    }
    text
}

fn write_line(text: &mut String, shard: usize, operation: &InFlight) {
    let InFlight { operation, descriptor, age_ns, orphaned } = operation;
    let _ = writeln!(text, "{shard} {operation} {descriptor} {} {orphaned}", age_ns / 1000);
}
