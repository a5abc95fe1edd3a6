//! The queue of a pool: jobs that threads have, jobs that wait for one, callers that wait for room.
//!
//! It starts no thread and knows no pool; [`super::Pool`] and its threads call it. A job is given
//! to a thread the moment it is pushed if one is free, so that its state is right at once.
//! Invariants: a job waits only while every thread has one; whoever waits for room is told when
//! there is some.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::PoisonError;
#[cfg(not(loom))]
use std::sync::{Condvar, Mutex, MutexGuard};
use std::task::{Poll, Waker};
use std::time::Duration;

#[cfg(loom)]
use loom::sync::{Condvar, Mutex, MutexGuard};

use crate::clock::{self, Instant};
use crate::error::Error;

/// A job with the duty to answer. Dropped, it answers that the pool has shut down.
pub(super) trait Work: Send {
    /// A thread has it: it cannot be called back any more.
    fn assign(&self);
    /// Does it, calls `done`, and answers.
    fn run(self: Box<Self>, done: &dyn Fn());
    /// Answers that it will not be done.
    fn refuse(self: Box<Self>, error: Error);
}

pub(super) type BoxedWork = Box<dyn Work>;

/// Why a job was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Closed,
    Full,
}

/// Where a job went.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Placed {
    /// Names it while it waits; `None` if a thread has it.
    pub(super) number: Option<u64>,
    /// The caller is to start one more thread.
    pub(super) wants_thread: bool,
}

#[derive(Default)]
struct State {
    /// Jobs that a thread has but has not begun.
    assigned: VecDeque<BoxedWork>,
    /// Jobs that wait, by ascending number.
    pending: VecDeque<(u64, BoxedWork)>,
    numbers: u64,
    /// Tasks that wait for room, in line, each with its ticket. A place is given up when its job
    /// has been placed, not when it is told of room: so nobody overtakes.
    waiting: VecDeque<(u64, Waker)>,
    tickets: u64,
    /// Jobs that are assigned or run.
    busy: usize,
    /// Threads that have been asked for and have not ended.
    threads: usize,
    is_closed: bool,
}

pub(super) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
    /// A thread has ended.
    ended: Condvar,
    threads_max: usize,
    /// Jobs that may wait.
    capacity: usize,
    /// How long a thread waits for a job before it ends.
    idle: Option<Duration>,
}

impl Queue {
    pub(super) fn new(threads_max: usize, capacity: usize, idle: Option<Duration>) -> Self {
        assert!(threads_max > 0, "a pool needs a thread");
        Self {
            state: Mutex::new(State::default()),
            filled: Condvar::new(),
            ended: Condvar::new(),
            threads_max,
            capacity,
            idle,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_room(&self, state: &State) -> bool {
        state.busy < self.threads_max || state.pending.len() < self.capacity
    }

    /// Whether a job may be placed now by the holder of a ticket, or by one who has none.
    fn has_turn(&self, state: &State, ticket: Option<u64>) -> bool {
        self.has_room(state) && state.waiting.front().map(|(first, _)| *first) == ticket
    }

    /// The first in line, if there is room: to be woken without the lock.
    fn next_in_line(&self, state: &State) -> Option<Waker> {
        let first = state.waiting.front().filter(|_| self.has_room(state));
        first.map(|(_, waker)| waker.clone())
    }

    /// Takes the job that `make` makes, if there is room for it.
    pub(super) fn try_push(&self, make: impl FnOnce() -> BoxedWork) -> Result<Placed, Refusal> {
        self.push_locked(self.lock(), None, make)
    }

    fn push_locked(
        &self,
        mut state: MutexGuard<'_, State>,
        ticket: Option<u64>,
        make: impl FnOnce() -> BoxedWork,
    ) -> Result<Placed, Refusal> {
        if state.is_closed {
            return Err(Refusal::Closed);
        }
        if !self.has_turn(&state, ticket) {
            return Err(Refusal::Full);
        }
        let placed_waker = ticket.and_then(|_| state.waiting.pop_front());
        let work = make();
        let placed = if state.busy < self.threads_max {
            assert!(state.pending.is_empty(), "a job waits only while every thread has one");
            work.assign();
            state.assigned.push_back(work);
            state.busy += 1;
            let wants_thread = state.threads < state.busy;
            state.threads += usize::from(wants_thread);
            Placed { number: None, wants_thread }
        } else {
            state.numbers += 1;
            let number = state.numbers;
            state.pending.push_back((number, work));
            Placed { number: Some(number), wants_thread: false }
        };
        let next = self.next_in_line(&state);
        drop(state);
        drop(placed_waker);
        if placed.number.is_none() && !placed.wants_thread {
            self.filled.notify_one();
        }
        next.into_iter().for_each(Waker::wake);
        Ok(placed)
    }

    /// Takes the job; waits while there is no room. Dropped, it leaves the line.
    pub(super) async fn push(&self, work: BoxedWork) -> Result<Placed, Refusal> {
        let mut work = Some(work);
        let mut place = Place { queue: self, ticket: None };
        poll_fn(|context| {
            let mut state = self.lock();
            if !state.is_closed && !self.has_turn(&state, place.ticket) {
                let before = place.keep(&mut state, context.waker());
                drop(state);
                drop(before);
                return Poll::Pending;
            }
            let take = || work.take().expect("a job is placed once");
            let placed = self.push_locked(state, place.ticket, take);
            place.ticket = None;
            Poll::Ready(placed)
        })
        .await
    }

    /// Takes back a job that waits. `None` if a thread has it, or had.
    pub(super) fn revoke(&self, number: u64) -> Option<BoxedWork> {
        let mut state = self.lock();
        let place = state.pending.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        let (_, work) = state.pending.remove(place)?;
        let next = self.next_in_line(&state);
        drop(state);
        next.into_iter().for_each(Waker::wake);
        Some(work)
    }

    /// Counts `count` threads that are about to be started without having been asked for.
    pub(super) fn expect_threads(&self, count: usize) {
        self.lock().threads += count;
    }

    /// A thread could not be started. If there is none, nobody would do the jobs: they come back.
    pub(super) fn miss_thread(&self) -> Vec<BoxedWork> {
        let mut state = self.lock();
        state.threads -= 1;
        self.ended.notify_all();
        if state.threads > 0 {
            return Vec::new();
        }
        state.busy -= state.assigned.len();
        let mut left = Vec::from(std::mem::take(&mut state.assigned));
        left.extend(state.pending.drain(..).map(|(_, work)| work));
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        for (_, waker) in waiting {
            waker.wake();
        }
        left
    }

    /// The calling thread is done with a job and takes the next one soon. Called before the job is
    /// answered: whoever has the answer finds the thread free.
    pub(super) fn done(&self) {
        let mut state = self.lock();
        state.busy -= 1;
        if let Some((_, work)) = state.pending.pop_front() {
            work.assign();
            state.assigned.push_back(work);
            state.busy += 1;
        }
        let next = self.next_in_line(&state);
        drop(state);
        next.into_iter().for_each(Waker::wake);
    }

    /// The next job for the calling thread. `None`: the thread is to end, and has been signed off.
    pub(super) fn next(&self) -> Option<BoxedWork> {
        let mut state = self.lock();
        loop {
            if let Some(work) = state.assigned.pop_front() {
                return Some(work);
            }
            let mut is_over = state.is_closed;
            if !is_over {
                (state, is_over) = self.wait_for_work(state);
            }
            if is_over && state.assigned.is_empty() {
                state.threads -= 1;
                drop(state);
                self.ended.notify_all();
                return None;
            }
        }
    }

    /// Waits for a sign; true if the thread has been idle for long enough.
    fn wait_for_work<'a>(&self, state: MutexGuard<'a, State>) -> (MutexGuard<'a, State>, bool) {
        let Some(idle) = self.idle else {
            return (self.filled.wait(state).unwrap_or_else(PoisonError::into_inner), false);
        };
        let waited = self.filled.wait_timeout(state, idle);
        let (state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        (state, timeout.timed_out())
    }

    /// Refuses further jobs and drops those that no thread has.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        let pending = std::mem::take(&mut state.pending);
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        self.filled.notify_all();
        drop(pending);
        for (_, waker) in waiting {
            waker.wake();
        }
    }

    /// Waits for the threads of a closed queue until `deadline`; returns how many are left.
    pub(super) fn wait_for_end(&self, deadline: Instant) -> usize {
        let mut state = self.lock();
        assert!(state.is_closed, "threads end once the queue is closed");
        while state.threads > 0 {
            let left = deadline.since(clock::now());
            if left.is_zero() {
                break;
            }
            let waited = self.ended.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.threads
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().is_closed
    }

    /// Jobs that wait for a thread.
    pub(super) fn pending(&self) -> usize {
        self.lock().pending.len()
    }

    /// Jobs that a thread has.
    pub(super) fn busy(&self) -> usize {
        self.lock().busy
    }

    /// Threads that have not ended.
    pub(super) fn threads(&self) -> usize {
        self.lock().threads
    }

    pub(super) fn threads_max(&self) -> usize {
        self.threads_max
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }
}

/// A place in the line of those who wait for room. Who leaves the line tells the next, who may have
/// become the first.
struct Place<'a> {
    queue: &'a Queue,
    ticket: Option<u64>,
}

impl Place<'_> {
    /// Takes a place, or keeps the one that it has. Gives back the waker that is no longer needed.
    fn keep(&mut self, state: &mut State, waker: &Waker) -> Option<Waker> {
        let held = self
            .ticket
            .and_then(|ticket| state.waiting.iter_mut().find(|(other, _)| *other == ticket));
        if let Some((_, place)) = held {
            return Some(std::mem::replace(place, waker.clone()));
        }
        state.tickets += 1;
        self.ticket = Some(state.tickets);
        state.waiting.push_back((state.tickets, waker.clone()));
        None
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let mut state = self.queue.lock();
        let place = state.waiting.iter().position(|(other, _)| *other == ticket);
        let left = place.and_then(|place| state.waiting.remove(place));
        let next = self.queue.next_in_line(&state);
        drop(state);
        drop(left);
        next.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests;
