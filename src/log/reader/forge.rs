//! Logs made for tests, byte by byte. Called by the tests of readers and of recovery.
//!
//! Invariant: without surgery, what is forged is what a writer leaves behind.

use std::collections::BTreeMap;

use super::super::header::SegmentHeader;
use super::super::record::{HEADER_BYTES, Head, padded_bytes, seal};
use super::super::{FILE_HEADER_BYTES, Link, Lsn, StoreId};

pub(crate) const ID: StoreId = StoreId(*b"the store's id .");

/// A record of a forged log, and where it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) sequence: u64,
    pub(crate) offset: usize,
    pub(crate) lsn: Lsn,
    pub(crate) durable: Lsn,
    pub(crate) payload: Vec<u8>,
}

impl Written {
    pub(crate) fn end(&self) -> usize {
        self.offset + padded_bytes(self.payload.len())
    }

    /// Where the bytes end that a checksum covers.
    pub(crate) fn checked_end(&self) -> usize {
        self.offset + HEADER_BYTES + self.payload.len()
    }
}

/// A log being forged.
#[derive(Clone, Debug)]
pub(crate) struct Forge {
    pub(crate) files: BTreeMap<u64, Vec<u8>>,
    pub(crate) written: Vec<Written>,
    pub(crate) link: Link,
    /// What the next records say is durable: their predecessor, or this.
    pub(crate) durable: Option<Lsn>,
    sequence: u64,
    offset: usize,
    /// The links behind each record, and before the first.
    links: Vec<Link>,
}

impl Forge {
    /// A log with one segment, not preallocated.
    pub(crate) fn new() -> Self {
        let mut forge = Self {
            files: BTreeMap::new(),
            written: Vec::new(),
            link: Link::FIRST,
            durable: None,
            sequence: 0,
            offset: 0,
            links: vec![Link::FIRST],
        };
        forge.begin(Vec::new(), Lsn::NONE);
        forge
    }

    /// The length of the present segment becomes `bytes`: preallocated, or cut.
    pub(crate) fn resize(&mut self, bytes: usize) {
        self.file().resize(bytes, 0);
    }

    /// Adds a record.
    pub(crate) fn record(&mut self, payload: &[u8]) -> Lsn {
        self.write(payload, false)
    }

    /// The link behind record `count`.
    pub(crate) fn written_link(&self, count: usize) -> Link {
        self.links[count]
    }

    /// Adds a record, and goes on in a new segment on the remains of `recycled`.
    pub(crate) fn record_and_rotate(&mut self, payload: &[u8], recycled: Vec<u8>) {
        let durable = self.known_durable();
        self.write(payload, true);
        self.begin(recycled, durable);
    }

    /// What a start does: cuts the present segment and begins another.
    pub(crate) fn restart(&mut self) {
        let end = self.offset;
        self.resize(end);
        self.begin(Vec::new(), Lsn(self.link.lsn.0 - 1));
    }

    /// Puts a successor beside, as if the next record were to be sealed and never was written.
    pub(crate) fn prepare_successor(&mut self) {
        let first = Link { lsn: self.link.lsn.next(), chain: 0x1234 };
        let sequence = self.sequence + 1;
        let durable = self.known_durable();
        let header = SegmentHeader { id: ID, sequence, first, durable };
        let mut file = header.encode().to_vec();
        file.resize(4 * FILE_HEADER_BYTES, 0);
        self.files.insert(sequence, file);
    }

    fn known_durable(&self) -> Lsn {
        self.durable.unwrap_or(Lsn(self.link.lsn.0 - 1))
    }

    fn begin(&mut self, mut file: Vec<u8>, durable: Lsn) {
        self.sequence += 1;
        let (sequence, first) = (self.sequence, self.link);
        let header = SegmentHeader { id: ID, sequence, first, durable };
        file.resize(file.len().max(FILE_HEADER_BYTES), 0);
        file[..FILE_HEADER_BYTES].copy_from_slice(&header.encode());
        self.files.insert(self.sequence, file);
        self.offset = FILE_HEADER_BYTES;
    }

    fn write(&mut self, payload: &[u8], sealed: bool) -> Lsn {
        let durable = self.known_durable();
        let head = Head { sealed, ..Head::new(self.link, durable, 1_700_000_000_000) };
        let mut room = vec![0; padded_bytes(payload.len())];
        room[HEADER_BYTES..HEADER_BYTES + payload.len()].copy_from_slice(payload);
        let next = seal(&mut room, payload.len(), &head, ID.seed());
        let (sequence, offset, lsn) = (self.sequence, self.offset, self.link.lsn);
        let end = offset + room.len();
        let file = self.file();
        file.resize(file.len().max(end), 0);
        file[offset..end].copy_from_slice(&room);
        self.written.push(Written { sequence, offset, lsn, durable, payload: payload.to_vec() });
        self.offset = end;
        self.link = next;
        self.links.push(next);
        lsn
    }

    fn file(&mut self) -> &mut Vec<u8> {
        self.files.get_mut(&self.sequence).expect("the present segment is there")
    }
}
