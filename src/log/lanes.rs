//! Where changes wait for the next record: a lane for each partition, so that shards do not get in
//! each other's way. Filled by the store after each visit, emptied by the log's writer.
//!
//! Invariant: everything in a lane under one number goes into the record of that number, whole; and
//! what is added later, to any lane, never goes into an earlier record.
//! Several locks are taken in ascending order.

use std::collections::VecDeque;
use std::sync::PoisonError;
#[cfg(not(loom))]
use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use crossbeam_utils::CachePadded;
#[cfg(loom)]
use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use super::Lsn;
use crate::limits;

/// Bytes of changes above which a record is closed: what comes then goes into the next.
pub(super) const RECORD_BYTES_HIGH: usize = 16 * 1024 * 1024;

const _: () = assert!(RECORD_BYTES_HIGH < limits::LOG_PENDING_BYTES_MAX);

/// Room that an emptied lane keeps.
const SPARE_BYTES_MAX: usize = 1024 * 1024;

/// Changes of one partition that are in no record yet.
#[derive(Debug)]
struct Lane {
    /// The number of the record that `open` will be part of.
    lsn: Lsn,
    open: Vec<u8>,
    /// What will be part of the records before that one that are not gathered yet.
    closed: VecDeque<Vec<u8>>,
    /// An emptied buffer, to be filled again.
    spare: Vec<u8>,
}

impl Lane {
    fn push(&mut self, changes: &[u8], lsn: Lsn) {
        while self.lsn < lsn {
            self.close();
        }
        assert_eq!(self.lsn, lsn, "a lane goes forward");
        self.open.extend_from_slice(changes);
    }

    /// Sends what comes from now on into the next record.
    fn close(&mut self) {
        let open = std::mem::replace(&mut self.open, std::mem::take(&mut self.spare));
        self.closed.push_back(open);
        self.lsn = self.lsn.next();
    }
}

/// What was known when changes were counted that are about to be placed.
#[derive(Debug)]
struct Claim {
    /// The highest record that a lane had something for.
    last: u64,
    /// Bytes that waited already.
    before: usize,
    bytes: usize,
}

/// The lanes of a store, by partition.
#[derive(Debug)]
pub(super) struct Lanes {
    lanes: Box<[CachePadded<Mutex<Lane>>]>,
    /// Bytes in all of them.
    bytes: AtomicUsize,
    /// The highest record that a lane has something for.
    last: AtomicU64,
}

impl Lanes {
    /// `count` lanes whose first record will be `first`.
    pub(super) fn new(count: usize, first: Lsn) -> Self {
        let lane = |_| {
            let (open, closed, spare) = Default::default();
            CachePadded::new(Mutex::new(Lane { lsn: first, open, closed, spare }))
        };
        let lanes = (0..count).map(lane).collect();
        Self { lanes, bytes: AtomicUsize::new(0), last: AtomicU64::new(first.0 - 1) }
    }

    /// Bytes that wait.
    #[inline]
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Acquire)
    }

    fn lane(&self, index: usize) -> MutexGuard<'_, Lane> {
        self.lanes[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds changes to a lane. Answers the record that they will be part of, and whether they are
    /// the first that wait.
    #[inline]
    pub(super) fn append(&self, index: usize, changes: &[u8]) -> (Lsn, bool) {
        let mut lane = self.lane(index);
        let claim = self.claim(changes.len());
        let lsn = self.place(lane.lsn, &claim);
        lane.push(changes, lsn);
        (lsn, claim.before == 0)
    }

    /// Adds changes to several lanes, given in ascending order, so that all become part of the same
    /// record.
    pub(super) fn append_all(&self, parts: &[(usize, &[u8])]) -> (Lsn, bool) {
        assert!(parts.is_sorted_by(|lower, upper| lower.0 < upper.0), "locks are taken in order");
        let mut lanes: Vec<_> = parts.iter().map(|(index, _)| self.lane(*index)).collect();
        let lsn = lanes.iter().map(|lane| lane.lsn).max().unwrap_or(Lsn::NONE);
        let bytes = parts.iter().map(|(_, changes)| changes.len()).sum();
        let claim = self.claim(bytes);
        let lsn = self.place(lsn, &claim);
        for (lane, (_, changes)) in lanes.iter_mut().zip(parts) {
            lane.push(changes, lsn);
        }
        (lsn, claim.before == 0)
    }

    /// Counts `bytes` of changes that are about to be placed. Asked while their lanes are locked,
    /// so that nothing is gathered in between.
    #[inline]
    fn claim(&self, bytes: usize) -> Claim {
        // In this order: whoever comes behind these bytes and takes a record of their own for that
        // does so after `last` was read here, and these do not land in it.
        let last = self.last.load(Ordering::Acquire);
        let before = self.bytes.fetch_add(bytes, Ordering::AcqRel);
        Claim { last, before, bytes }
    }

    /// The record for changes to lanes that have come to `lsn`. It is never before the record of
    /// changes that were added earlier to another lane: who adds these may have seen those. If much
    /// waits already it is one of their own, so that no record is much longer than one command
    /// makes it.
    #[inline]
    fn place(&self, lsn: Lsn, claim: &Claim) -> Lsn {
        if claim.before == 0 || claim.before + claim.bytes <= RECORD_BYTES_HIGH {
            let lsn = lsn.max(Lsn(claim.last));
            if lsn.0 > claim.last {
                self.last.fetch_max(lsn.0, Ordering::AcqRel);
            }
            return lsn;
        }
        // Behind `lsn` too: what waits may be for that record and not be placed yet.
        let own = |last: u64| last.max(lsn.0) + 1;
        let last =
            self.last.fetch_update(Ordering::AcqRel, Ordering::Acquire, |last| Some(own(last)));
        Lsn(own(last.unwrap_or_else(|last| last)))
    }

    /// Draws a line in a lane: what was added so far is part of records up to the one answered,
    /// what is added later is not.
    pub(super) fn draw_line(&self, index: usize) -> Lsn {
        let mut lane = self.lane(index);
        if !lane.open.is_empty() {
            lane.close();
        }
        Lsn(lane.lsn.0 - 1)
    }

    /// Empties the lanes for record `lsn`: hands what each has for it to `take`, by index. Answers
    /// whether something had been added by then that is for a later record.
    pub(super) fn gather(&self, lsn: Lsn, mut take: impl FnMut(usize, &[u8])) -> bool {
        let mut lanes: Vec<_> = (0..self.lanes.len()).map(|index| self.lane(index)).collect();
        let mut taken: Vec<(usize, Vec<u8>)> = Vec::new();
        for (index, lane) in lanes.iter_mut().enumerate() {
            if lane.closed.is_empty() {
                lane.close();
            }
            let number = lane.lsn.0 - lane.closed.len() as u64;
            assert_eq!(number, lsn.0, "records are gathered in order");
            let changes = lane.closed.pop_front().unwrap_or_default();
            taken.push((index, changes));
        }
        let stays = lanes.iter().any(|lane| !lane.closed.is_empty() || !lane.open.is_empty());
        drop(lanes);
        let mut bytes = 0;
        for (index, changes) in &mut taken {
            if !changes.is_empty() {
                take(*index, changes);
                bytes += changes.len();
            }
            changes.clear();
            if changes.capacity() > 0 && changes.capacity() <= SPARE_BYTES_MAX {
                self.lane(*index).spare = std::mem::take(changes);
            }
        }
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        stays
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gathered(lanes: &Lanes, lsn: u64) -> Vec<(usize, Vec<u8>)> {
        let mut all = Vec::new();
        lanes.gather(Lsn(lsn), |index, changes| all.push((index, changes.to_vec())));
        all
    }

    #[test]
    fn changes_go_into_the_record_that_was_told() {
        let lanes = Lanes::new(2, Lsn(7));
        assert_eq!(lanes.append(1, b"a"), (Lsn(7), true));
        assert_eq!(lanes.append(1, b"b"), (Lsn(7), false));
        assert_eq!(lanes.bytes(), 2);
        assert_eq!(gathered(&lanes, 7), [(1, b"ab".to_vec())]);
        assert_eq!(lanes.bytes(), 0);
        assert_eq!(lanes.append(0, b"c"), (Lsn(8), true));
        assert_eq!(gathered(&lanes, 8), [(0, b"c".to_vec())]);
        assert_eq!(gathered(&lanes, 9), []);
    }

    #[test]
    fn a_line_parts_what_came_before_from_what_comes_later() {
        let lanes = Lanes::new(2, Lsn(1));
        assert_eq!(lanes.draw_line(0), Lsn(0), "nothing came before");
        lanes.append(0, b"before");
        lanes.append(1, b"other");
        assert_eq!(lanes.draw_line(0), Lsn(1));
        assert_eq!(lanes.append(1, b" lane").0, Lsn(1), "the line is drawn in one lane");
        assert_eq!(lanes.append(0, b"after").0, Lsn(2));
        assert_eq!(lanes.draw_line(0), Lsn(2));
        assert_eq!(lanes.append(0, b"last").0, Lsn(3));
        assert_eq!(gathered(&lanes, 1), [(0, b"before".to_vec()), (1, b"other lane".to_vec())]);
        assert_eq!(gathered(&lanes, 2), [(0, b"after".to_vec())]);
        assert_eq!(gathered(&lanes, 3), [(0, b"last".to_vec())]);
    }

    #[test]
    fn what_is_added_later_is_in_no_earlier_record() {
        let lanes = Lanes::new(2, Lsn(1));
        lanes.append(0, b"snapshot");
        lanes.draw_line(0);
        assert_eq!(lanes.append(0, b"cause").0, Lsn(2));
        assert_eq!(lanes.append(1, b"effect").0, Lsn(2), "it may have seen the cause");
        assert_eq!(gathered(&lanes, 1), [(0, b"snapshot".to_vec())]);
        let both = [(0, b"cause".to_vec()), (1, b"effect".to_vec())];
        assert_eq!(gathered(&lanes, 2), both);
    }

    #[test]
    fn what_would_make_a_record_too_long_gets_its_own() {
        let lanes = Lanes::new(2, Lsn(1));
        let long = vec![1; RECORD_BYTES_HIGH];
        assert_eq!(lanes.append(0, &long).0, Lsn(1), "alone it is not too long");
        assert_eq!(lanes.append(1, b"a").0, Lsn(2));
        assert_eq!(lanes.append(0, &long).0, Lsn(3));
        assert_eq!(lanes.append_all(&[(0, b"b"), (1, b"c")]).0, Lsn(4));
        assert_eq!(gathered(&lanes, 1), [(0, long.clone())]);
        assert_eq!(gathered(&lanes, 2), [(1, b"a".to_vec())]);
        assert_eq!(gathered(&lanes, 3), [(0, long)]);
        assert_eq!(lanes.append(1, b"d").0, Lsn(4));
        let together = [(0, b"b".to_vec()), (1, b"cd".to_vec())];
        assert_eq!(gathered(&lanes, 4), together);
    }

    #[test]
    fn what_comes_behind_a_long_command_is_not_in_its_record() {
        // Between its two steps another one comes.
        let lanes = Lanes::new(2, Lsn(1));
        let claim = lanes.claim(RECORD_BYTES_HIGH);
        assert_eq!(lanes.append(1, b"behind").0, Lsn(2));
        assert_eq!(lanes.place(Lsn(1), &claim), Lsn(1));
        assert_eq!(lanes.append(1, b"further behind").0, Lsn(3));
    }

    #[test]
    fn a_gathering_says_whether_something_stays() {
        let lanes = Lanes::new(2, Lsn(1));
        lanes.append(0, b"before");
        lanes.draw_line(0);
        lanes.append(0, b"after");
        assert!(lanes.gather(Lsn(1), |_, _| {}), "what came after the line");
        assert!(!lanes.gather(Lsn(2), |_, _| {}));
        lanes.append(1, b"more");
        lanes.draw_line(1);
        lanes.draw_line(1);
        assert!(!lanes.gather(Lsn(3), |_, _| {}));
    }

    #[test]
    fn several_lanes_change_in_one_record() {
        let lanes = Lanes::new(3, Lsn(1));
        lanes.append(0, b"x");
        lanes.append(2, b"y");
        assert_eq!(lanes.draw_line(2), Lsn(1));
        let (lsn, first) = lanes.append_all(&[(0, b"1"), (2, b"2")]);
        assert_eq!((lsn, first), (Lsn(2), false));
        assert_eq!(gathered(&lanes, 1), [(0, b"x".to_vec()), (2, b"y".to_vec())]);
        assert_eq!(gathered(&lanes, 2), [(0, b"1".to_vec()), (2, b"2".to_vec())]);
    }
}
