//! Waiting, with a [`Mutex`] in hand, for what somebody else does under the same lock.
//!
//! Invariant: a waiter is in line before its lock is released, so what happens under the lock after
//! that cannot be missed; and a turn given to one waiter is passed on unless it returns to its
//! caller with the lock.

use std::fmt;
use std::future::poll_fn;
use std::task::Poll;

use super::mutex::{Mutex, MutexGuard};
use super::wait_list::{By, Left, Turn, WaitList};

/// A condition variable for the tasks of one shard, without atomics.
///
/// ```
/// use std::rc::Rc;
/// use annulus::{Runtime, sync::{Condvar, Mutex}, task};
///
/// Runtime::new()?.block_on(async {
///     let shared = Rc::new((Mutex::new(0), Condvar::new()));
///     let waiter = task::spawn({
///         let shared = Rc::clone(&shared);
///         async move {
///             let (count, changed) = &*shared;
///             let guard = changed.wait_while(count.lock().await, |count| *count < 3).await;
///             *guard
///         }
///     });
///     let (count, changed) = &*shared;
///     for _ in 0..3 {
///         *count.lock().await += 1;
///         changed.notify_one();
///         task::yield_now().await;
///     }
///     assert_eq!(waiter.await.unwrap(), 3);
/// });
/// # annulus::Result::Ok(())
/// ```
#[derive(Default)]
pub struct Condvar {
    waiters: WaitList,
}

impl Condvar {
    /// A condition that nobody waits for.
    pub const fn new() -> Self {
        Self { waiters: WaitList::new() }
    }

    /// Releases the lock, waits to be notified, and takes the lock again, in its mutex's line.
    /// There are no wakes without a notification, but what it told may have changed until the lock
    /// is there: look again, or use [`Condvar::wait_while`].
    ///
    /// Cancel safe: a dropped wait no longer holds the lock, and a notification that was meant for
    /// it alone goes to the next. So after a [`crate::time::timeout`] that expired, take the lock
    /// anew.
    pub async fn wait<'a, T: ?Sized>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        let mutex: &'a Mutex<T> = MutexGuard::mutex(&guard);
        let mut notified = Notified { turn: Turn::joined(&self.waiters, ()), is_owed: false };
        drop(guard);
        poll_fn(|context| {
            let Poll::Ready(by) = notified.turn.poll((), context.waker()) else {
                return Poll::Pending;
            };
            notified.is_owed = by == By::One;
            Poll::Ready(())
        })
        .await;
        let guard = mutex.lock().await;
        notified.is_owed = false;
        guard
    }

    /// [`Condvar::wait`] until `condition` no longer holds; looks at it first, under the lock.
    /// Cancel safe.
    pub async fn wait_while<'a, T: ?Sized>(
        &self,
        mut guard: MutexGuard<'a, T>,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> MutexGuard<'a, T> {
        while condition(&mut guard) {
            guard = self.wait(guard).await;
        }
        guard
    }

    /// Lets the one go on that has waited longest. Nothing is kept for later if nobody waits.
    pub fn notify_one(&self) {
        self.waiters.choose();
    }

    /// Lets everybody go on who waits now, one after another as the lock allows.
    pub fn notify_all(&self) {
        self.waiters.choose_all();
    }

    /// Tasks that wait to be notified.
    pub fn waiting(&self) -> usize {
        self.waiters.len()
    }
}

impl fmt::Debug for Condvar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Condvar").field("waiting", &self.waiters.len()).finish_non_exhaustive()
    }
}

/// A waiter, from before it releases its lock until it has it again.
struct Notified<'a> {
    turn: Turn<'a>,
    /// Whether it has seen a notification that somebody else needs if it does not come through.
    is_owed: bool,
}

impl Drop for Notified<'_> {
    fn drop(&mut self) {
        let list = self.turn.list();
        if self.is_owed || matches!(self.turn.leave(), Some(Left::Chosen(By::One, ()))) {
            list.choose();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::puppet::{Puppet, now, pending, woken};
    use super::*;

    #[test]
    fn one_notification_wakes_one_and_all_wakes_all() {
        let (mutex, condition) = (Mutex::new(()), Condvar::new());
        let waits: Vec<_> = (0..4).map(|_| pending(condition.wait(now(mutex.lock())))).collect();
        let awake = || waits.iter().map(Puppet::is_woken).collect::<Vec<bool>>();
        condition.notify_one();
        assert_eq!(awake(), [true, false, false, false]);
        condition.notify_all();
        assert_eq!(awake(), [true, true, true, true]);
        for wait in waits {
            drop(woken(wait));
        }
        condition.notify_one(); // Kept for nobody.
        drop(pending(condition.wait(now(mutex.lock()))));
        assert_eq!(condition.waiting(), 0);
    }

    #[test]
    fn the_lock_is_free_during_the_wait_and_held_after_it() {
        let (mutex, condition) = (Mutex::new(0), Condvar::new());
        let mut wait = pending(condition.wait(now(mutex.lock())));
        let held = mutex.try_lock().unwrap();
        condition.notify_one();
        assert!(wait.poll().is_pending(), "the lock is held");
        drop(held);
        let guard = woken(wait);
        assert!(mutex.try_lock().is_none());
        drop(guard);
        assert!(mutex.try_lock().is_some());
    }

    #[test]
    fn a_notification_passes_by_who_is_cancelled_at_any_await() {
        let (mutex, condition) = (Mutex::new(()), Condvar::new());
        let wait = || pending(condition.wait(now(mutex.lock())));
        // Before it was notified.
        let (first, second) = (wait(), wait());
        drop(first);
        condition.notify_one();
        drop(woken(second));
        // Notified, but not polled.
        let (first, second) = (wait(), wait());
        condition.notify_one();
        drop(first);
        drop(woken(second));
        // On its way to the lock.
        let (mut first, second) = (wait(), wait());
        condition.notify_one();
        let held = mutex.try_lock().unwrap();
        assert!(first.poll().is_pending());
        drop(first);
        drop(held);
        drop(woken(second));
        assert!(!mutex.is_locked());
        assert_eq!(condition.waiting(), 0);
    }

    #[test]
    fn waiting_while_looks_before_it_waits_and_after_each_turn() {
        let (mutex, condition) = (Mutex::new(1), Condvar::new());
        drop(now(condition.wait_while(now(mutex.lock()), |value| *value == 0)));
        let mut wait = pending(condition.wait_while(now(mutex.lock()), |value| *value < 3));
        *now(mutex.lock()) = 2;
        condition.notify_all();
        assert!(wait.poll().is_pending());
        *now(mutex.lock()) = 3;
        condition.notify_all();
        assert_eq!(*woken(wait), 3);
    }
}
