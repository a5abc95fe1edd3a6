//! Tasks: spawn, join, abort, yield; what they carry, and how they are looked at.
//!
//! A future that is never awaited does nothing, and the compiler says so:
//!
//! ```compile_fail
//! #![deny(unused_must_use)]
//! async fn forgets_to_await() {
//!     annulus::time::sleep(std::time::Duration::from_millis(1));
//! }
//! # fn main() {}
//! ```

mod bracket;
mod defer;
mod dump;
mod gather;
mod handle;
mod hooks;
mod join_set;
pub mod local;
mod scope;
mod token;
mod wait;

use std::borrow::Cow;
use std::future::Future;
use std::panic::Location;

pub use self::bracket::bracket;
pub use self::defer::{CallbackHandle, defer};
pub use self::dump::{TaskDump, TaskState, Waiting, dump};
pub use self::gather::{Gather, TaskError, TryGather, gather, shield, try_gather};
pub use self::handle::{AbortHandle, JoinHandle};
pub use self::hooks::{LocalBoxFuture, SpawnHook, set_spawn_hook, spawn_hook};
pub use self::join_set::JoinSet;
pub use self::local::LocalKey;
pub use self::scope::{OnError, Scope, ScopeError, ScopedTask, scope, scope_with};
pub use self::token::{CancellationToken, Cancelled, DropGuard};
pub use self::wait::{WaitFor, wait, wait_where};
pub use crate::executor::yield_now::YieldNow;
pub use crate::executor::{CallbackId, Class, JoinError, PanicHook, TaskId, TaskInfo, TaskPanic};
use crate::shard::context;
pub use crate::task_local;

/// Spawns a task of class [`Class::Normal`] on this shard. It runs from the next cohort on, never
/// inline, whether or not its handle is kept.
///
/// # Panics
/// Outside a runtime.
#[track_caller]
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    Builder::new().spawn(future)
}

/// Gives way once: other ready tasks run, and I/O is looked at, before this one goes on.
pub fn yield_now() -> YieldNow {
    YieldNow::default()
}

/// Gives way if this task has had its slice or completions wait; otherwise costs a clock read. For
/// loops that may run long without awaiting anything that is not ready.
///
/// Cancel-safe.
///
/// # Panics
/// Outside a runtime.
pub async fn yield_if_needed() {
    if context::with(|shard| shard.should_yield()) {
        yield_now().await;
    }
}

/// The task that runs; `None` outside a runtime, and in the future that `block_on` drives, which is
/// no task.
pub fn current() -> Option<TaskInfo> {
    context::try_with(|shard| shard.executor.running()).flatten()
}

/// The tasks of this shard that have not finished, oldest first.
///
/// # Panics
/// Outside a runtime.
pub fn all() -> Vec<TaskInfo> {
    context::with(|shard| shard.executor.tasks()).into_iter().map(|task| task.info).collect()
}

/// How a task is spawned.
#[derive(Clone, Debug)]
pub struct Builder {
    name: Cow<'static, str>,
    class: Class,
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

impl Builder {
    /// No name, [`Class::Normal`].
    pub fn new() -> Self {
        // Borrowed, unlike a default `Cow`: a task without a name allocates nothing for it.
        Self { name: Cow::Borrowed(""), class: Class::default() }
    }

    /// The name that logs and dumps show. A literal costs nothing; a `String` is kept once.
    #[must_use]
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.name = name.into();
        self
    }

    /// The scheduling class.
    #[must_use]
    pub fn class(mut self, class: Class) -> Self {
        self.class = class;
        self
    }

    /// Spawns the task on this shard.
    ///
    /// # Panics
    /// Outside a runtime.
    #[track_caller]
    pub fn spawn<F>(self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        self.spawn_from(Location::caller(), future)
    }

    /// [`Builder::spawn`] on behalf of whoever asked for it there.
    pub(crate) fn spawn_from<F>(
        self,
        location: &'static Location<'static>,
        future: F,
    ) -> JoinHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        let info = TaskInfo::new(self.name, self.class, location);
        match context::with(|shard| shard.executor.spawn_hook()) {
            None => context::with(|shard| JoinHandle::spawn(shard, info, future)),
            Some(hook) => hooks::spawn(&hook, info, future),
        }
    }
}
