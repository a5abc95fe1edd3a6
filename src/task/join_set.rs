//! A set of tasks that are joined in the order in which they end.
//!
//! Invariant: a task of the set is either in `running` or its result is in `finished`, never both.

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use futures_util::stream::{FuturesUnordered, Stream};

use super::{AbortHandle, Builder, JoinError, JoinHandle};

/// Tasks of one type of result, joined as they end. Dropping the set aborts its tasks;
/// [`JoinSet::detach_all`] lets them go on.
///
/// ```
/// use annulus::{Runtime, task};
///
/// Runtime::new()?.block_on(async {
///     let mut set = task::JoinSet::new();
///     for number in 1..=3 {
///         set.spawn(async move { number * 10 });
///     }
///     let mut sum = 0;
///     while let Some(ended) = set.join_next().await {
///         sum += ended.unwrap();
///     }
///     assert_eq!(sum, 60);
/// });
/// # annulus::Result::Ok(())
/// ```
#[must_use = "dropping a set aborts its tasks"]
pub struct JoinSet<T> {
    running: FuturesUnordered<JoinHandle<T>>,
    /// Seen to have ended, and not yet given out.
    finished: VecDeque<Result<T, JoinError>>,
}

impl<T> JoinSet<T> {
    /// An empty set.
    pub fn new() -> Self {
        Self { running: FuturesUnordered::new(), finished: VecDeque::new() }
    }

    /// Tasks whose result has not been taken, ended ones among them.
    pub fn len(&self) -> usize {
        self.running.len() + self.finished.len()
    }

    /// Whether every result has been taken.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes in a task that runs already: from now on it ends with the set.
    pub fn insert(&mut self, task: JoinHandle<T>) {
        self.running.push(task);
        // Looked at now, so that it says when it ends: otherwise those that end before the first
        // wait would come in the order in which they were added.
        let mut context = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(ended)) = Pin::new(&mut self.running).poll_next(&mut context) {
            self.finished.push_back(ended);
        }
    }

    /// Aborts every task that has not ended. Each still gives its result, a cancellation.
    pub fn abort_all(&self) {
        for task in &self.running {
            task.abort();
        }
    }

    /// Empties the set and lets its tasks run on by themselves.
    pub fn detach_all(&mut self) {
        self.finished.clear();
        self.running.clear();
    }

    /// Aborts every task and waits until all have ended. Their results are dropped; take them with
    /// [`JoinSet::abort_all`] and [`JoinSet::join_next`].
    ///
    /// Cancel-safe: dropped, the tasks are aborted all the same, and those that have not been
    /// waited for are still in the set.
    pub async fn shut_down(&mut self) {
        self.abort_all();
        while self.join_next().await.is_some() {}
    }

    /// The result of the task that ended first among those left, in the order of their ends; `None`
    /// if the set is empty.
    ///
    /// Cancel-safe: dropped, it has taken nothing.
    pub async fn join_next(&mut self) -> Option<Result<T, JoinError>> {
        poll_fn(|context| self.poll_join_next(context)).await
    }

    /// [`JoinSet::join_next`] by hand. Pending, the waker is woken when a task ends, but not when
    /// one is added. It may be pending, and wake at once, although a task has ended: a long series
    /// gives way to others.
    pub fn poll_join_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<T, JoinError>>> {
        if let Some(ended) = self.finished.pop_front() {
            return Poll::Ready(Some(ended));
        }
        Pin::new(&mut self.running).poll_next(context)
    }

    /// Moves the tasks that have ended to the results that are kept, and says whether one of them
    /// is what `is_enough` looks for, or none is left to wait for.
    pub(super) fn poll_collect(
        &mut self,
        context: &mut Context<'_>,
        is_enough: &mut impl FnMut(&Result<T, JoinError>) -> bool,
    ) -> Poll<()> {
        let mut enough = false;
        loop {
            match Pin::new(&mut self.running).poll_next(context) {
                Poll::Ready(Some(ended)) => {
                    enough |= is_enough(&ended);
                    self.finished.push_back(ended);
                }
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending if enough => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    pub(super) fn finished(&self) -> &VecDeque<Result<T, JoinError>> {
        &self.finished
    }

    pub(super) fn take_finished(&mut self) -> Vec<Result<T, JoinError>> {
        std::mem::take(&mut self.finished).into()
    }
}

impl<T: 'static> JoinSet<T> {
    /// Spawns a task into the set. The handle may be dropped.
    ///
    /// # Panics
    /// Outside a runtime.
    #[track_caller]
    pub fn spawn(&mut self, future: impl Future<Output = T> + 'static) -> AbortHandle {
        self.spawn_on(Builder::new(), future)
    }

    /// Spawns a task with a name or a class into the set.
    ///
    /// # Panics
    /// Outside a runtime.
    #[track_caller]
    pub fn spawn_on(
        &mut self,
        builder: Builder,
        future: impl Future<Output = T> + 'static,
    ) -> AbortHandle {
        let task = builder.spawn(future);
        let abort = task.abort_handle();
        self.insert(task);
        abort
    }
}

impl<T> Default for JoinSet<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Extend<JoinHandle<T>> for JoinSet<T> {
    fn extend<I: IntoIterator<Item = JoinHandle<T>>>(&mut self, tasks: I) {
        tasks.into_iter().for_each(|task| self.insert(task));
    }
}

impl<T> FromIterator<JoinHandle<T>> for JoinSet<T> {
    fn from_iter<I: IntoIterator<Item = JoinHandle<T>>>(tasks: I) -> Self {
        let mut set = Self::new();
        set.extend(tasks);
        set
    }
}

impl<T> Drop for JoinSet<T> {
    fn drop(&mut self) {
        self.abort_all();
    }
}

impl<T> fmt::Debug for JoinSet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinSet").field("len", &self.len()).finish()
    }
}
