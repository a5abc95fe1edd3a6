//! When snapshots are made, and which files go for them. Started by the daemon, on the first shard.
//!
//! Invariant: the log is trimmed up to what snapshots on stable storage hold of every slot, and no
//! further.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::shelf::Shelf;
use super::{Folder, Part, save};
use crate::clock::{self, Instant};
use crate::fs;
use crate::log::{Log, Slots, name};
use crate::shard::{ShardId, shard};
use crate::store::recovery::Recovered;
use crate::store::saving::{SaveFailed, Saved, Saving};
use crate::store::{PartitionId, Store};
use crate::task::{self, Class};
use crate::time;

/// How often it is looked whether a save is due.
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// A save that failed is tried again this much later, unless it is asked for.
const RETRY_PAUSE: Duration = Duration::from_secs(60);

/// What a keeper of snapshots starts from.
#[derive(Debug)]
pub struct Keeping {
    folder: Folder,
    shelf: Shelf,
    /// Bytes of the log that are not in snapshots.
    log_bytes: u64,
}

impl Keeping {
    /// As a store was left.
    pub fn of(recovered: &Recovered) -> Self {
        let start = &recovered.start;
        let shelf = Shelf::new(recovered.snapshots.clone());
        let covered = shelf.covered().unwrap_or_default();
        let behind = start.kept.iter().filter(|kept| kept.last > covered);
        Self {
            folder: Folder { path: start.path.clone(), id: start.id },
            log_bytes: behind.map(|kept| kept.bytes).sum(),
            shelf,
        }
    }
}

struct Keeper {
    store: Store,
    log: Arc<Log>,
    saving: Arc<Saving>,
    folder: Folder,
    shelf: Shelf,
    /// Bytes of the log that were there at the start and are not in snapshots.
    inherited_bytes: u64,
    /// Bytes of the log written when the last save began that succeeded.
    saved_bytes: u64,
    /// When the last save began that succeeded; before the first, when this began to keep.
    began: Instant,
    /// What had passed by then since the save before.
    passed: Duration,
    /// No save before, unless it is asked for.
    not_before: Instant,
}

/// Makes snapshots of a store with a log, for as long as the shard runs: when the log has grown,
/// when time is up, and when asked for.
///
/// Saves partitions that the calling thread does not reach on the shards of their numbers, which
/// have their stores installed.
pub async fn keep(store: Store, saving: Arc<Saving>, keeping: Keeping) {
    let Some(log) = store.log().cloned() else { return };
    let now = clock::now();
    let mut keeper = Keeper {
        store,
        saved_bytes: log.figures().bytes.load(Ordering::Relaxed),
        log,
        folder: keeping.folder,
        shelf: keeping.shelf,
        inherited_bytes: keeping.log_bytes,
        began: now,
        passed: passed_since(saving.report().last),
        saving,
        not_before: now,
    };
    // A crash may have come between the last save and this.
    keeper.trim();
    loop {
        keeper.saving.call.clear();
        if keeper.is_due(clock::now()) {
            keeper.save_all().await;
        } else {
            // Called or not: the loop looks again.
            let _called = time::timeout(LOOK_PAUSE, keeper.saving.call.wait()).await;
        }
    }
}

/// How long ago a save ended that another process has made.
fn passed_since(last: Option<Saved>) -> Duration {
    let passed_ms = last.map(|saved| clock::unix_millis().saturating_sub(saved.unix_ms));
    Duration::from_millis(passed_ms.unwrap_or_default())
}

impl Keeper {
    /// Bytes of the log that are not in snapshots.
    fn unsaved_bytes(&self) -> u64 {
        let written = self.log.figures().bytes.load(Ordering::Relaxed);
        written - self.saved_bytes + self.inherited_bytes
    }

    fn is_due(&self, now: Instant) -> bool {
        if self.saving.is_asked_for() {
            return true;
        }
        let (schedule, unsaved) = (self.saving.schedule(), self.unsaved_bytes());
        if unsaved == 0 || now < self.not_before {
            return false;
        }
        let last_bytes = self.saving.report().last.map_or(0, |saved| saved.bytes);
        let by_size = schedule.log_bytes > 0 && unsaved >= schedule.log_bytes.max(last_bytes);
        let passed = now.since(self.began).saturating_add(self.passed);
        let by_time = !schedule.every.is_zero() && passed >= schedule.every;
        by_size || by_time
    }

    /// Gives up what the log holds in front of the snapshots.
    fn trim(&self) {
        if let Some(covered) = self.shelf.covered() {
            self.log.trim(covered);
        }
    }

    /// Saves every partition, and gives up what that makes needless.
    async fn save_all(&mut self) {
        self.saving.begin();
        let began = clock::now();
        let written = self.log.figures().bytes.load(Ordering::Relaxed);
        let mut saved = Saved::default();
        let mut outcome = Ok(());
        for id in self.store.map().partitions() {
            match self.save(id).await {
                Ok(part) => {
                    saved.keys += part.keys;
                    saved.bytes += part.bytes;
                    self.replace_by(&part).await;
                }
                Err(failed) => {
                    outcome = Err(failed);
                    break;
                }
            }
        }
        self.trim();
        saved.unix_ms = clock::unix_millis();
        saved.duration = clock::now().since(began);
        match &outcome {
            Ok(()) => {
                (self.saved_bytes, self.inherited_bytes) = (written, 0);
                (self.began, self.passed) = (began, Duration::ZERO);
                tracing::info!(
                    keys = saved.keys,
                    bytes = saved.bytes,
                    "saved in {:.3} s",
                    saved.duration.as_secs_f64()
                );
            }
            Err(failed) => {
                self.not_before = clock::now() + RETRY_PAUSE;
                tracing::error!(
                    "{failed}; what was saved before is still there, and so is the log"
                );
            }
        }
        self.saving.end(outcome.map(|()| saved));
    }

    /// Saves a partition where it is within reach.
    async fn save(&self, id: PartitionId) -> Result<Part, SaveFailed> {
        let (from, until) = self.store.map().slots(id);
        let have = self.shelf.lsn_of(Slots { from, until });
        let (folder, saving) = (self.folder.clone(), Arc::clone(&self.saving));
        // In a task, so that a panic fails this save alone.
        let begin = move |store: Store| {
            let work = async move { save(&store, id, &folder, &saving, have).await };
            task::Builder::new().name("snapshot").class(Class::Background).spawn(work)
        };
        let failed = |error: &dyn std::fmt::Display| Err(SaveFailed(error.to_string().into()));
        if self.store.reaches(id) {
            let saved = begin(self.store.clone()).await;
            return saved.unwrap_or_else(|error| failed(&error));
        }
        let there = move || async move {
            match Store::here() {
                Some(store) => begin(store).await.unwrap_or_else(|error| failed(&error)),
                None => failed(&"the partition's shard has no store"),
            }
        };
        shard(ShardId(id.0)).submit(there).await.unwrap_or_else(|error| failed(&error))
    }

    /// Puts a new snapshot among the others, and removes those whose slots are all in newer ones.
    async fn replace_by(&mut self, part: &Part) {
        self.shelf.put((part.slots, part.lsn));
        for (slots, lsn) in self.shelf.take_needless() {
            let path = self.folder.path.join(name::snapshot(slots, lsn));
            if let Err(error) = fs::remove_file(&path).await
                && !error.is_not_found()
            {
                // It is removed at the next start.
                tracing::warn!(%error, "{}: an old snapshot stays", path.display());
            }
        }
    }
}
