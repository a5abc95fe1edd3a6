//! Reading a log of three segments after arbitrary edits: an exact prefix or a refusal, no panic,
//! no endless reading.
#![no_main]

use std::collections::BTreeMap;

use annulus::log::header::SegmentHeader;
use annulus::log::reader::{MemoryFiles, Reader, Step};
use annulus::log::record::{HEADER_BYTES, Head, padded_bytes, seal};
use annulus::log::{Link, Lsn, StoreId};
use libfuzzer_sys::fuzz_target;

const ID: StoreId = StoreId(*b"the store's id .");
const RECORDS_COUNT: u64 = 9;

fn payload(number: u64) -> Vec<u8> {
    vec![number as u8; (number as usize * 1013) % 6000]
}

/// Three segments of three records; the second is sealed, the first and third are not.
fn log() -> BTreeMap<u64, Vec<u8>> {
    let (mut files, mut link) = (BTreeMap::new(), Link::FIRST);
    for sequence in 1..=3 {
        let mut file = SegmentHeader { id: ID, sequence, first: link }.encode().to_vec();
        for index in 0..3 {
            let payload = payload(link.lsn.0);
            let mut room = vec![0; padded_bytes(payload.len())];
            room[HEADER_BYTES..HEADER_BYTES + payload.len()].copy_from_slice(&payload);
            let mut head = Head::new(link, Lsn(link.lsn.0 - 1), 0);
            head.sealed = sequence == 2 && index == 2;
            link = seal(&mut room, payload.len(), &head, ID.seed());
            file.extend_from_slice(&room);
        }
        files.insert(sequence, file);
    }
    files
}

/// Five bytes make an edit: what, which segment, where (in 16 bytes), with what.
fn edit(files: &mut BTreeMap<u64, Vec<u8>>, edit: &[u8]) {
    let &[what, segment, high, low, with] = edit else { return };
    let (sequence, at) = (u64::from(segment % 4), usize::from(u16::from_be_bytes([high, low])));
    let other = u64::from(with % 5);
    let Some(file) = files.get_mut(&sequence) else { return };
    match what % 6 {
        0 => file.truncate(at),
        1 => file.resize(at, with),
        2 => file.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= with),
        3 => file.iter_mut().skip(at / 512 * 512).take(512).for_each(|byte| *byte = with),
        4 => drop(files.remove(&sequence)),
        _ => {
            let copy = file.clone();
            files.insert(other, copy);
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let mut files = log();
    let (needed, edits) = input.split_first().unwrap_or((&0, &[]));
    edits.chunks(5).take(20).for_each(|bytes| edit(&mut files, bytes));
    let needed = Lsn(u64::from(needed % 10) + 1);
    let sequences = files.keys().copied().collect();
    let Ok(mut reader) = Reader::new(MemoryFiles(&files), sequences, ID, needed) else { return };
    let mut expected = None;
    for _ in 0..=RECORDS_COUNT {
        match reader.next() {
            Ok(Step::Record(record)) => {
                let number = record.head.link.lsn;
                assert!(expected.is_none_or(|expected| expected == number));
                assert_eq!(record.payload, payload(number.0));
                expected = Some(number.next());
            }
            Ok(Step::End(end)) => {
                assert!(expected.is_none_or(|expected| expected == end.next.lsn));
                return;
            }
            Err(_) => return,
        }
    }
    panic!("more records than were written");
});
