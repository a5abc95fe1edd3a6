//! Files as operations of the shard: open, read and write at offsets, sync, status.
//!
//! On the ring they are submission entries, under epoll helper threads make the calls, under
//! `threads` they are made in place. A file belongs to the shard that opened it.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::buffer::{Payload, ReadBuffer};
use crate::error::{Errno, Error, Result};
use crate::op::{Op, OpenHow, Outcome, Status, Value};
use crate::shard::completion::{Completion, detach};

/// How to open a file (open(2)); nothing is asked for at first.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenOptions {
    read: bool,
    write: bool,
    create: bool,
    create_new: bool,
    truncate: bool,
    direct: bool,
    mode: Option<u32>,
}

/// Defines the setters of the flags.
macro_rules! options {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[must_use]
        pub fn $name(mut self, on: bool) -> Self {
            self.$name = on;
            self
        }
    )*};
}

impl OpenOptions {
    /// No access at all: add [`OpenOptions::read`] or [`OpenOptions::write`].
    pub fn new() -> Self {
        Self::default()
    }

    options! {
        /// Open for reading.
        read,
        /// Open for writing.
        write,
        /// Create the file if it is missing.
        create,
        /// Create the file; an error if it exists.
        create_new,
        /// Cut the file to nothing.
        truncate,
        /// Past the page cache (O_DIRECT): buffers, offsets and lengths must be aligned; see
        /// [`crate::buffer::AlignedBuffer`].
        direct,
    }

    /// Permissions of a created file before the umask; 0o666 by default.
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = Some(mode);
        self
    }

    /// Opens `path`, relative to the working directory.
    ///
    /// After a cancel the file may have been created; a descriptor that came too late is closed.
    ///
    /// # Errors
    /// The errors of openat2(2).
    pub async fn open(self, path: impl AsRef<Path>) -> Result<File> {
        open(libc::AT_FDCWD, path.as_ref(), self.flags(), self.file_mode(), 0).await
    }

    fn flags(self) -> i32 {
        let access = match (self.read, self.write) {
            (true, true) => libc::O_RDWR,
            (false, true) => libc::O_WRONLY,
            _ => libc::O_RDONLY,
        };
        let flag = |on, flag| if on { flag } else { 0 };
        access
            | flag(self.create || self.create_new, libc::O_CREAT)
            | flag(self.create_new, libc::O_EXCL)
            | flag(self.truncate, libc::O_TRUNC)
            | flag(self.direct, libc::O_DIRECT)
    }

    /// openat2(2) refuses a mode where nothing is created.
    fn file_mode(self) -> u32 {
        if self.create || self.create_new { self.mode.unwrap_or(0o666) } else { 0 }
    }
}

async fn open(directory: RawFd, path: &Path, flags: i32, mode: u32, resolve: u64) -> Result<File> {
    let verb = || format!("opening {}", path.display());
    let name = CString::new(path.as_os_str().as_bytes())
        .map_err(|_| Error::io(verb(), Errno(libc::EINVAL)))?;
    let how = OpenHow { flags: (flags | libc::O_CLOEXEC) as u64, mode: u64::from(mode), resolve };
    let op = Op::Open { directory, path: name, how: Box::new(how) };
    match Completion::new(op).await.result {
        Ok(Value::Descriptor(descriptor)) => Ok(File { descriptor: Some(descriptor) }),
        Ok(Value::Count(_)) => unreachable!("an open yields a descriptor"),
        Err(errno) => Err(Error::io(verb(), errno)),
    }
}

/// Offsets are signed in the kernel, and the largest unsigned one would mean "where the file
/// stands" (io_uring_enter(2)).
fn check_offset(offset: u64, length: usize) -> std::result::Result<(), Errno> {
    let end = offset.checked_add(length as u64);
    if end.is_some_and(|end| i64::try_from(end).is_ok()) {
        Ok(())
    } else {
        Err(Errno(libc::EINVAL))
    }
}

/// An open file. Dropping it closes it in the background.
#[derive(Debug)]
pub struct File {
    /// `None` only while being dropped.
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

    fn raw(&self) -> RawFd {
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
        check_offset(offset, 0).map_err(|errno| Error::io("reading a file", errno))?;
        let op = Op::ReadAt { file: self.raw(), buffer: buffer.into(), offset };
        match Completion::new(op).await {
            Outcome { result: Ok(_), op: Op::ReadAt { buffer, .. } } => Ok(buffer),
            Outcome { result: Err(errno), .. } => Err(Error::io("reading a file", errno)),
            _ => unreachable!("an outcome gives its own operation back"),
        }
    }

    /// Writes all of `payload` at `offset` and gives it back. It is written in as many parts as
    /// the kernel takes; after an error or a cancel any prefix may have been written.
    ///
    /// # Errors
    /// The errors of pwrite(2).
    pub async fn write_at(&self, payload: impl Into<Payload>, offset: u64) -> Result<Payload> {
        let mut payload = payload.into();
        check_offset(offset, payload.len()).map_err(|errno| Error::io("writing a file", errno))?;
        let mut skip = 0;
        while skip < payload.len() {
            let op = Op::WriteAt { file: self.raw(), payload, skip, offset: offset + skip as u64 };
            payload = match Completion::new(op).await {
                Outcome { result: Ok(Value::Count(0)), .. } => {
                    return Err(Error::io("writing a file", Errno(libc::EIO)));
                }
                Outcome { result: Ok(Value::Count(step)), op: Op::WriteAt { payload, .. } } => {
                    skip += step as usize;
                    payload
                }
                Outcome { result: Err(errno), .. } => {
                    return Err(Error::io("writing a file", errno));
                }
                _ => unreachable!("an outcome gives its own operation back"),
            };
        }
        Ok(payload)
    }

    /// Makes data and metadata durable (fsync(2)). After an error the data may be lost for good:
    /// do not try again and believe it.
    ///
    /// A dropped future may have done it or not.
    ///
    /// # Errors
    /// The errors of fsync(2).
    pub async fn sync_all(&self) -> Result<()> {
        self.sync(false).await
    }

    /// Makes data durable, and of the metadata what is needed to read it (fdatasync(2)).
    ///
    /// A dropped future may have done it or not.
    ///
    /// # Errors
    /// As [`File::sync_all`].
    pub async fn sync_data(&self) -> Result<()> {
        self.sync(true).await
    }

    async fn sync(&self, data_only: bool) -> Result<()> {
        let outcome = Completion::new(Op::Sync { file: self.raw(), data_only }).await;
        outcome.result.map(drop).map_err(|errno| Error::io("syncing a file", errno))
    }

    /// Size, times and kind (statx(2)).
    ///
    /// Cancel-safe: it only looks.
    ///
    /// # Errors
    /// The errors of statx(2).
    pub async fn metadata(&self) -> Result<Metadata> {
        let op = Op::Stat { file: self.raw(), status: Status::zeroed() };
        match Completion::new(op).await {
            Outcome { result: Ok(_), op: Op::Stat { status, .. } } => Ok(Metadata(status)),
            Outcome { result: Err(errno), .. } => Err(Error::io("reading a file's status", errno)),
            _ => unreachable!("an outcome gives its own operation back"),
        }
    }
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

/// A file's status.
pub struct Metadata(Box<Status>);

impl Metadata {
    /// Bytes.
    pub fn len(&self) -> u64 {
        self.0.0.stx_size
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn kind(&self) -> u32 {
        u32::from(self.0.0.stx_mode) & libc::S_IFMT
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.kind() == libc::S_IFREG
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind() == libc::S_IFDIR
    }

    /// The inode's number, unique within its file system.
    pub fn inode(&self) -> u64 {
        self.0.0.stx_ino
    }

    /// The last change of the contents. Before 1970 counts as 1970.
    pub fn modified(&self) -> SystemTime {
        let time = self.0.0.stx_mtime;
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        SystemTime::UNIX_EPOCH + Duration::new(seconds, time.tv_nsec)
    }
}

impl std::fmt::Debug for Metadata {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metadata").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// A directory below which files are opened, and never anywhere else.
#[derive(Debug)]
pub struct Directory {
    file: File,
}

impl Directory {
    /// Opens a directory.
    ///
    /// What a dropped future would have given is closed.
    ///
    /// # Errors
    /// The errors of openat2(2), ENOTDIR among them.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self> {
        let flags = libc::O_RDONLY | libc::O_DIRECTORY;
        Ok(Self { file: open(libc::AT_FDCWD, path.as_ref(), flags, 0, 0).await? })
    }

    /// Opens a file below this directory for reading, without blocking on a FIFO or device.
    ///
    /// The kernel resolves the path beneath the directory and follows no symbolic link
    /// (RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_MAGICLINKS of openat2(2)), so neither
    /// `..` nor a link nor a race between the two leads out.
    ///
    /// A file that a dropped future would have given is closed.
    ///
    /// # Errors
    /// The errors of openat2(2): ELOOP for a symbolic link, EXDEV for a path that leads out.
    pub async fn open_file(&self, path: impl AsRef<Path>) -> Result<File> {
        let resolve =
            libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_MAGICLINKS;
        let flags = libc::O_RDONLY | libc::O_NONBLOCK;
        open(self.file.raw(), path.as_ref(), flags, 0, resolve).await
    }
}
