//! Reads a snapshot record by record. Called by recovery and by the offline tools.
//!
//! Invariant: a snapshot was whole when it got its name, so anything but a whole one is damage.

use super::super::header::SnapshotHeader;
use super::super::record::{HEADER_BYTES, InvalidRecord, u64_at};
use super::super::{FILE_HEADER_BYTES, Link, Lsn, Seed, Slots, StoreId, name};
use super::damage::{Damage, Damaged, ReadError};
use super::files::{ReadAt, Window};
use super::look;

/// A reader of one snapshot. It holds one record at a time.
#[derive(Debug)]
pub struct SnapshotReader<T> {
    file: String,
    header: SnapshotHeader,
    window: Window<T>,
    seed: Seed,
    offset: u64,
    link: Link,
    /// The keys that the last record says are here, once it has been read.
    count: Option<u64>,
}

impl<T: ReadAt> SnapshotReader<T> {
    /// Opens the snapshot of `slots` as of `lsn` of store `id`.
    ///
    /// # Errors
    /// If its header is not what it should be.
    pub fn new(file: T, slots: Slots, lsn: Lsn, id: StoreId) -> Result<Self, ReadError> {
        let file_name = name::snapshot(slots, lsn);
        let failed = |error| ReadError::Io { file: file_name.clone(), error };
        let mut window = Window::new(file).map_err(failed)?;
        let bytes = window.front().map_err(failed)?;
        let refused = |what| Damage { file: Some(file_name.clone()), offset: 0, lsn: None, what };
        let header =
            SnapshotHeader::decode(bytes).map_err(|error| refused(Damaged::Header(error)))?;
        if header.id != id {
            return Err(refused(Damaged::OtherStore(header.id)).into());
        }
        if header.slots != slots || header.lsn != lsn {
            return Err(refused(Damaged::OtherSnapshot).into());
        }
        let offset = FILE_HEADER_BYTES as u64;
        let seed = id.seed();
        Ok(Self { file: file_name, header, window, seed, offset, link: Link::FIRST, count: None })
    }

    /// What the header says.
    pub fn header(&self) -> &SnapshotHeader {
        &self.header
    }

    /// How long the file is, in bytes.
    pub fn file_bytes(&self) -> u64 {
        self.window.file_bytes()
    }

    /// How far it has been read, in bytes.
    pub fn bytes_done(&self) -> u64 {
        self.offset
    }

    /// The payload of the next record, lent until the next call; `None` at the end.
    ///
    /// # Errors
    /// If the record is not whole, and where the file cannot be read.
    #[allow(clippy::should_implement_trait, reason = "it lends, which an iterator cannot")]
    pub fn next(&mut self) -> Result<Option<&[u8]>, ReadError> {
        if self.count.is_some() {
            return Ok(None);
        }
        let looked = look(&mut self.window, self.offset, self.link, self.seed)
            .map_err(|error| ReadError::Io { file: self.file.clone(), error })?;
        let refused = |invalid| self.damage(self.offset, Damaged::SnapshotRecord(invalid));
        let (head, checksum, length) = looked.map_err(refused)?;
        let start = self.offset;
        self.offset += super::padded_bytes(length) as u64;
        self.link = Link { lsn: head.link.lsn.next(), chain: checksum };
        if !head.end {
            return Ok(Some(&self.window.held(start)[HEADER_BYTES..HEADER_BYTES + length]));
        }
        if length != size_of::<u64>() {
            let invalid = InvalidRecord::Length(length as u32);
            return Err(self.damage(start, Damaged::SnapshotRecord(invalid)).into());
        }
        self.count = Some(u64_at(self.window.held(start), HEADER_BYTES));
        Ok(None)
    }

    /// Compares the keys that were `found` with what the last record says, at the end.
    ///
    /// # Errors
    /// If they differ, or the end has not come.
    pub fn check_count(&self, found: u64) -> Result<(), ReadError> {
        let what = match self.count {
            Some(expected) if expected == found => return Ok(()),
            Some(expected) => Damaged::Count { found, expected },
            None => Damaged::SnapshotRecord(InvalidRecord::Cut),
        };
        Err(self.damage(self.offset, what).into())
    }

    /// This snapshot is damaged at `offset`.
    pub fn damage(&self, offset: u64, what: Damaged) -> Damage {
        Damage { file: Some(self.file.clone()), offset, lsn: None, what }
    }
}
