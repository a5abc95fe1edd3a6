//! A snapshot that is being written: a file without a name that means anything, until it is whole.
//! Used by [`super::save`]. The format is specified in `docs/log-format.md`.
//!
//! Invariant: a snapshot has its name only when all of it is on stable storage.

use std::path::{Path, PathBuf};

use super::Folder;
use crate::buffer::{AlignedBuffer, Payload};
use crate::clock;
use crate::error::Result;
use crate::fs::{self, Directory, File, OpenOptions};
use crate::log::record::{self, HEADER_BYTES, Head, SECTION_HEADER_BYTES};
use crate::log::{
    ALIGNMENT_BYTES, FILE_HEADER_BYTES, Link, Lsn, Seed, Slots, SnapshotHeader, name,
    open_for_records,
};
use crate::store::capture::PIECE_BYTES;

/// Room for records that is kept; a longer record gets room of its own.
const ROOM_BYTES_KEPT: usize = 2 * PIECE_BYTES;

/// A snapshot on its way to the disk.
#[derive(Debug)]
pub(super) struct Draft {
    file: File,
    folder: PathBuf,
    path: PathBuf,
    slots: Slots,
    seed: Seed,
    next: Link,
    /// Where the next record goes.
    offset: u64,
    room: AlignedBuffer,
}

/// The path of the draft of a snapshot of `slots`: there is one at a time.
pub(super) fn path_of(folder: &Path, slots: Slots) -> PathBuf {
    let Slots { from, until } = slots;
    folder.join(format!("snapshot-{from:05}-{until:05}{}", name::UNFINISHED_SUFFIX))
}

impl Draft {
    /// Makes the file.
    pub(super) async fn begin(folder: &Folder, slots: Slots) -> Result<Self> {
        let path = path_of(&folder.path, slots);
        let options = OpenOptions::new().create(true).truncate(true);
        let file = open_for_records(&path, options).await?;
        Ok(Self {
            file,
            path,
            folder: folder.path.clone(),
            slots,
            seed: folder.id.seed(),
            next: Link::FIRST,
            offset: 0,
            room: AlignedBuffer::new(ROOM_BYTES_KEPT, ALIGNMENT_BYTES),
        })
    }

    /// Bytes written so far.
    pub(super) fn bytes(&self) -> u64 {
        self.offset
    }

    /// Bytes of the file that a record of these changes takes up.
    pub(super) fn bytes_of(changes: &[u8]) -> u64 {
        record::padded_bytes(SECTION_HEADER_BYTES + changes.len()) as u64
    }

    /// Writes the first block.
    pub(super) async fn write_header(&mut self, header: &SnapshotHeader) -> Result<()> {
        self.room.as_mut_slice()[..FILE_HEADER_BYTES].copy_from_slice(&header.encode());
        self.write_room(FILE_HEADER_BYTES).await
    }

    /// Writes a record of these changes.
    pub(super) async fn write(&mut self, changes: &[u8]) -> Result<()> {
        let section = record::section_header(self.slots, changes.len());
        self.write_record(&[&section, changes], false).await
    }

    /// Writes the last record, and has all of them on stable storage.
    pub(super) async fn finish(&mut self, keys: u64) -> Result<()> {
        self.write_record(&[&keys.to_le_bytes()], true).await?;
        self.file.sync_all().await
    }

    /// Gives the snapshot its name, durably.
    pub(super) async fn install(&self, lsn: Lsn) -> Result<()> {
        fs::rename(&self.path, self.folder.join(name::snapshot(self.slots, lsn))).await?;
        Directory::open(&self.folder).await?.sync().await
    }

    /// Removes the file. What cannot be removed is so at the next start.
    pub(super) async fn discard(&self) {
        if let Err(error) = fs::remove_file(&self.path).await
            && !error.is_not_found()
        {
            tracing::warn!(%error, "{}: an unfinished snapshot stays", self.path.display());
        }
    }

    async fn write_record(&mut self, payload: &[&[u8]], end: bool) -> Result<()> {
        let payload_bytes = payload.iter().map(|part| part.len()).sum();
        let padded = record::padded_bytes(payload_bytes);
        if padded > self.room.capacity() || self.room.capacity() > ROOM_BYTES_KEPT {
            self.room = AlignedBuffer::new(padded.max(ROOM_BYTES_KEPT), ALIGNMENT_BYTES);
        }
        let room = &mut self.room.as_mut_slice()[..padded];
        let mut at = HEADER_BYTES;
        for part in payload {
            room[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        let head = Head { end, ..Head::new(self.next, Lsn::NONE, clock::unix_millis()) };
        self.next = record::seal(room, payload_bytes, &head, self.seed);
        self.write_room(padded).await
    }

    async fn write_room(&mut self, bytes: usize) -> Result<()> {
        let mut room = std::mem::replace(&mut self.room, AlignedBuffer::new(1, 1));
        room.set_len(bytes);
        let write = self.file.try_write_at(Payload::from(room), self.offset, false);
        let (payload, written) = write.await;
        if let Payload::Aligned(room) = payload {
            self.room = room;
        }
        self.offset += bytes as u64;
        written
    }
}
