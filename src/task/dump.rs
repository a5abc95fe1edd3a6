//! What the tasks of a shard are doing: for each its name, where it was spawned, its state, and
//! what it waits for.

use std::collections::HashMap;
use std::fmt;
use std::os::fd::RawFd;
use std::time::Duration;

use crate::executor::{LiveView, TaskInfo};
use crate::shard::{Shard, ShardId, context};

/// What a task is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TaskState {
    /// Ready, or waiting for something.
    Pending,
    /// In the middle of a poll.
    Running,
    /// Ended with a value.
    Finished,
    /// Ended by an abort or a shutdown.
    Cancelled,
    /// Ended by a panic.
    Panicked,
}

/// What a task waits for, where that can be told: the last that it left its waker with. A wait for
/// another task, a lock or a queue does not show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// An operation of the driver.
    Operation {
        /// The operation's name.
        name: &'static str,
        /// The descriptor that it works on.
        descriptor: RawFd,
        /// For how long it has been in flight.
        age: Duration,
    },
    /// A timer that is due in this time.
    Timer(Duration),
}

/// One task, as it was when the dump was made.
#[derive(Clone, Debug)]
pub struct TaskDump {
    /// Identity, name, spawn site, class.
    pub info: TaskInfo,
    /// The shard that it lives on.
    pub shard: ShardId,
    /// [`TaskState::Pending`] or [`TaskState::Running`].
    pub state: TaskState,
    /// How often it has been polled.
    pub polls: u32,
    /// Since its spawn.
    pub age: Duration,
    /// What it waits for. Several, where it waits for the first of them.
    pub waits_for: Vec<Waiting>,
}

/// The tasks of this shard that have not finished, oldest first. [`crate::Handle::dump_tasks`]
/// gives those of all shards.
///
/// # Panics
/// Outside a runtime.
pub fn dump() -> Vec<TaskDump> {
    context::with(|shard| {
        let mut waits = waits(shard);
        let tasks = shard.executor.tasks();
        tasks.into_iter().map(|task| describe(shard, task, &mut waits)).collect()
    })
}

/// What is waited for, by the task that a waker belongs to.
type Waits = HashMap<*const (), Vec<Waiting>>;

fn waits(shard: &Shard) -> Waits {
    let mut waits = Waits::new();
    let now = shard.now();
    for (waker, operation) in shard.driver.borrow().waiters(now) {
        waits.entry(waker.data()).or_default().push(Waiting::Operation {
            name: operation.operation,
            descriptor: operation.descriptor,
            age: Duration::from_nanos(operation.age_ns),
        });
    }
    for (waker, deadline) in shard.timers.borrow().waiters() {
        waits.entry(waker.data()).or_default().push(Waiting::Timer(deadline.since(now)));
    }
    waits
}

fn describe(shard: &Shard, task: LiveView, waits: &mut Waits) -> TaskDump {
    TaskDump {
        waits_for: waits.remove(&task.waker.data()).unwrap_or_default(),
        info: task.info,
        shard: shard.id(),
        state: if task.running { TaskState::Running } else { TaskState::Pending },
        polls: task.polls,
        age: shard.now().since(task.spawned),
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Waiting::Operation { name, descriptor, age } => {
                write!(f, "{name} fd={descriptor} for {age:.1?}")
            }
            Waiting::Timer(left) => write!(f, "timer due in {left:.1?}"),
        }
    }
}

impl fmt::Display for TaskDump {
    /// One line: `echo#12 (src/main.rs:7:5), pending, 3 polls, 1.2s old: receive fd=9 for 1.1s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.state == TaskState::Running { "running" } else { "pending" };
        write!(f, "{}, {state}, {} polls, {:.1?} old", self.info, self.polls, self.age)?;
        for (place, waiting) in self.waits_for.iter().enumerate() {
            write!(f, "{} {waiting}", if place == 0 { ":" } else { "," })?;
        }
        Ok(())
    }
}
