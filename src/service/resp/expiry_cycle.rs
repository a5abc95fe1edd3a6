//! The expiry cycle: removes keys whose deadline has passed although nobody asks for them, and
//! evicts where the limit of memory has been lowered below what is taken.
//!
//! Started by the daemon on every shard that owns a partition, or on one for all where partitions
//! are locked. Invariant: between two awaits it looks at a bounded number of deadlines.

use std::time::Duration;

use crate::log::Admission;
use crate::store::{Partition, Store};
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
        let mut some_have_deadlines = false;
        store.limit().note_peak();
        if store.admission() != Admission::Open {
            // Each removal is a change that the log would have to hold.
            time::sleep(BUSY_PAUSE).await;
            continue;
        }
        for id in store.map().partitions() {
            if !store.reaches(id) {
                continue;
            }
            while store.visit(|home| home.with(id, Partition::drop_some)).0 {
                task::yield_now().await;
            }
            while store.give_fair_way(id) {
                task::yield_now().await;
            }
            loop {
                let now_ms = local::unix_ms(time::now());
                let ((removed, left), _) = store.visit(|home| {
                    home.with(id, |partition| {
                        let removed = partition.expire_some(now_ms, STEP_COUNT);
                        let left = partition.keyspaces().iter().any(|db| db.deadlines_len() > 0);
                        (removed, left)
                    })
                });
                some_have_deadlines |= left;
                if removed <= WORTHWHILE_COUNT {
                    break;
                }
                task::yield_now().await;
            }
        }
        time::sleep(if some_have_deadlines { BUSY_PAUSE } else { IDLE_PAUSE }).await;
    }
}
