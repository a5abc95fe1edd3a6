//! Whether a state is what some of the commands of one pipeline have made.
//!
//! Commands that were sent together may run at the same time where their keys are on different
//! partitions, so that an end may come after a later one and before an earlier one. Invariant: for
//! each key they take effect in the order in which they were sent, and each is done whole.

use super::model::Model;
use super::operation::{Key, Operation};

/// A command of the pipeline: what it does, under which number, and whether it must have been done.
pub(crate) struct Command<'a> {
    pub(crate) sequence: u64,
    pub(crate) operation: &'a Operation,
    pub(crate) is_certain: bool,
}

/// How many of the commands have been done, if that explains the state.
pub(crate) fn explain(
    client: usize,
    model: Model,
    commands: &[Command<'_>],
    found: &Model,
) -> Option<usize> {
    step(client, model, commands, found, &mut Vec::new())
}

/// `left_out` has the keys of commands that were not done: nothing later is done to them.
fn step(
    client: usize,
    mut model: Model,
    commands: &[Command<'_>],
    found: &Model,
    left_out: &mut Vec<Key>,
) -> Option<usize> {
    let Some((command, rest)) = commands.split_first() else {
        return (model.mark() == found.mark()).then_some(0);
    };
    let keys = command.operation.keys();
    let is_open = !keys.iter().any(|key| left_out.contains(key));
    let may_be_left_out = !command.is_certain && keys.iter().all(|key| model.agrees(*key, found));
    if is_open {
        let mut with = model.clone();
        with.apply(client, command.sequence, command.operation);
        if !may_be_left_out || with.mark() == model.mark() {
            // There is no choice, or it makes no difference.
            model = with;
            return Some(1 + step(client, model, rest, found, left_out)?);
        }
        if let Some(done) = step(client, with, rest, found, left_out) {
            return Some(1 + done);
        }
    }
    if !may_be_left_out {
        return None;
    }
    let before = left_out.len();
    left_out.extend(keys);
    let done = step(client, model, rest, found, left_out);
    left_out.truncate(before);
    done
}
