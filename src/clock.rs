//! The one file that reads the clock.
//!
//! The shard loop calls [`now`] about once a turn and everyone above uses that cached reading, so
//! that a request costs few clock reads. [`Instant`] counts nanoseconds of `CLOCK_MONOTONIC`
//! (clock_gettime(2)); it never decreases. On a thread whose clock is paused (see
//! `Builder::paused_clock`), [`now`] is the instant at which it stands.

use std::cell::Cell;
use std::ops::Add;
use std::time::Duration;

/// A point on the monotonic clock, in nanoseconds since an unspecified start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(u64);

impl Instant {
    /// The far end of time: a deadline that never comes.
    pub const NEVER: Instant = Instant(u64::MAX);

    /// An instant `nanos` nanoseconds after the clock's start. For tests and simulated clocks.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the clock's start.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Nanoseconds from `earlier` to this instant; 0 if `earlier` is later.
    pub const fn nanos_since(self, earlier: Instant) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Time from `earlier` to this instant; zero if `earlier` is later.
    pub const fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.nanos_since(earlier))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    /// Saturates at [`Instant::NEVER`].
    fn add(self, duration: Duration) -> Instant {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Instant(self.0.saturating_add(nanos))
    }
}

thread_local! {
    /// Where this thread's clock stands; [`Instant::NEVER`] while it follows the real one. A plain
    /// word without a destructor, so that reading it costs one load.
    static PAUSED_AT: Cell<Instant> = const { Cell::new(Instant::NEVER) };
}

/// Reads the monotonic clock (a vDSO call, no kernel entry; 20 to 30 ns), or where it stands on a
/// thread whose clock is paused.
#[inline]
pub fn now() -> Instant {
    match PAUSED_AT.get() {
        Instant::NEVER => real_now(),
        paused_at => paused_at,
    }
}

/// Pauses this thread's clock at an instant, or lets it follow the real one; where it stood before.
pub(crate) fn pause_at(instant: Option<Instant>) -> Option<Instant> {
    let before = PAUSED_AT.replace(instant.unwrap_or(Instant::NEVER));
    (before != Instant::NEVER).then_some(before)
}

/// Lets this thread's clock follow the real one until the guard is dropped.
pub(crate) fn real_for_now() -> RealForNow {
    RealForNow(pause_at(None))
}

/// Pauses the clock again on drop, where it had stood.
pub(crate) struct RealForNow(Option<Instant>);

impl Drop for RealForNow {
    fn drop(&mut self) {
        pause_at(self.0);
    }
}

#[inline]
fn real_now() -> Instant {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid, writable timespec for the length of the call, and
    // CLOCK_MONOTONIC exists on every Linux, so the call cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    Instant(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// One point on this clock and on that of `std`, taken once.
#[cfg(feature = "hyper")]
fn anchor() -> (Instant, std::time::Instant) {
    use std::sync::OnceLock;
    static ANCHOR: OnceLock<(Instant, std::time::Instant)> = OnceLock::new();
    *ANCHOR.get_or_init(|| (real_now(), std::time::Instant::now()))
}

/// The instant as one of `std`'s clock, which is the same clock but cannot be set.
#[cfg(feature = "hyper")]
pub(crate) fn to_std(instant: Instant) -> std::time::Instant {
    let (own, std) = anchor();
    // Within the range of both, but for `NEVER`: far enough ahead then.
    let far = || std + Duration::from_secs(u64::from(u32::MAX));
    if instant >= own {
        std.checked_add(instant.since(own)).unwrap_or_else(far)
    } else {
        std.checked_sub(own.since(instant)).unwrap_or(std)
    }
}

/// The inverse of [`to_std`].
#[cfg(feature = "hyper")]
pub(crate) fn from_std(instant: std::time::Instant) -> Instant {
    let (own, std) = anchor();
    match instant.checked_duration_since(std) {
        Some(ahead) => own + ahead,
        None => {
            let behind = std.saturating_duration_since(instant).as_nanos();
            Instant(own.0.saturating_sub(u64::try_from(behind).unwrap_or(u64::MAX)))
        }
    }
}

/// Milliseconds since the Unix epoch. Follows the wall clock, so it may step.
pub fn unix_millis() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_never_decreases() {
        let mut last = now();
        for _ in 0..10_000 {
            let next = now();
            assert!(next >= last);
            last = next;
        }
    }

    #[test]
    fn a_paused_clock_stands_still_on_its_thread_alone() {
        let start = now();
        let stands = Instant::from_nanos(7);
        assert_eq!(pause_at(Some(stands)), None);
        assert_eq!((now(), now()), (stands, stands));
        assert!(std::thread::spawn(now).join().unwrap() >= start);
        {
            let _real = real_for_now();
            assert!(now() >= start);
        }
        assert_eq!(now(), stands);
        assert_eq!(pause_at(None), Some(stands));
        assert!(now() >= start);
    }

    #[cfg(feature = "hyper")]
    #[test]
    fn an_instant_of_std_is_the_same_instant() {
        let (own, _) = anchor();
        for nanos in [0, 1, own.0 - 1, own.0, own.0 + 1, own.0 + 3_600_000_000_000] {
            let instant = Instant::from_nanos(nanos);
            assert_eq!(from_std(to_std(instant)), instant);
        }
        assert!(to_std(Instant::NEVER) > to_std(now()));
    }

    #[test]
    fn adding_to_an_instant_saturates_at_never() {
        assert_eq!(Instant::from_nanos(5) + Duration::MAX, Instant::NEVER);
        assert_eq!(Instant::from_nanos(5).nanos_since(Instant::from_nanos(9)), 0);
    }
}
