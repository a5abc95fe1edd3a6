//! Entries at places that never change. Called by a keyspace, which finds places by key.
//!
//! Invariant: an entry keeps its place from insertion to removal, whatever else happens; that is
//! what makes a scan's cursor stable. Storage grows by whole chunks, so no growth copies entries.

/// Entries in a chunk; a power of two, so that a place splits by shifts.
const CHUNK_COUNT: usize = 1024;

/// Where an entry lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(pub(super) u32);

/// Entries, each at its place.
#[derive(Debug)]
pub(super) struct Slab<T> {
    chunks: Vec<Vec<Option<T>>>,
    free: Vec<Place>,
    len: usize,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), free: Vec::new(), len: 0 }
    }
}

impl<T> Slab<T> {
    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// One past the highest place ever used.
    pub(super) fn end(&self) -> u32 {
        let last = self.chunks.last().map_or(CHUNK_COUNT, Vec::len);
        (self.chunks.len() * CHUNK_COUNT - (CHUNK_COUNT - last)).min(u32::MAX as usize) as u32
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

    /// Adds an entry. Panics at 2^32 entries, which would take 256 GiB.
    pub(super) fn insert(&mut self, value: T) -> Place {
        self.len += 1;
        if let Some(place) = self.free.pop() {
            let (chunk, offset) = split(place);
            self.chunks[chunk][offset] = Some(value);
            return place;
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK_COUNT) {
            self.chunks.push(Vec::with_capacity(CHUNK_COUNT));
        }
        let chunk = self.chunks.len() - 1;
        let place = u32::try_from(chunk * CHUNK_COUNT + self.chunks[chunk].len());
        assert!(place.is_ok(), "a keyspace holds fewer than 2^32 keys");
        self.chunks[chunk].push(Some(value));
        Place(place.unwrap_or(u32::MAX))
    }

    pub(super) fn remove(&mut self, place: Place) -> Option<T> {
        let (chunk, offset) = split(place);
        let value = self.chunks.get_mut(chunk)?.get_mut(offset)?.take()?;
        self.len -= 1;
        self.free.push(place);
        Some(value)
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
    fn a_free_place_is_used_again() {
        let mut slab = Slab::default();
        let first = slab.insert("a");
        slab.remove(first);
        assert_eq!(slab.insert("b"), first);
        assert_eq!(slab.end(), 1);
    }
}
