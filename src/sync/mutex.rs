//! A lock for tasks of one shard, held across awaits and handed on in order.
//!
//! Invariant: while somebody is in line the lock is held, or is on its way to the one chosen, so a
//! newcomer never overtakes.

use std::cell::{Cell, RefCell, RefMut};
use std::fmt;
use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::task::{Context, Poll};

use super::wait_list::{By, Left, Turn, WaitList};

/// A lock around a value, for the tasks of one shard: not `Sync`, without atomics.
///
/// Waiters get it in the order in which they began to wait. It is worth its place only where a
/// value must stay untouched across an await; without an await in between, a `RefCell` does.
/// A panic while the lock is held releases it and leaves the value as it is; there is no poison.
///
/// ```
/// use std::rc::Rc;
/// use annulus::{Runtime, sync::Mutex, task};
///
/// Runtime::new()?.block_on(async {
///     let total = Rc::new(Mutex::new(0));
///     let add = |total: Rc<Mutex<u32>>| async move {
///         let mut total = total.lock().await;
///         let before = *total;
///         task::yield_now().await;
///         *total = before + 1;
///     };
///     let tasks = [task::spawn(add(total.clone())), task::spawn(add(total.clone()))];
///     for task in tasks {
///         task.await.unwrap();
///     }
///     assert_eq!(*total.lock().await, 2);
/// });
/// # annulus::Result::Ok(())
/// ```
pub struct Mutex<T: ?Sized> {
    is_locked: Cell<bool>,
    waiters: WaitList,
    value: RefCell<T>,
}

impl<T> Mutex<T> {
    /// An open lock around `value`.
    pub const fn new(value: T) -> Self {
        Self { is_locked: Cell::new(false), waiters: WaitList::new(), value: RefCell::new(value) }
    }

    /// The value, without the lock.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Waits for the lock. Those who wait are served in order.
    ///
    /// Cancel safe: a dropped wait leaves the line, and passes the lock on if it had just got it.
    /// The place in line is lost.
    #[inline]
    pub fn lock(&self) -> Lock<'_, T> {
        Lock { mutex: self, turn: Turn::new(&self.waiters) }
    }

    /// Takes the lock if it is free. `None` if it is held or promised to a waiter.
    #[inline]
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        if self.is_locked.replace(true) { None } else { Some(self.guard()) }
    }

    /// Whether it is held or promised.
    pub fn is_locked(&self) -> bool {
        self.is_locked.get()
    }

    /// The value; the borrow proves that nobody holds the lock.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    #[inline]
    fn guard(&self) -> MutexGuard<'_, T> {
        MutexGuard { value: self.value.borrow_mut(), hold: Hold(self) }
    }

    /// Hands the lock to the next in line, or opens it.
    #[inline]
    fn unlock(&self) {
        if !self.waiters.choose() {
            self.is_locked.set(false);
        }
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> From<T> for Mutex<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Mutex");
        match self.value.try_borrow() {
            Ok(value) => debug.field("value", &&*value).finish_non_exhaustive(),
            Err(_) => debug.field("value", &format_args!("<locked>")).finish_non_exhaustive(),
        }
    }
}

/// Waits for a [`Mutex`].
#[must_use = "a future does nothing unless awaited"]
pub struct Lock<'a, T: ?Sized> {
    mutex: &'a Mutex<T>,
    turn: Turn<'a>,
}

impl<'a, T: ?Sized> Future for Lock<'a, T> {
    type Output = MutexGuard<'a, T>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if !self.turn.has_joined()
            && let Some(guard) = self.mutex.try_lock()
        {
            return Poll::Ready(guard);
        }
        // Whoever is chosen holds the lock already.
        self.turn.poll((), context.waker()).map(|_| self.mutex.guard())
    }
}

impl<T: ?Sized> Drop for Lock<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if let Some(Left::Chosen(By::One, ())) = self.turn.leave() {
            self.mutex.unlock();
        }
    }
}

/// Releases the lock when it is dropped, after the value's borrow has ended.
struct Hold<'a, T: ?Sized>(&'a Mutex<T>);

impl<T: ?Sized> Drop for Hold<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.0.unlock();
    }
}

/// The lock of a [`Mutex`], held. Dropping it hands the lock to the next in line.
#[must_use = "the lock is released when its guard is dropped"]
pub struct MutexGuard<'a, T: ?Sized> {
    // In this order: the borrow ends before the lock goes on.
    value: RefMut<'a, T>,
    hold: Hold<'a, T>,
}

impl<'a, T: ?Sized> MutexGuard<'a, T> {
    /// The lock it holds.
    pub fn mutex(guard: &Self) -> &'a Mutex<T> {
        guard.hold.0
    }
}

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}
