//! One numbered database of one partition: keys, values, deadlines. Read by the commands, changed
//! by [`super::database::Database`] alone.
//!
//! Invariant: an entry whose deadline has passed is never seen by a command; it is removed by
//! whoever meets it first, an access or the expiry cycle.

use std::hash::{BuildHasher, Hasher};
use std::hint::black_box;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::bytes::{Compact, Text};
use super::footprint::allocated;
use super::recency::{Meter, Stamp};
use super::slab::{Place, Slab};
use super::value::Value;

/// Room that a key has inline: with it, an entry is one cache line.
const KEY_INLINE_BYTES: usize = 30;
/// Entry and index bytes of a key, to which the allocations of key and value are added.
const ENTRY_BYTES: usize = size_of::<Entry>() + size_of::<Bucket>() + 1;
/// Most keys warmed at a time: about as many loads as a processor core keeps in flight.
pub const WARM_COUNT_MAX: usize = 16;
/// A keyspace smaller than this stays in the cache by itself.
const WARM_BYTES_MIN: usize = 512 * 1024;
/// An index for so many keys is kept when they go.
const INDEX_COUNT_KEPT: usize = 4096;
/// The entry has no deadline.
const NO_DEADLINE: u32 = u32::MAX;

type Key = Compact<KEY_INLINE_BYTES>;

/// A key with all that belongs to it.
#[derive(Debug)]
#[repr(align(64))]
struct Entry {
    key: Key,
    value: Value,
    /// Where its deadline is in the list of deadlines.
    deadline: u32,
    /// When it was used, or how often.
    stamp: Stamp,
}

const _: () = assert!(size_of::<Option<Entry>>() == 64);

/// What the index holds of a key: enough to find the entry and to move it when the index grows.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    hash: u32,
    place: Place,
}

/// When an entry expires. The list of these is dense, so the expiry cycle reads it in order.
#[derive(Debug, Clone, Copy)]
struct Deadline {
    at_ms: u64,
    place: Place,
}

/// A key found, good until the keyspace is changed otherwise.
#[derive(Debug, Clone, Copy)]
pub struct Found(Place);

impl Found {
    pub(super) fn place(self) -> Place {
        self.0
    }
}

/// What becomes of a key's deadline when its value is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// The key lives on without one.
    Never,
    /// The key keeps the one it has, if any. Find the key first, so that it is not a past one.
    Keep,
    /// The key expires at this unix time in milliseconds.
    At(u64),
}

/// The keys of one database.
#[derive(Debug, Default)]
pub struct Keyspace {
    index: HashTable<Bucket>,
    entries: Slab<Entry>,
    deadlines: Vec<Deadline>,
    hasher: DefaultHashBuilder,
    heap_bytes: usize,
    /// How far the expiry cycle has come, counted down.
    expiry_cursor: usize,
}

impl Keyspace {
    /// How many keys there are, those included that have expired unnoticed.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many keys have a deadline.
    pub fn deadlines_len(&self) -> usize {
        self.deadlines.len()
    }

    /// Memory taken, in bytes, as the allocator counts it.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.entries.bytes()
            + allocated(self.index.allocation_size())
            + allocated(self.deadlines.capacity() * size_of::<Deadline>())
            + self.heap_bytes
    }

    /// The part of it that new keys come to lie in before more is taken.
    #[inline]
    pub fn spare_bytes(&self) -> usize {
        self.entries.spare_bytes()
    }

    /// The part of it that keys and values lie in.
    pub fn content_bytes(&self) -> usize {
        self.len() * size_of::<Entry>() + self.heap_bytes
    }

    /// Memory taken by one key, in bytes: its entry, its place in the index, its deadline, and what
    /// key and value have allocated.
    pub fn bytes_of(&self, found: Found) -> usize {
        let entry = self.entry(found);
        let deadline = if entry.deadline == NO_DEADLINE { 0 } else { size_of::<Deadline>() };
        ENTRY_BYTES + deadline + entry.key.heap_bytes() + entry.value.heap_bytes()
    }

    /// Finds `key`, even if its deadline has passed.
    #[inline]
    pub(super) fn lookup(&self, hash: u32, key: &[u8]) -> Option<Found> {
        self.place_of(hash, key).map(Found)
    }

    /// Whether the deadline of a key found has passed.
    #[inline]
    pub(super) fn is_due(&self, found: Found, now_ms: u64) -> bool {
        let entry = self.entry(found);
        entry.deadline != NO_DEADLINE && self.is_past(entry, now_ms)
    }

    /// The key at `place`, if there is one.
    pub(super) fn at(&self, place: Place) -> Option<Found> {
        self.entries.get(place).map(|_| Found(place))
    }

    /// One past the highest place in use.
    pub(super) fn end(&self) -> u32 {
        self.entries.end()
    }

    /// Touches the memory that lookups of `keys` will need, all keys at once. Their cache misses
    /// overlap here, where each lookup by itself would wait for one after the other.
    pub fn warm<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) {
        if self.bytes() < WARM_BYTES_MIN {
            return;
        }
        let mut places = [None; WARM_COUNT_MAX];
        for (place, key) in places.iter_mut().zip(keys) {
            let hash = self.hash(key);
            let bucket = self.index.find(spread(hash), |bucket| bucket.hash == hash);
            *place = bucket.map(|bucket| bucket.place);
        }
        for place in places.iter().flatten() {
            black_box(self.entries.get(*place).map(|entry| entry.deadline));
        }
        for entry in places.iter().flatten().filter_map(|place| self.entries.get(*place)) {
            entry.value.touch();
        }
    }

    /// The value of a key found.
    #[inline]
    pub fn value(&self, found: Found) -> &Value {
        &self.entry(found).value
    }

    /// The name of a key found.
    pub fn key(&self, found: Found) -> &[u8] {
        self.entry(found).key.as_slice()
    }

    /// Changes a value in place, keeping account of its memory.
    pub(super) fn update<R>(&mut self, found: Found, change: impl FnOnce(&mut Value) -> R) -> R {
        let entry = self.entries.get_mut(found.0);
        let entry = entry.expect("a key found stays until the keyspace is changed");
        let before = entry.value.heap_bytes();
        let result = change(&mut entry.value);
        self.heap_bytes = self.heap_bytes - before + entry.value.heap_bytes();
        result
    }

    /// Whether a key found has a deadline.
    pub(super) fn has_deadline(&self, found: Found) -> bool {
        self.entry(found).deadline != NO_DEADLINE
    }

    /// When a key found expires, in unix milliseconds.
    pub fn deadline(&self, found: Found) -> Option<u64> {
        let deadline = self.entry(found).deadline;
        self.deadlines.get(deadline as usize).map(|deadline| deadline.at_ms)
    }

    /// Gives a key found a deadline, or takes it away.
    pub(super) fn set_deadline(&mut self, found: Found, at_ms: Option<u64>) {
        match at_ms {
            None => self.remove_deadline(found.0),
            Some(at_ms) => {
                let index = self.entry(found).deadline;
                if let Some(deadline) = self.deadlines.get_mut(index as usize) {
                    deadline.at_ms = at_ms;
                    return;
                }
                let index = self.deadlines.len() as u32;
                self.deadlines.push(Deadline { at_ms, place: found.0 });
                if let Some(entry) = self.entries.get_mut(found.0) {
                    entry.deadline = index;
                }
            }
        }
    }

    /// Gives a key found a string value.
    #[inline]
    pub(super) fn assign(&mut self, found: Found, content: &[u8]) {
        self.update(found, |value| {
            if !value.overwrite_string(content) {
                *value = Value::String(Text::new(content));
            }
        });
    }

    /// Gives a key found another value.
    pub(super) fn replace(&mut self, found: Found, value: Value) {
        self.update(found, |old| *old = value);
    }

    /// Removes a key found; answers its value and deadline.
    pub(super) fn remove(&mut self, found: Found) -> (Value, Option<u64>) {
        let removed = self.remove_place(found.0);
        removed.expect("a key found stays until the keyspace is changed")
    }

    /// Drops the keys of one chunk of a keyspace that is used no more, for what else there is to do
    /// meanwhile. Answers whether any may be left.
    pub(super) fn drop_some(&mut self) -> bool {
        let Some(chunk) = self.entries.pop_chunk() else { return false };
        for entry in chunk.into_iter().flatten() {
            self.heap_bytes -= entry.key.heap_bytes() + entry.value.heap_bytes();
        }
        true
    }

    /// Visits keys at places from `cursor` on, until `count` places have been seen. Answers where
    /// to go on, or `None` at the end. A key that is there throughout a scan is visited exactly
    /// once.
    pub fn scan(
        &self,
        cursor: u32,
        count: usize,
        now_ms: u64,
        mut visit: impl FnMut(&[u8], &Value),
    ) -> Option<u32> {
        let end = self.entries.end();
        let until = u32::try_from(count).map_or(end, |count| cursor.saturating_add(count).min(end));
        for place in cursor..until {
            if let Some(entry) = self.entries.get(Place(place))
                && !self.is_past(entry, now_ms)
            {
                visit(entry.key.as_slice(), &entry.value);
            }
        }
        (until < end).then_some(until)
    }

    /// A key near the place that `random` picks, or any other that has not expired.
    pub fn random(&self, random: u64, now_ms: u64) -> Option<&[u8]> {
        let end = u64::from(self.entries.end());
        let start = random.checked_rem(end)?;
        let places = (start..end).chain(0..start);
        let mut entries = places.filter_map(|place| self.entries.get(Place(place as u32)));
        let entry = entries.find(|entry| !self.is_past(entry, now_ms))?;
        Some(entry.key.as_slice())
    }

    /// Goes on to the next deadline; answers its key if it has passed.
    pub(super) fn next_deadline(&mut self, now_ms: u64) -> Option<Found> {
        // Downwards: what a removal moves into a gap comes from above, and has been seen.
        if self.expiry_cursor == 0 || self.expiry_cursor > self.deadlines.len() {
            self.expiry_cursor = self.deadlines.len();
        }
        self.expiry_cursor = self.expiry_cursor.checked_sub(1)?;
        let deadline = self.deadlines[self.expiry_cursor];
        (deadline.at_ms <= now_ms).then_some(Found(deadline.place))
    }

    /// When a key found was used, or how often.
    pub(super) fn stamp(&self, found: Found) -> Stamp {
        self.entry(found).stamp
    }

    /// Notes that a key found is being used; answers its value.
    #[inline]
    pub(super) fn touch(&mut self, found: Found, meter: &mut Meter) -> &mut Value {
        let entry = self.entries.get_mut(found.0);
        let entry = entry.expect("a key found stays until the keyspace is changed");
        let stamp = meter.used(entry.stamp);
        // Memory that is only read stays clean.
        if stamp != entry.stamp {
            entry.stamp = stamp;
        }
        &mut entry.value
    }

    /// A key near the place that `random` picks, expired or not.
    pub(super) fn sample(&self, random: u64) -> Option<Found> {
        let start = Place(random.checked_rem(u64::from(self.entries.end()))? as u32);
        self.entries.next(start).or_else(|| self.entries.next(Place(0))).map(Found)
    }

    /// A key with a deadline, as `random` picks it.
    pub(super) fn sample_deadline(&self, random: u64) -> Option<Found> {
        let index = random.checked_rem(self.deadlines.len() as u64)?;
        Some(Found(self.deadlines[index as usize].place))
    }

    fn entry(&self, found: Found) -> &Entry {
        self.entries.get(found.0).expect("a key found stays until the keyspace is changed")
    }

    /// The kept half of the key's hash.
    #[inline]
    pub(super) fn hash(&self, key: &[u8]) -> u32 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(key);
        let hash = hasher.finish();
        (hash ^ (hash >> 32)) as u32
    }

    #[inline]
    fn place_of(&self, hash: u32, key: &[u8]) -> Option<Place> {
        let same = |bucket: &Bucket| {
            bucket.hash == hash
                && self.entries.get(bucket.place).is_some_and(|entry| entry.key.as_slice() == key)
        };
        self.index.find(spread(hash), same).map(|bucket| bucket.place)
    }

    fn is_past(&self, entry: &Entry, now_ms: u64) -> bool {
        let deadline = self.deadlines.get(entry.deadline as usize);
        deadline.is_some_and(|deadline| deadline.at_ms <= now_ms)
    }

    /// Treats the deadline of a key found as told; answers whether that was to do anything.
    #[inline]
    pub(super) fn apply(&mut self, found: Found, expiry: Expiry) -> bool {
        match expiry {
            Expiry::Keep => false,
            Expiry::Never => {
                let has_deadline = self.entry(found).deadline != NO_DEADLINE;
                if has_deadline {
                    self.remove_deadline(found.0);
                }
                has_deadline
            }
            Expiry::At(at_ms) => {
                self.set_deadline(found, Some(at_ms));
                true
            }
        }
    }

    /// Adds a key that is not there.
    pub(super) fn insert(
        &mut self,
        (hash, key): (u32, &[u8]),
        value: Value,
        expiry: Expiry,
        stamp: Stamp,
    ) -> Found {
        let key = Key::new(key);
        self.heap_bytes += key.heap_bytes() + value.heap_bytes();
        let place = self.entries.insert(Entry { key, value, deadline: NO_DEADLINE, stamp });
        let rehash = |bucket: &Bucket| spread(bucket.hash);
        self.index.insert_unique(spread(hash), Bucket { hash, place }, rehash);
        self.apply(Found(place), expiry);
        Found(place)
    }

    fn remove_place(&mut self, place: Place) -> Option<(Value, Option<u64>)> {
        let deadline = self.deadline(Found(place));
        self.remove_deadline(place);
        let entry = self.entries.remove(place)?;
        let hash = self.hash(entry.key.as_slice());
        if let Ok(bucket) = self.index.find_entry(spread(hash), |bucket| bucket.place == place) {
            bucket.remove();
        }
        if self.index.capacity() > INDEX_COUNT_KEPT && self.index.len() < self.index.capacity() / 8
        {
            // It counts against the limit of memory, so it must not outlive its keys for ever.
            self.index.shrink_to(2 * self.index.len(), |bucket| spread(bucket.hash));
        }
        self.heap_bytes -= entry.key.heap_bytes() + entry.value.heap_bytes();
        Some((entry.value, deadline))
    }

    fn remove_deadline(&mut self, place: Place) {
        let Some(entry) = self.entries.get_mut(place) else { return };
        let index = std::mem::replace(&mut entry.deadline, NO_DEADLINE);
        if index == NO_DEADLINE {
            return;
        }
        self.deadlines.swap_remove(index as usize);
        if self.deadlines.len() < self.deadlines.capacity() / 4 {
            self.deadlines.shrink_to(self.deadlines.capacity() / 2);
        }
        if let Some(moved) = self.deadlines.get(index as usize).copied()
            && let Some(entry) = self.entries.get_mut(moved.place)
        {
            entry.deadline = index;
        }
    }
}

/// Spreads the kept half of a hash over the width that the index wants, top bits included.
#[inline]
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
#[path = "keyspace_tests.rs"]
mod tests;
