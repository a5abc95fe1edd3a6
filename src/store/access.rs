//! How a thread reaches partitions. Called by the services; the one place above the runtime that
//! knows whether a partition belongs to a shard or sits behind a lock.
//!
//! Invariant: an owned partition is touched only by the thread that made its [`Store`]; a locked
//! one only under its lock. Several locks are taken in ascending order.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::gate::Gate;
use super::memory::Limit;
use super::whole::{Unfinished, Visited};
use super::{Keeping, Partition, PartitionId, SlotMap, snapshot};
use crate::limits::SNAPSHOT_WAITING_BYTES_MAX;
use crate::log::{Admission, Log, LogFailed, Lsn};

/// Changes of a visit that are handed over before it ends. They are bounded by what one command
/// makes then, however many a visit runs.
const HAND_OVER_BYTES: usize = 256 * 1024;

thread_local! {
    /// The store of the shard that runs on this thread, for work that arrives from other shards.
    static HERE: RefCell<Option<Store>> = const { RefCell::new(None) };
}

/// A thread's view of the whole store.
#[derive(Debug, Clone)]
pub struct Store {
    map: SlotMap,
    holding: Holding,
    /// Where changes go, unless the store is in memory only.
    log: Option<Arc<Log>>,
    limit: Arc<Limit>,
}

/// What a visit did, as far as the log is concerned. [`Lsn::NONE`] where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Trace {
    /// The record that its last change is part of.
    pub wrote: Lsn,
    /// The latest record with a change of keys that it looked at.
    pub saw: Lsn,
}

impl Trace {
    /// What both did.
    pub fn and(self, other: Self) -> Self {
        Self { wrote: self.wrote.max(other.wrote), saw: self.saw.max(other.saw) }
    }

    /// The record that must be durable before anybody is told of the visit.
    pub fn latest(self) -> Lsn {
        self.wrote.max(self.saw)
    }
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
    log: Option<Arc<Log>>,
    limit: Arc<Limit>,
}

impl LockedStore {
    /// An empty store in memory.
    pub fn new(map: SlotMap) -> Self {
        let partitions = map.partitions().map(|id| Partition::new(map.slots(id)));
        Self::holding(map, partitions.collect(), None)
    }

    /// A store of these partitions, in order, whose changes go to `log`.
    pub fn holding(map: SlotMap, partitions: Vec<Partition>, log: Option<Arc<Log>>) -> Self {
        assert_eq!(partitions.len(), map.count(), "a store has all its partitions");
        let keeping = keeping(log.as_ref());
        let lock = |mut partition: Partition| {
            partition.keep(keeping);
            Mutex::new(partition)
        };
        let partitions = partitions.into_iter().map(lock).collect();
        Self { map, partitions, log, limit: Arc::new(Limit::new(map.count())) }
    }

    /// The same store, its memory limited by `limit`, which was made for as many partitions.
    #[must_use]
    pub fn limited(mut self, limit: Arc<Limit>) -> Self {
        for (id, partition) in self.map.partitions().zip(self.partitions.iter()) {
            limit.publish(id, lock(partition).usage());
        }
        self.limit = limit;
        self
    }

    /// How the slots are divided.
    pub fn map(&self) -> SlotMap {
        self.map
    }

    /// The calling thread's view.
    pub fn open(&self) -> Store {
        let holding = Holding::Locked(Arc::clone(&self.partitions));
        Store { map: self.map, holding, log: self.log.clone(), limit: Arc::clone(&self.limit) }
    }
}

fn keeping(log: Option<&Arc<Log>>) -> Keeping {
    if log.is_some() { Keeping::Changes } else { Keeping::Nothing }
}

impl Store {
    /// An empty partition `id` in memory that belongs to the calling thread, and the view from
    /// there.
    pub fn owning(map: SlotMap, id: PartitionId) -> Self {
        Self::owning_partition(map, id, Partition::new(map.slots(id)), None)
    }

    /// Partition `id`, which belongs to the calling thread from now on and whose changes go to
    /// `log`, and the view from there.
    pub fn owning_partition(
        map: SlotMap,
        id: PartitionId,
        mut partition: Partition,
        log: Option<Arc<Log>>,
    ) -> Self {
        assert!(id.index() < map.count());
        partition.keep(keeping(log.as_ref()));
        let owned = Owned { id, partition: RefCell::new(partition), gate: Gate::default() };
        let limit = Arc::new(Limit::new(map.count()));
        Self { map, holding: Holding::Owned(Rc::new(owned)), log, limit }
    }

    /// The same store, its memory limited by `limit`, which was made for as many partitions.
    #[must_use]
    pub fn limited(mut self, limit: Arc<Limit>) -> Self {
        if let Holding::Owned(owned) = &self.holding {
            limit.publish(owned.id, owned.partition.borrow().usage());
        }
        self.limit = limit;
        self
    }

    /// The limit of memory.
    pub fn limit(&self) -> &Limit {
        &self.limit
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

    /// Whether partition `id` can be touched from the calling thread.
    pub fn reaches(&self, id: PartitionId) -> bool {
        match &self.holding {
            Holding::Owned(owned) => owned.id == id,
            Holding::Locked(_) => true,
        }
    }

    /// The gate to wait at before [`Store::visit`]; locked partitions need none.
    #[inline]
    pub fn gate(&self) -> Option<&Gate> {
        match &self.holding {
            Holding::Owned(owned) => Some(&owned.gate),
            Holding::Locked(_) => None,
        }
    }

    /// The log, unless the store is in memory only.
    pub fn log(&self) -> Option<&Arc<Log>> {
        self.log.as_ref()
    }

    /// Whether writes are welcome.
    #[inline]
    pub fn admission(&self) -> Admission {
        self.log.as_ref().map_or(Admission::Open, |log| log.admission())
    }

    /// Waits until what a visit did may be told: until its changes, and those of others that it has
    /// seen, are durable, where the policy says so.
    ///
    /// Cancel-safe: it only waits.
    ///
    /// # Errors
    /// The log has failed; nothing may be told.
    pub async fn settled(&self, trace: Trace) -> Result<(), LogFailed> {
        match &self.log {
            Some(log) if log.is_strict() => log.durable(trace.latest()).await,
            _ => Ok(()),
        }
    }

    /// Whether [`Store::settled`] would be over at once.
    #[inline]
    pub fn is_settled(&self, trace: Trace) -> bool {
        let latest = trace.latest();
        latest == Lsn::NONE
            || self.log.as_ref().is_none_or(|log| !log.is_strict() || log.durable_lsn() >= latest)
    }

    /// Lends what the calling thread can reach, then hands what was changed to the log. Does not
    /// look at the gate; must not be nested. If `visit` panics after it has changed something that
    /// a log is to know of, the process ends: see [`super::whole`].
    #[inline]
    pub fn visit<R>(&self, visit: impl FnOnce(&mut Home<'_>) -> R) -> (R, Trace) {
        let (log, limit) = (self.log.as_deref(), Some(&*self.limit));
        let home = |reach| Home {
            map: self.map,
            reach,
            log,
            limit,
            others_bytes: None,
            trace: Trace::default(),
        };
        match &self.holding {
            Holding::Owned(owned) => {
                let mut partition = Visited(owned.partition.borrow_mut());
                let before = partition.stats;
                partition.count_uses(self.limit.counts_uses());
                let mut home = home(Reach::One(owned.id, &mut partition));
                let result = visit(&mut home);
                let trace = home.trace;
                partition.stats.report_since(before);
                if partition.take_unpublished() {
                    self.limit.publish(owned.id, partition.usage());
                }
                let last = log.map(|log| hand_over(&mut partition, owned.id, log));
                (result, trace.and(last.unwrap_or_default()))
            }
            Holding::Locked(partitions) => {
                let mut home = home(Reach::All(partitions));
                let result = visit(&mut home);
                (result, home.trace)
            }
        }
    }
}

/// Hands the changes of a visit to the log.
#[inline]
fn hand_over(partition: &mut Partition, id: PartitionId, log: &Log) -> Trace {
    let mut trace = Trace { wrote: Lsn::NONE, saw: partition.take_seen() };
    if !partition.changes().is_empty() {
        trace.wrote = log.append(id.index(), partition.changes());
        partition.changes_handed_over(trace.wrote);
    }
    snapshot::hold_writers(partition, log);
    trace
}

/// The partitions within reach, for as long as no task switch happens.
#[derive(Debug)]
pub struct Home<'a> {
    map: SlotMap,
    pub(super) reach: Reach<'a>,
    log: Option<&'a Log>,
    pub(super) limit: Option<&'a Limit>,
    /// What partitions out of reach take, if this visit has asked for it.
    pub(super) others_bytes: Option<usize>,
    /// What was done to partitions that have been handed back.
    trace: Trace,
}

#[derive(Debug)]
pub(super) enum Reach<'a> {
    One(PartitionId, &'a mut Partition),
    All(&'a [Mutex<Partition>]),
}

impl<'a> Home<'a> {
    /// One partition of `map` within reach: for tests and for work sent by another shard.
    pub fn one(map: SlotMap, id: PartitionId, partition: &'a mut Partition) -> Self {
        let reach = Reach::One(id, partition);
        Self { map, reach, log: None, limit: None, others_bytes: None, trace: Trace::default() }
    }

    /// Whether writes are welcome.
    #[inline]
    pub fn admission(&self) -> Admission {
        self.log.map_or(Admission::Open, Log::admission)
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
                let result = work(partition);
                let much = partition.changes().len() > HAND_OVER_BYTES
                    || partition.captured_bytes() > SNAPSHOT_WAITING_BYTES_MAX;
                if much && let Some(log) = self.log {
                    self.trace = self.trace.and(hand_over(partition, id, log));
                }
                result
            }
            Reach::All(partitions) => {
                let mut partition = lock(&partitions[id.index()]);
                let before = partition.stats;
                if let Some(limit) = self.limit {
                    partition.count_uses(limit.counts_uses());
                }
                let result = work(&mut partition);
                partition.stats.report_since(before);
                publish(&mut partition, id, self.limit);
                if let Some(log) = self.log {
                    self.trace = self.trace.and(hand_over(&mut partition, id, log));
                }
                result
            }
        }
    }

    /// Lends several partitions at once; `ids` ascend. Their changes become durable together.
    /// Panics if one is out of reach. If `work` panics the process ends: see [`super::whole`].
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
                // Behind the locks, so that nobody gets one if it breaks off.
                let unfinished = Unfinished::begin();
                let mut lent: Vec<&mut Partition> =
                    guards.iter_mut().map(|guard| &mut **guard).collect();
                let before: Vec<_> = lent.iter().map(|partition| partition.stats).collect();
                if let Some(limit) = self.limit {
                    for partition in &mut lent {
                        partition.count_uses(limit.counts_uses());
                    }
                }
                let result = work(&mut lent);
                for ((partition, before), id) in lent.iter_mut().zip(before).zip(ids) {
                    partition.stats.report_since(before);
                    publish(partition, *id, self.limit);
                }
                if let Some(log) = self.log {
                    self.trace = self.trace.and(hand_over_all(&mut lent, ids, log));
                }
                unfinished.end();
                result
            }
        }
    }
}

/// Tells the limit what a locked partition has come to.
fn publish(partition: &mut Partition, id: PartitionId, limit: Option<&Limit>) {
    if partition.take_unpublished()
        && let Some(limit) = limit
    {
        limit.publish(id, partition.usage());
    }
}

/// Hands the changes of a visit to several partitions to the log, as one.
fn hand_over_all(lent: &mut [&mut Partition], ids: &[PartitionId], log: &Log) -> Trace {
    let changed = lent.iter().zip(ids).filter(|(partition, _)| !partition.changes().is_empty());
    let parts: Vec<_> = changed.map(|(partition, id)| (id.index(), partition.changes())).collect();
    let wrote = if parts.is_empty() { Lsn::NONE } else { log.append_all(&parts) };
    let mut trace = Trace { wrote, saw: Lsn::NONE };
    for partition in lent {
        trace.saw = trace.saw.max(partition.take_seen());
        if !partition.changes().is_empty() {
            partition.changes_handed_over(wrote);
        }
        snapshot::hold_writers(partition, log);
    }
    trace
}

/// A command that panicked has changed nothing that matters, or the process ends: see
/// [`super::whole`].
fn lock(partition: &Mutex<Partition>) -> Visited<MutexGuard<'_, Partition>> {
    Visited(partition.lock().unwrap_or_else(PoisonError::into_inner))
}

#[cfg(test)]
mod tests {
    use super::*;
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
}
