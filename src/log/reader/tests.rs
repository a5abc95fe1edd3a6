//! Tests of how a log is read, and of every way it can end. Run by `cargo test`.
//!
//! Invariant: each test forges the log that it is about.

use std::collections::BTreeMap;

use super::super::header::{InvalidHeader, SnapshotHeader};
use super::super::record::{Slots, seal};
use super::forge::{Forge, ID};
use super::*;

type Files = BTreeMap<u64, Vec<u8>>;

/// The payloads, and the end or the refusal.
fn read_from(files: &Files, needed: Lsn) -> (Vec<Vec<u8>>, Result<End, Damage>) {
    let mut payloads = Vec::new();
    let mut read = || {
        let sequences = files.keys().copied().collect();
        let mut reader = Reader::new(MemoryFiles(files), sequences, ID, needed)?;
        loop {
            match reader.next()? {
                Step::Record(record) => payloads.push(record.payload.to_vec()),
                Step::End(end) => return Ok(end),
            }
        }
    };
    let end = match read() {
        Ok(end) => Ok(end),
        Err(ReadError::Damaged(damage)) => Err(*damage),
        Err(ReadError::Io { file, error }) => panic!("{file}: {error}"),
    };
    (payloads, end)
}

fn read(files: &Files) -> (Vec<Vec<u8>>, Result<End, Damage>) {
    read_from(files, Lsn(1))
}

#[track_caller]
fn end_of(files: &Files) -> End {
    read(files).1.expect("not damaged")
}

#[track_caller]
fn damage_of(files: &Files) -> Damage {
    read(files).1.expect_err("damaged")
}

fn numbered(count: u8) -> Forge {
    let mut forge = Forge::new();
    for number in 1..=count {
        forge.record(&[number; 10]);
    }
    forge
}

#[test]
fn a_log_that_is_not_there_is_empty() {
    let (payloads, end) = read(&Files::new());
    assert!(payloads.is_empty());
    let expected = End { next: Link::FIRST, sequence: None, offset: 0, unused: vec![], torn: None };
    assert_eq!(end, Ok(expected));
    let no_log = read_from(&Files::new(), Lsn(5)).1.expect_err("missing");
    assert_eq!(no_log.what, Damaged::NoLog);
}

#[test]
fn records_come_in_order_through_seals_and_restarts() {
    let mut forge = numbered(2);
    forge.record_and_rotate(&[3; 9000], Vec::new());
    forge.record(&[4]);
    forge.restart();
    forge.restart();
    forge.record(&[5]);
    forge.resize(100_000);
    let (payloads, end) = read(&forge.files);
    assert_eq!(payloads, [vec![1; 10], vec![2; 10], vec![3; 9000], vec![4], vec![5]]);
    let end = end.expect("clean");
    assert_eq!((end.next, end.sequence, end.offset), (forge.link, Some(4), 8192));
    assert_eq!(end.torn, None);
    assert_eq!(end.unused, [0; 0]);
}

#[test]
fn reading_begins_where_it_is_needed() {
    let mut forge = numbered(2);
    forge.record_and_rotate(&[3], Vec::new());
    forge.record(&[4]);
    forge.record_and_rotate(&[5], Vec::new());
    forge.record(&[6]);
    assert_eq!(read_from(&forge.files, Lsn(5)).0, [[4], [5], [6]]);
    assert_eq!(read_from(&forge.files, Lsn(6)).0, [[6]]);
    // What a trimmer left behind does not matter, not even with a gap behind it.
    let mut trimmed = forge.files.clone();
    trimmed.remove(&2);
    assert_eq!(read_from(&trimmed, Lsn(6)).0, [[6]]);
    trimmed.remove(&1);
    let refused = read_from(&trimmed, Lsn(5)).1.expect_err("a gap");
    assert_eq!(refused.what, Damaged::Begins(Lsn(6)));
    assert_eq!((refused.file.as_deref(), refused.offset), (Some("log-000000000003.seg"), 0));
}

#[test]
fn a_record_that_was_half_written_is_torn() {
    let mut forge = numbered(3);
    forge.record(&[4; 6000]);
    let last = forge.written[3].clone();
    let file = forge.files.get_mut(&1).expect("there");
    file[last.offset + 4096..].fill(0);
    let (payloads, end) = read(&forge.files);
    assert_eq!(payloads.len(), 3);
    let end = end.expect("torn");
    assert_eq!(end.offset, last.offset as u64);
    assert_eq!(end.torn, Some(Torn { bytes: 8192, newest: None }));
    assert_eq!(end.next.lsn, Lsn(4));
}

#[test]
fn whole_records_that_nothing_proves_are_torn_off() {
    let mut forge = numbered(2);
    forge.durable = Some(Lsn(2));
    forge.record(&[3]);
    forge.record(&[4]);
    let third = forge.written[2].offset;
    forge.files.get_mut(&1).expect("there")[third] ^= 1;
    let end = end_of(&forge.files);
    assert_eq!(end.next.lsn, Lsn(3));
    assert_eq!(end.torn, Some(Torn { bytes: 8192, newest: Some(Lsn(4)) }));
}

#[test]
fn damage_in_front_of_a_record_that_proves_it_is_refused() {
    let mut forge = numbered(4);
    let second = forge.written[1].offset;
    forge.files.get_mut(&1).expect("there")[second + 50] ^= 1;
    let damage = damage_of(&forge.files);
    assert_eq!(
        damage.to_string(),
        "log-000000000001.seg is damaged at byte 8192, where record 2 should be: the checksum of \
         record 2 is wrong; it was there, for record 3 was written after it"
    );
}

#[test]
fn damage_in_front_of_a_later_segment_with_records_is_refused() {
    let mut forge = numbered(1);
    forge.durable = Some(Lsn(0));
    forge.record_and_rotate(&[2], Vec::new());
    let at = forge.written[1].offset;
    forge.files.get_mut(&1).expect("there")[at + HEADER_BYTES] ^= 1;
    // The successor alone proves nothing: it is there before the last record is.
    let end = end_of(&forge.files);
    assert_eq!((end.next.lsn, end.sequence, end.unused), (Lsn(2), Some(1), vec![2]));
    forge.record(&[3]);
    let damage = damage_of(&forge.files);
    let invalid = InvalidRecord::Checksum(Lsn(2));
    assert_eq!(damage.what, Damaged::Record { invalid, proof: Lsn(3) });
    assert_eq!(damage.offset, at as u64);
}

#[test]
fn a_missing_segment_is_missed_though_nothing_was_written_behind_it() {
    let mut forge = numbered(2);
    forge.restart();
    forge.record(&[3]);
    forge.restart();
    // Headers of an earlier version say nothing of what is durable.
    let header = SegmentHeader { id: ID, sequence: 3, first: forge.link, durable: Lsn::NONE };
    forge.files.insert(3, header.encode().to_vec());
    let mut files = forge.files.clone();
    files.remove(&2);
    let damage = damage_of(&files);
    assert_eq!(damage.what, Damaged::SegmentMissing(2));
    assert_eq!((damage.file.as_deref(), damage.offset), (Some("log-000000000001.seg"), 12_288));
    // Nor could a second one stand behind a segment that ends early.
    forge.restart();
    let at = forge.written[2].offset;
    forge.files.get_mut(&2).expect("there")[at + HEADER_BYTES] ^= 1;
    let invalid = InvalidRecord::Checksum(Lsn(3));
    let header = SegmentHeader { id: ID, sequence: 4, first: forge.link, durable: Lsn::NONE };
    forge.files.insert(4, header.encode().to_vec());
    assert_eq!(damage_of(&forge.files).what, Damaged::BeforeSegment { invalid, later: 4 });
}

#[test]
fn the_last_record_before_a_restart_is_proven_by_the_segment_behind_it() {
    let mut forge = numbered(2);
    forge.restart();
    let at = forge.written[1].offset;
    forge.files.get_mut(&1).expect("there")[at + HEADER_BYTES] ^= 1;
    let damage = damage_of(&forge.files);
    assert_eq!(
        damage.to_string(),
        "log-000000000001.seg is damaged at byte 8192, where record 2 should be: the checksum of \
         record 2 is wrong; it was there, for it was durable when segment 2 was begun"
    );
}

#[test]
fn a_successor_that_was_only_prepared_is_unused() {
    let mut forge = numbered(2);
    forge.resize(40_960);
    forge.prepare_successor();
    let end = end_of(&forge.files);
    assert_eq!((end.next.lsn, end.sequence, end.offset), (Lsn(3), Some(1), 12_288));
    assert_eq!((end.unused, end.torn), (vec![2], None));
}

#[test]
fn old_contents_of_a_recycled_segment_are_nothing() {
    let mut forge = numbered(4);
    let old = forge.files[&1].clone();
    forge.record_and_rotate(&[5; 100], old.clone());
    assert_eq!(end_of(&forge.files).torn, None);
    forge.record(&[6; 5000]);
    let end = end_of(&forge.files);
    assert_eq!((end.next.lsn, end.torn), (Lsn(7), None));
    // And a torn record among them is seen.
    let last = forge.written[5].clone();
    forge.files.get_mut(&2).expect("there")[last.offset + 4096..last.end()].fill(0);
    let end = end_of(&forge.files);
    assert_eq!(end.next.lsn, Lsn(6));
    assert_eq!(end.torn, Some(Torn { bytes: 8192, newest: None }));
}

#[test]
fn a_sealed_segment_without_its_successor_is_refused() {
    let mut forge = numbered(1);
    forge.record_and_rotate(&[2], Vec::new());
    forge.record_and_rotate(&[3], Vec::new());
    forge.record(&[4]);
    for missing in [2, 3] {
        let mut files = forge.files.clone();
        files.remove(&missing);
        assert_eq!(damage_of(&files).what, Damaged::SegmentMissing(missing));
    }
}

#[test]
fn a_segment_under_another_name_or_of_another_store_is_refused() {
    let mut forge = numbered(1);
    forge.record_and_rotate(&[2], Vec::new());
    let mut files = forge.files.clone();
    files.insert(3, forge.files[&2].clone());
    assert_eq!(damage_of(&files).what, Damaged::OtherSequence(2));
    let other = StoreId([7; 16]);
    let header = SegmentHeader { id: other, sequence: 2, first: forge.link, durable: Lsn(2) };
    forge.files.insert(2, header.encode().to_vec());
    assert_eq!(damage_of(&forge.files).what, Damaged::OtherStore(other));
}

#[test]
fn a_segment_that_continues_another_log_is_refused() {
    let mut forge = numbered(1);
    forge.record_and_rotate(&[2], Vec::new());
    let first = Link { lsn: Lsn(3), chain: forge.link.chain ^ 1 };
    let header = SegmentHeader { id: ID, sequence: 2, first, durable: Lsn(2) };
    forge.files.insert(2, header.encode().to_vec());
    let damage = damage_of(&forge.files);
    assert_eq!(damage.what, Damaged::Discontinued(Lsn(3)));
    assert_eq!((damage.file.as_deref(), damage.offset), (Some("log-000000000002.seg"), 0));
}

#[test]
fn a_restart_that_continues_another_log_is_refused() {
    let mut forge = numbered(2);
    forge.restart();
    let first = Link { lsn: Lsn(3), chain: forge.link.chain ^ 1 };
    let header = SegmentHeader { id: ID, sequence: 2, first, durable: Lsn(2) };
    forge.files.insert(2, header.encode().to_vec());
    assert_eq!(damage_of(&forge.files).what, Damaged::Discontinued(Lsn(3)));
}

#[test]
fn a_damaged_header_is_refused_and_named() {
    let mut forge = numbered(1);
    forge.record_and_rotate(&[2], Vec::new());
    forge.files.get_mut(&2).expect("there")[100] = 1;
    let damage = damage_of(&forge.files);
    assert_eq!(damage.what, Damaged::Header(InvalidHeader::Checksum));
    assert_eq!(
        damage.to_string(),
        "log-000000000002.seg is damaged at byte 0: the checksum of its header is wrong"
    );
    forge.files.insert(2, Vec::new());
    assert_eq!(damage_of(&forge.files).what, Damaged::Header(InvalidHeader::Short(0)));
}

#[test]
fn a_value_that_looks_like_a_record_proves_nothing() {
    // Whole segments as values, of this format but without the secret of the store.
    let mut fake = vec![0; 8192];
    let link = Link { lsn: Lsn(9), chain: 0 };
    let head = Head::new(link, Lsn(8), 0);
    seal(&mut fake[4096..], 0, &head, StoreId([0; 16]).seed());
    let mut payload = vec![0; 4096 - HEADER_BYTES];
    payload.extend_from_slice(&fake);
    let mut forge = numbered(1);
    forge.record(&payload);
    let torn = forge.written[1].checked_end() - 1;
    forge.files.get_mut(&1).expect("there")[torn] ^= 1;
    assert_eq!(end_of(&forge.files).next.lsn, Lsn(2));
}

#[test]
fn records_longer_than_a_read_are_read() {
    let mut forge = Forge::new();
    let long: Vec<u8> = (0..3_000_000_u32).map(|number| number as u8).collect();
    forge.record(&[1]);
    forge.record(&long);
    forge.record(&[2]);
    assert_eq!(read(&forge.files).0, [vec![1], long, vec![2]]);
}

fn snapshot(records: &[&[u8]], count: u64) -> Vec<u8> {
    let slots = Slots { from: 0, until: 16384 };
    let header = SnapshotHeader { id: ID, lsn: Lsn(42), slots, unix_ms: 1 };
    let mut file = header.encode().to_vec();
    let mut link = Link::FIRST;
    let last = count.to_le_bytes();
    for (index, payload) in records.iter().copied().chain([&last[..]]).enumerate() {
        let head = Head { end: index == records.len(), ..Head::new(link, Lsn::NONE, 0) };
        let mut room = vec![0; padded_bytes(payload.len())];
        room[HEADER_BYTES..HEADER_BYTES + payload.len()].copy_from_slice(payload);
        link = seal(&mut room, payload.len(), &head, ID.seed());
        file.extend_from_slice(&room);
    }
    file
}

fn read_snapshot(file: &[u8], keys: u64) -> Result<Vec<Vec<u8>>, Damaged> {
    let damaged = |error| match error {
        ReadError::Damaged(damage) => damage.what,
        ReadError::Io { file, error } => panic!("{file}: {error}"),
    };
    let slots = Slots { from: 0, until: 16384 };
    let mut reader = SnapshotReader::new(file, slots, Lsn(42), ID).map_err(damaged)?;
    let mut payloads = Vec::new();
    while let Some(payload) = reader.next().map_err(damaged)? {
        payloads.push(payload.to_vec());
    }
    reader.check_count(keys).map_err(damaged)?;
    Ok(payloads)
}

#[test]
fn a_snapshot_reads_back_and_counts() {
    let file = snapshot(&[b"one", &[2; 5000]], 7);
    assert_eq!(read_snapshot(&file, 7), Ok(vec![b"one".to_vec(), vec![2; 5000]]));
    let count = Damaged::Count { found: 6, expected: 7 };
    assert_eq!(read_snapshot(&file, 6), Err(count));
}

#[test]
fn a_snapshot_that_is_not_whole_is_refused() {
    let file = snapshot(&[b"one", &[2; 5000]], 7);
    for length in (0..file.len() - 4096).step_by(64) {
        assert!(read_snapshot(&file[..length], 7).is_err(), "{length}");
    }
    // Whatever is changed is refused, or it was padding and changes nothing.
    for at in (0..file.len()).step_by(61) {
        let mut file = file.clone();
        file[at] ^= 0x10;
        if let Ok(payloads) = read_snapshot(&file, 7) {
            assert_eq!(payloads, [b"one".to_vec(), vec![2; 5000]], "{at}");
        }
    }
}

#[test]
fn a_snapshot_under_another_name_or_of_another_store_is_refused() {
    let file = snapshot(&[b"one"], 1);
    let slots = Slots { from: 0, until: 16384 };
    let refused = |slots, lsn, id| match SnapshotReader::new(&file[..], slots, lsn, id)
        .map(|_| ())
        .expect_err("refused")
    {
        ReadError::Damaged(damage) => damage.what,
        ReadError::Io { file, error } => panic!("{file}: {error}"),
    };
    assert_eq!(refused(slots, Lsn(42), StoreId([7; 16])), Damaged::OtherStore(ID));
    assert_eq!(refused(slots, Lsn(43), ID), Damaged::OtherSnapshot);
    let fewer = Slots { until: 8192, ..slots };
    assert_eq!(refused(fewer, Lsn(42), ID), Damaged::OtherSnapshot);
}

/// A file whose reads are interrupted at first, and then give a block at a time.
struct Tedious<'a>(&'a [u8], std::cell::Cell<bool>);

impl ReadAt for Tedious<'_> {
    fn bytes(&self) -> io::Result<u64> {
        self.0.bytes()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if self.1.replace(!self.1.get()) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let length = buffer.len().min(4096);
        self.0.read_at(&mut buffer[..length], offset)
    }
}

#[test]
fn interrupted_and_short_reads_are_no_end() {
    let file = snapshot(&[b"one", &[2; 5000]], 7);
    let slots = Slots { from: 0, until: 16384 };
    let tedious = Tedious(&file, std::cell::Cell::new(true));
    let mut reader = SnapshotReader::new(tedious, slots, Lsn(42), ID).expect("whole");
    let mut bytes = 0;
    while let Some(payload) = reader.next().expect("whole") {
        bytes += payload.len();
    }
    assert_eq!(bytes, 5003);
    reader.check_count(7).expect("whole");
}
