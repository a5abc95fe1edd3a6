//! Directories for what servers store: on the disk that was asked for, removed whatever happens.
//!
//! Made by the durable workloads and by the benches of recovery and snapshots. Invariant: a
//! [`Scratch`] is a directory that this program has made, so it may remove all of it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{Advice, fadvise, statfs, statvfs, syncfs};

use crate::failure::Failure;

/// What statfs(2) calls the file systems that are met most.
const KINDS: [(u64, &str); 9] = [
    (0xef53, "ext4"),
    (0x5846_5342, "xfs"),
    (0x9123_683e, "btrfs"),
    (0xf2f5_2010, "f2fs"),
    (0x2fc1_2fc1, "zfs"),
    (0x6969, "nfs"),
    (0x794c_7630, "overlay"),
    (TMPFS, "tmpfs"),
    (RAMFS, "ramfs"),
];
const TMPFS: u64 = 0x0102_1994;
const RAMFS: u64 = 0x8584_58f6;

/// Space that there must be for one server: several segments of a log, and what a run adds.
const FREE_BYTES_MIN: u64 = 512 << 20;

/// A directory of this program's own.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// A new directory in `parent`, which must be there.
    pub(crate) fn make(parent: &Path) -> Result<Self, Failure> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let parent = fs::canonicalize(parent).map_err(|error| {
            Failure::usage(format!("--dir {}: {error}; make it first", parent.display()))
        })?;
        check_space(&parent)?;
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("annulus-bench-{}-{number}.tmp", std::process::id()));
        fs::create_dir(&path)
            .map_err(|error| Failure::failed(format!("cannot make {}", path.display()), error))?;
        Ok(Self(path))
    }

    /// Its absolute path.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Has everything on its disk written, so that nobody pays for what others have left.
    pub(crate) fn settle(&self) -> Result<(), Failure> {
        let sync = || -> std::io::Result<()> { Ok(syncfs(File::open(&self.0)?)?) };
        sync().map_err(|error| Failure::failed(format!("sync of {}", self.0.display()), error))
    }

    /// Has the page cache forget its files, so that they are read from the disk.
    pub(crate) fn forget_cached(&self) -> Result<(), Failure> {
        self.settle()?;
        forget(&self.0).map_err(|error| Failure::failed("emptying the page cache", error))
    }
}

/// A server that runs out of space in the middle says so in its own way, or not at all.
fn check_space(directory: &Path) -> Result<(), Failure> {
    let status = statvfs(directory)
        .map_err(|error| Failure::failed(format!("space of {}", directory.display()), error))?;
    let free = status.f_bavail * status.f_frsize;
    if free < FREE_BYTES_MIN {
        return Err(Failure::usage(format!(
            "--dir {} has {} MiB free, and a server that stores needs {}: make room, or name \
             another directory",
            directory.display(),
            free >> 20,
            FREE_BYTES_MIN >> 20
        )));
    }
    Ok(())
}

/// Of every file below `directory`.
fn forget(directory: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            forget(&entry.path())?;
        } else {
            fadvise(File::open(entry.path())?, 0, None, Advice::DontNeed)?;
        }
    }
    Ok(())
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("annulus-bench: cannot remove {}: {error}", self.0.display());
        }
    }
}

/// What a directory lies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileSystem {
    kind: u64,
}

impl FileSystem {
    /// That of `directory`.
    pub(crate) fn of(directory: &Path) -> Result<Self, Failure> {
        let status = statfs(directory).map_err(|error| {
            Failure::usage(format!("--dir {}: {error}; make it first", directory.display()))
        })?;
        Ok(Self { kind: status.f_type as u64 })
    }

    /// Its name, or its number if it is an unusual one.
    pub(crate) fn name(self) -> String {
        let known = KINDS.iter().find(|(kind, _)| *kind == self.kind);
        known.map_or_else(|| format!("type {:#x}", self.kind), |(_, name)| (*name).to_owned())
    }

    /// A warning if it keeps nothing: where a sync is for nothing it costs nothing.
    pub(crate) fn warning(self) -> Option<String> {
        [TMPFS, RAMFS].contains(&self.kind).then(|| {
            format!(
                "the data directories were on {}, which keeps nothing and where a sync is free: \
                 the durable figures mean nothing; name a directory on a disk with --dir",
                self.name()
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_new_and_gone_afterwards_with_all_that_is_in_it() {
        let scratch = Scratch::make(&std::env::temp_dir()).unwrap();
        let path = scratch.path().to_owned();
        assert!(path.is_absolute());
        fs::create_dir(path.join("inside")).unwrap();
        fs::write(path.join("inside/file"), b"x").unwrap();
        scratch.forget_cached().unwrap();
        let other = Scratch::make(&std::env::temp_dir()).unwrap();
        assert_ne!(other.path(), path);
        drop(scratch);
        assert!(!path.exists());
    }

    #[test]
    fn a_parent_that_is_not_there_is_a_usage_error() {
        let failure = Scratch::make(Path::new("/nowhere/at/all")).unwrap_err();
        assert!(matches!(failure, Failure::Usage(text) if text.contains("--dir /nowhere/at/all")));
    }

    #[test]
    fn memory_is_told_from_disks() {
        let tmpfs = FileSystem { kind: TMPFS };
        assert_eq!(tmpfs.name(), "tmpfs");
        assert!(tmpfs.warning().unwrap().contains("mean nothing"));
        let ext4 = FileSystem { kind: 0xef53 };
        assert_eq!((ext4.name().as_str(), ext4.warning()), ("ext4", None));
        assert_eq!(FileSystem { kind: 0x1234 }.name(), "type 0x1234");
    }
}
