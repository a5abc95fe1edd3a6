//! A meeting point: nobody goes on until all have come. It can be used again and again.
//!
//! Invariant: those in line are those who have come to the generation that is not complete.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::wait_list::{Turn, WaitList};

/// A barrier for the tasks of one shard, without atomics.
///
/// ```
/// use std::rc::Rc;
/// use annulus::{Runtime, sync::Barrier, task};
///
/// Runtime::new()?.block_on(async {
///     let meeting = Rc::new(Barrier::new(2));
///     let other = task::spawn({
///         let meeting = Rc::clone(&meeting);
///         async move { meeting.wait().await.is_leader() }
///     });
///     let leads = meeting.wait().await.is_leader();
///     assert_ne!(leads, other.await.unwrap());
/// });
/// # annulus::Result::Ok(())
/// ```
pub struct Barrier {
    parties: usize,
    generation: Cell<u64>,
    waiters: WaitList,
}

impl Barrier {
    /// A barrier that opens when `parties` tasks have come.
    ///
    /// # Panics
    /// If `parties` is 0.
    pub const fn new(parties: usize) -> Self {
        assert!(parties > 0, "a barrier for 0 tasks never opens; give the number that meet");
        Self { parties, generation: Cell::new(0), waiters: WaitList::new() }
    }

    /// Waits until all have come; the last is the leader. The next to come begin a new generation.
    ///
    /// Cancel safe: a dropped wait counts as not come, unless all had come already.
    pub fn wait(&self) -> BarrierWait<'_> {
        BarrierWait { barrier: self, generation: 0, turn: Turn::new(&self.waiters) }
    }

    /// How many must come.
    pub fn parties(&self) -> usize {
        self.parties
    }

    /// How many have come and wait.
    pub fn waiting(&self) -> usize {
        self.waiters.len()
    }
}

impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Barrier")
            .field("parties", &self.parties)
            .field("waiting", &self.waiters.len())
            .field("generation", &self.generation.get())
            .finish_non_exhaustive()
    }
}

/// Waits for the others at a [`Barrier`].
#[must_use = "a future does nothing unless awaited"]
pub struct BarrierWait<'a> {
    barrier: &'a Barrier,
    /// The one it has come to; known once it has joined.
    generation: u64,
    turn: Turn<'a>,
}

impl Future for BarrierWait<'_> {
    type Output = Meeting;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Meeting> {
        let barrier = self.barrier;
        if !self.turn.has_joined() {
            self.generation = barrier.generation.get();
            if barrier.waiters.len() + 1 == barrier.parties {
                barrier.generation.set(self.generation + 1);
                barrier.waiters.choose_all();
                return Poll::Ready(Meeting { generation: self.generation, is_leader: true });
            }
        }
        let generation = self.generation;
        self.turn.poll((), context.waker()).map(|_| Meeting { generation, is_leader: false })
    }
}

/// How a wait at a [`Barrier`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meeting {
    generation: u64,
    is_leader: bool,
}

impl Meeting {
    /// Whether this task came last: exactly one of each generation.
    pub fn is_leader(&self) -> bool {
        self.is_leader
    }

    /// How often the barrier had opened before, from 0.
    pub fn generation(&self) -> u64 {
        self.generation
    }
}

#[cfg(test)]
mod tests {
    use super::super::puppet::{now, pending, woken};
    use super::*;

    #[test]
    fn the_last_of_each_generation_leads() {
        let barrier = Barrier::new(3);
        for generation in 0..2 {
            let (first, second) = (pending(barrier.wait()), pending(barrier.wait()));
            let third = now(barrier.wait());
            assert_eq!(third, Meeting { generation, is_leader: true });
            // Nobody of the next generation passes with those that have not looked yet.
            drop(pending(barrier.wait()));
            assert_eq!(woken(first), Meeting { generation, is_leader: false });
            assert_eq!(woken(second), Meeting { generation, is_leader: false });
        }
    }

    #[test]
    fn who_is_cancelled_has_not_come() {
        let barrier = Barrier::new(2);
        drop(pending(barrier.wait()));
        assert_eq!(barrier.waiting(), 0);
        let first = pending(barrier.wait());
        assert!(now(barrier.wait()).is_leader());
        // Too late: all had come, and the generation is over.
        drop(first);
        drop(pending(barrier.wait()));
        assert_eq!(barrier.waiting(), 0);
    }

    #[test]
    fn one_alone_does_not_wait() {
        assert!(now(Barrier::new(1).wait()).is_leader());
    }

    #[test]
    #[should_panic(expected = "a barrier for 0 tasks never opens")]
    fn a_barrier_for_nobody_is_refused() {
        drop(Barrier::new(0));
    }
}
