//! Room for what a write adds: keys are evicted where the limit of memory is reached. Called by the
//! services before each write that may need memory.
//!
//! Invariant: one call evicts a bounded number of keys. What takes longer is done in several, and
//! the write waits meanwhile while others are served; so a write never starts above the limit, and
//! exceeds it by what it adds itself at most. Writes of several shards at a time may each do so.
//!
//! Keys are evicted where the write comes in, unless that partition has clearly less than its share
//! and another one could give way: then the fullest does.

use super::access::{Home, Reach};
use super::eviction::Rules;
use super::gate::Gate;
use super::memory::{Limit, Policy, Usage};
use super::{Partition, PartitionId, Store};

/// Keys evicted in one call: some 100 microseconds.
const STEP_COUNT: usize = 64;
/// A partition with less than this share, in eighths, of what it would have if all had the same
/// leaves it to others to give way.
const FAIR_EIGHTHS: usize = 7;

/// Whether there is room for a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Room {
    /// There is, now.
    Enough,
    /// More has to be evicted than is done in one call.
    NotYet,
    /// Partition `id`, out of reach, should evict first, by [`Store::give_way`].
    Elsewhere(PartitionId),
    /// There is none, and nothing may be evicted.
    None,
}

impl Limit {
    /// What is evicted.
    fn rules(&self) -> Rules {
        Rules { policy: self.policy(), samples: self.samples() }
    }

    /// The partition with most bytes among those that have something to evict.
    fn fullest(&self, policy: Policy) -> Option<PartitionId> {
        let ids = (0..self.partitions_count()).map(|id| PartitionId(id as u16));
        let figures = ids.map(|id| (id, self.usage(id)));
        let can_give = figures.filter(|(_, usage)| has_victims(policy, *usage));
        can_give.max_by_key(|(_, usage)| usage.bytes).map(|(id, _)| id)
    }

    /// Whether a partition that takes `bytes`, of `used` in all, is as full as others.
    fn is_fair_share(&self, bytes: usize, used: usize) -> bool {
        bytes * 8 >= used / self.partitions_count() * FAIR_EIGHTHS
    }

    /// Whether `used` bytes are more than the limit.
    #[inline]
    fn is_exceeded(&self, used: usize) -> bool {
        let bytes_max = self.bytes_max();
        bytes_max != 0 && used as u64 > bytes_max
    }
}

fn has_victims(policy: Policy, usage: Usage) -> bool {
    match policy {
        Policy::NoEviction => false,
        policy if policy.is_volatile() => usage.deadlines > 0,
        _ => usage.keys > 0,
    }
}

impl Home<'_> {
    /// Makes room for a write, when `waiting_bytes` of other writes are on their way to partitions
    /// out of reach.
    #[inline]
    pub fn make_room(&mut self, waiting_bytes: usize) -> Room {
        match self.limit.filter(|limit| limit.bytes_max() != 0) {
            None => Room::Enough,
            Some(limit) => self.make_room_within(limit, waiting_bytes),
        }
    }

    fn make_room_within(&mut self, limit: &Limit, waiting_bytes: usize) -> Room {
        let rules = limit.rules();
        match &mut self.reach {
            Reach::One(id, partition) => {
                let others = self.others_bytes.get_or_insert_with(|| limit.used_without(*id));
                let others = *others + waiting_bytes;
                make_room_at(partition, others, rules, limit)
            }
            Reach::All(_) => {
                let used = limit.used();
                if !limit.is_exceeded(used) {
                    return Room::Enough;
                }
                let Some(id) = limit.fullest(rules.policy) else { return Room::None };
                self.give_way(id);
                if limit.is_exceeded(limit.used()) { Room::NotYet } else { Room::Enough }
            }
        }
    }

    /// Evicts some keys of partition `id` if the limit is exceeded; answers how many. Panics if it
    /// is out of reach.
    pub(super) fn give_way(&mut self, id: PartitionId) -> usize {
        let Some(limit) = self.limit else { return 0 };
        let others = limit.used_without(id);
        let over = |bytes: usize| limit.is_exceeded(bytes + others);
        self.with(id, |partition| partition.evict(limit.rules(), STEP_COUNT, over))
    }
}

/// The same as [`Home::make_room`], where one partition is within reach.
fn make_room_at(partition: &mut Partition, others: usize, rules: Rules, limit: &Limit) -> Room {
    let over = |bytes: usize| limit.is_exceeded(bytes + others);
    let usage = partition.usage();
    if !over(usage.bytes) {
        return Room::Enough;
    }
    let here = has_victims(rules.policy, usage);
    if here && limit.is_fair_share(usage.bytes, usage.bytes + others) {
        partition.evict(rules, STEP_COUNT, over);
        return if over(partition.usage().bytes) { Room::NotYet } else { Room::Enough };
    }
    // If this is the fullest after all, it is asked as another would be.
    match limit.fullest(rules.policy) {
        Some(id) => Room::Elsewhere(id),
        None if here => Room::NotYet,
        None => Room::None,
    }
}

impl Store {
    /// Has partition `id`, within reach, evict some keys if the limit is exceeded; answers how
    /// many. None while a command over several partitions is at work: what it has changed is not in
    /// the log yet, and what is evicted after it must not be there before it.
    pub fn give_way(&self, id: PartitionId) -> usize {
        if self.gate().is_some_and(Gate::is_closed) {
            return 0;
        }
        self.visit(|home| home.give_way(id)).0
    }

    /// Has partition `id`, within reach, evict some keys if the limit is exceeded and it has its
    /// fair share of it. Answers whether more is left to be done.
    pub fn give_fair_way(&self, id: PartitionId) -> bool {
        let limit = self.limit();
        let used = limit.used();
        limit.is_exceeded(used)
            && limit.is_fair_share(limit.usage(id).bytes, used)
            && self.give_way(id) > 0
    }

    /// Whether a write may go ahead without [`Home::make_room`].
    #[inline]
    pub fn has_room(&self) -> bool {
        let limit = self.limit();
        limit.bytes_max() == 0 || !limit.is_exceeded(limit.used())
    }
}

#[cfg(test)]
#[path = "room_tests.rs"]
mod tests;
