//! A ring of receive buffers shared with the kernel (IORING_REGISTER_PBUF_RING).
//!
//! The ring floors own one each. Invariant: a buffer is either in the ring (the kernel may write to
//! it) or out (between its completion and `recycle`), never both. The memory is never freed: the
//! floors run until the process ends.

use std::alloc::{Layout, alloc_zeroed};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;

/// The kernel wants the ring of entries on a page boundary.
const PAGE_BYTES: usize = 4096;

/// Receive buffers of one size, and the ring that hands them to the kernel.
#[derive(Debug)]
pub(super) struct BufferRing {
    entries: NonNull<BufRingEntry>,
    storage: NonNull<u8>,
    buffer_bytes: usize,
    count: u16,
    tail: u16,
}

impl BufferRing {
    /// Registers `count` (a power of two) buffers of `buffer_bytes` each as group `group`.
    pub(super) fn register(
        submitter: &Submitter<'_>,
        group: u16,
        count: u16,
        buffer_bytes: usize,
    ) -> io::Result<Self> {
        assert!(count.is_power_of_two());
        assert!(buffer_bytes > 0);
        let entries = allocate(usize::from(count) * size_of::<BufRingEntry>())?.cast();
        let storage = allocate(usize::from(count) * buffer_bytes)?;
        // SAFETY: `entries` is page-aligned, holds `count` entries and is never freed.
        unsafe {
            submitter.register_buf_ring_with_flags(entries.as_ptr() as u64, count, group, 0)?;
        };
        let mut ring = Self { entries, storage, buffer_bytes, count, tail: 0 };
        for buffer in 0..count {
            ring.recycle(buffer);
        }
        ring.publish();
        Ok(ring)
    }

    /// The first `len` bytes of a buffer that is out of the ring.
    pub(super) fn bytes(&self, buffer: u16, len: usize) -> &[u8] {
        assert!(buffer < self.count);
        assert!(len <= self.buffer_bytes);
        // SAFETY: within `storage` by the asserts, initialised (zeroed at first), and the kernel
        // does not write to a buffer that it has given out until `recycle`, which takes `&mut`.
        unsafe { std::slice::from_raw_parts(self.address(buffer), len) }
    }

    /// Where a buffer starts. Stable: the storage never moves.
    pub(super) fn address(&self, buffer: u16) -> *const u8 {
        assert!(buffer < self.count);
        // SAFETY: `buffer < count`, so the offset stays inside the one allocation.
        unsafe { self.storage.as_ptr().add(usize::from(buffer) * self.buffer_bytes) }
    }

    /// Puts a buffer back; the kernel sees it at the next [`publish`](Self::publish).
    pub(super) fn recycle(&mut self, buffer: u16) {
        let address = self.address(buffer) as u64;
        let slot = usize::from(self.tail & (self.count - 1));
        // SAFETY: `slot < count`; the kernel reads entries only below the published tail.
        let entry = unsafe { &mut *self.entries.as_ptr().add(slot) };
        entry.set_addr(address);
        entry.set_len(self.buffer_bytes as u32);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Makes every recycled buffer visible to the kernel.
    pub(super) fn publish(&self) {
        // SAFETY: `entries` is the base of a live buffer ring, as `tail` demands; the tail is an
        // aligned u16 that only this thread writes and the kernel reads.
        unsafe {
            let tail = BufRingEntry::tail(self.entries.as_ptr()).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }
}

fn allocate(bytes: usize) -> io::Result<NonNull<u8>> {
    let layout = Layout::from_size_align(bytes, PAGE_BYTES).map_err(io::Error::other)?;
    assert!(layout.size() > 0);
    // SAFETY: the layout's size is not zero.
    NonNull::new(unsafe { alloc_zeroed(layout) })
        .ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))
}
