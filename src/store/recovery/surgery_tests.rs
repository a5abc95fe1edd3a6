//! Byte surgery on a store: whatever is done to its files, what comes back is its content as it was
//! after some record, or nothing. Run by `cargo test`.
//!
//! Invariant: every state of the store differs from every other, so a mixture cannot pass for one.

use std::collections::BTreeMap;

use super::super::Change;
use super::tests::{Content, Memory, content, payload, set};
use super::*;
use crate::log::reader::forge::Forge;

const SECTOR_BYTES: usize = 512;

/// A log of counters, appends, deletes and a flush, and the content after each record.
pub(in crate::store) fn history() -> (Memory, Vec<Content>) {
    let mut forge = Forge::new();
    let mut states = vec![Content::new()];
    for number in 1..=9_u8 {
        let count = number.to_string();
        let large = "x".repeat(usize::from(number) * 700);
        let mut changes = vec![set("count", &count), set("also", &count)];
        changes.push(match number {
            4 => Change::Delete { db: 0, key: b"list" },
            7 => Change::Flush { db: 0, slots: (0, 16384) },
            1 | 5 | 8 => set("list", "-"),
            _ => Change::Append { db: 0, key: b"list", tail: count.as_bytes() },
        });
        changes.push(set("large", &large));
        let payload = payload(&changes);
        match number {
            3 => forge.record_and_rotate(&payload, Vec::new()),
            6 => {
                let recycled = forge.files[&1].clone();
                forge.record_and_rotate(&payload, recycled);
            }
            _ => {
                forge.record(&payload);
            }
        }
        if number == 4 {
            forge.restart();
        }
        let recovered = Memory::of(&forge).recover(1).expect("clean");
        states.push(content(&recovered));
    }
    (Memory::of(&forge), states)
}

/// Recovers `memory`, and checks that it is one of the states, and the one that it says it is.
fn check(memory: &Memory, states: &[Content], what: &dyn Fn() -> String) -> bool {
    match memory.recover(1) {
        Ok(recovered) => {
            let records = recovered.start.next.lsn.0 as usize - 1;
            assert_eq!(Some(&content(&recovered)), states.get(records), "{}", what());
            true
        }
        Err(damage) => {
            let file = damage.file.unwrap_or_else(|| panic!("{}: which file?", what()));
            assert!(memory.files.contains_key(&file), "{}", what());
            false
        }
    }
}

#[test]
fn every_state_differs() {
    let (_, states) = history();
    let mut seen = BTreeMap::new();
    for (index, state) in states.iter().enumerate() {
        assert_eq!(seen.insert(format!("{state:?}"), index), None);
    }
}

#[test]
fn every_sector_cut_zeroed_inverted_or_taken_from_elsewhere() {
    let (memory, states) = history();
    let (mut recovered, mut refused) = (0, 0);
    let mut count = |memory: &Memory, what: &dyn Fn() -> String| {
        *(if check(memory, &states, what) { &mut recovered } else { &mut refused }) += 1;
    };
    let names: Vec<_> = memory.files.keys().cloned().collect();
    for name in &names {
        let whole = &memory.files[name];
        for at in (0..whole.len()).step_by(SECTOR_BYTES) {
            let mut changed = memory.clone();
            let mut with = |edit: &dyn Fn(&mut Vec<u8>), what: &str| {
                let mut file = whole.clone();
                edit(&mut file);
                changed.files.insert(name.clone(), file);
                count(&changed, &|| format!("{name} {what} at {at}"));
            };
            let sector = at..at + SECTOR_BYTES;
            with(&|file| file.truncate(at), "cut");
            with(&|file| file.truncate(at + 77), "cut within");
            with(&|file| file[sector.clone()].fill(0), "zeroed");
            with(&|file| file[sector.clone()].iter_mut().for_each(|b| *b ^= 0xff), "inverted");
            for other in &names {
                let from = &memory.files[other];
                let from = from.get(sector.clone()).unwrap_or(&from[..SECTOR_BYTES]);
                with(&|file| file[sector.clone()].copy_from_slice(from), "taken from elsewhere");
            }
        }
    }
    assert!(recovered > 50 && refused > 50, "{recovered} recovered, {refused} refused");
}

#[test]
fn every_file_dropped_or_doubled() {
    let (memory, states) = history();
    for name in memory.files.keys() {
        let mut dropped = memory.clone();
        let file = dropped.files.remove(name).expect("there");
        check(&dropped, &states, &|| format!("{name} dropped"));
        for sequence in 0..8 {
            let mut doubled = memory.clone();
            doubled.files.insert(name::segment(sequence), file.clone());
            check(&doubled, &states, &|| format!("{name} doubled as {sequence}"));
        }
    }
}
