//! Closures that run at an instant: [`schedule_at`], [`schedule_after`].
//!
//! Each is a small task that waits for a timer, so that it is run, accounted for and, if it panics,
//! reported as any task is. Its timer takes its place at once and not at the task's first poll:
//! that is what keeps callbacks of one deadline in order, also among sleeps.

use std::cell::RefCell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use super::{Instant, Sleep, sleep_until};
use crate::task::{self, JoinHandle};

/// Runs `callback` on this shard after `duration`, in a turn of its own loop and never inline. The
/// callback runs whether or not the handle is kept.
///
/// With a `duration` of zero it runs in the next turn. Callbacks run in the order of their
/// deadlines and those of one deadline in the order in which they were scheduled. One that panics
/// ends like a task that panics; the shard lives on. Costs a task and a timer; both are constant
/// time.
///
/// # Panics
/// Outside a runtime.
#[track_caller]
pub fn schedule_after(duration: Duration, callback: impl FnOnce() + 'static) -> TimerHandle {
    schedule_at(crate::clock::now() + duration, callback)
}

/// [`schedule_after`] with an instant. One in the past is for the next turn.
///
/// # Panics
/// Outside a runtime.
#[track_caller]
pub fn schedule_at(deadline: Instant, callback: impl FnOnce() + 'static) -> TimerHandle {
    let mut sleep = sleep_until(deadline);
    sleep.arm(Waker::noop().clone());
    let sleep = Rc::new(RefCell::new(Some(sleep)));
    let waiting = Rc::clone(&sleep);
    let body = async move {
        if is_due(&waiting).await {
            callback();
        }
    };
    let task = task::Builder::new().name("scheduled").spawn(body);
    TimerHandle { deadline, sleep, task }
}

/// Waits for the timer and gives it up. False if it has been cancelled.
async fn is_due(sleep: &RefCell<Option<Sleep>>) -> bool {
    let ended = poll_fn(|context| match sleep.borrow_mut().as_mut() {
        Some(sleep) => Pin::new(sleep).poll(context).map(|()| true),
        None => Poll::Ready(false),
    })
    .await;
    drop(sleep.take());
    ended
}

/// A callback that waits for its instant. Dropping the handle leaves the callback as it is.
pub struct TimerHandle {
    deadline: Instant,
    /// `None` once the callback has begun or has been cancelled.
    sleep: Rc<RefCell<Option<Sleep>>>,
    task: JoinHandle<()>,
}

impl TimerHandle {
    /// When the callback is due.
    pub fn when(&self) -> Instant {
        self.deadline
    }

    /// Sees to it that the callback never runs. Its timer is free at once; what the closure holds
    /// is dropped in the next turn. False if the callback has begun or had been cancelled.
    pub fn cancel(&self) -> bool {
        let sleep = self.sleep.take();
        if sleep.is_some() {
            self.task.abort();
        }
        sleep.is_some()
    }

    /// Whether the callback is still to come.
    pub fn is_pending(&self) -> bool {
        self.sleep.borrow().is_some()
    }
}

impl fmt::Debug for TimerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimerHandle")
            .field("when", &self.deadline)
            .field("pending", &self.is_pending())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Runtime;
    use crate::time::tests::armed;

    #[test]
    fn a_hundred_thousand_callbacks_that_are_cancelled_leave_no_timer() {
        let runtime = Runtime::builder().shards(1).build().unwrap();
        runtime.block_on(async {
            let never = || unreachable!("it was cancelled");
            let handles: Vec<_> = (0..100_000)
                .map(|millis| schedule_after(Duration::from_millis(3_600_000 + millis), never))
                .collect();
            assert_eq!(armed(), 100_000);
            assert!(handles.iter().all(TimerHandle::cancel));
            assert_eq!(armed(), 0);
            assert!(!handles.iter().any(|handle| handle.is_pending() || handle.cancel()));
            crate::task::yield_now().await;
        });
    }
}
