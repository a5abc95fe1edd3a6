//! Reading a snapshot: arbitrary bytes are refused; what was sealed reads back; after an edit what
//! reads back is a front of it, and all of it if the reader comes to the end.
#![no_main]

use annulus::log::header::SnapshotHeader;
use annulus::log::reader::SnapshotReader;
use annulus::log::record::{HEADER_BYTES, Head, padded_bytes, seal};
use annulus::log::{Link, Lsn, Slots, StoreId};
use libfuzzer_sys::fuzz_target;

const ID: StoreId = StoreId(*b"the store's id .");
const SLOTS: Slots = Slots { from: 0, until: 16384 };
const LSN: Lsn = Lsn(7);

fn add(file: &mut Vec<u8>, link: Link, payload: &[u8], end: bool) -> Link {
    let mut room = vec![0; padded_bytes(payload.len())];
    room[HEADER_BYTES..HEADER_BYTES + payload.len()].copy_from_slice(payload);
    let head = Head { end, ..Head::new(link, Lsn::NONE, 0) };
    let next = seal(&mut room, payload.len(), &head, ID.seed());
    file.extend_from_slice(&room);
    next
}

/// What can be read of a file, and whether its end was found.
fn read(file: &[u8]) -> (Vec<Vec<u8>>, bool) {
    let mut payloads = Vec::new();
    let Ok(mut reader) = SnapshotReader::new(file, SLOTS, LSN, ID) else {
        return (payloads, false);
    };
    loop {
        match reader.next() {
            Ok(Some(payload)) => payloads.push(payload.to_vec()),
            Ok(None) => {
                let count = payloads.len() as u64;
                assert!(reader.check_count(count + 1).is_err());
                return (payloads, reader.check_count(count).is_ok());
            }
            Err(_) => return (payloads, false),
        }
    }
}

fuzz_target!(|input: &[u8]| {
    read(input);
    let Some((&[pieces, what, high, low, with], content)) = input.split_first_chunk() else {
        return;
    };
    let mut file = SnapshotHeader { id: ID, lsn: LSN, slots: SLOTS, unix_ms: 0 }.encode().to_vec();
    let (mut link, mut payloads) = (Link::FIRST, Vec::new());
    for payload in content.chunks(1 + usize::from(pieces) * 64).take(20) {
        link = add(&mut file, link, payload, false);
        payloads.push(payload.to_vec());
    }
    add(&mut file, link, &(payloads.len() as u64).to_le_bytes(), true);
    assert_eq!(read(&file), (payloads.clone(), true));

    let at = usize::from(u16::from_be_bytes([high, low])) % file.len();
    match what % 4 {
        0 => file.truncate(at),
        1 => file[at] ^= with,
        2 => file.iter_mut().skip(at / 512 * 512).take(512).for_each(|byte| *byte = with),
        _ => file.extend_from_slice(content),
    }
    let (found, is_whole) = read(&file);
    assert!(payloads.starts_with(&found));
    assert!(!is_whole || found == payloads);
});
