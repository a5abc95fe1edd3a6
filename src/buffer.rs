//! Memory that operations read and write: the shard's receive pool, leases of it, and payloads.
//!
//! The pool is one mapping cut into equal buffers. A buffer is held by the driver while the kernel
//! may write to it and by every [`Lease`] of a part of it; it is free again when the last holder
//! lets go. All of it belongs to one shard and is not `Send`.

mod aligned;
mod pooled;

use std::cell::Cell;
use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;

pub use self::aligned::AlignedBuffer;
pub use self::pooled::PooledBuffer;
use crate::error::Errno;
use crate::limits;

/// Index of a buffer in its pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BufferId(pub(crate) u16);

/// A shard's receive buffers: `count` buffers of `size` bytes in one anonymous mapping, whose
/// pages are touched only when used.
pub(crate) struct Pool {
    memory: NonNull<u8>,
    size: u32,
    holders: Box<[Cell<u32>]>,
    free: Box<[Cell<u16>]>,
    free_count: Cell<usize>,
    leases: Cell<usize>,
    releases: Cell<u64>,
}

impl Pool {
    pub(crate) fn new(count: u16, size: u32) -> Result<Rc<Self>, Errno> {
        assert!(count > 0, "a pool needs at least one buffer");
        assert!(size > 0, "a buffer needs at least one byte");
        let memory = map_memory(usize::from(count) * size as usize)?;
        Ok(Rc::new(Self {
            memory,
            size,
            holders: (0..count).map(|_| Cell::new(0)).collect(),
            // The last entry is taken first, so that buffers are handed out in order.
            free: (0..count).rev().map(Cell::new).collect(),
            free_count: Cell::new(usize::from(count)),
            leases: Cell::new(0),
            releases: Cell::new(0),
        }))
    }

    pub(crate) fn buffer_size(&self) -> u32 {
        self.size
    }

    pub(crate) fn count(&self) -> usize {
        self.holders.len()
    }

    /// Buffers that nobody holds.
    pub(crate) fn free_count(&self) -> usize {
        self.free_count.get()
    }

    /// Leases that have not been dropped.
    pub(crate) fn leases(&self) -> usize {
        self.leases.get()
    }

    /// How often something was given back so far: who waits for memory need look again only when
    /// this has changed.
    pub(crate) fn releases(&self) -> u64 {
        self.releases.get()
    }

    fn count_release(&self) {
        self.releases.set(self.releases.get() + 1);
    }

    /// Takes a free buffer; the caller holds it until [`Pool::release`].
    pub(crate) fn take(&self) -> Option<BufferId> {
        let count = self.free_count.get().checked_sub(1)?;
        self.free_count.set(count);
        let id = self.free[count].get();
        let holders = &self.holders[usize::from(id)];
        assert_eq!(holders.get(), 0, "a free buffer has no holder");
        holders.set(1);
        Some(BufferId(id))
    }

    /// Lets go of one hold; the last one frees the buffer.
    pub(crate) fn release(&self, id: BufferId) {
        let holders = &self.holders[usize::from(id.0)];
        let left = holders.get().checked_sub(1).expect("a held buffer has a holder");
        holders.set(left);
        self.count_release();
        if left == 0 {
            let count = self.free_count.get();
            self.free[count].set(id.0);
            self.free_count.set(count + 1);
        }
    }

    /// The first byte of a buffer.
    pub(crate) fn address(&self, id: BufferId) -> NonNull<u8> {
        let offset = usize::from(id.0) * self.size as usize;
        assert!(usize::from(id.0) < self.holders.len());
        // SAFETY: the id is below the count (asserted), so the offset lies inside the mapping.
        unsafe { self.memory.add(offset) }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: `memory` came from `map_memory` with this very length; every lease holds the
        // pool by `Rc`, so none is left; a driver that could not reap its operations forgets its
        // `Rc`, so the kernel does not write here any more.
        unsafe { unmap_memory(self.memory, self.holders.len() * self.size as usize) };
    }
}

/// Maps `length` bytes of zeroed, private, page-aligned memory.
pub(crate) fn map_memory(length: usize) -> Result<NonNull<u8>, Errno> {
    // SAFETY: an anonymous private mapping at an address of the kernel's choice touches nothing
    // that exists.
    let memory = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if memory == libc::MAP_FAILED {
        Err(Errno::last())
    } else {
        Ok(NonNull::new(memory.cast()).ok_or(Errno(libc::ENOMEM))?)
    }
}

/// Undoes [`map_memory`].
///
/// # Safety
/// `memory` and `length` are one mapping of [`map_memory`], and nobody uses it any more.
pub(crate) unsafe fn unmap_memory(memory: NonNull<u8>, length: usize) {
    // SAFETY: by the caller's contract this is a whole mapping of ours, unused from here on.
    unsafe { libc::munmap(memory.as_ptr().cast(), length) };
}

/// What one connection holds of its shard's pool, against its limit.
pub(crate) struct Credit {
    pool: Rc<Pool>,
    held: Cell<u32>,
    limit: u32,
}

impl Credit {
    pub(crate) fn new(pool: &Rc<Pool>, limit: u32) -> Rc<Self> {
        Rc::new(Self { pool: Rc::clone(pool), held: Cell::new(0), limit })
    }

    pub(crate) fn is_spent(&self) -> bool {
        self.held.get() >= self.limit
    }

    /// Bytes that are left of the credit.
    pub(crate) fn left(&self) -> u32 {
        self.limit.saturating_sub(self.held.get())
    }

    /// Leases `length` bytes at `offset` of a buffer that the caller holds.
    pub(crate) fn lease(self: &Rc<Self>, id: BufferId, offset: u32, length: u32) -> Lease {
        assert!(offset.checked_add(length).is_some_and(|end| end <= self.pool.size));
        let holders = &self.pool.holders[usize::from(id.0)];
        assert!(holders.get() > 0, "only a held buffer can be leased");
        holders.set(holders.get() + 1);
        let charge = length.max(limits::CHUNK_CHARGE_BYTES_MIN);
        self.held.set(self.held.get().saturating_add(charge));
        self.pool.leases.set(self.pool.leases.get() + 1);
        // SAFETY: offset + length lies inside the buffer (asserted), which lies inside the mapping.
        let start = unsafe { self.pool.address(id).add(offset as usize) };
        Lease { credit: Rc::clone(self), start, length, charge, place: Place::Pool(id) }
    }
}

/// A received chunk, borrowed from the shard's buffer pool and given back on drop.
///
/// It reads as `[u8]`. Hold it briefly: a connection that keeps many stops receiving until it
/// gives some back. It can be sent as it is ([`Payload`]), without a copy.
pub struct Lease {
    credit: Rc<Credit>,
    start: NonNull<u8>,
    length: u32,
    charge: u32,
    place: Place,
}

/// Where a lease's bytes are.
enum Place {
    Pool(BufferId),
    /// Copied out of a pool that others wait for.
    Heap(#[expect(dead_code, reason = "held for its memory")] Box<[u8]>),
}

impl Lease {
    /// Copies the bytes to memory of their own and lets go of the pool's buffer: for a chunk that
    /// waits for its reader while others wait for buffers. It still counts against the credit.
    pub(crate) fn unpin(&mut self) {
        let Place::Pool(buffer) = self.place else { return };
        let copy: Box<[u8]> = Box::from(&**self);
        self.start = NonNull::from(&*copy).cast();
        self.place = Place::Heap(copy);
        self.credit.pool.release(buffer);
    }

    /// Drops the first `count` bytes from view.
    ///
    /// # Panics
    /// If the lease is shorter than `count`.
    pub fn advance(&mut self, count: usize) {
        assert!(count <= self.length as usize, "advance past the end of a lease");
        // SAFETY: the new start is at most the end of this lease (asserted).
        self.start = unsafe { self.start.add(count) };
        self.length -= count as u32;
    }
}

impl Deref for Lease {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the range lies in a buffer that this lease holds, so the memory stays mapped;
        // the driver leases only bytes whose completion has been reaped and the kernel writes
        // only past them, so nobody writes here while the lease lives. Or it lies in a box of the
        // lease's own, whose contents do not move with it.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length as usize) }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let credit = &self.credit;
        credit.held.set(credit.held.get().saturating_sub(self.charge));
        credit.pool.leases.set(credit.pool.leases.get() - 1);
        match self.place {
            Place::Pool(buffer) => credit.pool.release(buffer),
            // Credit came back, which somebody may wait for.
            Place::Heap(_) => credit.pool.count_release(),
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease({} bytes)", self.length)
    }
}

/// Bytes to send or write: owned by the operation until its last completion, then given back.
#[derive(Debug)]
pub enum Payload {
    /// A vector; all of it is sent.
    Vec(Vec<u8>),
    /// A received chunk, sent on without a copy.
    Lease(Lease),
    /// Bytes of the program itself.
    Static(&'static [u8]),
    /// Bytes shared with other threads.
    Shared(Arc<[u8]>),
    /// Aligned memory; the filled part is written.
    Aligned(AlignedBuffer),
    /// Aligned memory of a pool; what it shows is written.
    Pooled(PooledBuffer),
}

impl Payload {
    /// The vector inside, empty but with its capacity kept, for reuse; a new one otherwise.
    pub fn into_vec(self) -> Vec<u8> {
        match self {
            Payload::Vec(mut vec) => {
                vec.clear();
                vec
            }
            _ => Vec::new(),
        }
    }
}

impl Deref for Payload {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Payload::Vec(bytes) => bytes,
            Payload::Lease(bytes) => bytes,
            Payload::Static(bytes) => bytes,
            Payload::Shared(bytes) => bytes,
            Payload::Aligned(bytes) => bytes,
            Payload::Pooled(bytes) => bytes,
        }
    }
}

macro_rules! payload_from {
    ($($source:ty => $variant:ident),*) => {$(
        impl From<$source> for Payload {
            fn from(bytes: $source) -> Self {
                Payload::$variant(bytes)
            }
        }
    )*};
}
payload_from!(Vec<u8> => Vec, Lease => Lease, &'static [u8] => Static, Arc<[u8]> => Shared,
              AlignedBuffer => Aligned, PooledBuffer => Pooled);

impl<const N: usize> From<&'static [u8; N]> for Payload {
    fn from(bytes: &'static [u8; N]) -> Self {
        Payload::Static(bytes)
    }
}

/// Memory to read into: owned by the operation until its last completion, then given back.
#[derive(Debug)]
pub enum ReadBuffer {
    /// A vector; the read appends to it, within its spare capacity.
    Vec(Vec<u8>),
    /// Aligned memory; the read fills it from its start.
    Aligned(AlignedBuffer),
    /// Aligned memory of a pool; the read appends to it, within its room.
    Pooled(PooledBuffer),
}

impl ReadBuffer {
    /// Where the read may write, and how many bytes.
    pub(crate) fn spare(&mut self) -> (NonNull<u8>, usize) {
        match self {
            ReadBuffer::Vec(vec) => {
                let spare = vec.spare_capacity_mut();
                (NonNull::from(&mut *spare).cast(), spare.len())
            }
            ReadBuffer::Aligned(aligned) => (aligned.memory(), aligned.capacity()),
            ReadBuffer::Pooled(pooled) => pooled.spare(),
        }
    }

    /// Declares the first `count` bytes of [`ReadBuffer::spare`] filled.
    ///
    /// # Safety
    /// The kernel has written that many bytes there.
    pub(crate) unsafe fn fill(&mut self, count: usize) {
        match self {
            ReadBuffer::Vec(vec) => {
                assert!(count <= vec.capacity() - vec.len());
                // SAFETY: within the capacity (asserted) and written (the caller's contract).
                unsafe { vec.set_len(vec.len() + count) };
            }
            ReadBuffer::Aligned(aligned) => aligned.set_len(count),
            ReadBuffer::Pooled(pooled) => pooled.fill(count),
        }
    }

    /// The vector inside; the filled bytes as a new vector otherwise.
    pub fn into_vec(self) -> Vec<u8> {
        match self {
            ReadBuffer::Vec(vec) => vec,
            ReadBuffer::Aligned(aligned) => aligned.to_vec(),
            ReadBuffer::Pooled(pooled) => pooled.to_vec(),
        }
    }
}

impl Deref for ReadBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            ReadBuffer::Vec(bytes) => bytes,
            ReadBuffer::Aligned(bytes) => bytes,
            ReadBuffer::Pooled(bytes) => bytes,
        }
    }
}

impl From<Vec<u8>> for ReadBuffer {
    fn from(bytes: Vec<u8>) -> Self {
        ReadBuffer::Vec(bytes)
    }
}

impl From<PooledBuffer> for ReadBuffer {
    fn from(bytes: PooledBuffer) -> Self {
        ReadBuffer::Pooled(bytes)
    }
}

impl From<AlignedBuffer> for ReadBuffer {
    fn from(bytes: AlignedBuffer) -> Self {
        ReadBuffer::Aligned(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_free_again_when_its_last_holder_lets_go() {
        let pool = Pool::new(2, 4096).unwrap();
        let credit = Credit::new(&pool, 10_000);
        let id = pool.take().unwrap();
        let first = credit.lease(id, 0, 10);
        let second = credit.lease(id, 10, 10);
        pool.release(id);
        assert_eq!(pool.free_count(), 1);
        drop(first);
        assert_eq!(pool.free_count(), 1);
        drop(second);
        assert_eq!(pool.free_count(), 2);
    }

    #[test]
    fn credit_is_spent_by_leases_and_returned_by_their_drop() {
        let pool = Pool::new(1, 4096).unwrap();
        let credit = Credit::new(&pool, 1000);
        let id = pool.take().unwrap();
        let big = credit.lease(id, 0, 999);
        assert!(!credit.is_spent());
        let tiny = credit.lease(id, 999, 1);
        assert!(credit.is_spent(), "a tiny chunk counts for more than its bytes");
        drop(big);
        assert!(!credit.is_spent());
        drop(tiny);
    }

    #[test]
    fn an_unpinned_lease_keeps_its_bytes_and_its_charge_but_not_the_buffer() {
        let pool = Pool::new(1, 4096).unwrap();
        let credit = Credit::new(&pool, 256);
        let id = pool.take().unwrap();
        // SAFETY: the buffer is held by this test and has 4096 bytes.
        unsafe { pool.address(id).as_ptr().write(9) };
        let mut lease = credit.lease(id, 0, 3);
        pool.release(id);
        lease.advance(0);
        lease.unpin();
        assert_eq!(pool.free_count(), 1);
        assert!(credit.is_spent());
        let moved = Box::new(lease);
        assert_eq!(&moved[..], &[9, 0, 0]);
        drop(moved);
        assert_eq!((pool.free_count(), credit.is_spent()), (1, false));
    }

    #[test]
    fn a_lease_outlives_the_last_other_handle_of_its_pool() {
        let pool = Pool::new(1, 64).unwrap();
        let id = pool.take().unwrap();
        // SAFETY: the buffer is held by this test and has 64 bytes.
        unsafe { pool.address(id).as_ptr().write(7) };
        let mut lease = Credit::new(&pool, 64).lease(id, 0, 2);
        drop(pool);
        assert_eq!(&lease[..], &[7, 0]);
        lease.advance(1);
        assert_eq!(&lease[..], &[0]);
    }

    #[test]
    fn an_aligned_buffer_has_its_alignment() {
        let buffer = AlignedBuffer::new(8192, 4096);
        assert_eq!(buffer.memory().as_ptr() as usize % 4096, 0);
        assert_eq!(buffer.len(), 0);
    }
}
