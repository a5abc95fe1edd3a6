//! Files as operations of the shard: reads and writes at offsets, syncs, space, status, and names.
//!
//! On the ring they are submission entries, under epoll helper threads make the calls, under
//! `threads` they are made in place. What the ring has no entry for (listing a directory, reading
//! a symbolic link, cutting a file before Linux 6.9) goes to helper threads as well. A file belongs
//! to the shard that opened it.
//!
//! Errors keep the kernel's number ([`Error::errno`]); [`Error::is_storage_full`],
//! [`Error::is_read_only`] and their like name those that a program can act on. Interrupted calls
//! are repeated (EINTR), and those that the ring gives back because they would wait (EAGAIN) are
//! made where they may. A limit on the size of files (RLIMIT_FSIZE) raises SIGXFSZ, which ends the
//! process unless it ignores that signal; then it is an error like others.
//!
//! What a dropped future means stands with each function. In general: what only looks has done
//! nothing; what changes something may have done it, in part or not at all, and goes on with
//! whatever it had begun until that is over.

mod direct;
mod directory;
mod file;
mod metadata;
mod open;
mod path;
mod temporary;
mod whole;

use std::ffi::CString;
use std::fmt::Display;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

pub use self::direct::{DirectFile, DirectReader, DirectWriter, Window};
pub use self::directory::{Directory, Entries, Entry};
pub use self::file::{Advice, File, Space};
pub use self::metadata::{DirectAlignment, FileKind, Metadata};
pub use self::open::OpenOptions;
pub use self::path::{
    RenameOptions, create_dir, create_dir_all, exists, hard_link, metadata, read_dir, read_link,
    remove_dir, remove_file, rename, symlink, symlink_metadata,
};
pub use self::temporary::{TemporaryFile, write_durably};
pub use self::whole::{read, read_to_string, write};
use crate::error::{Errno, Error, Result};
use crate::op::Op;
use crate::shard::completion::Completion;

/// A path as the kernel takes it. `verb` is for the message about one that it cannot take.
fn text(path: &Path, verb: impl Display) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Error::io(verb, Errno(libc::EINVAL)))
}

/// Performs an operation that has nothing to tell but that it is done.
async fn done<V: Display>(op: Op, verb: impl FnOnce() -> V) -> Result<()> {
    let outcome = Completion::new(op).await;
    outcome.result.map(drop).map_err(|errno| Error::io(verb(), errno))
}
