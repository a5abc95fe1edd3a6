//! What the connections of one thread share: the time of day and spare buffers.
//!
//! Used by the connection loop. Invariant: nothing is borrowed across an await.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use crate::clock::{self, Instant};

/// How long time goes on with the monotonic clock before the wall clock is read again.
const READING_VALID: Duration = Duration::from_millis(100);
/// Spare buffers of a thread, and the largest that is kept.
const SPARE_COUNT_MAX: usize = 64;
const SPARE_BYTES_MAX: usize = 128 * 1024;

thread_local! {
    static WALL: Cell<(Instant, u64)> = const { Cell::new((Instant::from_nanos(0), 0)) };
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Milliseconds since the epoch at `now`, by a reading of the wall clock that is seldom renewed.
#[inline]
pub(super) fn unix_ms(now: Instant) -> u64 {
    let (read_at, unix_ms) = WALL.get();
    let since = now.since(read_at);
    if unix_ms != 0 && since < READING_VALID {
        return unix_ms + u64::from(since.subsec_millis());
    }
    let unix_ms = clock::unix_millis();
    WALL.set((now, unix_ms));
    unix_ms
}

/// An empty buffer, with room from earlier use if there is one.
#[inline]
pub(super) fn take_buffer() -> Vec<u8> {
    SPARE.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Takes a buffer back. Connections that wait for input hold none.
#[inline]
pub(super) fn give_buffer(mut buffer: Vec<u8>) {
    let fits = (1..=SPARE_BYTES_MAX).contains(&buffer.capacity());
    SPARE.with_borrow_mut(|spare| {
        if fits && spare.len() < SPARE_COUNT_MAX {
            buffer.clear();
            spare.push(buffer);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_between_readings() {
        let start = clock::now();
        let first = unix_ms(start);
        assert_eq!(unix_ms(start + Duration::from_millis(99)), first + 99);
        assert!(unix_ms(start + Duration::from_millis(100)) >= first);
    }

    #[test]
    fn buffers_come_back_empty_with_their_room() {
        give_buffer(vec![1; 1000]);
        let buffer = take_buffer();
        assert_eq!((buffer.len(), buffer.capacity()), (0, 1000));
        give_buffer(vec![0; SPARE_BYTES_MAX + 1]);
        assert_eq!(take_buffer().capacity(), 0);
    }
}
