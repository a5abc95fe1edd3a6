//! A semaphore that never has more permits than it began with: a release too many is an error.
//!
//! Invariant: permits that are free, held and forgotten add up to the bound.

use std::fmt;
use std::rc::Rc;

use super::error::{AcquireError, TryAcquireError};
use super::semaphore::{Acquire, OwnedPermit, Permit, Semaphore};

/// A [`Semaphore`] with a bound. Permits come back by their guards; one that was taken for good by
/// [`Permit::forget`] comes back by [`BoundedSemaphore::release`], which refuses what was not.
///
/// ```
/// use annulus::{Runtime, sync::BoundedSemaphore};
///
/// Runtime::new()?.block_on(async {
///     let slots = BoundedSemaphore::new(1);
///     slots.acquire().await.unwrap().forget();
///     assert!(slots.try_acquire().is_err());
///     assert!(slots.release().is_ok());
///     assert!(slots.release().is_err()); // Nothing was taken that could come back.
///     assert_eq!(slots.available_permits(), 1);
/// });
/// # annulus::Result::Ok(())
/// ```
#[derive(Debug)]
pub struct BoundedSemaphore {
    semaphore: Rc<Semaphore>,
    bound: usize,
}

impl BoundedSemaphore {
    /// A semaphore with this many permits and never more.
    ///
    /// # Panics
    /// As [`Semaphore::new`].
    pub fn new(permits: usize) -> Self {
        Self { semaphore: Rc::new(Semaphore::new(permits)), bound: permits }
    }

    /// Waits for one permit. Cancel safe. As [`Semaphore::acquire`].
    pub fn acquire(&self) -> Acquire<'_> {
        self.semaphore.acquire()
    }

    /// Waits for `count` permits at once. Cancel safe. As [`Semaphore::acquire_many`].
    ///
    /// # Panics
    /// If `count` is above the bound: there would never be that many.
    pub fn acquire_many(&self, count: usize) -> Acquire<'_> {
        assert!(
            count <= self.bound,
            "{count} permits of a semaphore bounded to {} would never be there; ask for fewer",
            self.bound
        );
        self.semaphore.acquire_many(count)
    }

    /// [`BoundedSemaphore::acquire`] for a permit that may be moved into a task. Cancel safe.
    ///
    /// # Errors
    /// Once the semaphore is closed.
    pub async fn acquire_owned(&self) -> Result<OwnedPermit, AcquireError> {
        Rc::clone(&self.semaphore).acquire_owned().await
    }

    /// One permit, if it is free and nobody is in line for it.
    ///
    /// # Errors
    /// `NoPermits` or `Closed`.
    pub fn try_acquire(&self) -> Result<Permit<'_>, TryAcquireError> {
        self.semaphore.try_acquire()
    }

    /// Gives back one permit that was forgotten.
    ///
    /// # Errors
    /// If none is forgotten: there would be more than at the beginning.
    pub fn release(&self) -> Result<(), OverRelease> {
        if self.semaphore.recover(1) { Ok(()) } else { Err(OverRelease { bound: self.bound }) }
    }

    /// Permits that are free now.
    pub fn available_permits(&self) -> usize {
        self.semaphore.available_permits()
    }

    /// How many there are at most.
    pub fn bound(&self) -> usize {
        self.bound
    }

    /// Ends it: whoever waits or comes is refused.
    pub fn close(&self) {
        self.semaphore.close();
    }

    /// Whether it has been closed.
    pub fn is_closed(&self) -> bool {
        self.semaphore.is_closed()
    }
}

/// A release that would have raised a semaphore above its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverRelease {
    bound: usize,
}

impl fmt::Display for OverRelease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no permit is forgotten: a release would raise it above its {}", self.bound)
    }
}

impl std::error::Error for OverRelease {}

#[cfg(test)]
mod tests {
    use super::super::puppet::{now, pending, woken};
    use super::*;

    #[test]
    fn a_release_above_the_bound_is_an_error() {
        let semaphore = BoundedSemaphore::new(2);
        let error = semaphore.release().unwrap_err();
        assert_eq!(
            error.to_string(),
            "no permit is forgotten: a release would raise it above its 2"
        );
        // A permit that its guard gives back cannot be given back once more.
        let held = now(semaphore.acquire()).unwrap();
        assert!(semaphore.release().is_err());
        drop(held);
        assert_eq!(semaphore.available_permits(), 2);
        now(semaphore.acquire()).unwrap().forget();
        now(semaphore.acquire_owned()).unwrap().forget();
        let waiting = pending(semaphore.acquire());
        assert_eq!(semaphore.release(), Ok(()));
        drop(woken(waiting));
        assert_eq!(semaphore.release(), Ok(()));
        assert!(semaphore.release().is_err());
        assert_eq!(semaphore.available_permits(), 2);
    }

    #[test]
    fn a_cancelled_waiter_takes_no_permit_with_it() {
        let semaphore = BoundedSemaphore::new(1);
        let held = now(semaphore.acquire()).unwrap();
        let (first, second) = (pending(semaphore.acquire()), pending(semaphore.acquire()));
        drop(held);
        assert!(first.is_woken());
        drop(first);
        drop(woken(second));
        assert_eq!(semaphore.available_permits(), 1);
        assert!(semaphore.release().is_err());
    }

    #[test]
    #[should_panic(expected = "3 permits of a semaphore bounded to 2 would never be there")]
    fn more_than_the_bound_is_refused() {
        drop(BoundedSemaphore::new(2).acquire_many(3));
    }
}
