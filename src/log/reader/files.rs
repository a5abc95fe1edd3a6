//! Where a reader's bytes come from: a folder, or memory for tests. Called by the readers.
//!
//! Invariant: a window holds one stretch of a file, large enough for the record asked for and
//! never larger than the file; behind the file's end it reads as zeros up to a whole block.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::super::{ALIGNMENT_BYTES, FILE_HEADER_BYTES, name};

/// Bytes read at a time, unless a record is longer.
const READ_BYTES: usize = 1024 * 1024;

const _: () = assert!(READ_BYTES.is_multiple_of(ALIGNMENT_BYTES));

/// A file that can be read at any place.
pub trait ReadAt {
    /// How long it is.
    fn bytes(&self) -> io::Result<u64>;

    /// Fills the front of `buffer` from `offset` on; answers how much, 0 at the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
}

impl ReadAt for File {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }
}

impl ReadAt for &[u8] {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let start = usize::try_from(offset).map_or(self.len(), |start| start.min(self.len()));
        let length = buffer.len().min(self.len() - start);
        buffer[..length].copy_from_slice(&self[start..start + length]);
        Ok(length)
    }
}

/// The files of a data directory, by name.
pub trait Files {
    /// An open file.
    type File: ReadAt;

    /// Opens the file of this name.
    fn open(&self, name: &str) -> io::Result<Self::File>;
}

/// The files in a folder.
#[derive(Clone, Debug)]
pub struct FolderFiles(pub PathBuf);

impl Files for FolderFiles {
    type File = File;

    fn open(&self, name: &str) -> io::Result<File> {
        let file = File::open(self.0.join(name))?;
        // Advice only: the kernel reads further ahead of us.
        let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Sequential);
        Ok(file)
    }
}

/// Segments in memory, by number.
#[derive(Clone, Copy, Debug)]
pub struct MemoryFiles<'a>(pub &'a BTreeMap<u64, Vec<u8>>);

impl<'a> Files for MemoryFiles<'a> {
    type File = &'a [u8];

    fn open(&self, name: &str) -> io::Result<&'a [u8]> {
        let file = name::parse_segment(name).and_then(|sequence| self.0.get(&sequence));
        file.map(Vec::as_slice).ok_or(io::ErrorKind::NotFound.into())
    }
}

/// A stretch of a file.
#[derive(Debug)]
pub(super) struct Window<T> {
    file: T,
    file_bytes: u64,
    buffer: Vec<u8>,
    /// Where in the file the buffer begins.
    start: u64,
    /// Bytes of the buffer that are the file's, or zeros behind its end.
    held: usize,
}

impl<T: ReadAt> Window<T> {
    pub(super) fn new(file: T) -> io::Result<Self> {
        let file_bytes = file.bytes()?;
        Ok(Self { file, file_bytes, buffer: Vec::new(), start: 0, held: 0 })
    }

    /// How long the file is.
    pub(super) fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// The front of the file, as far as a header goes and as there is any.
    pub(super) fn front(&mut self) -> io::Result<&[u8]> {
        let length = self.file_bytes.min(FILE_HEADER_BYTES as u64) as usize;
        let bytes = self.at(0, length)?;
        Ok(&bytes[..length.min(bytes.len())])
    }

    /// Bytes from `offset` on: at least `wanted`, or as many as there are up to the end of the
    /// file, padded to a whole block.
    #[inline]
    pub(super) fn at(&mut self, offset: u64, wanted: usize) -> io::Result<&[u8]> {
        let end = self.start + self.held as u64;
        if offset < self.start || offset + wanted as u64 > end {
            self.fill(offset, wanted)?;
        }
        Ok(self.held(offset))
    }

    /// What is held from `offset` on.
    #[inline]
    pub(super) fn held(&self, offset: u64) -> &[u8] {
        &self.buffer[(offset - self.start) as usize..self.held]
    }

    #[cold]
    fn fill(&mut self, offset: u64, wanted: usize) -> io::Result<()> {
        let rest = self.file_bytes.saturating_sub(offset);
        let goal = rest.min(wanted.max(READ_BYTES) as u64) as usize;
        self.keep_from(offset, goal.next_multiple_of(ALIGNMENT_BYTES));
        // What lies behind the end of the file was kept as zeros; it is read again.
        let mut filled = self.held.min(goal);
        self.held = 0;
        while filled < goal {
            match self.file.read_at(&mut self.buffer[filled..goal], offset + filled as u64) {
                // The file shrinks while it is read: what is missing is missing.
                Ok(0) => {
                    self.file_bytes = offset + filled as u64;
                    break;
                }
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.held = filled.next_multiple_of(ALIGNMENT_BYTES);
        self.buffer[filled..self.held].fill(0);
        Ok(())
    }

    /// Makes the buffer begin at `offset` with what is held from there on, and have room for
    /// `room` bytes.
    fn keep_from(&mut self, offset: u64, room: usize) {
        let skip = offset.checked_sub(self.start).map_or(self.held, |skip| skip as usize);
        let kept = skip.min(self.held)..self.held;
        self.held = kept.len();
        if self.buffer.len() < room {
            let mut larger = vec![0; room];
            larger[..kept.len()].copy_from_slice(&self.buffer[kept]);
            self.buffer = larger;
        } else {
            self.buffer.copy_within(kept, 0);
        }
        self.start = offset;
    }
}
