//! The file that is read and written: made by this program, filled, and removed whatever happens.
//!
//! Invariant: a file that was there before is never touched.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, FallocateFlags, fadvise, fallocate, statvfs};

use crate::failure::Failure;

/// Bytes that are filled in one call.
const CHUNK_BYTES: usize = 1 << 20;

/// The smallest part of the space that is left to others, in bytes.
const SPARE_BYTES: u64 = 64 << 20;

/// A file of this program's own.
#[derive(Debug)]
pub(crate) struct TestFile {
    path: PathBuf,
    bytes: u64,
}

impl TestFile {
    /// A file of `bytes` bytes in `directory`, by a name of its own.
    pub(crate) fn in_directory(directory: &Path, bytes: u64) -> Result<Self, Failure> {
        let name = format!("annulus-bench-{}.tmp", std::process::id());
        Self::at(&directory.join(name), bytes)
    }

    /// A file of `bytes` bytes at `path`, where there must be none.
    pub(crate) fn at(path: &Path, bytes: u64) -> Result<Self, Failure> {
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        if !directory.is_dir() {
            let what = format!("{} is no directory: make it first", directory.display());
            return Err(Failure::usage(what));
        }
        check_space(directory, bytes)?;
        let file = match OpenOptions::new().write(true).create_new(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(Failure::usage(format!(
                    "{} exists, and its contents would be overwritten: name another, or remove it",
                    path.display()
                )));
            }
            Err(error) => {
                return Err(Failure::failed(format!("cannot make {}", path.display()), error));
            }
        };
        let this = Self { path: path.to_owned(), bytes };
        fill(&file, bytes)
            .map_err(|error| Failure::failed(format!("filling {}", path.display()), error))?;
        Ok(this)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Has the page cache forget it, so that reads go to the disk.
    pub(crate) fn forget_cached(&self) -> Result<(), Failure> {
        let forget = || -> io::Result<()> {
            let file = File::open(&self.path)?;
            file.sync_all()?;
            Ok(fadvise(&file, 0, None, Advice::DontNeed)?)
        };
        forget().map_err(|error| Failure::failed("emptying the page cache", error))
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for TestFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            eprintln!("annulus-bench: cannot remove {}: {error}", self.path.display());
        }
    }
}

fn check_space(directory: &Path, bytes: u64) -> Result<(), Failure> {
    let status = statvfs(directory)
        .map_err(|error| Failure::failed(format!("space of {}", directory.display()), error))?;
    let free = status.f_bavail * status.f_frsize;
    if free < bytes + SPARE_BYTES {
        return Err(Failure::usage(format!(
            "{} has {} MiB free, and the file takes {} MiB: choose another directory, or a smaller \
             --size",
            directory.display(),
            free >> 20,
            bytes.div_ceil(1 << 20)
        )));
    }
    Ok(())
}

/// Writes all of it once, so that no later write has to find space, and none is a hole.
fn fill(file: &File, bytes: u64) -> io::Result<()> {
    // Where a file system cannot reserve, it need not.
    let _ = fallocate(file, FallocateFlags::empty(), 0, bytes);
    let mut state = 1_u64;
    let chunk: Vec<u8> = (0..CHUNK_BYTES)
        .map(|_| {
            // What compresses would be no measure on a disk that does so.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .collect();
    let (mut file, mut left) = (file, bytes);
    while left > 0 {
        let step = left.min(CHUNK_BYTES as u64) as usize;
        file.write_all(&chunk[..step])?;
        left -= step as u64;
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_made_whole_and_gone_afterwards() {
        let file = TestFile::in_directory(&std::env::temp_dir(), 3_000_000).unwrap();
        let path = file.path().to_owned();
        assert_eq!(fs::metadata(&path).unwrap().len(), 3_000_000);
        let again = TestFile::at(&path, 1).unwrap_err();
        assert!(matches!(again, Failure::Usage(text) if text.contains("would be overwritten")));
        assert_eq!(fs::metadata(&path).unwrap().len(), 3_000_000, "it was not touched");
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_larger_than_its_disk_is_refused() {
        let failure = TestFile::in_directory(&std::env::temp_dir(), 1 << 60).unwrap_err();
        assert!(matches!(failure, Failure::Usage(text) if text.contains("MiB free")));
    }
}
