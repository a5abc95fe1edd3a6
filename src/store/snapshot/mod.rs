//! Snapshots: what a partition held as of one record of the log, in a file, so that the log before
//! it may go. Made without a second process, while the partition is in use.
//!
//! [`keep`] is started by the daemon, once for all partitions; it saves one after the other, each
//! on the shard that owns it. One at a time keeps the disk's share to one rate, the additional
//! memory to one partition's, and the additional room on the disk to one file.
//!
//! The partition is walked in short steps, and other tasks run between them. What a writer is about
//! to change ahead of the walk is copied first and waits to be written. That is paced to the
//! schedule's rate, unless copies wait: they go first, as fast as the disk goes (they amount to
//! about what the log writes at the same time). Past
//! [`crate::limits::SNAPSHOT_WAITING_BYTES_MAX`] writers are stalled until the disk has caught up;
//! readers never are.
//!
//! A save that fails leaves nothing behind, tells why through [`Saving`], and is tried again a
//! minute later or when asked for. Nothing is saved at a shutdown: the log holds it all, and
//! reading it is quick. Invariant: a snapshot has its name only when the log is durable up to the
//! record that it holds the content of; so no snapshot is ever ahead of the log.

mod draft;
mod keeper;
mod pace;
mod shelf;

use std::path::PathBuf;
use std::time::Duration;

pub use keeper::{Keeping, keep};

use super::saving::{SaveFailed, Saving};
use super::{Keyspace, Partition, PartitionId, Store};
use crate::error::Error;
use crate::limits::SNAPSHOT_WAITING_BYTES_MAX;
use crate::log::{Log, Lsn, Slots, SnapshotHeader, StoreId, name};
use crate::store::capture::PIECE_BYTES;
use crate::{clock, fs, task, time};
use draft::Draft;
use pace::Pace;

/// Bytes that come out in one step of the walk.
const STEP_BYTES: usize = 16 * 1024;
/// Places looked at in one step.
const STEP_COUNT: usize = 128;

/// With so much waiting there is no rest.
const URGENT_BYTES: usize = 4 * PIECE_BYTES;
/// The longest rest before what waits is looked at again.
const REST_MAX: Duration = Duration::from_millis(10);

const _: () = assert!(STEP_BYTES < PIECE_BYTES);
const _: () = assert!(2 * URGENT_BYTES < SNAPSHOT_WAITING_BYTES_MAX);

/// Where the snapshots of a store lie.
#[derive(Clone, Debug)]
struct Folder {
    path: PathBuf,
    id: StoreId,
}

/// What saving a partition came to.
#[derive(Clone, Copy, Debug)]
struct Part {
    slots: Slots,
    lsn: Lsn,
    keys: u64,
    /// Bytes of the file.
    bytes: u64,
}

/// Stalls writers if too much waits for a snapshot of this partition. Called with the partition
/// at hand.
#[inline]
pub(super) fn hold_writers(partition: &Partition, log: &Log) {
    if partition.captured_bytes() > SNAPSHOT_WAITING_BYTES_MAX {
        log.hold_writers(true);
    }
}

/// A save of one partition, on a thread that reaches it.
struct Save<'a> {
    store: &'a Store,
    log: &'a Log,
    id: PartitionId,
    folder: &'a Folder,
    saving: &'a Saving,
    pace: Pace,
}

/// A capture that ends with this.
struct Capturing<'a> {
    store: &'a Store,
    id: PartitionId,
}

/// What comes next in a save.
enum Step {
    Walk,
    Write(Vec<u8>),
    /// Everything is written: so many keys.
    End(u64),
}

/// Saves partition `id`, which the calling thread reaches; unless there is a snapshot as of `have`,
/// and nothing was written since.
///
/// If this is dropped, a file is left that means nothing, and is removed at the next start.
async fn save(
    store: &Store,
    id: PartitionId,
    folder: &Folder,
    saving: &Saving,
    have: Option<Lsn>,
) -> Result<Part, SaveFailed> {
    let Some(log) = store.log() else {
        return Err(SaveFailed("the store is in memory only (store.data = none)".into()));
    };
    let (from, until) = store.map().slots(id);
    let slots = Slots { from, until };
    let path = draft::path_of(&folder.path, slots);
    let failed = |error: Error| {
        let path = path.display();
        SaveFailed(format!("the snapshot cannot be written: {path}: {error}").into())
    };
    let mut save = Save { store, log, id, folder, saving, pace: Pace::new(clock::now()) };
    let (lsn, keys, capturing) = save.begin(have).await;
    let Some(capturing) = capturing else {
        let there = fs::metadata(folder.path.join(name::snapshot(slots, lsn))).await;
        let bytes = there.map_err(failed)?.len();
        return Ok(Part { slots, lsn, keys, bytes });
    };
    let mut draft = Draft::begin(folder, slots).await.map_err(failed)?;
    let installed = match save.fill(&mut draft, slots, lsn, capturing).await {
        // The content is out; what is left is to wait until the log cannot lose any of it.
        Ok(keys) => match log.made_durable(lsn).await {
            Ok(()) => draft.install(lsn).await.map(|()| keys).map_err(failed),
            Err(log_failed) => Err(SaveFailed(log_failed.0)),
        },
        Err(error) => Err(failed(error)),
    };
    if installed.is_err() {
        draft.discard().await;
    }
    Ok(Part { slots, lsn, keys: installed?, bytes: draft.bytes() })
}

impl<'a> Save<'a> {
    /// Writes what is captured; answers how many keys that is.
    async fn fill(
        &mut self,
        draft: &mut Draft,
        slots: Slots,
        lsn: Lsn,
        capturing: Capturing<'a>,
    ) -> Result<u64, Error> {
        let unix_ms = clock::unix_millis();
        draft.write_header(&SnapshotHeader { id: self.folder.id, lsn, slots, unix_ms }).await?;
        let keys = loop {
            match self.step() {
                Step::Walk => task::yield_now().await,
                Step::Write(changes) => self.write(draft, &changes).await?,
                Step::End(keys) => break keys,
            }
        };
        drop(capturing);
        draft.finish(keys).await?;
        self.saving.advance(keys, 0);
        Ok(keys)
    }

    /// Begins to capture, unless there is a snapshot as of just now. Answers the last record whose
    /// effect the content holds, and how many keys there are.
    async fn begin(&self, have: Option<Lsn>) -> (Lsn, u64, Option<Capturing<'a>>) {
        // A transaction takes keys out of the partition for a while; it closes the gate.
        if let Some(gate) = self.store.gate() {
            gate.opened().await;
        }
        let (store, log, id) = (self.store, self.log, self.id);
        let ((lsn, keys, begun), _) = store.visit(|home| {
            home.with(id, |partition| {
                let lsn = log.draw_line(id.index());
                let keys: usize = partition.keyspaces().iter().map(Keyspace::len).sum();
                let begun = have != Some(lsn);
                if begun {
                    partition.begin_capture();
                }
                (lsn, keys, begun)
            })
        });
        (lsn, keys as u64, begun.then_some(Capturing { store, id }))
    }

    /// Walks on a little, and says what comes next.
    fn step(&self) -> Step {
        let (store, log, id) = (self.store, self.log, self.id);
        let (step, _) = store.visit(|home| {
            home.with(id, |partition| {
                let waiting = partition.captured_bytes();
                let bytes = PIECE_BYTES.min(waiting + STEP_BYTES);
                let done = partition.walk_capture(bytes, STEP_COUNT).unwrap_or(true);
                let waiting = partition.captured_bytes();
                let Some(capture) = partition.capture() else { return Step::End(0) };
                if waiting >= PIECE_BYTES || (done && waiting > 0) {
                    let piece = capture.take();
                    if capture.waiting_bytes() < SNAPSHOT_WAITING_BYTES_MAX / 2 {
                        log.hold_writers(false);
                    }
                    Step::Write(piece)
                } else if done {
                    Step::End(capture.keys())
                } else {
                    Step::Walk
                }
            })
        });
        step
    }

    async fn write(&mut self, draft: &mut Draft, changes: &[u8]) -> Result<(), Error> {
        let bytes = Draft::bytes_of(changes);
        self.pace.spend(bytes, self.saving.schedule().rate_bytes, clock::now());
        draft.write(changes).await?;
        self.saving.advance(0, bytes);
        loop {
            let owed = self.pace.owed(self.saving.schedule().rate_bytes, clock::now());
            if owed.is_zero() || self.is_urgent() {
                return Ok(());
            }
            time::sleep(owed.min(REST_MAX)).await;
        }
    }

    /// Whether memory is held that only writing gives back.
    fn is_urgent(&self) -> bool {
        let look = |partition: &mut Partition| {
            let keeps_emptied = partition.capture().is_some_and(|capture| capture.keeps_emptied());
            keeps_emptied || partition.captured_bytes() > URGENT_BYTES
        };
        self.store.visit(|home| home.with(self.id, look)).0
    }
}

impl Drop for Capturing<'_> {
    fn drop(&mut self) {
        let log = self.store.log();
        let _ = self.store.visit(|home| {
            home.with(self.id, |partition| {
                partition.end_capture();
                if let Some(log) = log {
                    log.hold_writers(false);
                }
            });
        });
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::log::{Admission, Policy};
    use crate::store::saving::Schedule;
    use crate::store::{Expiry, SlotMap};

    const KEYS_COUNT: usize = 1000;

    fn write_all(store: &Store, value: &[u8]) {
        for number in 0..KEYS_COUNT {
            let _ = store.visit(|home| {
                home.with(PartitionId(0), |partition| {
                    let key = number.to_be_bytes();
                    partition.database(0).set_string(&key, value, Expiry::Never);
                });
            });
        }
    }

    #[test]
    fn writers_are_stalled_while_too_much_waits_and_until_half_of_it_is_written() {
        let log = Arc::new(Log::new(1, Lsn(0), Policy::Never, Duration::ZERO));
        let (map, id) = (SlotMap::new(1), PartitionId(0));
        let partition = Partition::new(map.slots(id));
        let store = Store::owning_partition(map, id, partition, Some(Arc::clone(&log)));
        let value = vec![7; 2 * SNAPSHOT_WAITING_BYTES_MAX / KEYS_COUNT];
        write_all(&store, &value);
        let folder = Folder { path: PathBuf::new(), id: StoreId([0; 16]) };
        let saving = Saving::new(Schedule::default(), None);
        let pace = Pace::new(clock::now());
        let save = Save { store: &store, log: &log, id, folder: &folder, saving: &saving, pace };
        let mut begun = pin!(save.begin(None));
        let mut context = Context::from_waker(Waker::noop());
        let Poll::Ready((_, _, capturing)) = begun.as_mut().poll(&mut context) else {
            panic!("the gate is open")
        };
        assert_eq!(store.admission(), Admission::Open);
        write_all(&store, b"new");
        assert_eq!(store.admission(), Admission::Stalled);
        assert!(save.is_urgent());
        let (mut stalled_bytes, mut bytes) = (0, 0);
        loop {
            match save.step() {
                Step::Write(piece) => bytes += piece.len(),
                Step::Walk => {}
                Step::End(keys) => break assert_eq!(keys, KEYS_COUNT as u64),
            }
            if store.admission() == Admission::Stalled {
                stalled_bytes = bytes;
            }
        }
        assert!(bytes > 2 * SNAPSHOT_WAITING_BYTES_MAX);
        assert!(stalled_bytes > SNAPSHOT_WAITING_BYTES_MAX);
        assert!(stalled_bytes < bytes - SNAPSHOT_WAITING_BYTES_MAX / 4);
        drop(capturing);
        write_all(&store, b"newer");
        assert_eq!(store.admission(), Admission::Open);
    }

    #[test]
    fn a_save_given_up_lets_writers_go_on() {
        let log = Log::new(1, Lsn(0), Policy::Never, Duration::ZERO);
        let (map, id) = (SlotMap::new(1), PartitionId(0));
        let partition = Partition::new(map.slots(id));
        let store = Store::owning_partition(map, id, partition, Some(Arc::new(log)));
        let _ = store.visit(|home| home.with(id, Partition::begin_capture));
        let capturing = Capturing { store: &store, id };
        let Some(log) = store.log() else { panic!("it has a log") };
        log.hold_writers(true);
        assert_eq!(store.admission(), Admission::Stalled);
        drop(capturing);
        assert_eq!(store.admission(), Admission::Open);
    }

    /// It has keys out of the partition, which would be missing in the snapshot.
    #[test]
    fn a_save_does_not_begin_while_a_transaction_is_at_work() {
        let log = Arc::new(Log::new(1, Lsn(0), Policy::Never, Duration::ZERO));
        let (map, id) = (SlotMap::new(1), PartitionId(0));
        let partition = Partition::new(map.slots(id));
        let store = Store::owning_partition(map, id, partition, Some(Arc::clone(&log)));
        let folder = Folder { path: PathBuf::new(), id: StoreId([0; 16]) };
        let saving = Saving::new(Schedule::default(), None);
        let pace = Pace::new(clock::now());
        let save = Save { store: &store, log: &log, id, folder: &folder, saving: &saving, pace };
        let Some(gate) = store.gate() else { panic!("it owns its partition") };
        let mut context = Context::from_waker(Waker::noop());
        assert_eq!(pin!(gate.close()).poll(&mut context), Poll::Ready(()));
        let mut begun = pin!(save.begin(None));
        assert!(begun.as_mut().poll(&mut context).is_pending());
        write_all(&store, b"by the transaction");
        gate.open();
        let Poll::Ready((lsn, keys, _capturing)) = begun.as_mut().poll(&mut context) else {
            panic!("the gate is open")
        };
        assert_eq!((lsn, keys), (Lsn(1), KEYS_COUNT as u64));
    }
}
