//! A slice of the keyspace. Lent by [`super::access`] to commands, made by recovery.
//!
//! Invariant: what has changed since the last [`Partition::changes`] was handed over is in them.

use super::capture::Capture;
use super::database::{Database, Ledger};
use super::eviction::Pool;
use super::journal::Keeping;
use super::memory::Usage;
use super::{Change, DATABASES_COUNT, Expiry, Found, Keyspace, Stats, Value};
use crate::log::Lsn;

/// Keys that are freed together when a database is emptied; more are left to the expiry cycle.
const FLUSH_COUNT: usize = 4096;

/// A slice of the keyspace: the keys of some slots, in every database.
#[derive(Debug, Default)]
pub struct Partition {
    pub(super) keyspaces: [Keyspace; DATABASES_COUNT],
    slots: (u16, u16),
    /// What happened here.
    pub stats: Stats,
    /// The database that the expiry cycle comes to next.
    expiry_database: usize,
    /// Databases that were emptied, to be dropped bit by bit.
    emptied: Vec<Keyspace>,
    /// Keys that may be the next to be evicted.
    pub(super) pool: Pool,
    pub(super) ledger: Ledger,
}

impl Partition {
    /// The keys of database `db`. Panics unless `db` is below [`DATABASES_COUNT`].
    #[inline]
    pub fn database(&mut self, db: usize) -> Database<'_> {
        Database {
            number: db,
            keyspace: &mut self.keyspaces[db],
            ledger: &mut self.ledger,
            stats: &mut self.stats,
        }
    }

    /// The keys of database `db`, to look at.
    #[inline]
    pub fn keyspace(&self, db: usize) -> &Keyspace {
        &self.keyspaces[db]
    }

    /// The keys of database `db`, to look at many of them: what the visit sees is all that has
    /// happened.
    pub fn survey(&mut self, db: usize) -> &Keyspace {
        self.ledger.journal.see_all();
        &self.keyspaces[db]
    }

    /// Every database, in order.
    pub fn keyspaces(&self) -> &[Keyspace] {
        &self.keyspaces
    }

    /// Finds `key` in database `db` for a command that changes it.
    #[inline]
    pub fn find(&mut self, db: usize, key: &[u8], now_ms: u64) -> Option<Found> {
        self.database(db).find(key, now_ms)
    }

    /// Finds `key` in database `db` for a command that asks about it, which is no use of the key.
    #[inline]
    pub fn peek(&mut self, db: usize, key: &[u8], now_ms: u64) -> Option<Found> {
        self.database(db).peek(key, now_ms)
    }

    /// Finds `key` in database `db` for a command that reads it; counts a hit or a miss.
    #[inline]
    pub fn read(&mut self, db: usize, key: &[u8], now_ms: u64) -> Option<&Value> {
        match self.peek(db, key, now_ms) {
            Some(found) => {
                self.stats.hits += 1;
                Some(self.keyspaces[db].touch(found, &mut self.ledger.meter))
            }
            None => {
                self.stats.misses += 1;
                None
            }
        }
    }

    /// An empty partition that owns these slots: the first, and the one behind the last.
    pub fn new(slots: (u16, u16)) -> Self {
        Self { slots, ..Self::default() }
    }

    /// The slots that it owns: the first, and the one behind the last. None where it is no part of
    /// a store.
    pub fn slots(&self) -> (u16, u16) {
        self.slots
    }

    /// Empties database `db`.
    pub fn flush(&mut self, db: usize) {
        let slots = self.slots;
        let keyspace = std::mem::take(&mut self.keyspaces[db]);
        let emptied = match &mut self.ledger.capture {
            Some(capture) => capture.after_flush(db, keyspace),
            None => Some(keyspace),
        };
        // What is small is dropped here and now.
        self.emptied.extend(emptied.filter(|keyspace| keyspace.len() > FLUSH_COUNT));
        self.ledger.in_use &= !(1 << db);
        self.ledger.unpublished = true;
        self.ledger.journal.write_all(Change::Flush { db, slots });
    }

    /// Keeps changes for a log from now on, or none.
    pub fn keep(&mut self, keeping: Keeping) {
        self.ledger.journal.keep(keeping);
    }

    /// What is kept.
    pub fn keeping(&self) -> Keeping {
        self.ledger.journal.keeping()
    }

    /// The changes since they were last handed over, back to back.
    #[inline]
    pub fn changes(&self) -> &[u8] {
        self.ledger.journal.changes()
    }

    /// Notes that the changes are part of record `lsn` now.
    pub fn changes_handed_over(&mut self, lsn: Lsn) {
        self.ledger.journal.handed_over(lsn);
    }

    /// Takes on changes that others have made to this partition's content, for its log.
    pub fn adopt(&mut self, mut changes: &[u8]) {
        while let Ok(Some(change)) = Change::decode(&mut changes) {
            let hash = change.key().map_or(0, |key| self.keyspaces[change.db()].hash(key));
            self.ledger.journal.write(hash, change);
        }
    }

    /// Takes the changes, for a record that the caller puts together: out of a partition that
    /// belongs to no log, or of one that is told by [`Partition::note_changes`] which record it
    /// was.
    pub fn take_changes(&mut self) -> Vec<u8> {
        self.ledger.journal.take_changes()
    }

    /// The latest record whose changes have been seen since this was last asked.
    #[inline]
    pub fn take_seen(&mut self) -> Lsn {
        self.ledger.journal.take_seen()
    }

    /// Notes that a key of this partition was changed in record `lsn`, whose changes are made by
    /// [`super::loan::Loan::put`].
    pub fn note(&mut self, db: usize, key: &[u8], lsn: Lsn) {
        self.ledger.journal.note(self.keyspaces[db].hash(key), lsn);
    }

    /// Notes that `changes`, which were taken from this partition, are part of record `lsn` now.
    pub fn note_changes(&mut self, mut changes: &[u8], lsn: Lsn) {
        while let Ok(Some(change)) = Change::decode(&mut changes) {
            match change.key() {
                Some(key) => self.note(change.db(), key, lsn),
                None => self.ledger.journal.note_all(lsn),
            }
        }
    }

    /// Makes a change that comes from a log or a snapshot. One that makes no sense here, because
    /// its key is missing, is passed over: answers whether it made sense.
    pub fn replay(&mut self, change: &Change<'_>) -> bool {
        let at = |deadline: Option<u64>| deadline.map_or(Expiry::Never, Expiry::At);
        let mut database = self.database(change.db());
        if let Change::Set { key, value, deadline, .. } = *change {
            database.set_string(key, value, at(deadline));
            return true;
        }
        let found = change.key().and_then(|key| database.find(key, 0));
        match (*change, found) {
            (Change::Delete { .. }, Some(found)) => {
                database.remove(found);
                true
            }
            (Change::Deadline { deadline, .. }, Some(found)) => {
                database.set_deadline(found, deadline);
                true
            }
            (Change::Append { tail, .. }, Some(found)) => database.append(found, tail).is_ok(),
            (Change::Write { offset, piece, .. }, Some(found)) => {
                database.write_at(found, offset, piece).is_ok()
            }
            (Change::Flush { db, slots }, _) => {
                self.flush_slots(db, slots);
                true
            }
            (Change::Set { .. }, _) | (_, None) => false,
        }
    }

    /// Removes every key of these slots from database `db`.
    fn flush_slots(&mut self, db: usize, slots: (u16, u16)) {
        let mut cursor = Some(0);
        let mut names: Vec<Vec<u8>> = Vec::new();
        while let Some(from) = cursor {
            cursor = self.keyspaces[db].scan(from, usize::MAX, 0, |key, _| {
                if (slots.0..slots.1).contains(&super::slots::slot_of(key)) {
                    names.push(key.to_vec());
                }
            });
        }
        if names.len() == self.keyspaces[db].len() {
            self.keyspaces[db] = Keyspace::default();
            return;
        }
        for name in names {
            if let Some(found) = self.find(db, &name, 0) {
                self.database(db).remove(found);
            }
        }
    }

    /// Begins to capture the content as it is now. Panics if a capture is under way.
    pub fn begin_capture(&mut self) {
        assert!(self.ledger.capture.is_none(), "one capture at a time");
        assert!(self.changes().is_empty(), "a capture begins between visits");
        self.ledger.capture = Some(Box::new(Capture::new(&self.keyspaces)));
    }

    /// Goes on with a capture until `bytes` wait to be taken or `places` have been looked at.
    /// Answers whether all is there, or `None` if there is no capture.
    pub fn walk_capture(&mut self, bytes: usize, places: usize) -> Option<bool> {
        let capture = self.ledger.capture.as_mut()?;
        let is_whole = capture.walk(&self.keyspaces, bytes, places);
        self.emptied.extend(capture.take_needless());
        Some(is_whole)
    }

    /// The capture that is under way.
    pub fn capture(&mut self) -> Option<&mut Capture> {
        self.ledger.capture.as_deref_mut()
    }

    /// Bytes of the capture under way that wait to be taken.
    #[inline]
    pub fn captured_bytes(&self) -> usize {
        self.ledger.capture.as_ref().map_or(0, |capture| capture.waiting_bytes())
    }

    /// Ends a capture, complete or not.
    pub fn end_capture(&mut self) {
        if let Some(capture) = self.ledger.capture.take() {
            self.emptied.extend(capture.into_emptied());
        }
    }

    /// Frees some of the memory of databases that were emptied, if there are any; answers whether
    /// there were. The databases themselves are empty from the moment they are told to be.
    pub fn drop_some(&mut self) -> bool {
        let Some(last) = self.emptied.last_mut() else { return false };
        if !last.drop_some() {
            self.emptied.pop();
        }
        true
    }

    /// Memory taken, in bytes, as the allocator counts it.
    pub fn bytes(&self) -> usize {
        let keyspaces = self.keyspaces.iter().chain(&self.emptied);
        keyspaces.map(Keyspace::bytes).sum::<usize>() + self.ledger.journal.bytes()
    }

    /// What counts against the limit: what is taken, less what new keys come to lie in.
    #[inline]
    pub fn usage(&self) -> Usage {
        let mut usage = Usage { bytes: self.ledger.journal.bytes(), ..Usage::default() };
        for db in self.databases_in_use() {
            let keyspace = &self.keyspaces[db];
            usage.bytes += keyspace.bytes() - keyspace.spare_bytes();
            usage.keys += keyspace.len();
            usage.deadlines += keyspace.deadlines_len();
        }
        usage
    }

    /// The databases that may hold keys, nearly always few.
    #[inline]
    pub(super) fn databases_in_use(&self) -> impl Iterator<Item = usize> + use<> {
        let mut left = self.ledger.in_use;
        std::iter::from_fn(move || {
            let db = (left != 0).then_some(left.trailing_zeros() as usize)?;
            left &= left - 1;
            Some(db)
        })
    }

    /// Whether [`Partition::usage`] may have changed since this was last asked.
    #[inline]
    pub(super) fn take_unpublished(&mut self) -> bool {
        std::mem::take(&mut self.ledger.unpublished)
    }

    /// Tells what time it is: uses of keys are dated by it.
    #[inline]
    pub fn tick(&mut self, now_ms: u64) {
        self.ledger.meter.now_ms = now_ms;
    }

    /// Counts uses of keys from now on, or dates them.
    #[inline]
    pub(super) fn count_uses(&mut self, counts_uses: bool) {
        self.ledger.meter.count_uses(counts_uses);
    }

    /// Whether uses of keys are counted.
    pub(super) fn counts_uses(&self) -> bool {
        self.ledger.meter.counts_uses()
    }

    /// Milliseconds since a key found was used; `None` where uses are counted instead.
    pub fn idle_ms(&self, db: usize, found: Found) -> Option<u64> {
        let meter = &self.ledger.meter;
        (!meter.counts_uses()).then(|| meter.idle_ms(self.keyspaces[db].stamp(found)))
    }

    /// How often a key found is used, from 0 to 255 on a logarithmic scale; `None` where uses are
    /// dated instead.
    pub fn frequency(&self, db: usize, found: Found) -> Option<u32> {
        let meter = &self.ledger.meter;
        meter.counts_uses().then(|| meter.frequency(self.keyspaces[db].stamp(found)))
    }

    /// One step of the expiry cycle: looks at up to `budget` deadlines and removes what has
    /// expired. Answers how many keys it removed: many means that another step is worth it.
    pub fn expire_some(&mut self, now_ms: u64, budget: usize) -> usize {
        let before = self.stats.expired;
        let mut left = budget;
        for _ in 0..DATABASES_COUNT {
            left -= self.database(self.expiry_database).expire_some(now_ms, left);
            // Also when nothing is left: the next step is another database's.
            self.expiry_database = (self.expiry_database + 1) % DATABASES_COUNT;
            if left == 0 {
                break;
            }
        }
        (self.stats.expired - before) as usize
    }

    /// A number that is hard to foresee but not secret, from `seed` and what came before.
    pub fn random(&mut self, seed: u64) -> u64 {
        self.ledger.meter.random(seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_expiry_cycle_removes_all_in_bounded_steps() {
        let mut partition = Partition::default();
        for number in 0..1000u32 {
            let db = (number % 3) as usize;
            let key = number.to_be_bytes();
            let expiry = if number < 900 { Expiry::At(50) } else { Expiry::At(500) };
            partition.database(db).set_string(&key, b"v", expiry);
        }
        assert_eq!(partition.expire_some(49, 10_000), 0);
        let mut steps = 0;
        while partition.stats.expired < 900 {
            assert!(partition.expire_some(50, 100) <= 100);
            steps += 1;
            assert!(steps < 30);
        }
        assert_eq!(partition.keyspaces().iter().map(Keyspace::len).sum::<usize>(), 100);
    }

    #[test]
    fn the_expiry_cycle_comes_to_every_database() {
        let mut partition = Partition::default();
        for number in 0..200u32 {
            partition.database(0).set_string(&number.to_be_bytes(), b"v", Expiry::At(500));
        }
        partition.database(9).set_string(b"due", b"v", Expiry::At(50));
        let removed: usize = (0..2).map(|_| partition.expire_some(50, 100)).sum();
        assert_eq!(removed, 1);
    }

    #[test]
    fn what_was_flushed_is_freed_in_steps() {
        let mut partition = Partition::default();
        for number in 0..5000u32 {
            let key = [number.to_be_bytes().as_slice(), &[0; 40]].concat();
            partition.database(0).set_string(&key, &[0; 100], Expiry::Never);
        }
        let before = partition.bytes();
        partition.flush(0);
        assert_eq!(partition.usage().keys, 0);
        assert_eq!(partition.bytes(), before);
        let mut left = before;
        let mut steps = 0;
        while partition.drop_some() {
            assert!(partition.bytes() < left || steps == 5, "the tables go with the last step");
            left = partition.bytes();
            steps += 1;
        }
        assert_eq!((steps, left), (6, 0));
    }

    #[test]
    fn reads_count_hits_and_misses() {
        let mut partition = Partition::default();
        partition.database(3).set_string(b"k", b"v", Expiry::At(10));
        assert!(partition.read(3, b"k", 9).is_some());
        assert!(partition.read(0, b"k", 9).is_none());
        assert!(partition.read(3, b"k", 10).is_none());
        assert_eq!(partition.stats, Stats { hits: 1, misses: 2, expired: 0, evicted: 0 });
    }

    #[test]
    fn who_reads_an_expired_key_leaves_its_removal_to_others() {
        let mut partition = Partition::default();
        partition.keep(Keeping::Changes);
        partition.database(0).set_string(b"k", b"v", Expiry::At(10));
        partition.changes_handed_over(Lsn(5));
        assert!(partition.read(0, b"k", 10).is_none());
        assert!(partition.peek(0, b"k", 10).is_none());
        assert!(partition.changes().is_empty());
        // What made the key expire must be durable before that is told.
        assert_eq!(partition.take_seen(), Lsn(5));
        assert_eq!(partition.expire_some(10, 1), 1);
        assert!(!partition.changes().is_empty());
        partition.changes_handed_over(Lsn(6));
        assert!(partition.read(0, b"k", 10).is_none());
        let _ = partition.survey(0);
        assert_eq!(partition.take_seen(), Lsn(5), "nobody waits for the removal");
    }

    #[test]
    fn who_changes_an_expired_key_removes_it_first() {
        let mut partition = Partition::default();
        partition.database(0).set_string(b"k", b"v", Expiry::At(10));
        assert!(partition.find(0, b"k", 10).is_none());
        assert!(partition.keyspace(0).is_empty());
        assert_eq!(partition.stats, Stats { expired: 1, ..Stats::default() });
    }
}
