//! Which snapshot each slot comes from, and from which record on the log adds to it. Made by
//! recovery, asked for every change where partitions and snapshots do not match.
//!
//! Invariant: of the snapshots that cover a slot the one with the highest Lsn counts.

use crate::log::{Lsn, Slots};
use crate::store::slots::SLOTS_COUNT;

/// A snapshot's place in the table; `None` where no snapshot covers a slot.
pub(in crate::store) type Choice = Option<u32>;

/// The snapshots, and the choice among them for each slot.
#[derive(Debug)]
pub(in crate::store) struct Coverage {
    snapshots: Vec<(Slots, Lsn)>,
    chosen: Vec<Choice>,
}

impl Coverage {
    pub(in crate::store) fn new(snapshots: &[(Slots, Lsn)]) -> Self {
        let mut snapshots = snapshots.to_vec();
        snapshots.retain(|(slots, _)| slots.is_valid() && usize::from(slots.until) <= SLOTS_COUNT);
        snapshots.sort_by_key(|(_, lsn)| *lsn);
        let mut chosen = vec![None; SLOTS_COUNT];
        for (number, (slots, _)) in (0..).zip(&snapshots) {
            chosen[usize::from(slots.from)..usize::from(slots.until)].fill(Some(number));
        }
        Self { snapshots, chosen }
    }

    /// The snapshots that count for some slot, by number.
    pub(in crate::store) fn used(&self) -> Vec<(u32, Slots, Lsn)> {
        let of_number = |(number, (slots, lsn)): (u32, &(Slots, Lsn))| {
            let range = usize::from(slots.from)..usize::from(slots.until);
            let is_used = self.chosen[range].contains(&Some(number));
            is_used.then_some((number, *slots, *lsn))
        };
        (0..).zip(&self.snapshots).filter_map(of_number).collect()
    }

    /// The snapshots that newer ones have replaced.
    pub(in crate::store) fn superseded(&self) -> Vec<(Slots, Lsn)> {
        let used: Vec<_> = self.used().into_iter().map(|(_, slots, lsn)| (slots, lsn)).collect();
        self.snapshots.iter().copied().filter(|snapshot| !used.contains(snapshot)).collect()
    }

    /// The snapshot that `slot` comes from.
    #[inline]
    pub(in crate::store) fn choice(&self, slot: u16) -> Choice {
        self.chosen[usize::from(slot)]
    }

    /// The last record whose effect is in what was chosen.
    #[inline]
    pub(in crate::store) fn lsn(&self, choice: Choice) -> Lsn {
        choice.map_or(Lsn::NONE, |number| self.snapshots[number as usize].1)
    }

    /// The first record that any slot needs of the log.
    pub(in crate::store) fn needed(&self) -> Lsn {
        let lsns = self.chosen.iter().map(|choice| self.lsn(*choice));
        lsns.min().unwrap_or(Lsn::NONE).next()
    }

    /// The last record whose effect is in any snapshot.
    pub(in crate::store) fn highest(&self) -> Lsn {
        self.snapshots.last().map_or(Lsn::NONE, |(_, lsn)| *lsn)
    }

    /// The parts of `slots` that come from one snapshot each, or from none.
    pub(in crate::store) fn stretches(&self, slots: Slots) -> Vec<(Slots, Choice)> {
        let mut stretches: Vec<(Slots, Choice)> = Vec::new();
        for slot in slots.from..slots.until {
            let choice = self.choice(slot);
            match stretches.last_mut() {
                Some((last, same)) if *same == choice => last.until = slot + 1,
                _ => stretches.push((Slots { from: slot, until: slot + 1 }, choice)),
            }
        }
        stretches
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(from: u16, until: u16) -> Slots {
        Slots { from, until }
    }

    #[test]
    fn without_snapshots_all_of_the_log_is_needed() {
        let coverage = Coverage::new(&[]);
        assert_eq!((coverage.needed(), coverage.highest()), (Lsn(1), Lsn::NONE));
        assert_eq!(coverage.stretches(slots(0, 16384)), [(slots(0, 16384), None)]);
    }

    #[test]
    fn the_newest_snapshot_of_a_slot_counts() {
        let old = (slots(0, 16384), Lsn(10));
        let new = (slots(0, 8192), Lsn(20));
        let replaced = (slots(100, 200), Lsn(5));
        let coverage = Coverage::new(&[new, replaced, old]);
        assert_eq!(coverage.needed(), Lsn(11));
        assert_eq!(coverage.highest(), Lsn(20));
        assert_eq!(coverage.lsn(coverage.choice(8191)), Lsn(20));
        assert_eq!(coverage.lsn(coverage.choice(8192)), Lsn(10));
        assert_eq!(coverage.superseded(), [replaced]);
        let stretches = coverage.stretches(slots(8000, 9000));
        assert_eq!(stretches, [(slots(8000, 8192), Some(2)), (slots(8192, 9000), Some(1))]);
    }

    #[test]
    fn a_gap_between_snapshots_needs_all_of_the_log() {
        let coverage = Coverage::new(&[(slots(0, 8000), Lsn(10)), (slots(8001, 16384), Lsn(20))]);
        assert_eq!(coverage.needed(), Lsn(1));
    }
}
