//! Why a primitive refuses: small types, for callers that decide on them. Each turns into the
//! crate's [`Error`] where nobody does.

use std::fmt;

use crate::error::Error;

/// The other side is gone or the queue is closed; the item comes back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SendError<T>(pub T);

impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SendError(..)")
    }
}

impl<T> fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing can be sent: the queue is closed or its receivers are gone")
    }
}

impl<T> std::error::Error for SendError<T> {}

impl<T> From<SendError<T>> for Error {
    fn from(_: SendError<T>) -> Self {
        Error::closed("the queue or its receiving side")
    }
}

/// Why an item was not taken at once; it comes back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum TrySendError<T> {
    /// There is no room now.
    Full(T),
    /// As [`SendError`].
    Closed(T),
}

impl<T> TrySendError<T> {
    /// The item that was not taken.
    pub fn into_inner(self) -> T {
        match self {
            Self::Full(item) | Self::Closed(item) => item,
        }
    }

    /// Whether there was no room.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full(_))
    }

    /// Whether nothing can be sent any more.
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Closed(_))
    }
}

impl<T> fmt::Debug for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_full() { "Full(..)" } else { "Closed(..)" })
    }
}

impl<T> fmt::Display for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(_) => f.write_str("the queue is full"),
            Self::Closed(_) => {
                f.write_str("nothing can be sent: the queue is closed or its receivers are gone")
            }
        }
    }
}

impl<T> std::error::Error for TrySendError<T> {}

impl<T> From<TrySendError<T>> for Error {
    fn from(error: TrySendError<T>) -> Self {
        match error {
            TrySendError::Full(_) => Error::limit("the queue is full; await send to wait for room"),
            TrySendError::Closed(item) => SendError(item).into(),
        }
    }
}

/// Why no item was there at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TryRecvError {
    /// None now.
    #[error("the queue is empty")]
    Empty,
    /// None any more.
    #[error("the queue is empty and closed")]
    Closed,
}

/// The semaphore has been closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the semaphore is closed")]
pub struct AcquireError(pub(super) ());

impl From<AcquireError> for Error {
    fn from(_: AcquireError) -> Self {
        Error::closed("the semaphore")
    }
}

/// Why no permit was given at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TryAcquireError {
    /// Too few are free, or others are in line.
    #[error("too few permits are free")]
    NoPermits,
    /// The semaphore has been closed.
    #[error("the semaphore is closed")]
    Closed,
}

/// The sender went away without a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sender was dropped without a value")]
pub struct Canceled(pub(super) ());

impl From<Canceled> for Error {
    fn from(_: Canceled) -> Self {
        Error::closed("the sender of the value")
    }
}
