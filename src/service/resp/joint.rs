//! A command made of a part for each of several partitions, which take effect together: nobody
//! comes to one of them before all parts are done, and who reads the log after a crash finds all or
//! none. (Who reads several partitions looks at each for itself: at one before, perhaps, and at
//! another after.) Made by a session, run by the connection loop with the partitions' gates closed.
//!
//! Invariant: the parts need nothing of each other, and what they answer are counts.

use crate::protocol::resp::{Encoder, Protocol};
use crate::store::PartitionId;

use super::command::{Command, Merge};
use super::outbox::Batch;

/// The command, in parts.
#[derive(Debug)]
pub struct Joint {
    item: (&'static Command, usize, Protocol),
    merge: Merge,
    /// By partition, in ascending order.
    parts: Vec<(PartitionId, Box<Batch>)>,
}

impl Joint {
    /// A command that is run in a database, answered in a protocol, and has no parts yet.
    pub fn new(item: (&'static Command, usize, Protocol), merge: Merge) -> Self {
        Self { item, merge, parts: Vec::new() }
    }

    /// Adds the part of partition `id`, which is higher than those before: the command's name and
    /// the arguments that are meant for it.
    pub fn push<'a>(&mut self, id: PartitionId, words: impl Iterator<Item = &'a [u8]> + Clone) {
        let last = self.parts.last().map(|(last, _)| *last);
        assert!(last.is_none_or(|last| last < id), "gates are closed in order");
        let mut batch = Box::<Batch>::default();
        batch.push(self.item, words);
        self.parts.push((id, batch));
    }

    /// The parts, to be carried to their partitions and run there.
    pub fn take_parts(&mut self) -> Vec<(PartitionId, Box<Batch>)> {
        std::mem::take(&mut self.parts)
    }

    /// Appends the reply, given the sum of what the parts have counted.
    pub fn reply(&self, count: i64, out: &mut Vec<u8>) {
        let (_, _, protocol) = self.item;
        reply(self.merge, count, &mut Encoder::new(out, protocol));
    }
}

/// Appends the reply of a command whose parts have counted `count`.
pub(super) fn reply(merge: Merge, count: i64, reply: &mut Encoder<'_>) {
    match merge {
        Merge::Sum => reply.integer(count),
        Merge::Ok => reply.ok(),
        _ => unreachable!("the parts of a joint command answer no values"),
    }
}

#[cfg(test)]
#[path = "joint_tests.rs"]
mod tests;
