//! Brings partitions to the state that snapshots and records describe. Run by recovery, on one
//! thread for some of the partitions.
//!
//! Invariant: a change reaches a partition iff the partition owns its key's slot and the snapshot
//! of that slot does not hold the change yet; who else divided the slots how does not matter.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;

use super::coverage::{Choice, Coverage};
use super::progress::Progress;
use crate::log::reader::{Damage, Damaged, Files, Place, ReadError, SnapshotReader};
use crate::log::record::sections;
use crate::log::{Lsn, Slots, StoreId, name};
use crate::store::slots::slot_of;
use crate::store::{Change, Partition, Stats};

/// Some records, on their way to every applier.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
    pub(super) records: Vec<(Lsn, Place, Range<usize>)>,
}

/// Some partitions, and the thread's place among what they are made from.
pub(super) struct Applier<'a, F> {
    pub(super) partitions: &'a mut [Partition],
    pub(super) coverage: &'a Coverage,
    pub(super) files: &'a F,
    pub(super) id: StoreId,
    pub(super) progress: &'a Progress,
}

impl<F: Files> Applier<'_, F> {
    /// Loads the snapshots, makes the changes as they come, and drops what has expired.
    pub(super) fn run(
        mut self,
        batches: Receiver<Arc<Batch>>,
        now_ms: u64,
    ) -> Result<(), ReadError> {
        for partition in &mut *self.partitions {
            // Uses are dated: what comes back has been used just now.
            partition.tick(now_ms);
        }
        for (number, slots, lsn) in self.coverage.used() {
            if self.partitions.iter().any(|partition| overlap(owned(partition), slots).is_valid()) {
                self.load(number, slots, lsn)?;
            }
        }
        let mut shares: Vec<_> = (self.partitions.iter_mut())
            .map(|partition| Share::new(partition, self.coverage))
            .collect();
        for batch in batches {
            let mut made = 0;
            for (lsn, place, range) in &batch.records {
                let payload = &batch.bytes[range.clone()];
                for share in &mut shares {
                    made += share.apply(self.coverage, *lsn, payload).map_err(|what| Damage {
                        file: Some(name::segment(place.sequence)),
                        offset: place.offset,
                        lsn: Some(*lsn),
                        what,
                    })?;
                }
            }
            self.progress.changes.fetch_add(made, Ordering::Relaxed);
        }
        for partition in &mut *self.partitions {
            partition.expire_some(now_ms, usize::MAX);
            partition.stats = Stats::default();
        }
        Ok(())
    }

    fn load(&mut self, number: u32, slots: Slots, lsn: Lsn) -> Result<(), ReadError> {
        let file = name::snapshot(slots, lsn);
        let opened = self.files.open(&file).map_err(|error| ReadError::Io { file, error })?;
        let mut reader = SnapshotReader::new(opened, slots, lsn, self.id)?;
        let mut keys = 0;
        loop {
            let before = reader.bytes_done();
            let Some(payload) = reader.next()? else { break };
            let loaded = self.load_payload(number, payload);
            keys += loaded.map_err(|what| reader.damage(before, what))?;
            self.progress.bytes.fetch_add(reader.bytes_done() - before, Ordering::Relaxed);
        }
        reader.check_count(keys)
    }

    /// Answers how many keys the payload holds, whether they are ours or not.
    fn load_payload(&mut self, number: u32, payload: &[u8]) -> Result<u64, Damaged> {
        let (mut keys, mut mine) = (0, 0);
        for section in sections(payload) {
            let (_, mut content) = section.map_err(Damaged::Section)?;
            while let Some(change) = decode(&mut content)? {
                keys += 1;
                let Change::Set { key, .. } = change else {
                    return Err(Damaged::Change("a snapshot holds whole keys"));
                };
                let slot = slot_of(key);
                if self.coverage.choice(slot) != Some(number) {
                    continue;
                }
                let mut partitions = self.partitions.iter_mut();
                if let Some(partition) = partitions.find(|p| owned(p).contains(slot)) {
                    partition.replay(&change);
                    mine += 1;
                }
            }
        }
        self.progress.changes.fetch_add(mine, Ordering::Relaxed);
        Ok(keys)
    }
}

/// A partition, and where all of it comes from, if it all comes from one place.
struct Share<'a> {
    partition: &'a mut Partition,
    slots: Slots,
    uniform: Option<Choice>,
}

impl<'a> Share<'a> {
    fn new(partition: &'a mut Partition, coverage: &Coverage) -> Self {
        let slots = owned(partition);
        let stretches = coverage.stretches(slots);
        let uniform = match stretches[..] {
            [(_, choice)] => Some(choice),
            _ => None,
        };
        Self { partition, slots, uniform }
    }

    /// Makes the changes of record `lsn` that concern this partition; answers how many.
    fn apply(&mut self, coverage: &Coverage, lsn: Lsn, payload: &[u8]) -> Result<u64, Damaged> {
        let mut made = 0;
        for section in sections(payload) {
            let (about, mut content) = section.map_err(Damaged::Section)?;
            let common = overlap(self.slots, about);
            if !common.is_valid() {
                continue;
            }
            // Where nothing is divided anew every change of a section meets the same fate.
            let fate = match self.uniform {
                Some(choice) if common == about => Some(lsn > coverage.lsn(choice)),
                _ => None,
            };
            if fate == Some(false) {
                continue;
            }
            while let Some(change) = decode(&mut content)? {
                if let Change::Flush { db, slots: (from, until) } = change {
                    made += self.flush(coverage, lsn, db, Slots { from, until });
                } else if fate.is_some() || self.concerns(coverage, lsn, &change) {
                    self.partition.replay(&change);
                    made += 1;
                }
            }
        }
        Ok(made)
    }

    fn concerns(&self, coverage: &Coverage, lsn: Lsn, change: &Change<'_>) -> bool {
        let slot = change.key().map(slot_of);
        slot.is_some_and(|slot| {
            self.slots.contains(slot) && lsn > coverage.lsn(coverage.choice(slot))
        })
    }

    fn flush(&mut self, coverage: &Coverage, lsn: Lsn, db: usize, slots: Slots) -> u64 {
        let mut made = 0;
        for (part, choice) in coverage.stretches(overlap(self.slots, slots)) {
            if lsn > coverage.lsn(choice) {
                self.partition.replay(&Change::Flush { db, slots: (part.from, part.until) });
                made = 1;
            }
        }
        made
    }
}

fn decode<'a>(content: &mut &'a [u8]) -> Result<Option<Change<'a>>, Damaged> {
    Change::decode(content).map_err(|no_change| Damaged::Change(no_change.0))
}

fn owned(partition: &Partition) -> Slots {
    let (from, until) = partition.slots();
    Slots { from, until }
}

/// What two ranges share; an invalid range if it is nothing.
fn overlap(one: Slots, other: Slots) -> Slots {
    Slots { from: one.from.max(other.from), until: one.until.min(other.until) }
}
