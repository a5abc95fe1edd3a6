//! What a partition counts. Read by `INFO` and the metrics.
//!
//! Invariant: counters only grow.

use crate::metrics::{self, Counter};

/// Counters of one partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Lookups by reading commands that found their key.
    pub hits: u64,
    /// Lookups by reading commands that found no key.
    pub misses: u64,
    /// Keys removed because their deadline had passed.
    pub expired: u64,
    /// Keys removed because memory was full.
    pub evicted: u64,
}

impl Stats {
    /// Tells the metrics what was counted since `before`.
    pub(super) fn report_since(&self, before: Self) {
        if *self == before {
            return;
        }
        metrics::add(Counter::KeyspaceHits, self.hits.saturating_sub(before.hits));
        metrics::add(Counter::KeyspaceMisses, self.misses.saturating_sub(before.misses));
        metrics::add(Counter::KeysExpired, self.expired.saturating_sub(before.expired));
        metrics::add(Counter::KeysEvicted, self.evicted.saturating_sub(before.evicted));
    }

    /// Adds the counters of `other`.
    pub fn add(&mut self, other: Self) {
        self.hits += other.hits;
        self.misses += other.misses;
        self.expired += other.expired;
        self.evicted += other.evicted;
    }
}
