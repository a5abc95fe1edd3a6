//! Waiting for some tasks of a set, without an end to the others. Invariant: what has ended is kept
//! in the set until the wait returns, so that a wait that is dropped loses nothing.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use super::{JoinError, JoinSet};
use crate::time;

/// What a [`wait`] waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WaitFor {
    /// Every task.
    #[default]
    All,
    /// One task, however it ends.
    First,
    /// One task that panicked or was cancelled, or else every task. What a task means by an error
    /// of its own is for [`wait_where`].
    FirstError,
}

/// Waits until tasks of the set have ended as asked, or the time is over. Gives the results of all
/// that have ended by then, in the order of their ends, and how many tasks are left. Those run on
/// and stay in the set: a wait cancels nobody. Of an empty set it returns at once.
///
/// Cancel-safe: dropped, the results are still in the set. The time counts from the first poll.
///
/// # Panics
/// With a timeout, if polled outside a runtime.
///
/// ```
/// use annulus::{Runtime, task::{self, WaitFor}};
/// use std::{future::pending, time::Duration};
///
/// Runtime::new()?.block_on(async {
///     let mut set = task::JoinSet::new();
///     set.spawn(async { 1 });
///     set.spawn(pending());
///     let limit = Duration::from_millis(5);
///     let (done, pending) = task::wait(&mut set, WaitFor::All, Some(limit)).await;
///     assert_eq!((done.len(), pending, set.len()), (1, 1, 1));
/// });
/// # annulus::Result::Ok(())
/// ```
pub async fn wait<T>(
    set: &mut JoinSet<T>,
    wait_for: WaitFor,
    timeout: Option<Duration>,
) -> (Vec<Result<T, JoinError>>, usize) {
    let is_enough = |ended: &Result<T, JoinError>| match wait_for {
        WaitFor::All => false,
        WaitFor::First => true,
        WaitFor::FirstError => ended.is_err(),
    };
    wait_where(set, is_enough, timeout).await
}

/// [`wait`] for the first task whose result is what `is_enough` looks for, or else for every task.
/// It is asked once about each result.
///
/// Cancel-safe, as [`wait`].
///
/// # Panics
/// As [`wait`].
pub async fn wait_where<T>(
    set: &mut JoinSet<T>,
    mut is_enough: impl FnMut(&Result<T, JoinError>) -> bool,
    timeout: Option<Duration>,
) -> (Vec<Result<T, JoinError>>, usize) {
    let mut sleep = pin!(timeout.map(time::sleep));
    // Seen before, by an insert or a wait that was dropped. All are asked, so that each is asked
    // once.
    let mut enough = set.finished().iter().filter(|ended| is_enough(ended)).count() > 0;
    poll_fn(|context| {
        if set.poll_collect(context, &mut is_enough).is_ready() || std::mem::take(&mut enough) {
            return Poll::Ready(());
        }
        match sleep.as_mut().as_pin_mut() {
            Some(sleep) => sleep.poll(context),
            None => Poll::Pending,
        }
    })
    .await;
    let done = set.take_finished();
    (done, set.len())
}
