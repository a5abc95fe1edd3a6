//! The files of a log as they are written: the segment at hand, the one prepared to follow, those
//! kept until a snapshot makes them needless. Used by the writer.
//!
//! Invariant: a segment has its name only when its header is on stable storage; the name of the
//! next is durable before the record that seals this one is written.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::handle::Log;
use super::{ALIGNMENT_BYTES, FILE_HEADER_BYTES, Link, Lsn, Seed, SegmentHeader, StoreId, name};
use crate::buffer::{AlignedBuffer, Payload};
use crate::error::{Error, Result};
use crate::fs::{self, DirectAlignment, Directory, File, OpenOptions};
use crate::{task, time};

/// The first segment after a start is this long, so that a start is quick; the others are as long
/// as the settings say.
pub(super) const FIRST_SEGMENT_BYTES: u64 = 4 * 1024 * 1024;

/// The shortest segments that may be asked for.
pub const SEGMENT_BYTES_MIN: u64 = 1024 * 1024;

/// The segment at hand grows by this much when the next is not ready yet.
const GROWTH_BYTES: u64 = 4 * 1024 * 1024;

/// Zeros are written this many at a time, with a pause, so that they do not hold up records.
const FILL_BYTES: usize = 128 * 1024;
const FILL_PAUSE: Duration = Duration::from_millis(1);

/// After something has failed for want of room, it is tried again this much later.
const FULL_PAUSE: Duration = Duration::from_millis(500);

/// The name of the segment that is being prepared.
const SPARE: &str = "spare.tmp";

/// A segment that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its number.
    pub sequence: u64,
    /// The last record in it.
    pub last: Lsn,
    /// Bytes of the file.
    pub bytes: u64,
}

/// Where a log goes on after a start.
#[derive(Clone, Debug)]
pub struct Start {
    /// The data directory.
    pub path: PathBuf,
    /// The store.
    pub id: StoreId,
    /// The next record.
    pub next: Link,
    /// The next segment's number.
    pub sequence: u64,
    /// The segments that are there, in order.
    pub kept: Vec<Kept>,
}

/// What became of preparing a segment.
#[derive(Debug, Default)]
enum Spare {
    #[default]
    None,
    Preparing,
    /// A file of this many zeros.
    Ready(File, u64),
    Failed(Error),
}

/// The files of a log.
pub(super) struct Segments {
    log: Arc<Log>,
    path: PathBuf,
    directory: Directory,
    id: StoreId,
    segment_bytes: u64,
    file: File,
    sequence: u64,
    /// Where the next record goes.
    offset: u64,
    /// Where the prepared room ends.
    end: u64,
    kept: VecDeque<Kept>,
    spare: Rc<RefCell<Spare>>,
}

impl Segments {
    /// Begins a new segment behind those that are there.
    pub(super) async fn begin(start: Start, log: Arc<Log>, segment_bytes: u64) -> Result<Self> {
        assert!(segment_bytes >= SEGMENT_BYTES_MIN, "a segment holds more than a few records");
        let directory = Directory::open(&start.path).await?;
        let bytes = FIRST_SEGMENT_BYTES.min(segment_bytes);
        let file = prepare(&start.path.join(SPARE), bytes).await?;
        let header = SegmentHeader {
            id: start.id,
            sequence: start.sequence,
            first: start.next,
            // Whoever starts a log has made durable what is there.
            durable: Lsn(start.next.lsn.0 - 1),
        };
        name_segment(&start.path, &directory, &file, &header).await?;
        let segments = Self {
            log,
            directory,
            id: start.id,
            segment_bytes,
            file,
            sequence: start.sequence,
            offset: FILE_HEADER_BYTES as u64,
            end: bytes,
            kept: start.kept.into(),
            spare: Rc::default(),
            path: start.path,
        };
        segments.count();
        Ok(segments)
    }

    /// What the checksums of records begin with.
    pub(super) fn seed(&self) -> Seed {
        self.id.seed()
    }

    /// The file that records are written to.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Where the next record goes.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The path of the segment at hand, for messages.
    pub(super) fn file_path(&self) -> PathBuf {
        self.path.join(name::segment(self.sequence))
    }

    /// The path of the data directory, for messages.
    pub(super) fn folder(&self) -> PathBuf {
        self.path.clone()
    }

    /// A record of `bytes` has been written.
    pub(super) fn advance(&mut self, bytes: u64) {
        self.offset += bytes;
        self.log.figures.records.fetch_add(1, Ordering::Relaxed);
        self.log.figures.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Makes room for a record of `bytes`, and answers whether it is to seal the segment: then
    /// [`Segments::make_successor`] comes before it is written.
    pub(super) async fn make_room(&mut self, bytes: u64) -> Result<bool> {
        // So little room is not worth keeping a segment for.
        let reserve = self.segment_bytes / 16;
        let missing = (self.offset + bytes).saturating_sub(self.end);
        let is_last = self.offset + bytes + reserve > self.end;
        let has_successor = matches!(*self.spare.borrow(), Spare::Ready(..));
        let failed = matches!(*self.spare.borrow(), Spare::Failed(_));
        if failed && let Spare::Failed(error) = self.spare.take() {
            return Err(error);
        }
        if self.offset + bytes > self.end / 2 {
            self.prepare_spare();
        }
        if missing > 0 {
            let growth = missing.max(GROWTH_BYTES).next_multiple_of(ALIGNMENT_BYTES as u64);
            allocate(&self.file, self.end, growth).await?;
            self.end += growth;
            self.count();
        }
        Ok(is_last && has_successor)
    }

    /// Has the next segment stand under its name, to go on with `first` behind the record that is
    /// about to be written.
    pub(super) async fn make_successor(&mut self, first: Link) -> Result<Successor> {
        let (file, bytes) = match self.spare.take() {
            Spare::Ready(file, bytes) => (file, bytes),
            // It was ready, but could not be given its name.
            _ => (prepare(&self.path.join(SPARE), FIRST_SEGMENT_BYTES).await?, FIRST_SEGMENT_BYTES),
        };
        let durable = self.log.durable_lsn();
        let header = SegmentHeader { id: self.id, sequence: self.sequence + 1, first, durable };
        name_segment(&self.path, &self.directory, &file, &header).await?;
        Ok(Successor { file, bytes })
    }

    /// Goes on in the successor; `last` sealed the segment at hand.
    pub(super) fn go_on(&mut self, successor: Successor, last: Lsn) {
        self.kept.push_back(Kept { sequence: self.sequence, last, bytes: self.end });
        self.sequence += 1;
        self.file = successor.file;
        self.end = successor.bytes;
        self.offset = FILE_HEADER_BYTES as u64;
        self.count();
    }

    /// Whether there is a segment that holds nothing behind record `until`.
    pub(super) fn has_needless(&self, until: Lsn) -> bool {
        self.kept.front().is_some_and(|kept| kept.last <= until)
    }

    /// Gives up the first segment, which holds nothing behind record `until`. It may become the
    /// next spare. Should a crash bring it back, it is given up again.
    pub(super) async fn trim_one(&mut self, until: Lsn) -> Result<()> {
        let Some(kept) = self.kept.front().copied().filter(|kept| kept.last <= until) else {
            return Ok(());
        };
        let path = self.path.join(name::segment(kept.sequence));
        let is_fit = kept.bytes == self.segment_bytes && self.has_no_spare();
        let given_up = if is_fit {
            fs::rename(&path, self.path.join(SPARE)).await
        } else {
            fs::remove_file(&path).await
        };
        // Somebody may have removed it.
        let is_there = !given_up.as_ref().is_err_and(Error::is_not_found);
        if is_there {
            given_up?;
        }
        self.kept.pop_front();
        if is_fit && is_there {
            let file = open_for_records(&self.path.join(SPARE), OpenOptions::new()).await?;
            *self.spare.borrow_mut() = Spare::Ready(file, kept.bytes);
        }
        self.count();
        if self.has_needless(until) { Ok(()) } else { self.directory.sync().await }
    }

    /// Begins to prepare the next segment, unless that is under way or done. For want of room it is
    /// tried again and again, and writes are refused meanwhile: what has been accepted still fits
    /// into the segment at hand.
    fn prepare_spare(&mut self) {
        if !self.has_no_spare() {
            return;
        }
        *self.spare.borrow_mut() = Spare::Preparing;
        let (spare, folder) = (Rc::clone(&self.spare), self.folder());
        let path = folder.join(SPARE);
        let (bytes, log) = (self.segment_bytes, Arc::clone(&self.log));
        let preparing = async move {
            let mut full = Full::new(log);
            let prepared = loop {
                match prepare(&path, bytes).await {
                    Ok(file) => break Spare::Ready(file, bytes),
                    Err(error) if error.is_storage_full() => full.wait(&folder, &error).await,
                    // The segment at hand grows meanwhile.
                    Err(error) if is_passing(&error) => {
                        tracing::warn!(%error, "the log's next segment cannot be made yet");
                        time::sleep(FULL_PAUSE).await;
                    }
                    Err(error) => break Spare::Failed(error),
                }
            };
            *spare.borrow_mut() = prepared;
            full.end();
        };
        task::Builder::new().name("log spare").spawn(preparing).detach();
    }

    fn has_no_spare(&self) -> bool {
        matches!(*self.spare.borrow(), Spare::None)
    }

    fn count(&self) {
        let bytes: u64 = self.kept.iter().map(|kept| kept.bytes).sum();
        let figures = &self.log.figures;
        figures.segments.store(self.kept.len() as u64 + 1, Ordering::Relaxed);
        figures.segment_bytes.store(bytes + self.end, Ordering::Relaxed);
    }
}

/// Whether it is the process or the system that has too little of something for now.
fn is_passing(error: &Error) -> bool {
    let passing = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::EAGAIN];
    error.errno().is_some_and(|errno| passing.contains(&errno.0))
}

/// A time without room on the disk.
pub(super) struct Full {
    log: Arc<Log>,
    refuses: bool,
}

impl Full {
    pub(super) fn new(log: Arc<Log>) -> Self {
        Self { log, refuses: false }
    }

    /// Has writes refused, and waits a little.
    pub(super) async fn wait(&mut self, directory: &Path, error: &Error) {
        let directory = directory.display();
        if !self.refuses {
            tracing::error!(%error, "no room for the log in {directory}: writes are refused");
            self.refuses = true;
            self.log.refuse(format!(
                "no room for the log in {directory} ({error}): writes are refused until some is \
                 freed there"
            ));
        }
        time::sleep(FULL_PAUSE).await;
    }

    /// There was room at last.
    pub(super) fn end(self) {
        if self.refuses {
            tracing::info!("there is room for the log again");
            self.log.welcome();
        }
    }
}

/// A segment that will follow the one at hand.
pub(super) struct Successor {
    file: File,
    bytes: u64,
}

/// Makes a file of `bytes` zeros that are on stable storage, so that records written over them
/// change no metadata.
async fn prepare(path: &Path, bytes: u64) -> Result<File> {
    let options = OpenOptions::new().create(true).truncate(true);
    let file = open_for_records(path, options).await?;
    let filled = fill(&file, bytes).await;
    if filled.is_err() {
        // Whatever room there is, others need it: snapshots, after which old segments can go.
        if let Err(error) = file.set_len(0).await {
            tracing::warn!(%error, "what was taken for the log's next segment is not given back");
        }
    }
    filled.map(|()| file)
}

async fn fill(file: &File, bytes: u64) -> Result<()> {
    allocate(file, 0, bytes).await?;
    let mut zeros = AlignedBuffer::new(FILL_BYTES, ALIGNMENT_BYTES);
    zeros.set_len(FILL_BYTES);
    let mut zeros = Payload::from(zeros);
    let mut offset = 0;
    while offset < bytes {
        zeros = file.write_at(zeros, offset).await?;
        offset += FILL_BYTES as u64;
        if offset < bytes {
            time::sleep(FILL_PAUSE).await;
        }
    }
    file.sync_all().await
}

/// Opens for writing past the page cache, where the file system lets us.
pub(crate) async fn open_for_records(path: &Path, options: OpenOptions) -> Result<File> {
    let options = options.write(true);
    match options.direct(true).open(path).await {
        Err(error) if error.errno().is_some_and(|errno| errno.0 == libc::EINVAL) => {}
        Err(error) => return Err(error),
        Ok(file) if is_aligned_enough(file.metadata().await?.direct_alignment()) => {
            return Ok(file);
        }
        Ok(_) => {}
    }
    warn_once(path);
    options.open(path).await
}

/// Whether records lie and are held as O_DIRECT asks, as far as that is known.
fn is_aligned_enough(asked: Option<DirectAlignment>) -> bool {
    asked.is_none_or(|DirectAlignment { memory, offset }| {
        memory.max(offset) as usize <= ALIGNMENT_BYTES
    })
}

/// Reserves space where the file system knows how; where not, writes find out.
async fn allocate(file: &File, offset: u64, bytes: u64) -> Result<()> {
    match file.allocate(offset, bytes).await {
        Err(error) if error.is_unsupported() => Ok(()),
        allocated => allocated,
    }
}

/// Writes the header into a prepared file and gives it its name, durably.
async fn name_segment(
    path: &Path,
    directory: &Directory,
    file: &File,
    header: &SegmentHeader,
) -> Result<()> {
    let mut block = AlignedBuffer::new(FILE_HEADER_BYTES, ALIGNMENT_BYTES);
    block.as_mut_slice().copy_from_slice(&header.encode());
    block.set_len(FILE_HEADER_BYTES);
    file.write_durable_at(block, 0).await?;
    fs::rename(path.join(SPARE), path.join(name::segment(header.sequence))).await?;
    directory.sync().await
}

fn warn_once(path: &Path) {
    static SAID: std::sync::Once = std::sync::Once::new();
    let directory = path.parent().unwrap_or(path).display();
    SAID.call_once(|| {
        tracing::warn!(
            "{directory}: the file system has no O_DIRECT for blocks of {ALIGNMENT_BYTES} bytes; \
             the log goes by its cache"
        );
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_asks_for_larger_blocks_is_written_by_the_cache() {
        let asked = |memory, offset| Some(DirectAlignment { memory, offset });
        assert!(is_aligned_enough(None), "as far as that is known");
        assert!(is_aligned_enough(asked(4, 512)));
        assert!(is_aligned_enough(asked(4096, 4096)));
        assert!(!is_aligned_enough(asked(4, 16_384)));
        assert!(!is_aligned_enough(asked(8192, 512)));
    }
}
