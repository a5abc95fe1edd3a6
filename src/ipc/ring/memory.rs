//! The memory of a shared ring: a memfd that cannot shrink, mapped.
//!
//! Invariant: the mapping is as long as the file, and the file stays that long (F_SEAL_SHRINK), so
//! that no peer can make an access fault (SIGBUS).

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::Ordering;

use super::protocol::{Header, WORD_BYTES, Word};
use crate::error::{Errno, Error, Result};
use crate::limits;

/// Bytes before the words: a page.
const HEADER_BYTES: usize = 4096;

/// "annulus", and the layout's version.
const MAGIC: u64 = u64::from_be_bytes(*b"annulus\x01");

const SEALS: i32 = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;

const _: () = assert!(size_of::<Header>() <= HEADER_BYTES || cfg!(loom));
const _: () = assert!(HEADER_BYTES.is_multiple_of(align_of::<Header>()));
const _: () = assert!(limits::SHARED_RING_BYTES_MIN.is_power_of_two());
const _: () = assert!(limits::SHARED_RING_BYTES_MAX.is_power_of_two());

fn failed(verb: &str) -> Error {
    Error::io(format!("{verb} the memory of a shared ring"), Errno::last())
}

/// Makes memory for a ring of `capacity` bytes, a power of two.
pub(super) fn create(capacity: usize) -> Result<OwnedFd> {
    let length = (HEADER_BYTES + capacity) as libc::off_t;
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: the name is a valid string; the flags take no pointers.
    let mut made =
        unsafe { libc::memfd_create(c"annulus".as_ptr(), flags | libc::MFD_NOEXEC_SEAL) };
    if made < 0 {
        // SAFETY: as above. Before Linux 6.3 there is no MFD_NOEXEC_SEAL.
        made = unsafe { libc::memfd_create(c"annulus".as_ptr(), flags) };
    }
    if made < 0 {
        return Err(failed("making"));
    }
    // SAFETY: the descriptor was just made and nobody else has it.
    let file = unsafe { OwnedFd::from_raw_fd(made) };
    // SAFETY: neither takes pointers. The space is taken now, so that a full host is an error here
    // and no fault later.
    unsafe {
        if libc::ftruncate(file.as_raw_fd(), length) < 0
            || libc::fallocate(file.as_raw_fd(), 0, 0, length) < 0
        {
            return Err(failed("reserving"));
        }
        if libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, SEALS) < 0 {
            return Err(failed("sealing"));
        }
    }
    Memory::map(&file, HEADER_BYTES + capacity)?.header().magic.store(MAGIC, Ordering::Relaxed);
    Ok(file)
}

/// A mapped ring.
pub(super) struct Memory {
    start: NonNull<u8>,
    length: usize,
}

impl Memory {
    /// Maps what [`create`] has made, here or in another process. Nothing about the file is taken
    /// for granted.
    pub(super) fn open(file: &OwnedFd) -> Result<Self> {
        let refused = |why: &str| Error::config(format!("this is no shared ring: {why}"));
        // SAFETY: F_GET_SEALS takes no pointers.
        let seals = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GET_SEALS) };
        if seals < 0 {
            return Err(refused("it has no seals, so it is no memfd"));
        }
        if seals & libc::F_SEAL_SHRINK == 0 {
            return Err(refused("it may shrink"));
        }
        // SAFETY: lseek takes no pointers.
        let length = unsafe { libc::lseek(file.as_raw_fd(), 0, libc::SEEK_END) };
        let length = usize::try_from(length).map_err(|_| failed("measuring"))?;
        let capacity = length.saturating_sub(HEADER_BYTES);
        let bounds = limits::SHARED_RING_BYTES_MIN..=limits::SHARED_RING_BYTES_MAX;
        if !capacity.is_power_of_two() || !bounds.contains(&capacity) {
            return Err(refused(&format!("{length} bytes are not a page and a power of two")));
        }
        let memory = Self::map(file, length)?;
        if memory.header().magic.load(Ordering::Relaxed) != MAGIC {
            return Err(refused("it is of another kind or version"));
        }
        Ok(memory)
    }

    fn map(file: &OwnedFd, length: usize) -> Result<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let start = unsafe {
            let file = file.as_raw_fd();
            libc::mmap(std::ptr::null_mut(), length, access, libc::MAP_SHARED, file, 0)
        };
        if start == libc::MAP_FAILED {
            return Err(failed("mapping"));
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| failed("mapping"))?;
        Ok(Self { start, length })
    }

    pub(super) fn header(&self) -> &Header {
        // SAFETY: the mapping starts with a page, which holds a header (asserted above) at the
        // alignment of a page, zeroed or written by a peer: any bytes are valid atomics. It lives
        // as long as `self`, and the file cannot become shorter than the mapping. Atomics may be
        // changed by others at any time.
        unsafe { self.start.cast::<Header>().as_ref() }
    }

    /// The ring itself; its count is a power of two.
    pub(super) fn words(&self) -> &[Word] {
        let count = (self.length - HEADER_BYTES) / WORD_BYTES;
        // SAFETY: the bytes after the header's page are mapped, aligned to eight, and hold `count`
        // words; otherwise as for the header.
        unsafe {
            let first = self.start.add(HEADER_BYTES).cast::<Word>();
            std::slice::from_raw_parts(first.as_ptr(), count)
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: a whole mapping of ours; what was lent of it ended with its borrow of `self`.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}
