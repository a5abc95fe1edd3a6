//! Files past the page cache: offsets, lengths and memory aligned, whatever the caller asks for.
//!
//! For programs that know better than the page cache what to keep: a log, a store, a bulk copy.
//! Aligned requests go to the disk as they are; others are rounded out on the way in, and their
//! edges are read first on the way out. Invariant: what an operation carries suits the file's
//! alignment, which is 1 where the page cache stands between, so that nothing is ever rounded.

mod edges;
mod reader;
mod window;
mod writer;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

pub use self::reader::DirectReader;
pub use self::window::Window;
pub use self::writer::DirectWriter;
use super::file::check_offset;
use super::{DirectAlignment, File, OpenOptions};
use crate::buffer::{Payload, PooledBuffer, ReadBuffer};
use crate::driver;
use crate::error::{Errno, Error, Result};
use crate::limits;
use crate::op::{Op, Outcome, Value};
use crate::shard::completion::Completion;
use crate::sync::RwLock;

/// What is assumed of a file system that does direct I/O and does not say how it is aligned
/// (STATX_DIOALIGN of statx(2): Linux 6.1, and not on every file system).
const ALIGNMENT_ASSUMED: DirectAlignment = DirectAlignment { memory: 4096, offset: 4096 };

impl OpenOptions {
    /// Opens `path` past the page cache (O_DIRECT of open(2)), not for appending. It is opened for
    /// reading in any case, since an unaligned write reads the blocks at its edges.
    ///
    /// Where the file system has no direct I/O, the file is read and written through the page
    /// cache; that is logged once for each device, and [`DirectFile::is_direct`] tells.
    ///
    /// After a cancel the file may have been created; a descriptor that came too late is closed.
    ///
    /// # Errors
    /// As [`OpenOptions::open`]; an error of the configuration for appending, by
    /// [`OpenOptions::append`] or by O_APPEND: each write of a direct file has its offset.
    pub async fn open_direct(self, path: impl AsRef<Path>) -> Result<DirectFile> {
        refuse_append(self.flags())?;
        // The flag is set afterwards: where it is refused, an open has created the file already.
        let file = self.direct(false).read(true).open(path).await?;
        DirectFile::from_file(file).await
    }
}

/// A file past the page cache. Dropping it closes it in the background.
///
/// Reads and writes of any offset and length work; those at multiples of
/// [`DirectFile::alignment`], from aligned memory such as a [`PooledBuffer`], go to the disk
/// without a copy, in as few operations as [`limits::TRANSFER_BYTES_MAX`] allows; the kernel cuts
/// them to what the device takes. Direct does not mean durable: that is
/// [`DirectFile::write_durable_at`], or a sync by [`DirectFile::file`].
///
/// ```
/// use annulus::{Runtime, buffer::PooledBuffer, fs::OpenOptions};
///
/// # let path = std::env::temp_dir().join(format!("annulus-direct-{}", std::process::id()));
/// Runtime::new()?.block_on(async {
///     let file = OpenOptions::new().write(true).create(true).open_direct(&path).await?;
///     let mut block = PooledBuffer::new(4096);
///     block.extend_from_slice(&[7; 4096]);
///     file.write_durable_at(block, 8192).await?;
///     assert_eq!(&file.read_at(8191, 3).await?[..], &[0, 7, 7]);
///     # std::fs::remove_file(&path).unwrap();
///     annulus::Result::Ok(())
/// })?;
/// # annulus::Result::Ok(())
/// ```
#[derive(Debug)]
pub struct DirectFile {
    file: File,
    /// What offsets and lengths are multiples of.
    alignment: usize,
    /// What addresses are multiples of.
    memory_alignment: usize,
    is_direct: bool,
    /// Held by writes; alone by those that rewrite blocks of which they know only a part.
    edges: RwLock<()>,
    /// Where the blocks end that writers have under way.
    landing: RefCell<Vec<u64>>,
}

impl DirectFile {
    /// Opens `path` for reading.
    ///
    /// A file that a dropped future would have given is closed.
    ///
    /// # Errors
    /// As [`OpenOptions::open_direct`].
    pub async fn open(path: impl AsRef<Path>) -> Result<Self> {
        OpenOptions::new().read(true).open_direct(path).await
    }

    /// Turns an open file to direct I/O, where its file system has it.
    ///
    /// A dropped future closes the file.
    ///
    /// # Errors
    /// The errors of statx(2) and fcntl(2); an error of the configuration for a file that is open
    /// for appending.
    pub async fn from_file(file: File) -> Result<Self> {
        let flags = driver::status_flags(file.raw());
        refuse_append(flags.map_err(|errno| Error::io("reading a file's flags", errno))?)?;
        let status = file.metadata().await?;
        let buffered = |file| {
            say_once(status.device());
            Self::through_cache(file)
        };
        let DirectAlignment { memory, offset } =
            status.direct_alignment().unwrap_or(ALIGNMENT_ASSUMED);
        let suits = |alignment: u32| {
            alignment.is_power_of_two() && alignment as usize <= limits::POOLED_ALIGNMENT_BYTES
        };
        if !suits(memory) || !suits(offset) {
            return Ok(buffered(file));
        }
        match driver::set_direct(file.as_fd()) {
            Ok(()) => Ok(Self::new(file, offset as usize, memory as usize, true)),
            Err(Errno(libc::EINVAL)) => Ok(buffered(file)),
            Err(errno) => Err(Error::io("turning a file to direct I/O", errno)),
        }
    }

    /// A file that stays in the page cache: for where a setting decides. Not one that is open for
    /// appending: the kernel ignores the offsets of its writes.
    pub fn through_cache(file: File) -> Self {
        Self::new(file, 1, 1, false)
    }

    fn new(file: File, alignment: usize, memory_alignment: usize, is_direct: bool) -> Self {
        let (edges, landing) = (RwLock::new(()), RefCell::default());
        Self { file, alignment, memory_alignment, is_direct, edges, landing }
    }

    /// Whether it goes past the page cache, or its file system made that impossible.
    pub fn is_direct(&self) -> bool {
        self.is_direct
    }

    /// Bytes that offsets and lengths are best multiples of: a power of two; 1 if it is not direct.
    pub fn alignment(&self) -> usize {
        self.alignment
    }

    /// The file itself, for what needs no alignment: its length, its space, its status, its sync.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Reads `length` bytes at `offset`, less only at the end of the file.
    ///
    /// A dropped future gives its buffer back once the disk is done with it; the file is as it was.
    ///
    /// # Errors
    /// The errors of pread(2).
    pub async fn read_at(&self, offset: u64, length: usize) -> Result<PooledBuffer> {
        check_offset(offset, length).map_err(|errno| Error::io("reading a file", errno))?;
        let skip = offset as usize & (self.alignment - 1);
        let start = offset - skip as u64;
        let wanted = skip + length;
        let buffer = PooledBuffer::new(wanted.next_multiple_of(self.alignment));
        let mut buffer = self.read_on(buffer, start, wanted).await?;
        buffer.show(skip, length);
        Ok(buffer)
    }

    /// Writes all of `payload` at `offset` and gives it back.
    ///
    /// What is aligned goes to the disk as it is. What is not is copied, and the blocks at its
    /// edges are read, changed and written back: bytes beside the payload are written again as they
    /// were, a power cut in the middle may tear them, and at the end of the file they are cut off
    /// again, until when a reader may see zeros there. So a log owns its last block, or pads it.
    /// Such writes wait for others of this `DirectFile`, and those for them; another descriptor of
    /// the same file must keep away from their blocks.
    ///
    /// After an error or a cancel any part may have been written, or may still be; and the file may
    /// still be cut where an unaligned write has met its end. Do not give up a write of a file that
    /// is used further, unless it is aligned and nobody else writes there.
    ///
    /// # Errors
    /// The errors of pwrite(2); for unaligned payloads also those of pread(2) and ftruncate(2).
    pub async fn write_at(&self, payload: impl Into<Payload>, offset: u64) -> Result<Payload> {
        self.write(payload.into(), offset, false).await
    }

    /// As [`DirectFile::write_at`], and what was written is durable, with what is needed to read
    /// it. An aligned payload takes one operation for both (RWF_DSYNC of pwritev2(2)), which is
    /// less work than a write and an fdatasync(2) behind it: 176 µs and one sleep instead of 205 µs
    /// and three, for 4 KiB on a virtual disk.
    ///
    /// # Errors
    /// As [`DirectFile::write_at`], and those of fdatasync(2). After an error the data may be lost
    /// for good: do not try again and believe it.
    pub async fn write_durable_at(
        &self,
        payload: impl Into<Payload>,
        offset: u64,
    ) -> Result<Payload> {
        self.write(payload.into(), offset, true).await
    }

    /// Reads on until `buffer`, which begins at `start`, has `wanted` bytes or the file ends.
    ///
    /// A read that ends within a block has met the end of a file on a disk; a file system in user
    /// space may also give less (FUSE). So the file's length is asked for then, and there the rest
    /// is read from the block's start, or from where it ended if it ends there again.
    async fn read_on(
        &self,
        mut buffer: PooledBuffer,
        start: u64,
        wanted: usize,
    ) -> Result<PooledBuffer> {
        let (mut short, mut in_blocks) = (0, self.is_direct);
        while buffer.len() < wanted {
            let length = buffer.len();
            let beyond = length % self.alignment;
            if beyond > 0 && self.file.metadata().await?.len() <= start + length as u64 {
                break;
            }
            if beyond > 0 && in_blocks {
                in_blocks = length > short;
                short = length;
            }
            if in_blocks {
                buffer.show(0, length - beyond);
            }
            let before = buffer.len();
            let op = self.read_op(buffer, start + before as u64);
            buffer = read_outcome(Completion::new(op).await)?;
            if buffer.len() == before {
                break;
            }
        }
        Ok(buffer)
    }

    /// The operation that reads into the buffer's room. It is whole blocks, unless the file system
    /// has just given less: then it is none that needs them.
    fn read_op(&self, buffer: PooledBuffer, offset: u64) -> Op {
        Op::ReadAt { file: self.file.raw(), buffer: ReadBuffer::Pooled(buffer), offset }
    }

    /// The operation that writes `payload` from `skip` on, the whole of which belongs at `offset`.
    fn write_op(&self, payload: Payload, skip: usize, offset: u64, durable: bool) -> Op {
        debug_assert!(offset.is_multiple_of(self.alignment as u64));
        debug_assert!(payload.len().is_multiple_of(self.alignment));
        let offset = offset + skip as u64;
        Op::WriteAt { file: self.file.raw(), payload, skip, offset, durable, appends: false }
    }
}

/// The kernel writes at the end then, whatever the offset (O_APPEND, BUGS of pwrite(2)).
fn refuse_append(flags: i32) -> Result<()> {
    if flags & libc::O_APPEND == 0 {
        return Ok(());
    }
    Err(Error::config(
        "a direct file that is opened for appending (O_APPEND): its writes have offsets; open it \
         for writing",
    ))
}

fn read_outcome(outcome: Outcome) -> Result<PooledBuffer> {
    match outcome {
        Outcome { result: Ok(_), op: Op::ReadAt { buffer: ReadBuffer::Pooled(buffer), .. } } => {
            Ok(buffer)
        }
        Outcome { result: Err(errno), .. } => Err(Error::io("reading a file", errno)),
        _ => unreachable!("an outcome gives its own operation back"),
    }
}

/// The payload, and how many of its bytes have been written by now.
fn write_outcome(outcome: Outcome) -> Result<(Payload, usize)> {
    match outcome {
        Outcome { result: Ok(Value::Count(0)), .. } => {
            Err(Error::io("writing a file", Errno(libc::EIO)))
        }
        Outcome { result: Ok(Value::Count(step)), op: Op::WriteAt { payload, skip, .. } } => {
            Ok((payload, skip + step as usize))
        }
        Outcome { result: Err(errno), .. } => Err(Error::io("writing a file", errno)),
        _ => unreachable!("an outcome gives its own operation back"),
    }
}

impl AsFd for DirectFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Says that files of this device go through the page cache.
fn say_once((major, minor): (u32, u32)) {
    static SAID: Mutex<BTreeSet<(u32, u32)>> = Mutex::new(BTreeSet::new());
    if SAID.lock().unwrap_or_else(PoisonError::into_inner).insert((major, minor)) {
        tracing::warn!(
            "no direct I/O on the file system of device {major}:{minor}: its files are read and \
             written through the page cache"
        );
    }
}
