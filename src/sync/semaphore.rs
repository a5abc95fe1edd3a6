//! Permits that tasks of one shard take and give back, in order.
//!
//! Invariant: whenever somebody is in line, the permits that are free do not suffice for the first;
//! so a newcomer never overtakes, and who asks for much is not starved by those who ask for little.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::error::{AcquireError, TryAcquireError};
use super::wait_list::{By, Left, Turn, WaitList};
use crate::limits;

/// A counter of permits for the tasks of one shard, without atomics.
///
/// ```
/// use std::rc::Rc;
/// use annulus::{Runtime, sync::Semaphore, task};
///
/// Runtime::new()?.block_on(async {
///     let slots = Rc::new(Semaphore::new(2));
///     for _ in 0..10 {
///         let slot = Rc::clone(&slots).acquire_owned().await.unwrap();
///         task::spawn(async move {
///             // At most two of these run at a time.
///             task::yield_now().await;
///             drop(slot);
///         })
///         .detach();
///     }
///     let all = slots.acquire_many(2).await.unwrap();
///     assert_eq!(slots.available_permits(), 0);
///     drop(all);
/// });
/// # annulus::Result::Ok(())
/// ```
pub struct Semaphore {
    free: Cell<usize>,
    /// Permits taken for good by [`Permit::forget`].
    forgotten: Cell<usize>,
    is_closed: Cell<bool>,
    waiters: WaitList<usize>,
}

impl Semaphore {
    /// A semaphore with this many permits.
    ///
    /// # Panics
    /// Above [`limits::SEMAPHORE_PERMITS_COUNT_MAX`].
    pub const fn new(permits: usize) -> Self {
        assert!(
            permits <= limits::SEMAPHORE_PERMITS_COUNT_MAX,
            "a semaphore has at most limits::SEMAPHORE_PERMITS_COUNT_MAX permits; ask for fewer"
        );
        Self {
            free: Cell::new(permits),
            forgotten: Cell::new(0),
            is_closed: Cell::new(false),
            waiters: WaitList::new(),
        }
    }

    /// Waits for one permit. As [`Semaphore::acquire_many`].
    #[inline]
    pub fn acquire(&self) -> Acquire<'_> {
        self.acquire_many(1)
    }

    /// Waits for `count` permits at once. Those who wait are served in order: many for one task
    /// hold up a few for the next. More than there will ever be are waited for until
    /// [`Semaphore::add_permits`] brings them.
    ///
    /// Cancel safe: a dropped wait leaves no permit behind; its place in line is lost.
    ///
    /// # Errors
    /// Once the semaphore is closed.
    #[inline]
    pub fn acquire_many(&self, count: usize) -> Acquire<'_> {
        Acquire { semaphore: self, count, turn: Turn::new(&self.waiters) }
    }

    /// [`Semaphore::acquire`] for a permit that may be moved into a task. Cancel safe.
    ///
    /// # Errors
    /// Once the semaphore is closed.
    pub async fn acquire_owned(self: Rc<Self>) -> Result<OwnedPermit, AcquireError> {
        self.acquire_many_owned(1).await
    }

    /// [`Semaphore::acquire_many`] for permits that may be moved into a task. Cancel safe.
    ///
    /// # Errors
    /// Once the semaphore is closed.
    pub async fn acquire_many_owned(
        self: Rc<Self>,
        count: usize,
    ) -> Result<OwnedPermit, AcquireError> {
        let permit = self.acquire_many(count).await?;
        permit.disarm();
        Ok(OwnedPermit { semaphore: self, count })
    }

    /// One permit, if it is free and nobody is in line for it.
    ///
    /// # Errors
    /// `NoPermits` or `Closed`.
    #[inline]
    pub fn try_acquire(&self) -> Result<Permit<'_>, TryAcquireError> {
        self.try_acquire_many(1)
    }

    /// `count` permits, if they are free and nobody is in line.
    ///
    /// # Errors
    /// `NoPermits` or `Closed`.
    #[inline]
    pub fn try_acquire_many(&self, count: usize) -> Result<Permit<'_>, TryAcquireError> {
        if self.is_closed.get() {
            return Err(TryAcquireError::Closed);
        }
        let free = self.free.get();
        if count > free || !self.waiters.is_empty() {
            return Err(TryAcquireError::NoPermits);
        }
        self.free.set(free - count);
        Ok(Permit { semaphore: self, count })
    }

    /// Adds permits and serves who waits for them.
    ///
    /// # Panics
    /// If it would have more than [`limits::SEMAPHORE_PERMITS_COUNT_MAX`].
    pub fn add_permits(&self, count: usize) {
        let total = self.free.get().saturating_add(count);
        assert!(
            total <= limits::SEMAPHORE_PERMITS_COUNT_MAX,
            "a semaphore has at most limits::SEMAPHORE_PERMITS_COUNT_MAX permits; add fewer"
        );
        self.free.set(total);
        self.serve();
    }

    /// Permits that are free now.
    pub fn available_permits(&self) -> usize {
        self.free.get()
    }

    /// Tasks in line.
    pub fn waiting(&self) -> usize {
        self.waiters.len()
    }

    /// Ends it: whoever waits or comes is refused. Permits in use stay valid.
    pub fn close(&self) {
        self.is_closed.set(true);
        self.waiters.choose_all();
    }

    /// Whether it has been closed.
    pub fn is_closed(&self) -> bool {
        self.is_closed.get()
    }

    /// Takes `count` forgotten permits back into use. False if fewer are forgotten.
    pub(super) fn recover(&self, count: usize) -> bool {
        let Some(left) = self.forgotten.get().checked_sub(count) else { return false };
        self.forgotten.set(left);
        self.give_back(count);
        true
    }

    #[inline]
    fn give_back(&self, count: usize) {
        self.free.set(self.free.get() + count);
        if !self.waiters.is_empty() {
            self.serve();
        }
    }

    /// Gives the free permits to those in line, in order, as far as they go.
    fn serve(&self) {
        while let Some(count) = self.waiters.first() {
            let Some(left) = self.free.get().checked_sub(count) else { break };
            self.free.set(left);
            self.waiters.choose();
        }
    }
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Semaphore")
            .field("free", &self.free.get())
            .field("waiting", &self.waiters.len())
            .field("closed", &self.is_closed.get())
            .finish_non_exhaustive()
    }
}

/// Waits for permits of a [`Semaphore`].
#[must_use = "a future does nothing unless awaited"]
pub struct Acquire<'a> {
    semaphore: &'a Semaphore,
    count: usize,
    turn: Turn<'a, usize>,
}

impl<'a> Future for Acquire<'a> {
    type Output = Result<Permit<'a>, AcquireError>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let (semaphore, count) = (self.semaphore, self.count);
        if !self.turn.has_joined() {
            match semaphore.try_acquire_many(count) {
                Ok(permit) => return Poll::Ready(Ok(permit)),
                Err(TryAcquireError::Closed) => return Poll::Ready(Err(AcquireError(()))),
                Err(TryAcquireError::NoPermits) => {}
            }
        }
        self.turn.poll(count, context.waker()).map(|by| match by {
            By::One => Ok(Permit { semaphore, count }),
            By::All => Err(AcquireError(())),
        })
    }
}

impl Drop for Acquire<'_> {
    #[inline]
    fn drop(&mut self) {
        match self.turn.leave() {
            Some(Left::Chosen(By::One, count)) => self.semaphore.give_back(count),
            // It may have stood before others for whom there is enough.
            Some(Left::Waiting(_)) => self.semaphore.serve(),
            Some(Left::Chosen(By::All, _)) | None => {}
        }
    }
}

/// Permits of a [`Semaphore`], given back when dropped.
#[must_use = "permits are given back when they are dropped"]
#[derive(Debug)]
pub struct Permit<'a> {
    semaphore: &'a Semaphore,
    count: usize,
}

impl Permit<'_> {
    /// How many it holds.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Takes `count` of its permits into a guard of their own.
    ///
    /// # Panics
    /// If it holds fewer.
    pub fn split(&mut self, count: usize) -> Self {
        let left = self.count.checked_sub(count);
        self.count = left.expect("a permit can be split into as many as it holds, not more");
        Self { semaphore: self.semaphore, count }
    }

    /// Keeps the permits out of use for good, or until they are added again.
    pub fn forget(self) {
        let forgotten = &self.semaphore.forgotten;
        forgotten.set(forgotten.get() + self.disarm());
    }

    /// The count, which is no longer this value's to give back.
    fn disarm(mut self) -> usize {
        std::mem::take(&mut self.count)
    }
}

impl Drop for Permit<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.count > 0 {
            self.semaphore.give_back(self.count);
        }
    }
}

/// Permits that hold on to their [`Semaphore`], given back when dropped.
#[must_use = "permits are given back when they are dropped"]
#[derive(Debug)]
pub struct OwnedPermit {
    semaphore: Rc<Semaphore>,
    count: usize,
}

impl OwnedPermit {
    /// How many it holds.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Keeps the permits out of use for good, or until they are added again.
    pub fn forget(mut self) {
        let count = std::mem::take(&mut self.count);
        let forgotten = &self.semaphore.forgotten;
        forgotten.set(forgotten.get() + count);
    }
}

impl Drop for OwnedPermit {
    fn drop(&mut self) {
        if self.count > 0 {
            self.semaphore.give_back(self.count);
        }
    }
}
