//! The RESP floor's map: key and value side by side in the table, so that a lookup touches one
//! entry and nothing behind it.
//!
//! `floor::resp` calls it. What is too long for that lives on the heap. Invariant: an entry's key
//! never changes; `key_bytes` says whether it is inline.

use std::hash::BuildHasher;

use hashbrown::hash_table::Entry as Slot;
use hashbrown::{DefaultHashBuilder, HashTable};

/// Room for key and value in an entry of two cache lines.
const INLINE_BYTES: usize = 118;
/// Stands in `key_bytes` for an entry on the heap.
const ON_HEAP: u8 = u8::MAX;

const _: () = assert!(INLINE_BYTES < ON_HEAP as usize);
const _: () = assert!(size_of::<Entry>() == 128);

#[derive(Debug)]
#[repr(align(64))]
struct Entry {
    key_bytes: u8,
    value_bytes: u8,
    inline: [u8; INLINE_BYTES],
    heap: Option<Box<Long>>,
}

/// Key and value of an entry on the heap.
#[derive(Debug)]
struct Long {
    key: Box<[u8]>,
    value: Vec<u8>,
}

impl Entry {
    fn new(key: &[u8], value: &[u8]) -> Self {
        let mut entry = Entry {
            key_bytes: key.len().min(usize::from(ON_HEAP)) as u8,
            value_bytes: 0,
            inline: [0; INLINE_BYTES],
            heap: None,
        };
        if key.len() + value.len() <= INLINE_BYTES {
            entry.inline[..key.len()].copy_from_slice(key);
            entry.set(value);
        } else {
            entry.key_bytes = ON_HEAP;
            entry.heap = Some(Box::new(Long { key: key.into(), value: value.to_vec() }));
        }
        entry
    }

    fn key(&self) -> &[u8] {
        match &self.heap {
            Some(heap) => &heap.key,
            None => &self.inline[..usize::from(self.key_bytes)],
        }
    }

    fn value(&self) -> &[u8] {
        match &self.heap {
            Some(heap) => &heap.value,
            None => {
                let start = usize::from(self.key_bytes);
                &self.inline[start..start + usize::from(self.value_bytes)]
            }
        }
    }

    fn set(&mut self, value: &[u8]) {
        if let Some(heap) = &mut self.heap {
            heap.value.clear();
            heap.value.extend_from_slice(value);
            return;
        }
        let start = usize::from(self.key_bytes);
        if start + value.len() <= INLINE_BYTES {
            self.value_bytes = value.len() as u8;
            self.inline[start..start + value.len()].copy_from_slice(value);
        } else {
            *self = Entry::new(&self.inline[..start], value);
        }
    }
}

/// Keys and values.
#[derive(Debug, Default)]
pub(super) struct Table {
    entries: HashTable<Entry>,
    hasher: DefaultHashBuilder,
}

impl Table {
    /// The hash by which `key` is found.
    pub(super) fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash_one(key)
    }

    /// The value of `key`, which has this hash.
    pub(super) fn get(&self, hash: u64, key: &[u8]) -> Option<&[u8]> {
        self.entries.find(hash, |entry| entry.key() == key).map(Entry::value)
    }

    /// Makes `value` the value of `key`, which has this hash.
    pub(super) fn set(&mut self, hash: u64, key: &[u8], value: &[u8]) {
        let hasher = &self.hasher;
        let rehash = |entry: &Entry| hasher.hash_one(entry.key());
        match self.entries.entry(hash, |entry| entry.key() == key, rehash) {
            Slot::Occupied(mut slot) => slot.get_mut().set(value),
            Slot::Vacant(slot) => {
                slot.insert(Entry::new(key, value));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_every_length_come_back() {
        let mut table = Table::default();
        for len in [0, 1, 64, INLINE_BYTES - 3, INLINE_BYTES - 2, 200, 5000, 10] {
            let value = vec![b'v'; len];
            let hash = table.hash(b"key");
            table.set(hash, b"key", &value);
            assert_eq!(table.get(hash, b"key"), Some(&value[..]), "{len} bytes");
        }
        assert_eq!(table.get(table.hash(b"other"), b"other"), None);
    }

    #[test]
    fn keys_of_every_length_are_told_apart() {
        let mut table = Table::default();
        for len in 0..400 {
            let key = vec![b'k'; len];
            table.set(table.hash(&key), &key, len.to_string().as_bytes());
        }
        for len in 0..400 {
            let (key, expected) = (vec![b'k'; len], len.to_string());
            let found = table.get(table.hash(&key), &key);
            assert_eq!(found, Some(expected.as_bytes()), "{len} bytes");
        }
    }
}
