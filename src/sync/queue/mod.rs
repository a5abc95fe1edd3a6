//! Queues for the tasks of one shard, with back-pressure, an end, and a count of work not done.
//!
//! [`super::channel`] is the same with a sending and a receiving side. Invariants: whoever is in
//! line to receive has no item, whoever is in line to send has no room; an item or a room is
//! promised to the one woken for it, so a newcomer never overtakes, and the promise is passed on if
//! it is not taken. Who polls by hand gets no promise, since nobody says when it gives up: as soon
//! as an item is there that is not promised, all of them are woken. A queue that only moves items
//! allocates nothing.

mod store;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

pub use self::store::{Fifo, Lifo, Priority, Store};
pub use super::error::{SendError, TryRecvError, TrySendError};
use super::wait_list::{By, Left, Ticket, Turn, WaitList};

/// A queue that gives the last item first.
pub type LifoQueue<T> = Queue<T, Lifo<T>>;

/// A queue that gives the smallest item first, and equal items in the order of their arrival.
/// Wrap items in [`std::cmp::Reverse`] for the greatest first.
pub type PriorityQueue<T> = Queue<T, Priority<T>>;

/// A queue between the tasks of one shard: any number of them put and get, by reference.
///
/// Wakes are few: a put wakes a task only if one waits, and a task that has been woken finds
/// everything that was put until it runs.
///
/// ```
/// use std::rc::Rc;
/// use annulus::{Runtime, sync::queue::Queue, task};
///
/// Runtime::new()?.block_on(async {
///     let jobs = Rc::new(Queue::<u32>::bounded(2));
///     let worker = task::spawn({
///         let jobs = Rc::clone(&jobs);
///         async move {
///             let mut sum = 0;
///             while let Some(job) = jobs.get().await {
///                 sum += job;
///                 jobs.task_done();
///             }
///             sum
///         }
///     });
///     for job in 1..=4 {
///         jobs.put(job).await.unwrap(); // Waits while two are queued.
///     }
///     jobs.join().await; // All four have been worked on.
///     jobs.close();
///     assert_eq!(worker.await.unwrap(), 10);
/// });
/// # annulus::Result::Ok(())
/// ```
pub struct Queue<T, S: Store<T> = Fifo<T>> {
    items: RefCell<S>,
    capacity: usize,
    is_closed: Cell<bool>,
    /// Those who wait for an item.
    getters: WaitList,
    /// Items that are promised to getters that have been woken.
    promised_items: Cell<usize>,
    /// Those who poll for an item by hand: nobody among them while an unpromised item is there.
    watchers: WaitList,
    /// Those who wait for room.
    putters: WaitList,
    /// Room that is promised to putters that have been woken.
    promised_room: Cell<usize>,
    /// Items put and not reported as done.
    unfinished: Cell<usize>,
    joiners: WaitList,
    item: std::marker::PhantomData<T>,
}

impl<T, S: Store<T>> Queue<T, S> {
    /// A queue of at most `capacity` items; a put beyond waits.
    ///
    /// # Panics
    /// If `capacity` is 0: such a queue could never hold an item.
    pub fn bounded(capacity: usize) -> Self {
        assert!(
            capacity > 0,
            "a queue of capacity 0 can hold no item; give it at least 1, or use a oneshot for \
             a single hand-over"
        );
        Self::with_capacity(capacity)
    }

    /// A queue without a limit: a put never waits. For items whose number is bounded by something
    /// else.
    pub fn unbounded() -> Self {
        Self::with_capacity(usize::MAX)
    }

    fn with_capacity(capacity: usize) -> Self {
        Self {
            items: RefCell::default(),
            capacity,
            is_closed: Cell::new(false),
            getters: WaitList::new(),
            promised_items: Cell::new(0),
            watchers: WaitList::new(),
            putters: WaitList::new(),
            promised_room: Cell::new(0),
            unfinished: Cell::new(0),
            joiners: WaitList::new(),
            item: std::marker::PhantomData,
        }
    }

    /// Puts an item, waiting for room. Those who wait are served in order.
    ///
    /// Cancel safe: a dropped put has put nothing, and its item is dropped with it.
    ///
    /// # Errors
    /// If the queue is closed; the item comes back.
    #[inline]
    pub fn put(&self, item: T) -> Put<'_, T, S> {
        Put { queue: self, item: Some(item), turn: Turn::new(&self.putters) }
    }

    /// Puts an item if there is room that is not promised to somebody who waits.
    ///
    /// # Errors
    /// `Full` or `Closed`, with the item.
    #[inline]
    pub fn try_put(&self, item: T) -> Result<(), TrySendError<T>> {
        if self.is_closed.get() {
            return Err(TrySendError::Closed(item));
        }
        let mut items = self.items.borrow_mut();
        if items.count() >= self.capacity - self.promised_room.get() {
            return Err(TrySendError::Full(item));
        }
        items.push(item);
        drop(items);
        self.unfinished.set(self.unfinished.get() + 1);
        self.promise_item();
        Ok(())
    }

    /// Gets the next item, waiting for one. `None` once the queue is closed and empty. Those who
    /// wait are served in order.
    ///
    /// Cancel safe: a dropped get has taken nothing.
    #[inline]
    pub fn get(&self) -> Get<'_, T, S> {
        Get { queue: self, turn: Turn::new(&self.getters) }
    }

    /// Gets the next item that is not promised to somebody who waits.
    ///
    /// # Errors
    /// `Empty`, or `Closed` once it is closed as well as empty.
    #[inline]
    pub fn try_get(&self) -> Result<T, TryRecvError> {
        let mut items = self.items.borrow_mut();
        let length = items.count();
        if length > self.promised_items.get()
            && let Some(item) = items.pop()
        {
            drop(items);
            self.after_pop(length - 1);
            return Ok(item);
        }
        let is_over = length == 0 && self.is_closed.get();
        Err(if is_over { TryRecvError::Closed } else { TryRecvError::Empty })
    }

    /// Says that one item gotten before has been worked on.
    ///
    /// # Panics
    /// If it is called more often than items were put.
    pub fn task_done(&self) {
        let left = self.unfinished.get().checked_sub(1);
        let left = left.expect("task_done is called once for each item that was put, not more");
        self.unfinished.set(left);
        if left == 0 {
            self.joiners.choose_all();
        }
    }

    /// Waits until every item put so far has been reported by [`Queue::task_done`]. Cancel safe.
    pub fn join(&self) -> Join<'_, T, S> {
        Join { queue: self, turn: Turn::new(&self.joiners) }
    }

    /// Ends the queue: puts are refused, waiting ones too; gets drain what is left, then give
    /// `None`.
    pub fn close(&self) {
        if !self.is_closed.replace(true) {
            self.putters.choose_all();
            if self.is_empty() {
                self.end_gets();
            }
        }
    }

    /// Whether it has been closed.
    pub fn is_closed(&self) -> bool {
        self.is_closed.get()
    }

    /// Items in the queue.
    pub fn len(&self) -> usize {
        self.items.borrow().count()
    }

    /// Whether it holds no item.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a put would wait now.
    pub fn is_full(&self) -> bool {
        self.len() >= self.capacity - self.promised_room.get()
    }

    /// How many items it may hold; `None` without a limit.
    pub fn capacity(&self) -> Option<usize> {
        (self.capacity < usize::MAX).then_some(self.capacity)
    }

    /// Items put and not yet reported by [`Queue::task_done`].
    pub fn unfinished(&self) -> usize {
        self.unfinished.get()
    }

    /// Closes it and drops what is left.
    pub(super) fn discard(&self) {
        self.close();
        // Dropped when nothing is borrowed: an item's drop may come back here.
        let left = self.items.take();
        drop(left);
        self.promised_items.set(0);
        self.end_gets();
    }

    /// It is closed and empty: nobody gets anything any more.
    fn end_gets(&self) {
        self.getters.choose_all();
        self.watchers.choose_all();
    }

    /// Promises one unpromised item, if there is one, to the first who waits. If nobody does, shows
    /// it to all who watch: any of them may have given up, so none is woken in another's place.
    #[inline]
    fn promise_item(&self) {
        if self.getters.is_empty() && self.watchers.is_empty() {
            return;
        }
        let promised = self.promised_items.get();
        if self.len() <= promised {
            return;
        }
        if self.getters.is_empty() {
            self.watchers.choose_all();
        } else {
            self.promised_items.set(promised + 1);
            self.getters.choose();
        }
    }

    /// The same for room.
    #[inline]
    fn promise_room(&self) {
        let promised = self.promised_room.get();
        if !self.putters.is_empty() && self.len() < self.capacity - promised {
            self.promised_room.set(promised + 1);
            self.putters.choose();
        }
    }

    /// An item was taken and `left` are there.
    #[inline]
    fn after_pop(&self, left: usize) {
        if !self.putters.is_empty() {
            self.promise_room();
        }
        if left == 0 && self.is_closed.get() {
            self.end_gets();
        }
    }

    /// What a getter does with its turn.
    fn redeem_item(&self, by: By) -> Option<T> {
        if by == By::All {
            return None; // Closed and empty.
        }
        let promised = self.promised_items.get();
        let mut items = self.items.borrow_mut();
        // Nothing is left if all was discarded meanwhile.
        let item = items.pop()?;
        let left = items.count();
        drop(items);
        self.promised_items.set(promised - 1);
        self.after_pop(left);
        Some(item)
    }

    /// Polls for an item by hand: pending, the waker is woken once there is something to look at.
    /// `ticket` is given up by [`Queue::unwatch`], or kept for as long as anyone likes.
    #[inline]
    pub(super) fn poll_watch(
        &self,
        ticket: &mut Option<Ticket>,
        context: &mut Context<'_>,
    ) -> Poll<Option<T>> {
        if let Some(waiting) = *ticket {
            if self.watchers.poll(waiting, context.waker()).is_pending() {
                return Poll::Pending;
            }
            *ticket = None;
        }
        match self.try_get() {
            Ok(item) => Poll::Ready(Some(item)),
            Err(TryRecvError::Closed) => Poll::Ready(None),
            Err(TryRecvError::Empty) => {
                *ticket = Some(self.watchers.join((), context.waker()));
                Poll::Pending
            }
        }
    }

    /// Gives up watching. There is nothing to pass on: the others were woken as well.
    pub(super) fn unwatch(&self, ticket: &mut Option<Ticket>) {
        if let Some(ticket) = ticket.take() {
            self.watchers.leave(ticket);
        }
    }
}

impl<T, S: Store<T>> fmt::Debug for Queue<T, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("length", &self.len())
            .field("capacity", &self.capacity())
            .field("closed", &self.is_closed.get())
            .finish_non_exhaustive()
    }
}

/// Puts an item into a [`Queue`].
#[must_use = "a future does nothing unless awaited"]
pub struct Put<'a, T, S: Store<T>> {
    queue: &'a Queue<T, S>,
    /// `None` once it has been put.
    item: Option<T>,
    turn: Turn<'a>,
}

// The item is moved out, never pinned.
impl<T, S: Store<T>> Unpin for Put<'_, T, S> {}

impl<T, S: Store<T>> Future for Put<'_, T, S> {
    type Output = Result<(), SendError<T>>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let queue = self.queue;
        if self.turn.has_joined() {
            match self.turn.poll((), context.waker()) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(By::One) => queue.promised_room.set(queue.promised_room.get() - 1),
                Poll::Ready(By::All) => {} // Closed.
            }
        }
        let item = self.item.take().expect("a put is not polled after it is ready");
        match queue.try_put(item) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(TrySendError::Closed(item)) => Poll::Ready(Err(SendError(item))),
            Err(TrySendError::Full(item)) => {
                self.item = Some(item);
                self.turn.poll((), context.waker()).map(|_| unreachable!("it has just joined"))
            }
        }
    }
}

impl<T, S: Store<T>> Drop for Put<'_, T, S> {
    #[inline]
    fn drop(&mut self) {
        if let Some(Left::Chosen(By::One, ())) = self.turn.leave() {
            self.queue.promised_room.set(self.queue.promised_room.get() - 1);
            self.queue.promise_room();
        }
    }
}

/// Gets an item from a [`Queue`].
#[must_use = "a future does nothing unless awaited"]
pub struct Get<'a, T, S: Store<T>> {
    queue: &'a Queue<T, S>,
    turn: Turn<'a>,
}

impl<T, S: Store<T>> Future for Get<'_, T, S> {
    type Output = Option<T>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let queue = self.queue;
        if self.turn.has_joined() {
            return self.turn.poll((), context.waker()).map(|by| queue.redeem_item(by));
        }
        match queue.try_get() {
            Ok(item) => Poll::Ready(Some(item)),
            Err(TryRecvError::Closed) => Poll::Ready(None),
            Err(TryRecvError::Empty) => {
                self.turn.poll((), context.waker()).map(|_| unreachable!("it has just joined"))
            }
        }
    }
}

impl<T, S: Store<T>> Drop for Get<'_, T, S> {
    #[inline]
    fn drop(&mut self) {
        if let Some(Left::Chosen(By::One, ())) = self.turn.leave() {
            let promised = &self.queue.promised_items;
            promised.set(promised.get().saturating_sub(1));
            self.queue.promise_item();
        }
    }
}

/// Waits until all items of a [`Queue`] are done.
#[must_use = "a future does nothing unless awaited"]
pub struct Join<'a, T, S: Store<T>> {
    queue: &'a Queue<T, S>,
    turn: Turn<'a>,
}

impl<T, S: Store<T>> Future for Join<'_, T, S> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if !self.turn.has_joined() && self.queue.unfinished.get() == 0 {
            return Poll::Ready(());
        }
        self.turn.poll((), context.waker()).map(drop)
    }
}

#[cfg(test)]
mod tests;
