//! The wall clock of a shard: the time of day for expiry, and the `Date` of replies.
//!
//! Read by the connection loop for every request. Invariant: between two readings of the system's
//! clock time goes on with the monotonic one, which the shard has read already, so that a request
//! costs no clock call; the two are brought together ten times a second.

use std::time::{Duration, UNIX_EPOCH};

use crate::clock::{self, Instant};
use crate::protocol::http1::reply::{DATE_BYTES, format_date};

const READING_VALID: Duration = Duration::from_millis(100);

/// The time of day, carried on from its last reading.
#[derive(Debug, Clone)]
pub(super) struct WallClock {
    read_at: Instant,
    unix_ms: u64,
    date: [u8; DATE_BYTES],
}

impl WallClock {
    pub(super) fn new() -> Self {
        let mut clock = Self { read_at: clock::now(), unix_ms: 0, date: [0; DATE_BYTES] };
        clock.read(clock.read_at);
        clock
    }

    /// Milliseconds since the epoch at `now`.
    #[inline]
    pub(super) fn unix_ms(&mut self, now: Instant) -> u64 {
        let since = now.since(self.read_at);
        if since >= READING_VALID {
            self.read(now);
            return self.unix_ms;
        }
        self.unix_ms + u64::from(since.subsec_millis())
    }

    /// The date at `now`, at most a tenth of a second behind.
    #[inline]
    pub(super) fn date(&mut self, now: Instant) -> [u8; DATE_BYTES] {
        if now.since(self.read_at) >= READING_VALID {
            self.read(now);
        }
        self.date
    }

    #[cold]
    fn read(&mut self, now: Instant) {
        let before_s = self.unix_ms / 1000;
        self.read_at = now;
        self.unix_ms = clock::unix_millis();
        if self.unix_ms / 1000 != before_s {
            self.date = format_date(UNIX_EPOCH + Duration::from_millis(self.unix_ms));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_between_readings() {
        let mut wall = WallClock::new();
        let start = wall.read_at;
        let first = wall.unix_ms(start);
        assert_eq!(wall.unix_ms(start + Duration::from_millis(99)), first + 99);
        assert_eq!(wall.read_at, start);
        let later = start + Duration::from_millis(100);
        assert!(wall.unix_ms(later) >= first);
        assert_eq!(wall.read_at, later);
    }

    #[test]
    fn the_date_is_a_date() {
        let date = WallClock::new().date(clock::now());
        assert!(date.ends_with(b" GMT"), "{}", date.escape_ascii());
    }
}
