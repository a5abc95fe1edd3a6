//! Tasks for a list of futures, joined in input order; and a task that its caller's end leaves be.
//!
//! One rule holds for all that waits for tasks by their handles: dropping the wait lets the tasks
//! go on. What is to end with its owner is spawned into a [`super::JoinSet`] or a [`super::scope`].

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::{JoinError, JoinHandle, spawn};
use crate::future::{JoinAll, TryJoinAll, join_all, try_join_all};

/// The future of [`gather`].
pub type Gather<T> = JoinAll<JoinHandle<T>>;

/// The future of [`try_gather`].
#[derive(Debug)]
#[must_use = "a future does nothing unless awaited"]
pub struct TryGather<T, E>(TryJoinAll<Flat<T, E>>);

impl<T, E> Future for TryGather<T, E> {
    type Output = Result<Vec<T>, TaskError<E>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context)
    }
}

/// Spawns a task for each future, at once, and gives their results in input order. For tasks that
/// run already, [`join_all`] does the same over their handles.
///
/// Cancel-safe: dropping it leaves the tasks running, and their results are lost.
///
/// # Panics
/// Outside a runtime.
///
/// ```
/// use annulus::{Runtime, task};
///
/// Runtime::new()?.block_on(async {
///     let squares = [3, 1, 2].map(|number| async move { number * number });
///     let results: Result<Vec<u32>, _> = task::gather(squares).await.into_iter().collect();
///     assert_eq!(results.unwrap(), [9, 1, 4]);
/// });
/// # annulus::Result::Ok(())
/// ```
#[track_caller]
pub fn gather<I, F, T>(futures: I) -> Gather<T>
where
    I: IntoIterator<Item = F>,
    F: Future<Output = T> + 'static,
    T: 'static,
{
    let mut tasks = Vec::new();
    // A loop, not `map`: the caller's place is where the tasks were spawned.
    for future in futures {
        tasks.push(spawn(future));
    }
    join_all(tasks)
}

/// Spawns a task for each future, at once, and gives their values in input order, or the first
/// failure as soon as it comes. The other tasks run on then.
///
/// Cancel-safe: dropping it leaves the tasks running.
///
/// # Errors
/// The first error, panic or cancellation.
///
/// # Panics
/// Outside a runtime.
#[track_caller]
pub fn try_gather<I, F, T, E>(futures: I) -> TryGather<T, E>
where
    I: IntoIterator<Item = F>,
    F: Future<Output = Result<T, E>> + 'static,
    T: 'static,
    E: 'static,
{
    let mut tasks = Vec::new();
    for future in futures {
        tasks.push(Flat(spawn(future)));
    }
    TryGather(try_join_all(tasks))
}

/// Runs a future as a task, so that dropping or aborting whoever awaits the handle leaves it
/// running. To end it all the same, [`JoinHandle::abort`].
///
/// # Panics
/// Outside a runtime.
#[track_caller]
pub fn shield<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    spawn(future)
}

/// A task's handle whose two kinds of failure are one.
struct Flat<T, E>(JoinHandle<Result<T, E>>);

impl<T, E> Future for Flat<T, E> {
    type Output = Result<T, TaskError<E>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(flatten)
    }
}

/// What a fallible task ended with, in one result.
pub(super) fn flatten<T, E>(joined: Result<Result<T, E>, JoinError>) -> Result<T, TaskError<E>> {
    match joined {
        Ok(result) => result.map_err(TaskError::Failed),
        Err(error) => Err(TaskError::Join(error)),
    }
}

/// Why a fallible task gave no value.
#[derive(Debug)]
pub enum TaskError<E> {
    /// It returned this error.
    Failed(E),
    /// It panicked or was cancelled.
    Join(JoinError),
}

impl<E> TaskError<E> {
    /// The error that it returned, if it did.
    pub fn failed(&self) -> Option<&E> {
        match self {
            Self::Failed(error) => Some(error),
            Self::Join(_) => None,
        }
    }

    /// Whether it panicked.
    pub fn is_panic(&self) -> bool {
        matches!(self, Self::Join(error) if error.is_panic())
    }

    /// Whether it was cancelled.
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Self::Join(error) if error.is_cancelled())
    }
}

impl<E: fmt::Display> fmt::Display for TaskError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => error.fmt(f),
            Self::Join(error) => error.fmt(f),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for TaskError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Failed(error) => error.source(),
            Self::Join(error) => Some(error),
        }
    }
}
