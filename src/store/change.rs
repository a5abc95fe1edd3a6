//! What happens to a key, as bytes of the log and of snapshots: the effects of commands, not their
//! words, so that replaying them needs neither a clock nor a client.
//!
//! Written by a partition's journal, read by recovery. Invariant: a change names its database and
//! its key; changes follow each other without a gap; decoding checks every length.

use super::DATABASES_COUNT;
use super::slots::SLOTS_COUNT;
use crate::protocol::resp::limits::BULK_BYTES_MAX;

/// Bytes that the length of a varint never exceeds (LEB128 of 64 bits).
const VARINT_BYTES_MAX: usize = 10;

/// The one type of value so far.
const STRING: u8 = 0;

/// One effect on the keys of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// A key takes on a string value, new or not, and this deadline or none.
    Set {
        /// The database's number.
        db: usize,
        /// The key.
        key: &'a [u8],
        /// The whole value.
        value: &'a [u8],
        /// When it expires, in unix milliseconds.
        deadline: Option<u64>,
    },
    /// A key goes away: by command, or because it has expired or was evicted.
    Delete {
        /// The database's number.
        db: usize,
        /// The key.
        key: &'a [u8],
    },
    /// A key gets another deadline, or none.
    Deadline {
        /// The database's number.
        db: usize,
        /// The key.
        key: &'a [u8],
        /// When it expires, in unix milliseconds.
        deadline: Option<u64>,
    },
    /// A string grows at its end.
    Append {
        /// The database's number.
        db: usize,
        /// The key.
        key: &'a [u8],
        /// What is added.
        tail: &'a [u8],
    },
    /// A part of a string is overwritten; zeros fill a gap in front of it.
    Write {
        /// The database's number.
        db: usize,
        /// The key.
        key: &'a [u8],
        /// Where the part begins.
        offset: usize,
        /// What is there now.
        piece: &'a [u8],
    },
    /// A database loses all its keys of these slots.
    Flush {
        /// The database's number.
        db: usize,
        /// The first slot, and the one behind the last.
        slots: (u16, u16),
    },
}

/// The bytes are no changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are no change of a key: {0}")]
pub struct NoChange(pub(super) &'static str);

impl<'a> Change<'a> {
    /// Appends the bytes of this change to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Set { db, key, value, deadline } => {
                head(out, 1, db, key);
                varint(out, deadline.unwrap_or(0));
                out.push(STRING);
                bytes(out, value);
            }
            Self::Delete { db, key } => head(out, 2, db, key),
            Self::Deadline { db, key, deadline } => {
                head(out, 3, db, key);
                varint(out, deadline.unwrap_or(0));
            }
            Self::Append { db, key, tail } => {
                head(out, 4, db, key);
                bytes(out, tail);
            }
            Self::Write { db, key, offset, piece } => {
                head(out, 5, db, key);
                varint(out, offset as u64);
                bytes(out, piece);
            }
            Self::Flush { db, slots } => {
                out.extend_from_slice(&[6, db as u8]);
                varint(out, u64::from(slots.0));
                varint(out, u64::from(slots.1));
            }
        }
    }

    /// Takes the change at the front of `input`, which is moved behind it; `None` at the end.
    pub fn decode(input: &mut &'a [u8]) -> Result<Option<Self>, NoChange> {
        let Some((&kind, rest)) = input.split_first() else { return Ok(None) };
        let mut reader = Reader(rest);
        let db = usize::from(reader.byte()?);
        if db >= DATABASES_COUNT {
            return Err(NoChange("there is no such database"));
        }
        let change = if kind == 6 {
            Self::Flush { db, slots: (reader.slot()?, reader.slot()?) }
        } else {
            let key = reader.bytes()?;
            match kind {
                1 => {
                    let deadline = reader.deadline()?;
                    if reader.byte()? != STRING {
                        return Err(NoChange("there is no such type of value"));
                    }
                    Self::Set { db, key, deadline, value: reader.bytes()? }
                }
                2 => Self::Delete { db, key },
                3 => Self::Deadline { db, key, deadline: reader.deadline()? },
                4 => Self::Append { db, key, tail: reader.bytes()? },
                5 => {
                    let (offset, piece) = (reader.length()?, reader.bytes()?);
                    // Replayed, it takes all the memory up to its end.
                    if offset.checked_add(piece.len()).is_none_or(|end| end > BULK_BYTES_MAX) {
                        return Err(NoChange("it makes a value longer than any command may"));
                    }
                    Self::Write { db, key, offset, piece }
                }
                _ => return Err(NoChange("there is no such kind")),
            }
        };
        *input = reader.0;
        Ok(Some(change))
    }

    /// The database.
    pub fn db(&self) -> usize {
        match *self {
            Self::Set { db, .. }
            | Self::Delete { db, .. }
            | Self::Deadline { db, .. }
            | Self::Append { db, .. }
            | Self::Write { db, .. }
            | Self::Flush { db, .. } => db,
        }
    }

    /// The key, unless it concerns many.
    pub fn key(&self) -> Option<&'a [u8]> {
        match *self {
            Self::Set { key, .. }
            | Self::Delete { key, .. }
            | Self::Deadline { key, .. }
            | Self::Append { key, .. }
            | Self::Write { key, .. } => Some(key),
            Self::Flush { .. } => None,
        }
    }
}

/// Appends a change that sets a string: what nearly all are.
#[inline]
pub(super) fn encode_set(
    out: &mut Vec<u8>,
    db: usize,
    key: &[u8],
    value: &[u8],
    deadline: Option<u64>,
) {
    Change::Set { db, key, value, deadline }.encode(out);
}

#[inline]
fn head(out: &mut Vec<u8>, kind: u8, db: usize, key: &[u8]) {
    out.extend_from_slice(&[kind, db as u8]);
    bytes(out, key);
}

#[inline]
fn bytes(out: &mut Vec<u8>, content: &[u8]) {
    varint(out, content.len() as u64);
    out.extend_from_slice(content);
}

#[inline]
fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Bytes not yet decoded.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    #[inline]
    fn byte(&mut self) -> Result<u8, NoChange> {
        let (&byte, rest) = self.0.split_first().ok_or(NoChange("it is cut off"))?;
        self.0 = rest;
        Ok(byte)
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, NoChange> {
        let mut value = 0u64;
        for index in 0..VARINT_BYTES_MAX {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            let shift = 7 * index as u32;
            if part << shift >> shift != part {
                return Err(NoChange("a number is too large"));
            }
            value |= part << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(NoChange("a number does not end"))
    }

    #[inline]
    fn length(&mut self) -> Result<usize, NoChange> {
        usize::try_from(self.varint()?).map_err(|_| NoChange("a length is too large"))
    }

    #[inline]
    fn bytes(&mut self) -> Result<&'a [u8], NoChange> {
        let length = self.length()?;
        let (content, rest) = self.0.split_at_checked(length).ok_or(NoChange("it is cut off"))?;
        self.0 = rest;
        Ok(content)
    }

    #[inline]
    fn deadline(&mut self) -> Result<Option<u64>, NoChange> {
        Ok(Some(self.varint()?).filter(|&at_ms| at_ms != 0))
    }

    fn slot(&mut self) -> Result<u16, NoChange> {
        let slot = u16::try_from(self.varint()?).ok();
        slot.filter(|&slot| usize::from(slot) <= SLOTS_COUNT).ok_or(NoChange("no such slot"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SAMPLES: [Change<'static>; 7] = [
        Change::Set { db: 0, key: b"k", value: b"v", deadline: None },
        Change::Set { db: 15, key: b"", value: &[7; 300], deadline: Some(u64::MAX) },
        Change::Delete { db: 1, key: b"gone" },
        Change::Deadline { db: 2, key: b"k", deadline: Some(1) },
        Change::Append { db: 3, key: b"k", tail: b"tail" },
        Change::Write { db: 4, key: b"k", offset: BULK_BYTES_MAX, piece: b"" },
        Change::Flush { db: 5, slots: (0, 16384) },
    ];

    #[test]
    fn changes_come_back_in_order() {
        let mut bytes = Vec::new();
        for change in SAMPLES {
            change.encode(&mut bytes);
        }
        let mut input = bytes.as_slice();
        for change in SAMPLES {
            assert_eq!(Change::decode(&mut input), Ok(Some(change)));
        }
        assert_eq!(Change::decode(&mut input), Ok(None));
    }

    #[test]
    fn a_change_cut_off_is_refused() {
        for change in SAMPLES {
            let mut bytes = Vec::new();
            change.encode(&mut bytes);
            for end in 1..bytes.len() {
                assert!(Change::decode(&mut &bytes[..end]).is_err(), "{change:?} {end}");
            }
        }
    }

    /// Found by fuzzing: replaying it ended the process for want of memory.
    #[test]
    fn a_write_behind_the_longest_value_is_refused() {
        for (offset, piece) in
            [(BULK_BYTES_MAX, b"x".as_slice()), (1 << 40, b""), (usize::MAX, b"piece")]
        {
            let mut bytes = Vec::new();
            Change::Write { db: 0, key: b"k", offset, piece }.encode(&mut bytes);
            assert!(Change::decode(&mut bytes.as_slice()).is_err(), "{offset}");
        }
    }

    #[test]
    fn what_is_no_change_is_refused() {
        for bytes in [
            b"\x09\x00\x01k".as_slice(),
            b"\x02\x10\x01k",
            b"\x01\x00\x01k\x00\x05\x01v",
            b"\x02\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x02\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
            b"\x06\x00\x00\x81\x80\x01",
        ] {
            assert!(Change::decode(&mut &*bytes).is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let mut input = bytes.as_slice();
            while let Ok(Some(change)) = Change::decode(&mut input) {
                prop_assert!(change.db() < DATABASES_COUNT);
            }
        }
    }
}
