//! Tests of visits: whom they reach, and what they hand to the log. Run by `cargo test`.
//!
//! Invariant: no log is written; the tests say themselves what is durable.

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::*;
use crate::log::Policy;
use crate::store::Expiry;

#[test]
fn an_owned_store_reaches_its_own_partition_only() {
    let store = Store::owning(SlotMap::new(2), PartitionId(1));
    let ((), trace) = store.visit(|home| {
        assert!(home.reaches(PartitionId(1)));
        assert!(!home.reaches(PartitionId(0)));
    });
    assert_eq!(trace, Trace::default(), "there is no log");
}

#[test]
fn views_of_a_locked_store_see_each_other() {
    let locked = LockedStore::new(SlotMap::new(2));
    let set = |partition: &mut Partition| {
        partition.database(0).set_string(b"k", b"v", Expiry::Never);
    };
    let _ = locked.open().visit(|home| home.with(PartitionId(1), set));
    let other = locked.clone();
    let len = std::thread::spawn(move || {
        other.open().visit(|home| home.with(PartitionId(1), |p| p.keyspace(0).len())).0
    });
    assert_eq!(len.join().ok(), Some(1));
}

#[test]
fn the_installed_store_is_found_on_its_thread_only() {
    Store::owning(SlotMap::new(1), PartitionId(0)).install();
    assert!(Store::here().is_some());
    assert!(std::thread::spawn(|| Store::here().is_none()).join().unwrap_or(false));
}

/// Stores of two partitions with a log whose replies wait: of the shard that owns partition 1, and
/// of locked ones.
fn logged() -> [(Store, Arc<Log>); 2] {
    let map = SlotMap::new(2);
    let log = || Arc::new(Log::new(2, Lsn::NONE, Policy::Always, Duration::from_secs(1)));
    let (first, second, id) = (log(), log(), PartitionId(1));
    let partition = Partition::new(map.slots(id));
    let owning = Store::owning_partition(map, id, partition, Some(Arc::clone(&first)));
    let partitions = map.partitions().map(|id| Partition::new(map.slots(id))).collect();
    let locked = LockedStore::holding(map, partitions, Some(Arc::clone(&second)));
    [(owning, first), (locked.open(), second)]
}

fn set(store: &Store, key: &[u8], value: &[u8]) -> Trace {
    let set =
        |partition: &mut Partition| partition.database(0).set_string(key, value, Expiry::Never);
    store.visit(|home| home.with(PartitionId(1), set)).1
}

fn look(store: &Store, key: &[u8]) -> Trace {
    store.visit(|home| home.with(PartitionId(1), |it| it.peek(0, key, 0).is_some())).1
}

#[test]
fn a_visit_tells_what_it_wrote_and_what_it_saw() {
    for (store, log) in logged() {
        assert_eq!(set(&store, b"k", b"v"), Trace { wrote: Lsn(1), saw: Lsn::NONE });
        assert_eq!(look(&store, b"k"), Trace { wrote: Lsn::NONE, saw: Lsn(1) });
        log.gather(Lsn(1));
        assert_eq!(set(&store, b"k", b"w").wrote, Lsn(2));
        assert_eq!(look(&store, b"k").saw, Lsn(2));
        assert_eq!(log.gather(Lsn(2)).len(), 1);
    }
}

#[test]
fn what_is_handed_over_before_the_end_of_a_visit_is_told_at_its_end() {
    for (store, log) in logged() {
        let _ = set(&store, b"seen", b"v");
        log.gather(Lsn(1));
        let ((), trace) = store.visit(|home| {
            home.with(PartitionId(1), |partition| {
                partition.peek(0, b"seen", 0);
                let large = vec![0; HAND_OVER_BYTES + 1];
                partition.database(0).set_string(b"large", &large, Expiry::Never);
            });
            assert!(log.pending_bytes() > HAND_OVER_BYTES, "it is handed over at once");
        });
        assert_eq!(trace, Trace { wrote: Lsn(2), saw: Lsn(1) });
    }
}

#[test]
fn changes_of_several_partitions_are_in_one_record() {
    let [_, (store, log)] = logged();
    let _ = set(&store, b"before", b"v");
    log.draw_line(1);
    let ((), trace) = store.visit(|home| {
        home.with_all(&[PartitionId(0), PartitionId(1)], |lent| {
            lent[1].peek(0, b"before", 0);
            for partition in lent {
                partition.database(0).set_string(b"k", b"v", Expiry::Never);
            }
        });
    });
    assert_eq!(trace, Trace { wrote: Lsn(2), saw: Lsn(1) });
    let lanes = |record: Vec<(usize, Vec<u8>)>| -> Vec<usize> {
        record.into_iter().map(|(lane, _)| lane).collect()
    };
    assert_eq!(lanes(log.gather(Lsn(1))), [1]);
    assert_eq!(lanes(log.gather(Lsn(2))), [0, 1]);
}

#[test]
fn what_was_written_or_seen_is_told_when_it_is_durable() {
    for (store, log) in logged() {
        let wrote = set(&store, b"k", b"v");
        let saw = look(&store, b"k");
        let mut context = Context::from_waker(Waker::noop());
        let mut settled = [pin!(store.settled(wrote)), pin!(store.settled(saw))];
        log.set_written(Lsn(1));
        for (trace, settled) in [wrote, saw].into_iter().zip(&mut settled) {
            assert!(!store.is_settled(trace));
            assert_eq!(settled.as_mut().poll(&mut context), Poll::Pending);
        }
        log.set_durable(Lsn(1));
        for (trace, settled) in [wrote, saw].into_iter().zip(&mut settled) {
            assert!(store.is_settled(trace));
            assert_eq!(settled.as_mut().poll(&mut context), Poll::Ready(Ok(())));
        }
        // Where nothing is promised nobody waits.
        let wrote = set(&store, b"k", b"w");
        log.set_policy(Policy::Interval);
        assert!(store.is_settled(wrote));
    }
}
