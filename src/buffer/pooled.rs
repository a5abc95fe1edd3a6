//! Aligned buffers that come back to their thread's pool when they are dropped.
//!
//! [`crate::fs::DirectFile`] takes them. The pool keeps memory for the next taker, up to
//! [`limits::POOLED_BYTES_MAX`]; what is asked for beyond is allocated and freed, so nobody waits
//! for memory while holding some. A buffer may move to another thread and then stays with that
//! one's pool. Invariant: memory in the pool is initialised and in nobody else's hands.
//!
//! Large ones are pieces of huge pages: a read of 1 MiB into one took half of the CPU and was a third
//! faster than into pages of 4 KiB. None is registered with the ring: that saved 3 % of the CPU of a 4 KiB read (2.81 to 2.72 µs,
//! within the noise) and would be charged to the memory that a user may lock (RLIMIT_MEMLOCK).

use std::cell::RefCell;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use super::AlignedBuffer;
use crate::limits;

/// Buffers come in powers of two from [`limits::POOLED_BUFFER_BYTES_MIN`] up.
const CLASSES: usize =
    (limits::POOLED_BUFFER_BYTES_MAX / limits::POOLED_BUFFER_BYTES_MIN).ilog2() as usize + 1;

#[derive(Default)]
struct Pool {
    classes: [Vec<AlignedBuffer>; CLASSES],
    kept_bytes: usize,
}

thread_local! {
    static POOL: RefCell<Pool> = RefCell::default();
}

/// The class of a capacity; `None` if it is too large to be kept.
fn class_of(capacity: usize) -> Option<usize> {
    let class = capacity.div_ceil(limits::POOLED_BUFFER_BYTES_MIN).next_power_of_two().ilog2();
    Some(class as usize).filter(|class| *class < CLASSES)
}

impl Pool {
    fn take(&mut self, capacity: usize) -> Option<AlignedBuffer> {
        let buffer = self.classes[class_of(capacity)?].pop()?;
        self.kept_bytes -= buffer.capacity();
        Some(buffer)
    }

    fn keep(&mut self, mut buffer: AlignedBuffer) {
        let room = limits::POOLED_BYTES_MAX - self.kept_bytes;
        if let Some(class) = class_of(buffer.capacity())
            && buffer.capacity() <= room
        {
            self.kept_bytes += buffer.capacity();
            buffer.set_len(0);
            self.classes[class].push(buffer);
        }
    }
}

fn take(capacity: usize) -> AlignedBuffer {
    let pooled = POOL.try_with(|pool| pool.borrow_mut().take(capacity)).ok().flatten();
    pooled.unwrap_or_else(|| {
        let class = class_of(capacity);
        let bytes = class.map_or(capacity, |class| limits::POOLED_BUFFER_BYTES_MIN << class);
        let is_piece = class.is_some() && bytes >= limits::POOLED_PIECE_BYTES_MIN;
        let pieces = if is_piece { AlignedBuffer::in_huge_page(bytes) } else { Vec::new() };
        let mut pieces = pieces.into_iter();
        match pieces.next() {
            Some(piece) => {
                pieces.for_each(give_back);
                piece
            }
            None => AlignedBuffer::new(bytes, limits::POOLED_ALIGNMENT_BYTES),
        }
    })
}

fn give_back(memory: AlignedBuffer) {
    // A thread that ends has no pool any more.
    let _ = POOL.try_with(|pool| pool.borrow_mut().keep(memory));
}

/// Memory aligned for direct I/O, with room for so many bytes, of which the first are filled. It
/// reads and writes as the filled bytes. Dropped, it goes to its thread's pool.
///
/// ```
/// use annulus::buffer::PooledBuffer;
///
/// let mut buffer = PooledBuffer::new(4096);
/// buffer.extend_from_slice(b"block");
/// assert_eq!((&buffer[..], buffer.room()), (&b"block"[..], 4091));
/// ```
pub struct PooledBuffer {
    /// `None` only while it is dropped.
    memory: Option<AlignedBuffer>,
    /// Filled bytes that are not shown.
    start: usize,
    /// Bytes that it may hold.
    limit: usize,
}

impl PooledBuffer {
    /// An empty buffer with room for `limit` bytes, aligned to
    /// [`limits::POOLED_ALIGNMENT_BYTES`].
    pub fn new(limit: usize) -> Self {
        Self { memory: Some(take(limit.max(1))), start: 0, limit }
    }

    fn memory(&self) -> &AlignedBuffer {
        self.memory.as_ref().expect("the memory is there until the drop")
    }

    fn memory_mut(&mut self) -> &mut AlignedBuffer {
        self.memory.as_mut().expect("the memory is there until the drop")
    }

    /// Filled bytes, shown or not.
    fn filled(&self) -> usize {
        self.memory().len()
    }

    /// Bytes that can still be added.
    pub fn room(&self) -> usize {
        self.limit - self.filled()
    }

    /// Bytes that are shown and bytes that can be added.
    pub fn capacity(&self) -> usize {
        self.limit - self.start
    }

    /// Adds bytes.
    ///
    /// # Panics
    /// If there are more than [`PooledBuffer::room`].
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.spare_mut()[..bytes.len()].copy_from_slice(bytes);
        self.fill(bytes.len());
    }

    /// The room behind the filled bytes. What stands there is left from an earlier use.
    pub fn spare_mut(&mut self) -> &mut [u8] {
        let range = self.filled()..self.limit;
        &mut self.memory_mut().as_mut_slice()[range]
    }

    /// Declares the next `count` bytes filled, as they stand.
    ///
    /// # Panics
    /// If there are more than [`PooledBuffer::room`].
    pub fn fill(&mut self, count: usize) {
        assert!(count <= self.room(), "a buffer holds no more than its limit");
        let filled = self.filled() + count;
        self.memory_mut().set_len(filled);
    }

    /// Adds zeros until it shows a multiple of `alignment` bytes, as far as there is room.
    pub(crate) fn pad(&mut self, alignment: usize) {
        let count = (self.len().next_multiple_of(alignment) - self.len()).min(self.room());
        self.spare_mut()[..count].fill(0);
        self.fill(count);
    }

    /// Shows `length` bytes at most, without the first `skip`. What is cut off behind is room
    /// again.
    pub(crate) fn show(&mut self, skip: usize, length: usize) {
        self.start += skip.min(self.len());
        let end = self.filled().min(self.start.saturating_add(length));
        self.memory_mut().set_len(end);
    }

    /// Empties it.
    pub fn clear(&mut self) {
        self.start = 0;
        self.memory_mut().set_len(0);
    }

    /// Where a read may write, and how many bytes.
    pub(super) fn spare(&mut self) -> (NonNull<u8>, usize) {
        let spare = self.spare_mut();
        (NonNull::from(&mut *spare).cast(), spare.len())
    }
}

impl Deref for PooledBuffer {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.memory()[self.start..]
    }
}

impl DerefMut for PooledBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        let range = self.start..self.filled();
        &mut self.memory_mut().as_mut_slice()[range]
    }
}

impl Drop for PooledBuffer {
    fn drop(&mut self) {
        if let Some(memory) = self.memory.take() {
            give_back(memory);
        }
    }
}

impl fmt::Debug for PooledBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PooledBuffer({} of {} bytes)", self.len(), self.capacity())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept_bytes() -> usize {
        POOL.with(|pool| pool.borrow().kept_bytes)
    }

    #[test]
    fn a_dropped_buffer_is_the_next_one_of_its_size() {
        let mut first = PooledBuffer::new(5000);
        first.extend_from_slice(b"old");
        let address = first.as_ptr();
        assert_eq!(address as usize % 4096, 0);
        drop(first);
        assert_eq!(kept_bytes(), 8192);
        let other = PooledBuffer::new(100);
        assert_ne!(other.as_ptr(), address);
        let second = PooledBuffer::new(8192);
        assert_eq!((second.as_ptr(), second.len(), kept_bytes()), (address, 0, 0));
    }

    #[test]
    fn a_large_buffer_comes_with_the_rest_of_its_huge_page() {
        let first = PooledBuffer::new(1 << 20);
        assert_eq!(kept_bytes(), 1 << 20);
        let second = PooledBuffer::new((1 << 20) - 1);
        assert_eq!(kept_bytes(), 0);
        assert_eq!(first.as_ptr() as usize + (1 << 20), second.as_ptr() as usize);
    }

    #[test]
    fn the_pool_keeps_no_more_than_its_limit() {
        let count = limits::POOLED_BYTES_MAX / limits::POOLED_BUFFER_BYTES_MAX + 3;
        let many: Vec<_> =
            (0..count).map(|_| PooledBuffer::new(limits::POOLED_BUFFER_BYTES_MAX)).collect();
        drop(many);
        assert_eq!(kept_bytes(), limits::POOLED_BYTES_MAX);
        drop(PooledBuffer::new(limits::POOLED_BUFFER_BYTES_MAX + 1));
        assert_eq!(kept_bytes(), limits::POOLED_BYTES_MAX);
    }

    #[test]
    fn it_shows_what_is_filled_within_its_limits() {
        let mut buffer = PooledBuffer::new(10);
        buffer.extend_from_slice(b"0123456");
        assert_eq!((buffer.room(), buffer.capacity()), (3, 10));
        buffer.show(2, 3);
        assert_eq!((&buffer[..], buffer.room()), (&b"234"[..], 5));
        buffer.pad(4);
        assert_eq!(&buffer[..], b"234\0");
        buffer.show(9, 9);
        assert_eq!(&buffer[..], b"");
        buffer.clear();
        assert_eq!((buffer.len(), buffer.room()), (0, 10));
    }

    #[test]
    #[should_panic(expected = "range end index 11 out of range")]
    fn it_takes_no_more_than_its_limit() {
        PooledBuffer::new(10).extend_from_slice(&[0; 11]);
    }
}
