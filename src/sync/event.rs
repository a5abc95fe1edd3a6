//! A flag that tasks of one shard wait for: set once, it releases everybody until it is cleared.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::wait_list::{Turn, WaitList};

/// A manual-reset event for the tasks of one shard: not `Sync`, without atomics.
///
/// ```
/// use std::rc::Rc;
/// use annulus::{Runtime, sync::Event, task};
///
/// Runtime::new()?.block_on(async {
///     let ready = Rc::new(Event::new());
///     let waiter = task::spawn({
///         let ready = Rc::clone(&ready);
///         async move { ready.wait().await }
///     });
///     ready.set();
///     waiter.await.unwrap();
///     ready.clear();
///     assert!(!ready.is_set());
/// });
/// # annulus::Result::Ok(())
/// ```
#[derive(Default)]
pub struct Event {
    is_set: Cell<bool>,
    waiters: WaitList,
}

impl Event {
    /// An event that is not set.
    pub const fn new() -> Self {
        Self { is_set: Cell::new(false), waiters: WaitList::new() }
    }

    /// Sets it: everybody who waits goes on, and nobody waits until it is cleared.
    pub fn set(&self) {
        if !self.is_set.replace(true) {
            self.waiters.choose_all();
        }
    }

    /// Clears it: whoever comes from now on waits. Those released before are not held back.
    pub fn clear(&self) {
        self.is_set.set(false);
    }

    /// Whether it is set.
    pub fn is_set(&self) -> bool {
        self.is_set.get()
    }

    /// Tasks that wait and have not been released.
    pub fn waiting(&self) -> usize {
        self.waiters.len()
    }

    /// Waits until it is set. Cancel safe.
    pub fn wait(&self) -> EventWait<'_> {
        EventWait { event: self, turn: Turn::new(&self.waiters) }
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = self.waiters.len();
        f.debug_struct("Event")
            .field("set", &self.is_set.get())
            .field("waiting", &waiting)
            .finish_non_exhaustive()
    }
}

/// Waits for an [`Event`].
#[must_use = "a future does nothing unless awaited"]
pub struct EventWait<'a> {
    event: &'a Event,
    turn: Turn<'a>,
}

impl Future for EventWait<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if !self.turn.has_joined() && self.event.is_set() {
            return Poll::Ready(());
        }
        self.turn.poll((), context.waker()).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::super::puppet::{now, pending, woken};
    use super::*;

    #[test]
    fn a_set_releases_all_who_wait_and_all_who_come_until_it_is_cleared() {
        let event = Event::new();
        let (first, gone) = (pending(event.wait()), pending(event.wait()));
        let last = pending(event.wait());
        drop(gone);
        event.set();
        event.clear(); // Too late to hold them.
        woken(first);
        woken(last);
        let held = pending(event.wait());
        assert_eq!(event.waiting(), 1);
        event.set();
        event.set();
        now(event.wait());
        woken(held);
    }
}
