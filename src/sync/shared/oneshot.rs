//! One value, once, from any thread to any task or thread.
//!
//! The replies of other shards and of the cpu pool come this way. A sender that goes away without
//! sending says so, and whether it was by a panic. Invariant: a value is received, or comes back to
//! its sender, or is dropped with the receiver; never two of these.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::PoisonError;
#[cfg(not(loom))]
use std::sync::{Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

#[cfg(loom)]
use loom::sync::{Mutex, MutexGuard};

use super::park;
use crate::error::Error;
pub use crate::sync::error::{SendError, TryRecvError};

/// Why no value will come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// The sender was dropped.
    #[error("the sender was dropped without a value")]
    Dropped,
    /// The sender was dropped by a panic.
    #[error("the sender was dropped by a panic")]
    Panicked,
}

impl From<Lost> for Error {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::Dropped => Error::closed("the sender of the value"),
            Lost::Panicked => Error::panicked("the sender of the value (see the log)"),
        }
    }
}

enum State<T> {
    Empty(Option<Waker>),
    Sent(Result<T, Lost>),
    Taken,
    /// The receiver is gone.
    Unwanted,
}

struct Channel<T>(Mutex<State<T>>);

impl<T> Channel<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the result back if nobody wants it.
    fn send(&self, result: Result<T, Lost>) -> Result<(), Result<T, Lost>> {
        let mut state = self.lock();
        if matches!(*state, State::Unwanted) {
            return Err(result);
        }
        let before = std::mem::replace(&mut *state, State::Sent(result));
        drop(state);
        if let State::Empty(Some(waker)) = before {
            waker.wake();
        }
        Ok(())
    }
}

/// A sender and a receiver of one value, each for any thread.
///
/// ```
/// use annulus::{Runtime, sync::shared::oneshot};
///
/// let (sender, receiver) = oneshot::channel();
/// let thread = std::thread::spawn(move || sender.send(300));
/// assert_eq!(Runtime::new()?.block_on(receiver), Ok(300));
/// thread.join().unwrap().unwrap();
/// # annulus::Result::Ok(())
/// ```
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let channel = Arc::new(Channel(Mutex::new(State::Empty(None))));
    (Sender(Some(Arc::clone(&channel))), Receiver(channel))
}

/// Sends the value. Dropped without one, it tells the receiver.
pub struct Sender<T>(Option<Arc<Channel<T>>>);

impl<T> Sender<T> {
    /// Sends the value.
    ///
    /// # Errors
    /// If the receiver is gone; the value comes back.
    pub fn send(mut self, value: T) -> Result<(), SendError<T>> {
        let channel = self.0.take().expect("it is there until it is sent or dropped");
        match channel.send(Ok(value)) {
            Err(Ok(value)) => Err(SendError(value)),
            Ok(()) | Err(Err(_)) => Ok(()),
        }
    }

    /// Whether the receiver is gone: nobody wants the value any more.
    pub fn is_closed(&self) -> bool {
        self.0.as_ref().is_none_or(|channel| matches!(*channel.lock(), State::Unwanted))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if let Some(channel) = self.0.take() {
            let panicked = std::thread::panicking();
            let lost = if panicked { Lost::Panicked } else { Lost::Dropped };
            drop(channel.send(Err(lost)));
        }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("closed", &self.is_closed()).finish()
    }
}

/// Waits for the value. Cancel safe as `&mut receiver`: the value stays until a poll takes it.
///
/// # Panics
/// When polled after it was ready.
#[must_use = "a future does nothing unless awaited"]
pub struct Receiver<T>(Arc<Channel<T>>);

impl<T> Receiver<T> {
    /// The value, if it is there.
    ///
    /// # Errors
    /// `Empty` while the sender may still send, `Closed` once it is gone or the value was taken.
    pub fn try_recv(&mut self) -> Result<T, TryRecvError> {
        let mut state = self.0.lock();
        match std::mem::replace(&mut *state, State::Taken) {
            State::Sent(Ok(value)) => Ok(value),
            State::Empty(waker) => {
                *state = State::Empty(waker);
                Err(TryRecvError::Empty)
            }
            State::Sent(Err(lost)) => {
                *state = State::Sent(Err(lost));
                Err(TryRecvError::Closed)
            }
            State::Taken | State::Unwanted => Err(TryRecvError::Closed),
        }
    }

    /// Waits on a plain thread.
    ///
    /// # Errors
    /// [`Lost`] if no value will come.
    ///
    /// # Panics
    /// On a shard, whose tasks would all stand still.
    pub fn recv_blocking(self) -> Result<T, Lost> {
        park::wait(self)
    }

    /// [`Receiver::recv_blocking`] for at most `duration`; `None` if that is over first. The value
    /// may be waited for again then.
    ///
    /// # Panics
    /// As [`Receiver::recv_blocking`].
    pub fn recv_timeout(&mut self, duration: Duration) -> Option<Result<T, Lost>> {
        park::wait_until(self, Some(crate::clock::now() + duration))
    }
}

impl<T> Future for Receiver<T> {
    type Output = Result<T, Lost>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.0.lock();
        let old = match std::mem::replace(&mut *state, State::Taken) {
            State::Sent(result) => return Poll::Ready(result),
            State::Empty(old) => old,
            State::Taken | State::Unwanted => panic!("a oneshot is not polled after its value"),
        };
        let left = old.as_ref().is_some_and(|old| old.will_wake(context.waker()));
        let (waker, old) = if left { (old, None) } else { (Some(context.waker().clone()), old) };
        *state = State::Empty(waker);
        drop(state);
        drop(old);
        Poll::Pending
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let left = std::mem::replace(&mut *self.0.lock(), State::Unwanted);
        drop(left);
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_sent = matches!(*self.0.lock(), State::Sent(_));
        f.debug_struct("Receiver").field("sent", &is_sent).finish()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::super::puppet::{now, pending, woken};
    use super::*;

    #[test]
    fn the_value_arrives_once() {
        let (sender, mut receiver) = channel();
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
        let waiting = pending(&mut receiver);
        sender.send(5).unwrap();
        assert_eq!(woken(waiting), Ok(5));
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Closed));
    }

    #[test]
    fn a_lost_sender_says_why() {
        let (sender, mut receiver) = channel::<()>();
        drop(sender);
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Closed));
        assert_eq!(now(receiver), Err(Lost::Dropped));
        let (sender, receiver) = channel::<()>();
        let thread = std::thread::spawn(move || {
            let _sender = sender;
            panic!("on purpose");
        });
        assert!(thread.join().is_err());
        assert_eq!(receiver.recv_blocking(), Err(Lost::Panicked));
    }

    #[test]
    fn a_value_that_nobody_wants_comes_back() {
        let (sender, receiver) = channel();
        assert!(!sender.is_closed());
        drop(receiver);
        assert!(sender.is_closed());
        assert_eq!(sender.send(5), Err(SendError(5)));
    }

    #[test]
    fn a_plain_thread_waits_until_it_comes_or_the_time_is_over() {
        let (sender, mut receiver) = channel();
        assert_eq!(receiver.recv_timeout(Duration::from_millis(1)), None);
        let thread = std::thread::spawn(move || sender.send(5).unwrap());
        assert_eq!(receiver.recv_blocking(), Ok(5));
        thread.join().unwrap();
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::super::sleep;
    use super::*;

    #[test]
    fn a_receiver_sleeps_neither_through_a_value_nor_through_a_loss() {
        for sends in [true, false] {
            loom::model(move || {
                let (sender, receiver) = channel();
                let sending = loom::thread::spawn(move || {
                    if sends {
                        sender.send(5).unwrap();
                    }
                });
                let expected = if sends { Ok(5) } else { Err(Lost::Dropped) };
                assert_eq!(sleep::wait(receiver), expected);
                sending.join().unwrap();
            });
        }
    }

    #[test]
    fn a_value_is_with_one_side_when_the_receiver_goes() {
        loom::model(|| {
            let value = std::sync::Arc::new(());
            let (sender, mut receiver) = channel();
            let sent = std::sync::Arc::clone(&value);
            let sending = loom::thread::spawn(move || sender.send(sent).is_ok());
            let is_received = receiver.try_recv().is_ok();
            drop(receiver);
            let is_sent = sending.join().unwrap();
            assert!(is_sent || !is_received);
            assert_eq!(std::sync::Arc::strong_count(&value), 1);
        });
    }
}
