//! Memory aligned for direct I/O, of the heap's or a piece of a huge page.
//!
//! Taken by the pool beside this file, by the log and by programs. A disk is told where each piece
//! of a buffer lies that is apart from the others in physical memory: a buffer in a huge page is one
//! piece, one of the heap as many as it has pages. Invariant: a buffer's memory is its own until it
//! is dropped, and a mapping lives as long as any of its buffers.

use std::alloc::Layout;
use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;

/// Bytes of a huge page (x86-64, and arm64 with pages of 4 KiB).
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Memory with a chosen alignment, as O_DIRECT demands (open(2)): `capacity` bytes, of which the
/// first `length` are filled.
pub struct AlignedBuffer {
    memory: NonNull<u8>,
    length: usize,
    capacity: usize,
    owner: Owner,
}

/// Whose the memory is.
enum Owner {
    /// The heap's, allocated with this layout.
    Heap(Layout),
    /// Part of a mapping that others share.
    Mapping(Arc<Mapping>),
}

impl AlignedBuffer {
    /// Zeroed memory of `capacity` bytes aligned to `alignment`.
    ///
    /// # Panics
    /// If `capacity` is zero or `alignment` is no power of two.
    pub fn new(capacity: usize, alignment: usize) -> Self {
        assert!(capacity > 0, "an aligned buffer needs at least one byte");
        let layout = Layout::from_size_align(capacity, alignment)
            .expect("the alignment is a power of two and the size fits");
        // SAFETY: the layout has a size above zero (asserted).
        let memory = unsafe { std::alloc::alloc_zeroed(layout) };
        let memory = NonNull::new(memory).unwrap_or_else(|| std::alloc::handle_alloc_error(layout));
        Self { memory, length: 0, capacity, owner: Owner::Heap(layout) }
    }

    /// As many zeroed buffers of `capacity` bytes, a power of two, as there are in a huge page,
    /// which each is a part of if the system gives one. None if there is no memory to be mapped.
    pub(super) fn in_huge_page(capacity: usize) -> Vec<Self> {
        assert!(capacity.is_power_of_two() && capacity <= HUGE_PAGE_BYTES);
        let Some(mapping) = Mapping::new() else { return Vec::new() };
        let (start, mapping) = (mapping.huge_page(), Arc::new(mapping));
        (0..HUGE_PAGE_BYTES / capacity)
            .map(|index| Self {
                // SAFETY: the page has so many bytes.
                memory: unsafe { start.add(index * capacity) },
                length: 0,
                capacity,
                owner: Owner::Mapping(Arc::clone(&mapping)),
            })
            .collect()
    }

    /// All bytes, filled or not (they start zeroed).
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: it has `capacity` initialised bytes of its own, which are borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), self.capacity) }
    }

    /// Bytes that it can hold.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Declares the first `length` bytes filled.
    ///
    /// # Panics
    /// If `length` is above the capacity.
    pub fn set_len(&mut self, length: usize) {
        assert!(length <= self.capacity);
        self.length = length;
    }

    /// The memory, for whoever hands it to the kernel.
    pub(super) fn memory(&self) -> NonNull<u8> {
        self.memory
    }
}

impl Deref for AlignedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the first `length` bytes are its own and initialised.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.length) }
    }
}

// SAFETY: it owns its memory alone, as a `Vec<u8>` does, so it may move to another thread; what it
// shares with others is only when the mapping ends.
unsafe impl Send for AlignedBuffer {}

// SAFETY: a shared reference only reads the memory.
unsafe impl Sync for AlignedBuffer {}

impl Drop for AlignedBuffer {
    fn drop(&mut self) {
        if let Owner::Heap(layout) = self.owner {
            // SAFETY: allocated in `new` with this very layout.
            unsafe { std::alloc::dealloc(self.memory.as_ptr(), layout) };
        }
    }
}

impl fmt::Debug for AlignedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlignedBuffer({} of {} bytes)", self.length, self.capacity)
    }
}

/// Anonymous memory with room for a huge page at its place. The rest is never touched, so it costs
/// addresses only.
struct Mapping(NonNull<u8>);

impl Mapping {
    const BYTES: usize = 2 * HUGE_PAGE_BYTES;

    fn new() -> Option<Self> {
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping at a place of the kernel's choice touches nothing that exists.
        let memory =
            unsafe { libc::mmap(std::ptr::null_mut(), Self::BYTES, protection, flags, -1, 0) };
        if memory == libc::MAP_FAILED {
            return None;
        }
        let mapping = Self(NonNull::new(memory.cast())?);
        // A wish. Without huge pages (CONFIG_TRANSPARENT_HUGEPAGE, or `never`) these are others.
        // SAFETY: the page lies in the mapping, which was just made.
        unsafe {
            let page = mapping.huge_page().as_ptr().cast();
            libc::madvise(page, HUGE_PAGE_BYTES, libc::MADV_HUGEPAGE)
        };
        Some(mapping)
    }

    /// Where the huge page begins.
    fn huge_page(&self) -> NonNull<u8> {
        // SAFETY: what is skipped is less than a huge page, and the mapping is two.
        unsafe { self.0.add(self.0.align_offset(HUGE_PAGE_BYTES)) }
    }
}

// SAFETY: it is only unmapped, by whoever is last.
unsafe impl Send for Mapping {}

// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with this length, and its last buffer is gone.
        unsafe { libc::munmap(self.0.as_ptr().cast(), Self::BYTES) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_of_a_huge_page_lie_side_by_side_and_outlive_each_other() {
        let mut buffers = AlignedBuffer::in_huge_page(512 << 10);
        assert_eq!(buffers.len(), 4);
        let first = buffers[0].memory.as_ptr() as usize;
        assert_eq!(first % HUGE_PAGE_BYTES, 0);
        for (index, buffer) in buffers.iter_mut().enumerate() {
            assert_eq!(buffer.memory.as_ptr() as usize, first + index * (512 << 10));
            assert!(buffer.as_mut_slice().iter().all(|byte| *byte == 0));
            buffer.as_mut_slice().fill(index as u8 + 1);
        }
        let mut last = buffers.pop().unwrap();
        drop(buffers);
        let checked = std::thread::spawn(move || {
            assert_eq!(last.as_mut_slice().len(), 512 << 10);
            last.as_mut_slice().iter().all(|byte| *byte == 4)
        });
        assert!(checked.join().unwrap());
    }
}
