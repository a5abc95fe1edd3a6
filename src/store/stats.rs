//! What a partition counts. Read by `INFO` and the metrics.
//!
//! Invariant: counters only grow, except by `CONFIG RESETSTAT`.

/// Counters of one partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Lookups by reading commands that found their key.
    pub hits: u64,
    /// Lookups by reading commands that found no key.
    pub misses: u64,
    /// Keys removed because their deadline had passed.
    pub expired: u64,
}

impl Stats {
    /// Adds the counters of `other`.
    pub fn add(&mut self, other: Self) {
        self.hits += other.hits;
        self.misses += other.misses;
        self.expired += other.expired;
    }
}
