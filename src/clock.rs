//! The one file that reads the clock.
//!
//! The shard loop calls [`now`] about once a turn and everyone above uses that cached reading, so
//! that a request costs few clock reads. [`Instant`] counts nanoseconds of `CLOCK_MONOTONIC`
//! (clock_gettime(2)); it never decreases. On a thread whose clock is paused (see
//! `Builder::paused_clock`), [`now`] is the instant at which it stands.
//!
//! A shard stamps every poll. It does so with a [`Ticker`], which counts on from the last reading
//! by the processor's own counter, at half the price.

use std::cell::Cell;
use std::ops::Add;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
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

/// The clock of one thread that reads it all the time.
///
/// Between two readings of the real clock, [`Ticker::SPAN_NS`] apart at most, it counts on by the
/// processor's time stamp counter, where the kernel trusts that as its own clock source. It counts
/// slower than the counter by a thousandth, more than the kernel ever slews its clock (500 ppm,
/// adjtimex(2)): so it lags the real clock by less than two microseconds, is never ahead of it,
/// and never decreases.
pub(crate) struct Ticker {
    /// The counter and the clock at the last reading.
    ticks: Cell<u64>,
    nanos: Cell<u64>,
}

/// Nanoseconds per tick of the counter, times 2^32; 0 as long as that is not known.
static NANOS_PER_TICK: AtomicU64 = AtomicU64::new(0);

impl Ticker {
    const SPAN_NS: u64 = 1_000_000;

    pub(crate) fn new() -> Self {
        let ticker = Self { ticks: Cell::new(0), nanos: Cell::new(0) };
        ticker.read();
        ticker
    }

    /// [`now`], at half its price.
    #[inline]
    pub(crate) fn now(&self) -> Instant {
        let paused_at = PAUSED_AT.get();
        if paused_at != Instant::NEVER {
            return paused_at;
        }
        let rate = NANOS_PER_TICK.load(Ordering::Relaxed);
        // A counter that went back, or far ahead, is caught by the span as well.
        let ticks = counter().wrapping_sub(self.ticks.get());
        let passed = ticks.saturating_mul(rate) >> 32;
        if rate == 0 || passed >= Self::SPAN_NS {
            return self.read();
        }
        Instant(self.nanos.get() + passed)
    }

    /// [`now`]; the ticker counts on from here.
    pub(crate) fn read(&self) -> Instant {
        let paused_at = PAUSED_AT.get();
        if paused_at != Instant::NEVER {
            return paused_at;
        }
        let before = counter();
        let now = real_now();
        // Read after the clock, whatever came in between: that makes the ticker lag, not lead.
        let after = counter();
        self.ticks.set(after);
        self.nanos.set(now.0);
        if NANOS_PER_TICK.load(Ordering::Relaxed) == 0 {
            calibrate(before, now, after);
        }
        now
    }
}

/// Learns the counter's rate from two readings that lie far enough apart.
fn calibrate(before: u64, now: Instant, after: u64) {
    const APART_NS_MIN: u64 = 20_000_000;
    /// A reading that took more ticks was interrupted.
    const READING_TICKS_MAX: u64 = 2_000;
    /// What the rate is lowered by: 2^-10.
    const LAG_SHIFT: u32 = 10;
    static FIRST: OnceLock<(u64, Instant)> = OnceLock::new();
    if after.wrapping_sub(before) > READING_TICKS_MAX || !is_counter_trusted() {
        return;
    }
    let (first_ticks, first) = *FIRST.get_or_init(|| (after, now));
    let (ticks, nanos) = (after.wrapping_sub(first_ticks), now.nanos_since(first));
    if nanos >= APART_NS_MIN && ticks > 0 {
        let rate = (u128::from(nanos) << 32) / u128::from(ticks);
        let rate = u64::try_from(rate).unwrap_or(0);
        NANOS_PER_TICK.store(rate - (rate >> LAG_SHIFT), Ordering::Relaxed);
    }
}

/// Whether the kernel itself tells time by the counter.
fn is_counter_trusted() -> bool {
    static TRUSTED: OnceLock<bool> = OnceLock::new();
    const SOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    *TRUSTED.get_or_init(|| {
        cfg!(target_arch = "x86_64")
            && std::fs::read_to_string(SOURCE).is_ok_and(|source| source.trim() == "tsc")
    })
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn counter() -> u64 {
    // SAFETY: every x86-64 processor has RDTSC, and Linux lets user code execute it (unless a
    // process forbids it to itself by prctl(PR_SET_TSC), which nothing here does).
    unsafe { std::arch::x86_64::_rdtsc() }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn counter() -> u64 {
    0 // Never trusted.
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
    fn a_ticker_never_leads_the_clock_nor_decreases() {
        let ticker = Ticker::new();
        let start = now();
        let mut last = ticker.now();
        // Long enough to learn the rate and to read the clock many times after that.
        while now().nanos_since(start) < 60_000_000 {
            let next = ticker.now();
            assert!(next >= last, "{last:?} then {next:?}");
            assert!(next <= now());
            last = next;
        }
        assert_eq!(NANOS_PER_TICK.load(Ordering::Relaxed) > 0, is_counter_trusted());
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
