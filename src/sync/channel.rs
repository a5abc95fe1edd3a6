//! A queue with two sides: it ends when either side is gone. For the tasks of one shard.
//!
//! Any number of senders and of receivers; each item goes to one receiver. Between shards it is
//! [`super::shared::spsc`], from any thread [`super::shared::channel`]. Invariant: the queue is
//! closed as soon as one side has no handle left.

use std::cell::Cell;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

pub use super::error::{SendError, TryRecvError, TrySendError};
use super::queue::{Fifo, Get, Put, Queue};
use super::wait_list::Ticket;

/// Waits for room in a channel.
pub type Send<'a, T> = Put<'a, T, Fifo<T>>;

/// Waits for an item of a channel.
pub type Recv<'a, T> = Get<'a, T, Fifo<T>>;

struct Shared<T> {
    queue: Queue<T>,
    senders: Cell<usize>,
    receivers: Cell<usize>,
}

/// A channel of at most `capacity` items: a send beyond waits. See [`Queue`] for how few wakes it
/// needs.
///
/// ```
/// use annulus::{Runtime, sync::channel, task};
///
/// Runtime::new()?.block_on(async {
///     let (sender, receiver) = channel::bounded(2);
///     task::spawn(async move {
///         for item in 0..5 {
///             sender.send(item).await.unwrap(); // Waits while two are queued.
///         }
///     })
///     .detach();
///     let mut received = Vec::new();
///     while let Some(item) = receiver.recv().await {
///         received.push(item);
///     }
///     assert_eq!(received, [0, 1, 2, 3, 4]);
/// });
/// # annulus::Result::Ok(())
/// ```
///
/// # Panics
/// If `capacity` is 0.
pub fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    sides(Queue::bounded(capacity))
}

/// A channel without a limit: a send never waits. For items whose number is bounded by something
/// else.
pub fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    sides(Queue::unbounded())
}

fn sides<T>(queue: Queue<T>) -> (Sender<T>, Receiver<T>) {
    let shared = Rc::new(Shared { queue, senders: Cell::new(1), receivers: Cell::new(1) });
    (Sender(Rc::clone(&shared)), Receiver { shared, ticket: None })
}

/// The sending side of a channel. The channel closes when its last clone is dropped.
pub struct Sender<T>(Rc<Shared<T>>);

impl<T> Sender<T> {
    /// Sends an item, waiting for room. Cancel safe: a dropped send has sent nothing, and its item
    /// is dropped with it.
    ///
    /// # Errors
    /// If the channel is closed or has no receiver left; the item comes back.
    #[inline]
    pub fn send(&self, item: T) -> Send<'_, T> {
        self.0.queue.put(item)
    }

    /// Sends an item if there is room.
    ///
    /// # Errors
    /// `Full` or `Closed`, with the item.
    #[inline]
    pub fn try_send(&self, item: T) -> Result<(), TrySendError<T>> {
        self.0.queue.try_put(item)
    }

    /// Ends the channel from this side: what is queued is still received.
    pub fn close(&self) {
        self.0.queue.close();
    }

    /// Whether nothing can be sent any more.
    pub fn is_closed(&self) -> bool {
        self.0.queue.is_closed()
    }

    /// Items that are queued.
    pub fn len(&self) -> usize {
        self.0.queue.len()
    }

    /// Whether nothing is queued.
    pub fn is_empty(&self) -> bool {
        self.0.queue.is_empty()
    }

    /// How many items it may hold; `None` without a limit.
    pub fn capacity(&self) -> Option<usize> {
        self.0.queue.capacity()
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.senders.set(self.0.senders.get() + 1);
        Self(Rc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let left = self.0.senders.get() - 1;
        self.0.senders.set(left);
        if left == 0 {
            self.0.queue.close();
        }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("queue", &self.0.queue).finish()
    }
}

/// The receiving side of a channel, and a stream of its items, see [`Receiver::poll_recv`]. When
/// its last clone is dropped the channel closes and what is queued is dropped.
pub struct Receiver<T> {
    shared: Rc<Shared<T>>,
    /// The waker of [`Receiver::poll_recv`]. Whoever polled may never come again, so it is in no
    /// one's way.
    ticket: Option<Ticket>,
}

impl<T> Receiver<T> {
    /// The next item, waiting for one. `None` once the channel is closed and empty.
    ///
    /// Cancel safe: a dropped receive has taken nothing.
    #[inline]
    pub fn recv(&self) -> Recv<'_, T> {
        self.shared.queue.get()
    }

    /// The next item, if there is one.
    ///
    /// # Errors
    /// `Empty`, or `Closed` once it is closed as well as empty.
    #[inline]
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        self.shared.queue.try_get()
    }

    /// [`Receiver::recv`] for hand-written futures and for the stream: the waker of the last poll
    /// is the one woken.
    ///
    /// It takes no place in line, so it may be polled once and never again: who waits by
    /// [`Receiver::recv`] is served first, and an item for which nobody does wakes every receiver
    /// that was polled. The first to come has it, the others are pending again.
    #[inline]
    pub fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Option<T>> {
        self.shared.queue.poll_watch(&mut self.ticket, context)
    }

    /// Ends the channel from this side: nothing more is sent, what is queued is still received.
    pub fn close(&self) {
        self.shared.queue.close();
    }

    /// Whether nothing can be sent any more.
    pub fn is_closed(&self) -> bool {
        self.shared.queue.is_closed()
    }

    /// Items that are queued.
    pub fn len(&self) -> usize {
        self.shared.queue.len()
    }

    /// Whether nothing is queued.
    pub fn is_empty(&self) -> bool {
        self.shared.queue.is_empty()
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.shared.receivers.set(self.shared.receivers.get() + 1);
        Self { shared: Rc::clone(&self.shared), ticket: None }
    }
}

impl<T> futures_core::Stream for Receiver<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        self.poll_recv(context)
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.shared.queue.unwatch(&mut self.ticket);
        let left = self.shared.receivers.get() - 1;
        self.shared.receivers.set(left);
        if left == 0 {
            self.shared.queue.discard();
        }
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("queue", &self.shared.queue).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
