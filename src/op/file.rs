//! What file operations own besides their buffers: how to open, where a status goes, and where a
//! vectored read goes.
//!
//! Made by `fs/`, read by the drivers. Invariant: the kernel reads and writes these where they lie
//! on the heap, so they stay in their box from submission to completion.

use std::ffi::{CStr, CString};

use crate::buffer::ReadBuffer;
use crate::limits;

/// How to open a file: `struct open_how` of openat2(2), field by field.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct OpenHow {
    pub(crate) flags: u64,
    pub(crate) mode: u64,
    pub(crate) resolve: u64,
}

/// A file's status, as statx(2) fills it, and whose it is.
pub(crate) struct Status {
    pub(crate) fields: libc::statx,
    /// None for the descriptor itself.
    path: Option<CString>,
    flags: i32,
}

impl Status {
    /// What is asked for: all that `fs::Metadata` shows.
    pub(crate) const MASK: u32 = libc::STATX_BASIC_STATS | libc::STATX_BTIME | libc::STATX_DIOALIGN;

    /// Of the descriptor itself.
    pub(crate) fn of_descriptor() -> Box<Self> {
        Self::new(None, libc::AT_EMPTY_PATH)
    }

    /// Of what `path` leads to; of a symbolic link itself unless it is followed.
    pub(crate) fn of_path(path: CString, follows: bool) -> Box<Self> {
        Self::new(Some(path), if follows { 0 } else { libc::AT_SYMLINK_NOFOLLOW })
    }

    fn new(path: Option<CString>, flags: i32) -> Box<Self> {
        // SAFETY: statx is plain integers; all-zero is a valid value.
        Box::new(Self { fields: unsafe { std::mem::zeroed() }, path, flags })
    }

    /// Path and flags of the call.
    pub(crate) fn target(&self) -> (&CStr, i32) {
        (self.path.as_deref().unwrap_or(c""), self.flags)
    }
}

/// Several buffers that one read fills in order, and what the kernel reads to find them.
pub(crate) struct Scatter {
    buffers: Vec<ReadBuffer>,
    vectors: Vec<libc::iovec>,
}

impl Scatter {
    pub(crate) fn new(mut buffers: Vec<ReadBuffer>) -> Self {
        assert!(buffers.len() <= limits::FILE_VECTORS_COUNT_MAX);
        let vectors = buffers
            .iter_mut()
            .map(|buffer| {
                let (start, length) = buffer.spare();
                libc::iovec { iov_base: start.as_ptr().cast(), iov_len: length }
            })
            .collect();
        Self { buffers, vectors }
    }

    /// Where the read goes, valid as long as this stays where it is.
    pub(crate) fn vectors(&self) -> &[libc::iovec] {
        &self.vectors
    }

    /// Declares the first `count` bytes of all spare room filled.
    ///
    /// # Safety
    /// The kernel has written that many bytes there, in order.
    pub(crate) unsafe fn fill(&mut self, mut count: usize) {
        for (buffer, vector) in self.buffers.iter_mut().zip(&self.vectors) {
            let step = count.min(vector.iov_len);
            // SAFETY: the kernel has filled the buffers before this one, and `step` bytes of it.
            unsafe { buffer.fill(step) };
            count -= step;
        }
        assert_eq!(count, 0, "the kernel reads no more than there is room for");
    }

    pub(crate) fn into_buffers(self) -> Vec<ReadBuffer> {
        self.buffers
    }
}
