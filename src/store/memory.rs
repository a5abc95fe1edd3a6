//! The limit of the store's memory, and what gives way when it is reached. Shared by every
//! partition, the settings that change it and whoever asks how much is used.
//!
//! Invariant: a partition writes its own figures and nobody else's; the limit itself may be changed
//! at any time, and takes effect with the next write.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use crossbeam_utils::CachePadded;

use super::slots::PartitionId;

/// Keys that are compared to find one to evict, unless set otherwise: enough to come close to the
/// exact order, by the documentation of Redis.
/// <https://redis.io/docs/latest/develop/reference/eviction/>
pub const SAMPLES_COUNT: u32 = 5;
/// Most keys that are compared to find one.
pub const SAMPLES_COUNT_MAX: u32 = 64;

/// Which keys give way when memory is full. Names and meanings are those of Redis.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Policy {
    /// None: writes that need memory are refused.
    #[default]
    NoEviction,
    /// Those not used for the longest time.
    AllKeysLru,
    /// Those used least often.
    AllKeysLfu,
    /// Any.
    AllKeysRandom,
    /// Of those with a deadline, the ones not used for the longest time.
    VolatileLru,
    /// Of those with a deadline, the ones used least often.
    VolatileLfu,
    /// Any of those with a deadline.
    VolatileRandom,
    /// Those whose deadline is nearest.
    VolatileTtl,
}

impl Policy {
    /// Every policy.
    pub const ALL: [Self; 8] = [
        Self::NoEviction,
        Self::AllKeysLru,
        Self::AllKeysLfu,
        Self::AllKeysRandom,
        Self::VolatileLru,
        Self::VolatileLfu,
        Self::VolatileRandom,
        Self::VolatileTtl,
    ];

    /// The policy's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoEviction => "noeviction",
            Self::AllKeysLru => "allkeys-lru",
            Self::AllKeysLfu => "allkeys-lfu",
            Self::AllKeysRandom => "allkeys-random",
            Self::VolatileLru => "volatile-lru",
            Self::VolatileLfu => "volatile-lfu",
            Self::VolatileRandom => "volatile-random",
            Self::VolatileTtl => "volatile-ttl",
        }
    }

    /// The policy called `name`, in whatever case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.name().eq_ignore_ascii_case(name))
    }

    /// Whether only keys with a deadline give way.
    pub fn is_volatile(self) -> bool {
        use Policy::{VolatileLfu, VolatileLru, VolatileRandom, VolatileTtl};
        matches!(self, VolatileLru | VolatileLfu | VolatileRandom | VolatileTtl)
    }

    /// Whether it goes by how often a key is used, rather than by when it was used last.
    #[inline]
    pub fn counts_uses(self) -> bool {
        matches!(self, Self::AllKeysLfu | Self::VolatileLfu)
    }
}

/// What a partition tells about its memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes taken, as the limit counts them.
    pub bytes: usize,
    /// Keys, those with a deadline among them.
    pub keys: usize,
    /// Keys with a deadline.
    pub deadlines: usize,
}

#[derive(Debug, Default)]
struct Published {
    bytes: AtomicUsize,
    keys: AtomicUsize,
    deadlines: AtomicUsize,
}

/// The limit of a store's memory.
#[derive(Debug)]
pub struct Limit {
    /// 0: there is none.
    bytes_max: AtomicU64,
    policy: AtomicU8,
    /// Whether the policy counts uses: asked for by every visit.
    counts_uses: AtomicBool,
    samples: AtomicU32,
    peak: AtomicUsize,
    partitions: Box<[CachePadded<Published>]>,
}

impl Limit {
    /// No limit yet, for a store of this many partitions.
    pub fn new(partitions: usize) -> Self {
        Self {
            bytes_max: AtomicU64::new(0),
            policy: AtomicU8::new(Policy::NoEviction as u8),
            counts_uses: AtomicBool::new(false),
            samples: AtomicU32::new(SAMPLES_COUNT),
            peak: AtomicUsize::new(0),
            partitions: (0..partitions).map(|_| CachePadded::default()).collect(),
        }
    }

    /// The limit, in bytes; 0: none.
    #[inline]
    pub fn bytes_max(&self) -> u64 {
        self.bytes_max.load(Ordering::Relaxed)
    }

    /// Changes the limit; 0: none.
    pub fn set_bytes_max(&self, bytes: u64) {
        self.bytes_max.store(bytes, Ordering::Relaxed);
    }

    /// Which keys give way.
    #[inline]
    pub fn policy(&self) -> Policy {
        Policy::ALL[usize::from(self.policy.load(Ordering::Relaxed))]
    }

    /// Changes which keys give way.
    pub fn set_policy(&self, policy: Policy) {
        self.policy.store(policy as u8, Ordering::Relaxed);
        self.counts_uses.store(policy.counts_uses(), Ordering::Relaxed);
    }

    /// Whether uses of keys are counted, rather than dated.
    #[inline]
    pub(super) fn counts_uses(&self) -> bool {
        self.counts_uses.load(Ordering::Relaxed)
    }

    /// How many keys are compared to find one that gives way.
    pub fn samples(&self) -> u32 {
        self.samples.load(Ordering::Relaxed)
    }

    /// Changes how many keys are compared: from 1 to [`SAMPLES_COUNT_MAX`], the nearest is taken.
    pub fn set_samples(&self, count: u32) {
        self.samples.store(count.clamp(1, SAMPLES_COUNT_MAX), Ordering::Relaxed);
    }

    /// Takes note of what partition `id` has come to.
    #[inline]
    pub(super) fn publish(&self, id: PartitionId, usage: Usage) {
        let published = &self.partitions[id.index()];
        published.bytes.store(usage.bytes, Ordering::Relaxed);
        published.keys.store(usage.keys, Ordering::Relaxed);
        published.deadlines.store(usage.deadlines, Ordering::Relaxed);
    }

    /// What partition `id` told last.
    pub fn usage(&self, id: PartitionId) -> Usage {
        let published = &self.partitions[id.index()];
        Usage {
            bytes: published.bytes.load(Ordering::Relaxed),
            keys: published.keys.load(Ordering::Relaxed),
            deadlines: published.deadlines.load(Ordering::Relaxed),
        }
    }

    /// Bytes that all partitions have taken, by what they told last.
    pub fn used(&self) -> usize {
        self.partitions.iter().map(|published| published.bytes.load(Ordering::Relaxed)).sum()
    }

    /// Bytes that all partitions but `id` have taken.
    pub(super) fn used_without(&self, id: PartitionId) -> usize {
        self.used().saturating_sub(self.usage(id).bytes)
    }

    /// The most bytes ever taken, as seen by [`Limit::note_peak`].
    pub fn peak(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }

    /// Looks how much is taken now, and remembers the most. Called now and then.
    pub fn note_peak(&self) {
        self.peak.fetch_max(self.used(), Ordering::Relaxed);
    }

    /// How many partitions there are.
    pub(super) fn partitions_count(&self) -> usize {
        self.partitions.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_found_by_their_names() {
        for (number, policy) in Policy::ALL.into_iter().enumerate() {
            assert_eq!(policy as usize, number, "the number is the index");
            assert_eq!(Policy::from_name(&policy.name().to_uppercase()), Some(policy));
        }
        assert_eq!(Policy::from_name("lru"), None);
    }

    #[test]
    fn figures_of_partitions_add_up() {
        let limit = Limit::new(3);
        for id in 0..3 {
            let bytes = 100 * usize::from(id);
            limit.publish(PartitionId(id), Usage { bytes, keys: 1, deadlines: 0 });
        }
        assert_eq!(limit.used(), 300);
        limit.note_peak();
        limit.publish(PartitionId(2), Usage::default());
        assert_eq!((limit.used(), limit.peak()), (100, 300));
    }

    #[test]
    fn samples_stay_within_bounds() {
        let limit = Limit::new(1);
        limit.set_samples(0);
        assert_eq!(limit.samples(), 1);
        limit.set_samples(1000);
        assert_eq!(limit.samples(), SAMPLES_COUNT_MAX);
    }
}
