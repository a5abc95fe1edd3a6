//! How a thread reaches partitions. Called by the services; the one place above the runtime that
//! knows whether a partition belongs to a shard or sits behind a lock.
//!
//! Invariant: an owned partition is touched only by the thread that made its [`Store`]; a locked
//! one only under its lock. Several locks are taken in ascending order.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::gate::Gate;
use super::{Partition, PartitionId, SlotMap};

thread_local! {
    /// The store of the shard that runs on this thread, for work that arrives from other shards.
    static HERE: RefCell<Option<Store>> = const { RefCell::new(None) };
}

/// A thread's view of the whole store.
#[derive(Debug, Clone)]
pub struct Store {
    map: SlotMap,
    holding: Holding,
}

#[derive(Debug, Clone)]
enum Holding {
    Owned(Rc<Owned>),
    Locked(Arc<[Mutex<Partition>]>),
}

/// The one partition of a shard.
#[derive(Debug)]
struct Owned {
    id: PartitionId,
    partition: RefCell<Partition>,
    gate: Gate,
}

/// A store whose partitions sit behind locks; every thread opens its own view of it.
#[derive(Debug, Clone)]
pub struct LockedStore {
    map: SlotMap,
    partitions: Arc<[Mutex<Partition>]>,
}

impl LockedStore {
    /// An empty store.
    pub fn new(map: SlotMap) -> Self {
        Self { map, partitions: map.partitions().map(|_| Mutex::default()).collect() }
    }

    /// How the slots are divided.
    pub fn map(&self) -> SlotMap {
        self.map
    }

    /// The calling thread's view.
    pub fn open(&self) -> Store {
        Store { map: self.map, holding: Holding::Locked(Arc::clone(&self.partitions)) }
    }
}

impl Store {
    /// An empty partition `id` that belongs to the calling thread, and the view from there.
    pub fn owning(map: SlotMap, id: PartitionId) -> Self {
        assert!(id.index() < map.count());
        let owned = Owned { id, partition: RefCell::default(), gate: Gate::default() };
        Self { map, holding: Holding::Owned(Rc::new(owned)) }
    }

    /// Makes this the store that [`Store::here`] finds on the calling thread.
    pub fn install(&self) {
        HERE.set(Some(self.clone()));
    }

    /// The store installed on the calling thread.
    pub fn here() -> Option<Self> {
        HERE.with_borrow(Clone::clone)
    }

    /// How the slots are divided.
    pub fn map(&self) -> SlotMap {
        self.map
    }

    /// The gate to wait at before [`Store::visit`]; locked partitions need none.
    #[inline]
    pub fn gate(&self) -> Option<&Gate> {
        match &self.holding {
            Holding::Owned(owned) => Some(&owned.gate),
            Holding::Locked(_) => None,
        }
    }

    /// Lends what the calling thread can reach. Does not look at the gate; must not be nested.
    #[inline]
    pub fn visit<R>(&self, visit: impl FnOnce(&mut Home<'_>) -> R) -> R {
        match &self.holding {
            Holding::Owned(owned) => {
                let mut partition = owned.partition.borrow_mut();
                let before = partition.stats;
                let reach = Reach::One(owned.id, &mut partition);
                let result = visit(&mut Home { map: self.map, reach });
                partition.stats.report_since(before);
                result
            }
            Holding::Locked(partitions) => {
                visit(&mut Home { map: self.map, reach: Reach::All(partitions) })
            }
        }
    }
}

/// The partitions within reach, for as long as no task switch happens.
#[derive(Debug)]
pub struct Home<'a> {
    map: SlotMap,
    reach: Reach<'a>,
}

#[derive(Debug)]
enum Reach<'a> {
    One(PartitionId, &'a mut Partition),
    All(&'a [Mutex<Partition>]),
}

impl<'a> Home<'a> {
    /// One partition of `map` within reach: for tests and for work sent by another shard.
    pub fn one(map: SlotMap, id: PartitionId, partition: &'a mut Partition) -> Self {
        Self { map, reach: Reach::One(id, partition) }
    }

    /// How the slots are divided.
    #[inline]
    pub fn map(&self) -> SlotMap {
        self.map
    }

    /// Whether partition `id` can be touched from here.
    #[inline]
    pub fn reaches(&self, id: PartitionId) -> bool {
        match &self.reach {
            Reach::One(own, _) => *own == id,
            Reach::All(_) => true,
        }
    }

    /// The one partition within reach, if it takes no lock to look at it.
    #[inline]
    pub fn owned(&mut self) -> Option<&mut Partition> {
        match &mut self.reach {
            Reach::One(_, partition) => Some(partition),
            Reach::All(_) => None,
        }
    }

    /// Lends partition `id`. Panics if it is out of reach.
    #[inline]
    pub fn with<R>(&mut self, id: PartitionId, work: impl FnOnce(&mut Partition) -> R) -> R {
        match &mut self.reach {
            Reach::One(own, partition) => {
                assert!(*own == id, "the partition is within reach");
                work(partition)
            }
            Reach::All(partitions) => {
                let mut partition = lock(&partitions[id.index()]);
                let before = partition.stats;
                let result = work(&mut partition);
                partition.stats.report_since(before);
                result
            }
        }
    }

    /// Lends several partitions at once; `ids` ascend. Panics if one is out of reach.
    pub fn with_all<R>(
        &mut self,
        ids: &[PartitionId],
        work: impl FnOnce(&mut [&mut Partition]) -> R,
    ) -> R {
        assert!(ids.is_sorted_by(|lower, upper| lower < upper), "locks are taken in order");
        match &mut self.reach {
            Reach::One(own, partition) => {
                assert!(ids.iter().all(|id| id == own), "the partitions are within reach");
                work(&mut [&mut **partition][..ids.len()])
            }
            Reach::All(partitions) => {
                let mut guards: Vec<_> =
                    ids.iter().map(|id| lock(&partitions[id.index()])).collect();
                let mut lent: Vec<&mut Partition> =
                    guards.iter_mut().map(|guard| &mut **guard).collect();
                work(&mut lent)
            }
        }
    }
}

/// A command that panicked leaves a partition whole: no command leaves it halfway to a panic.
fn lock(partition: &Mutex<Partition>) -> MutexGuard<'_, Partition> {
    partition.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Expiry;

    #[test]
    fn an_owned_store_reaches_its_own_partition_only() {
        let store = Store::owning(SlotMap::new(2), PartitionId(1));
        store.visit(|home| {
            assert!(home.reaches(PartitionId(1)));
            assert!(!home.reaches(PartitionId(0)));
        });
    }

    #[test]
    fn views_of_a_locked_store_see_each_other() {
        let locked = LockedStore::new(SlotMap::new(2));
        let set = |partition: &mut Partition| {
            partition.keyspace(0).set_string(b"k", b"v", Expiry::Never);
        };
        locked.open().visit(|home| home.with(PartitionId(1), set));
        let other = locked.clone();
        let len = std::thread::spawn(move || {
            other.open().visit(|home| home.with(PartitionId(1), |p| p.keyspace(0).len()))
        });
        assert_eq!(len.join().ok(), Some(1));
    }

    #[test]
    fn the_installed_store_is_found_on_its_thread_only() {
        Store::owning(SlotMap::new(1), PartitionId(0)).install();
        assert!(Store::here().is_some());
        assert!(std::thread::spawn(|| Store::here().is_none()).join().unwrap_or(false));
    }
}
