//! Tests of the record format. Run by `cargo test`.
//!
//! Invariant: every test that damages bytes damages bytes that a checksum covers.

use super::super::StoreId;
use super::*;
use proptest::prelude::*;

const ID: StoreId = StoreId(*b"0123456789abcdef");

fn head(lsn: u64, chain: u32) -> Head {
    Head::new(Link { lsn: Lsn(lsn), chain }, Lsn(lsn - 1), 1_700_000_000_000)
}

/// The record as it is written, and the link behind it.
fn sealed(payload: &[u8], head: &Head) -> (Vec<u8>, Link) {
    let mut room = vec![0xaa; padded_bytes(payload.len())];
    room[HEADER_BYTES..HEADER_BYTES + payload.len()].copy_from_slice(payload);
    let next = seal(&mut room, payload.len(), head, ID.seed());
    (room, next)
}

#[track_caller]
fn invalid(input: &[u8]) -> InvalidRecord {
    match decode(input, ID.seed()) {
        Decoded::Invalid(invalid) => invalid,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_record_lies_as_the_specification_says() {
    let mut head = head(0x0102_0304_0506_0708, 0xdead_beef);
    head.durable = Lsn(3);
    head.sealed = true;
    let (room, next) = sealed(b"payload", &head);
    assert_eq!(room.len(), 4096);
    assert_eq!(&room[..4], b"AREC");
    assert_eq!(&room[8..16], b"\x07\0\0\0\xef\xbe\xad\xde");
    assert_eq!(&room[16..24], b"\x08\x07\x06\x05\x04\x03\x02\x01");
    assert_eq!(&room[24..32], b"\x03\0\0\0\0\0\0\0");
    assert_eq!(u64_at(&room, 32), 1_700_000_000_000);
    assert_eq!(&room[40..44], b"\x01\0\0\0");
    assert_eq!(&room[48..55], b"payload");
    assert!(room[55..].iter().all(|byte| *byte == 0));
    // The checksums begin with the store's id.
    let header = crc32c::crc32c(&[&ID.0[..], &room[8..44]].concat());
    assert_eq!(u32_at(&room, 44), header);
    let checksum = crc32c::crc32c(&[&ID.0[..], &room[8..55]].concat());
    assert_eq!(u32_at(&room, 4), checksum);
    assert_eq!(next, Link { lsn: Lsn(0x0102_0304_0506_0709), chain: checksum });
}

#[test]
fn payloads_are_padded_to_whole_blocks() {
    assert_eq!(padded_bytes(0), 4096);
    assert_eq!(padded_bytes(4048), 4096);
    assert_eq!(padded_bytes(4049), 8192);
}

#[test]
fn any_flipped_bit_is_refused() {
    let (room, _) = sealed(b"some payload", &head(9, 77));
    for bit in 0..(HEADER_BYTES + 12) * 8 {
        let mut damaged = room.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        invalid(&damaged);
    }
}

#[test]
fn a_cut_record_needs_more_and_says_how_much() {
    let (room, _) = sealed(&[7; 5000], &head(9, 77));
    for length in 0..HEADER_BYTES {
        assert_eq!(decode(&room[..length], ID.seed()), Decoded::NeedMore(HEADER_BYTES));
    }
    for length in HEADER_BYTES..room.len() {
        assert_eq!(decode(&room[..length], ID.seed()), Decoded::NeedMore(8192));
    }
}

#[test]
fn what_can_be_refused_early_is_refused_early() {
    assert_eq!(invalid(b"B"), InvalidRecord::Magic);
    assert_eq!(invalid(&[0; 4096]), InvalidRecord::Magic);
    let with = |at: usize, number: u64, bytes: usize| {
        let (mut room, _) = sealed(b"", &head(9, 77));
        room[at..at + bytes].copy_from_slice(&number.to_le_bytes()[..bytes]);
        let of_header = crc32c::crc32c_append(ID.seed().0, &room[8..44]);
        put_u32(&mut room, 44, of_header);
        invalid(&room[..HEADER_BYTES])
    };
    let long = PAYLOAD_BYTES_MAX as u32 + 1;
    assert_eq!(with(8, u64::from(long), 4), InvalidRecord::Length(long));
    assert_eq!(with(40, 4, 2), InvalidRecord::Flags(4));
    assert_eq!(with(42, 1, 2), InvalidRecord::Flags(0));
    let durable = InvalidRecord::Durable { lsn: Lsn(9), durable: Lsn(9) };
    assert_eq!(with(24, 9, 8), durable);
}

#[test]
fn a_record_of_another_store_is_refused() {
    let (room, _) = sealed(b"payload", &head(9, 77));
    let other = StoreId(*b"0123456789abcdeg").seed();
    assert_eq!(decode(&room, other), Decoded::Invalid(InvalidRecord::HeaderChecksum));
}

#[test]
fn a_record_follows_only_its_own_link() {
    let (first, link) = sealed(b"first", &head(9, 77));
    let (second, _) = sealed(b"second", &head(10, link.chain));
    let Decoded::Complete(second) = decode(&second, ID.seed()) else { panic!("whole") };
    assert_eq!(check_link(&second.head, link), Ok(()));
    let other = Link { chain: link.chain ^ 1, ..link };
    assert_eq!(check_link(&second.head, other), Err(InvalidRecord::Chain(Lsn(10))));
    let number = InvalidRecord::Number { found: Lsn(10), expected: Lsn(9) };
    assert_eq!(check_link(&second.head, Link { lsn: Lsn(9), ..link }), Err(number));
    let Decoded::Complete(first) = decode(&first, ID.seed()) else { panic!("whole") };
    assert_eq!(first.next(), link);
}

#[test]
fn malformed_sections_end_the_payload_with_an_error() {
    let slots = Slots { from: 1, until: 2 };
    let mut payload = section_header(slots, 2).to_vec();
    payload.extend_from_slice(b"ok");
    let good = Ok((slots, &b"ok"[..]));
    assert_eq!(sections(&payload).collect::<Vec<_>>(), [good]);
    for tail in [&b"short"[..], &section_header(slots, 1), &[2, 0, 2, 0, 0, 0, 0, 0]] {
        let all = [&payload[..], tail].concat();
        assert_eq!(sections(&all).collect::<Vec<_>>(), [good, Err(InvalidSection)]);
    }
}

proptest! {
    #[test]
    fn any_record_decodes_to_what_was_sealed(
        payload in proptest::collection::vec(any::<u8>(), 0..9000),
        (lsn, below, chain, unix_ms) in (1..u64::MAX, any::<u64>(), any::<u32>(), any::<u64>()),
        (sealed_flag, end) in any::<(bool, bool)>(),
        behind in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        let link = Link { lsn: Lsn(lsn), chain };
        let durable = Lsn(below % lsn);
        let head = Head { link, durable, unix_ms, sealed: sealed_flag, end };
        let (mut bytes, next) = sealed(&payload, &head);
        let padded = bytes.len();
        bytes.extend_from_slice(&behind);
        let Decoded::Complete(record) = decode(&bytes, ID.seed()) else {
            return Err(TestCaseError::fail("not whole"));
        };
        prop_assert_eq!(record.head, head);
        prop_assert_eq!(record.payload, &payload[..]);
        prop_assert_eq!(record.next(), next);
        prop_assert_eq!(record.padded_bytes(), padded);
    }

    #[test]
    fn a_changed_byte_anywhere_is_refused(
        payload in proptest::collection::vec(any::<u8>(), 0..9000),
        at in any::<prop::sample::Index>(),
        change in 1..=255_u8,
    ) {
        let (mut bytes, _) = sealed(&payload, &head(5, 6));
        bytes[at.index(HEADER_BYTES + payload.len())] ^= change;
        prop_assert!(!matches!(decode(&bytes, ID.seed()), Decoded::Complete(_)));
    }

    #[test]
    fn sections_read_back_in_order(
        parts in proptest::collection::vec(
            (0..16384_u16, 1..=16384_u16, proptest::collection::vec(any::<u8>(), 0..50)),
            0..8,
        ),
    ) {
        let mut payload = Vec::new();
        let mut expected = Vec::new();
        for (from, length, content) in &parts {
            let slots = Slots { from: *from, until: from + length };
            payload.extend_from_slice(&section_header(slots, content.len()));
            payload.extend_from_slice(content);
            expected.push(Ok((slots, &content[..])));
        }
        prop_assert_eq!(sections(&payload).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn arbitrary_bytes_are_no_record(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let disguised = [&b"AREC"[..], &bytes].concat();
        let answers = [decode(&bytes, ID.seed()), decode(&disguised, ID.seed())];
        prop_assert!(!answers.iter().any(|answer| matches!(answer, Decoded::Complete(_))));
        let _ = sections(&bytes).count();
    }
}
