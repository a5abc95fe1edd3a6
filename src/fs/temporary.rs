//! Files that have no name until they are finished, and replacing a file in one step.
//!
//! Used by whoever writes files that others, or the next start, must find whole. Invariant: what
//! makes or takes names runs in a task of its own, so that a dropped future leaves no temporary
//! name behind.

use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::ops::Deref;
use std::path::{Path, PathBuf};

use super::{Directory, File, OpenOptions, done, rename, text};
use crate::buffer::Payload;
use crate::error::{Errno, Error, Result};
use crate::limits;
use crate::op::Op;
use crate::shard::completion::detach;
use crate::task;

/// A file for writing and reading that goes away when it is dropped, unless it is given a name.
///
/// It has no name at first, so that nothing is left of it after a crash (O_TMPFILE of open(2)).
/// On file systems without such files it has one that begins with `.annulus-` and ends with `.tmp`.
#[derive(Debug)]
pub struct TemporaryFile {
    file: File,
    directory: PathBuf,
    /// Removed with this.
    name: Option<PathBuf>,
}

impl TemporaryFile {
    /// Makes one in `directory`, which should be the one that its name will be in: a file cannot
    /// be moved to another file system.
    ///
    /// A dropped future leaves nothing behind.
    ///
    /// # Errors
    /// The errors of openat2(2).
    pub async fn create_in(directory: impl AsRef<Path>) -> Result<Self> {
        unstopped(Self::create(directory.as_ref().to_owned(), true)).await
    }

    async fn create(directory: PathBuf, unnamed: bool) -> Result<Self> {
        let options = OpenOptions::new().read(true).write(true);
        if unnamed {
            match options.custom_flags(libc::O_TMPFILE).open(&directory).await {
                Ok(file) => return Ok(Self { file, directory, name: None }),
                Err(error) if is_unknown(&error) => {}
                Err(error) => return Err(error),
            }
        }
        let mut tries = limits::TEMPORARY_NAMES_COUNT_MAX;
        loop {
            let name = directory.join(any_name());
            tries -= 1;
            match options.create_new(true).open(&name).await {
                Err(error) if error.is_already_exists() && tries > 0 => {}
                file => return Ok(Self { file: file?, directory, name: Some(name) }),
            }
        }
    }

    /// Gives it the name `path`, on the same file system. A file that had that name is replaced in
    /// one step; a symbolic link is replaced itself. Nothing is made durable.
    ///
    /// A dropped future does not stop it: it has the name soon, or never.
    ///
    /// # Errors
    /// The errors of linkat(2) and rename(2). The file is gone then.
    pub async fn persist(self, path: impl AsRef<Path>) -> Result<File> {
        let path = path.as_ref().to_owned();
        unstopped(async move { self.take_name(&path).await }).await
    }

    /// As [`TemporaryFile::persist`], and durably: the file is synced, given its name, and the
    /// directory of that name is synced. After a power cut at any moment `path` is what it was, or
    /// all of this file; once this returns, all of this file.
    ///
    /// A dropped future does not stop it.
    ///
    /// # Errors
    /// Also the errors of fsync(2). If the last sync has failed, the name is there but may not
    /// outlast a power cut.
    pub async fn persist_durably(self, path: impl AsRef<Path>) -> Result<File> {
        let path = path.as_ref().to_owned();
        unstopped(async move { self.take_name_durably(&path).await }).await
    }

    async fn take_name_durably(self, path: &Path) -> Result<File> {
        self.file.sync_all().await?;
        let file = self.take_name(path).await?;
        Directory::open(directory_of(path)).await?.sync().await?;
        Ok(file)
    }

    async fn take_name(mut self, path: &Path) -> Result<File> {
        if self.name.is_none() {
            match self.link(path).await {
                Err(error) if error.is_already_exists() => {
                    let name = self.directory.join(any_name());
                    self.link(&name).await?;
                    self.name = Some(name);
                }
                result => result?,
            }
        }
        if let Some(name) = &self.name {
            rename(name, path).await?;
            self.name = None;
        }
        // Only the name would be removed with the rest of this.
        Ok(std::mem::replace(&mut self.file, File::none()))
    }

    /// Gives the file a name by its descriptor: directly, which the kernel grants to whoever opened
    /// it (Linux 6.10) or may read any directory, and else by the link in /proc (open(2)).
    async fn link(&self, path: &Path) -> Result<()> {
        let verb = || format!("naming a temporary file {}", path.display());
        let directory = self.file.raw();
        let (from, to) = (c"".to_owned(), text(path, verb())?);
        let op = Op::Link { directory, from, to: to.clone(), flags: libc::AT_EMPTY_PATH };
        match done(op, verb).await {
            Err(error) if error.is_not_found() => {
                let link = format!("/proc/self/fd/{}", self.file.raw());
                let (from, flags) = (text(Path::new(&link), verb())?, libc::AT_SYMLINK_FOLLOW);
                // Named, so that its number stays its own; a path that begins at the root is not
                // looked up below it.
                done(Op::Link { directory, from, to, flags }, verb).await
            }
            result => result,
        }
    }
}

impl Deref for TemporaryFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        if let Some(name) = self.name.take()
            && let Ok(path) = text(&name, "")
        {
            detach(Op::Remove { path, flags: 0 });
        }
    }
}

/// Replaces the contents of `path` in one durable step, or makes the file: a temporary file beside
/// it is written, synced and renamed, and the directory is synced. After a power cut at any moment
/// `path` is what it was, or all of `content`; once this returns, all of `content`.
///
/// What was there is not written to: whoever has it open keeps the old contents, other names of it
/// too, and the new file has the permissions and the owner of a new one. A symbolic link is
/// replaced itself.
///
/// A dropped future does not stop it: the old file is replaced soon, or not at all.
///
/// # Errors
/// The errors of openat2(2), write(2), fsync(2), linkat(2) and rename(2). Until the last sync, of
/// the directory, the old file is as it was.
pub async fn write_durably(path: impl AsRef<Path>, content: impl Into<Payload>) -> Result<()> {
    let (path, content) = (path.as_ref().to_owned(), content.into());
    unstopped(async move {
        let file = TemporaryFile::create(directory_of(&path).to_owned(), true).await?;
        file.write_at(content, 0).await?;
        file.take_name_durably(&path).await.map(drop)
    })
    .await
}

/// Runs `future` in a task, so that it goes on when nobody waits for it any more.
async fn unstopped<T: 'static>(future: impl Future<Output = Result<T>> + 'static) -> Result<T> {
    task::Builder::new().name("fs: temporary file").spawn(future).await?
}

/// Whether the file system, or the kernel, has no files without a name (open(2)).
fn is_unknown(error: &Error) -> bool {
    matches!(error.errno(), Some(Errno(libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL)))
}

/// A name that nobody else has, most likely.
fn any_name() -> String {
    // Keyed at random, anew for each.
    format!(".annulus-{:016x}.tmp", RandomState::new().hash_one(std::process::id()))
}

/// The directory that a path's last name is in.
fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::{Engine, Runtime};

    /// What file systems without O_TMPFILE do.
    #[test]
    fn a_temporary_file_with_a_name_is_renamed_or_removed() {
        let place = std::env::temp_dir().join(format!("annulus-temporary-{}", std::process::id()));
        std::fs::create_dir_all(&place).unwrap();
        let names = || {
            let names = std::fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().file_name());
            let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
            names.sort();
            names
        };
        let runtime = Runtime::builder().engine(Engine::Threads).shards(1).build().unwrap();
        runtime.block_on(async {
            let file = TemporaryFile::create(place.clone(), false).await.unwrap();
            let [name] = &names()[..] else { panic!("it has a name") };
            let is_temporary = Path::new(name).extension().is_some_and(|end| end == "tmp");
            assert!(name.starts_with(".annulus-") && is_temporary, "{name}");
            file.write_at(b"one", 0).await.unwrap();
            let target = place.join("target");
            file.persist_durably(&target).await.unwrap();
            assert_eq!(names(), ["target"]);
            let file = TemporaryFile::create(place.clone(), false).await.unwrap();
            file.write_at(b"two", 0).await.unwrap();
            file.persist(&target).await.unwrap();
            assert_eq!(
                (names(), std::fs::read(&target).unwrap()),
                (vec!["target".to_owned()], b"two".to_vec())
            );
            drop(TemporaryFile::create(place.clone(), false).await.unwrap());
            assert_eq!(names(), ["target"]);
            // It goes too if it cannot have the name.
            let file = TemporaryFile::create(place.clone(), false).await.unwrap();
            assert!(file.persist(place.join("none/target")).await.unwrap_err().is_not_found());
            assert_eq!(names(), ["target"]);
        });
        runtime.shut_down();
        std::fs::remove_dir_all(&place).unwrap();
    }
}
