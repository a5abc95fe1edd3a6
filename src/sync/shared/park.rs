//! Waiting for a future on a plain thread, which has nothing else to do.
//!
//! Used by the blocking calls of this folder. Invariant: never on a shard, whose tasks would stand
//! still and could not bring about what is waited for.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use crate::clock::Instant;
use crate::shard::context;

struct Parked {
    thread: Thread,
    /// An unpark may be for something else.
    is_woken: AtomicBool,
}

impl Wake for Parked {
    fn wake(self: Arc<Self>) {
        self.is_woken.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

/// Blocks the calling thread until the future is ready, or the deadline, if there is one, has
/// passed: `None` then.
pub(super) fn wait_until<F: Future>(future: F, deadline: Option<Instant>) -> Option<F::Output> {
    assert!(
        !context::is_running(),
        "a blocking call would stop this shard and all its tasks; await the future instead"
    );
    let mut future = pin!(future);
    let parked = Arc::new(Parked { thread: thread::current(), is_woken: AtomicBool::new(true) });
    let waker = Waker::from(Arc::clone(&parked));
    loop {
        if parked.is_woken.swap(false, Ordering::Acquire)
            && let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker))
        {
            return Some(value);
        }
        if parked.is_woken.load(Ordering::Acquire) {
            continue;
        }
        match deadline {
            None => thread::park(),
            Some(deadline) => {
                let left = deadline.since(crate::clock::now());
                if left.is_zero() {
                    return None;
                }
                thread::park_timeout(left);
            }
        }
    }
}

/// Blocks the calling thread until the future is ready.
pub(super) fn wait<F: Future>(future: F) -> F::Output {
    let value = wait_until(future, None);
    value.unwrap_or_else(|| unreachable!("there is no deadline"))
}
