//! What an allocation takes of memory, from the bytes asked for. Called wherever the store keeps
//! account; `tests/memory_accounting.rs` holds it against the allocator.
//!
//! Invariant: this is the behaviour of the GNU C library's allocator, which Rust programs use if
//! they choose no other. Under another one the account is an estimate.
//! <https://sourceware.org/glibc/wiki/MallocInternals>

/// The size that the allocator keeps in front of what it hands out.
const HEADER_BYTES: usize = 8;
/// Sizes grow in steps of this.
const STEP_BYTES: usize = 16;
/// The least that an allocation takes.
const CHUNK_BYTES_MIN: usize = 32;
/// Allocations from here on are mapped by themselves, in whole pages, with a larger header. The
/// threshold moves up when such memory is freed; then the last page is counted a little too large,
/// by three percent at most.
const MAPPED_BYTES_MIN: usize = 128 * 1024;
const PAGE_BYTES: usize = 4096;

/// Bytes that the allocator takes to hand out `bytes`; nothing for nothing.
#[inline]
pub(super) const fn allocated(bytes: usize) -> usize {
    if bytes == 0 {
        return 0;
    }
    if bytes >= MAPPED_BYTES_MIN {
        return (bytes + 2 * HEADER_BYTES).next_multiple_of(PAGE_BYTES);
    }
    let rounded = (bytes + HEADER_BYTES).next_multiple_of(STEP_BYTES);
    if rounded < CHUNK_BYTES_MIN { CHUNK_BYTES_MIN } else { rounded }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_as_the_allocator_does() {
        let expected = [(0, 0), (1, 32), (24, 32), (25, 48), (40, 48), (41, 64), (1000, 1008)];
        for (bytes, taken) in expected {
            assert_eq!(allocated(bytes), taken, "{bytes}");
        }
        assert_eq!(allocated(128 * 1024), 132 * 1024);
        assert_eq!(allocated(132 * 1024 - 16), 132 * 1024);
    }
}
