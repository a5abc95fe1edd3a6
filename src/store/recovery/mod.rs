//! Brings a store back from its directory: snapshots, then the log behind them. Called at start,
//! before the runtime, and by the offline tools.
//!
//! Invariant: what comes back is the effect of exactly the records before [`Start::next`], less
//! what has expired; if that cannot be, nothing comes back and nothing has been changed.

mod apply;
pub(super) mod coverage;
mod progress;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, SyncSender, sync_channel};
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;
use std::{io, panic};

use super::directory::{DataDirectory, DirectoryError, Listing};
use super::{Keyspace, Partition, SlotMap};
use crate::clock;
use crate::log::header::InvalidHeader;
use crate::log::reader::{
    Damage, Damaged, End, Files, FolderFiles, Place, ReadAt, ReadError, Reader, Step,
};
use crate::log::{Kept, Lsn, Slots, Start, StoreId, name};
use apply::{Applier, Batch};
use coverage::Coverage;
use progress::Progress;

/// Bytes of payload that are handed to the appliers together.
const BATCH_BYTES: usize = 256 * 1024;
/// Batches that may wait for an applier. Further ones make the reader wait.
const BATCHES_COUNT_MAX: usize = 4;

/// A store that has come back.
#[derive(Debug)]
pub struct Recovered {
    /// The partitions, in order.
    pub partitions: Vec<Partition>,
    /// Where the log goes on.
    pub start: Start,
    /// The snapshots that count, and as of when.
    pub snapshots: Vec<(Slots, Lsn)>,
    /// The snapshots that newer ones have replaced; removed when the store starts.
    pub superseded: Vec<(Slots, Lsn)>,
    /// What a crash left behind the last record; cut off when the store starts.
    pub torn: Option<TornTail>,
    /// How much it was.
    pub figures: Figures,
    end: End,
}

/// How much was recovered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Keys that are there now.
    pub keys: u64,
    /// Records of the log that were read.
    pub records: u64,
    /// The number of the first of these.
    pub first: Option<Lsn>,
    /// Keys loaded from snapshots, and changes made that were in records.
    pub changes: u64,
    /// Bytes of snapshots and segments.
    pub bytes: u64,
    /// How long it took.
    pub duration: Duration,
}

/// The tail of a log that was never durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The segment's name.
    pub file: String,
    /// Where the last whole record ends, in bytes.
    pub offset: u64,
    /// Bytes behind it.
    pub bytes: u64,
    /// The number that the first record behind it had or would have had.
    pub first: Lsn,
    /// The highest number of a whole record behind it, where there is one.
    pub newest: Option<Lsn>,
}

impl std::fmt::Display for TornTail {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { file, offset, bytes, first, newest } = self;
        write!(
            formatter,
            "the log ends at byte {offset} of {file}: the {bytes} bytes behind were "
        )?;
        match newest.filter(|newest| newest > first) {
            None => write!(formatter, "record {first}, which was not wholly written"),
            Some(newest) => write!(
                formatter,
                "records {first} to {newest}, which were not wholly written and not durable"
            ),
        }
    }
}

/// Why a store does not come back. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The directory cannot be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// A file in it is damaged.
    #[error("{}{}{damage}; {}", .directory.display(),
            if damage.file.is_some() { "/" } else { ": " }, remedy(.directory, .damage))]
    Damaged {
        /// The directory.
        directory: PathBuf,
        /// What is wrong.
        damage: Box<Damage>,
    },
    /// A file in it could not be read.
    #[error("reading {}/{file}: {error}; look at the system's log for errors of the disk", 
            .directory.display())]
    Unreadable {
        /// The directory.
        directory: PathBuf,
        /// The file's name.
        file: String,
        /// What the system said.
        error: io::Error,
    },
}

impl RecoveryError {
    /// An error of a reader, told with the directory.
    pub(super) fn reading(directory: &Path, error: ReadError) -> Self {
        let directory = directory.to_owned();
        match error {
            ReadError::Damaged(damage) => Self::Damaged { directory, damage },
            ReadError::Io { file, error } => Self::Unreadable { directory, file, error },
        }
    }
}

fn remedy(directory: &Path, damage: &Damage) -> String {
    let directory = directory.display();
    match damage.what {
        Damaged::Header(InvalidHeader::Version(_)) => {
            "start it with the annulus that wrote it, or a newer one".to_owned()
        }
        Damaged::OtherStore(_) | Damaged::OtherSequence(_) | Damaged::OtherSnapshot => {
            "move it away, and put back the file that belongs there".to_owned()
        }
        Damaged::NoLog | Damaged::EndsBefore(_) => format!(
            "put the missing segments back, or let `annulus repair {directory}` begin the log anew \
             behind the snapshots"
        ),
        _ => format!(
            "bring the directory back from a backup, or let `annulus repair {directory}` set aside \
             what comes behind the damage"
        ),
    }
}

/// Brings the store in `directory` back, divided as `map` says, and clears away what a crash has
/// left: a torn tail, unfinished files, snapshots that were replaced.
///
/// # Errors
/// The directory is damaged or cannot be read. Then it is as it was.
pub fn recover(directory: &DataDirectory, map: SlotMap) -> Result<Recovered, RecoveryError> {
    let listing = directory.list()?;
    let recovered = load(directory, &listing, map)?;
    clear_away(directory, &listing, &recovered)?;
    let Figures { keys, records, changes, duration, .. } = recovered.figures;
    let (path, seconds) = (directory.path().display(), duration.as_secs_f64());
    tracing::info!(
        "recovered {keys} keys from {path} in {seconds:.3} s: {changes} changes, {records} records"
    );
    if let Some(torn) = &recovered.torn {
        tracing::warn!("{torn}; they were cut off");
    }
    Ok(recovered)
}

/// As [`recover`], but leaves everything as it is.
///
/// # Errors
/// As [`recover`].
pub fn load(
    directory: &DataDirectory,
    listing: &Listing,
    map: SlotMap,
) -> Result<Recovered, RecoveryError> {
    let files = FolderFiles(directory.path().to_owned());
    let loaded = load_files(&files, listing, directory.id(), map, clock::unix_millis());
    let mut loaded = loaded.map_err(|error| RecoveryError::reading(directory.path(), error))?;
    directory.path().clone_into(&mut loaded.start.path);
    Ok(loaded)
}

fn load_files<F>(
    files: &F,
    listing: &Listing,
    id: StoreId,
    map: SlotMap,
    now_ms: u64,
) -> Result<Recovered, ReadError>
where
    F: Files<File: Send> + Clone + Send + Sync,
{
    let started = clock::now();
    let coverage = Coverage::new(&listing.snapshots);
    let mut partitions: Vec<_> =
        map.partitions().map(|partition| Partition::new(map.slots(partition))).collect();
    let reader = Reader::new(files.clone(), listing.segments.clone(), id, coverage.needed())?;
    let segments = reader.sequences();
    let bytes_total = bytes_of(files, &coverage, &segments)?;
    let progress = Progress { bytes_total, ..Progress::default() };
    let work = Work { files, id, coverage: &coverage, progress: &progress, now_ms };
    let read = work.run(reader, &mut partitions)?;
    if read.end.next.lsn <= coverage.highest() {
        return Err(ends_early(&read.end, coverage.highest()).into());
    }
    let torn = read.end.torn.and_then(|torn| {
        Some(TornTail {
            file: name::segment(read.end.sequence?),
            offset: read.end.offset,
            bytes: torn.bytes,
            first: read.end.next.lsn,
            newest: torn.newest,
        })
    });
    let keys = partitions.iter().flat_map(Partition::keyspaces).map(Keyspace::len).sum::<usize>();
    let figures = Figures {
        keys: keys as u64,
        records: read.records,
        first: read.first,
        changes: progress.changes.load(Ordering::Relaxed),
        bytes: bytes_total,
        duration: clock::now().since(started),
    };
    let start = Start {
        path: PathBuf::new(),
        id,
        next: read.end.next,
        sequence: read.end.sequence.map_or(1, |sequence| sequence + 1),
        kept: kept(files, listing, &coverage, &read)?,
    };
    Ok(Recovered {
        partitions,
        start,
        snapshots: coverage.used().into_iter().map(|(_, slots, lsn)| (slots, lsn)).collect(),
        superseded: coverage.superseded(),
        torn,
        figures,
        end: read.end,
    })
}

/// The segments that stay, and up to where a snapshot has to reach for each to be needless.
fn kept<F: Files>(
    files: &F,
    listing: &Listing,
    coverage: &Coverage,
    read: &Read,
) -> Result<Vec<Kept>, ReadError> {
    // The reader passes over segments that nothing needs any more.
    let mut last = Lsn(coverage.needed().0 - 1);
    let mut kept = Vec::new();
    for &sequence in listing.segments.iter().filter(|s| Some(**s) <= read.end.sequence) {
        last = read.lasts.get(&sequence).copied().unwrap_or(last);
        let file = name::segment(sequence);
        let length = files.open(&file).and_then(|file| file.bytes());
        let mut bytes = length.map_err(|error| ReadError::Io { file, error })?;
        if Some(sequence) == read.end.sequence {
            // The rest of it is cut off.
            bytes = read.end.offset;
        }
        kept.push(Kept { sequence, last, bytes });
    }
    Ok(kept)
}

fn ends_early(end: &End, snapshot: Lsn) -> Damage {
    Damage {
        file: end.sequence.map(name::segment),
        offset: end.offset,
        lsn: Some(end.next.lsn),
        what: Damaged::EndsBefore(snapshot),
    }
}

fn bytes_of<F: Files>(files: &F, coverage: &Coverage, segments: &[u64]) -> Result<u64, ReadError> {
    let snapshots = coverage.used().into_iter().map(|(_, slots, lsn)| name::snapshot(slots, lsn));
    let names = segments.iter().map(|sequence| name::segment(*sequence)).chain(snapshots);
    names
        .map(|file| {
            let bytes = files.open(&file).and_then(|file| file.bytes());
            bytes.map_err(|error| ReadError::Io { file, error })
        })
        .sum()
}

/// What the threads of a recovery share.
struct Work<'a, F> {
    files: &'a F,
    id: StoreId,
    coverage: &'a Coverage,
    progress: &'a Progress,
    now_ms: u64,
}

/// What the reading thread has found.
struct Read {
    end: End,
    records: u64,
    first: Option<Lsn>,
    /// The last record of each segment that has any.
    lasts: BTreeMap<u64, Lsn>,
}

impl<F: Files<File: Send> + Send + Sync> Work<'_, F> {
    /// One thread reads and verifies, the others each bring some partitions up to date.
    fn run(&self, reader: Reader<F>, partitions: &mut [Partition]) -> Result<Read, ReadError> {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let share = partitions.len().div_ceil(threads.min(partitions.len()));
        let (done, all_done) = mpsc::channel();
        thread::scope(|scope| {
            let mut senders = Vec::new();
            let mut appliers = Vec::new();
            for partitions in partitions.chunks_mut(share) {
                let (sender, batches) = sync_channel(BATCHES_COUNT_MAX);
                let Self { files, id, coverage, progress, now_ms } = *self;
                let done = done.clone();
                senders.push(sender);
                appliers.push(scope.spawn(move || {
                    let _until_the_end = done;
                    let applier = Applier { partitions, coverage, files, id, progress };
                    applier.run(batches, now_ms)
                }));
            }
            let read = scope.spawn(move || {
                let _until_the_end = done;
                hand_out(reader, &senders, self.progress)
            });
            self.progress.tell_until(&all_done);
            // What an applier could not make sense of comes before what the reader found later.
            let applied: Result<Vec<()>, _> = appliers.into_iter().map(join).collect();
            let read = join(read);
            applied.and(read)
        })
        .map(|read| read.expect("who ends early has failed, which was told above"))
    }
}

fn join<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| panic::resume_unwind(panic))
}

/// Reads all records and gives them to every applier. `None` if one of them ended early.
fn hand_out<F: Files>(
    mut reader: Reader<F>,
    appliers: &[SyncSender<Arc<Batch>>],
    progress: &Progress,
) -> Result<Option<Read>, ReadError> {
    let (mut records, mut first, mut lasts) = (0, None, BTreeMap::new());
    let mut batch = Batch::default();
    let send = |batch: &mut Batch| {
        let batch = Arc::new(std::mem::take(batch));
        // An applier that is gone has failed, and says why at its end.
        appliers.iter().all(|applier| applier.send(Arc::clone(&batch)).is_ok())
    };
    let end = loop {
        match reader.next()? {
            Step::End(end) => break end,
            Step::Record(record) => {
                let (lsn, start) = (record.head.link.lsn, batch.bytes.len());
                batch.bytes.extend_from_slice(record.payload);
                batch.records.push((lsn, Place::default(), start..batch.bytes.len()));
                records += 1;
                first = first.or(Some(lsn));
            }
        }
        if let Some((lsn, place, _)) = batch.records.last_mut() {
            *place = reader.place();
            lasts.insert(place.sequence, *lsn);
        }
        if batch.bytes.len() >= BATCH_BYTES {
            progress.log_bytes.store(reader.bytes_done(), Ordering::Relaxed);
            if !send(&mut batch) {
                return Ok(None);
            }
        }
    };
    send(&mut batch);
    Ok(Some(Read { end, records, first, lasts }))
}

/// Removes what means nothing, and only then what a crash has left behind the log's end: a new
/// segment may follow only when the old one is cut.
fn clear_away(
    directory: &DataDirectory,
    listing: &Listing,
    recovered: &Recovered,
) -> Result<(), DirectoryError> {
    for name in &listing.unfinished {
        directory.remove(name)?;
    }
    for (slots, lsn) in &recovered.superseded {
        directory.remove(&name::snapshot(*slots, *lsn))?;
    }
    for sequence in &recovered.end.unused {
        directory.remove(&name::segment(*sequence))?;
    }
    // What was read may be in the cache alone, and counts as durable from now on.
    for kept in &recovered.start.kept {
        directory.make_durable(&name::segment(kept.sequence))?;
    }
    if let Some(sequence) = recovered.end.sequence {
        directory.cut(&name::segment(sequence), recovered.end.offset)?;
    }
    directory.sync()
}

#[cfg(test)]
pub(super) mod surgery_tests;
#[cfg(test)]
pub(super) mod tests;
