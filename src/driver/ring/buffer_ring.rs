//! The shard's receive buffers as the kernel sees them: a provided buffer ring
//! (io_uring_provided_buffers(7)).
//!
//! Every free buffer of the pool is offered to the kernel, which picks one when bytes arrive. Where
//! the kernel can (Linux 6.12) it consumes a buffer in parts, so that small receives pack densely.
//! One invariant: an offered buffer has a hold of this ring on it, given up when the kernel has
//! consumed it whole.

use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;
use io_uring::{IoUring, cqueue};

use crate::buffer::{self, BufferId, Pool};
use crate::error::Errno;

/// The buffer group of streams' receives.
pub(super) const STREAMS: u16 = 0;

/// The buffer group of datagrams. Its buffers are not consumed in parts: the rest of one could be
/// too short for the next datagram, whose end would be lost.
pub(super) const DATAGRAMS: u16 = 1;

/// IOU_PBUF_RING_INC of <linux/io_uring.h>: buffers are consumed in parts.
const CONSUME_INCREMENTALLY: u16 = 2;

pub(super) struct BufferRing {
    pool: Rc<Pool>,
    entries: NonNull<BufRingEntry>,
    mask: u16,
    tail: u16,
    /// Where the kernel writes next in each buffer.
    offsets: Box<[u32]>,
    offered: usize,
}

/// A received part of a buffer. The receiver holds the buffer until it calls [`Pool::release`].
pub(super) struct Part {
    pub(super) id: BufferId,
    pub(super) offset: u32,
}

impl BufferRing {
    /// Registers the ring of streams; the second value says whether buffers are consumed in parts.
    pub(super) fn of_streams(ring: &IoUring, pool: &Rc<Pool>) -> Result<(Self, bool), Errno> {
        match Self::register(ring, pool, STREAMS, CONSUME_INCREMENTALLY) {
            Ok(this) => Ok((this, true)),
            Err(_) => Ok((Self::register(ring, pool, STREAMS, 0)?, false)),
        }
    }

    /// Registers the ring of datagrams.
    pub(super) fn of_datagrams(ring: &IoUring, pool: &Rc<Pool>) -> Result<Self, Errno> {
        Self::register(ring, pool, DATAGRAMS, 0)
    }

    fn register(ring: &IoUring, pool: &Rc<Pool>, group: u16, flags: u16) -> Result<Self, Errno> {
        let slots = (pool.count() as u16).next_power_of_two();
        let entries = buffer::map_memory(Self::bytes(slots))?.cast::<BufRingEntry>();
        let address = entries.as_ptr() as u64;
        // Made first, so that it unmaps the entries where registering them fails.
        let this = Self {
            pool: Rc::clone(pool),
            entries,
            mask: slots - 1,
            tail: 0,
            offsets: vec![0; pool.count()].into(),
            offered: 0,
        };
        // SAFETY: the entries are page-aligned, zeroed memory of `slots` entries that stays mapped
        // until this value is dropped, after the ring has been torn down.
        unsafe { ring.submitter().register_buf_ring_with_flags(address, slots, group, flags) }
            .map_err(|error| Errno::from_io(&error))?;
        Ok(this)
    }

    fn bytes(slots: u16) -> usize {
        usize::from(slots) * size_of::<BufRingEntry>()
    }

    /// Offers every free buffer to the kernel.
    pub(super) fn replenish(&mut self) {
        if self.pool.free_count() == 0 {
            return;
        }
        while let Some(id) = self.pool.take() {
            self.offsets[usize::from(id.0)] = 0;
            let slot = usize::from(self.tail & self.mask);
            // SAFETY: the masked tail is below the count of entries; the kernel reads an entry
            // only after the tail below has passed it, and it is not past it yet, since there are
            // never more offered buffers than entries.
            let entry = unsafe { self.entries.add(slot).as_mut() };
            entry.set_addr(self.pool.address(id).as_ptr() as u64);
            entry.set_len(self.pool.buffer_size());
            entry.set_bid(id.0);
            self.tail = self.tail.wrapping_add(1);
            self.offered += 1;
        }
        // SAFETY: the kernel's tail lies in the reserved field of the first entry
        // (BufRingEntry::tail points at it), two aligned bytes that only this thread writes.
        let tail =
            unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.entries.as_ptr()).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    /// Buffers that the kernel has, whole or in part.
    pub(super) fn offered(&self) -> usize {
        self.offered
    }

    /// How often a buffer or a lease of it was given back so far.
    pub(super) fn releases(&self) -> u64 {
        self.pool.releases()
    }

    /// The part that a receive completion has filled.
    pub(super) fn consume(&mut self, flags: u32, length: u32) -> Option<Part> {
        let id = BufferId(cqueue::buffer_select(flags)?);
        let offset = self.offsets[usize::from(id.0)];
        self.offsets[usize::from(id.0)] = offset + length;
        Some(Part { id, offset })
    }

    /// Gives up this ring's hold, once the lease has its own, where the kernel is done with the
    /// buffer.
    pub(super) fn finish(&mut self, part: &Part, flags: u32) {
        if !cqueue::buffer_more(flags) {
            self.offered -= 1;
            self.pool.release(part.id);
        }
    }
}

impl Drop for BufferRing {
    fn drop(&mut self) {
        // SAFETY: mapped in `register` with this length. The owner drops the io_uring first and
        // only after every receive has had its last completion, so the kernel reads it no more.
        unsafe {
            buffer::unmap_memory(self.entries.cast(), Self::bytes(self.mask + 1));
        }
    }
}
