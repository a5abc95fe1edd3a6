//! The expiry cycle: removes keys whose deadline has passed although nobody asks for them, and
//! evicts where the limit of memory has been lowered below what is taken.
//!
//! Started by the daemon on every shard that owns a partition, or on one for all where partitions
//! are locked. Invariant: between two awaits it looks at a bounded number of deadlines.

use std::time::Duration;

use crate::log::Admission;
use crate::store::{Partition, PartitionId, Store};
use crate::{task, time};

use super::local;

/// Deadlines looked at in one step.
const STEP_COUNT: usize = 128;
/// A step that removes more than this is followed by another one at once.
const WORTHWHILE_COUNT: usize = STEP_COUNT / 4;
/// Time between cycles while some key has a deadline.
const BUSY_PAUSE: Duration = Duration::from_millis(100);
/// Time between cycles while none has: an idle shard should sleep.
const IDLE_PAUSE: Duration = Duration::from_secs(1);

/// Removes expired keys for as long as the shard runs.
pub async fn expire_forever(store: Store) {
    loop {
        store.limit().note_peak();
        let some_have_deadlines = cycle(&store).await;
        time::sleep(if some_have_deadlines { BUSY_PAUSE } else { IDLE_PAUSE }).await;
    }
}

/// One cycle through all partitions within reach; answers whether some key has a deadline.
async fn cycle(store: &Store) -> bool {
    let mut some_have_deadlines = false;
    for id in store.map().partitions().filter(|&id| store.reaches(id)) {
        while store.visit(|home| home.with(id, Partition::drop_some)).0 {
            task::yield_now().await;
        }
        while is_welcome(store) && store.give_fair_way(id) {
            task::yield_now().await;
        }
        while is_welcome(store) && expire_some(store, id) {
            task::yield_now().await;
        }
        some_have_deadlines |= have_deadlines(store, id);
    }
    some_have_deadlines
}

/// Whether keys may be removed. Each removal is a change that the log would have to hold, and there
/// may be any number of keys to remove; so this is asked before each step.
fn is_welcome(store: &Store) -> bool {
    store.admission() == Admission::Open
}

/// A step in one partition; answers whether another one is worth it at once.
fn expire_some(store: &Store, id: PartitionId) -> bool {
    let now_ms = local::unix_ms(time::now());
    let expire = |partition: &mut Partition| partition.expire_some(now_ms, STEP_COUNT);
    store.visit(|home| home.with(id, expire)).0 > WORTHWHILE_COUNT
}

fn have_deadlines(store: &Store, id: PartitionId) -> bool {
    let any = |p: &mut Partition| p.keyspaces().iter().any(|db| db.deadlines_len() > 0);
    store.visit(|home| home.with(id, any)).0
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;
    use std::task::{Context, Waker};

    use super::*;
    use crate::Runtime;
    use crate::log::{Log, Lsn, Policy};
    use crate::shard::placement::Placement;
    use crate::store::memory::{self, Limit};
    use crate::store::{Expiry, SlotMap};

    const ID: PartitionId = PartitionId(0);
    const COUNT: usize = 1000;
    /// Keys evicted in one step.
    const EVICTED_STEP_COUNT: usize = 64;

    /// A store of keys with a deadline, and a log that nobody writes.
    fn store(deadline_ms: u64) -> (Store, Arc<Log>) {
        let map = SlotMap::new(1);
        let log = Arc::new(Log::new(1, Lsn::NONE, Policy::Never, Duration::ZERO));
        let limit = Arc::new(Limit::new(1));
        limit.set_policy(memory::Policy::AllKeysLru);
        let partition = Partition::new(map.slots(ID));
        let store = Store::owning_partition(map, ID, partition, Some(Arc::clone(&log)));
        let store = store.limited(limit);
        let _ = store.visit(|home| {
            home.with(ID, |partition| {
                for key in 0..COUNT {
                    let expiry = Expiry::At(deadline_ms);
                    partition.database(0).set_string(&key.to_be_bytes(), b"v", expiry);
                }
            });
        });
        (store, log)
    }

    fn keys(store: &Store) -> usize {
        store.limit().usage(ID).keys
    }

    /// One cycle, in which the log wants no more after so many steps; answers the keys removed.
    fn removed_in(steps: usize, store: &Store, log: &Log) -> usize {
        let runtime = Runtime::builder().shards(1).cpu_cores(1).placement(Placement::Floating);
        runtime.build().unwrap().block_on(async {
            let mut cycle = pin!(cycle(store));
            for step in 0..100 {
                log.hold_writers(step >= steps);
                if cycle.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
                    return COUNT - keys(store);
                }
            }
            panic!("a cycle comes to an end");
        })
    }

    #[test]
    fn a_cycle_removes_all_that_has_expired() {
        let (store, log) = store(1);
        assert_eq!(removed_in(100, &store, &log), COUNT);
    }

    #[test]
    fn no_more_keys_expire_once_the_log_is_behind() {
        let (store, log) = store(1);
        assert_eq!(removed_in(2, &store, &log), 2 * STEP_COUNT);
    }

    #[test]
    fn no_more_keys_give_way_once_the_log_is_behind() {
        let (store, log) = store(u64::MAX);
        store.limit().set_bytes_max(1);
        assert_eq!(removed_in(2, &store, &log), 2 * EVICTED_STEP_COUNT);
    }
}
