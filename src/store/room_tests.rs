//! Writes against a limit: random ones, on stores of either kind.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::store::access::LockedStore;
use crate::store::{Expiry, SlotMap};

/// Does what a connection does before a write; answers whether there was room.
fn has_room(store: &Store) -> bool {
    for _ in 0..10_000 {
        match store.visit(|home| home.make_room(0)).0 {
            Room::Enough => return true,
            Room::None => return false,
            Room::NotYet => {}
            Room::Elsewhere(id) => assert!(store.give_way(id) > 0, "who is asked can give way"),
        }
    }
    panic!("making room comes to an end");
}

fn set(store: &Store, key: u16, value: usize, expiry: Expiry) {
    let (name, value) = (key.to_be_bytes(), vec![b'v'; value]);
    let id = store.map().partition_of(&name);
    let _ = store.visit(|home| {
        home.with(id, |partition| {
            partition.tick(u64::from(key));
            partition.database(0).set_string(&name, &value, expiry);
        });
    });
}

fn keys(store: &Store) -> usize {
    store.map().partitions().map(|id| store.limit().usage(id).keys).sum()
}

fn store(partitions: usize, limit: &Arc<Limit>) -> Store {
    let map = SlotMap::new(partitions);
    match partitions {
        1 => Store::owning(map, PartitionId(0)).limited(Arc::clone(limit)),
        _ => LockedStore::new(map).limited(Arc::clone(limit)).open(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn no_write_begins_above_the_limit(
        partitions in prop_oneof![Just(1usize), Just(5)],
        policy in prop::sample::select(Policy::ALL.to_vec()),
        bytes_max in 20_000..200_000u64,
        writes in prop::collection::vec((any::<u16>(), 0..5000usize, any::<bool>()), 0..300),
    ) {
        let limit = Arc::new(Limit::new(partitions));
        limit.set_bytes_max(bytes_max);
        limit.set_policy(policy);
        let store = store(partitions, &limit);
        for (key, value, is_volatile) in writes {
            let before = (keys(&store), limit.used());
            let expiry = if is_volatile { Expiry::At(u64::MAX) } else { Expiry::Never };
            if has_room(&store) {
                prop_assert!(limit.used() as u64 <= bytes_max);
                set(&store, key, value, expiry);
                // The write itself, and what the tables grow by once in a while.
                prop_assert!(limit.used() as u64 <= bytes_max + value as u64 + 10_000);
            } else {
                prop_assert!(limit.used() as u64 > bytes_max);
            }
            if policy == Policy::NoEviction {
                prop_assert!(keys(&store) >= before.0, "nothing is evicted");
            }
        }
    }
}

#[test]
fn a_large_write_makes_the_next_one_wait_for_several_steps() {
    let limit = Arc::new(Limit::new(1));
    let store = store(1, &limit);
    for key in 0..1000 {
        set(&store, key, 10, Expiry::Never);
    }
    limit.set_policy(Policy::AllKeysLru);
    limit.set_bytes_max(limit.used() as u64);
    assert_eq!(store.visit(|home| home.make_room(0)).0, Room::Enough);
    set(&store, 5000, 20_000, Expiry::Never);
    assert_eq!(store.visit(|home| home.make_room(0)).0, Room::NotYet);
    assert_eq!(keys(&store), 1001 - STEP_COUNT);
    assert!(has_room(&store));
    assert!(limit.used() as u64 <= limit.bytes_max());
}

#[test]
fn who_has_little_asks_the_fullest() {
    let limit = Arc::new(Limit::new(2));
    limit.set_policy(Policy::AllKeysRandom);
    let map = SlotMap::new(2);
    let small = Store::owning(map, PartitionId(0)).limited(Arc::clone(&limit));
    let large = Store::owning(map, PartitionId(1)).limited(Arc::clone(&limit));
    let fill = |store: &Store, id: u16, count: u16| {
        let _ = store.visit(|home| {
            home.with(PartitionId(id), |partition| {
                for key in 0..count {
                    partition.database(0).set_string(&key.to_be_bytes(), b"v", Expiry::Never);
                }
            });
        });
    };
    fill(&small, 0, 10);
    fill(&large, 1, 1000);
    limit.set_bytes_max(limit.used() as u64 - 1);
    let ask = || small.visit(|home| home.make_room(0)).0;
    assert_eq!(ask(), Room::Elsewhere(PartitionId(1)));
    assert!(!small.give_fair_way(PartitionId(0)), "it has less than its share");
    assert!(large.give_fair_way(PartitionId(1)));
    assert_eq!(ask(), Room::Enough);
    assert_eq!(limit.usage(PartitionId(0)).keys, 10);

    // Nothing is left there: now it is its own turn.
    let _ = large.visit(|home| home.with(PartitionId(1), |partition| partition.flush(0)));
    limit.set_bytes_max(1);
    assert_eq!(ask(), Room::NotYet);
    limit.set_policy(Policy::VolatileLru);
    assert_eq!(ask(), Room::None);
}

#[test]
fn writes_on_their_way_count() {
    let limit = Arc::new(Limit::new(1));
    let store = store(1, &limit);
    set(&store, 1, 10, Expiry::Never);
    limit.set_bytes_max(limit.used() as u64 + 100);
    assert_eq!(store.visit(|home| home.make_room(100)).0, Room::Enough);
    assert_eq!(store.visit(|home| home.make_room(101)).0, Room::None);
}
