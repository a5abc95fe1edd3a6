//! Ticks at a fixed period: [`interval`].

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;

use super::{Instant, Sleep, sleep_until};

/// Ticks every `period`, the first time at once.
///
/// # Panics
/// If `period` is zero.
#[track_caller]
pub fn interval(period: Duration) -> Interval {
    interval_at(crate::clock::now(), period)
}

/// [`interval`] with its first tick at `start`.
///
/// # Panics
/// If `period` is zero.
#[track_caller]
pub fn interval_at(start: Instant, period: Duration) -> Interval {
    assert!(
        !period.is_zero(),
        "an interval of no time would tick for ever: use a period of at least 1 ns, or \
         task::yield_now to run once a turn"
    );
    Interval { period, missed: MissedTick::default(), sleep: sleep_until(start) }
}

/// What follows a tick that was taken later than the next was due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MissedTick {
    /// The missed ticks at once, one after the other, until it is in time again: as many ticks as
    /// there were periods.
    #[default]
    Burst,
    /// The next one a whole period after the late one was taken.
    Delay,
    /// The next one that is still to come, counted from the start: missed ticks are left out.
    Skip,
}

/// Ticks at a fixed period. Also a [`Stream`] of the same instants that has no end.
#[derive(Debug)]
#[must_use = "an interval does nothing unless its ticks are awaited"]
pub struct Interval {
    period: Duration,
    missed: MissedTick,
    /// Until the next tick.
    sleep: Sleep,
}

impl Interval {
    /// What follows a late tick; [`MissedTick::Burst`] by default.
    pub fn missed_tick(mut self, missed: MissedTick) -> Self {
        self.missed = missed;
        self
    }

    /// The time between two ticks.
    pub fn period(&self) -> Duration {
        self.period
    }

    /// When the next tick is due.
    pub fn due(&self) -> Instant {
        self.sleep.deadline()
    }

    /// Waits for the next tick and returns when it was due, which may be before now.
    ///
    /// Cancel-safe: a tick that is not taken stays for the next call.
    ///
    /// # Panics
    /// When polled outside a runtime.
    pub async fn tick(&mut self) -> Instant {
        poll_fn(|context| self.poll_tick(context)).await
    }

    /// Has the next tick come one period from now.
    pub fn reset(&mut self) {
        self.sleep.reset(crate::clock::now() + self.period);
    }

    fn poll_tick(&mut self, context: &mut Context<'_>) -> Poll<Instant> {
        let due = self.sleep.deadline();
        // One that is due needs no timer, and a burst no turn for each of its ticks.
        if due > crate::clock::now() {
            ready!(Pin::new(&mut self.sleep).poll(context));
        }
        let now = crate::clock::now();
        self.sleep.reset(self.missed.next(due, now, self.period));
        Poll::Ready(due)
    }
}

impl MissedTick {
    /// When the tick behind the one at `due` comes, if that was taken at `now`.
    fn next(self, due: Instant, now: Instant, period: Duration) -> Instant {
        let in_time = due + period;
        match self {
            MissedTick::Burst => in_time,
            _ if now < in_time => in_time,
            MissedTick::Delay => now + period,
            MissedTick::Skip => {
                let period_ns = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX);
                let late_ns = now.nanos_since(due) % period_ns;
                now + Duration::from_nanos(period_ns - late_ns)
            }
        }
    }
}

impl Stream for Interval {
    type Item = Instant;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Instant>> {
        self.poll_tick(context).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_tick_follows_the_policy() {
        let at = Instant::from_nanos;
        let period = Duration::from_nanos(10);
        let next = |missed: MissedTick, now| missed.next(at(100), at(now), period).as_nanos();
        for (now, burst, delay, skip) in
            [(100, 110, 110, 110), (109, 110, 110, 110), (110, 110, 120, 120), (137, 110, 147, 140)]
        {
            assert_eq!(next(MissedTick::Burst, now), burst, "now {now}");
            assert_eq!(next(MissedTick::Delay, now), delay, "now {now}");
            assert_eq!(next(MissedTick::Skip, now), skip, "now {now}");
        }
    }
}
