//! When a key was used last, or how often it is used: 32 bits of its entry. Kept up to date by
//! [`super::database::Database`], compared by the eviction, told by `OBJECT IDLETIME` and `FREQ`.
//!
//! Invariant: a stamp is believed as far back as stamps have been written the way they are read.
//! One from before a change between policies that go by age and those that go by frequency is taken
//! for a new key's of that moment. One that is a little ahead, since the clock was set back or the
//! use was told late, is of just now.
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
/// How far a clock may be set back before the stamps of then are not believed.
const AHEAD_MS_MAX: u64 = 24 * 60 * MINUTE_MS;

/// When a key was used last, or how often it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp(u32);

/// What dates or counts the uses of a partition's keys.
#[derive(Debug, Default)]
pub(super) struct Meter {
    /// Unix time in milliseconds, as told last.
    pub(super) now_ms: u64,
    /// Whether uses are counted rather than dated.
    counts_uses: bool,
    /// When that was changed last.
    since_ms: u64,
    random: u64,
}

impl Meter {
    /// Counts uses from now on, or dates them.
    #[inline]
    pub(super) fn count_uses(&mut self, counts_uses: bool) {
        if self.counts_uses != counts_uses {
            self.counts_uses = counts_uses;
            self.since_ms = self.now_ms;
        }
    }

    #[inline]
    pub(super) fn counts_uses(&self) -> bool {
        self.counts_uses
    }

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
        let age = i64::from(self.dated().0.wrapping_sub(stamp.0).cast_signed());
        let since = (self.now_ms.saturating_sub(self.since_ms) >> AGE_SHIFT).cast_signed();
        if (-((AHEAD_MS_MAX >> AGE_SHIFT).cast_signed())..=since).contains(&age) {
            (age.max(0) as u64) << AGE_SHIFT
        } else {
            (since as u64) << AGE_SHIFT
        }
    }

    /// How often the key is used, where uses are counted: 0 to 255, on a logarithmic scale.
    pub(super) fn frequency(&self, stamp: Stamp) -> u32 {
        let passed = self.minutes().wrapping_sub(stamp.0 >> COUNT_BITS) << COUNT_BITS;
        let passed = i64::from(passed.cast_signed() >> COUNT_BITS);
        let since = (self.now_ms.saturating_sub(self.since_ms).div_ceil(MINUTE_MS)).cast_signed();
        if (-((AHEAD_MS_MAX / MINUTE_MS).cast_signed())..=since).contains(&passed) {
            (stamp.0 & COUNT_MAX).saturating_sub(passed.max(0) as u32)
        } else {
            COUNT_NEW.saturating_sub(u32::try_from(since).unwrap_or(u32::MAX))
        }
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
        let mut meter = Meter { now_ms: 1, counts_uses: true, ..Meter::default() };
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
        let mut meter = Meter { now_ms: 1, counts_uses: true, ..Meter::default() };
        let stamp = meter.counted(100);
        meter.now_ms += 40 * MINUTE_MS;
        assert_eq!(meter.frequency(stamp), 60);
        meter.now_ms += 100 * MINUTE_MS;
        assert_eq!(meter.frequency(stamp), 0);
        let used = meter.used(stamp);
        assert_eq!(meter.frequency(used), 1);
    }

    #[test]
    fn a_use_that_was_told_late_or_before_the_clock_was_set_back_is_of_just_now() {
        let mut meter = Meter { now_ms: ROUND_MS + MINUTE_MS, ..Meter::default() };
        let stamp = meter.fresh();
        for back_ms in [64, MINUTE_MS, 23 * 60 * MINUTE_MS] {
            meter.now_ms = ROUND_MS + MINUTE_MS - back_ms;
            assert_eq!(meter.idle_ms(stamp), 0, "{back_ms}");
        }
        let mut meter = Meter { now_ms: 60 * MINUTE_MS, counts_uses: true, ..Meter::default() };
        let stamp = meter.counted(200);
        meter.now_ms -= 1;
        assert_eq!(meter.frequency(stamp), 200);
        let used = meter.used(stamp);
        assert!(meter.frequency(used) >= 200);
        meter.now_ms += 2;
        assert!(meter.frequency(used) >= 199);
    }

    #[test]
    fn a_stamp_from_before_a_change_is_a_new_keys_of_that_moment() {
        // A year of moments, so that no luck with the bits is taken for a rule.
        for day in 0..365 {
            let began = 1_700_000_000_000 + day * 24 * 60 * MINUTE_MS;
            let mut meter = Meter { now_ms: began, ..Meter::default() };
            let dated = meter.fresh();
            meter.now_ms += 10 * MINUTE_MS;
            meter.count_uses(true);
            assert_eq!(meter.frequency(dated), COUNT_NEW);
            meter.now_ms += 2 * MINUTE_MS;
            assert_eq!(meter.frequency(dated), COUNT_NEW - 2);
            let counted = meter.used(dated);
            meter.count_uses(false);
            meter.now_ms += 6400;
            assert_eq!(meter.idle_ms(counted), 6400);
        }
    }
}
