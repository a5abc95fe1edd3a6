//! A value that is made once, by the first task that needs it; the others wait for it.
//!
//! Invariant: at most one initialiser runs; if it fails, is cancelled or panics, the next in line
//! runs its own, so nobody waits for what nobody makes.

use std::cell::{Cell, OnceCell as Value};
use std::convert::Infallible;
use std::fmt;
use std::future::poll_fn;

use super::promise::AlreadySet;
use super::wait_list::{By, Left, Turn, WaitList};

/// A cell for the tasks of one shard that is filled once, by an async initialiser. For something
/// that is to be done once and has no value, take `OnceCell<()>`.
///
/// ```
/// use annulus::{Runtime, sync::OnceCell, task};
///
/// Runtime::new()?.block_on(async {
///     let cell = OnceCell::new();
///     let value = cell
///         .get_or_init(|| async {
///             task::yield_now().await;
///             5
///         })
///         .await;
///     assert_eq!(*value, 5);
///     assert_eq!(*cell.get_or_init(|| async { 6 }).await, 5);
/// });
/// # annulus::Result::Ok(())
/// ```
pub struct OnceCell<T> {
    value: Value<T>,
    is_busy: Cell<bool>,
    /// Those who would run their initialiser.
    makers: WaitList,
    /// Those who wait for somebody else's.
    watchers: WaitList,
}

impl<T> OnceCell<T> {
    /// An empty cell.
    pub const fn new() -> Self {
        Self {
            value: Value::new(),
            is_busy: Cell::new(false),
            makers: WaitList::new(),
            watchers: WaitList::new(),
        }
    }

    /// The value, if it is there.
    pub fn get(&self) -> Option<&T> {
        self.value.get()
    }

    /// The value, to change it.
    pub fn get_mut(&mut self) -> Option<&mut T> {
        self.value.get_mut()
    }

    /// The value, without the cell.
    pub fn into_inner(self) -> Option<T> {
        self.value.into_inner()
    }

    /// Fills the cell. An initialiser that runs meanwhile runs on, and what it makes is dropped.
    ///
    /// # Errors
    /// If it is filled already; the value comes back.
    pub fn set(&self, value: T) -> Result<(), AlreadySet<T>> {
        self.value.set(value).map_err(AlreadySet)?;
        self.pass_on();
        Ok(())
    }

    /// The value; if there is none, what `init` makes. Only one initialiser runs at a time, the
    /// others wait for it.
    ///
    /// Cancel safe: a dropped initialiser has made nothing, and the next in line runs its own.
    pub async fn get_or_init<F: AsyncFnOnce() -> T>(&self, init: F) -> &T {
        let made: Result<&T, Infallible> = self.get_or_try_init(async || Ok(init().await)).await;
        let Ok(value) = made;
        value
    }

    /// The value; if there is none, what `init` makes, unless it fails. Then the cell stays empty
    /// and the next in line runs its own. Cancel safe as [`OnceCell::get_or_init`].
    ///
    /// # Errors
    /// What `init` gives.
    pub async fn get_or_try_init<E, F>(&self, init: F) -> Result<&T, E>
    where
        F: AsyncFnOnce() -> Result<T, E>,
    {
        loop {
            if let Some(value) = self.value.get() {
                return Ok(value);
            }
            if !self.is_busy.replace(true) {
                let busy = Busy { cell: self };
                let made = init().await?;
                // Somebody may have set it by hand meanwhile; the first value stays.
                let value = self.value.get_or_init(|| made);
                drop(busy);
                return Ok(value);
            }
            let mut waiting = Maker { cell: self, turn: Turn::new(&self.makers) };
            poll_fn(|context| waiting.turn.poll((), context.waker())).await;
        }
    }

    /// Waits until somebody has filled the cell; makes nothing itself. Cancel safe.
    pub async fn wait(&self) -> &T {
        loop {
            if let Some(value) = self.value.get() {
                return value;
            }
            let mut turn = Turn::new(&self.watchers);
            poll_fn(|context| turn.poll((), context.waker())).await;
        }
    }

    /// Tells everybody that the value is there, or the next that it may make it.
    fn pass_on(&self) {
        if self.value.get().is_some() {
            self.makers.choose_all();
            self.watchers.choose_all();
        } else if !self.is_busy.get() {
            self.makers.choose();
        }
    }
}

/// Somebody who waits for the initialiser that runs.
struct Maker<'a, T> {
    cell: &'a OnceCell<T>,
    turn: Turn<'a>,
}

impl<T> Drop for Maker<'_, T> {
    fn drop(&mut self) {
        if let Some(Left::Chosen(By::One, ())) = self.turn.leave() {
            self.cell.pass_on();
        }
    }
}

/// An initialiser that runs.
struct Busy<'a, T> {
    cell: &'a OnceCell<T>,
}

impl<T> Drop for Busy<'_, T> {
    fn drop(&mut self) {
        self.cell.is_busy.set(false);
        self.cell.pass_on();
    }
}

impl<T> Default for OnceCell<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: fmt::Debug> fmt::Debug for OnceCell<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OnceCell").field(&self.value.get()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::puppet::{now, pending, woken};
    use super::*;
    use crate::sync::oneshot;

    #[test]
    fn one_makes_it_and_the_others_wait() {
        let cell = OnceCell::new();
        let (sender, receiver) = oneshot::channel::<u32>();
        let first = pending(cell.get_or_init(async || receiver.await.unwrap()));
        let second = pending(cell.get_or_init(async || unreachable!("the first makes it")));
        let watcher = pending(cell.wait());
        drop(pending(cell.get_or_init(async || 7)));
        sender.send(5).unwrap();
        assert_eq!((woken(first), woken(second), woken(watcher)), (&5, &5, &5));
        assert_eq!(now(cell.get_or_init(async || 6)), &5);
        assert_eq!(cell.set(6), Err(AlreadySet(6)));
        assert_eq!(cell.into_inner(), Some(5));
    }

    #[test]
    fn a_failure_lets_the_next_try() {
        let cell = OnceCell::new();
        let (sender, receiver) = oneshot::channel::<u32>();
        let first = pending(cell.get_or_try_init(async || receiver.await.map_err(drop)));
        let gone = pending(cell.get_or_try_init(async || Ok::<_, ()>(1)));
        let second = pending(cell.get_or_try_init(async || Ok::<_, ()>(2)));
        drop(sender);
        assert_eq!(woken(first), Err(()));
        assert!(!second.is_woken());
        // The one whose turn it is goes away before it takes it.
        drop(gone);
        assert_eq!(woken(second), Ok(&2));
    }

    #[test]
    fn a_cancelled_initialiser_lets_the_next_try() {
        let cell = OnceCell::new();
        let first = pending(cell.get_or_init(async || std::future::pending().await));
        let watcher = pending(cell.wait());
        let second = pending(cell.get_or_init(async || 2));
        drop(first);
        assert_eq!(woken(second), &2);
        assert_eq!(woken(watcher), &2);
    }

    #[test]
    fn a_value_set_by_hand_ends_every_wait() {
        let cell = OnceCell::new();
        let (sender, receiver) = oneshot::channel::<u32>();
        let first = pending(cell.get_or_init(async || receiver.await.unwrap()));
        let (second, watcher) = (pending(cell.get_or_init(async || 2)), pending(cell.wait()));
        assert_eq!(cell.set(9), Ok(()));
        assert_eq!((woken(second), woken(watcher)), (&9, &9));
        sender.send(5).unwrap();
        assert_eq!(woken(first), &9);
    }
}
