//! The mesh: one bounded lane for each ordered pair of shards.
//!
//! A lane belongs to its receiver ([`super::remote::Remote`]) and has one sender, so a busy shard
//! cannot crowd out another. A full lane makes the sender wait; nothing is dropped.

use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Mutex, PoisonError};
use std::task::Waker;

use crossbeam_queue::ArrayQueue;

use crate::limits;

/// What travels: a closure that runs on the receiving shard.
pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// From one shard to another.
pub(super) struct Lane {
    jobs: ArrayQueue<Job>,
    waiting: Mutex<Vec<Waker>>,
    has_waiting: AtomicBool,
}

impl Lane {
    pub(super) fn new() -> Self {
        Self {
            jobs: ArrayQueue::new(limits::MESH_LANE_COUNT_MAX),
            waiting: Mutex::new(Vec::new()),
            has_waiting: AtomicBool::new(false),
        }
    }

    /// Puts a job in the lane; gives it back if the lane is full.
    pub(super) fn push(&self, job: Job) -> Result<(), Job> {
        self.jobs.push(job)
    }

    /// Leaves a waker for when there is room. The caller tries once more after this.
    pub(super) fn wait(&self, waker: &Waker) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if !waiting.iter().any(|other| other.will_wake(waker)) {
            waiting.push(waker.clone());
        }
        self.has_waiting.store(true, Ordering::Relaxed);
        drop(waiting);
        fence(Ordering::SeqCst);
    }

    /// Takes the oldest job, and tells senders that wait.
    pub(super) fn pop(&self) -> Option<Job> {
        let job = self.jobs.pop()?;
        fence(Ordering::SeqCst);
        if self.has_waiting.load(Ordering::Relaxed) {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            self.has_waiting.store(false, Ordering::Relaxed);
            let wakers = std::mem::take(&mut *waiting);
            drop(waiting);
            wakers.into_iter().for_each(Waker::wake);
        }
        Some(job)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_lane_gives_the_job_back_and_tells_the_sender_when_there_is_room() {
        let lane = Lane::new();
        for _ in 0..limits::MESH_LANE_COUNT_MAX {
            assert!(lane.push(Box::new(|| ())).is_ok());
        }
        assert!(lane.push(Box::new(|| ())).is_err());
        lane.wait(Waker::noop());
        assert!(lane.pop().is_some());
        assert!(!lane.has_waiting.load(Ordering::Relaxed));
        assert!(lane.push(Box::new(|| ())).is_ok());
    }
}
