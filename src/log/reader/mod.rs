//! Reads a log record by record, and says how it ends. Called by recovery and by the offline
//! tools, before a runtime or without one: reads block.
//!
//! Invariant: the records handed out are a prefix of what was written, each following the one
//! before by number and chain, and the prefix ends only where no later record proves more.

mod damage;
mod files;
mod search;
mod snapshot;

use std::io;

pub use damage::{Damage, Damaged, ReadError};
pub use files::{Files, FolderFiles, MemoryFiles, ReadAt};
pub use snapshot::SnapshotReader;

use super::header::SegmentHeader;
use super::record::HEADER_BYTES;
use super::record::{Head, InvalidRecord, Record, check_link, decode_head, is_whole, padded_bytes};
use super::{FILE_HEADER_BYTES, Link, Lsn, Seed, StoreId, name};
use files::Window;

/// What [`Reader::next`] found.
#[derive(Debug)]
pub enum Step<'a> {
    /// The next record, lent until the next step.
    Record(Record<'a>),
    /// No more. Another step finds the same.
    End(End),
}

/// Where and how a log ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// What the next record to be written must carry.
    pub next: Link,
    /// The segment that the log ends in; `None` for a log without segments.
    pub sequence: Option<u64>,
    /// Where in that segment its last record ends: the bytes of it that count.
    pub offset: u64,
    /// The segments behind it. They were prepared and never used, and hold nothing.
    pub unused: Vec<u64>,
    /// What lies behind the last record, if it is not nothing.
    pub torn: Option<Torn>,
}

/// What a crash left behind the last record: of nothing in it was anybody told that it is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Torn {
    /// Its bytes, from [`End::offset`] on.
    pub bytes: u64,
    /// The highest number of a whole record in it, where there is one.
    pub newest: Option<Lsn>,
}

/// A reader of the segments of one store. It holds one record at a time.
#[derive(Debug)]
pub struct Reader<F: Files> {
    files: F,
    id: StoreId,
    seed: Seed,
    /// The segments still to be read, the lowest last.
    ahead: Vec<u64>,
    current: Option<Current<F::File>>,
    /// What the next record carries.
    link: Link,
    /// Of the segments that are done with.
    bytes_done: u64,
    /// Where the last record was.
    place: Place,
}

/// Where a record lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The segment.
    pub sequence: u64,
    /// Where in it, in bytes.
    pub offset: u64,
}

/// Where a reader stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Where the next record would lie.
    pub place: Place,
    /// What it would carry.
    pub link: Link,
    /// The segment is sealed: the next record lies in the next one.
    pub is_sealed: bool,
}

/// The segment that is being read.
#[derive(Debug)]
struct Current<T> {
    sequence: u64,
    window: Window<T>,
    offset: u64,
    /// Its last record said that it is the last.
    is_sealed: bool,
}

impl<F: Files> Reader<F> {
    /// A reader of the segments `sequences` of store `id`, which begins at the last segment that
    /// holds record `needed`, or would. What lies in front of it is not looked at.
    ///
    /// # Errors
    /// If the log begins behind `needed`, or a header on the way is not what it should be.
    pub fn new(
        files: F,
        mut sequences: Vec<u64>,
        id: StoreId,
        needed: Lsn,
    ) -> Result<Self, ReadError> {
        sequences.sort_unstable();
        let mut reader = Self {
            files,
            id,
            seed: id.seed(),
            ahead: Vec::new(),
            current: None,
            link: Link::FIRST,
            bytes_done: 0,
            place: Place::default(),
        };
        let mut lowest = None;
        while let Some(sequence) = sequences.pop() {
            let (current, header) = reader.open(sequence)?;
            if header.first.lsn <= needed {
                reader.link = header.first;
                reader.current = Some(current);
                return Ok(reader);
            }
            reader.ahead.push(sequence);
            lowest = Some((sequence, header.first.lsn));
        }
        match lowest {
            None if needed == Link::FIRST.lsn => Ok(reader),
            None => {
                Err(Damage { file: None, offset: 0, lsn: Some(needed), what: Damaged::NoLog }
                    .into())
            }
            Some((sequence, found)) => {
                Err(damage(sequence, 0, Some(needed), Damaged::Begins(found)))
            }
        }
    }

    /// The next record, or the end.
    ///
    /// # Errors
    /// Where the log is damaged: a record is not whole, and a later one proves that it was. And
    /// where a file cannot be read.
    #[allow(clippy::should_implement_trait, reason = "it lends, which an iterator cannot")]
    pub fn next(&mut self) -> Result<Step<'_>, ReadError> {
        loop {
            let Some(current) = &mut self.current else { return Ok(Step::End(self.end(None))) };
            if !current.is_sealed {
                match current.look(self.link, self.seed).map_err(|error| current.failed(error))? {
                    Ok((head, checksum, length)) => return Ok(self.take(head, checksum, length)),
                    Err(invalid) => {
                        if !self.continue_behind_a_cut()? {
                            return self.settle(invalid).map(Step::End);
                        }
                    }
                }
            } else {
                self.continue_behind_a_seal()?;
            }
        }
    }

    /// Bytes of the log that lie behind this reader, of all that it was given.
    pub fn bytes_done(&self) -> u64 {
        self.bytes_done + self.current.as_ref().map_or(0, |current| current.offset)
    }

    /// Where the reader stands: behind the last record handed out, unless a segment's beginning is
    /// further. `None` for a log without segments.
    pub fn position(&self) -> Option<Position> {
        let current = self.current.as_ref()?;
        Some(Position {
            place: Place { sequence: current.sequence, offset: current.offset },
            link: self.link,
            is_sealed: current.is_sealed,
        })
    }

    /// Where the record lies that was handed out last.
    pub fn place(&self) -> Place {
        self.place
    }

    /// The segments from the one that is being read on.
    pub fn sequences(&self) -> Vec<u64> {
        let current = self.current.iter().map(|current| current.sequence);
        current.chain(self.ahead.iter().rev().copied()).collect()
    }

    /// Moves on behind a record that was looked at and found good.
    fn take(&mut self, head: Head, checksum: u32, length: usize) -> Step<'_> {
        let Some(current) = &mut self.current else { unreachable!("a record was found in it") };
        let start = current.offset;
        self.place = Place { sequence: current.sequence, offset: start };
        current.offset += padded_bytes(length) as u64;
        current.is_sealed = head.sealed;
        self.link = Link { lsn: head.link.lsn.next(), chain: checksum };
        let payload = &current.window.held(start)[HEADER_BYTES..HEADER_BYTES + length];
        Step::Record(Record { head, checksum, payload })
    }

    /// Opens a segment and checks that it is the one that its name says.
    fn open(&self, sequence: u64) -> Result<(Current<F::File>, SegmentHeader), ReadError> {
        let file = name::segment(sequence);
        let failed = |error| ReadError::Io { file: file.clone(), error };
        let window = self.files.open(&file).and_then(Window::new).map_err(failed)?;
        let mut current =
            Current { sequence, window, offset: FILE_HEADER_BYTES as u64, is_sealed: false };
        let refused = |what| damage(sequence, 0, None, what);
        let front = current.window.front().map_err(failed)?;
        let header =
            SegmentHeader::decode(front).map_err(|error| refused(Damaged::Header(error)))?;
        if header.id != self.id {
            return Err(refused(Damaged::OtherStore(header.id)));
        }
        if header.sequence != sequence {
            return Err(refused(Damaged::OtherSequence(header.sequence)));
        }
        Ok((current, header))
    }

    /// Goes on in the segment behind one whose last record said that there is one.
    fn continue_behind_a_seal(&mut self) -> Result<(), ReadError> {
        let Some(current) = &self.current else { return Ok(()) };
        let (sequence, offset) = (current.sequence, current.offset);
        let missing = Damaged::SegmentMissing(sequence + 1);
        let Some(next) = self.ahead.pop_if(|next| *next == sequence + 1) else {
            return Err(damage(sequence, offset, Some(self.link.lsn), missing));
        };
        let (opened, header) = self.open(next)?;
        if header.first != self.link {
            let what = Damaged::Discontinued(header.first.lsn);
            return Err(damage(next, 0, Some(self.link.lsn), what));
        }
        self.enter(opened);
        Ok(())
    }

    /// Goes on in the segment behind one that a restart has cut, if that is what happened here.
    fn continue_behind_a_cut(&mut self) -> Result<bool, ReadError> {
        let Some(&next) = self.ahead.last() else { return Ok(false) };
        match self.open(next) {
            Ok((opened, header)) if header.first == self.link => {
                self.ahead.pop();
                self.enter(opened);
                Ok(true)
            }
            // A bad header does not hide what is wrong here: `settle` looks here first.
            Ok(_) | Err(ReadError::Damaged(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn enter(&mut self, opened: Current<F::File>) {
        if let Some(left) = self.current.replace(opened) {
            self.bytes_done += left.window.file_bytes();
        }
    }

    /// Decides what it means that no record goes on here: an end, or damage.
    fn settle(&mut self, invalid: InvalidRecord) -> Result<End, ReadError> {
        let (expected, seed) = (self.link, self.seed);
        let Some(current) = &mut self.current else { return Ok(self.end(None)) };
        let (sequence, offset) = (current.sequence, current.offset);
        let found = search::behind(&mut current.window, offset, expected, seed);
        let found = found.map_err(|error| current.failed(error))?;
        if let Some(proof) = found.proof {
            let what = Damaged::Record { invalid, proof };
            return Err(damage(sequence, offset, Some(expected.lsn), what));
        }
        let damaged = |what| Err(damage(sequence, offset, Some(expected.lsn), what));
        for &later in self.ahead.iter().rev() {
            let (mut opened, header) = self.open(later)?;
            if header.first.lsn <= expected.lsn {
                let what = Damaged::Discontinued(header.first.lsn);
                return Err(damage(later, 0, Some(expected.lsn), what));
            }
            if self.ahead.last() != Some(&(sequence + 1)) {
                return damaged(Damaged::SegmentMissing(sequence + 1));
            }
            let from = opened.offset;
            let found = search::behind(&mut opened.window, from, expected, seed);
            if let Some(proof) = found.map_err(|error| opened.failed(error))?.newest {
                return damaged(Damaged::Record { invalid, proof });
            }
            // Only the segment behind this one may stand there before this one is durable.
            if header.durable >= expected.lsn || later > sequence + 1 {
                return damaged(Damaged::BeforeSegment { invalid, later });
            }
        }
        Ok(self.end(found.torn(offset)))
    }

    fn end(&self, torn: Option<Torn>) -> End {
        End {
            next: self.link,
            sequence: self.current.as_ref().map(|current| current.sequence),
            offset: self.current.as_ref().map_or(0, |current| current.offset),
            unused: self.ahead.iter().rev().copied().collect(),
            torn,
        }
    }
}

impl<T: ReadAt> Current<T> {
    /// Whether the expected record lies at the current offset. If so, it is held in the window.
    fn look(
        &mut self,
        link: Link,
        seed: Seed,
    ) -> io::Result<Result<(Head, u32, usize), InvalidRecord>> {
        look(&mut self.window, self.offset, link, seed)
    }

    fn failed(&self, error: io::Error) -> ReadError {
        ReadError::Io { file: name::segment(self.sequence), error }
    }
}

/// The highest number of a whole record that is not older than `link` and lies at `place` or
/// further behind in the same segment. For telling what a repair costs.
///
/// # Errors
/// The errors of reading the file.
pub fn newest_behind<F: Files>(
    files: &F,
    id: StoreId,
    place: Place,
    link: Link,
) -> io::Result<Option<Lsn>> {
    let mut window = Window::new(files.open(&name::segment(place.sequence))?)?;
    Ok(search::behind(&mut window, place.offset, link, id.seed())?.newest)
}

/// Whether the record that `link` asks for lies at `offset`. If so, it is held in the window.
fn look<T: ReadAt>(
    window: &mut Window<T>,
    offset: u64,
    link: Link,
    seed: Seed,
) -> io::Result<Result<(Head, u32, usize), InvalidRecord>> {
    let bytes = window.at(offset, HEADER_BYTES)?;
    if bytes.len() < HEADER_BYTES {
        return Ok(Err(InvalidRecord::Cut));
    }
    let (head, checksum, length) = match decode_head(bytes, seed) {
        Ok(found) => found,
        Err(invalid) => return Ok(Err(invalid)),
    };
    if let Err(invalid) = check_link(&head, link) {
        return Ok(Err(invalid));
    }
    let bytes = window.at(offset, padded_bytes(length))?;
    if bytes.len() < padded_bytes(length) {
        return Ok(Err(InvalidRecord::Cut));
    }
    if is_whole(bytes, checksum, length, seed) {
        Ok(Ok((head, checksum, length)))
    } else {
        Ok(Err(InvalidRecord::Checksum(head.link.lsn)))
    }
}

fn damage(sequence: u64, offset: u64, lsn: Option<Lsn>, what: Damaged) -> ReadError {
    Damage { file: Some(name::segment(sequence)), offset, lsn, what }.into()
}

#[cfg(test)]
pub(crate) mod forge;
#[cfg(test)]
mod surgery_tests;
#[cfg(test)]
mod tests;
