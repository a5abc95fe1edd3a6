//! A task that another thread started: its answer, its abort, and the handle to both.
//!
//! [`super::ShardHandle`] sends what starts it. Invariant: the task's future has been dropped, on
//! its own shard, before anybody learns how it ended.

use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::thread::{self, ThreadId};
use std::time::Duration;

use super::context;
use crate::clock::{self, Instant};
use crate::error::Error;
use crate::reply::{Duty, JobState, Panic, Receiver, WaitError};
use crate::task;

/// Where a task was asked for, for dumps.
pub(super) type Site = &'static Location<'static>;

/// Starts the task on this shard, unless it has been called back.
pub(super) fn start<F, Fut, T>(name: &'static str, site: Site, f: F, duty: Duty<T>)
where
    F: FnOnce() -> Fut + 'static,
    Fut: Future<Output = T> + 'static,
    T: 'static,
{
    if duty.begin() {
        let unanswered = Unanswered(Some(duty));
        task::Builder::new().name(name).spawn_from(site, serve(f, unanswered)).detach();
    }
}

/// How a future ended that was polled with care.
enum Ended<T> {
    Value(T),
    Panicked(Panic),
    Aborted,
}

async fn serve<F, Fut, T>(f: F, mut unanswered: Unanswered<T>)
where
    F: FnOnce() -> Fut,
    Fut: Future<Output = T>,
{
    let ended = match catch_unwind(AssertUnwindSafe(f)) {
        // The future lives in there, and is dropped before the answer is given.
        Ok(future) => poll_with_care(future, &unanswered).await,
        Err(panic) => Ended::Panicked(panic),
    };
    let Some(duty) = unanswered.0.take() else { unreachable!("answered once") };
    match ended {
        Ended::Value(value) => duty.finish(value),
        Ended::Aborted => duty.refuse(Error::cancelled("the task")),
        // Nobody waits for it: it is this shard's to report, as any task's panic.
        Ended::Panicked(panic) if duty.is_detached() => resume_unwind(panic),
        Ended::Panicked(panic) => {
            let executor = context::with(|shard| Rc::clone(&shard.executor));
            executor.hooks().panicked(executor.running().as_ref(), &*panic);
            duty.fail(panic);
        }
    }
}

async fn poll_with_care<T>(
    future: impl Future<Output = T>,
    unanswered: &Unanswered<T>,
) -> Ended<T> {
    let mut future = pin!(future);
    poll_fn(|context| {
        if unanswered.0.as_ref().is_some_and(|duty| duty.poll_abort(context.waker())) {
            return Poll::Ready(Ended::Aborted);
        }
        // A future that panicked is never polled again, so nobody sees its broken state.
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
            Ok(poll) => poll.map(Ended::Value),
            Err(panic) => Poll::Ready(Ended::Panicked(panic)),
        }
    })
    .await
}

/// A task that is dropped where it stands was aborted on its shard, or its shard ends.
struct Unanswered<T>(Option<Duty<T>>);

impl<T> Drop for Unanswered<T> {
    fn drop(&mut self) {
        let Some(duty) = self.0.take() else { return };
        let is_closed = context::try_with(|shard| shard.remote().is_closed()).unwrap_or(true);
        if !is_closed && !thread::panicking() {
            duty.refuse(Error::cancelled("the task"));
        }
    }
}

/// A task on a shard, as the thread that started it sees it ([`super::ShardHandle::spawn`]).
///
/// Awaiting it works in every task of every executor, [`RemoteHandle::wait`] on plain threads.
/// Cancel-safe: an await or a wait that is given up loses nothing, and the handle may be awaited
/// again. Dropping the handle leaves the task running; a panic of it is then its shard's to report.
///
/// # Errors
/// `is_panicked` if the task panicked, with what it panicked with in [`WaitError::into_panic`];
/// `is_cancelled` if it was aborted, from here or on its shard; `is_closed` if its shard shut down
/// first.
///
/// # Panics
/// If it is awaited or waited for again after it gave the outcome.
#[must_use = "a task runs without its handle, but then nobody sees how it ends; detach it"]
pub struct RemoteHandle<T> {
    receiver: Receiver<T>,
    /// The shard's thread.
    home: ThreadId,
}

impl<T> RemoteHandle<T> {
    pub(super) fn new(receiver: Receiver<T>, home: ThreadId) -> Self {
        Self { receiver, home }
    }

    /// Ends the task at its current await: its future is dropped on its shard. What has not begun
    /// does not begin. False if it had finished; a value that it is about to give may still come.
    #[allow(clippy::must_use_candidate)]
    pub fn abort(&self) -> bool {
        self.receiver.abort()
    }

    /// Whether the task has ended, in whatever way.
    pub fn is_finished(&self) -> bool {
        self.state() == JobState::Done
    }

    /// How far the task has come.
    pub fn state(&self) -> JobState {
        self.receiver.state()
    }

    /// Lets the task run without anyone who waits for it.
    pub fn detach(self) {
        drop(self);
    }

    /// Blocks the calling thread until the task ends.
    ///
    /// # Errors
    /// See [`RemoteHandle`]. `Error::is_already_running` on the thread of any shard, which must
    /// not stop (await the handle there), and on the thread of this task's shard, without which the
    /// task cannot end.
    pub fn wait(mut self) -> Result<T, WaitError> {
        self.wait_until(Instant::NEVER)
    }

    /// Blocks the calling thread until the task ends, at most for `limit`.
    ///
    /// # Errors
    /// `is_timed_out` if the time is over first: the task goes on, and may be waited for again.
    /// Otherwise as [`RemoteHandle::wait`].
    pub fn wait_timeout(&mut self, limit: Duration) -> Result<T, WaitError> {
        self.wait_until(clock::now() + limit)
    }

    fn wait_until(&mut self, deadline: Instant) -> Result<T, WaitError> {
        if self.home == thread::current().id() && !self.is_finished() {
            return Err(WaitError::new(Error::would_stop_shard()));
        }
        self.receiver.wait_until(deadline)
    }
}

impl<T> Future for RemoteHandle<T> {
    type Output = Result<T, WaitError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.receiver).poll(context)
    }
}

impl<T> fmt::Debug for RemoteHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteHandle").field("state", &self.state()).finish()
    }
}
