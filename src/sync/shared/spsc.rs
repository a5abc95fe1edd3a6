//! A bounded queue from one thread to another: a ring, and a wake for the side that waits.
//!
//! For a steady flow between two shards, or between a shard and a plain thread. Each side is one
//! handle that may be moved, not cloned. Invariant: a side that waits has left its waker and looked
//! once more since, and the other side looks for wakers after each change, so no wake is lost.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

#[cfg(not(loom))]
use crossbeam_queue::ArrayQueue;
use crossbeam_utils::CachePadded;
#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, Ordering};

#[cfg(loom)]
use self::stand_in::ArrayQueue;
use super::park;
use super::waiter::Waiter;
use crate::limits;
pub use crate::sync::error::{SendError, TryRecvError, TrySendError};

struct Ring<T> {
    items: ArrayQueue<T>,
    /// One of the sides is gone.
    is_closed: AtomicBool,
    sender: CachePadded<Waiter>,
    receiver: CachePadded<Waiter>,
}

/// A queue of at most `capacity` items, which are allocated at once.
///
/// ```
/// use annulus::{Runtime, sync::shared::spsc};
///
/// let (mut sender, mut receiver) = spsc::channel(64);
/// let thread = std::thread::spawn(move || {
///     for item in 0..1000 {
///         sender.send_blocking(item).unwrap();
///     }
/// });
/// Runtime::new()?.block_on(async {
///     let mut expected = 0;
///     while let Some(item) = receiver.recv().await {
///         assert_eq!(item, expected);
///         expected += 1;
///     }
///     assert_eq!(expected, 1000);
/// });
/// thread.join().unwrap();
/// # annulus::Result::Ok(())
/// ```
///
/// # Panics
/// If `capacity` is 0 or above [`limits::SPSC_ITEMS_COUNT_MAX`].
pub fn channel<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    assert!(
        (1..=limits::SPSC_ITEMS_COUNT_MAX).contains(&capacity),
        "a queue between threads holds 1 to limits::SPSC_ITEMS_COUNT_MAX items, not {capacity}"
    );
    let ring = Arc::new(Ring {
        items: ArrayQueue::new(capacity),
        is_closed: AtomicBool::new(false),
        sender: CachePadded::new(Waiter::new()),
        receiver: CachePadded::new(Waiter::new()),
    });
    (Sender(Arc::clone(&ring)), Receiver(ring))
}

impl<T> Ring<T> {
    fn push(&self, item: T) -> Result<(), TrySendError<T>> {
        if self.is_closed.load(Ordering::Relaxed) {
            return Err(TrySendError::Closed(item));
        }
        self.items.push(item).map_err(TrySendError::Full)?;
        self.receiver.wake();
        Ok(())
    }

    fn pop(&self) -> Result<T, TryRecvError> {
        let mut item = self.items.pop();
        if item.is_none() {
            if !self.is_closed.load(Ordering::Acquire) {
                return Err(TryRecvError::Empty);
            }
            // What was sent before the close is there now.
            item = self.items.pop();
        }
        let item = item.ok_or(TryRecvError::Closed)?;
        self.sender.wake();
        Ok(item)
    }
}

/// The sending side. Dropping it ends the queue: the receiver drains it, then gets `None`.
pub struct Sender<T>(Arc<Ring<T>>);

impl<T> Sender<T> {
    /// Sends an item, waiting for room.
    ///
    /// Cancel safe: a dropped send has sent nothing, and its item is dropped with it.
    ///
    /// # Errors
    /// If the receiver is gone; the item comes back.
    pub fn send(&mut self, item: T) -> Send<'_, T> {
        Send { ring: &self.0, item: Some(item), has_waited: false }
    }

    /// Sends an item if there is room.
    ///
    /// # Errors
    /// `Full` or `Closed`, with the item.
    pub fn try_send(&mut self, item: T) -> Result<(), TrySendError<T>> {
        self.0.push(item)
    }

    /// [`Sender::send`] for a plain thread.
    ///
    /// # Errors
    /// As [`Sender::send`].
    ///
    /// # Panics
    /// On a shard, if it would have to wait: all tasks of the shard would stand still.
    pub fn send_blocking(&mut self, item: T) -> Result<(), SendError<T>> {
        match self.try_send(item) {
            Ok(()) => Ok(()),
            Err(TrySendError::Closed(item)) => Err(SendError(item)),
            Err(TrySendError::Full(item)) => park::wait(self.send(item)),
        }
    }

    /// Whether the receiver is gone.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed.load(Ordering::Relaxed)
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.is_closed.store(true, Ordering::Release);
        self.0.receiver.wake();
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("closed", &self.is_closed()).finish()
    }
}

/// Waits for room.
#[must_use = "a future does nothing unless awaited"]
pub struct Send<'a, T> {
    ring: &'a Ring<T>,
    /// `None` once it has been sent.
    item: Option<T>,
    has_waited: bool,
}

// The item is moved out, never pinned.
impl<T> Unpin for Send<'_, T> {}

impl<T> Future for Send<'_, T> {
    type Output = Result<(), SendError<T>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut item = self.item.take().expect("a send is not polled after it is ready");
        for has_left_waker in [false, true] {
            if has_left_waker {
                self.has_waited = true;
                self.ring.sender.wait(context.waker());
            }
            match self.ring.push(item) {
                Ok(()) => return Poll::Ready(Ok(())),
                Err(TrySendError::Closed(item)) => return Poll::Ready(Err(SendError(item))),
                Err(TrySendError::Full(full)) => item = full,
            }
        }
        self.item = Some(item);
        Poll::Pending
    }
}

impl<T> Drop for Send<'_, T> {
    fn drop(&mut self) {
        if self.has_waited {
            self.ring.sender.leave();
        }
    }
}

/// The receiving side, and a stream of its items. Dropping it drops what is queued.
pub struct Receiver<T>(Arc<Ring<T>>);

impl<T> Receiver<T> {
    /// The next item, waiting for one. `None` once the sender is gone and the queue is empty.
    ///
    /// Cancel safe: a dropped receive has taken nothing.
    pub fn recv(&mut self) -> Recv<'_, T> {
        Recv { receiver: self, has_waited: false }
    }

    /// The next item, if there is one.
    ///
    /// # Errors
    /// `Empty`, or `Closed` once the sender is gone as well.
    pub fn try_recv(&mut self) -> Result<T, TryRecvError> {
        self.0.pop()
    }

    /// [`Receiver::recv`] for hand-written futures: the waker of the last poll is the one woken.
    pub fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Option<T>> {
        for has_left_waker in [false, true] {
            if has_left_waker {
                self.0.receiver.wait(context.waker());
            }
            match self.0.pop() {
                Ok(item) => return Poll::Ready(Some(item)),
                Err(TryRecvError::Closed) => return Poll::Ready(None),
                Err(TryRecvError::Empty) => {}
            }
        }
        Poll::Pending
    }

    /// [`Receiver::recv`] for a plain thread.
    ///
    /// # Panics
    /// On a shard, if it would have to wait: all tasks of the shard would stand still.
    pub fn recv_blocking(&mut self) -> Option<T> {
        match self.try_recv() {
            Ok(item) => Some(item),
            Err(TryRecvError::Closed) => None,
            Err(TryRecvError::Empty) => park::wait(self.recv()),
        }
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
        self.0.is_closed.store(true, Ordering::Release);
        self.0.receiver.leave();
        while self.0.items.pop().is_some() {}
        self.0.sender.wake();
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_closed = self.0.is_closed.load(Ordering::Relaxed);
        f.debug_struct("Receiver").field("closed", &is_closed).finish()
    }
}

/// Waits for an item.
#[must_use = "a future does nothing unless awaited"]
pub struct Recv<'a, T> {
    receiver: &'a mut Receiver<T>,
    has_waited: bool,
}

impl<T> Future for Recv<'_, T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let polled = self.receiver.poll_recv(context);
        self.has_waited |= polled.is_pending();
        polled
    }
}

impl<T> Drop for Recv<'_, T> {
    fn drop(&mut self) {
        if self.has_waited {
            self.receiver.0.receiver.leave();
        }
    }
}

#[cfg(loom)]
mod stand_in {
    use std::collections::VecDeque;
    use std::sync::PoisonError;

    use loom::sync::atomic::AtomicUsize;

    use super::Ordering;

    /// Stands for the queue, which is not what is checked: what is pushed is popped in order, and
    /// a pop sees what its push did before; nothing else is promised.
    pub(super) struct ArrayQueue<T> {
        capacity: usize,
        length: AtomicUsize,
        items: std::sync::Mutex<VecDeque<T>>,
    }

    impl<T> ArrayQueue<T> {
        pub(super) fn new(capacity: usize) -> Self {
            Self { capacity, length: AtomicUsize::new(0), items: std::sync::Mutex::default() }
        }

        pub(super) fn push(&self, item: T) -> Result<(), T> {
            if self.length.load(Ordering::Acquire) == self.capacity {
                return Err(item);
            }
            self.items.lock().unwrap_or_else(PoisonError::into_inner).push_back(item);
            self.length.fetch_add(1, Ordering::Release);
            Ok(())
        }

        pub(super) fn pop(&self) -> Option<T> {
            if self.length.load(Ordering::Acquire) == 0 {
                return None;
            }
            let item = self.items.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            self.length.fetch_sub(1, Ordering::Release);
            item
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;

#[cfg(all(test, loom))]
mod loom_tests;
