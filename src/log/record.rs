//! One record: made of a gathered payload, read from bytes, and the sections inside. Called by the
//! writers of logs and snapshots, and by their readers.
//!
//! Invariant: what decodes as a record was sealed by this store; whether it is the expected one
//! (its number, its chain) is for the caller to ask with [`check_link`].

use super::{ALIGNMENT_BYTES, Link, Lsn, PAYLOAD_BYTES_MAX, Seed};

/// Bytes of a record in front of its payload.
pub const HEADER_BYTES: usize = 48;

/// Bytes of a section in front of its content.
pub const SECTION_HEADER_BYTES: usize = 8;

const MAGIC: [u8; 4] = *b"AREC";
/// Where the bytes under the checksums begin.
const CHECKED_FROM: usize = 8;
/// Where the header's own checksum stands.
const HEADER_CHECKSUM_AT: usize = 44;
const FLAG_SEALED: u16 = 1;
const FLAG_END: u16 = 2;

/// What a record says beside its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its number, and the checksum of the record before it.
    pub link: Link,
    /// The highest record known to be durable when this one was written; below its own number.
    pub durable: Lsn,
    /// When it was written, in unix milliseconds.
    pub unix_ms: u64,
    /// Whether it is the last of its segment, and a successor exists.
    pub sealed: bool,
    /// Whether it is the last of a snapshot.
    pub end: bool,
}

impl Head {
    /// The head of an ordinary record.
    pub fn new(link: Link, durable: Lsn, unix_ms: u64) -> Self {
        Self { link, durable, unix_ms, sealed: false, end: false }
    }

    fn flags(&self) -> u16 {
        (u16::from(self.sealed) * FLAG_SEALED) | (u16::from(self.end) * FLAG_END)
    }
}

/// Bytes of a file that a record with this much payload takes up.
pub const fn padded_bytes(payload_bytes: usize) -> usize {
    (HEADER_BYTES + payload_bytes).next_multiple_of(ALIGNMENT_BYTES)
}

/// Makes a record of the payload that lies in `room` behind [`HEADER_BYTES`] of room for the
/// header: fills in the header and zeroes what follows the payload. Answers the link of the record
/// behind this one.
///
/// # Panics
/// Unless `room` has [`padded_bytes`], the payload at most [`PAYLOAD_BYTES_MAX`], and the record a
/// number above what is durable.
pub fn seal(room: &mut [u8], payload_bytes: usize, head: &Head, seed: Seed) -> Link {
    assert!(payload_bytes <= PAYLOAD_BYTES_MAX, "a payload has a limit");
    assert_eq!(room.len(), padded_bytes(payload_bytes), "a record is padded to whole blocks");
    assert!(head.link.lsn > head.durable, "a record is not durable before it is written");
    room[..4].copy_from_slice(&MAGIC);
    put_u32(room, 8, payload_bytes as u32);
    put_u32(room, 12, head.link.chain);
    put_u64(room, 16, head.link.lsn.0);
    put_u64(room, 24, head.durable.0);
    put_u64(room, 32, head.unix_ms);
    put_u16(room, 40, head.flags());
    put_u16(room, 42, 0);
    let of_header = crc32c::crc32c_append(seed.0, &room[CHECKED_FROM..HEADER_CHECKSUM_AT]);
    put_u32(room, HEADER_CHECKSUM_AT, of_header);
    let end = HEADER_BYTES + payload_bytes;
    let checksum = crc32c::crc32c_append(of_header, &room[HEADER_CHECKSUM_AT..end]);
    put_u32(room, 4, checksum);
    room[end..].fill(0);
    Link { lsn: head.link.lsn.next(), chain: checksum }
}

/// A record in the bytes that it was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// What it says beside its payload.
    pub head: Head,
    /// Its checksum.
    pub checksum: u32,
    /// Its sections; see [`sections`].
    pub payload: &'a [u8],
}

impl Record<'_> {
    /// The link of the record behind this one.
    pub fn next(&self) -> Link {
        Link { lsn: self.head.link.lsn.next(), chain: self.checksum }
    }

    /// Bytes of the file that it takes up.
    pub fn padded_bytes(&self) -> usize {
        padded_bytes(self.payload.len())
    }
}

/// What lies at the front of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// A whole record; it takes up [`Record::padded_bytes`].
    Complete(Record<'a>),
    /// The front of what may be a record: pass at least this many bytes, the ones here included.
    NeedMore(usize),
    /// No record of this store.
    Invalid(InvalidRecord),
}

/// Why bytes are not the record that was looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRecord {
    /// They do not begin as a record does.
    #[error("no record begins here")]
    Magic,
    /// The header is not one that this store wrote.
    #[error("the checksum of the record's header is wrong")]
    HeaderChecksum,
    /// The payload is longer than any that is written.
    #[error("the record claims {0} bytes, more than the {PAYLOAD_BYTES_MAX} that one may have")]
    Length(u32),
    /// A flag is set that this version does not know.
    #[error("the record has flags {0:#06x}, which this program does not know")]
    Flags(u16),
    /// The record claims to have been durable before it was written.
    #[error("record {lsn} claims that record {durable} was durable before it")]
    Durable {
        /// Its number.
        lsn: Lsn,
        /// What it claims.
        durable: Lsn,
    },
    /// The payload is not what was written.
    #[error("the checksum of record {0} is wrong")]
    Checksum(Lsn),
    /// It is another record than the one that belongs here.
    #[error("record {found} stands where record {expected} belongs")]
    Number {
        /// Its number.
        found: Lsn,
        /// The number that belongs here.
        expected: Lsn,
    },
    /// It continues another record than the one before it.
    #[error("record {0} does not continue the record before it")]
    Chain(Lsn),
    /// The file ends before the record does.
    #[error("the file ends before the record does")]
    Cut,
}

/// Reads the header at the front of `input`, once all [`HEADER_BYTES`] are there: what the record
/// says, its checksum, and its payload's length.
///
/// Looks at no payload, so a caller can pass over what does not concern it.
pub fn decode_head(input: &[u8], seed: Seed) -> Result<(Head, u32, usize), InvalidRecord> {
    let header = &input[..HEADER_BYTES];
    if header[..4] != MAGIC {
        return Err(InvalidRecord::Magic);
    }
    let of_header = crc32c::crc32c_append(seed.0, &header[CHECKED_FROM..HEADER_CHECKSUM_AT]);
    if u32_at(header, HEADER_CHECKSUM_AT) != of_header {
        return Err(InvalidRecord::HeaderChecksum);
    }
    let length = u32_at(header, 8);
    if length as usize > PAYLOAD_BYTES_MAX {
        return Err(InvalidRecord::Length(length));
    }
    let flags = u16_at(header, 40);
    if flags & !(FLAG_SEALED | FLAG_END) != 0 || u16_at(header, 42) != 0 {
        return Err(InvalidRecord::Flags(flags));
    }
    let (lsn, durable) = (Lsn(u64_at(header, 16)), Lsn(u64_at(header, 24)));
    if durable >= lsn {
        return Err(InvalidRecord::Durable { lsn, durable });
    }
    let head = Head {
        link: Link { lsn, chain: u32_at(header, 12) },
        durable,
        unix_ms: u64_at(header, 32),
        sealed: flags & FLAG_SEALED != 0,
        end: flags & FLAG_END != 0,
    };
    Ok((head, u32_at(header, 4), length as usize))
}

/// Reads the record at the front of `input`. Everything that the header tells is checked before
/// more is asked for.
pub fn decode(input: &[u8], seed: Seed) -> Decoded<'_> {
    if input.len() < HEADER_BYTES {
        let front = &input[..input.len().min(MAGIC.len())];
        let may_be = MAGIC.starts_with(front);
        let more = Decoded::NeedMore(HEADER_BYTES);
        return if may_be { more } else { Decoded::Invalid(InvalidRecord::Magic) };
    }
    let (head, checksum, length) = match decode_head(input, seed) {
        Ok(found) => found,
        Err(invalid) => return Decoded::Invalid(invalid),
    };
    let padded = padded_bytes(length);
    if input.len() < padded {
        return Decoded::NeedMore(padded);
    }
    if is_whole(input, checksum, length, seed) {
        let payload = &input[HEADER_BYTES..HEADER_BYTES + length];
        Decoded::Complete(Record { head, checksum, payload })
    } else {
        Decoded::Invalid(InvalidRecord::Checksum(head.link.lsn))
    }
}

/// Whether the record at the front of `input`, of which [`decode_head`] told checksum and length,
/// is what was written. Its payload must be there.
pub(super) fn is_whole(input: &[u8], checksum: u32, length: usize, seed: Seed) -> bool {
    let checked = &input[CHECKED_FROM..HEADER_BYTES + length];
    crc32c::crc32c_append(seed.0, checked) == checksum
}

/// Whether `head` is what `link` asks for.
pub fn check_link(head: &Head, link: Link) -> Result<(), InvalidRecord> {
    let found = head.link.lsn;
    if found != link.lsn {
        Err(InvalidRecord::Number { found, expected: link.lsn })
    } else if head.link.chain != link.chain {
        Err(InvalidRecord::Chain(found))
    } else {
        Ok(())
    }
}

/// A range of slots: what the changes of a section, or of a snapshot, are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slots {
    /// The first.
    pub from: u16,
    /// The one past the last.
    pub until: u16,
}

impl Slots {
    /// Whether the range holds anything.
    pub const fn is_valid(self) -> bool {
        self.from < self.until
    }

    /// Whether `slot` is in the range.
    pub const fn contains(self, slot: u16) -> bool {
        self.from <= slot && slot < self.until
    }

    /// As it stands in a file.
    pub const fn tag(self) -> u32 {
        self.from as u32 | (self.until as u32) << 16
    }

    const fn of_tag(tag: u32) -> Self {
        Self { from: tag as u16, until: (tag >> 16) as u16 }
    }
}

/// What goes in front of a section of `content_bytes` about `slots`.
///
/// # Panics
/// If the section is longer than a payload may be.
pub fn section_header(slots: Slots, content_bytes: usize) -> [u8; SECTION_HEADER_BYTES] {
    assert!(content_bytes <= PAYLOAD_BYTES_MAX - SECTION_HEADER_BYTES, "a payload has a limit");
    let mut header = [0; SECTION_HEADER_BYTES];
    put_u32(&mut header, 0, slots.tag());
    put_u32(&mut header, 4, content_bytes as u32);
    header
}

/// The sections of a payload, in order: what each is about, and its content.
pub fn sections(payload: &[u8]) -> Sections<'_> {
    Sections { rest: payload }
}

/// The iterator of [`sections`].
#[derive(Clone, Debug)]
pub struct Sections<'a> {
    rest: &'a [u8],
}

/// A section does not fit its payload, or is about nothing. Its record's checksum was right: a
/// program that was wrong wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a section of the record is malformed")]
pub struct InvalidSection;

impl<'a> Iterator for Sections<'a> {
    type Item = Result<(Slots, &'a [u8]), InvalidSection>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let section = split_section(self.rest);
        self.rest = section.map_or(&[], |(_, _, rest)| rest);
        Some(section.map(|(slots, content, _)| (slots, content)).ok_or(InvalidSection))
    }
}

fn split_section(payload: &[u8]) -> Option<(Slots, &[u8], &[u8])> {
    let (header, rest) = payload.split_at_checked(SECTION_HEADER_BYTES)?;
    let slots = Slots::of_tag(u32_at(header, 0));
    let (content, rest) = rest.split_at_checked(u32_at(header, 4) as usize)?;
    slots.is_valid().then_some((slots, content, rest))
}

/// Reads and writes little-endian numbers at fixed places.
macro_rules! numbers {
    ($($read:ident $write:ident $number:ty),*) => {$(
        pub(super) fn $read(bytes: &[u8], at: usize) -> $number {
            let mut number = [0; size_of::<$number>()];
            number.copy_from_slice(&bytes[at..at + size_of::<$number>()]);
            <$number>::from_le_bytes(number)
        }

        pub(super) fn $write(bytes: &mut [u8], at: usize, number: $number) {
            bytes[at..at + size_of::<$number>()].copy_from_slice(&number.to_le_bytes());
        }
    )*};
}

numbers!(u16_at put_u16 u16, u32_at put_u32 u32, u64_at put_u64 u64);

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
