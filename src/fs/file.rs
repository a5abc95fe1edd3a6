//! An open file: reads and writes at offsets, syncs, and the space that it takes.
//!
//! Used by programs, the services and the log. Invariant: the descriptor stays open until every
//! operation on it is over; dropping the file closes it behind them.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use super::{Metadata, OpenOptions, done};
use crate::buffer::{Payload, ReadBuffer};
use crate::error::{Errno, Error, Result};
use crate::limits;
use crate::op::{Message, Op, Outcome, Scatter, Status, Value};
use crate::shard::completion::{Completion, detach};

/// What to do with a part of a file's space (fallocate(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Reserve it: writes to it will not fail for want of room. The file grows if it ends before;
    /// what was not written reads as zeros.
    Reserve,
    /// Reserve it, also behind the end, and leave the length as it is.
    ReserveKeepLength,
    /// Give it back: it reads as zeros. The length stays.
    PunchHole,
    /// Make it read as zeros, keeping the space. The file grows if it ends before.
    Zero,
}

impl Space {
    fn mode(self) -> i32 {
        match self {
            Space::Reserve => 0,
            Space::ReserveKeepLength => libc::FALLOC_FL_KEEP_SIZE,
            Space::PunchHole => libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
            Space::Zero => libc::FALLOC_FL_ZERO_RANGE,
        }
    }
}

/// How a part of a file will be used (posix_fadvise(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// In no particular way.
    Normal,
    /// In order: read ahead more.
    Sequential,
    /// Here and there: do not read ahead.
    Random,
    /// Soon: begin to read it.
    WillNeed,
    /// Not soon: its clean pages may leave the page cache.
    DontNeed,
    /// Once.
    NoReuse,
}

impl Advice {
    fn as_raw(self) -> i32 {
        match self {
            Advice::Normal => libc::POSIX_FADV_NORMAL,
            Advice::Sequential => libc::POSIX_FADV_SEQUENTIAL,
            Advice::Random => libc::POSIX_FADV_RANDOM,
            Advice::WillNeed => libc::POSIX_FADV_WILLNEED,
            Advice::DontNeed => libc::POSIX_FADV_DONTNEED,
            Advice::NoReuse => libc::POSIX_FADV_NOREUSE,
        }
    }
}

/// Offsets are signed in the kernel, and the largest unsigned one would mean "where the file
/// stands" (io_uring_enter(2)).
pub(super) fn check_offset(offset: u64, length: usize) -> std::result::Result<(), Errno> {
    let end = offset.checked_add(length as u64);
    if end.is_some_and(|end| i64::try_from(end).is_ok()) {
        Ok(())
    } else {
        Err(Errno(libc::EINVAL))
    }
}

const READING: &str = "reading a file";
const WRITING: &str = "writing a file";

/// How [`File::write`] writes.
#[derive(Clone, Copy)]
struct Manner {
    durable: bool,
    appends: bool,
}

/// An open file. Dropping it closes it in the background.
#[derive(Debug)]
pub struct File {
    /// `None` only while being dropped, or given away.
    descriptor: Option<OwnedFd>,
}

impl File {
    /// Opens `path` for reading.
    ///
    /// A file that a dropped future would have given is closed.
    ///
    /// # Errors
    /// As [`OpenOptions::open`].
    pub async fn open(path: impl AsRef<Path>) -> Result<Self> {
        OpenOptions::new().read(true).open(path).await
    }

    /// Opens `path` for writing; makes it if it is missing, and cuts it to nothing.
    ///
    /// A dropped future may have made or cut the file.
    ///
    /// # Errors
    /// As [`OpenOptions::open`].
    pub async fn create(path: impl AsRef<Path>) -> Result<Self> {
        OpenOptions::new().write(true).create(true).truncate(true).open(path).await
    }

    pub(super) fn of(descriptor: OwnedFd) -> Self {
        Self { descriptor: Some(descriptor) }
    }

    /// What is left of a file that has been given away.
    pub(super) fn none() -> Self {
        Self { descriptor: None }
    }

    pub(super) fn raw(&self) -> RawFd {
        self.descriptor.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }

    /// Reads once at `offset` into the buffer's spare capacity and gives the buffer back. It may
    /// read less than there is room for; nothing is added at the end of the file.
    ///
    /// A dropped future takes its buffer with it; the file is as it was.
    ///
    /// # Errors
    /// The errors of pread(2).
    pub async fn read_at(&self, buffer: impl Into<ReadBuffer>, offset: u64) -> Result<ReadBuffer> {
        check_offset(offset, 0).map_err(|errno| Error::io(READING, errno))?;
        let op = Op::ReadAt { file: self.raw(), buffer: buffer.into(), offset };
        match Completion::new(op).await {
            Outcome { result: Ok(_), op: Op::ReadAt { buffer, .. } } => Ok(buffer),
            Outcome { result: Err(errno), .. } => Err(Error::io(READING, errno)),
            _ => unreachable!("an outcome gives its own operation back"),
        }
    }

    /// Writes all of `payload` at `offset` and gives it back. It is written in as many parts as
    /// the kernel takes; after an error or a cancel any prefix may have been written.
    ///
    /// # Errors
    /// The errors of pwrite(2).
    pub async fn write_at(&self, payload: impl Into<Payload>, offset: u64) -> Result<Payload> {
        let manner = Manner { durable: false, appends: false };
        self.write(payload.into(), offset, manner).await
    }

    /// Writes all of `payload` at `offset`, and it is durable when this returns, with what of the
    /// metadata is needed to read it (RWF_DSYNC of pwritev2(2)): a [`File::write_at`] and a
    /// [`File::sync_data`] of these bytes in one operation. Other writes are not made durable.
    ///
    /// After an error any prefix may have been written, and durable or not: do not try again and
    /// believe it (a sync that failed once may report success the next time). The same holds for a
    /// dropped future.
    ///
    /// # Errors
    /// The errors of pwritev2(2): EOPNOTSUPP where the file system does not know how, and ENOSPC,
    /// EDQUOT or EIO of the sync too.
    pub async fn write_durable_at(
        &self,
        payload: impl Into<Payload>,
        offset: u64,
    ) -> Result<Payload> {
        let manner = Manner { durable: true, appends: false };
        self.write(payload.into(), offset, manner).await
    }

    /// Writes all of `payload` at the end of the file, wherever that is by then (RWF_APPEND of
    /// pwritev2(2)), and gives it back. What one call of the kernel takes stays together; that may
    /// be less than all, and others who append may come between the parts.
    ///
    /// After an error or a cancel any prefix may have been written.
    ///
    /// # Errors
    /// The errors of pwritev2(2).
    pub async fn append(&self, payload: impl Into<Payload>) -> Result<Payload> {
        let manner = Manner { durable: false, appends: true };
        self.write(payload.into(), 0, manner).await
    }

    /// As [`File::write_at`], or as [`File::write_durable_at`], with the payload back whatever
    /// happens.
    #[cfg_attr(not(any(feature = "daemon", loom)), expect(dead_code, reason = "for the log"))]
    pub(crate) async fn try_write_at(
        &self,
        payload: Payload,
        offset: u64,
        durable: bool,
    ) -> (Payload, Result<()>) {
        self.try_write(payload, offset, Manner { durable, appends: false }).await
    }

    async fn write(&self, payload: Payload, offset: u64, manner: Manner) -> Result<Payload> {
        let (payload, result) = self.try_write(payload, offset, manner).await;
        result.map(|()| payload)
    }

    async fn try_write(
        &self,
        mut payload: Payload,
        offset: u64,
        manner: Manner,
    ) -> (Payload, Result<()>) {
        if let Err(errno) = check_offset(offset, payload.len()) {
            return (payload, Err(Error::io(WRITING, errno)));
        }
        let (file, Manner { durable, appends }) = (self.raw(), manner);
        let mut skip = 0;
        while skip < payload.len() {
            let offset = offset + skip as u64;
            let op = Op::WriteAt { file, payload, skip, offset, durable, appends };
            let outcome = Completion::new(op).await;
            let Op::WriteAt { payload: back, .. } = outcome.op else {
                unreachable!("an outcome gives its own operation back")
            };
            payload = back;
            match written(outcome.result) {
                Ok(step) => skip += step,
                Err(error) => return (payload, Err(error)),
            }
        }
        (payload, Ok(()))
    }

    /// Reads once at `offset` into the spare capacity of several buffers, in order, and gives them
    /// back. It may read less than there is room for; nothing is added at the end of the file.
    ///
    /// A dropped future takes its buffers with it; the file is as it was.
    ///
    /// # Errors
    /// The errors of preadv(2); `is_limit` for more than [`limits::FILE_VECTORS_COUNT_MAX`]
    /// buffers.
    pub async fn read_vectored_at(
        &self,
        buffers: Vec<ReadBuffer>,
        offset: u64,
    ) -> Result<Vec<ReadBuffer>> {
        check_offset(offset, 0).map_err(|errno| Error::io(READING, errno))?;
        check_count(READING, buffers.len())?;
        let scatter = Box::new(Scatter::new(buffers));
        let op = Op::ReadVectoredAt { file: self.raw(), scatter, offset };
        match Completion::new(op).await {
            Outcome { result: Ok(_), op: Op::ReadVectoredAt { scatter, .. } } => {
                Ok(scatter.into_buffers())
            }
            Outcome { result: Err(errno), .. } => Err(Error::io(READING, errno)),
            _ => unreachable!("an outcome gives its own operation back"),
        }
    }

    /// Writes all of several payloads in order at `offset` and gives them back: one operation, and
    /// more where the kernel takes less than all.
    ///
    /// After an error or a cancel any prefix of all may have been written.
    ///
    /// # Errors
    /// The errors of pwritev(2); `is_limit` for more than [`limits::FILE_VECTORS_COUNT_MAX`]
    /// payloads.
    pub async fn write_vectored_at(
        &self,
        payloads: Vec<Payload>,
        offset: u64,
    ) -> Result<Vec<Payload>> {
        check_count(WRITING, payloads.len())?;
        let length = payloads.iter().map(|payload| payload.len()).sum();
        check_offset(offset, length).map_err(|errno| Error::io(WRITING, errno))?;
        let mut message = Box::new(Message::new(payloads));
        let mut offset = offset;
        while message.remaining() > 0 {
            let op = Op::WriteVectoredAt { file: self.raw(), message, offset };
            let outcome = Completion::new(op).await;
            let step = written(outcome.result)?;
            let Op::WriteVectoredAt { message: back, .. } = outcome.op else {
                unreachable!("an outcome gives its own operation back")
            };
            message = back;
            message.advance(step);
            offset += step as u64;
        }
        Ok(message.into_payloads())
    }

    /// Makes data and metadata durable (fsync(2)). After an error the data may be lost for good:
    /// do not try again and believe it. The name of a new file is made durable by
    /// [`super::Directory::sync`].
    ///
    /// A dropped future may have done it or not.
    ///
    /// # Errors
    /// The errors of fsync(2).
    pub async fn sync_all(&self) -> Result<()> {
        self.sync_as("syncing a file", false).await
    }

    /// Makes data durable, and of the metadata what is needed to read it (fdatasync(2)).
    ///
    /// A dropped future may have done it or not.
    ///
    /// # Errors
    /// As [`File::sync_all`].
    pub async fn sync_data(&self) -> Result<()> {
        self.sync_as("syncing a file", true).await
    }

    pub(super) async fn sync_as(&self, verb: &str, data_only: bool) -> Result<()> {
        done(Op::Sync { file: self.raw(), data_only }, || verb).await
    }

    /// Reserves space for `length` bytes at `offset`: writes there will not fail for want of room.
    /// The file grows if it ends before; what was not written reads as zeros.
    ///
    /// A dropped future may have done it, in part or not at all; the same holds after an error.
    ///
    /// # Errors
    /// The errors of fallocate(2): `is_unsupported` where the file system does not know how.
    pub async fn allocate(&self, offset: u64, length: u64) -> Result<()> {
        self.allocate_as(Space::Reserve, offset, length).await
    }

    /// Changes the space of `length` bytes at `offset`: see [`Space`].
    ///
    /// A dropped future is as with [`File::allocate`].
    ///
    /// # Errors
    /// As [`File::allocate`].
    pub async fn allocate_as(&self, space: Space, offset: u64, length: u64) -> Result<()> {
        let op = Op::Allocate { file: self.raw(), mode: space.mode(), offset, length };
        done(op, || "allocating space in a file").await
    }

    /// Cuts the file to `length` bytes, or extends it by zeros that take no space (ftruncate(2)).
    ///
    /// A dropped future may have done it or not.
    ///
    /// # Errors
    /// The errors of ftruncate(2).
    pub async fn set_len(&self, length: u64) -> Result<()> {
        done(Op::Truncate { file: self.raw(), length }, || "setting the length of a file").await
    }

    /// Says how `length` bytes at `offset` will be used; a length of 0 is the rest of the file.
    ///
    /// Cancel-safe: an advice changes nothing that can be read.
    ///
    /// # Errors
    /// The errors of posix_fadvise(2).
    pub async fn advise(&self, offset: u64, length: u64, advice: Advice) -> Result<()> {
        let op = Op::Advise { file: self.raw(), offset, length, advice: advice.as_raw() };
        done(op, || "advising how a file is used").await
    }

    /// Size, times, kind and more (statx(2)).
    ///
    /// Cancel-safe: it only looks.
    ///
    /// # Errors
    /// The errors of statx(2).
    pub async fn metadata(&self) -> Result<Metadata> {
        let op = Op::Stat { file: self.raw(), status: Status::of_descriptor() };
        match Completion::new(op).await {
            Outcome { result: Ok(_), op: Op::Stat { status, .. } } => Ok(Metadata(status)),
            Outcome { result: Err(errno), .. } => Err(Error::io("reading a file's status", errno)),
            _ => unreachable!("an outcome gives its own operation back"),
        }
    }
}

/// The bytes of one write. None at all, where there were some to write, would be tried for ever.
fn written(result: std::result::Result<Value, Errno>) -> Result<usize> {
    match result {
        Ok(Value::Count(0)) => Err(Error::io(WRITING, Errno(libc::EIO))),
        Ok(Value::Count(step)) => Ok(step as usize),
        Ok(Value::Descriptor(_)) => unreachable!("a write yields no descriptor"),
        Err(errno) => Err(Error::io(WRITING, errno)),
    }
}

fn check_count(verb: &str, count: usize) -> Result<()> {
    const MAX: usize = limits::FILE_VECTORS_COUNT_MAX;
    if count <= MAX {
        return Ok(());
    }
    Err(Error::limit(format!(
        "{verb}: {count} buffers at once, of at most {MAX}; use several calls"
    )))
}

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_ref().expect("the descriptor is there until the drop").as_fd()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        if let Some(descriptor) = self.descriptor.take() {
            detach(Op::Close { descriptor });
        }
    }
}
