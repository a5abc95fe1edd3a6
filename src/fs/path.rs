//! What is done to names: files and directories made, moved, linked, removed and looked at by path.
//!
//! Called by programs; paths are relative to the working directory. Invariant: a name that was
//! changed survives a power cut only after [`super::Directory::sync`] of the directory it is in.

use std::path::{Path, PathBuf};

use super::{Directory, Entry, Metadata, done, text};
use crate::error::{Errno, Error, Result};
use crate::limits;
use crate::op::{Op, Outcome, Status};
use crate::shard::completion::Completion;

/// Gives `from` the name `to`, on the same file system. A file that had it is replaced in one step:
/// whoever opens `to` finds the old one or the new one.
///
/// A dropped future may have done it or not.
///
/// # Errors
/// The errors of rename(2): EXDEV between file systems, ENOTEMPTY over a directory that has
/// something in it.
pub async fn rename(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<()> {
    RenameOptions::new().rename(from, to).await
}

/// How to rename (renameat2(2)): over what is there, unless something else is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct RenameOptions {
    flags: u32,
}

impl RenameOptions {
    /// As [`rename`].
    pub fn new() -> Self {
        Self::default()
    }

    /// An error (EEXIST) if the new name is taken (RENAME_NOREPLACE).
    #[must_use]
    pub fn no_replace(mut self, on: bool) -> Self {
        self.set(libc::RENAME_NOREPLACE, on);
        self
    }

    /// Both exist and swap their names in one step (RENAME_EXCHANGE).
    #[must_use]
    pub fn exchange(mut self, on: bool) -> Self {
        self.set(libc::RENAME_EXCHANGE, on);
        self
    }

    fn set(&mut self, flag: u32, on: bool) {
        self.flags = if on { self.flags | flag } else { self.flags & !flag };
    }

    /// Renames `from` to `to`.
    ///
    /// A dropped future may have done it or not.
    ///
    /// # Errors
    /// The errors of renameat2(2): EINVAL if the file system does not know what is asked for, or
    /// both options are set.
    pub async fn rename(self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<()> {
        let (from, to) = (from.as_ref(), to.as_ref());
        let verb = || format!("renaming {} to {}", from.display(), to.display());
        let (from, to) = (text(from, verb())?, text(to, verb())?);
        done(Op::Rename { from, to, flags: self.flags }, verb).await
    }
}

/// Takes a file's name away. The file goes with its last name, once nobody has it open.
///
/// A dropped future may have done it or not.
///
/// # Errors
/// The errors of unlink(2): EISDIR for a directory.
pub async fn remove_file(path: impl AsRef<Path>) -> Result<()> {
    remove(path.as_ref(), 0).await
}

/// Removes an empty directory.
///
/// A dropped future may have done it or not.
///
/// # Errors
/// The errors of rmdir(2): ENOTEMPTY if something is in it.
pub async fn remove_dir(path: impl AsRef<Path>) -> Result<()> {
    remove(path.as_ref(), libc::AT_REMOVEDIR).await
}

async fn remove(path: &Path, flags: i32) -> Result<()> {
    let verb = || format!("removing {}", path.display());
    let path = text(path, verb())?;
    done(Op::Remove { path, flags }, verb).await
}

/// Makes a directory, with all permissions but those that the umask takes.
///
/// A dropped future may have done it or not.
///
/// # Errors
/// The errors of mkdir(2): EEXIST if the name is taken.
pub async fn create_dir(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    let verb = || format!("making directory {}", path.display());
    let path = text(path, verb())?;
    done(Op::MakeDirectory { path, mode: 0o777 }, verb).await
}

/// Makes a directory and those above it that are missing. Nothing happens if it is there.
///
/// A dropped future may have made any of them.
///
/// # Errors
/// As [`create_dir`]; EEXIST only if the name is taken by what is no directory.
pub async fn create_dir_all(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    let mut missing = Vec::new();
    // Up to the first that can be made, then down again.
    for place in path.ancestors().filter(|place| !place.as_os_str().is_empty()) {
        match create_dir(place).await {
            Err(error) if error.is_not_found() => {
                missing.push(place);
                continue;
            }
            Err(error) if error.is_already_exists() => ensure_dir(place, error).await?,
            result => result?,
        }
        break;
    }
    for place in missing.into_iter().rev() {
        match create_dir(place).await {
            Err(error) if error.is_already_exists() => ensure_dir(place, error).await?,
            result => result?,
        }
    }
    Ok(())
}

/// That a name that is taken is a directory's, somebody else's perhaps; `error` otherwise.
async fn ensure_dir(path: &Path, error: Error) -> Result<()> {
    if metadata(path).await?.is_dir() { Ok(()) } else { Err(error) }
}

/// Gives the file `original` one more name, on the same file system. A symbolic link is linked
/// itself.
///
/// A dropped future may have done it or not.
///
/// # Errors
/// The errors of link(2): EEXIST if the name is taken, EXDEV between file systems.
pub async fn hard_link(original: impl AsRef<Path>, link: impl AsRef<Path>) -> Result<()> {
    let (original, link) = (original.as_ref(), link.as_ref());
    let verb = || format!("linking {} to {}", link.display(), original.display());
    let (from, to) = (text(original, verb())?, text(link, verb())?);
    done(Op::Link { directory: libc::AT_FDCWD, from, to, flags: 0 }, verb).await
}

/// Makes a symbolic link that says `target`, which need not exist.
///
/// A dropped future may have done it or not.
///
/// # Errors
/// The errors of symlink(2): EEXIST if the name is taken.
pub async fn symlink(target: impl AsRef<Path>, link: impl AsRef<Path>) -> Result<()> {
    let (target, link) = (target.as_ref(), link.as_ref());
    let verb = || format!("linking {} to {}", link.display(), target.display());
    let (target, path) = (text(target, verb())?, text(link, verb())?);
    done(Op::Symlink { target, path }, verb).await
}

/// What a symbolic link says.
///
/// Cancel-safe: it only looks.
///
/// # Errors
/// The errors of readlink(2): EINVAL if it is no symbolic link.
pub async fn read_link(path: impl AsRef<Path>) -> Result<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    let path = path.as_ref();
    let verb = || format!("reading symbolic link {}", path.display());
    // A link says at most PATH_MAX bytes with its final zero, so none is cut off.
    let buffer = Vec::with_capacity(libc::PATH_MAX as usize);
    let op = Op::ReadLink { path: text(path, verb())?, buffer: buffer.into() };
    match Completion::new(op).await {
        Outcome { result: Ok(_), op: Op::ReadLink { buffer, .. } } => {
            Ok(std::ffi::OsString::from_vec(buffer.into_vec()).into())
        }
        Outcome { result: Err(errno), .. } => Err(Error::io(verb(), errno)),
        Outcome { .. } => unreachable!("an outcome gives its own operation back"),
    }
}

/// The status of what `path` leads to.
///
/// Cancel-safe: it only looks.
///
/// # Errors
/// The errors of statx(2).
pub async fn metadata(path: impl AsRef<Path>) -> Result<Metadata> {
    status(path.as_ref(), true).await
}

/// The status of `path` itself, a symbolic link's too.
///
/// Cancel-safe: it only looks.
///
/// # Errors
/// The errors of statx(2).
pub async fn symlink_metadata(path: impl AsRef<Path>) -> Result<Metadata> {
    status(path.as_ref(), false).await
}

async fn status(path: &Path, follows: bool) -> Result<Metadata> {
    let verb = || format!("reading the status of {}", path.display());
    let status = Status::of_path(text(path, verb())?, follows);
    match Completion::new(Op::Stat { file: libc::AT_FDCWD, status }).await {
        Outcome { result: Ok(_), op: Op::Stat { status, .. } } => Ok(Metadata(status)),
        Outcome { result: Err(errno), .. } => Err(Error::io(verb(), errno)),
        Outcome { .. } => unreachable!("an outcome gives its own operation back"),
    }
}

/// Whether `path` leads to something. A symbolic link that leads nowhere does not.
///
/// Cancel-safe: it only looks.
///
/// # Errors
/// The errors of statx(2), but for those that say that there is nothing (ENOENT, ENOTDIR).
pub async fn exists(path: impl AsRef<Path>) -> Result<bool> {
    match metadata(path).await {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.errno(), Some(Errno(libc::ENOENT | libc::ENOTDIR))) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// All that is in a directory, in no order and without `.` and `..`.
/// [`Directory::entries`](super::Directory::entries) reads in parts.
///
/// Cancel-safe: it only looks.
///
/// # Errors
/// The errors of openat2(2) and getdents64(2); `is_limit` if there are more than
/// [`limits::DIRECTORY_ENTRIES_COUNT_MAX`].
pub async fn read_dir(path: impl AsRef<Path>) -> Result<Vec<Entry>> {
    let path = path.as_ref();
    let mut entries = Directory::open(path).await?.entries().await?;
    let mut found = Vec::new();
    while let Some(entry) = entries.next_entry().await? {
        if found.len() == limits::DIRECTORY_ENTRIES_COUNT_MAX {
            return Err(Error::limit(format!(
                "{} has more than {} entries; read them in parts, by Directory::entries",
                path.display(),
                limits::DIRECTORY_ENTRIES_COUNT_MAX
            )));
        }
        found.push(entry);
    }
    Ok(found)
}
