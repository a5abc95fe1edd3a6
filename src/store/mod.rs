//! The keyspace: partitions of databases of keys. Called by the services, through [`access`].
//!
//! Invariant: a [`Partition`] is plain data without clock, lock or task; time is an argument.
#![forbid(unsafe_code)]

pub mod access;
pub mod bytes;
pub mod gate;
pub mod glob;
pub mod keyspace;
pub mod loan;
mod slab;
pub mod slots;
pub mod stats;
pub mod value;

pub use access::{Home, Store};
pub use keyspace::{Expiry, Found, Keyspace};
pub use slots::{PartitionId, SlotMap};
pub use stats::Stats;
pub use value::{Value, WrongType};

/// Databases of a partition; `SELECT` takes numbers below this.
pub const DATABASES_COUNT: usize = 16;

/// A slice of the keyspace: the keys of some slots, in every database.
#[derive(Debug, Default)]
pub struct Partition {
    keyspaces: [Keyspace; DATABASES_COUNT],
    /// What happened here.
    pub stats: Stats,
    /// The database that the expiry cycle comes to next.
    expiry_database: usize,
    random: u64,
}

impl Partition {
    /// The keys of database `db`. Panics unless `db` is below [`DATABASES_COUNT`].
    #[inline]
    pub fn keyspace(&mut self, db: usize) -> &mut Keyspace {
        &mut self.keyspaces[db]
    }

    /// Every database, in order.
    pub fn keyspaces(&self) -> &[Keyspace] {
        &self.keyspaces
    }

    /// Finds `key` in database `db` for a command that changes it.
    #[inline]
    pub fn find(&mut self, db: usize, key: &[u8], now_ms: u64) -> Option<Found> {
        self.keyspaces[db].find(key, now_ms, &mut self.stats)
    }

    /// Finds `key` in database `db` for a command that reads it; counts a hit or a miss.
    #[inline]
    pub fn read(&mut self, db: usize, key: &[u8], now_ms: u64) -> Option<&Value> {
        let keyspace = &mut self.keyspaces[db];
        match keyspace.find(key, now_ms, &mut self.stats) {
            Some(found) => {
                self.stats.hits += 1;
                Some(keyspace.value(found))
            }
            None => {
                self.stats.misses += 1;
                None
            }
        }
    }

    /// Empties database `db`.
    pub fn flush(&mut self, db: usize) {
        self.keyspaces[db] = Keyspace::default();
    }

    /// Memory taken by keys and values, in bytes.
    pub fn bytes(&self) -> usize {
        self.keyspaces.iter().map(Keyspace::bytes).sum()
    }

    /// One step of the expiry cycle: looks at up to `budget` deadlines and removes what has
    /// expired. Answers how many keys it removed: many means that another step is worth it.
    pub fn expire_some(&mut self, now_ms: u64, budget: usize) -> usize {
        let before = self.stats.expired;
        let mut left = budget;
        for _ in 0..DATABASES_COUNT {
            let keyspace = &mut self.keyspaces[self.expiry_database];
            left -= keyspace.expire_some(now_ms, left, &mut self.stats);
            if left == 0 {
                break;
            }
            self.expiry_database = (self.expiry_database + 1) % DATABASES_COUNT;
        }
        (self.stats.expired - before) as usize
    }

    /// A number that is hard to foresee but not secret, from `seed` and what came before.
    pub fn random(&mut self, seed: u64) -> u64 {
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

    #[test]
    fn the_expiry_cycle_removes_all_in_bounded_steps() {
        let mut partition = Partition::default();
        for number in 0..1000u32 {
            let db = (number % 3) as usize;
            let key = number.to_be_bytes();
            let expiry = if number < 900 { Expiry::At(50) } else { Expiry::At(500) };
            partition.keyspace(db).set_string(&key, b"v", expiry);
        }
        assert_eq!(partition.expire_some(49, 10_000), 0);
        let mut steps = 0;
        while partition.stats.expired < 900 {
            assert!(partition.expire_some(50, 100) <= 100);
            steps += 1;
            assert!(steps < 30);
        }
        assert_eq!(partition.keyspaces().iter().map(Keyspace::len).sum::<usize>(), 100);
    }

    #[test]
    fn reads_count_hits_and_misses() {
        let mut partition = Partition::default();
        partition.keyspace(3).set_string(b"k", b"v", Expiry::At(10));
        assert!(partition.read(3, b"k", 9).is_some());
        assert!(partition.read(0, b"k", 9).is_none());
        assert!(partition.read(3, b"k", 10).is_none());
        assert_eq!(partition.stats, Stats { hits: 1, misses: 2, expired: 1 });
    }
}
