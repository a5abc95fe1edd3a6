//! Entries at places that never change. Called by a keyspace, which finds places by key.
//!
//! Invariant: an entry keeps its place from insertion to removal, whatever else happens; that is
//! what makes a scan's cursor stable. Storage comes and goes by whole chunks, so no growth copies
//! entries. New entries take the lowest free places, so that the chunks above run empty and go
//! when keys become fewer or larger.

use std::collections::BTreeSet;

use super::footprint::allocated;

/// Entries in a chunk; a power of two, so that a place splits by shifts.
const CHUNK_COUNT: usize = 1024;
/// Words of a bitmap over a chunk.
const WORDS_COUNT: usize = CHUNK_COUNT / 64;

/// Where an entry lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(pub(super) u32);

/// Which places of a chunk have become free.
#[derive(Debug, Clone, Default)]
struct Free {
    bits: [u64; WORDS_COUNT],
    count: usize,
}

impl Free {
    fn first(&self) -> Option<usize> {
        let word = self.bits.iter().position(|&word| word != 0)?;
        Some(word * 64 + self.bits[word].trailing_zeros() as usize)
    }

    fn set(&mut self, offset: usize) {
        self.bits[offset / 64] |= 1 << (offset % 64);
        self.count += 1;
    }

    fn clear(&mut self, offset: usize) {
        self.bits[offset / 64] &= !(1 << (offset % 64));
        self.count -= 1;
    }

    /// The first offset from `offset` on, below `len`, that is not free.
    fn next_used(&self, offset: usize, len: usize) -> Option<usize> {
        if self.count == len || offset >= len {
            return None;
        }
        let first = offset / 64;
        (first..len.div_ceil(64)).find_map(|word| {
            let skipped = if word == first { offset % 64 } else { 0 };
            let used = !self.bits[word] >> skipped << skipped;
            let found = word * 64 + used.trailing_zeros() as usize;
            (used != 0 && found < len).then_some(found)
        })
    }
}

/// Entries, each at its place.
#[derive(Debug)]
pub(super) struct Slab<T> {
    /// Without memory where a chunk has run empty.
    chunks: Vec<Vec<Option<T>>>,
    free: Vec<Free>,
    /// Chunks with free places.
    open: BTreeSet<u32>,
    /// Chunks without memory.
    holes: BTreeSet<u32>,
    /// The chunk whose places are used for the first time, one after the other.
    filling: Option<u32>,
    len: usize,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self {
            chunks: Vec::new(),
            free: Vec::new(),
            open: BTreeSet::new(),
            holes: BTreeSet::new(),
            filling: None,
            len: 0,
        }
    }
}

impl<T> Slab<T> {
    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// One past the highest place in use, or one that was used.
    pub(super) fn end(&self) -> u32 {
        let last = self.chunks.last().map_or(CHUNK_COUNT, Vec::len);
        (self.chunks.len() * CHUNK_COUNT - (CHUNK_COUNT - last)).min(u32::MAX as usize) as u32
    }

    /// Memory taken, in bytes.
    #[inline]
    pub(super) fn bytes(&self) -> usize {
        let chunks = self.chunks.len() - self.holes.len();
        chunks * const { allocated(CHUNK_COUNT * size_of::<Option<T>>()) }
            + self.chunks.capacity() * size_of::<Vec<Option<T>>>()
            + self.free.capacity() * size_of::<Free>()
    }

    /// The part of it that new entries come to lie in before more is taken.
    #[inline]
    pub(super) fn spare_bytes(&self) -> usize {
        let chunks = self.chunks.len() - self.holes.len();
        (chunks * CHUNK_COUNT - self.len) * size_of::<Option<T>>()
    }

    #[inline]
    pub(super) fn get(&self, place: Place) -> Option<&T> {
        let (chunk, offset) = split(place);
        self.chunks.get(chunk)?.get(offset)?.as_ref()
    }

    #[inline]
    pub(super) fn get_mut(&mut self, place: Place) -> Option<&mut T> {
        let (chunk, offset) = split(place);
        self.chunks.get_mut(chunk)?.get_mut(offset)?.as_mut()
    }

    /// The first place in use from `place` on.
    pub(super) fn next(&self, place: Place) -> Option<Place> {
        let (first, offset) = split(place);
        (first..self.chunks.len()).find_map(|chunk| {
            let offset = if chunk == first { offset } else { 0 };
            let found = self.free[chunk].next_used(offset, self.chunks[chunk].len())?;
            Some(Place((chunk * CHUNK_COUNT + found) as u32))
        })
    }

    /// Adds an entry. Panics at 2^32 entries, which would take 256 GiB.
    pub(super) fn insert(&mut self, value: T) -> Place {
        self.len += 1;
        let Some(&chunk) = self.open.first() else { return self.fill(value) };
        let index = chunk as usize;
        let offset = self.free[index].first().expect("an open chunk has a free place");
        self.free[index].clear(offset);
        if self.free[index].count == 0 {
            self.open.remove(&chunk);
        }
        self.chunks[index][offset] = Some(value);
        Place((index * CHUNK_COUNT + offset) as u32)
    }

    /// Adds an entry at a place that has not been used.
    fn fill(&mut self, value: T) -> Place {
        let index = match self.filling {
            Some(chunk) => chunk as usize,
            None => self.add_chunk(),
        };
        let chunk = &mut self.chunks[index];
        let place = u32::try_from(index * CHUNK_COUNT + chunk.len());
        let place = place.ok().filter(|&place| place != u32::MAX);
        chunk.push(Some(value));
        self.filling = (chunk.len() < CHUNK_COUNT).then_some(index as u32);
        Place(place.expect("a keyspace holds fewer than 2^32 keys"))
    }

    fn add_chunk(&mut self) -> usize {
        let chunk = Vec::with_capacity(CHUNK_COUNT);
        if let Some(hole) = self.holes.pop_first() {
            self.chunks[hole as usize] = chunk;
            return hole as usize;
        }
        self.chunks.push(chunk);
        self.free.push(Free::default());
        self.chunks.len() - 1
    }

    pub(super) fn remove(&mut self, place: Place) -> Option<T> {
        let (index, offset) = split(place);
        let value = self.chunks.get_mut(index)?.get_mut(offset)?.take()?;
        self.len -= 1;
        self.free[index].set(offset);
        let chunk = index as u32;
        if self.free[index].count == 1 {
            self.open.insert(chunk);
        }
        if self.free[index].count == self.chunks[index].len() && self.filling != Some(chunk) {
            self.release(chunk);
        }
        Some(value)
    }

    /// Gives up the memory of an empty chunk.
    #[cold]
    fn release(&mut self, chunk: u32) {
        self.open.remove(&chunk);
        self.chunks[chunk as usize] = Vec::new();
        self.free[chunk as usize] = Free::default();
        self.holes.insert(chunk);
        while let Some(last) = self.chunks.len().checked_sub(1)
            && self.holes.remove(&(last as u32))
        {
            self.chunks.pop();
            self.free.pop();
        }
    }

    /// Takes the last chunk off, with its entries.
    pub(super) fn pop_chunk(&mut self) -> Option<Vec<Option<T>>> {
        let chunk = self.chunks.pop()?;
        let index = self.chunks.len() as u32;
        self.free.pop();
        self.open.remove(&index);
        self.holes.remove(&index);
        self.filling = self.filling.filter(|&filling| filling != index);
        self.len -= chunk.iter().flatten().count();
        Some(chunk)
    }
}

#[inline]
fn split(place: Place) -> (usize, usize) {
    let place = place.0 as usize;
    (place / CHUNK_COUNT, place % CHUNK_COUNT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_keep_their_places() {
        let mut slab = Slab::default();
        let places: Vec<Place> = (0..3000).map(|value| slab.insert(value)).collect();
        assert_eq!(slab.end(), 3000);
        assert_eq!(slab.remove(places[7]), Some(7));
        assert_eq!(slab.remove(places[7]), None);
        for (value, &place) in places.iter().enumerate().skip(8) {
            assert_eq!(slab.get(place), Some(&value));
        }
        assert_eq!(slab.len(), 2999);
    }

    #[test]
    fn the_lowest_free_place_is_used_again() {
        let mut slab = Slab::default();
        let places: Vec<Place> = (0..3000).map(|value| slab.insert(value)).collect();
        for number in [2500, 70, 1500, 69] {
            slab.remove(places[number]);
        }
        for number in [69, 70, 1500, 2500] {
            assert_eq!(slab.insert(0), places[number]);
        }
        assert_eq!(slab.insert(0), Place(3000));
    }

    #[test]
    fn empty_chunks_give_their_memory_back() {
        let mut slab = Slab::default();
        let places: Vec<Place> = (0..4 * 1024 + 10).map(|value| slab.insert(value)).collect();
        let full = slab.bytes();
        for &place in &places[1024..2048] {
            slab.remove(place);
        }
        assert!(slab.bytes() < full, "a hole");
        assert_eq!(slab.end(), 4 * 1024 + 10);
        for &place in &places[2048..4096] {
            slab.remove(place);
        }
        assert_eq!(slab.next(Place(1023)), Some(Place(1023)));
        assert_eq!(slab.next(Place(1024)), Some(Place(4096)));
        for _ in 0..1014 {
            slab.insert(7);
        }
        assert_eq!(slab.end(), 5 * 1024, "the chunk that is being filled is filled first");
        assert_eq!(slab.insert(7), Place(1024), "then the lowest hole");
    }

    #[test]
    fn chunks_are_taken_off_from_the_end() {
        let mut slab = Slab::default();
        let places: Vec<Place> = (0..2 * 1024 + 3).map(|value| slab.insert(value)).collect();
        slab.remove(places[2049]);
        let chunk = slab.pop_chunk().expect("there are three");
        assert_eq!(chunk, [Some(2048), None, Some(2050)]);
        assert_eq!((slab.len(), slab.end()), (2048, 2048));
        assert_eq!(slab.insert(7), Place(2048));
    }

    #[test]
    fn places_at_the_end_are_forgotten() {
        let mut slab = Slab::default();
        let places: Vec<Place> = (0..3 * 1024).map(|value| slab.insert(value)).collect();
        for &place in &places[10..] {
            slab.remove(place);
        }
        assert_eq!(slab.end(), 1024);
        assert_eq!(slab.next(Place(9)), Some(Place(9)));
        assert_eq!(slab.next(Place(10)), None);
        assert_eq!(slab.next(Place(5000)), None);
    }
}
