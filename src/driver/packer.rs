//! Where the epoll and blocking backends receive: parts of pool buffers, packed densely.
//!
//! One buffer is open at a time; small receives fill it one after the other. What the ring's
//! incremental buffers do in the kernel.

use std::ptr::NonNull;
use std::rc::Rc;

use crate::buffer::{BufferId, Credit, Lease, Pool};
use crate::limits;
use crate::op::datagram;

/// A buffer with less room than this is given up for a fresh one: no crumbs.
const ROOM_BYTES_MIN: u32 = 2048;

pub(super) struct Packer {
    pool: Rc<Pool>,
    room_min: u32,
    open: Option<(BufferId, u32)>,
}

impl Packer {
    pub(super) fn new(pool: &Rc<Pool>) -> Self {
        Self::with_room(pool, ROOM_BYTES_MIN.min(pool.buffer_size()))
    }

    /// A packer that always has room for a whole datagram, or none.
    pub(super) fn of_datagrams(pool: &Rc<Pool>) -> Self {
        Self::with_room(pool, limits::DATAGRAM_BYTES_MAX + datagram::PAYLOAD_OFFSET as u32)
    }

    fn with_room(pool: &Rc<Pool>, room_min: u32) -> Self {
        assert!(room_min <= pool.buffer_size());
        Self { pool: Rc::clone(pool), room_min, open: None }
    }

    /// Where the next bytes may go; `None` while every buffer is held.
    pub(super) fn room(&mut self) -> Option<(NonNull<u8>, usize)> {
        let size = self.pool.buffer_size();
        if let Some((id, offset)) = self.open
            && size - offset < self.room_min
        {
            self.pool.release(id);
            self.open = None;
        }
        if self.open.is_none() {
            self.open = self.pool.take().map(|id| (id, 0));
        }
        let (id, offset) = self.open?;
        // SAFETY: the offset is below the buffer's size (it is advanced by filled bytes alone).
        let start = unsafe { self.pool.address(id).add(offset as usize) };
        Some((start, (size - offset) as usize))
    }

    /// Leases the `length` bytes that were filled at the start of [`Packer::room`].
    pub(super) fn fill(&mut self, length: u32, credit: &Rc<Credit>) -> Lease {
        let (id, offset) = self.open.expect("bytes were filled in an open buffer");
        self.open = Some((id, offset + length));
        credit.lease(id, offset, length)
    }

    /// How often memory came back so far.
    pub(super) fn releases(&self) -> u64 {
        self.pool.releases()
    }

    /// Whether there is room.
    pub(super) fn has_room(&mut self) -> bool {
        self.room().is_some()
    }
}

impl Drop for Packer {
    fn drop(&mut self) {
        if let Some((id, _)) = self.open.take() {
            self.pool.release(id);
        }
    }
}
