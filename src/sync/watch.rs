//! One value that changes, and those who follow it, for the tasks of one shard.
//!
//! Who looks sees the latest value; changes in between are not kept. Invariant: the version grows
//! with each change, and a receiver whose version is older has not seen the last one.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use super::wait_list::{Turn, WaitList};

struct Shared<T> {
    value: RefCell<T>,
    version: Cell<u64>,
    senders: Cell<usize>,
    receivers: Cell<usize>,
    waiters: WaitList,
}

/// A value to follow, with a first sender and a first receiver, which has seen it.
///
/// ```
/// use annulus::{Runtime, sync::watch, task};
///
/// Runtime::new()?.block_on(async {
///     let (level, mut follower) = watch::channel(1);
///     let seen = task::spawn(async move {
///         follower.changed().await.unwrap();
///         follower.get()
///     });
///     task::yield_now().await;
///     level.send(2);
///     level.send(3); // Before anybody looked: 2 is never seen.
///     assert_eq!(seen.await.unwrap(), 3);
/// });
/// # annulus::Result::Ok(())
/// ```
pub fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    let shared = Rc::new(Shared {
        value: RefCell::new(value),
        version: Cell::new(0),
        senders: Cell::new(1),
        receivers: Cell::new(1),
        waiters: WaitList::new(),
    });
    (Sender(Rc::clone(&shared)), Receiver { shared, seen: 0 })
}

/// Changes the value. Receivers are told when the last clone is dropped.
pub struct Sender<T>(Rc<Shared<T>>);

impl<T> Sender<T> {
    /// Puts another value in place and tells everybody, whether or not it is different. It stays
    /// for those who come later, too.
    pub fn send(&self, value: T) {
        let old = self.0.value.replace(value);
        self.tell();
        drop(old);
    }

    /// Changes the value in place and tells everybody if `change` says that it did.
    ///
    /// # Panics
    /// If `change` uses this watch itself.
    pub fn modify(&self, change: impl FnOnce(&mut T) -> bool) -> bool {
        let has_changed = change(&mut self.0.value.borrow_mut());
        if has_changed {
            self.tell();
        }
        has_changed
    }

    /// A copy of the value.
    pub fn get(&self) -> T
    where
        T: Clone,
    {
        self.0.value.borrow().clone()
    }

    /// What `look` makes of the value. It may not send on this watch.
    pub fn with<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(&self.0.value.borrow())
    }

    /// A receiver that has seen the present value.
    pub fn subscribe(&self) -> Receiver<T> {
        self.0.receivers.set(self.0.receivers.get() + 1);
        Receiver { shared: Rc::clone(&self.0), seen: self.0.version.get() }
    }

    /// How many receivers there are.
    pub fn receivers(&self) -> usize {
        self.0.receivers.get()
    }

    fn tell(&self) {
        self.0.version.set(self.0.version.get() + 1);
        self.0.waiters.choose_all();
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.senders.set(self.0.senders.get() + 1);
        Self(Rc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let left = self.0.senders.get() - 1;
        self.0.senders.set(left);
        if left == 0 {
            self.0.waiters.choose_all();
        }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("receivers", &self.receivers()).finish()
    }
}

/// Follows a value. A clone has seen what this one has.
pub struct Receiver<T> {
    shared: Rc<Shared<T>>,
    seen: u64,
}

impl<T> Receiver<T> {
    /// Waits until the value has changed since this receiver last looked, and counts as a look.
    ///
    /// Cancel safe: a change that a dropped wait did not report is reported by the next.
    ///
    /// # Errors
    /// Once the senders are gone, after the last change.
    pub async fn changed(&mut self) -> Result<(), Closed> {
        let shared = &*self.shared;
        let mut turn = Turn::new(&shared.waiters);
        self.seen = poll_fn(|context| {
            loop {
                if turn.has_joined() && turn.poll((), context.waker()).is_pending() {
                    return Poll::Pending;
                }
                let version = shared.version.get();
                if version != self.seen {
                    return Poll::Ready(Ok(version));
                }
                if shared.senders.get() == 0 {
                    return Poll::Ready(Err(Closed(())));
                }
                if turn.poll((), context.waker()).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await?;
        Ok(())
    }

    /// Waits until the value is one that `is_wanted`, which may be now, and gives a copy of it.
    /// Counts as a look. Cancel safe.
    ///
    /// # Errors
    /// Once the senders are gone and the last value is not wanted.
    pub async fn wait_for(&mut self, mut is_wanted: impl FnMut(&T) -> bool) -> Result<T, Closed>
    where
        T: Clone,
    {
        loop {
            self.seen = self.shared.version.get();
            let wanted = {
                let value = self.shared.value.borrow();
                is_wanted(&value).then(|| value.clone())
            };
            match wanted {
                Some(value) => return Ok(value),
                None => self.changed().await?,
            }
        }
    }

    /// Whether the value has changed since this receiver last looked.
    pub fn has_changed(&self) -> bool {
        self.shared.version.get() != self.seen
    }

    /// A copy of the value. Counts as a look.
    pub fn get(&mut self) -> T
    where
        T: Clone,
    {
        self.with(T::clone)
    }

    /// What `look` makes of the value; it may not send on this watch. Counts as a look.
    pub fn with<R>(&mut self, look: impl FnOnce(&T) -> R) -> R {
        self.seen = self.shared.version.get();
        look(&self.shared.value.borrow())
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.shared.receivers.set(self.shared.receivers.get() + 1);
        Self { shared: Rc::clone(&self.shared), seen: self.seen }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.shared.receivers.set(self.shared.receivers.get() - 1);
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("changed", &self.has_changed()).finish()
    }
}

/// The senders of a watched value are gone: it stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the senders of the watched value are gone")]
pub struct Closed(());

#[cfg(test)]
mod tests {
    use super::super::puppet::{now, pending, woken};
    use super::*;

    #[test]
    fn the_latest_value_is_seen_and_each_change_reported_once() {
        let (sender, mut receiver) = channel(1);
        let wait = pending(receiver.changed());
        sender.send(2);
        sender.send(3);
        assert_eq!(woken(wait), Ok(()));
        assert_eq!(receiver.get(), 3);
        let mut late = sender.subscribe();
        assert_eq!((late.get(), sender.receivers()), (3, 2));
        assert!(!sender.modify(|_| false));
        assert!(!late.has_changed());
        assert!(sender.modify(|value| std::mem::replace(value, 4) == 3));
        assert_eq!(now(late.changed()), Ok(()));
        drop(pending(late.changed()));
        assert!(receiver.has_changed());
        assert_eq!(receiver.with(|value| *value), 4);
    }

    #[test]
    fn the_last_change_is_reported_before_the_end() {
        let (sender, mut receiver) = channel(1);
        let mut other = receiver.clone();
        let wait = pending(other.wait_for(|value| *value == 5));
        sender.send(2);
        drop(sender.clone());
        drop(sender);
        assert_eq!(now(receiver.changed()), Ok(()));
        assert_eq!(now(receiver.changed()), Err(Closed(())));
        assert_eq!(now(receiver.wait_for(|value| *value == 2)), Ok(2));
        assert_eq!(woken(wait), Err(Closed(())));
    }

    #[test]
    fn a_dropped_wait_loses_no_change() {
        let (sender, mut receiver) = channel(1);
        let wait = pending(receiver.changed());
        sender.send(2);
        assert!(wait.is_woken());
        drop(wait);
        assert_eq!(now(receiver.changed()), Ok(()));
        drop(pending(receiver.changed()));
        assert_eq!(sender.0.waiters.len(), 0);
    }

    #[test]
    fn a_wanted_value_is_waited_for() {
        let (sender, mut receiver) = channel(1);
        assert_eq!(now(receiver.wait_for(|value| *value == 1)), Ok(1));
        let mut wait = pending(receiver.wait_for(|value| *value == 3));
        sender.send(2);
        assert!(wait.poll().is_pending());
        sender.send(3);
        assert_eq!(woken(wait), Ok(3));
    }
}
