//! The task that writes the log: gathers what the lanes hold into a record, writes it, says that it
//! is durable. Started by the daemon on one shard, for all of them.
//!
//! Group commit needs no timer: whatever is appended while a record is on its way to the disk
//! becomes part of the next. Invariant: one record is on its way at a time, so what follows a
//! record that is damaged was never said to be durable.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use super::handle::{Duty, Log, LogFailed, Policy};
use super::record::{self, HEADER_BYTES, Head};
use super::segments::{Full, Segments, Start, Successor};
use super::{ALIGNMENT_BYTES, Link, Lsn, Slots};
use crate::buffer::{AlignedBuffer, Payload};
use crate::clock::{self, Instant};
use crate::error::{Error, Result};
use crate::metrics::{self, Measure};
use crate::time;

/// Where nobody waits for a record, the next is written this much later: fewer and longer writes
/// cost less, and a process that is killed loses no more than this.
const WRITE_EVERY: Duration = Duration::from_millis(2);

/// Room for records that is kept.
const ROOM_BYTES_KEPT: usize = 4 * 1024 * 1024;
const ROOM_BYTES_MIN: usize = 256 * 1024;

/// How the log is written.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// The slots whose changes each lane holds.
    pub lanes: Vec<Slots>,
}

/// Writes a log until it is closed.
pub struct Writer {
    log: Arc<Log>,
    segments: Segments,
    settings: Settings,
    next: Link,
    room: AlignedBuffer,
    /// When the first of what was written but is not durable was appended.
    undurable_since: Option<Instant>,
    /// Records up to here are in snapshots.
    needless: Lsn,
    /// When the last record was gathered.
    gathered_at: Instant,
}

/// What has come of a step, or why it could not be done.
type Done<T> = std::result::Result<T, Failure>;

/// An error, and the file or folder that it is about.
struct Failure {
    path: PathBuf,
    error: Error,
}

/// What a writer does next.
enum Step {
    Record,
    Sync,
    Trim,
    End,
}

impl Writer {
    /// Begins a new segment in the directory.
    ///
    /// # Errors
    /// The errors of making a file there.
    pub async fn begin(start: Start, log: Arc<Log>, settings: Settings) -> Result<Self> {
        let next = start.next;
        let segments = Segments::begin(start, Arc::clone(&log), settings.segment_bytes).await?;
        let room = AlignedBuffer::new(ROOM_BYTES_MIN, ALIGNMENT_BYTES);
        Ok(Self {
            log,
            segments,
            settings,
            next,
            room,
            undurable_since: None,
            needless: Lsn::NONE,
            gathered_at: clock::now(),
        })
    }

    /// Begins a new segment in the directory once there is room for one, and has writes refused
    /// until then. `None` if the log is closed before that, with nothing to be written.
    ///
    /// # Errors
    /// The errors of making a file there, but want of room only if something waits at the close.
    pub async fn begin_when_there_is_room(
        start: Start,
        log: Arc<Log>,
        settings: Settings,
    ) -> Result<Option<Self>> {
        let mut full = Full::new(Arc::clone(&log));
        loop {
            match Self::begin(start.clone(), Arc::clone(&log), settings.clone()).await {
                Ok(writer) => {
                    full.end();
                    return Ok(Some(writer));
                }
                Err(error) if !error.is_storage_full() => return Err(error),
                Err(error) if log.is_closing() && log.pending_bytes() > 0 => return Err(error),
                Err(_) if log.is_closing() => {
                    log.set_ended();
                    return Ok(None);
                }
                Err(error) => full.wait(&start.path, &error).await,
            }
        }
    }

    /// Writes until the log is closed and everything is durable.
    ///
    /// Not to be dropped before: what waits would wait for ever.
    ///
    /// # Errors
    /// A write or a sync has failed. Nothing becomes durable any more, and nothing is acknowledged.
    pub async fn run(mut self) -> std::result::Result<(), LogFailed> {
        loop {
            let done = match self.step().await {
                Step::Record => self.write_record().await,
                Step::Sync => self.sync().await,
                // That is looked after below.
                Step::Trim => Ok(()),
                Step::End => {
                    self.log.set_ended();
                    return Ok(());
                }
            };
            if let Err(Failure { path, error }) = done {
                let path = path.display();
                return Err(self.log.fail(format!(
                    "the log cannot be made durable: {path}: {error}; nothing more is \
                     acknowledged, and changes that are not durable yet are lost. What was \
                     acknowledged as durable is safe: mend the disk and start again"
                )));
            }
            self.trim().await;
        }
    }

    /// Gives up one of the segments that snapshots have made needless: records wait meanwhile.
    async fn trim(&mut self) {
        self.needless = self.needless.max(self.log.take_needless());
        if self.segments.has_needless(self.needless)
            && let Err(error) = self.segments.trim_one(self.needless).await
        {
            // Tried again after the next snapshot.
            self.needless = Lsn::NONE;
            tracing::warn!(%error, "old segments of the log cannot be removed");
        }
    }

    /// Waits for something to do.
    async fn step(&mut self) -> Step {
        let log = Arc::clone(&self.log);
        loop {
            // Before anything is looked at: a call that comes later is not slept through.
            let calls = log.calls();
            let due = match log.duty(self.undurable_since) {
                Duty::Sync => return Step::Sync,
                Duty::Record => {
                    if !log.is_strict() && !log.is_closing() {
                        time::sleep_until(self.gathered_at + WRITE_EVERY).await;
                    }
                    return Step::Record;
                }
                Duty::End => return Step::End,
                Duty::Rest(due) => due,
            };
            self.needless = self.needless.max(log.take_needless());
            if self.segments.has_needless(self.needless) {
                return Step::Trim;
            }
            match due {
                // Late or not: the loop looks again.
                Some(due) => drop(time::timeout_at(due, log.called(calls)).await),
                None => log.called(calls).await,
            }
        }
    }

    /// Gathers a record and writes it.
    async fn write_record(&mut self) -> Done<()> {
        let strict = self.log.is_strict();
        if strict && self.undurable_since.is_some() {
            self.sync().await?;
        }
        let (since, began) = (self.log.pending_since(), clock::now());
        self.log.set_undurable_since(Some(self.undurable_since.unwrap_or(since)));
        self.gathered_at = began;
        let (payload_bytes, stays) = self.gather();
        if !stays {
            self.log.restart_waiting(began);
        }
        let padded = record::padded_bytes(payload_bytes) as u64;
        let seals = self.until_there_is_room(async |this| this.make_room(padded).await).await?;
        if seals && self.undurable_since.is_some() {
            // By itself: where the disk takes records from a cache, what is wrong with earlier ones
            // must not pass for a want of room for this one, which is written again.
            self.sync_now().await?;
            self.log.set_undurable_since(Some(since));
            self.is_durable(self.log.written_lsn());
        }
        let head = self.head();
        let (link, successor) = self.seal(head, payload_bytes, seals).await?;
        let durable = strict || successor.is_some();
        self.put(durable, since).await?;
        self.next = link;
        self.segments.advance(padded);
        self.log.set_written(head.link.lsn);
        if durable {
            assert!(self.undurable_since.is_none(), "what came before was made durable first");
            self.log.set_undurable_since(None);
            self.is_durable(head.link.lsn);
        } else {
            self.undurable_since.get_or_insert(since);
        }
        if let Some(successor) = successor {
            self.segments.go_on(successor, head.link.lsn);
        }
        metrics::record(Measure::LogCommit, clock::now().nanos_since(began));
        Ok(())
    }

    /// Copies what the lanes hold behind the room for the header; answers how much it is, and
    /// whether they hold something for a later record.
    fn gather(&mut self) -> (usize, bool) {
        let (room, lanes) = (&mut self.room, &self.settings.lanes);
        if room.capacity() > ROOM_BYTES_KEPT {
            *room = AlignedBuffer::new(ROOM_BYTES_MIN, ALIGNMENT_BYTES);
        }
        let mut end = HEADER_BYTES;
        let stays = self.log.lanes.gather(self.next.lsn, |lane, changes| {
            let header = record::section_header(lanes[lane], changes.len());
            let start = end + header.len();
            let wanted = (start + changes.len()).next_multiple_of(ALIGNMENT_BYTES);
            if wanted > room.capacity() {
                let mut larger =
                    AlignedBuffer::new(wanted.max(2 * room.capacity()), ALIGNMENT_BYTES);
                larger.as_mut_slice()[..end].copy_from_slice(&room.as_mut_slice()[..end]);
                *room = larger;
            }
            let room = room.as_mut_slice();
            room[end..start].copy_from_slice(&header);
            end = start + changes.len();
            room[start..end].copy_from_slice(changes);
        });
        (end - HEADER_BYTES, stays)
    }

    fn head(&self) -> Head {
        Head::new(self.next, self.log.durable_lsn(), clock::unix_millis())
    }

    /// Fills in the record's header. A record that seals its segment has the next one made first.
    async fn seal(
        &mut self,
        head: Head,
        payload_bytes: usize,
        seals: bool,
    ) -> Done<(Link, Option<Successor>)> {
        let padded = record::padded_bytes(payload_bytes);
        let seed = self.segments.seed();
        let head = Head { sealed: seals, ..head };
        let room = &mut self.room.as_mut_slice()[..padded];
        let link = record::seal(room, payload_bytes, &head, seed);
        self.room.set_len(padded);
        if !seals {
            return Ok((link, None));
        }
        let successor =
            self.until_there_is_room(async |segments| segments.make_successor(link).await).await?;
        Ok((link, Some(successor)))
    }

    /// Writes the record in the room, as often as it takes.
    async fn put(&mut self, durable: bool, since: Instant) -> Done<()> {
        let mut full = Full::new(Arc::clone(&self.log));
        loop {
            let room = std::mem::replace(&mut self.room, AlignedBuffer::new(1, 1));
            let (file, offset) = (self.segments.file(), self.segments.offset());
            let write = file.try_write_at(Payload::from(room), offset, durable);
            let began = clock::now();
            let (payload, written) = self.watched(since, write).await;
            if durable {
                metrics::record(Measure::LogSync, clock::now().nanos_since(began));
            }
            if let Payload::Aligned(room) = payload {
                self.room = room;
            }
            match written {
                Ok(()) => break,
                // Who ends the program is told that there was no room, and does not wait for some.
                Err(error) if error.is_storage_full() && !self.log.is_closing() => {
                    full.wait(&self.segments.folder(), &error).await;
                    self.trim().await;
                }
                Err(error) => return Err(self.failed(error)),
            }
        }
        full.end();
        Ok(())
    }

    /// Does something that takes room on the disk, as often as it takes to find some.
    async fn until_there_is_room<R>(
        &mut self,
        mut work: impl AsyncFnMut(&mut Segments) -> Result<R>,
    ) -> Done<R> {
        let mut full = Full::new(Arc::clone(&self.log));
        let done = loop {
            match work(&mut self.segments).await {
                Ok(done) => break done,
                Err(error) if error.is_storage_full() && !self.log.is_closing() => {
                    full.wait(&self.segments.folder(), &error).await;
                    self.trim().await;
                }
                // It may be about the next segment, or about the folder itself.
                Err(error) => return Err(Failure { path: self.segments.folder(), error }),
            }
        };
        full.end();
        Ok(done)
    }

    /// An error of writing or syncing the segment at hand.
    fn failed(&self, error: Error) -> Failure {
        Failure { path: self.segments.file_path(), error }
    }

    /// Makes durable what was written.
    async fn sync(&mut self) -> Done<()> {
        self.sync_now().await?;
        self.log.set_undurable_since(None);
        self.is_durable(self.log.written_lsn());
        Ok(())
    }

    async fn sync_now(&mut self) -> Done<()> {
        let since = self.undurable_since.unwrap_or_else(clock::now);
        let sync = self.segments.file().sync_data();
        let began = clock::now();
        self.watched(since, sync).await.map_err(|error| self.failed(error))?;
        metrics::record(Measure::LogSync, clock::now().nanos_since(began));
        self.undurable_since = None;
        Ok(())
    }

    fn is_durable(&self, lsn: Lsn) {
        self.log.set_durable(lsn);
    }

    /// Waits for the disk, and says so if what was appended at `since` is not durable in time.
    async fn watched<T>(&self, since: Instant, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        if self.log.policy() != Policy::Interval {
            return work.await;
        }
        let oldest = self.undurable_since.unwrap_or(since);
        if let Ok(done) = time::timeout_at(oldest + self.log.interval(), work.as_mut()).await {
            return done;
        }
        // Who writes has found out by now: see [`Log::admission`].
        tracing::warn!(interval = ?self.log.interval(), "the disk is behind: writes are stalled");
        work.await
    }
}
