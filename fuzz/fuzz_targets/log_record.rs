//! Records and headers of the log: arbitrary bytes are refused without a panic, and whatever is
//! sealed reads back, cut or not.
#![no_main]

use annulus::log::header::{SegmentHeader, SnapshotHeader};
use annulus::log::record::{Decoded, HEADER_BYTES, Head, decode, padded_bytes, seal, sections};
use annulus::log::{Link, Lsn, StoreId};
use libfuzzer_sys::fuzz_target;

const ID: StoreId = StoreId(*b"the store's id .");

fuzz_target!(|input: &[u8]| {
    let seed = ID.seed();
    let _ = SegmentHeader::decode(input);
    let _ = SnapshotHeader::decode(input);
    // The longest front that is not enough says so; what is behind it does not change the answer.
    if let Decoded::Complete(record) = decode(input, seed) {
        for end in 0..record.padded_bytes() {
            assert!(matches!(decode(&input[..end], seed), Decoded::NeedMore(n) if n > end));
        }
    }
    let contents: usize =
        sections(input).map_while(Result::ok).map(|(_, content)| content.len() + 8).sum();
    assert!(contents <= input.len());

    let mut room = vec![0; padded_bytes(input.len())];
    room[HEADER_BYTES..HEADER_BYTES + input.len()].copy_from_slice(input);
    let number = input.len() as u64;
    let head = Head::new(Link { lsn: Lsn(number + 1), chain: 7 }, Lsn(number), number);
    let next = seal(&mut room, input.len(), &head, seed);
    let Decoded::Complete(record) = decode(&room, seed) else { panic!("sealed and not whole") };
    assert_eq!((record.head, record.payload, record.next()), (head, input, next));
    for end in (0..room.len()).step_by(97) {
        assert!(matches!(decode(&room[..end], seed), Decoded::NeedMore(n) if n > end));
    }
});
