//! The mesh: one bounded lane for each ordered pair of shards.
//!
//! A lane belongs to its receiver ([`super::remote::Remote`]) and has one sender, so a busy shard
//! cannot crowd out another. A full lane makes the sender wait; nothing is dropped.

use std::sync::PoisonError;
#[cfg(not(loom))]
use std::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering, fence},
};
use std::task::Waker;

#[cfg(not(loom))]
use crossbeam_queue::ArrayQueue;
#[cfg(loom)]
use loom::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering, fence},
};

#[cfg(loom)]
use self::stand_in::ArrayQueue;

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

#[cfg(loom)]
mod stand_in {
    use std::collections::VecDeque;

    use loom::sync::atomic::AtomicUsize;

    use super::*;

    /// Stands for the queue, which is not what is checked: a queue of one place that promises
    /// nothing about what its callers see of each other besides.
    pub(super) struct ArrayQueue<T> {
        length: AtomicUsize,
        items: std::sync::Mutex<VecDeque<T>>,
    }

    impl<T> ArrayQueue<T> {
        pub(super) fn new(_: usize) -> Self {
            Self { length: AtomicUsize::new(0), items: std::sync::Mutex::default() }
        }

        pub(super) fn push(&self, item: T) -> Result<(), T> {
            if self.length.load(Ordering::Relaxed) == 1 {
                return Err(item);
            }
            self.items.lock().unwrap_or_else(PoisonError::into_inner).push_back(item);
            self.length.store(1, Ordering::Relaxed);
            Ok(())
        }

        pub(super) fn pop(&self) -> Option<T> {
            let item = self.items.lock().unwrap_or_else(PoisonError::into_inner).pop_front()?;
            self.length.store(0, Ordering::Relaxed);
            Some(item)
        }
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;

    /// A thread that sleeps until it is woken: the checker's own parking keeps no token.
    #[derive(Default)]
    struct Sleep {
        is_woken: Mutex<bool>,
        woken: loom::sync::Condvar,
    }

    impl std::task::Wake for Sleep {
        fn wake(self: std::sync::Arc<Self>) {
            *self.is_woken.lock().unwrap() = true;
            self.woken.notify_one();
        }
    }

    #[test]
    fn a_sender_that_waits_for_room_is_told() {
        loom::model(|| {
            let lane = loom::sync::Arc::new(Lane::new());
            assert!(lane.push(Box::new(|| ())).is_ok());
            let taker = {
                let lane = loom::sync::Arc::clone(&lane);
                loom::thread::spawn(move || assert!(lane.pop().is_some()))
            };
            // As `Remote::send` does it: try, leave a waker, try once more, sleep.
            let sleep = std::sync::Arc::new(Sleep::default());
            let waker = Waker::from(std::sync::Arc::clone(&sleep));
            let mut job: Job = Box::new(|| ());
            loop {
                let Err(full) = lane.push(job) else { break };
                lane.wait(&waker);
                let Err(full) = lane.push(full) else { break };
                job = full;
                let mut is_woken = sleep.is_woken.lock().unwrap();
                while !std::mem::take(&mut *is_woken) {
                    is_woken = sleep.woken.wait(is_woken).unwrap();
                }
            }
            taker.join().unwrap();
        });
    }
}

#[cfg(all(test, not(loom)))]
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
