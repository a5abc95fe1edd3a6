//! A value or an error that is set once, later, by reference: asyncio's `Future`.
//!
//! A [`oneshot`] whose sender stays: a second set is told that it came too late.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::oneshot::{self, Receiver, Sender};
use crate::error::Error;

/// Sets the value or the error that a [`Promised`] waits for, once.
///
/// ```
/// use annulus::{Runtime, sync::Promise};
///
/// Runtime::new()?.block_on(async {
///     let (promise, promised) = Promise::<&str>::pair();
///     assert!(promise.set("666").is_ok());
///     assert!(promise.set("667").is_err());
///     assert_eq!(promised.await.unwrap(), "666");
/// });
/// # annulus::Result::Ok(())
/// ```
pub struct Promise<T, E = Error> {
    /// `None` once set.
    sender: Cell<Option<Sender<Result<T, E>>>>,
}

impl<T, E> Promise<T, E> {
    /// A promise and what waits for it.
    pub fn pair() -> (Self, Promised<T, E>) {
        let (sender, receiver) = oneshot::channel();
        (Self { sender: Cell::new(Some(sender)) }, Promised(receiver))
    }

    /// Keeps the promise. If nobody waits any more, the value is dropped.
    ///
    /// # Errors
    /// If it has been set before; the value comes back.
    pub fn set(&self, value: T) -> Result<(), AlreadySet<T>> {
        match self.sender.take() {
            Some(sender) => {
                drop(sender.send(Ok(value)));
                Ok(())
            }
            None => Err(AlreadySet(value)),
        }
    }

    /// Breaks the promise with an error.
    ///
    /// # Errors
    /// If it has been set before; the error comes back.
    pub fn fail(&self, error: E) -> Result<(), AlreadySet<E>> {
        match self.sender.take() {
            Some(sender) => {
                drop(sender.send(Err(error)));
                Ok(())
            }
            None => Err(AlreadySet(error)),
        }
    }

    /// Whether it has been set, to a value or an error.
    pub fn is_set(&self) -> bool {
        let sender = self.sender.take();
        let is_set = sender.is_none();
        self.sender.set(sender);
        is_set
    }
}

impl<T, E> fmt::Debug for Promise<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Promise").field("set", &self.is_set()).finish_non_exhaustive()
    }
}

/// Waits for what a [`Promise`] is set to. Cancel safe as `&mut promised`.
#[must_use = "a future does nothing unless awaited"]
#[derive(Debug)]
pub struct Promised<T, E = Error>(Receiver<Result<T, E>>);

impl<T, E> Future for Promised<T, E> {
    type Output = Result<T, Broken<E>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|received| match received {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(Broken::Failed(error)),
            Err(_) => Err(Broken::Canceled),
        })
    }
}

/// A promise that had been set already; what came too late is inside.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct AlreadySet<T>(pub T);

impl<T> fmt::Debug for AlreadySet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AlreadySet(..)")
    }
}

impl<T> fmt::Display for AlreadySet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it has been set already")
    }
}

impl<T> std::error::Error for AlreadySet<T> {}

/// Why a promise gave no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken<E> {
    /// It was set to an error.
    #[error("{0}")]
    Failed(E),
    /// It was dropped without being set.
    #[error("the promise was dropped without being set")]
    Canceled,
}
