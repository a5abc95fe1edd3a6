//! Tasks: spawn, join, abort, yield.

mod bracket;
mod gather;
mod join_set;
mod scope;
mod token;
mod wait;

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};

use async_task::FallibleTask;

pub use self::bracket::bracket;
pub use self::gather::{Gather, TaskError, TryGather, gather, shield, try_gather};
pub use self::join_set::JoinSet;
pub use self::scope::{OnError, Scope, ScopeError, ScopedTask, scope, scope_with};
pub use self::token::{CancellationToken, Cancelled, DropGuard};
pub use self::wait::{WaitFor, wait, wait_where};
pub use crate::executor::yield_now::YieldNow;
pub use crate::executor::{Class, TaskInfo};
use crate::executor::{Ended, Executor, TaskKey};
use crate::shard::context;

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
/// # Panics
/// Outside a runtime.
pub async fn yield_if_needed() {
    if context::with(|shard| shard.should_yield()) {
        yield_now().await;
    }
}

/// How a task is spawned.
#[derive(Clone, Copy, Debug, Default)]
pub struct Builder {
    name: &'static str,
    class: Class,
}

impl Builder {
    /// No name, [`Class::Normal`].
    pub fn new() -> Self {
        Self::default()
    }

    /// The name that logs and dumps show.
    #[must_use]
    pub fn name(mut self, name: &'static str) -> Self {
        self.name = name;
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
        let info = TaskInfo::new(self.name, self.class, Location::caller());
        context::with(|shard| {
            let (task, key) = shard.executor.spawn(info, future);
            JoinHandle { task: Some(task.fallible()), key, home: Rc::downgrade(&shard.executor) }
        })
    }
}

/// Waits for a task. Dropping it leaves the task running.
#[must_use = "a task runs without its handle, but then nobody sees how it ends; drop it explicitly"]
pub struct JoinHandle<T> {
    /// `None` only while being dropped.
    task: Option<FallibleTask<Result<T, Ended>, TaskInfo>>,
    key: TaskKey,
    /// Not `Send`: an abort is for the executor that the task lives on.
    home: Weak<Executor>,
}

impl<T> JoinHandle<T> {
    /// Ends the task at its current await: its future is dropped on the next turn. False if it had
    /// finished.
    pub fn abort(&self) -> bool {
        self.home.upgrade().is_some_and(|executor| executor.abort(self.key))
    }

    /// Lets the task run without anyone who waits for it.
    pub fn detach(self) {
        drop(self);
    }

    /// Whether the task has ended, in whatever way.
    pub fn is_finished(&self) -> bool {
        self.task.as_ref().is_none_or(FallibleTask::is_finished)
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let task = self.task.as_mut().expect("the task is there until the handle is dropped");
        Pin::new(task).poll(context).map(|ended| match ended {
            Some(Ok(value)) => Ok(value),
            Some(Err(Ended::Panicked(panic))) => Err(JoinError { panic: Some(panic) }),
            Some(Err(Ended::Aborted)) | None => Err(JoinError { panic: None }),
        })
    }
}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.detach();
        }
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle").field("finished", &self.is_finished()).finish()
    }
}

/// Why a task gave no value: it was cancelled, or it panicked.
pub struct JoinError {
    panic: Option<Box<dyn Any + Send>>,
}

impl JoinError {
    /// Aborted, or dropped by a shutdown.
    pub fn is_cancelled(&self) -> bool {
        self.panic.is_none()
    }

    /// Ended by a panic.
    pub fn is_panic(&self) -> bool {
        self.panic.is_some()
    }

    /// What the task panicked with, for [`std::panic::resume_unwind`].
    pub fn into_panic(self) -> Option<Box<dyn Any + Send>> {
        self.panic
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(panic) = &self.panic else { return f.write_str("the task was cancelled") };
        let message = panic
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("a value that is no text");
        write!(f, "the task panicked: {message}")
    }
}

impl fmt::Debug for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinError({self})")
    }
}

impl std::error::Error for JoinError {}
