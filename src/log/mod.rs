//! The write-ahead log: what was acknowledged is in it. Called by the store, which decides what is
//! logged; the log knows bytes and no keys. The files' format is specified in `docs/log-format.md`.
//!
//! Invariant: an [`Lsn`] names one record, and a record is whole or it is not there.
#![forbid(unsafe_code)]

mod handle;
pub mod header;
mod lanes;
#[cfg(all(test, loom))]
mod loom_tests;
pub mod name;
pub mod reader;
pub mod record;
mod segments;
pub mod writer;

use std::fmt;

pub use handle::{Admission, Figures, Log, LogFailed, Policy};
pub use header::{SegmentHeader, SnapshotHeader};
pub use record::{Head, Record, Slots};
#[cfg_attr(loom, expect(unused_imports, reason = "for the store"))]
pub(crate) use segments::open_for_records;
pub use segments::{Kept, SEGMENT_BYTES_MIN, Start};
pub use writer::Writer;

/// Records and file headers begin at multiples of this, and take up multiples of it: what O_DIRECT
/// wants on every device.
pub const ALIGNMENT_BYTES: usize = 4096;

/// Bytes of the header block of every file.
pub const FILE_HEADER_BYTES: usize = ALIGNMENT_BYTES;

/// Largest payload of a record. A writer closes a record before it is this long; a reader refuses
/// a longer one. It holds the changes of the longest command (1 GiB of input), and room beside.
pub const PAYLOAD_BYTES_MAX: usize = (1024 + 64) * 1024 * 1024;

const _: () = assert!(record::HEADER_BYTES + PAYLOAD_BYTES_MAX < u32::MAX as usize);

/// A log sequence number: the number of a record, counted from 1 over the life of a store. What
/// was appended together with others for the same record shares its number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Before the first record.
    pub const NONE: Self = Self(0);

    /// The number of the record behind this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// What tells one store from every other: random, drawn when the directory is made.
///
/// Keep it from clients. The checksums of records begin with it, so that no value that a client
/// chose can pass for a record, wherever in a file it comes to lie.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct StoreId(pub [u8; 16]);

impl StoreId {
    /// What the checksums of this store's records begin with.
    pub fn seed(self) -> Seed {
        Seed(crc32c::crc32c(&self.0))
    }

    /// Reads 32 lower-case hexadecimal digits, as [`fmt::Display`] writes them.
    pub fn parse(text: &str) -> Option<Self> {
        let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 32 || !text.as_bytes().iter().all(is_digit) {
            return None;
        }
        u128::from_str_radix(text, 16).ok().map(|id| Self(id.to_be_bytes()))
    }
}

impl fmt::Display for StoreId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for StoreId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "StoreId({self})")
    }
}

/// The start of every record's checksum in one store; from [`StoreId::seed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(u32);

/// Where a log goes on: what the next record must carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub lsn: Lsn,
    /// The checksum of the record before it; 0 before the first of all.
    pub chain: u32,
}

impl Link {
    /// Where a new log begins, and every snapshot.
    pub const FIRST: Self = Self { lsn: Lsn(1), chain: 0 };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_as_it_is_written_and_only_so() {
        let id = StoreId(*b"\x00\x01\xfe\xff456789abcdef");
        assert_eq!(id.to_string(), "0001feff343536373839616263646566");
        assert_eq!(StoreId::parse("0001feff343536373839616263646566"), Some(id));
        for text in ["", "0001feff34353637383961626364656", "0001FEFF343536373839616263646566"] {
            assert_eq!(StoreId::parse(text), None, "{text}");
        }
        assert_eq!(StoreId::parse("+001feff343536373839616263646566"), None);
    }
}
