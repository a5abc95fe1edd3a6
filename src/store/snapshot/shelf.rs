//! The snapshots that a store has. Kept by whoever makes new ones, to know which old ones may go.
//!
//! Invariant: for each slot the newest snapshot that covers it stays.

use crate::log::{Lsn, Slots};
use crate::store::slots::SLOTS_COUNT;

/// A snapshot: what it holds, and as of when.
pub(super) type Shelved = (Slots, Lsn);

/// The snapshots of a store.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    snapshots: Vec<Shelved>,
}

impl Shelf {
    pub(super) fn new(snapshots: Vec<Shelved>) -> Self {
        Self { snapshots }
    }

    /// As of when there is a snapshot of exactly these slots.
    pub(super) fn lsn_of(&self, slots: Slots) -> Option<Lsn> {
        let same = self.snapshots.iter().filter(|(other, _)| *other == slots);
        same.map(|(_, lsn)| *lsn).max()
    }

    /// Adds a snapshot.
    pub(super) fn put(&mut self, shelved: Shelved) {
        if !self.snapshots.contains(&shelved) {
            self.snapshots.push(shelved);
        }
    }

    /// Forgets those whose slots are all in newer ones; answers which they were.
    pub(super) fn take_needless(&mut self) -> Vec<Shelved> {
        let newest = self.newest();
        let is_needed = |(slots, lsn): &Shelved| {
            let range = usize::from(slots.from)..usize::from(slots.until);
            newest[range].contains(&Some(*lsn))
        };
        self.snapshots.extract_if(.., |shelved| !is_needed(shelved)).collect()
    }

    /// The last record whose effect is in the snapshots, for every slot; none while slots are
    /// missing.
    pub(super) fn covered(&self) -> Option<Lsn> {
        // Nothing is less than anything.
        self.newest().into_iter().min().flatten()
    }

    fn newest(&self) -> Vec<Option<Lsn>> {
        let mut newest = vec![None; SLOTS_COUNT];
        for (slots, lsn) in &self.snapshots {
            for slot in &mut newest[usize::from(slots.from)..usize::from(slots.until)] {
                *slot = (*slot).max(Some(*lsn));
            }
        }
        newest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shelved(from: u16, until: u16, lsn: u64) -> Shelved {
        (Slots { from, until }, Lsn(lsn))
    }

    #[test]
    fn an_old_snapshot_goes_when_newer_ones_hold_all_its_slots() {
        let old = shelved(0, 16384, 10);
        let mut shelf = Shelf::new(vec![old]);
        assert_eq!(shelf.covered(), Some(Lsn(10)));
        shelf.put(shelved(0, 8192, 20));
        assert_eq!(shelf.take_needless(), []);
        assert_eq!(shelf.covered(), Some(Lsn(10)));
        shelf.put(shelved(8192, 16384, 25));
        assert_eq!(shelf.take_needless(), [old]);
        assert_eq!(shelf.covered(), Some(Lsn(20)));
        assert_eq!(shelf.lsn_of(Slots { from: 8192, until: 16384 }), Some(Lsn(25)));
        assert_eq!(shelf.lsn_of(Slots { from: 0, until: 16384 }), None);
    }

    #[test]
    fn a_slot_in_no_snapshot_needs_all_of_the_log() {
        let shelf = Shelf::new(vec![shelved(0, 8191, 10), shelved(8192, 16384, 20)]);
        assert_eq!(shelf.covered(), None);
        assert_eq!(Shelf::default().covered(), None);
    }

    #[test]
    fn a_snapshot_is_not_replaced_by_itself_or_by_an_older_one() {
        let mut shelf = Shelf::new(vec![shelved(0, 16384, 10)]);
        shelf.put(shelved(0, 16384, 10));
        assert_eq!(shelf.take_needless(), []);
        shelf.put(shelved(5, 6, 7));
        assert_eq!(shelf.take_needless(), [shelved(5, 6, 7)]);
        assert_eq!(shelf.covered(), Some(Lsn(10)));
    }
}
