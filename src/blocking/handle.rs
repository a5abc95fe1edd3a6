//! A job of a pool as the one who submitted it sees it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::pool::Core;
use crate::clock::{self, Instant};
use crate::error::Error;
use crate::reply::{self, JobState, Receiver, WaitError};

/// A job of a pool ([`super::Pool::submit`]).
///
/// Awaiting it works in every task of every executor, [`Handle::wait`] on plain threads.
/// Cancel-safe: an await or a wait that is given up loses nothing, and the handle may be awaited
/// again. Dropping the handle leaves the job to its pool.
///
/// # Errors
/// `is_panicked` if the job panicked, with what it panicked with in [`WaitError::into_panic`];
/// `is_cancelled` if it was aborted; `is_closed` if the pool shut down before it began; `is_limit`
/// if the pool's queue was full when it was submitted.
///
/// # Panics
/// If it is awaited or waited for again after it gave the outcome.
#[must_use = "a job runs without its handle, but then nobody sees how it ends; detach it"]
pub struct Handle<T> {
    receiver: Receiver<T>,
    /// Where it may wait for a thread.
    place: Option<(Arc<Core>, u64)>,
}

impl<T> Handle<T> {
    pub(super) fn new(receiver: Receiver<T>, place: Option<(Arc<Core>, u64)>) -> Self {
        Self { receiver, place }
    }

    /// A handle to a job that is not taken.
    pub(crate) fn refused(error: Error) -> Self {
        let (duty, receiver) = reply::channel("the pool");
        duty.refuse(error);
        Self::new(receiver, None)
    }

    /// Pending while it waits for a thread, running from the moment it has one.
    pub fn state(&self) -> JobState {
        self.receiver.state()
    }

    /// Whether the job has ended, in whatever way.
    pub fn is_finished(&self) -> bool {
        self.state() == JobState::Done
    }

    /// Calls the job back. False if a thread has it, which cannot be stopped, or if it has ended.
    pub fn abort(&self) -> bool {
        let Some((core, number)) = &self.place else { return false };
        let Some(work) = core.queue.revoke(*number) else { return false };
        work.refuse(Error::cancelled("the job"));
        true
    }

    /// Lets the job run without anyone who waits for it.
    pub fn detach(self) {
        drop(self);
    }

    /// Blocks the calling thread until the job ends.
    ///
    /// # Errors
    /// See [`Handle`]. `Error::is_already_running` on the thread of a shard, which must not stop:
    /// await the handle there.
    pub fn wait(mut self) -> Result<T, WaitError> {
        self.receiver.wait_until(Instant::NEVER)
    }

    /// Blocks the calling thread until the job ends, at most for `limit`.
    ///
    /// # Errors
    /// `is_timed_out` if the time is over first: the job goes on, and may be waited for again.
    /// Otherwise as [`Handle::wait`].
    pub fn wait_timeout(&mut self, limit: Duration) -> Result<T, WaitError> {
        self.receiver.wait_until(clock::now() + limit)
    }
}

impl<T> Future for Handle<T> {
    type Output = Result<T, WaitError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.receiver).poll(context)
    }
}

impl<T> fmt::Debug for Handle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("state", &self.state()).finish()
    }
}

/// A job that is called back when nobody awaits it any more.
#[must_use = "a future does nothing unless awaited"]
pub(super) struct CalledBack<T>(pub(super) Handle<T>);

impl<T> Future for CalledBack<T> {
    type Output = Result<T, WaitError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context)
    }
}

impl<T> Drop for CalledBack<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
