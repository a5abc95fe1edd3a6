//! What a program may hang into the executors of its runtime: who hears of a panic, and from when
//! on a poll counts as slow.
//!
//! Shared by all shards of a runtime; touched only when something went wrong, but for the limit.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use super::task::{TaskInfo, panic_message};
use crate::limits;
use crate::metrics::{self, Counter};

/// Hears of every panic of a task, callback or message.
pub type PanicHook = dyn Fn(&TaskPanic<'_>) + Send + Sync;

/// A panic that a shard has survived.
#[derive(Clone, Copy)]
pub struct TaskPanic<'a> {
    task: Option<&'a TaskInfo>,
    payload: &'a (dyn Any + Send),
}

impl<'a> TaskPanic<'a> {
    /// The task that panicked; `None` for a message of another thread.
    pub fn task(&self) -> Option<&'a TaskInfo> {
        self.task
    }

    /// The text of the panic, as `panic!` makes it.
    pub fn message(&self) -> &'a str {
        panic_message(self.payload)
    }

    /// What it panicked with.
    pub fn payload(&self) -> &'a (dyn Any + Send) {
        self.payload
    }
}

impl std::fmt::Debug for TaskPanic<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TaskPanic")
            .field("task", &self.task)
            .field("message", &self.message())
            .finish_non_exhaustive()
    }
}

/// The hooks of one runtime.
pub(crate) struct Hooks {
    panic: RwLock<Option<Arc<PanicHook>>>,
    slow_poll_ns: AtomicU64,
}

impl Default for Hooks {
    fn default() -> Self {
        Self { panic: RwLock::default(), slow_poll_ns: AtomicU64::new(limits::SLOW_POLL_NS) }
    }
}

impl Hooks {
    /// Who hears of panics; `None` if they are only logged.
    pub(crate) fn panic_hook(&self) -> Option<Arc<PanicHook>> {
        self.panic.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets who hears of panics; gives back who did.
    pub(crate) fn set_panic_hook(&self, hook: Option<Arc<PanicHook>>) -> Option<Arc<PanicHook>> {
        let mut place = self.panic.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *place, hook)
    }

    /// From how many nanoseconds on a poll is reported.
    #[inline]
    pub(crate) fn slow_poll_ns(&self) -> u64 {
        self.slow_poll_ns.load(Ordering::Relaxed)
    }

    pub(crate) fn set_slow_poll(&self, limit: Duration) {
        let nanos = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        self.slow_poll_ns.store(nanos, Ordering::Relaxed);
    }

    /// A task, callback or message panicked. A hook that panics itself is contained.
    pub(crate) fn panicked(&self, task: Option<&TaskInfo>, payload: &(dyn Any + Send)) {
        metrics::add(Counter::TaskPanics, 1);
        let panic = TaskPanic { task, payload };
        match self.panic_hook() {
            None => log(&panic),
            Some(hook) => {
                if catch_unwind(AssertUnwindSafe(|| hook(&panic))).is_err() {
                    tracing::error!("the panic hook panicked itself; what it was told:");
                    log(&panic);
                }
            }
        }
    }
}

fn log(panic: &TaskPanic<'_>) {
    match panic.task {
        Some(task) => tracing::error!(
            task = task.name(),
            spawned_at = %task.location(),
            message = panic.message(),
            "a task panicked; its shard goes on"
        ),
        None => tracing::error!(
            message = panic.message(),
            "a message from another thread panicked; the shard goes on"
        ),
    }
}
