//! The first block of a segment and of a snapshot. Called by writers and readers of these files.
//!
//! Invariant: a header that decodes is the one that was encoded; what to make of its contents (is
//! it this store, this name, this place in the chain?) is the caller's to decide.

use super::record::{put_u32, put_u64, u16_at, u32_at, u64_at};
use super::{ALIGNMENT_BYTES, FILE_HEADER_BYTES, Link, Lsn, Slots, StoreId};

/// The version of the format that is written, and the newest that is read.
pub const VERSION: u32 = 1;

const SEGMENT_MAGIC: [u8; 8] = *b"ANNULOG\0";
const SNAPSHOT_MAGIC: [u8; 8] = *b"ANNUSNAP";
/// Where the bytes under the checksum begin.
const CHECKED_FROM: usize = 16;

/// What stands at the front of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The store that it belongs to.
    pub id: StoreId,
    /// Its number, the one in its name.
    pub sequence: u64,
    /// What its first record carries.
    pub first: Link,
    /// The highest record known to be durable when this was written; below the first one's number.
    pub durable: Lsn,
}

/// What stands at the front of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotHeader {
    /// The store that it belongs to.
    pub id: StoreId,
    /// The last record whose effect it holds.
    pub lsn: Lsn,
    /// The slots that it holds.
    pub slots: Slots,
    /// When it was begun, in unix milliseconds.
    pub unix_ms: u64,
}

/// Why a block is not a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHeader {
    /// The file ends within it.
    #[error("the file ends within its header, after {0} bytes")]
    Short(usize),
    /// It does not begin as such a file does.
    #[error("it does not begin like a file of this kind")]
    Magic,
    /// A newer program wrote it.
    #[error("it has version {0} of the format, and this program reads version {VERSION}")]
    Version(u32),
    /// It is not what was written.
    #[error("the checksum of its header is wrong")]
    Checksum,
    /// Its records lie at multiples of something else.
    #[error("its records are aligned to {0} bytes, not to {ALIGNMENT_BYTES}")]
    Alignment(u32),
    /// It covers no slots.
    #[error("it claims to hold the slots from {} up to {}", .0.from, .0.until)]
    Slots(Slots),
}

impl SegmentHeader {
    /// The block as it is written.
    ///
    /// # Panics
    /// Unless the first record has a number above what is durable.
    pub fn encode(&self) -> [u8; FILE_HEADER_BYTES] {
        assert!(self.first.lsn > self.durable, "a record is not durable before it is written");
        let mut block = begin(SEGMENT_MAGIC, self.id);
        put_u64(&mut block, 32, self.sequence);
        put_u64(&mut block, 40, self.first.lsn.0);
        put_u32(&mut block, 48, self.first.chain);
        put_u32(&mut block, 52, ALIGNMENT_BYTES as u32);
        put_u64(&mut block, 56, self.durable.0);
        finish(block)
    }

    /// Reads the block at the front of `file`.
    pub fn decode(file: &[u8]) -> Result<Self, InvalidHeader> {
        let (block, id) = check(file, SEGMENT_MAGIC)?;
        let alignment = u32_at(block, 52);
        if alignment as usize != ALIGNMENT_BYTES {
            return Err(InvalidHeader::Alignment(alignment));
        }
        let first = Link { lsn: Lsn(u64_at(block, 40)), chain: u32_at(block, 48) };
        Ok(Self { id, sequence: u64_at(block, 32), first, durable: Lsn(u64_at(block, 56)) })
    }
}

impl SnapshotHeader {
    /// The block as it is written.
    pub fn encode(&self) -> [u8; FILE_HEADER_BYTES] {
        let mut block = begin(SNAPSHOT_MAGIC, self.id);
        put_u64(&mut block, 32, self.lsn.0);
        put_u32(&mut block, 40, self.slots.tag());
        put_u64(&mut block, 48, self.unix_ms);
        finish(block)
    }

    /// Reads the block at the front of `file`.
    pub fn decode(file: &[u8]) -> Result<Self, InvalidHeader> {
        let (block, id) = check(file, SNAPSHOT_MAGIC)?;
        let slots = Slots { from: u16_at(block, 40), until: u16_at(block, 42) };
        if slots.is_valid() {
            Ok(Self { id, lsn: Lsn(u64_at(block, 32)), slots, unix_ms: u64_at(block, 48) })
        } else {
            Err(InvalidHeader::Slots(slots))
        }
    }
}

fn begin(magic: [u8; 8], id: StoreId) -> [u8; FILE_HEADER_BYTES] {
    let mut block = [0; FILE_HEADER_BYTES];
    block[..8].copy_from_slice(&magic);
    put_u32(&mut block, 8, VERSION);
    block[CHECKED_FROM..32].copy_from_slice(&id.0);
    block
}

fn finish(mut block: [u8; FILE_HEADER_BYTES]) -> [u8; FILE_HEADER_BYTES] {
    let checksum = crc32c::crc32c(&block[CHECKED_FROM..]);
    put_u32(&mut block, 12, checksum);
    block
}

fn check(file: &[u8], magic: [u8; 8]) -> Result<(&[u8], StoreId), InvalidHeader> {
    // What can be told from a file that is too short is told: it is not ours, or it is newer.
    if file.len() >= 8 && file[..8] != magic {
        return Err(InvalidHeader::Magic);
    }
    if file.len() >= 12 && u32_at(file, 8) != VERSION {
        return Err(InvalidHeader::Version(u32_at(file, 8)));
    }
    let block = file.get(..FILE_HEADER_BYTES).ok_or(InvalidHeader::Short(file.len()))?;
    if u32_at(block, 12) != crc32c::crc32c(&block[CHECKED_FROM..]) {
        return Err(InvalidHeader::Checksum);
    }
    let mut id = [0; 16];
    id.copy_from_slice(&block[CHECKED_FROM..32]);
    Ok((block, StoreId(id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: StoreId = StoreId(*b"0123456789abcdef");

    fn segment() -> SegmentHeader {
        let first = Link { lsn: Lsn(0x1122_3344_5566_7788), chain: 0xdead_beef };
        SegmentHeader { id: ID, sequence: 7, first, durable: Lsn(0x0123) }
    }

    fn snapshot() -> SnapshotHeader {
        let slots = Slots { from: 8192, until: 16384 };
        SnapshotHeader { id: ID, lsn: Lsn(42), slots, unix_ms: 1_700_000_000_000 }
    }

    #[test]
    fn headers_decode_to_what_was_encoded() {
        assert_eq!(SegmentHeader::decode(&segment().encode()), Ok(segment()));
        assert_eq!(SnapshotHeader::decode(&snapshot().encode()), Ok(snapshot()));
    }

    #[test]
    fn a_segment_header_lies_as_the_specification_says() {
        let block = segment().encode();
        assert_eq!(&block[..12], b"ANNULOG\0\x01\0\0\0");
        assert_eq!(&block[16..40], b"0123456789abcdef\x07\0\0\0\0\0\0\0");
        assert_eq!(&block[40..48], b"\x88\x77\x66\x55\x44\x33\x22\x11");
        assert_eq!(&block[48..56], b"\xef\xbe\xad\xde\0\x10\0\0");
        assert_eq!(&block[56..64], b"\x23\x01\0\0\0\0\0\0");
        assert!(block[64..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_snapshot_header_lies_as_the_specification_says() {
        let block = snapshot().encode();
        assert_eq!(&block[..12], b"ANNUSNAP\x01\0\0\0");
        assert_eq!(&block[32..48], b"\x2a\0\0\0\0\0\0\0\0\x20\0\x40\0\0\0\0");
        assert_eq!(u64_at(&block, 48), 1_700_000_000_000);
    }

    #[test]
    fn any_flipped_bit_of_a_header_is_refused() {
        for at in 0..FILE_HEADER_BYTES * 8 {
            let mut block = segment().encode();
            block[at / 8] ^= 1 << (at % 8);
            assert!(SegmentHeader::decode(&block).is_err(), "bit {at}");
        }
    }

    #[test]
    fn a_refusal_says_what_is_wrong() {
        let refusal = |file: &[u8]| SegmentHeader::decode(file).expect_err("refused");
        let block = segment().encode();
        assert_eq!(refusal(&[]), InvalidHeader::Short(0));
        assert_eq!(refusal(&block[..4095]), InvalidHeader::Short(4095));
        assert_eq!(refusal(&snapshot().encode()), InvalidHeader::Magic);
        let mut newer = block;
        newer[8] = 2;
        assert_eq!(refusal(&newer), InvalidHeader::Version(2));
        assert_eq!(refusal(&newer[..12]), InvalidHeader::Version(2));
        let mut other = block;
        put_u32(&mut other, 52, 512);
        assert_eq!(refusal(&finish(other)), InvalidHeader::Alignment(512));
        let slots = Slots { from: 5, until: 5 };
        let empty = SnapshotHeader { slots, ..snapshot() };
        assert_eq!(SnapshotHeader::decode(&empty.encode()), Err(InvalidHeader::Slots(slots)));
    }
}
