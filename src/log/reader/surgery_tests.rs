//! Byte surgery on a small log: cut, zeroed, flipped, swapped, dropped, doubled, put back, at every
//! place. Run by `cargo test`.
//!
//! Invariant: whatever was done, what is read is an exact prefix that holds every record which an
//! untouched later one proves durable, or a refusal that names a place in a file.

use std::collections::BTreeMap;

use super::forge::{Forge, ID};
use super::*;

type Files = BTreeMap<u64, Vec<u8>>;

const SECTOR_BYTES: usize = 512;

/// A log with a seal, two restarts, recycled segments and a preallocated end, and the states that
/// its files were in.
fn log() -> (Forge, Vec<Files>) {
    let mut forge = Forge::new();
    let mut states = Vec::new();
    forge.record(b"first");
    let old = forge.files[&1].clone();
    states.push(forge.files.clone());
    forge.record_and_rotate(&[2; 4100], old.clone());
    forge.record(b"third");
    states.push(forge.files.clone());
    forge.restart();
    // An interval's worth of records of which none knows that another is durable.
    forge.durable = Some(Lsn(3));
    forge.record(b"fourth");
    forge.record(&[5; 600]);
    forge.durable = None;
    states.push(forge.files.clone());
    let recycled = forge.files[&3].clone();
    forge.record_and_rotate(b"sixth", recycled);
    forge.record(b"seventh");
    states.push(forge.files.clone());
    forge.record(&[8; 5000]);
    forge.resize(20_480);
    (forge, states)
}

/// The same log after a restart, a record, and another restart: its last segment is empty.
fn restarted() -> Forge {
    let (mut forge, _) = log();
    forge.restart();
    forge.record(b"ninth");
    forge.restart();
    forge
}

/// What came of a reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Prefix(u64),
    Refused,
}

/// Reads `files` and checks the invariant of this file against what was written.
#[track_caller]
fn check(forge: &Forge, files: &Files, what: &dyn Fn() -> String) -> Outcome {
    let mut count = 0_u64;
    let mut read = || {
        let sequences = files.keys().copied().collect();
        let mut reader = Reader::new(MemoryFiles(files), sequences, ID, Lsn(1))?;
        loop {
            match reader.next()? {
                Step::Record(record) => {
                    let written = forge.written.get(count as usize);
                    let expected = written.map(|written| &written.payload[..]);
                    assert_eq!(Some(record.payload), expected, "{}: not a prefix", what());
                    count += 1;
                }
                Step::End(end) => return Ok(end),
            }
        }
    };
    match read() {
        Ok(end) => {
            let proven = forge.written.iter().filter(|record| {
                let range = record.offset..record.checked_end();
                let now = files.get(&record.sequence).and_then(|file| file.get(range.clone()));
                now == Some(&forge.files[&record.sequence][range])
            });
            let of_records = proven.map(|record| record.durable).max().unwrap_or(Lsn::NONE);
            let headers = files.iter().filter_map(|(sequence, file)| {
                let header = file.get(..FILE_HEADER_BYTES)?;
                let is_untouched =
                    forge.files.get(sequence)?.get(..FILE_HEADER_BYTES) == Some(header);
                is_untouched.then(|| SegmentHeader::decode(header).expect("untouched").durable)
            });
            let proven = headers.fold(of_records, Lsn::max).0;
            assert!(count >= proven, "{}: {count} records, but {proven} were durable", what());
            assert_eq!(end.next.lsn, Lsn(count + 1), "{}", what());
            Outcome::Prefix(count)
        }
        Err(ReadError::Damaged(damage)) => {
            let file = damage.file.as_deref().and_then(name::parse_segment);
            let file = file.and_then(|sequence| files.get(&sequence));
            let bytes = file.unwrap_or_else(|| panic!("{}: {damage}", what())).len();
            assert!(damage.offset <= bytes.next_multiple_of(4096) as u64, "{}", what());
            Outcome::Refused
        }
        Err(ReadError::Io { error, .. }) => panic!("{}: {error}", what()),
    }
}

#[test]
fn untouched_it_is_read_to_its_end() {
    let (forge, states) = log();
    assert_eq!(check(&forge, &forge.files, &|| "untouched".into()), Outcome::Prefix(8));
    let counts = states.iter().map(|files| check(&forge, files, &|| "a state".into()));
    assert_eq!(counts.collect::<Vec<_>>(), [1, 3, 5, 7].map(Outcome::Prefix));
}

#[test]
fn cut_at_every_byte() {
    let (forge, _) = log();
    let last = *forge.files.keys().last().expect("there are segments");
    for sequence in forge.files.keys().copied() {
        let mut files = forge.files.clone();
        for length in (0..forge.files[&sequence].len()).rev() {
            files.get_mut(&sequence).expect("there").truncate(length);
            let outcome = check(&forge, &files, &|| format!("{sequence} cut at {length}"));
            if sequence == last && length >= FILE_HEADER_BYTES {
                assert!(matches!(outcome, Outcome::Prefix(6..)), "{length}: {outcome:?}");
            }
        }
    }
}

#[test]
fn behind_a_restart_nothing_is_lost_unseen() {
    let forge = restarted();
    assert_eq!(check(&forge, &forge.files, &|| "untouched".into()), Outcome::Prefix(9));
    let last = *forge.files.keys().last().expect("there are segments");
    for sequence in forge.files.keys().copied().filter(|sequence| *sequence != last) {
        let mut files = forge.files.clone();
        files.remove(&sequence);
        let outcome = check(&forge, &files, &|| format!("{sequence} dropped"));
        assert_eq!(outcome, Outcome::Refused, "{sequence} dropped");
    }
    for record in &forge.written {
        for at in record.offset..record.checked_end() {
            let mut files = forge.files.clone();
            files.get_mut(&record.sequence).expect("there")[at] ^= 0x20;
            let outcome = check(&forge, &files, &|| format!("{} changed at {at}", record.lsn));
            assert_eq!(outcome, Outcome::Refused, "{} changed at {at}", record.lsn);
        }
    }
}

/// Every sector: segment and offset.
fn sectors(files: &Files) -> Vec<(u64, usize)> {
    let of_file = |(sequence, file): (&u64, &Vec<u8>)| {
        let sequence = *sequence;
        (0..file.len()).step_by(SECTOR_BYTES).map(move |offset| (sequence, offset))
    };
    files.iter().flat_map(of_file).collect()
}

fn sector(files: &mut Files, (sequence, offset): (u64, usize)) -> &mut [u8] {
    let file = files.get_mut(&sequence).expect("there");
    let end = file.len().min(offset + SECTOR_BYTES);
    &mut file[offset..end]
}

#[test]
fn every_sector_zeroed_or_inverted() {
    let (forge, _) = log();
    let changes: [fn(&mut [u8]); 2] =
        [|sector| sector.fill(0), |sector| sector.iter_mut().for_each(|byte| *byte ^= 0xff)];
    let (mut prefixes, mut refusals) = (0, 0);
    for place in sectors(&forge.files) {
        for change in changes {
            let mut files = forge.files.clone();
            change(sector(&mut files, place));
            match check(&forge, &files, &|| format!("{place:?} changed")) {
                Outcome::Prefix(_) => prefixes += 1,
                Outcome::Refused => refusals += 1,
            }
        }
    }
    assert!(prefixes > 20 && refusals > 20, "{prefixes} prefixes, {refusals} refusals");
}

#[test]
fn every_byte_of_headers_and_records_changed() {
    let (forge, _) = log();
    let headers = forge.files.keys().map(|sequence| (*sequence, 0..FILE_HEADER_BYTES));
    let records = forge.written.iter().map(|record| (record.sequence, record.offset..record.end()));
    let mut files = forge.files.clone();
    for (sequence, range) in headers.chain(records) {
        for at in range {
            files.get_mut(&sequence).expect("there")[at] ^= 0x20;
            check(&forge, &files, &|| format!("{sequence} changed at {at}"));
            files.get_mut(&sequence).expect("there")[at] ^= 0x20;
        }
    }
}

#[test]
fn every_two_sectors_swapped_and_every_sector_written_over_another() {
    let (forge, _) = log();
    let places = sectors(&forge.files);
    let mut files = forge.files.clone();
    for (index, &first) in places.iter().enumerate() {
        for &second in &places[index + 1..] {
            let of_first = sector(&mut files, first).to_vec();
            let of_second = sector(&mut files, second).to_vec();
            if of_first == of_second || of_first.len() != of_second.len() {
                continue;
            }
            sector(&mut files, first).copy_from_slice(&of_second);
            check(&forge, &files, &|| format!("{second:?} over {first:?}"));
            sector(&mut files, second).copy_from_slice(&of_first);
            check(&forge, &files, &|| format!("{first:?} and {second:?} swapped"));
            sector(&mut files, first).copy_from_slice(&of_first);
            check(&forge, &files, &|| format!("{first:?} over {second:?}"));
            sector(&mut files, second).copy_from_slice(&of_second);
        }
    }
}

#[test]
fn every_segment_dropped_or_doubled_under_every_name() {
    let (forge, _) = log();
    for sequence in forge.files.keys().copied() {
        let mut files = forge.files.clone();
        let content = files.remove(&sequence).expect("there");
        check(&forge, &files, &|| format!("{sequence} dropped"));
        for other in (1..7).filter(|other| *other != sequence) {
            let mut files = forge.files.clone();
            files.insert(other, content.clone());
            let outcome = check(&forge, &files, &|| format!("{sequence} doubled as {other}"));
            assert_eq!(outcome, Outcome::Refused, "{sequence} doubled as {other}");
            files.remove(&sequence);
            check(&forge, &files, &|| format!("{sequence} renamed {other}"));
        }
    }
}

#[test]
fn every_old_state_of_every_segment_put_back() {
    let (forge, states) = log();
    for (age, state) in states.iter().enumerate() {
        for (sequence, content) in state {
            let mut files = forge.files.clone();
            files.insert(*sequence, content.clone());
            check(&forge, &files, &|| format!("{sequence} put back from state {age}"));
            let mut files = state.clone();
            files.insert(*sequence, forge.files[sequence].clone());
            check(&forge, &files, &|| format!("{sequence} put forward to state {age}"));
        }
    }
}
