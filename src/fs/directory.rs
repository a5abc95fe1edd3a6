//! Directories: what is in them, and files below them.
//!
//! Used by whoever serves or keeps files below one place. Invariant: what is opened below a
//! directory lies below it, whatever links and renames do meanwhile.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;

use super::open::{open, open_beneath};
use super::{File, FileKind, Metadata};
use crate::error::{Errno, Error, Result};
use crate::limits;
use crate::op::{Op, Outcome};
use crate::shard::completion::Completion;

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

    pub(super) fn raw(&self) -> RawFd {
        self.file.raw()
    }

    /// Opens a file below this directory for reading, without blocking on a FIFO or device.
    ///
    /// The kernel resolves the path beneath the directory and follows no symbolic link
    /// (RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_MAGICLINKS of openat2(2)), so neither
    /// `..` nor a link nor a race between the two leads out. [`super::OpenOptions::open_in`] opens
    /// for writing as well.
    ///
    /// A file that a dropped future would have given is closed.
    ///
    /// # Errors
    /// The errors of openat2(2): ELOOP for a symbolic link, EXDEV for a path that leads out.
    pub async fn open_file(&self, path: impl AsRef<Path>) -> Result<File> {
        open_beneath(self, path.as_ref(), libc::O_RDONLY | libc::O_NONBLOCK, 0).await
    }

    /// Makes the names in it durable: files made, renamed or removed here survive a power cut in
    /// that state (fsync(2) of the directory). Their contents are synced by [`File::sync_data`].
    ///
    /// A dropped future may have done it or not.
    ///
    /// # Errors
    /// As [`File::sync_all`].
    pub async fn sync(&self) -> Result<()> {
        self.file.sync_as("syncing a directory", false).await
    }

    /// Its status.
    ///
    /// Cancel-safe: it only looks.
    ///
    /// # Errors
    /// The errors of statx(2).
    pub async fn metadata(&self) -> Result<Metadata> {
        self.file.metadata().await
    }

    /// What is in it, from the beginning, in no order and without `.` and `..`. What is made or
    /// removed meanwhile may be seen or not (readdir(3)).
    ///
    /// Cancel-safe: it opens the directory once more, and what a dropped future would have given is
    /// closed.
    ///
    /// # Errors
    /// The errors of openat2(2).
    pub async fn entries(&self) -> Result<Entries> {
        let flags = libc::O_RDONLY | libc::O_DIRECTORY;
        let directory = open(self.raw(), Path::new("."), flags, 0, 0).await?;
        Ok(Entries { reading: None, directory, chunk: Vec::new(), place: 0, is_over: false })
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Something in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    name: OsString,
    kind: FileKind,
    inode: u64,
}

impl Entry {
    /// Its name, without the directory's.
    pub fn name(&self) -> &OsStr {
        &self.name
    }

    /// Its name, to keep.
    pub fn into_name(self) -> OsString {
        self.name
    }

    /// What it is, a symbolic link itself and not what it leads to.
    /// [`FileKind::Unknown`] on file systems that do not keep that in directories.
    pub fn kind(&self) -> FileKind {
        self.kind
    }

    /// The inode's number, unique within its file system.
    pub fn inode(&self) -> u64 {
        self.inode
    }
}

/// What is in a directory, read in parts as it is asked for: a [`Stream`], or
/// [`Entries::next_entry`].
pub struct Entries {
    /// Given up before its directory is closed.
    reading: Option<Completion>,
    directory: File,
    /// Entries that the kernel has given, as they are.
    chunk: Vec<u8>,
    /// Where the next one begins.
    place: usize,
    is_over: bool,
}

impl Entries {
    /// The next entry; `None` after the last.
    ///
    /// Cancel-safe: an entry that is not taken stays.
    ///
    /// # Errors
    /// The errors of getdents64(2). Asking again goes on behind.
    pub async fn next_entry(&mut self) -> Result<Option<Entry>> {
        std::future::poll_fn(|context| self.poll_entry(context)).await.transpose()
    }

    fn poll_entry(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Entry>>> {
        loop {
            while let Some((entry, next)) = parse(&self.chunk, self.place) {
                self.place = next;
                if ![OsStr::new("."), OsStr::new("..")].contains(&entry.name()) {
                    return Poll::Ready(Some(Ok(entry)));
                }
            }
            if self.is_over {
                return Poll::Ready(None);
            }
            let (directory, chunk) = (self.directory.raw(), &mut self.chunk);
            let reading = self.reading.get_or_insert_with(|| {
                let mut buffer = std::mem::take(chunk);
                buffer.clear();
                buffer.reserve(limits::DIRECTORY_CHUNK_BYTES);
                Completion::new(Op::List { directory, buffer: buffer.into() })
            });
            let outcome = std::task::ready!(Pin::new(reading).poll(context));
            self.reading = None;
            self.place = 0;
            match outcome {
                Outcome { result: Ok(_), op: Op::List { buffer, .. } } => {
                    self.is_over = buffer.is_empty();
                    self.chunk = buffer.into_vec();
                }
                // The directory was removed.
                Outcome { result: Err(Errno(libc::ENOENT)), .. } => self.is_over = true,
                Outcome { result: Err(errno), .. } => {
                    return Poll::Ready(Some(Err(Error::io("listing a directory", errno))));
                }
                Outcome { .. } => unreachable!("an outcome gives its own operation back"),
            }
        }
    }
}

impl std::fmt::Debug for Entries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entries").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl Stream for Entries {
    type Item = Result<Entry>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_entry(context)
    }
}

/// The `struct linux_dirent64` of getdents64(2) at `place`, and where the next one begins. `None`
/// at the end of the chunk.
fn parse(chunk: &[u8], place: usize) -> Option<(Entry, usize)> {
    const LENGTH: usize = 16;
    const TYPE: usize = 18;
    const NAME: usize = 19;
    let rest = chunk.get(place..)?;
    let inode = u64::from_ne_bytes(rest.get(..8)?.try_into().ok()?);
    let length = u16::from_ne_bytes(rest.get(LENGTH..TYPE)?.try_into().ok()?);
    let entry_type = *rest.get(TYPE)?;
    let name = rest.get(NAME..usize::from(length))?;
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    let name = OsString::from_vec(name[..end].to_vec());
    let kind = FileKind::from_entry_type(entry_type);
    Some((Entry { name, kind, inode }, place + usize::from(length)))
}
