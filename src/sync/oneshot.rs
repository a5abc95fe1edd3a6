//! One value, once, from one task to another of the same shard.
//!
//! Across threads it is [`super::shared::oneshot`]. Invariant: a waker is left only while the other
//! side is there, and taken out before it is woken.

use std::cell::Cell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

pub use super::error::{Canceled, SendError, TryRecvError};

struct Channel<T> {
    value: Cell<Option<T>>,
    /// Who waits for the value.
    receiving: Cell<Option<Waker>>,
    /// Who waits for the receiver to go.
    sending: Cell<Option<Waker>>,
    has_sender: Cell<bool>,
    has_receiver: Cell<bool>,
}

/// Leaves `waker` in `place`; clones it only if another one is there.
#[inline]
fn leave(place: &Cell<Option<Waker>>, waker: &Waker) {
    let left = place.take().filter(|left| left.will_wake(waker));
    place.set(Some(left.unwrap_or_else(|| waker.clone())));
}

#[inline]
fn wake(place: &Cell<Option<Waker>>) {
    if let Some(waker) = place.take() {
        waker.wake();
    }
}

/// A sender and a receiver of one value, for tasks of one shard: one allocation, no atomics.
///
/// ```
/// use annulus::{Runtime, sync::oneshot, task};
///
/// Runtime::new()?.block_on(async {
///     let (sender, receiver) = oneshot::channel();
///     task::spawn(async move { sender.send(666) }).detach();
///     assert_eq!(receiver.await, Ok(666));
/// });
/// # annulus::Result::Ok(())
/// ```
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let channel = Rc::new(Channel {
        value: Cell::new(None),
        receiving: Cell::new(None),
        sending: Cell::new(None),
        has_sender: Cell::new(true),
        has_receiver: Cell::new(true),
    });
    (Sender(Rc::clone(&channel)), Receiver(channel))
}

/// Sends the value. Dropped without one, it tells the receiver.
pub struct Sender<T>(Rc<Channel<T>>);

impl<T> Sender<T> {
    /// Sends the value; the receiver sees it at its next poll.
    ///
    /// # Errors
    /// If the receiver is gone; the value comes back.
    #[inline]
    pub fn send(self, value: T) -> Result<(), SendError<T>> {
        if !self.0.has_receiver.get() {
            return Err(SendError(value));
        }
        // The drop that follows wakes the receiver.
        self.0.value.set(Some(value));
        Ok(())
    }

    /// Whether the receiver is gone.
    pub fn is_closed(&self) -> bool {
        !self.0.has_receiver.get()
    }

    /// Waits until the receiver is gone: nobody wants the value any more. Cancel safe.
    pub async fn closed(&mut self) {
        poll_fn(|context| {
            if self.is_closed() {
                return Poll::Ready(());
            }
            leave(&self.0.sending, context.waker());
            Poll::Pending
        })
        .await;
    }
}

impl<T> Drop for Sender<T> {
    #[inline]
    fn drop(&mut self) {
        self.0.has_sender.set(false);
        wake(&self.0.receiving);
        drop(self.0.sending.take());
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("closed", &self.is_closed()).finish()
    }
}

/// Waits for the value. Cancel safe as `&mut receiver`: the value stays until a poll takes it.
#[must_use = "a future does nothing unless awaited"]
pub struct Receiver<T>(Rc<Channel<T>>);

impl<T> Receiver<T> {
    /// The value, if it is there.
    ///
    /// # Errors
    /// `Empty` while the sender may still send, `Closed` once it is gone or the value was taken.
    pub fn try_recv(&mut self) -> Result<T, TryRecvError> {
        match self.0.value.take() {
            Some(value) => Ok(value),
            None if self.0.has_sender.get() => Err(TryRecvError::Empty),
            None => Err(TryRecvError::Closed),
        }
    }
}

impl<T> Future for Receiver<T> {
    type Output = Result<T, Canceled>;

    #[inline]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(value) = self.0.value.take() {
            return Poll::Ready(Ok(value));
        }
        if !self.0.has_sender.get() {
            return Poll::Ready(Err(Canceled(())));
        }
        leave(&self.0.receiving, context.waker());
        Poll::Pending
    }
}

impl<T> Drop for Receiver<T> {
    #[inline]
    fn drop(&mut self) {
        self.0.has_receiver.set(false);
        // A value that nobody took goes now, not with the sender.
        drop(self.0.value.take());
        drop(self.0.receiving.take());
        wake(&self.0.sending);
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("sender", &self.0.has_sender.get()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::puppet::{Puppet, now, pending, woken};
    use super::*;

    #[test]
    fn a_value_arrives_before_or_after_it_is_waited_for() {
        let (sender, receiver) = channel();
        sender.send(1).unwrap();
        assert_eq!(now(receiver), Ok(1));
        let (sender, mut receiver) = channel();
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
        let wait = pending(&mut receiver);
        sender.send(2).unwrap();
        assert_eq!(woken(wait), Ok(2));
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Closed));
    }

    #[test]
    fn each_side_learns_that_the_other_is_gone() {
        let (sender, receiver) = channel::<u32>();
        let wait = pending(receiver);
        drop(sender);
        assert_eq!(woken(wait), Err(Canceled(())));
        let (mut sender, receiver) = channel();
        let closed = pending(sender.closed());
        drop(receiver);
        woken(closed);
        assert_eq!(sender.send(1), Err(SendError(1)));
    }

    #[test]
    fn a_dropped_wait_leaves_the_value_for_the_next() {
        let value = Rc::new(());
        let (sender, mut receiver) = channel();
        drop(pending(&mut receiver));
        sender.send(Rc::clone(&value)).unwrap();
        drop(Puppet::new(&mut receiver));
        assert!(now(&mut receiver).is_ok());
        let (sender, receiver) = channel();
        sender.send(Rc::clone(&value)).unwrap();
        drop(receiver);
        assert_eq!(Rc::strong_count(&value), 1, "a value that nobody took is dropped");
    }
}
