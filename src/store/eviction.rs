//! Which key gives way when memory is full: the best of a few drawn at random, with the best of
//! earlier draws kept in mind. Called by [`super::room`] when the limit is reached.
//!
//! Invariant: a step looks at a bounded number of keys for each that it evicts, whatever their
//! number; and as long as there is a key that may give way, one is found.
//!
//! The approach is the documented one of Redis:
//! <https://redis.io/docs/latest/develop/reference/eviction/#apx-lru>

use super::Partition;
use super::keyspace::Found;
use super::memory::Policy;
use super::slab::Place;

/// Candidates that are kept in mind.
const POOL_COUNT: usize = 16;
/// The unit of scores by age is one step of the clock of ages.
const AGE_UNIT_MS: u64 = 64;

/// What is evicted, and how it is chosen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    pub(super) policy: Policy,
    pub(super) samples: u32,
}

/// A key that was the best to evict when it was seen.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    /// The higher, the better to evict. It never falls while the key is left alone.
    score: u64,
    db: usize,
    place: Place,
}

/// The best candidates seen, the best of all last.
#[derive(Debug, Default)]
pub(super) struct Pool {
    candidates: Vec<Candidate>,
    policy: Policy,
}

impl Pool {
    fn offer(&mut self, candidate: Candidate) {
        let is_same =
            |other: &Candidate| other.db == candidate.db && other.place == candidate.place;
        self.candidates.retain(|other| !is_same(other));
        if self.candidates.len() == POOL_COUNT {
            if candidate.score <= self.candidates[0].score {
                return;
            }
            self.candidates.remove(0);
        }
        let index = self.candidates.partition_point(|other| other.score < candidate.score);
        self.candidates.insert(index, candidate);
    }

    /// Scores mean something else under another policy.
    fn follow(&mut self, policy: Policy) {
        if self.policy != policy {
            *self = Self { candidates: Vec::with_capacity(POOL_COUNT), policy };
        }
    }
}

impl Partition {
    /// Evicts up to `count` keys, as long as `wanted` says so of the bytes that are taken, as
    /// [`Partition::usage`] counts them. Answers how many it evicted.
    pub(super) fn evict(
        &mut self,
        rules: Rules,
        count: usize,
        wanted: impl Fn(usize) -> bool,
    ) -> usize {
        let mut evicted = 0;
        while evicted < count && wanted(self.usage().bytes) {
            let Some((db, found)) = self.victim(rules) else { break };
            self.database(db).evict(found);
            evicted += 1;
        }
        evicted
    }

    /// The key to evict next.
    fn victim(&mut self, rules: Rules) -> Option<(usize, Found)> {
        use Policy::{AllKeysRandom, NoEviction, VolatileRandom};
        match rules.policy {
            NoEviction => None,
            AllKeysRandom | VolatileRandom => self.draw(rules.policy),
            policy => {
                self.pool.follow(policy);
                // A pool full of keys that have been used since may have kept the others out.
                self.draw_best(rules).or_else(|| self.draw_best(rules))
            }
        }
    }

    /// Draws a few keys; answers the best candidate of all.
    fn draw_best(&mut self, rules: Rules) -> Option<(usize, Found)> {
        for _ in 0..rules.samples {
            let (db, found) = self.draw(rules.policy)?;
            let score = self.score(rules.policy, db, found)?;
            self.pool.offer(Candidate { score, db, place: found.place() });
        }
        self.best(rules.policy)
    }

    /// The best candidate that is still there and was left alone.
    fn best(&mut self, policy: Policy) -> Option<(usize, Found)> {
        while let Some(Candidate { score, db, place }) = self.pool.candidates.pop() {
            if let Some(found) = self.keyspaces[db].at(place)
                && self.score(policy, db, found).is_some_and(|now| now >= score)
            {
                return Some((db, found));
            }
        }
        None
    }

    /// How good it would be to evict a key; `None` if the policy spares it.
    fn score(&self, policy: Policy, db: usize, found: Found) -> Option<u64> {
        use Policy::{AllKeysLfu, AllKeysLru, VolatileLfu, VolatileLru, VolatileTtl};
        let keyspace = &self.keyspaces[db];
        let meter = &self.ledger.meter;
        if policy.is_volatile() && !keyspace.has_deadline(found) {
            return None;
        }
        match policy {
            AllKeysLru | VolatileLru => {
                // By the moment of the last use, so that a score stays the same as time goes by.
                let age = meter.idle_ms(keyspace.stamp(found)) / AGE_UNIT_MS;
                Some(u64::MAX - (meter.now_ms / AGE_UNIT_MS).saturating_sub(age))
            }
            AllKeysLfu | VolatileLfu => {
                Some(u64::MAX - u64::from(meter.frequency(keyspace.stamp(found))))
            }
            VolatileTtl => keyspace.deadline(found).map(|at_ms| u64::MAX - at_ms),
            _ => None,
        }
    }

    /// Any key that may give way, of all databases.
    fn draw(&mut self, policy: Policy) -> Option<(usize, Found)> {
        let random = self.random(0);
        let population = |db: usize| {
            let keyspace = &self.keyspaces[db];
            if policy.is_volatile() { keyspace.deadlines_len() } else { keyspace.len() }
        };
        let total: usize = self.databases_in_use().map(population).sum();
        let mut ticket = random.checked_rem(total as u64)? as usize;
        let db = self.databases_in_use().find(|&db| {
            let is_drawn = ticket < population(db);
            ticket = ticket.wrapping_sub(population(db));
            is_drawn
        })?;
        let random = self.random(0);
        let keyspace = &self.keyspaces[db];
        let found = if policy.is_volatile() {
            keyspace.sample_deadline(random)
        } else {
            keyspace.sample(random)
        };
        found.map(|found| (db, found))
    }
}

#[cfg(test)]
#[path = "eviction_tests.rs"]
mod tests;
