//! What a visit to a partition changed and saw, until it is handed to the log. Filled by
//! [`super::database::Database`], emptied by [`super::access`] at the end of each visit.
//!
//! Invariant: a key's last change is found under its hash, so whoever sees a value that is not
//! durable yet learns which record to wait for. Keys that share a place wait a little too long.

use super::change::Change;
use super::footprint::allocated;
use crate::log::Lsn;

/// Places for hashes of keys changed lately.
const RECENT_COUNT: usize = 2048;
/// A visit with large values, or with many keys, does not keep more room than this for ever.
const SPARE_BYTES_MAX: usize = 64 * 1024;
const SPARE_COUNT_MAX: usize = 4096;

/// Whether changes are kept, and whether readers wait for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keeping {
    /// There is no log: nothing is kept.
    #[default]
    Nothing,
    /// Changes are kept for the log.
    Changes,
}

/// Changes of one visit.
#[derive(Debug, Default)]
pub(super) struct Journal {
    keeping: Keeping,
    changes: Vec<u8>,
    /// Hashes of keys changed in this visit.
    touched: Vec<u32>,
    /// By hash, the record that the last change of such a key is in.
    recent: Vec<Lsn>,
    /// The last record with a change that can be seen.
    last: Lsn,
    /// The latest record whose changes this visit has seen.
    seen: Lsn,
}

impl Journal {
    pub(super) fn keep(&mut self, keeping: Keeping) {
        *self = Self { keeping, ..Self::default() };
        if keeping != Keeping::Nothing {
            self.recent = vec![Lsn::NONE; RECENT_COUNT];
        }
    }

    pub(super) fn keeping(&self) -> Keeping {
        self.keeping
    }

    /// Memory that is taken whatever happens, in bytes. Changes on their way to the log come and
    /// go with every visit, and are no part of the store.
    #[inline]
    pub(super) fn bytes(&self) -> usize {
        allocated(self.recent.capacity() * size_of::<Lsn>())
    }

    /// Keeps a change of the key with this hash.
    #[inline]
    pub(super) fn write(&mut self, hash: u32, change: Change<'_>) {
        if self.keeping != Keeping::Nothing {
            change.encode(&mut self.changes);
            self.touched.push(hash);
        }
    }

    /// Keeps a change that nobody can see, and so nobody waits for: a key goes whose deadline has
    /// passed. It was not there before either, and will not be after a restart without it.
    pub(super) fn write_unseen(&mut self, change: Change<'_>) {
        if self.keeping != Keeping::Nothing {
            change.encode(&mut self.changes);
        }
    }

    /// Keeps a change of many keys: whoever looks at any of them later waits for it.
    pub(super) fn write_all(&mut self, change: Change<'_>) {
        if self.keeping != Keeping::Nothing {
            change.encode(&mut self.changes);
            self.touched.extend(0..RECENT_COUNT as u32);
        }
    }

    /// Notes that the visit looks at a key with this hash.
    #[inline]
    pub(super) fn see(&mut self, hash: u32) {
        if let Some(&lsn) = self.recent.get(hash as usize % RECENT_COUNT) {
            self.seen = self.seen.max(lsn);
        }
    }

    /// Notes that the visit looks at many keys.
    pub(super) fn see_all(&mut self) {
        self.seen = self.seen.max(self.last);
    }

    /// What this visit changed.
    #[inline]
    pub(super) fn changes(&self) -> &[u8] {
        &self.changes
    }

    /// The latest record whose changes the visit has seen; begins anew.
    #[inline]
    pub(super) fn take_seen(&mut self) -> Lsn {
        std::mem::take(&mut self.seen)
    }

    /// The changes are part of record `lsn` now.
    pub(super) fn handed_over(&mut self, lsn: Lsn) {
        for hash in self.touched.drain(..) {
            self.last = self.last.max(lsn);
            self.recent[hash as usize % RECENT_COUNT] = lsn;
        }
        self.touched.shrink_to(SPARE_COUNT_MAX);
        self.changes.clear();
        self.changes.shrink_to(SPARE_BYTES_MAX);
    }

    /// Notes that a key with this hash was changed by others, in record `lsn`.
    pub(super) fn note(&mut self, hash: u32, lsn: Lsn) {
        if let Some(recent) = self.recent.get_mut(hash as usize % RECENT_COUNT) {
            *recent = lsn.max(*recent);
        }
        self.last = self.last.max(lsn);
    }

    /// Notes that many keys were changed by others, in record `lsn`.
    pub(super) fn note_all(&mut self, lsn: Lsn) {
        for recent in &mut self.recent {
            *recent = lsn.max(*recent);
        }
        self.last = self.last.max(lsn);
    }

    /// The changes as bytes, to be logged by others.
    pub(super) fn take_changes(&mut self) -> Vec<u8> {
        self.touched.clear();
        self.touched.shrink_to(SPARE_COUNT_MAX);
        std::mem::take(&mut self.changes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deletion(key: &[u8]) -> Change<'_> {
        Change::Delete { db: 0, key }
    }

    #[test]
    fn without_a_log_nothing_is_kept() {
        let mut journal = Journal::default();
        journal.write(1, deletion(b"k"));
        journal.see(1);
        assert!(journal.changes().is_empty());
        assert_eq!(journal.take_seen(), Lsn::NONE);
    }

    #[test]
    fn a_visit_with_many_keys_keeps_little_room() {
        let mut journal = Journal::default();
        journal.keep(Keeping::Changes);
        let write_many = |journal: &mut Journal| {
            for hash in 0..100_000 {
                journal.write(hash, deletion(b"k"));
            }
        };
        write_many(&mut journal);
        journal.handed_over(Lsn(1));
        assert!(journal.changes.capacity() <= SPARE_BYTES_MAX);
        assert!(journal.touched.capacity() <= SPARE_COUNT_MAX);
        write_many(&mut journal);
        drop(journal.take_changes());
        assert!(journal.touched.capacity() <= SPARE_COUNT_MAX);
    }

    #[test]
    fn a_reader_learns_the_record_of_the_last_change() {
        let mut journal = Journal::default();
        journal.keep(Keeping::Changes);
        journal.write(1, deletion(b"k"));
        assert!(!journal.changes().is_empty());
        journal.handed_over(Lsn(5));
        assert!(journal.changes().is_empty());
        journal.see(2);
        assert_eq!(journal.take_seen(), Lsn::NONE);
        journal.see(1);
        assert_eq!(journal.take_seen(), Lsn(5));
        journal.see_all();
        assert_eq!(journal.take_seen(), Lsn(5));
        journal.note(2, Lsn(6));
        journal.see(2);
        assert_eq!(journal.take_seen(), Lsn(6));
        journal.note_all(Lsn(7));
        journal.see(3);
        assert_eq!(journal.take_seen(), Lsn(7));
    }
}
