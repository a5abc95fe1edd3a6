//! Sleeping, time limits, intervals and callbacks at an instant, on the shard's timer wheel.
//!
//! What becomes due is woken in the order of its deadlines, and what has one deadline in the order
//! in which it was started. A timer is never early, and late by at most a tick of the wheel (66 µs)
//! and what the turn has to do first.

mod callback;
mod interval;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

pub use self::callback::{TimerHandle, schedule_after, schedule_at};
pub use self::interval::{Interval, MissedTick, interval, interval_at};
pub use crate::clock::Instant;
use crate::error::Error;
use crate::executor::timers::{TICK_NS, TimerKey};
use crate::shard::{Shard, context};

/// The turn's time: read once a turn and after each poll, so it costs nothing.
///
/// # Panics
/// Outside a runtime.
pub fn now() -> Instant {
    context::with(|shard| shard.now())
}

/// Moves the time of a runtime with a paused clock on by `duration`, at once: what became due runs
/// from the next turn on, in the order of the deadlines, and sees the time that has been reached.
/// A task that awaits [`sleep`] instead lets everyone run at their own instant on the way.
///
/// # Panics
/// Outside a runtime, and in one whose clock follows the real one.
#[track_caller]
pub fn advance(duration: Duration) {
    let is_paused = context::with(|shard| shard.advance(duration));
    assert!(
        is_paused,
        "time::advance moves only a paused clock, and that of this runtime follows the real one: \
         build it with Builder::paused_clock(true)"
    );
}

/// Waits for `duration`; never less, usually less than 0.1 ms more.
///
/// Cancel-safe: a sleep that is dropped leaves no timer behind.
///
/// # Panics
/// When polled outside a runtime.
pub fn sleep(duration: Duration) -> Sleep {
    let length = (!context::is_entered()).then_some(duration);
    Sleep { deadline: crate::clock::now() + duration, length, timer: None }
}

/// Waits until `deadline`. One that is not in the future is ready at the next turn: others that are
/// ready run first.
///
/// Cancel-safe, as [`sleep`].
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep { deadline, length: None, timer: None }
}

/// A wait for an instant. Dropping it frees its timer.
#[derive(Debug)]
#[must_use = "a future does nothing unless awaited"]
pub struct Sleep {
    deadline: Instant,
    /// Made where no runtime runs, whose clock may be another: counted from the first poll.
    length: Option<Duration>,
    timer: Option<(TimerKey, Weak<Shard>)>,
}

impl Sleep {
    /// When it ends.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Moves the end, as if it had been made anew.
    pub fn reset(&mut self, deadline: Instant) {
        self.remove_timer();
        self.length = None;
        self.deadline = deadline;
    }

    /// Takes its place among the timers now instead of when it is first polled.
    fn arm(&mut self, waker: Waker) {
        self.timer = Some(context::with(|shard| {
            // The turn's time is good enough to see that a deadline is far; one that is not after
            // this moment must not wait for the end of its tick.
            let is_near = self.deadline.nanos_since(shard.now()) <= TICK_NS;
            let now = if is_near { crate::clock::now() } else { shard.now() };
            let timer = shard.timers.borrow_mut().insert(self.deadline, now, waker);
            (timer, Rc::downgrade(shard))
        }));
    }

    fn remove_timer(&mut self) {
        // Its own shard's timers, whatever runs on the thread now.
        let Some((timer, home)) = self.timer.take() else { return };
        if let Some(shard) = home.upgrade() {
            // The waker is dropped when the timers are no longer borrowed.
            let waker = shard.timers.borrow_mut().remove(timer);
            drop(waker);
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if let Some((timer, home)) = &self.timer {
            let Some(shard) = home.upgrade() else { return Poll::Pending };
            assert!(context::is_current(&shard), "{}", context::OF_ANOTHER_SHARD);
            let (fired, replaced) = shard.timers.borrow_mut().poll(*timer, context.waker());
            // Dropped when nothing is borrowed: it may be anybody's.
            drop(replaced);
            return if fired { Poll::Ready(()) } else { Poll::Pending };
        }
        if let Some(length) = self.length.take() {
            self.deadline = crate::clock::now() + length;
        }
        self.arm(context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.remove_timer();
    }
}

/// Awaits `future` for at most `duration`. On expiry the future is dropped, which cancels what it
/// was doing; a value that is ready at the deadline wins.
///
/// # Errors
/// [`Elapsed`] if the time is over first.
pub async fn timeout<F: Future>(duration: Duration, future: F) -> Result<F::Output, Elapsed> {
    timeout_at(crate::clock::now() + duration, future).await
}

/// [`timeout`] with a deadline.
///
/// As cancel-safe as `future`, which is dropped with it.
///
/// # Errors
/// [`Elapsed`] if the deadline comes first.
pub async fn timeout_at<F: Future>(deadline: Instant, future: F) -> Result<F::Output, Elapsed> {
    let mut future = std::pin::pin!(future);
    let mut sleep = std::pin::pin!(sleep_until(deadline));
    std::future::poll_fn(|context| {
        if let Poll::Ready(value) = future.as_mut().poll(context) {
            return Poll::Ready(Ok(value));
        }
        sleep.as_mut().poll(context).map(|()| Err(Elapsed(())))
    })
    .await
}

/// The time was over before the future.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed(());

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the time limit was reached")
    }
}

impl std::error::Error for Elapsed {}

impl From<Elapsed> for Error {
    fn from(_: Elapsed) -> Self {
        Error::timed_out("what was waited for")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Runtime;

    pub(super) fn armed() -> usize {
        context::with(|shard| shard.timers.borrow().armed())
    }

    #[test]
    fn a_sleep_that_is_dropped_frees_its_timer() {
        let runtime = Runtime::builder().shards(1).build().unwrap();
        let far = Duration::from_secs(3600);
        let left = runtime.block_on(async {
            let before = armed();
            for _ in 0..100 {
                assert!(timeout(Duration::ZERO, sleep(far)).await.is_err());
                assert_eq!(timeout(far, crate::task::yield_now()).await, Ok(()));
            }
            let sleeping = crate::task::spawn(sleep(far));
            crate::task::yield_now().await;
            assert_eq!(armed(), before + 1);
            assert!(sleeping.abort());
            assert!(sleeping.await.is_err());
            assert_eq!(armed(), before);
            // Dropped where no shard runs, it finds its own.
            let mut left = Box::pin(sleep(far));
            assert!(timeout(Duration::ZERO, left.as_mut()).await.is_err());
            Some(left)
        });
        assert_eq!(runtime.block_on(async { armed() }), 1);
        drop(left);
        assert_eq!(runtime.block_on(async { armed() }), 0);
    }
}
