//! Tests of repair: what is damaged recovers afterwards, to a prefix, and what was cut off is
//! there. Run by `cargo test`.
//!
//! Invariant: each test has a folder of its own, removed at its end.

use std::fs;

use super::super::SlotMap;
use super::super::recovery::surgery_tests::history;
use super::super::recovery::tests::{
    ALL, LOW, Memory, append, content, folder, keys, payload, set,
};
use super::super::recovery::{Recovered, load, recover};
use super::*;
use crate::log::reader::forge::Forge;

const SECTOR_BYTES: usize = 512;

/// Repairs until nothing is damaged; answers what was said and kept each time.
fn repaired(
    directory: &DataDirectory,
) -> Result<(Vec<String>, Vec<String>, Recovered), RepairError> {
    let (mut said, mut kept) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let listing = directory.list()?;
        let damage = match load(directory, &listing, SlotMap::new(1)) {
            Ok(recovered) => return Ok((said, kept, recovered)),
            Err(RecoveryError::Damaged { damage, .. }) => damage,
            Err(error) => return Err(error.into()),
        };
        let plan = plan(directory, &listing, &damage)?;
        said.push(plan.to_string());
        kept.extend(plan.carry_out(directory)?);
    }
    panic!("no end of repairs: {said:?}");
}

/// Three segments: records 1 and 2, 3 and 4, 5.
fn three_segments() -> Forge {
    let mut forge = Forge::new();
    forge.record(&payload(&[set("a", "1")]));
    forge.record_and_rotate(&payload(&[append("a", "2")]), Vec::new());
    forge.record(&payload(&[append("a", "3")]));
    forge.record_and_rotate(&payload(&[append("a", "4")]), Vec::new());
    forge.record(&payload(&[append("a", "5")]));
    forge
}

#[test]
fn damage_in_the_middle_is_cut_and_kept() {
    let mut forge = three_segments();
    forge.files.get_mut(&2).expect("there")[4096 + 60] ^= 1;
    let (folder, directory) = folder("repair-middle", &Memory::of(&forge));
    let (said, kept, recovered) = repaired(&directory).expect("repaired");
    assert_eq!(
        said,
        ["end the log at byte 4096 of log-000000000002.seg, and set aside the 8192 bytes behind \
          it, and set aside log-000000000003.seg; the records 3 to 5 are lost"]
    );
    assert_eq!(kept, ["cut-log-000000000002.seg-4096.bin", "cut-log-000000000003.seg-0.bin"]);
    let read = |name: &str| fs::read(folder.0.join(name)).expect("kept");
    assert_eq!(read(&kept[0]), forge.files[&2][4096..]);
    assert_eq!(read(&kept[1]), forge.files[&3]);
    assert_eq!(content(&recovered), keys(&[("a", "12")]));
    assert_eq!(recovered.start.next, forge.written_link(2));
    recover(&directory, SlotMap::new(2)).expect("a start finds nothing wrong");
}

#[test]
fn a_damaged_header_and_a_missing_segment_end_the_log_before_them() {
    for damage in ["header", "missing"] {
        let mut forge = three_segments();
        match damage {
            "header" => forge.files.get_mut(&2).expect("there")[0] ^= 1,
            _ => drop(forge.files.remove(&2)),
        }
        let (_folder, directory) = folder(&format!("repair-{damage}"), &Memory::of(&forge));
        let (_, _, recovered) = repaired(&directory).expect("repaired");
        assert_eq!(content(&recovered), keys(&[("a", "12")]));
        // The sealed segment has a successor again, to go on behind.
        assert_eq!(recovered.start.sequence, 3, "{damage}");
        assert_eq!(recovered.start.next, forge.written_link(2), "{damage}");
    }
}

#[test]
fn a_damaged_snapshot_is_set_aside_if_the_log_holds_what_it_does() {
    let forge = three_segments();
    let mut memory = Memory::of(&forge).with_snapshot(ALL, 2, &[("a", "12")]);
    let snapshot = name::snapshot(ALL, Lsn(2));
    memory.files.get_mut(&snapshot).expect("there")[4096 + 60] ^= 1;
    let (_folder, directory) = folder("repair-snapshot", &memory);
    let (_, kept, recovered) = repaired(&directory).expect("repaired");
    assert_eq!(kept, [format!("cut-{snapshot}-0.bin")]);
    assert_eq!(content(&recovered), keys(&[("a", "12345")]));
    memory.files.remove("log-000000000001.seg");
    let (_folder, directory) = folder("repair-hopeless", &memory);
    let refused = repaired(&directory).map(|_| ()).expect_err("hopeless").to_string();
    assert!(
        refused.ends_with(
            "this cannot be repaired: the keys of the slots 0 to 16383 are in it, and the log \
             does not go back to before it; bring the directory back from a backup"
        ),
        "{refused}"
    );
}

#[test]
fn a_log_damaged_before_its_snapshots_begins_anew_behind_them() {
    let mut forge = three_segments();
    forge.files.get_mut(&2).expect("there")[4096 + 60] ^= 1;
    let memory = Memory::of(&forge).with_snapshot(ALL, 3, &[("a", "123")]);
    let (_folder, directory) = folder("repair-anew", &memory);
    let (said, kept, recovered) = repaired(&directory).expect("repaired");
    assert_eq!(content(&recovered), keys(&[("a", "123")]));
    assert_eq!(recovered.start.next, Link { lsn: Lsn(4), chain: 0 });
    assert_eq!((recovered.start.sequence, kept.len()), (5, 3));
    assert!(said[0].starts_with("begin the log anew behind the snapshots"), "{said:?}");
    // With snapshots of different times there is no such moment.
    let memory = memory.with_snapshot(LOW, 4, &[]);
    let (_folder, directory) = super::super::recovery::tests::folder("repair-mixed", &memory);
    let refused = repaired(&directory).map(|_| ()).expect_err("hopeless");
    assert!(matches!(refused, RepairError::Hopeless { .. }), "{refused}");
}

#[test]
fn behind_the_last_number_there_is_no_segment_to_begin() {
    let mut forge = Forge::new();
    forge.record(&payload(&[set("a", "1")]));
    let file = forge.files.remove(&1).expect("there");
    forge.files.insert(name::SEQUENCE_COUNT_MAX, file);
    let (_folder, directory) = folder("repair-last-number", &Memory::of(&forge));
    let refused = repaired(&directory).map(|_| ()).expect_err("hopeless").to_string();
    let why = "a segment would have to follow log-999999999999.seg, the last that can be";
    assert!(refused.contains(why), "{refused}");
}

#[test]
fn a_newer_format_is_left_alone() {
    let mut forge = three_segments();
    forge.files.get_mut(&3).expect("there")[8] = 2;
    let (_folder, directory) = folder("repair-newer", &Memory::of(&forge));
    let refused = repaired(&directory).map(|_| ()).expect_err("newer").to_string();
    assert_eq!(
        refused,
        "log-000000000003.seg is damaged at byte 0: it has version 2 of the format, and this \
         program reads version 1; start it with the annulus that wrote it, or a newer one"
    );
}

#[test]
fn what_an_earlier_repair_kept_is_not_overwritten() {
    let mut forge = three_segments();
    forge.files.get_mut(&2).expect("there")[4096 + 60] ^= 1;
    let (folder, directory) = folder("repair-kept", &Memory::of(&forge));
    folder.write("cut-log-000000000002.seg-4096.bin", b"precious");
    let refused = repaired(&directory).map(|_| ()).expect_err("taken");
    assert!(matches!(refused, RepairError::KeptBefore(_)), "{refused}");
    // The remains of an interrupted repair are no obstacle.
    folder.write("cut-log-000000000002.seg-4096.bin", &forge.files[&2][4096..]);
    repaired(&directory).expect("repaired");
}

#[test]
fn whatever_sector_is_damaged_a_repair_leads_to_a_state_that_was() {
    let (memory, states) = history();
    let mut repairs = 0;
    for (name, whole) in &memory.files {
        for at in (0..whole.len()).step_by(8 * SECTOR_BYTES) {
            let mut changed = memory.clone();
            let file = changed.files.get_mut(name).expect("there");
            file[at..at + SECTOR_BYTES].iter_mut().for_each(|byte| *byte ^= 0xff);
            let (_folder, directory) = folder("repair-sectors", &changed);
            let (said, _, recovered) = repaired(&directory).expect("repaired");
            let records = recovered.start.next.lsn.0 as usize - 1;
            assert_eq!(Some(&content(&recovered)), states.get(records), "{name} {at}: {said:?}");
            repairs += said.len();
        }
    }
    assert!(repairs > 5, "{repairs} repairs");
}
