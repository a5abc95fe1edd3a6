//! A wake without a value: for one waiter, kept if nobody waits, or for all who wait now.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::wait_list::{By, Left, Turn, WaitList};

/// A notification for the tasks of one shard, without atomics: what hand-made primitives stand on.
///
/// ```
/// use annulus::{Runtime, sync::Notify};
///
/// Runtime::new()?.block_on(async {
///     let work = Notify::new();
///     work.notify_one();
///     work.notified().await; // It was kept.
/// });
/// # annulus::Result::Ok(())
/// ```
#[derive(Default)]
pub struct Notify {
    is_kept: Cell<bool>,
    waiters: WaitList,
}

impl Notify {
    /// Without a notification.
    pub const fn new() -> Self {
        Self { is_kept: Cell::new(false), waiters: WaitList::new() }
    }

    /// Lets the one go on that has waited longest. If nobody waits, the next to come does not wait;
    /// one notification is kept, not several.
    pub fn notify_one(&self) {
        if !self.waiters.choose() {
            self.is_kept.set(true);
        }
    }

    /// Lets everybody go on who waits now. Nothing is kept.
    pub fn notify_all(&self) {
        self.waiters.choose_all();
    }

    /// Waits for a notification, from its first poll on. Cancel safe: a notification that was meant
    /// for a dropped wait alone goes to the next or is kept.
    pub fn notified(&self) -> Notified<'_> {
        Notified { notify: self, turn: Turn::new(&self.waiters) }
    }
}

impl fmt::Debug for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notify").field("waiting", &self.waiters.len()).finish_non_exhaustive()
    }
}

/// Waits for a [`Notify`].
#[must_use = "a future does nothing unless awaited"]
pub struct Notified<'a> {
    notify: &'a Notify,
    turn: Turn<'a>,
}

impl Future for Notified<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if !self.turn.has_joined() && self.notify.is_kept.replace(false) {
            return Poll::Ready(());
        }
        self.turn.poll((), context.waker()).map(drop)
    }
}

impl Drop for Notified<'_> {
    fn drop(&mut self) {
        if let Some(Left::Chosen(By::One, ())) = self.turn.leave() {
            self.notify.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::puppet::{now, pending, woken};
    use super::*;

    #[test]
    fn one_notification_is_kept_and_not_two() {
        let notify = Notify::new();
        notify.notify_one();
        notify.notify_one();
        now(notify.notified());
        let (first, second) = (pending(notify.notified()), pending(notify.notified()));
        notify.notify_all();
        woken(first);
        woken(second);
        drop(pending(notify.notified()));
    }

    #[test]
    fn a_notification_passes_by_who_is_cancelled() {
        let notify = Notify::new();
        let (first, second) = (pending(notify.notified()), pending(notify.notified()));
        notify.notify_one();
        drop(first);
        woken(second);
        let only = pending(notify.notified());
        notify.notify_one();
        drop(only);
        now(notify.notified());
        // One that was for all is for nobody else.
        let only = pending(notify.notified());
        notify.notify_all();
        drop(only);
        drop(pending(notify.notified()));
    }
}
