//! A lock with many readers or one writer, for tasks of one shard, fair to both.
//!
//! A semaphore of as many permits as there may be readers; a writer takes them all. Its line is one
//! for both, so readers that come after a writer wait behind it and no writer starves.

use std::cell::{Ref, RefCell, RefMut};
use std::fmt;
use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::task::{Context, Poll};

use super::semaphore::{Acquire, Permit, Semaphore};
use crate::limits;

/// A read-write lock around a value, for the tasks of one shard, without atomics.
///
/// Readers and writers are served in the order in which they began to wait; neighbouring readers
/// share. A task that reads must not ask to read again while a writer may wait: it would wait for
/// itself.
///
/// ```
/// use annulus::{Runtime, sync::RwLock};
///
/// Runtime::new()?.block_on(async {
///     let settings = RwLock::new(vec![1]);
///     {
///         let (one, two) = (settings.read().await, settings.read().await);
///         assert_eq!(one.len() + two.len(), 2);
///     }
///     settings.write().await.push(2);
///     assert_eq!(*settings.read().await, [1, 2]);
/// });
/// # annulus::Result::Ok(())
/// ```
pub struct RwLock<T: ?Sized> {
    permits: Semaphore,
    value: RefCell<T>,
}

const ALL: usize = limits::SEMAPHORE_PERMITS_COUNT_MAX;

impl<T> RwLock<T> {
    /// An open lock around `value`.
    pub const fn new(value: T) -> Self {
        Self { permits: Semaphore::new(ALL), value: RefCell::new(value) }
    }

    /// The value, without the lock.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T: ?Sized> RwLock<T> {
    /// Waits until no writer holds the lock or stands before this reader. Cancel safe; the place
    /// in line is lost.
    #[inline]
    pub fn read(&self) -> Read<'_, T> {
        Read { lock: self, acquire: self.permits.acquire() }
    }

    /// Waits until nobody holds the lock or stands before this writer. Cancel safe; the place in
    /// line is lost.
    #[inline]
    pub fn write(&self) -> Write<'_, T> {
        Write { lock: self, acquire: self.permits.acquire_many(ALL) }
    }

    /// The lock for reading, if no writer holds it and nobody is in line.
    pub fn try_read(&self) -> Option<ReadGuard<'_, T>> {
        let permit = self.permits.try_acquire().ok()?;
        Some(ReadGuard { value: self.value.borrow(), permit })
    }

    /// The lock for writing, if nobody holds it or is in line.
    pub fn try_write(&self) -> Option<WriteGuard<'_, T>> {
        let permit = self.permits.try_acquire_many(ALL).ok()?;
        Some(WriteGuard { value: self.value.borrow_mut(), lock: self, permit })
    }

    /// The value; the borrow proves that nobody holds the lock.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

impl<T: Default> Default for RwLock<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> From<T> for RwLock<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("RwLock");
        match self.value.try_borrow() {
            Ok(value) => debug.field("value", &&*value).finish_non_exhaustive(),
            Err(_) => debug.field("value", &format_args!("<locked>")).finish_non_exhaustive(),
        }
    }
}

/// Waits to read a [`RwLock`].
#[must_use = "a future does nothing unless awaited"]
pub struct Read<'a, T: ?Sized> {
    lock: &'a RwLock<T>,
    acquire: Acquire<'a>,
}

impl<'a, T: ?Sized> Future for Read<'a, T> {
    type Output = ReadGuard<'a, T>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.acquire).poll(context).map(|acquired| {
            let permit = acquired.expect("a lock's permits are never closed");
            ReadGuard { value: self.lock.value.borrow(), permit }
        })
    }
}

/// Waits to write a [`RwLock`].
#[must_use = "a future does nothing unless awaited"]
pub struct Write<'a, T: ?Sized> {
    lock: &'a RwLock<T>,
    acquire: Acquire<'a>,
}

impl<'a, T: ?Sized> Future for Write<'a, T> {
    type Output = WriteGuard<'a, T>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.acquire).poll(context).map(|acquired| {
            let permit = acquired.expect("a lock's permits are never closed");
            WriteGuard { value: self.lock.value.borrow_mut(), lock: self.lock, permit }
        })
    }
}

/// A [`RwLock`] held for reading.
#[must_use = "the lock is released when its guard is dropped"]
pub struct ReadGuard<'a, T: ?Sized> {
    // In this order: the borrow ends before the lock goes on.
    value: Ref<'a, T>,
    #[expect(dead_code, reason = "given back on drop")]
    permit: Permit<'a>,
}

/// A [`RwLock`] held for writing.
#[must_use = "the lock is released when its guard is dropped"]
pub struct WriteGuard<'a, T: ?Sized> {
    // In this order: the borrow ends before the lock goes on.
    value: RefMut<'a, T>,
    lock: &'a RwLock<T>,
    permit: Permit<'a>,
}

impl<'a, T: ?Sized> WriteGuard<'a, T> {
    /// Keeps the lock for reading only: readers in line come in, no writer gets in between.
    pub fn downgrade(guard: Self) -> ReadGuard<'a, T> {
        let WriteGuard { value, lock, mut permit } = guard;
        drop(value);
        let value = lock.value.borrow();
        drop(permit.split(ALL - 1));
        ReadGuard { value, permit }
    }
}

impl<T: ?Sized> Deref for ReadGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: ?Sized> Deref for WriteGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: ?Sized> DerefMut for WriteGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for ReadGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for WriteGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}
