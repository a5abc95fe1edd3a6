//! One waiter of one side, woken by the other from another thread.
//!
//! The same two steps as in `shard/mesh.rs`: the waiter leaves its waker and looks once more; the
//! other side changes what is waited for and looks whether somebody waits. Both put a sequentially
//! consistent fence in between, so at least one sees the other, and only who finds somebody waiting
//! takes the lock. `loom_tests` of `spsc.rs` walk through every interleaving.

use std::sync::PoisonError;
#[cfg(not(loom))]
use std::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering, fence},
};
use std::task::Waker;

#[cfg(loom)]
use loom::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering, fence},
};

#[derive(Debug)]
pub(crate) struct Waiter {
    is_waiting: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Waiter {
    pub(crate) fn new() -> Self {
        Self { is_waiting: AtomicBool::new(false), waker: Mutex::new(None) }
    }

    /// Leaves a waker. The caller looks once more after this, and waits only then.
    pub(crate) fn wait(&self, waker: &Waker) {
        let mut place = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        let old = match &*place {
            Some(left) if left.will_wake(waker) => None,
            _ => place.replace(waker.clone()),
        };
        self.is_waiting.store(true, Ordering::Relaxed);
        drop(place);
        drop(old);
        fence(Ordering::SeqCst);
    }

    /// Wakes who waits. Call it after what is waited for has come about.
    pub(crate) fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.is_waiting.load(Ordering::Relaxed)
            && let Some(waker) = self.take()
        {
            waker.wake();
        }
    }

    /// Nobody waits any more.
    pub(crate) fn leave(&self) {
        drop(self.take());
    }

    fn take(&self) -> Option<Waker> {
        let mut place = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_waiting.store(false, Ordering::Relaxed);
        place.take()
    }
}
