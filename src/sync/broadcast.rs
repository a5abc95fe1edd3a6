//! Every value to every receiver, for the tasks of one shard; who is too slow is told what it
//! missed.
//!
//! Invariants: the log holds what some receiver has still to see, at most `capacity` values; a
//! value that everybody has seen is gone. The numbers of values to come only grow.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

pub use super::error::SendError;
use super::wait_list::{Ticket, WaitList};

struct Entry<T> {
    value: T,
    /// Receivers that have still to see it.
    left: usize,
}

struct Log<T> {
    entries: VecDeque<Entry<T>>,
    /// The number of the first entry; values are numbered from 0.
    first: u64,
}

struct Shared<T> {
    log: RefCell<Log<T>>,
    capacity: usize,
    senders: Cell<usize>,
    receivers: Cell<usize>,
    waiters: WaitList,
}

/// A broadcast that keeps at most `capacity` values for receivers that are behind. A send never
/// waits: the oldest value makes room, and who has not seen it is told [`RecvError::Lagged`].
///
/// ```
/// use annulus::{Runtime, sync::broadcast};
///
/// Runtime::new()?.block_on(async {
///     let (sender, mut one) = broadcast::channel(2);
///     let mut two = sender.subscribe();
///     sender.send("a").unwrap();
///     assert_eq!((one.recv().await, two.recv().await), (Ok("a"), Ok("a")));
///     for value in ["b", "c", "d"] {
///         sender.send(value).unwrap();
///     }
///     assert_eq!(one.recv().await, Err(broadcast::RecvError::Lagged(1)));
///     assert_eq!(one.recv().await, Ok("c"));
/// });
/// # annulus::Result::Ok(())
/// ```
///
/// # Panics
/// If `capacity` is 0.
pub fn channel<T: Clone>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    assert!(capacity > 0, "a broadcast of capacity 0 can keep no value; give it at least 1");
    let shared = Rc::new(Shared {
        log: RefCell::new(Log { entries: VecDeque::new(), first: 0 }),
        capacity,
        senders: Cell::new(1),
        receivers: Cell::new(1),
        waiters: WaitList::new(),
    });
    (Sender(Rc::clone(&shared)), Receiver { shared, next: 0 })
}

impl<T> Log<T> {
    fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    fn pop(&mut self) -> Option<Entry<T>> {
        let entry = self.entries.pop_front()?;
        self.first += 1;
        Some(entry)
    }
}

/// Sends to every receiver. Receivers are told when the last clone is dropped.
pub struct Sender<T>(Rc<Shared<T>>);

impl<T> Sender<T> {
    /// Sends a value and says to how many receivers. Never waits.
    ///
    /// # Errors
    /// If there is no receiver; the value comes back.
    pub fn send(&self, value: T) -> Result<usize, SendError<T>> {
        let shared = &*self.0;
        let receivers = shared.receivers.get();
        if receivers == 0 {
            return Err(SendError(value));
        }
        let mut log = shared.log.borrow_mut();
        let oldest = if log.entries.len() == shared.capacity { log.pop() } else { None };
        log.entries.push_back(Entry { value, left: receivers });
        drop(log);
        drop(oldest);
        shared.waiters.choose_all();
        Ok(receivers)
    }

    /// A receiver of what is sent from now on.
    pub fn subscribe(&self) -> Receiver<T> {
        subscribe(&self.0)
    }

    /// How many receivers there are.
    pub fn receivers(&self) -> usize {
        self.0.receivers.get()
    }
}

fn subscribe<T>(shared: &Rc<Shared<T>>) -> Receiver<T> {
    shared.receivers.set(shared.receivers.get() + 1);
    let next = shared.log.borrow().end();
    Receiver { shared: Rc::clone(shared), next }
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
            self.0.waiters.choose_all();
        }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("receivers", &self.receivers()).finish()
    }
}

/// Receives every value that is sent after it was made.
pub struct Receiver<T> {
    shared: Rc<Shared<T>>,
    /// The number of the value that it sees next.
    next: u64,
}

impl<T: Clone> Receiver<T> {
    /// The next value, waiting for one.
    ///
    /// Cancel safe: a dropped receive has taken nothing.
    ///
    /// # Errors
    /// `Lagged` if it was too slow; the next call goes on with the oldest value that is kept.
    /// `Closed` once the senders are gone and it has seen everything.
    pub fn recv(&mut self) -> Recv<'_, T> {
        Recv { receiver: self, ticket: None }
    }

    /// The next value, if there is one.
    ///
    /// # Errors
    /// `Empty`, or as [`Receiver::recv`].
    pub fn try_recv(&mut self) -> Result<T, TryRecvError> {
        let log = self.shared.log.borrow();
        if let Some(missed) = log.first.checked_sub(self.next).filter(|missed| *missed > 0) {
            self.next = log.first;
            return Err(TryRecvError::Lagged(missed));
        }
        let index = (self.next - log.first) as usize;
        let Some(entry) = log.entries.get(index) else {
            let is_over = self.shared.senders.get() == 0;
            return Err(if is_over { TryRecvError::Closed } else { TryRecvError::Empty });
        };
        // The last to see it takes it. It is the first entry then: who has seen this one has seen
        // those before it.
        let value = (entry.left > 1).then(|| entry.value.clone());
        drop(log);
        let mut log = self.shared.log.borrow_mut();
        self.next += 1;
        if let Some(value) = value {
            log.entries[index].left -= 1;
            return Ok(value);
        }
        let entry = log.pop().expect("the last to see a value finds it first in the log");
        Ok(entry.value)
    }
}

impl<T> Receiver<T> {
    /// Another receiver, of what is sent from now on.
    #[must_use]
    pub fn resubscribe(&self) -> Self {
        subscribe(&self.shared)
    }

    /// Values that it has still to see and that are kept.
    pub fn len(&self) -> usize {
        let log = self.shared.log.borrow();
        (log.end() - self.next.max(log.first)) as usize
    }

    /// Whether there is nothing that it has still to see.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.shared.receivers.set(self.shared.receivers.get() - 1);
        let mut log = self.shared.log.borrow_mut();
        let unseen = self.next.saturating_sub(log.first) as usize;
        log.entries.iter_mut().skip(unseen).for_each(|entry| entry.left -= 1);
        let seen = log.entries.iter().take_while(|entry| entry.left == 0).count();
        let gone: Vec<Entry<T>> = log.entries.drain(..seen).collect();
        log.first += seen as u64;
        drop(log);
        drop(gone);
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("unseen", &self.len()).finish()
    }
}

/// Waits for the next value of a broadcast.
#[must_use = "a future does nothing unless awaited"]
pub struct Recv<'a, T: Clone> {
    receiver: &'a mut Receiver<T>,
    ticket: Option<Ticket>,
}

impl<T: Clone> Future for Recv<'_, T> {
    type Output = Result<T, RecvError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(ticket) = self.ticket {
            if self.receiver.shared.waiters.poll(ticket, context.waker()).is_pending() {
                return Poll::Pending;
            }
            self.ticket = None;
        }
        match self.receiver.try_recv() {
            Ok(value) => Poll::Ready(Ok(value)),
            Err(TryRecvError::Lagged(missed)) => Poll::Ready(Err(RecvError::Lagged(missed))),
            Err(TryRecvError::Closed) => Poll::Ready(Err(RecvError::Closed)),
            Err(TryRecvError::Empty) => {
                self.ticket = Some(self.receiver.shared.waiters.join((), context.waker()));
                Poll::Pending
            }
        }
    }
}

impl<T: Clone> Drop for Recv<'_, T> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.receiver.shared.waiters.leave(ticket);
        }
    }
}

/// Why a receive gave no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecvError {
    /// It was too slow for the capacity and has missed this many values.
    #[error("{0} values were missed: receive faster, or give the broadcast more capacity")]
    Lagged(u64),
    /// The senders are gone and everything has been seen.
    #[error("the senders of the broadcast are gone")]
    Closed,
}

/// Why there was no value at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TryRecvError {
    /// Nothing new now.
    #[error("there is nothing new")]
    Empty,
    /// As [`RecvError::Lagged`].
    #[error("{0} values were missed: receive faster, or give the broadcast more capacity")]
    Lagged(u64),
    /// As [`RecvError::Closed`].
    #[error("the senders of the broadcast are gone")]
    Closed,
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use proptest::prelude::*;

    use super::super::puppet::{Puppet, now, pending, woken};
    use super::*;

    #[test]
    fn everybody_sees_everything_since_it_came() {
        let (sender, mut one) = channel(4);
        assert_eq!(sender.send(1), Ok(1));
        let mut two = sender.subscribe();
        assert_eq!(sender.send(2), Ok(2));
        assert_eq!((now(one.recv()), now(one.recv())), (Ok(1), Ok(2)));
        assert_eq!(now(two.recv()), Ok(2));
        let (first, second) = (pending(one.recv()), pending(two.recv()));
        sender.send(3).unwrap();
        assert_eq!((woken(first), woken(second)), (Ok(3), Ok(3)));
        let (first, second) = (pending(one.recv()), pending(two.recv()));
        drop(sender);
        assert_eq!(woken(first), Err(RecvError::Closed));
        assert_eq!(woken(second), Err(RecvError::Closed));
    }

    #[test]
    fn who_lags_is_told_how_much_and_goes_on_with_the_oldest() {
        let (sender, mut receiver) = channel(3);
        for value in 0..10 {
            sender.send(value).unwrap();
        }
        drop(sender);
        assert_eq!(now(receiver.recv()), Err(RecvError::Lagged(7)));
        for value in 7..10 {
            assert_eq!(now(receiver.recv()), Ok(value));
        }
        assert_eq!(now(receiver.recv()), Err(RecvError::Closed));
    }

    #[test]
    fn a_value_that_all_have_seen_is_gone() {
        let value = Rc::new(());
        let (sender, mut one) = channel(8);
        let (mut two, three) = (sender.subscribe(), sender.subscribe());
        for _ in 0..3 {
            sender.send(Rc::clone(&value)).unwrap();
        }
        for receiver in [&mut one, &mut two] {
            drop((receiver.try_recv().unwrap(), receiver.try_recv().unwrap()));
        }
        assert_eq!(Rc::strong_count(&value), 4);
        drop(three);
        assert_eq!(Rc::strong_count(&value), 2);
        assert_eq!((one.len(), two.len()), (1, 1));
        drop(one);
        drop(two.try_recv().unwrap());
        assert_eq!(Rc::strong_count(&value), 1);
        drop(two);
        assert_eq!(sender.send(value).unwrap_err().0, Rc::new(()));
    }

    #[test]
    #[should_panic(expected = "a broadcast of capacity 0 can keep no value")]
    fn a_capacity_of_zero_is_refused() {
        drop(channel::<u32>(0));
    }

    #[test]
    fn a_dropped_receive_has_taken_nothing() {
        let (sender, mut receiver) = channel(2);
        let wait = pending(receiver.recv());
        sender.send(1).unwrap();
        drop(wait);
        assert_eq!(now(receiver.recv()), Ok(1));
        assert_eq!(sender.0.waiters.len(), 0);
    }

    proptest! {
        /// Each receiver sees, without gaps that it is not told of, what was sent since it came.
        #[test]
        fn nobody_misses_a_value_without_being_told(
            capacity in 1..4usize,
            steps in prop::collection::vec((0..5u8, 0..4usize), 0..150),
        ) {
            let (sender, first) = channel(capacity);
            // With the number of the value that each should see next.
            let mut receivers = vec![(first, 0u64)];
            let mut sent = 0;
            for (step, place) in steps {
                match step {
                    0 | 1 => sent += u64::from(sender.send(sent).is_ok()),
                    2 if receivers.len() < 4 => receivers.push((sender.subscribe(), sent)),
                    3 if place < receivers.len() => drop(receivers.remove(place)),
                    _ if place < receivers.len() => {
                        let (receiver, next) = &mut receivers[place];
                        match receiver.try_recv() {
                            Ok(value) => prop_assert_eq!(value, *next),
                            Err(TryRecvError::Lagged(missed)) => {
                                prop_assert_eq!(*next + missed, sent - capacity as u64);
                                *next += missed;
                                continue;
                            }
                            Err(error) => {
                                prop_assert_eq!((error, *next), (TryRecvError::Empty, sent));
                                continue;
                            }
                        }
                        *next += 1;
                    }
                    _ => {}
                }
                // Kept is what somebody has still to see, as far as there is room.
                let oldest = receivers.iter().map(|(_, next)| *next).min().unwrap_or(sent);
                let kept = (sent - oldest).min(capacity as u64);
                prop_assert_eq!(sender.0.log.borrow().entries.len() as u64, kept);
            }
        }
    }

    /// A receiver, which is inside of the future while that waits.
    struct Follower {
        receiver: Option<Receiver<u64>>,
        /// The future gives the receiver back, without a value once the flag is set.
        wait: Option<(Rc<Cell<bool>>, Wait)>,
        /// The number of the value that it should see next.
        next: u64,
    }

    type Wait = Puppet<'static, (Receiver<u64>, Option<Result<u64, RecvError>>)>;

    /// What was sent and whether more may come.
    struct Sent {
        count: u64,
        capacity: u64,
        is_over: bool,
    }

    impl Follower {
        fn new(receiver: Receiver<u64>, next: u64) -> Self {
            Self { receiver: Some(receiver), wait: None, next }
        }

        fn begin(&mut self) {
            let Some(mut receiver) = self.receiver.take() else { return };
            let is_cancelled = Rc::new(Cell::new(false));
            let flag = Rc::clone(&is_cancelled);
            let wait = async move {
                let mut recv = receiver.recv();
                let received = poll_fn(|context| {
                    if flag.get() {
                        return Poll::Ready(None);
                    }
                    Pin::new(&mut recv).poll(context).map(Some)
                });
                let received = received.await;
                drop(recv);
                (receiver, received)
            };
            self.wait = Some((is_cancelled, Puppet::new(wait)));
        }

        fn poll(&mut self, sent: &Sent) {
            let Some((_, wait)) = &mut self.wait else { return };
            let Poll::Ready((receiver, received)) = wait.poll() else { return };
            (self.receiver, self.wait) = (Some(receiver), None);
            match received {
                Some(Ok(value)) => {
                    assert_eq!(value, self.next);
                    self.next += 1;
                }
                Some(Err(RecvError::Lagged(missed))) => {
                    self.next += missed;
                    assert_eq!(self.next, sent.count - sent.capacity);
                }
                Some(Err(RecvError::Closed)) => {
                    assert!(sent.is_over && self.next == sent.count);
                }
                None => {}
            }
        }

        fn cancel(&mut self, sent: &Sent) {
            let Some((flag, _)) = &self.wait else { return };
            flag.set(true);
            self.poll(sent);
            assert!(self.receiver.is_some());
        }

        fn check(&self, sent: &Sent) {
            let is_asleep = self.wait.as_ref().is_some_and(|(_, wait)| !wait.is_woken());
            let has_reason = self.next == sent.count && !sent.is_over;
            assert!(!is_asleep || has_reason, "it sleeps by a value or past the end");
        }
    }

    proptest! {
        /// No wake and no value is lost, whatever waits are cancelled, woken or not.
        #[test]
        fn a_cancelled_wait_costs_nobody_a_value(
            capacity in 1..4usize,
            steps in prop::collection::vec((0..10u8, 0..4usize), 0..200),
        ) {
            let (sender, first) = channel(capacity);
            let mut sent = Sent { count: 0, capacity: capacity as u64, is_over: false };
            let mut followers = vec![Follower::new(first, 0)];
            for (step, place) in steps {
                match (step, followers.get_mut(place)) {
                    (0 | 1, _) => sent.count += u64::from(sender.send(sent.count).is_ok()),
                    (2, None) => followers.push(Follower::new(sender.subscribe(), sent.count)),
                    (3, Some(_)) => drop(followers.remove(place)),
                    (4 | 5, Some(follower)) => {
                        follower.begin();
                        follower.poll(&sent);
                    }
                    (6 | 7, Some(follower)) => follower.poll(&sent),
                    (8 | 9, Some(follower)) => follower.cancel(&sent),
                    _ => {}
                }
                for follower in &followers {
                    follower.check(&sent);
                }
            }
            let waiting = followers.iter().filter(|follower| follower.wait.is_some());
            prop_assert!(sender.0.waiters.len() <= waiting.count());
            drop(sender);
            sent.is_over = true;
            for follower in &mut followers {
                follower.check(&sent);
                follower.poll(&sent);
                // Each sees the rest, to the end.
                while follower.next < sent.count {
                    follower.begin();
                    follower.poll(&sent);
                }
                follower.begin();
                follower.poll(&sent);
                prop_assert!(follower.wait.is_none());
            }
        }
    }
}
