//! Who waits, in order: what every shard-local primitive here stands on.
//!
//! A waiter joins the line at its first poll that finds nothing, and leaves it when it is chosen or
//! dropped; both take constant time. Invariant: a chosen waiter keeps its ticket until it has seen
//! its turn, so one that is dropped in between says so ([`Left::Chosen`]) and its owner passes the
//! turn on. No waker is woken or dropped while the line is borrowed, so a waker may do anything.

use std::cell::{Cell, RefCell};
use std::task::{Poll, Waker};

use slab::Slab;

const NONE: usize = usize::MAX;

/// Names a waiter, from its joining until it has seen its turn or has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket(usize);

/// How a waiter was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// It alone: its turn is worth something and has to be passed on if it cannot take it.
    One,
    /// With all others: there is nothing to pass on.
    All,
}

/// What a waiter was when it left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left<N> {
    Waiting(N),
    Chosen(By, N),
}

enum State {
    Waiting(Waker),
    Chosen(By),
}

struct Waiter<N> {
    note: N,
    state: State,
    previous: usize,
    next: usize,
}

struct Line<N> {
    /// Those in line, and those chosen that have not seen it yet.
    waiters: Slab<Waiter<N>>,
    first: usize,
    last: usize,
}

/// A line of waiters, each with a note of what it waits for.
pub(super) struct WaitList<N: Copy = ()> {
    line: RefCell<Line<N>>,
    /// Those in line, beside it so that the common question costs one load.
    length: Cell<usize>,
}

impl<N: Copy> WaitList<N> {
    pub(super) const fn new() -> Self {
        let line = Line { waiters: Slab::new(), first: NONE, last: NONE };
        Self { line: RefCell::new(line), length: Cell::new(0) }
    }

    /// How many are in line and have not been chosen.
    pub(super) fn len(&self) -> usize {
        self.length.get()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length.get() == 0
    }

    /// What the first in line waits for.
    pub(super) fn first(&self) -> Option<N> {
        let line = self.line.borrow();
        line.waiters.get(line.first).map(|waiter| waiter.note)
    }

    /// Joins the line at its end.
    pub(super) fn join(&self, note: N, waker: &Waker) -> Ticket {
        let state = State::Waiting(waker.clone());
        let mut line = self.line.borrow_mut();
        let previous = line.last;
        let place = line.waiters.insert(Waiter { note, state, previous, next: NONE });
        match line.waiters.get_mut(previous) {
            Some(waiter) => waiter.next = place,
            None => line.first = place,
        }
        line.last = place;
        self.length.set(self.length.get() + 1);
        Ticket(place)
    }

    /// Chooses the first in line and wakes it. False if nobody waits.
    #[inline]
    pub(super) fn choose(&self) -> bool {
        !self.is_empty() && self.choose_first(By::One)
    }

    /// Chooses and wakes everybody who is in line now.
    pub(super) fn choose_all(&self) {
        // What the wakers do may add waiters; they are not of this crowd.
        for _ in 0..self.len() {
            if !self.choose_first(By::All) {
                break;
            }
        }
    }

    fn choose_first(&self, by: By) -> bool {
        let mut line = self.line.borrow_mut();
        let first = line.first;
        if first == NONE {
            return false;
        }
        line.unlink(first);
        let before = std::mem::replace(&mut line.waiters[first].state, State::Chosen(by));
        self.length.set(self.length.get() - 1);
        drop(line);
        if let State::Waiting(waker) = before {
            waker.wake();
        }
        true
    }

    /// Whether it is this waiter's turn; its ticket is spent then. Otherwise `waker` is the one to
    /// be woken.
    pub(super) fn poll(&self, ticket: Ticket, waker: &Waker) -> Poll<By> {
        let mut line = self.line.borrow_mut();
        let old = match &mut line.waiters[ticket.0].state {
            State::Chosen(by) => {
                let by = *by;
                line.waiters.remove(ticket.0);
                return Poll::Ready(by);
            }
            State::Waiting(old) if old.will_wake(waker) => return Poll::Pending,
            State::Waiting(old) => std::mem::replace(old, waker.clone()),
        };
        drop(line);
        drop(old);
        Poll::Pending
    }

    /// Gives up the place, or the turn.
    pub(super) fn leave(&self, ticket: Ticket) -> Left<N> {
        let mut line = self.line.borrow_mut();
        let is_waiting = matches!(line.waiters[ticket.0].state, State::Waiting(_));
        if is_waiting {
            line.unlink(ticket.0);
            self.length.set(self.length.get() - 1);
        }
        let waiter = line.waiters.remove(ticket.0);
        drop(line);
        match waiter.state {
            State::Waiting(_) => Left::Waiting(waiter.note),
            State::Chosen(by) => Left::Chosen(by, waiter.note),
        }
    }
}

impl<N: Copy> Default for WaitList<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<N> Line<N> {
    fn unlink(&mut self, place: usize) {
        let Waiter { previous, next, .. } = self.waiters[place];
        match self.waiters.get_mut(previous) {
            Some(waiter) => waiter.next = next,
            None => self.first = next,
        }
        match self.waiters.get_mut(next) {
            Some(waiter) => waiter.previous = previous,
            None => self.last = previous,
        }
    }
}

/// A waiter's side: joins at the first poll, and leaves the line when it is dropped. A turn that
/// has to be passed on is its owner's to pass on: call [`Turn::leave`] in the owner's own drop.
pub(super) struct Turn<'a, N: Copy = ()> {
    list: &'a WaitList<N>,
    ticket: Option<Ticket>,
}

impl<'a, N: Copy> Turn<'a, N> {
    /// Not in line yet.
    pub(super) fn new(list: &'a WaitList<N>) -> Self {
        Self { list, ticket: None }
    }

    /// In line from now on; a waker follows with the first poll.
    pub(super) fn joined(list: &'a WaitList<N>, note: N) -> Self {
        Self { list, ticket: Some(list.join(note, Waker::noop())) }
    }

    /// The line it waits in.
    pub(super) fn list(&self) -> &'a WaitList<N> {
        self.list
    }

    /// Whether it has joined and has not seen its turn.
    #[inline]
    pub(super) fn has_joined(&self) -> bool {
        self.ticket.is_some()
    }

    /// Joins with `note` if it has not, and tells whether its turn has come.
    pub(super) fn poll(&mut self, note: N, waker: &Waker) -> Poll<By> {
        let Some(ticket) = self.ticket else {
            self.ticket = Some(self.list.join(note, waker));
            return Poll::Pending;
        };
        let polled = self.list.poll(ticket, waker);
        if polled.is_ready() {
            self.ticket = None;
        }
        polled
    }

    /// Leaves the line. `None` if it was not in it.
    #[inline]
    pub(super) fn leave(&mut self) -> Option<Left<N>> {
        let ticket = self.ticket.take()?;
        Some(self.list.leave(ticket))
    }
}

impl<N: Copy> Drop for Turn<'_, N> {
    #[inline]
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::sync::Arc;
    use std::task::Wake;

    use super::*;

    #[test]
    fn the_line_keeps_its_order_when_any_place_is_given_up() {
        for leaving in 0..5 {
            let list = WaitList::new();
            let tickets: Vec<Ticket> =
                (0..5u32).map(|note| list.join(note, Waker::noop())).collect();
            assert_eq!(list.leave(tickets[leaving]), Left::Waiting(leaving as u32));
            let rest = std::iter::from_fn(|| {
                let first = list.first();
                assert_eq!(list.choose(), first.is_some());
                first
            });
            let expected: Vec<u32> = (0..5).filter(|note| *note != leaving as u32).collect();
            assert_eq!(rest.collect::<Vec<u32>>(), expected);
            assert_eq!(list.len(), 0);
        }
    }

    #[test]
    fn a_ticket_tells_whether_and_how_it_was_chosen() {
        let list = WaitList::new();
        let [one, two, three] = [1, 2, 3].map(|note| list.join(note, Waker::noop()));
        assert!(list.poll(one, Waker::noop()).is_pending());
        assert!(list.choose());
        assert_eq!(list.poll(one, Waker::noop()), Poll::Ready(By::One));
        list.choose_all();
        assert_eq!(list.poll(two, Waker::noop()), Poll::Ready(By::All));
        assert_eq!(list.leave(three), Left::Chosen(By::All, 3));
        assert!(!list.choose());
        assert!(list.line.borrow().waiters.is_empty());
    }

    thread_local! {
        static LIST: Rc<WaitList> = Rc::new(WaitList::new());
    }

    /// A waker that comes back to the list when it is woken and when it is dropped.
    struct Meddler;

    impl Wake for Meddler {
        fn wake(self: Arc<Self>) {
            LIST.with(|list| list.join((), Waker::noop()));
        }
    }

    impl Drop for Meddler {
        fn drop(&mut self) {
            LIST.with(|list| list.join((), Waker::noop()));
        }
    }

    #[test]
    fn a_waker_may_come_back_to_the_list() {
        let list = LIST.with(Rc::clone);
        let meddler = || Waker::from(Arc::new(Meddler));
        let [first, second, third] = [(); 3].map(|()| list.join((), &meddler()));
        assert_eq!(list.len(), 3);
        assert!(list.poll(first, &meddler()).is_pending());
        assert_eq!(list.len(), 4, "the waker that was replaced came back");
        assert_eq!(list.leave(second), Left::Waiting(()));
        assert_eq!(list.len(), 4);
        list.choose_all();
        // Two of them were woken and dropped by it; those they brought are not of the crowd.
        assert_eq!(list.len(), 4);
        assert_eq!(list.leave(third), Left::Chosen(By::All, ()));
    }
}
