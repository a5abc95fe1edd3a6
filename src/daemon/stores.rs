//! The daemon's store: its partitions, as the engine wants them held, and the log behind them.
//!
//! Made once by `serve`, before anything listens. Invariant: no thread serves before every
//! partition has been recovered and the log can take writes.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::Failure;
use super::settings::StoreSettings;
use crate::engine::Engine;
use crate::log::{self, Log, LogFailed, Policy, Slots, Start, Writer};
use crate::runtime::Runtime;
use crate::service::resp::expiry_cycle::expire_forever;
use crate::shard::ShardId;
use crate::store::access::LockedStore;
use crate::store::directory::{DataDirectory, Missing};
use crate::store::memory::Limit;
use crate::store::recovery;
use crate::store::saving::{Saved, Saving, Schedule};
use crate::store::snapshot::{self, Keeping};
use crate::store::storage::Storage;
use crate::store::{Partition, PartitionId, SlotMap, Store};
use crate::task::{self, Class};

/// Partitions of a store that is behind locks: enough that connections seldom meet at one.
const LOCKED_PARTITIONS_COUNT: usize = 64;

/// How a thread gets its view of the store. Cloning shares it.
#[derive(Clone)]
pub(super) struct Stores {
    holding: Holding,
    log: Option<Arc<Log>>,
    storage: Option<Arc<Storage>>,
    /// What the keeper of snapshots starts from, until it is started.
    keeping: Arc<Mutex<Option<Keeping>>>,
    /// Locked for as long as the store may be changed.
    _directory: Option<Arc<DataDirectory>>,
    limit: Arc<Limit>,
}

#[derive(Clone)]
enum Holding {
    /// Each shard owns a partition, and takes it when it starts.
    Owned(SlotMap, Arc<Mutex<Vec<Option<Partition>>>>),
    /// Every connection's thread reaches every partition.
    Locked(LockedStore),
}

/// What writes the log, until it is started.
pub(super) struct Journalist {
    log: Arc<Log>,
    start: log::Start,
    settings: log::writer::Settings,
}

impl Stores {
    /// Opens the store, as it was left.
    pub(super) fn open(
        settings: &StoreSettings,
        runtime: &Runtime,
    ) -> Result<(Self, Option<Journalist>), Failure> {
        let locked = runtime.report().engine == Engine::Threads;
        let count = if locked { LOCKED_PARTITIONS_COUNT } else { runtime.plan().shards.len() };
        let map = SlotMap::new(count);
        let mut partitions: Vec<Partition> =
            map.partitions().map(|id| Partition::new(map.slots(id))).collect();
        let (mut journalist, mut directory) = (None, None);
        let (mut storage, mut keeping) = (None, None);
        if let Some(path) = &settings.data {
            let opened = DataDirectory::open(path, Missing::Create)?;
            let recovered = recovery::recover(&opened, map)?;
            keeping = Some(Keeping::of(&recovered));
            partitions = recovered.partitions;
            let last = log::Lsn(recovered.start.next.lsn.0 - 1);
            let log = Log::new(count, last, settings.fsync, settings.fsync_interval);
            let lanes = map.partitions().map(|id| {
                let (from, until) = map.slots(id);
                Slots { from, until }
            });
            let writer = log::writer::Settings {
                segment_bytes: settings.segment_bytes,
                lanes: lanes.collect(),
            };
            let log = Arc::new(log);
            let last = last_saved(opened.path(), &recovered.snapshots);
            let saving = Arc::new(Saving::new(settings.snapshots, last));
            let took = recovered.figures.duration;
            storage = Some(Arc::new(Storage::new(path, Arc::clone(&log), saving, took)));
            directory = Some(Arc::new(opened));
            journalist = Some(Journalist { log, start: recovered.start, settings: writer });
        }
        let log = journalist.as_ref().map(|journalist| Arc::clone(&journalist.log));
        let holding = if locked {
            Holding::Locked(LockedStore::holding(map, partitions, log.clone()))
        } else {
            let partitions = partitions.into_iter().map(Some).collect();
            Holding::Owned(map, Arc::new(Mutex::new(partitions)))
        };
        let limit = Arc::new(Limit::new(count));
        let keeping = Arc::new(Mutex::new(keeping));
        Ok((Self { holding, log, storage, keeping, limit, _directory: directory }, journalist))
    }

    pub(super) fn map(&self) -> SlotMap {
        match &self.holding {
            Holding::Owned(map, _) => *map,
            Holding::Locked(store) => store.map(),
        }
    }

    /// Where the store is kept, unless it is in memory only.
    pub(super) fn storage(&self) -> Option<&Arc<Storage>> {
        self.storage.as_ref()
    }

    /// Starts to take snapshots, on the first shard, when every shard has been started.
    pub(super) fn start_keeper(&self, runtime: &Runtime) -> Result<(), Failure> {
        let (saving, keeping) = match &self.storage {
            Some(storage) => (Arc::clone(&storage.saving), Arc::clone(&self.keeping)),
            None => return Ok(()),
        };
        runtime.run_on_all(move |shard| {
            let keeping = keeping
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take_if(|_| shard == ShardId(0));
            if let (Some(store), Some(keeping)) = (Store::here(), keeping) {
                let keeper = snapshot::keep(store, Arc::clone(&saving), keeping);
                let task = task::Builder::new().name("snapshots").class(Class::Background);
                task.spawn(keeper).detach();
            }
            std::future::ready(())
        })?;
        Ok(())
    }

    /// The same, with a limit of memory that others change.
    pub(super) fn limited(self, limit: &Arc<Limit>) -> Self {
        let holding = match self.holding {
            Holding::Locked(store) => Holding::Locked(store.limited(Arc::clone(limit))),
            owned @ Holding::Owned(..) => owned,
        };
        Self { holding, limit: Arc::clone(limit), ..self }
    }

    /// Gives the calling shard what its connections need.
    pub(super) fn start_shard(&self, shard: ShardId) {
        match &self.holding {
            Holding::Owned(map, partitions) => {
                let mut partitions = partitions.lock().unwrap_or_else(PoisonError::into_inner);
                let partition = partitions[usize::from(shard.0)].take();
                let partition = partition.expect("a shard starts once");
                let id = PartitionId(shard.0);
                let store = Store::owning_partition(*map, id, partition, self.log.clone());
                let store = store.limited(Arc::clone(&self.limit));
                store.install();
                expire_in_background(store);
            }
            Holding::Locked(store) => {
                store.open().install();
                if shard == ShardId(0) {
                    expire_in_background(store.open());
                }
            }
        }
    }

    /// A shard's thread has its view from the start; a connection's own thread begins without.
    pub(super) fn install_here(&self) {
        if let Holding::Locked(store) = &self.holding {
            store.open().install();
        }
    }

    /// Has everything that was written made durable, and ends the log.
    pub(super) fn close(&self, runtime: &Runtime) -> Result<(), Failure> {
        let Some(log) = &self.log else { return Ok(()) };
        log.close();
        // Whoever hears first that it has failed says so: this, or the task that writes it.
        runtime.block_on(log.ended()).map_err(|failed| Failure::running(failed.to_string()))
    }

    /// Changes when snapshots are due.
    pub(super) fn change_schedule(&self, change: impl FnOnce(&mut Schedule)) {
        if let Some(storage) = &self.storage {
            let mut schedule = storage.saving.schedule();
            change(&mut schedule);
            storage.saving.set_schedule(schedule);
        }
    }

    /// Takes over another interval.
    pub(super) fn set_interval(&self, interval: Duration) {
        if let Some(log) = &self.log {
            log.set_interval(interval);
        }
    }

    /// Takes over another policy.
    pub(super) fn set_policy(&self, policy: Policy) {
        if let Some(log) = &self.log {
            log.set_policy(policy);
        }
    }
}

impl Journalist {
    /// Starts to write the log, on the first shard. Where there is no room for it, the store is
    /// read meanwhile.
    pub(super) fn start(self, runtime: &Runtime) -> Result<(), Failure> {
        let (log, path) = (Arc::clone(&self.log), self.start.path.clone());
        let work = Arc::new(Mutex::new(Some(self)));
        let begun = runtime.run_on_all(move |shard| {
            let mine = (shard == ShardId(0)).then(|| Arc::clone(&work));
            async move {
                let taken = mine.and_then(|work| work.lock().ok()?.take());
                let Some(Self { log, start, settings }) = taken else { return Ok(()) };
                let begun = Writer::begin(start.clone(), Arc::clone(&log), settings.clone()).await;
                let task = task::Builder::new().name("log");
                match begun {
                    Ok(writer) => task.spawn(to_the_end(writer.run())).detach(),
                    Err(error) if error.is_storage_full() => {
                        task.spawn(to_the_end(begin_late(start, log, settings))).detach();
                    }
                    Err(error) => return Err(error),
                }
                Ok(())
            }
        })?;
        let begun: Result<Vec<()>, crate::Error> = begun.into_iter().collect();
        begun.map(drop).map_err(|error| {
            log.close();
            Failure::running(cannot_begin(&path, &error))
        })
    }
}

fn cannot_begin(path: &Path, error: &crate::Error) -> String {
    format!("the log cannot be begun in {}: {error}", path.display())
}

async fn begin_late(
    start: Start,
    log: Arc<Log>,
    settings: log::writer::Settings,
) -> Result<(), LogFailed> {
    let path = start.path.clone();
    match Writer::begin_when_there_is_room(start, log, settings).await {
        Ok(Some(writer)) => writer.run().await,
        Ok(None) => Ok(()),
        Err(error) => Err(LogFailed(cannot_begin(&path, &error).into())),
    }
}

/// Writes the log to its end. When it fails nothing may be acknowledged any more, so the process
/// ends at once and says why.
async fn to_the_end(writing: impl Future<Output = Result<(), LogFailed>> + 'static) {
    let failed = match task::Builder::new().name("log writer").spawn(writing).await {
        Ok(Ok(())) => return,
        Ok(Err(failed)) => failed.to_string(),
        // The runtime ends.
        Err(ended) if ended.is_cancelled() => return,
        Err(panicked) => format!("the log is written no more: {panicked}"),
    };
    let _ = Failure::running(failed).report();
    std::process::exit(1);
}

/// The newest of the snapshots that were found.
fn last_saved(directory: &Path, snapshots: &[(Slots, log::Lsn)]) -> Option<Saved> {
    let found = |(slots, lsn): &(Slots, log::Lsn)| {
        let file = std::fs::metadata(directory.join(log::name::snapshot(*slots, *lsn))).ok()?;
        let age = file.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
        Some((age.as_millis() as u64, file.len()))
    };
    let files: Vec<(u64, u64)> = snapshots.iter().filter_map(found).collect();
    let unix_ms = files.iter().map(|(unix_ms, _)| *unix_ms).max()?;
    let bytes = files.iter().map(|(_, bytes)| bytes).sum();
    Some(Saved { unix_ms, bytes, ..Saved::default() })
}

fn expire_in_background(store: Store) {
    let cycle = expire_forever(store);
    task::Builder::new().name("expiry").class(Class::Background).spawn(cycle).detach();
}
