//! How a file is opened: options as flags of openat2(2), and the operation.
//!
//! Used by every constructor of the folder. Invariant: every descriptor is close-on-exec.

use std::os::fd::RawFd;
use std::path::Path;

use super::{Directory, File, text};
use crate::error::{Error, Result};
use crate::op::{Op, OpenHow, Value};
use crate::shard::completion::Completion;

/// How to open a file (open(2)); nothing is asked for at first.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenOptions {
    read: bool,
    write: bool,
    append: bool,
    create: bool,
    create_new: bool,
    truncate: bool,
    direct: bool,
    mode: Option<u32>,
    flags: i32,
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
        /// Open for writing at the end only (O_APPEND): every write goes there, whatever its offset
        /// (pwrite(2)). [`File::append`] does so on any file that is open for writing.
        append,
        /// Create the file if it is missing.
        create,
        /// Create the file; an error if it exists.
        create_new,
        /// Cut the file to nothing.
        truncate,
        /// Past the page cache (O_DIRECT): buffers, offsets and lengths must be aligned; see
        /// [`crate::buffer::AlignedBuffer`] and [`super::Metadata::direct_alignment`].
        direct,
    }

    /// Permissions of a created file before the umask; 0o666 by default.
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = Some(mode);
        self
    }

    /// More flags of open(2), such as O_NOFOLLOW, O_NOATIME or O_DSYNC.
    #[must_use]
    pub fn custom_flags(mut self, flags: i32) -> Self {
        self.flags = flags;
        self
    }

    /// Opens `path`, relative to the working directory.
    ///
    /// After a cancel the file may have been created or cut; a descriptor that came too late is
    /// closed.
    ///
    /// # Errors
    /// The errors of openat2(2).
    pub async fn open(self, path: impl AsRef<Path>) -> Result<File> {
        open(libc::AT_FDCWD, path.as_ref(), self.flags(), self.file_mode(), 0).await
    }

    /// Opens a file below `directory`, and nowhere else: see [`Directory::open_file`].
    ///
    /// A dropped future is as with [`OpenOptions::open`].
    ///
    /// # Errors
    /// The errors of openat2(2): ELOOP for a symbolic link, EXDEV for a path that leads out.
    pub async fn open_in(self, directory: &Directory, path: impl AsRef<Path>) -> Result<File> {
        open_beneath(directory, path.as_ref(), self.flags(), self.file_mode()).await
    }

    pub(super) fn flags(self) -> i32 {
        let access = match (self.read, self.write || self.append) {
            (true, true) => libc::O_RDWR,
            (false, true) => libc::O_WRONLY,
            _ => libc::O_RDONLY,
        };
        let flag = |on, flag| if on { flag } else { 0 };
        access
            | flag(self.append, libc::O_APPEND)
            | flag(self.create || self.create_new, libc::O_CREAT)
            | flag(self.create_new, libc::O_EXCL)
            | flag(self.truncate, libc::O_TRUNC)
            | flag(self.direct, libc::O_DIRECT)
            | self.flags
    }

    /// openat2(2) refuses a mode where nothing is created.
    fn file_mode(self) -> u32 {
        let creates = self.create || self.create_new || makes_unnamed(self.flags);
        if creates { self.mode.unwrap_or(0o666) } else { 0 }
    }
}

/// Whether a file without a name is made (O_TMPFILE is more than one bit).
fn makes_unnamed(flags: i32) -> bool {
    flags & libc::O_TMPFILE == libc::O_TMPFILE
}

/// Opens a path below a directory, following no link and leaving it nowhere.
pub(super) async fn open_beneath(
    directory: &Directory,
    path: &Path,
    flags: i32,
    mode: u32,
) -> Result<File> {
    let resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_MAGICLINKS;
    open(directory.raw(), path, flags, mode, resolve).await
}

pub(super) async fn open(
    directory: RawFd,
    path: &Path,
    flags: i32,
    mode: u32,
    resolve: u64,
) -> Result<File> {
    let verb = || format!("opening {}", path.display());
    let name = text(path, verb())?;
    let how = OpenHow { flags: (flags | libc::O_CLOEXEC) as u64, mode: u64::from(mode), resolve };
    let op = Op::Open { directory, path: name, how: Box::new(how) };
    match Completion::new(op).await.result {
        Ok(Value::Descriptor(descriptor)) => Ok(File::of(descriptor)),
        Ok(Value::Count(_)) => unreachable!("an open yields a descriptor"),
        Err(errno) => Err(Error::io(verb(), errno)),
    }
}
