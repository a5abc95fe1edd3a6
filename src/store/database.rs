//! One database of one partition, as commands work on it. Lent by [`super::Partition::database`].
//!
//! Invariant: this is the only way to change a keyspace. Every change is kept in the journal, and a
//! capture of the content is told before it happens.

use std::ops::Deref;

use super::bytes::Text;
use super::capture::Capture;
use super::change::Change;
use super::journal::Journal;
use super::keyspace::{Expiry, Found, Keyspace};
use super::recency::{Meter, Stamp};
use super::stats::Stats;
use super::value::{Value, WrongType};

/// Who is told of changes.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) journal: Journal,
    pub(super) capture: Option<Box<Capture>>,
    pub(super) meter: Meter,
    /// A bit for each database that may hold keys.
    pub(super) in_use: u16,
    /// Whether memory may have been taken or given back since this was last unset.
    pub(super) unpublished: bool,
}

const _: () = assert!(super::DATABASES_COUNT <= u16::BITS as usize);

/// What a key held that was taken out, to be put back.
#[derive(Debug)]
pub(super) struct Taken {
    value: Value,
    deadline: Option<u64>,
    stamp: Stamp,
}

/// A database at work.
#[derive(Debug)]
pub struct Database<'a> {
    pub(super) number: usize,
    pub(super) keyspace: &'a mut Keyspace,
    pub(super) ledger: &'a mut Ledger,
    pub(super) stats: &'a mut Stats,
}

impl Deref for Database<'_> {
    type Target = Keyspace;

    #[inline]
    fn deref(&self) -> &Keyspace {
        self.keyspace
    }
}

impl Database<'_> {
    /// Finds `key` for a command that changes it, which is a use of it. One whose deadline has
    /// passed is removed.
    #[inline]
    pub fn find(&mut self, key: &[u8], now_ms: u64) -> Option<Found> {
        let found = self.see(key)?;
        if self.keyspace.is_due(found, now_ms) {
            self.expire(found);
            return None;
        }
        self.touch(found);
        Some(found)
    }

    /// Finds `key` for a command that asks about it, which is no use of it. One whose deadline has
    /// passed is not there, and is left to the expiry cycle: whoever reads changes nothing, and so
    /// never waits for the disk on that account.
    #[inline]
    pub fn peek(&mut self, key: &[u8], now_ms: u64) -> Option<Found> {
        let found = self.see(key)?;
        (!self.keyspace.is_due(found, now_ms)).then_some(found)
    }

    /// Notes that a key found is being used.
    #[inline]
    pub fn touch(&mut self, found: Found) {
        self.keyspace.touch(found, &mut self.ledger.meter);
    }

    /// Finds `key`, even if its deadline has passed. What the caller tells of it waits for its last
    /// change.
    #[inline]
    fn see(&mut self, key: &[u8]) -> Option<Found> {
        let hash = self.keyspace.hash(key);
        self.ledger.journal.see(hash);
        self.keyspace.lookup(hash, key)
    }

    /// Sets a string key to `content`, new or not.
    #[inline]
    pub fn set_string(&mut self, key: &[u8], content: &[u8], expiry: Expiry) {
        let hash = self.keyspace.hash(key);
        let found = match self.keyspace.lookup(hash, key) {
            Some(found) => {
                self.capture(found);
                // Equally long content, which is frequent, takes no more memory and no less.
                let value = self.keyspace.touch(found, &mut self.ledger.meter);
                let mut resized = !value.overwrite_string(content);
                if resized {
                    self.keyspace.assign(found, content);
                }
                resized |= self.keyspace.apply(found, expiry);
                self.ledger.unpublished |= resized;
                found
            }
            None => self.insert(hash, key, Value::String(Text::new(content)), expiry),
        };
        let deadline = if expiry == Expiry::Never { None } else { self.keyspace.deadline(found) };
        let (db, value) = (self.number, content);
        self.ledger.journal.write(hash, Change::Set { db, key, value, deadline });
    }

    /// Sets `key` to `value`, new or not.
    pub fn set(&mut self, key: &[u8], value: Value, expiry: Expiry) {
        let hash = self.keyspace.hash(key);
        let found = match self.keyspace.lookup(hash, key) {
            Some(found) => {
                self.before_change(found);
                self.keyspace.replace(found, value);
                self.keyspace.apply(found, expiry);
                found
            }
            None => self.insert(hash, key, value, expiry),
        };
        let deadline = self.keyspace.deadline(found);
        let Value::String(text) = self.keyspace.value(found);
        let change = Change::Set { db: self.number, key, value: text.as_slice(), deadline };
        self.ledger.journal.write(hash, change);
    }

    /// Gives a string key found the new content, and leaves its deadline alone.
    pub fn assign_string(&mut self, found: Found, content: &[u8]) {
        self.before_change(found);
        self.keyspace.assign(found, content);
        let (key, deadline) = (self.keyspace.key(found), self.keyspace.deadline(found));
        let change = Change::Set { db: self.number, key, value: content, deadline };
        self.ledger.journal.write(self.keyspace.hash(key), change);
    }

    /// Appends to the string of a key found; answers its length.
    pub fn append(&mut self, found: Found, tail: &[u8]) -> Result<usize, WrongType> {
        self.keyspace.value(found).as_string()?;
        self.before_change(found);
        let len = self.keyspace.update(found, |value| {
            let bytes = value.as_string_mut()?.grow();
            bytes.extend_from_slice(tail);
            Ok(bytes.len())
        })?;
        let key = self.keyspace.key(found);
        let change = Change::Append { db: self.number, key, tail };
        self.ledger.journal.write(self.keyspace.hash(key), change);
        Ok(len)
    }

    /// Overwrites a part of the string of a key found, with zeros in a gap before it; answers the
    /// string's length.
    pub fn write_at(
        &mut self,
        found: Found,
        offset: usize,
        piece: &[u8],
    ) -> Result<usize, WrongType> {
        self.keyspace.value(found).as_string()?;
        self.before_change(found);
        let len = self.keyspace.update(found, |value| {
            let bytes = value.as_string_mut()?.grow();
            let end = offset + piece.len();
            bytes.resize(bytes.len().max(end), 0);
            bytes[offset..end].copy_from_slice(piece);
            Ok(bytes.len())
        })?;
        let key = self.keyspace.key(found);
        let change = Change::Write { db: self.number, key, offset, piece };
        self.ledger.journal.write(self.keyspace.hash(key), change);
        Ok(len)
    }

    /// Gives a key found a deadline, or takes it away.
    pub fn set_deadline(&mut self, found: Found, deadline: Option<u64>) {
        self.before_change(found);
        self.keyspace.set_deadline(found, deadline);
        let key = self.keyspace.key(found);
        let change = Change::Deadline { db: self.number, key, deadline };
        self.ledger.journal.write(self.keyspace.hash(key), change);
    }

    /// Removes a key found; answers its value and deadline.
    pub fn remove(&mut self, found: Found) -> (Value, Option<u64>) {
        let key = self.keyspace.key(found);
        let change = Change::Delete { db: self.number, key };
        self.ledger.journal.write(self.keyspace.hash(key), change);
        self.before_change(found);
        self.keyspace.remove(found)
    }

    /// Removes a key found, to be put back by [`Database::put_back`]; neither a change nor a use.
    pub(super) fn take(&mut self, found: Found) -> Taken {
        self.before_change(found);
        let stamp = self.keyspace.stamp(found);
        let (value, deadline) = self.keyspace.remove(found);
        Taken { value, deadline, stamp }
    }

    /// Puts back what was taken, or what changes known to the log have made of it; neither a change
    /// nor a use. Nothing has come into its place meanwhile.
    pub(super) fn put_back(&mut self, key: &[u8], taken: Taken) {
        let hash = self.keyspace.hash(key);
        assert!(self.keyspace.lookup(hash, key).is_none(), "the place of a key lent stays free");
        let expiry = taken.deadline.map_or(Expiry::Never, Expiry::At);
        self.insert_stamped(hash, key, taken.value, expiry, taken.stamp);
    }

    /// Removes a key found because memory is full.
    pub(super) fn evict(&mut self, found: Found) {
        self.remove(found);
        self.stats.evicted += 1;
    }

    /// Removes expired keys among the next `budget` deadlines; answers how many it looked at.
    pub(super) fn expire_some(&mut self, now_ms: u64, budget: usize) -> usize {
        let looked_at = budget.min(self.keyspace.deadlines_len());
        for _ in 0..looked_at {
            if let Some(found) = self.keyspace.next_deadline(now_ms) {
                self.expire(found);
            }
        }
        looked_at
    }

    /// Removes a key found whose deadline has passed.
    fn expire(&mut self, found: Found) {
        let key = self.keyspace.key(found);
        self.ledger.journal.write_unseen(Change::Delete { db: self.number, key });
        self.take(found);
        self.stats.expired += 1;
    }

    #[inline]
    fn insert(&mut self, hash: u32, key: &[u8], value: Value, expiry: Expiry) -> Found {
        self.insert_stamped(hash, key, value, expiry, self.ledger.meter.fresh())
    }

    fn insert_stamped(
        &mut self,
        hash: u32,
        key: &[u8],
        value: Value,
        expiry: Expiry,
        stamp: Stamp,
    ) -> Found {
        self.ledger.in_use |= 1 << self.number;
        self.ledger.unpublished = true;
        let found = self.keyspace.insert((hash, key), value, expiry, stamp);
        if let Some(capture) = &mut self.ledger.capture {
            capture.after_insertion(self.number, found);
        }
        found
    }

    #[inline]
    fn before_change(&mut self, found: Found) {
        self.ledger.unpublished = true;
        self.capture(found);
    }

    #[inline]
    fn capture(&mut self, found: Found) {
        if let Some(capture) = &mut self.ledger.capture {
            capture.before_change(self.number, self.keyspace, found);
        }
    }
}
