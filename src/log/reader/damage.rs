//! What is wrong with a log or a snapshot, and where. Made by the readers, shown by the store.
//!
//! Invariant: a message names the file and the place in it; what to do is added by who knows the
//! directory.

use std::{fmt, io};

use super::super::header::InvalidHeader;
use super::super::record::{InvalidRecord, InvalidSection};
use super::super::{Lsn, StoreId};

/// A file that cannot be gone on with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Its name in the directory; `None` where no file is there to be named.
    pub file: Option<String>,
    /// Where in it, in bytes.
    pub offset: u64,
    /// The record that should be there, where that is known.
    pub lsn: Option<Lsn>,
    /// What is wrong.
    pub what: Damaged,
}

/// What is wrong with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damaged {
    /// The header is not one.
    #[error("{0}")]
    Header(InvalidHeader),
    /// The file was written by another store.
    #[error("it belongs to another store, {0}")]
    OtherStore(StoreId),
    /// The segment has another number than its name says.
    #[error("it is segment {0} under another's name")]
    OtherSequence(u64),
    /// The snapshot holds something else than its name says.
    #[error("it is another snapshot than its name says")]
    OtherSnapshot,
    /// The log begins behind what is needed.
    #[error("the log begins with record {0}, and what comes before is missing")]
    Begins(Lsn),
    /// There is no log, but there are snapshots that go with one.
    #[error("there are snapshots, and no log that goes with them")]
    NoLog,
    /// The last record of a segment said that there is another.
    #[error("segment {0} is missing")]
    SegmentMissing(u64),
    /// A segment does not begin where the one before it ends.
    #[error("the segment begins with record {0}, and does not continue the one before it")]
    Discontinued(Lsn),
    /// A record is not what was written, and a later one proves that it was there.
    #[error("{invalid}; it was there, for record {proof} was written after it")]
    Record {
        /// What is there instead.
        invalid: InvalidRecord,
        /// The later record.
        proof: Lsn,
    },
    /// A record is not what was written, and a later segment proves that it was there.
    #[error("{invalid}; it was there, for it was durable when segment {later} was begun")]
    BeforeSegment {
        /// What is there instead.
        invalid: InvalidRecord,
        /// The later segment.
        later: u64,
    },
    /// A record of a snapshot is not what was written.
    #[error("{0}")]
    SnapshotRecord(InvalidRecord),
    /// The snapshot does not hold what its last record says.
    #[error("it holds {found} keys, and says that it holds {expected}")]
    Count {
        /// Keys found.
        found: u64,
        /// Keys that it should hold.
        expected: u64,
    },
    /// A record is whole, but its contents are not what this program writes.
    #[error("{0}, although its checksum is right: another version wrote it, or a faulty program")]
    Section(InvalidSection),
    /// A record is whole, but a change in it is not one.
    #[error(
        "a change in the record is malformed ({0}), although its checksum is right: another \
             version wrote it, or a faulty program"
    )]
    Change(&'static str),
    /// The log ends before a snapshot was made.
    #[error("the log ends before record {0}, which the snapshot holds")]
    EndsBefore(Lsn),
}

impl fmt::Display for Damage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(formatter, "{file} is damaged at byte {}", self.offset)?,
            None => formatter.write_str("the log is damaged")?,
        }
        if let Some(lsn) = self.lsn {
            write!(formatter, ", where record {lsn} should be")?;
        }
        write!(formatter, ": {}", self.what)
    }
}

impl std::error::Error for Damage {}

/// Why a log or a snapshot could not be read on.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Its contents are wrong.
    #[error(transparent)]
    Damaged(#[from] Box<Damage>),
    /// The file could not be read.
    #[error("reading {file}: {error}")]
    Io {
        /// Its name in the directory.
        file: String,
        /// What the system said.
        error: io::Error,
    },
}

impl From<Damage> for ReadError {
    fn from(damage: Damage) -> Self {
        Self::Damaged(Box::new(damage))
    }
}
