//! A partition's content at one moment, taken piece by piece while the partition goes on changing.
//! Begun and walked by the snapshot, told of every change by [`super::database::Database`].
//!
//! Invariant: every key that was there at the beginning comes out exactly once, as it was then: by
//! the walk, or just before it is changed for the first time, whichever happens earlier.

use super::DATABASES_COUNT;
use super::change::encode_set;
use super::keyspace::{Found, Keyspace};
use super::slab::Place;

/// The walk over one database.
#[derive(Debug, Default)]
struct Walk {
    /// Places below have been walked over.
    cursor: u32,
    /// Places from here on were not used at the beginning.
    end: u32,
    /// A bit for each place that the walk leaves out: its key came out early, or came later.
    done: Vec<u64>,
    /// The database was emptied after the beginning: what it held until then.
    emptied: Option<Box<Keyspace>>,
}

impl Walk {
    fn new(keyspace: &Keyspace) -> Self {
        let end = keyspace.end();
        Self { end, done: vec![0; (end as usize).div_ceil(64)], ..Self::default() }
    }

    /// Whether the walk will come by `place` in the database that is in use.
    fn is_ahead(&self, place: Place) -> bool {
        self.emptied.is_none() && place.0 >= self.cursor && place.0 < self.end
    }

    /// Marks a place as done; whether it was not done already.
    fn mark(&mut self, place: Place) -> bool {
        let (word, bit) = (place.0 as usize / 64, 1 << (place.0 % 64));
        let fresh = self.done[word] & bit == 0;
        self.done[word] |= bit;
        fresh
    }

    fn is_done(&self, place: Place) -> bool {
        self.done[place.0 as usize / 64] & (1 << (place.0 % 64)) != 0
    }
}

/// A partition's content at one moment, on its way out.
#[derive(Debug)]
pub struct Capture {
    walks: [Walk; DATABASES_COUNT],
    /// What has come out and was not taken yet, as changes.
    out: Vec<u8>,
    keys: u64,
}

impl Capture {
    pub(super) fn new(keyspaces: &[Keyspace; DATABASES_COUNT]) -> Self {
        Self { walks: keyspaces.each_ref().map(Walk::new), out: Vec::new(), keys: 0 }
    }

    /// The key found in database `db` is about to be changed or removed.
    pub(super) fn before_change(&mut self, db: usize, keyspace: &Keyspace, found: Found) {
        let walk = &mut self.walks[db];
        if walk.is_ahead(found.place()) && walk.mark(found.place()) {
            put(&mut self.out, db, keyspace, found);
            self.keys += 1;
        }
    }

    /// The key found in database `db` has just been added.
    pub(super) fn after_insertion(&mut self, db: usize, found: Found) {
        let walk = &mut self.walks[db];
        if walk.is_ahead(found.place()) {
            walk.mark(found.place());
        }
    }

    /// Database `db` was emptied; `keyspace` is what it held.
    pub(super) fn after_flush(&mut self, db: usize, keyspace: Keyspace) {
        let walk = &mut self.walks[db];
        if walk.emptied.is_none() && walk.cursor < walk.end {
            walk.emptied = Some(Box::new(keyspace));
        }
    }

    /// Walks on until the content that waits to be taken reaches `bytes`, or to the end. Answers
    /// whether it has come to the end.
    pub(super) fn walk(
        &mut self,
        keyspaces: &[Keyspace; DATABASES_COUNT],
        bytes: usize,
        places: usize,
    ) -> bool {
        let mut left = places;
        for (db, walk) in self.walks.iter_mut().enumerate() {
            while walk.cursor < walk.end {
                if self.out.len() >= bytes || left == 0 {
                    return false;
                }
                left -= 1;
                let place = Place(walk.cursor);
                let keyspace = walk.emptied.as_deref().unwrap_or(&keyspaces[db]);
                if !walk.is_done(place)
                    && let Some(found) = keyspace.at(place)
                {
                    put(&mut self.out, db, keyspace, found);
                    self.keys += 1;
                }
                walk.cursor += 1;
            }
            walk.emptied = None;
        }
        true
    }

    /// What has come out since the last time, as changes back to back.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// Bytes that wait to be taken.
    pub fn waiting_bytes(&self) -> usize {
        self.out.len()
    }

    /// How many keys have come out.
    pub fn keys(&self) -> u64 {
        self.keys
    }
}

fn put(out: &mut Vec<u8>, db: usize, keyspace: &Keyspace, found: Found) {
    let super::Value::String(text) = keyspace.value(found);
    encode_set(out, db, keyspace.key(found), text.as_slice(), keyspace.deadline(found));
}

#[cfg(test)]
#[path = "capture_tests.rs"]
mod tests;
