//! How good the choice of keys is: seeded access patterns against a partition with a limit.

use std::collections::BTreeSet;

use super::*;
use crate::store::Expiry;

/// Bytes of each value: large beside the tables, which grow in jumps.
const VALUE_BYTES: usize = 2000;
/// Bytes that [`Cache`] may take: some 2,000 keys.
const LIMIT_BYTES: usize = 4_300_000;

/// A partition that is used as a cache: what is not there is set.
struct Cache {
    partition: Partition,
    rules: Rules,
    now_ms: u64,
    random: u64,
}

impl Cache {
    fn new(policy: Policy) -> Self {
        let mut partition = Partition::default();
        partition.count_uses(policy.counts_uses());
        let rules = Rules { policy, samples: 5 };
        Self { partition, rules, now_ms: 1_000_000_000, random: 42 }
    }

    /// Reads a key, or sets it; answers whether it was there.
    fn ask(&mut self, key: u64) -> bool {
        self.now_ms += 10;
        self.partition.tick(self.now_ms);
        let name = key.to_be_bytes();
        if self.partition.read(0, &name, 0).is_some() {
            return true;
        }
        self.partition.evict(self.rules, usize::MAX, |bytes| bytes > LIMIT_BYTES);
        self.partition.database(0).set_string(&name, &[0; VALUE_BYTES], Expiry::At(u64::MAX - key));
        false
    }

    fn has(&self, key: u64) -> bool {
        let keyspace = self.partition.keyspace(0);
        let name = key.to_be_bytes();
        keyspace.lookup(keyspace.hash(&name), &name).is_some()
    }

    /// A number below `bound`, the lower the likelier: zipf-like, with exponent 1.
    fn skewed(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let unit = (self.random >> 11) as f64 / (1u64 << 53) as f64;
        (bound as f64).powf(unit) as u64 - 1
    }

    /// The share of hits, in thousandths, of a skewed pattern over 20,000 keys.
    fn skewed_hits(mut self) -> usize {
        const ASKED_COUNT: usize = 40_000;
        for _ in 0..ASKED_COUNT {
            let key = self.skewed(20_000);
            self.ask(key);
        }
        let mut hits = 0;
        for _ in 0..ASKED_COUNT {
            let key = self.skewed(20_000);
            hits += usize::from(self.ask(key));
        }
        hits * 1000 / ASKED_COUNT
    }

    /// How many of 500 keys, each asked for again and again, are there at the end of a flood of
    /// keys that are asked for once.
    fn hot_survivors(mut self) -> usize {
        for round in 0..30 {
            for key in 0..500 {
                self.ask(key);
            }
            for key in 0..1000 {
                self.ask(1_000_000 + round * 1000 + key);
            }
        }
        (0..500).filter(|&key| self.has(key)).count()
    }
}

#[test]
fn better_policies_hit_more_often() {
    let hits = |policy| Cache::new(policy).skewed_hits();
    let hits = [Policy::AllKeysRandom, Policy::AllKeysLru, Policy::AllKeysLfu].map(hits);
    println!("hits in thousandths: random {}, lru {}, lfu {}", hits[0], hits[1], hits[2]);
    // The best without seeing the future would be to keep the 2,000 likeliest: 767.
    assert!(hits[0] < 650, "{hits:?}");
    assert!(hits[1] > 670, "{hits:?}");
    assert!(hits[2] > 690, "{hits:?}");
}

#[test]
fn hot_keys_survive_a_flood() {
    let survivors = |policy| Cache::new(policy).hot_survivors();
    let random = survivors(Policy::AllKeysRandom);
    let [lru, lfu] = [Policy::AllKeysLru, Policy::AllKeysLfu].map(survivors);
    println!("of 500 hot keys survive: random {random}, lru {lru}, lfu {lfu}");
    assert!(random < 330, "{random}");
    assert!(lru > 490, "{lru}");
    assert!(lfu > 490, "{lfu}");
}

#[test]
fn policies_for_volatile_keys_choose_as_well() {
    let survivors = |policy| Cache::new(policy).hot_survivors();
    assert!(survivors(Policy::VolatileRandom) < 330);
    assert!(survivors(Policy::VolatileLru) > 490);
    assert!(survivors(Policy::VolatileLfu) > 490);
}

#[test]
fn the_nearest_deadlines_go_first() {
    let mut partition = Partition::default();
    for key in 0..10_000u64 {
        // A permutation, so that neighbours in the list have nothing to do with each other.
        let at_ms = 1_000_000 + key * 7919 % 10_000;
        partition.database(0).set_string(&key.to_be_bytes(), b"v", Expiry::At(at_ms));
    }
    partition.database(0).set_string(b"stays", b"v", Expiry::Never);
    let rules = Rules { policy: Policy::VolatileTtl, samples: 5 };
    assert_eq!(partition.evict(rules, 5000, |_| true), 5000);
    let keyspace = partition.keyspace(0);
    let is_near = |key: &u64| key * 7919 % 10_000 < 5000;
    let is_there = |key: &u64| {
        keyspace.lookup(keyspace.hash(&key.to_be_bytes()), &key.to_be_bytes()).is_some()
    };
    let near_left = (0..10_000).filter(is_near).filter(is_there).count();
    println!("of the 5000 nearest deadlines, {near_left} are left after 5000 evictions");
    assert!(near_left < 500, "{near_left}");
    assert_eq!(partition.evict(rules, usize::MAX, |_| true), 5000);
    assert_eq!(partition.usage().keys, 1, "a key without deadline is spared");
}

#[test]
fn every_key_that_may_go_is_found() {
    for policy in Policy::ALL {
        let mut partition = Partition::default();
        for number in 0..300u32 {
            let db = (number % 3) as usize;
            let expiry = if number < 200 { Expiry::At(1) } else { Expiry::Never };
            partition.database(db).set_string(&number.to_be_bytes(), b"v", expiry);
        }
        let rules = Rules { policy, samples: 5 };
        let expected = match policy {
            Policy::NoEviction => 0,
            policy if policy.is_volatile() => 200,
            _ => 300,
        };
        let evicted = partition.evict(rules, usize::MAX, |_| true);
        assert_eq!((evicted, partition.stats.evicted as usize), (expected, expected), "{policy:?}");
    }
}

#[test]
fn an_eviction_is_a_removal_for_the_log() {
    use crate::store::{Change, Keeping};
    let mut partition = Partition::default();
    for number in 0..50u8 {
        partition.database(7).set_string(&[number], b"v", Expiry::Never);
    }
    partition.keep(Keeping::Changes);
    let rules = Rules { policy: Policy::AllKeysLru, samples: 5 };
    assert_eq!(partition.evict(rules, 20, |_| true), 20);
    let (mut changes, mut gone) = (partition.changes(), BTreeSet::new());
    while let Some(change) = Change::decode(&mut changes).expect("changes") {
        let Change::Delete { db: 7, key } = change else { panic!("{change:?}") };
        gone.insert(key[0]);
    }
    assert_eq!(gone.len(), 20);
    let keyspace = partition.keyspace(7);
    assert!(gone.iter().all(|&key| keyspace.lookup(keyspace.hash(&[key]), &[key]).is_none()));
}
