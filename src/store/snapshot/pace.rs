//! How fast a snapshot is written. Asked by the one who writes it, before and after each record.
//!
//! Invariant: over any stretch of time no more is spent than the rate gives, but for one record;
//! what was not spent in time is not made up for.

use std::time::Duration;

use crate::clock::Instant;

/// A spender of bytes at a rate that may change.
#[derive(Debug)]
pub(super) struct Pace {
    rate_bytes: u64,
    /// When what was spent has been paid for.
    free_at: Instant,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { rate_bytes: 0, free_at: now }
    }

    /// Notes that `bytes` are written from `now` on, at `rate_bytes` a second; 0 is no limit.
    pub(super) fn spend(&mut self, bytes: u64, rate_bytes: u64, now: Instant) {
        let owed = self.owed(rate_bytes, now);
        self.free_at = now + owed + price(bytes, rate_bytes);
    }

    /// How much longer to rest.
    pub(super) fn owed(&mut self, rate_bytes: u64, now: Instant) -> Duration {
        let owed = self.free_at.since(now);
        if rate_bytes == self.rate_bytes {
            return owed;
        }
        // What is owed in bytes stays; it is paid off at the new rate.
        let bytes = owed.as_nanos() * u128::from(self.rate_bytes) / 1_000_000_000;
        let owed = price(u64::try_from(bytes).unwrap_or(u64::MAX), rate_bytes);
        (self.rate_bytes, self.free_at) = (rate_bytes, now + owed);
        owed
    }
}

fn price(bytes: u64, rate_bytes: u64) -> Duration {
    if rate_bytes == 0 {
        return Duration::ZERO;
    }
    let ns = u128::from(bytes) * 1_000_000_000 / u128::from(rate_bytes);
    Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn start() -> Instant {
        Instant::from_nanos(1_000_000_000)
    }

    #[test]
    fn what_is_spent_is_paid_off_at_the_rate() {
        let mut pace = Pace::new(start());
        pace.spend(1000, 1_000_000, start());
        assert_eq!(pace.owed(1_000_000, start()), MS);
        assert_eq!(pace.owed(1_000_000, start() + MS / 4), MS * 3 / 4);
        pace.spend(1000, 1_000_000, start() + MS / 4);
        assert_eq!(pace.owed(1_000_000, start() + MS), MS);
        assert_eq!(pace.owed(1_000_000, start() + MS * 2), Duration::ZERO);
    }

    #[test]
    fn time_not_used_is_not_made_up_for() {
        let mut pace = Pace::new(start());
        let late = start() + MS * 1000;
        pace.spend(1000, 1_000_000, late);
        assert_eq!(pace.owed(1_000_000, late), MS);
    }

    #[test]
    fn another_rate_counts_at_once() {
        let mut pace = Pace::new(start());
        pace.spend(1_000_000, 1, start());
        assert_eq!(pace.owed(1, start()), Duration::from_secs(1_000_000));
        assert_eq!(pace.owed(1_000_000, start()), Duration::from_secs(1));
        assert_eq!(pace.owed(0, start()), Duration::ZERO);
        pace.spend(1_000_000, 0, start());
        assert_eq!(pace.owed(0, start()), Duration::ZERO);
    }
}
