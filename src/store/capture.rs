//! A partition's content at one moment, taken piece by piece while the partition goes on changing.
//! Begun and walked by the snapshot, told of every change by [`super::database::Database`].
//!
//! Invariant: every key that was there at the beginning comes out exactly once, as it was then: by
//! the walk, or just before it is changed for the first time, whichever happens earlier.

use std::collections::VecDeque;

use super::DATABASES_COUNT;
use super::change::encode_set;
use super::keyspace::{Found, Keyspace};
use super::slab::Place;

/// What comes out is handed on in pieces of about this many bytes: none ends within a change, and
/// only the last is shorter.
pub const PIECE_BYTES: usize = 256 * 1024;

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
    /// What has come out and was not taken yet, as changes, in pieces.
    out: VecDeque<Vec<u8>>,
    /// Bytes of these.
    waiting_bytes: usize,
    keys: u64,
}

impl Capture {
    pub(super) fn new(keyspaces: &[Keyspace; DATABASES_COUNT]) -> Self {
        let walks = keyspaces.each_ref().map(Walk::new);
        Self { walks, out: VecDeque::new(), waiting_bytes: 0, keys: 0 }
    }

    /// The key found in database `db` is about to be changed or removed.
    pub(super) fn before_change(&mut self, db: usize, keyspace: &Keyspace, found: Found) {
        let walk = &mut self.walks[db];
        if walk.is_ahead(found.place()) && walk.mark(found.place()) {
            self.waiting_bytes += put(&mut self.out, db, keyspace, found);
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

    /// Database `db` was emptied; `keyspace` is what it held. Gives it back unless it is needed.
    pub(super) fn after_flush(&mut self, db: usize, keyspace: Keyspace) -> Option<Keyspace> {
        let walk = &mut self.walks[db];
        if walk.emptied.is_some() || walk.cursor >= walk.end {
            return Some(keyspace);
        }
        walk.emptied = Some(Box::new(keyspace));
        None
    }

    /// What was kept of databases emptied meanwhile and is needed no more.
    pub(super) fn take_needless(&mut self) -> impl Iterator<Item = Keyspace> {
        let done = |walk: &&mut Walk| walk.cursor >= walk.end;
        let needless = self.walks.iter_mut().filter(done);
        needless.filter_map(|walk| walk.emptied.take()).map(|keyspace| *keyspace)
    }

    /// The same, where nothing is needed any more.
    pub(super) fn into_emptied(self) -> impl Iterator<Item = Keyspace> {
        self.walks.into_iter().filter_map(|walk| walk.emptied).map(|keyspace| *keyspace)
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
                if self.waiting_bytes >= bytes || left == 0 {
                    return false;
                }
                left -= 1;
                let place = Place(walk.cursor);
                let keyspace = walk.emptied.as_deref().unwrap_or(&keyspaces[db]);
                if !walk.is_done(place)
                    && let Some(found) = keyspace.at(place)
                {
                    self.waiting_bytes += put(&mut self.out, db, keyspace, found);
                    self.keys += 1;
                }
                walk.cursor += 1;
            }
        }
        true
    }

    /// The first piece of what has come out and was not taken yet, as changes back to back; empty
    /// if there is none.
    pub fn take(&mut self) -> Vec<u8> {
        let piece = self.out.pop_front().unwrap_or_default();
        self.waiting_bytes -= piece.len();
        piece
    }

    /// Bytes that wait to be taken.
    pub fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Whether it keeps the content of a database that was emptied meanwhile.
    pub fn keeps_emptied(&self) -> bool {
        self.walks.iter().any(|walk| walk.emptied.is_some() && walk.cursor < walk.end)
    }

    /// How many keys have come out.
    pub fn keys(&self) -> u64 {
        self.keys
    }
}

/// Adds a key to the last piece, or begins another; answers how many bytes it took.
fn put(out: &mut VecDeque<Vec<u8>>, db: usize, keyspace: &Keyspace, found: Found) -> usize {
    let super::Value::String(text) = keyspace.value(found);
    if out.back().is_none_or(|piece| piece.len() >= PIECE_BYTES) {
        out.push_back(Vec::with_capacity(PIECE_BYTES + PIECE_BYTES / 8));
    }
    let Some(piece) = out.back_mut() else { return 0 };
    let before = piece.len();
    encode_set(piece, db, keyspace.key(found), text.as_slice(), keyspace.deadline(found));
    piece.len() - before
}

#[cfg(test)]
#[path = "capture_tests.rs"]
mod tests;
