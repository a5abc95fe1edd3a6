//! When a key was used last, or how often it is used: 32 bits of its entry. Kept up to date by
//! [`super::database::Database`], compared by the eviction, told by `OBJECT IDLETIME` and `FREQ`.
//!
//! Invariant: a stamp is read the way it was written. After a change from a policy that goes by age
//! to one that goes by frequency, or back, stamps mislead until their keys are used again.
//!
//! Ages are dated by a clock of 64 ms that comes round after nine years. Frequencies follow
//! the description of Redis: a counter of 8 bits that grows with falling probability, and falls by
//! one for each minute without use.
//! <https://redis.io/docs/latest/develop/reference/eviction/#lfu-eviction>

/// The unit of ages, as a power of two in milliseconds.
const AGE_SHIFT: u32 = 6;
/// The counter of a new key, so that it is not evicted before it has had a chance.
const COUNT_NEW: u32 = 5;
/// How much slower the counter grows with each step.
const GROWTH_FACTOR: u64 = 10;
const COUNT_BITS: u32 = 8;
const COUNT_MAX: u32 = (1 << COUNT_BITS) - 1;
const MINUTES_MAX: u32 = u32::MAX >> COUNT_BITS;
const MINUTE_MS: u64 = 60_000;

/// When a key was used last, or how often it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp(u32);

/// What dates or counts the uses of a partition's keys.
#[derive(Debug, Default)]
pub(super) struct Meter {
    /// Unix time in milliseconds, as told last.
    pub(super) now_ms: u64,
    /// Whether uses are counted rather than dated.
    pub(super) counts_uses: bool,
    random: u64,
}

impl Meter {
    /// The stamp of a new key.
    #[inline]
    pub(super) fn fresh(&self) -> Stamp {
        if self.counts_uses { self.counted(COUNT_NEW) } else { self.dated() }
    }

    /// The stamp of a key that is being used.
    #[inline]
    pub(super) fn used(&mut self, before: Stamp) -> Stamp {
        if self.counts_uses { self.counted_once_more(before) } else { self.dated() }
    }

    /// Milliseconds since the key was used, in steps of 64, where uses are dated.
    pub(super) fn idle_ms(&self, stamp: Stamp) -> u64 {
        u64::from(self.dated().0.wrapping_sub(stamp.0)) << AGE_SHIFT
    }

    /// How often the key is used, where uses are counted: 0 to 255, on a logarithmic scale.
    pub(super) fn frequency(&self, stamp: Stamp) -> u32 {
        let passed = self.minutes().wrapping_sub(stamp.0 >> COUNT_BITS) & MINUTES_MAX;
        (stamp.0 & COUNT_MAX).saturating_sub(passed)
    }

    #[inline]
    fn dated(&self) -> Stamp {
        Stamp((self.now_ms >> AGE_SHIFT) as u32)
    }

    fn counted(&self, count: u32) -> Stamp {
        Stamp(self.minutes() << COUNT_BITS | count)
    }

    fn counted_once_more(&mut self, before: Stamp) -> Stamp {
        let count = self.frequency(before);
        let odds = u64::from(count.saturating_sub(COUNT_NEW)) * GROWTH_FACTOR + 1;
        let grows = count < COUNT_MAX && self.random(0).is_multiple_of(odds);
        self.counted(count + u32::from(grows))
    }

    fn minutes(&self) -> u32 {
        (self.now_ms / MINUTE_MS) as u32 & MINUTES_MAX
    }

    /// A number that is hard to foresee but not secret, from `seed` and what came before.
    pub(super) fn random(&mut self, seed: u64) -> u64 {
        // A Weyl sequence through the finalizer of SplitMix64 (Steele, Lea and Flood, 2014).
        self.random = self.random.wrapping_add(seed | 1).wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When the clock of ages has just come round.
    const ROUND_MS: u64 = 7 << (32 + AGE_SHIFT);

    #[test]
    fn age_is_the_time_since_the_last_use() {
        let mut meter = Meter { now_ms: ROUND_MS - 1280, ..Meter::default() };
        let stamp = meter.fresh();
        meter.now_ms = ROUND_MS + 6400;
        assert_eq!(meter.idle_ms(stamp), 7680);
        let stamp = meter.used(stamp);
        assert_eq!(meter.idle_ms(stamp), 0);
    }

    #[test]
    fn a_counter_grows_ever_slower() {
        let mut meter = Meter { now_ms: 1, counts_uses: true, random: 0 };
        let mut stamp = meter.fresh();
        assert_eq!(meter.frequency(stamp), 5);
        let mut after = |uses: usize| {
            for _ in 0..uses {
                stamp = meter.used(stamp);
            }
            meter.frequency(stamp)
        };
        // The table in the documentation says 10, 18 and 142 after 100, 1000 and 100,000 hits.
        let counts = [after(100), after(900), after(99_000)];
        for (count, expected) in counts.into_iter().zip([7..14, 15..23, 135..150]) {
            assert!(expected.contains(&count), "{counts:?}");
        }
        assert_eq!(after(5_000_000), COUNT_MAX);
    }

    #[test]
    fn a_counter_falls_by_one_a_minute() {
        let mut meter = Meter { now_ms: 1, counts_uses: true, random: 0 };
        let stamp = meter.counted(100);
        meter.now_ms += 40 * MINUTE_MS;
        assert_eq!(meter.frequency(stamp), 60);
        meter.now_ms += 100 * MINUTE_MS;
        assert_eq!(meter.frequency(stamp), 0);
        let used = meter.used(stamp);
        assert_eq!(meter.frequency(used), 1);
    }
}
