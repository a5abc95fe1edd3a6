//! What can be done about a damaged directory, and doing it. Called by `annulus repair`, which asks
//! in between.
//!
//! Invariant: nothing is thrown away, what is cut off is kept in a file beside; and a crash at any
//! moment leaves what another repair can go on with.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use super::directory::{DataDirectory, DirectoryError, Listing, failed};
use super::recovery::RecoveryError;
use super::recovery::coverage::Coverage;
use crate::log::header::InvalidHeader;
use crate::log::reader::{
    Damage, Damaged, FolderFiles, Place, Position, ReadError, Reader, Step, newest_behind,
};
use crate::log::{FILE_HEADER_BYTES, Link, Lsn, SegmentHeader, Slots, name};

/// What a repair does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// The log ends earlier.
    Cut(Cut),
    /// A damaged snapshot is set aside, and nothing is lost: the log and older snapshots hold
    /// everything.
    Snapshot(Slots, Lsn),
}

/// Where a log is cut, and what that costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The end of what stays. `None` if the log begins anew, behind the snapshots.
    position: Option<Position>,
    /// The first record that is lost.
    first: Lsn,
    /// The last record that is lost, as far as can be told.
    newest: Option<Lsn>,
    /// Bytes of the segment behind the end that stays.
    tail_bytes: u64,
    /// The segments behind it; or all, if the log begins anew.
    later: Vec<u64>,
}

/// Why there is no plan. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// No cut makes the store whole.
    #[error("{damage}; this cannot be repaired: {why}; bring the directory back from a backup")]
    Hopeless {
        /// What is wrong.
        damage: Box<Damage>,
        /// Why nothing helps.
        why: String,
    },
    /// The file is for another program.
    #[error("{0}; start it with the annulus that wrote it, or a newer one")]
    Newer(Box<Damage>),
    /// An earlier repair kept something under the same name.
    #[error("{0} is there already, from an earlier repair; move it out of the directory first")]
    KeptBefore(String),
    /// The system refuses something.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
}

impl From<DirectoryError> for RepairError {
    fn from(error: DirectoryError) -> Self {
        Self::Recovery(error.into())
    }
}

/// Finds out what can be done about `damage`. Changes nothing.
///
/// # Errors
/// Nothing can, or the directory cannot be read.
pub fn plan(
    directory: &DataDirectory,
    listing: &Listing,
    damage: &Damage,
) -> Result<Plan, RepairError> {
    let boxed = || Box::new(damage.clone());
    let hopeless = |why: String| RepairError::Hopeless { damage: boxed(), why };
    if matches!(damage.what, Damaged::Header(InvalidHeader::Version(_))) {
        return Err(RepairError::Newer(boxed()));
    }
    if let Some((slots, lsn)) = damage.file.as_deref().and_then(name::parse_snapshot) {
        return if is_needless(directory, listing, (slots, lsn))? {
            Ok(Plan::Snapshot(slots, lsn))
        } else {
            Err(hopeless(format!(
                "the keys of the slots {} to {} are in it, and the log does not go back to before \
                 it",
                slots.from,
                slots.until - 1
            )))
        };
    }
    if matches!(damage.what, Damaged::Begins(_)) {
        return Err(hopeless("what comes before is not there to be found".to_owned()));
    }
    let reading = |error| RecoveryError::reading(directory.path(), error);
    let files = FolderFiles(directory.path().to_owned());
    let coverage = Coverage::new(&listing.snapshots);
    let stays = whole_part(directory, &files, listing, damage, coverage.needed());
    let stays = stays.map_err(reading)?.filter(|end| end.link.lsn > coverage.highest());
    // If all snapshots are of one time, they are whole without anything of the log.
    let can_begin_anew = coverage.needed() > coverage.highest();
    if stays.is_none() && !can_begin_anew {
        let what = "the snapshots are of different times, and the log between them is damaged";
        return Err(hopeless(what.to_owned()));
    }
    let first = stays.map_or(coverage.needed(), |end| end.link.lsn);
    let cut = cost(&files, directory, listing, stays, first);
    let cut = cut.map_err(|(file, error)| reading(ReadError::Io { file, error }))?;
    if cut.begins().is_some_and(|(sequence, _)| sequence > name::SEQUENCE_COUNT_MAX) {
        let last = name::segment(name::SEQUENCE_COUNT_MAX);
        return Err(hopeless(format!(
            "a segment would have to follow {last}, the last that can be"
        )));
    }
    Ok(Plan::Cut(cut))
}

/// The end of what is whole of the log in front of `damage`.
fn whole_part(
    directory: &DataDirectory,
    files: &FolderFiles,
    listing: &Listing,
    damage: &Damage,
    needed: Lsn,
) -> Result<Option<Position>, ReadError> {
    let Some(bad) = damage.file.as_deref().and_then(name::parse_segment) else { return Ok(None) };
    let is_before = |sequence: &u64| *sequence < bad || *sequence == bad && damage.offset > 0;
    let sequences = listing.segments.iter().copied().filter(is_before).collect();
    match Reader::new(files.clone(), sequences, directory.id(), needed) {
        Ok(reader) => last_good(reader, damage.lsn),
        Err(ReadError::Damaged(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether log and other snapshots hold what this one does.
fn is_needless(
    directory: &DataDirectory,
    listing: &Listing,
    snapshot: (Slots, Lsn),
) -> Result<bool, RepairError> {
    let others: Vec<_> =
        listing.snapshots.iter().copied().filter(|other| *other != snapshot).collect();
    let needed = Coverage::new(&others).needed();
    let files = FolderFiles(directory.path().to_owned());
    match Reader::new(files, listing.segments.clone(), directory.id(), needed) {
        Ok(reader) => Ok(reader.position().is_some()),
        Err(ReadError::Damaged(_)) => Ok(false),
        Err(error) => Err(RecoveryError::reading(directory.path(), error).into()),
    }
}

/// Where the last record ends that can stay: the one before `bad`, or before something else that
/// is wrong.
fn last_good(
    mut reader: Reader<FolderFiles>,
    bad: Option<Lsn>,
) -> Result<Option<Position>, ReadError> {
    loop {
        let before = reader.position();
        match reader.next() {
            Ok(Step::Record(record)) => {
                let (lsn, link) = (record.head.link.lsn, record.head.link);
                if Some(lsn) == bad {
                    // Looking for the record may have led into the next segment.
                    let place = reader.place();
                    let moved = Position { place, link, is_sealed: false };
                    let same = before.filter(|b| b.place.sequence == place.sequence);
                    return Ok(Some(same.unwrap_or(moved)));
                }
            }
            Ok(Step::End(_)) | Err(ReadError::Damaged(_)) => return Ok(reader.position()),
            Err(error) => return Err(error),
        }
    }
}

/// What is lost behind `position`.
fn cost(
    files: &FolderFiles,
    directory: &DataDirectory,
    listing: &Listing,
    position: Option<Position>,
    first: Lsn,
) -> Result<Cut, (String, io::Error)> {
    let end = position.map_or(0, |position| position.place.sequence);
    let later: Vec<_> = listing.segments.iter().copied().filter(|s| *s > end).collect();
    let mut cut = Cut { position, first, newest: None, tail_bytes: 0, later };
    let link = Link { lsn: first, chain: 0 };
    let mut places: Vec<_> = cut
        .later
        .iter()
        .map(|&sequence| Place { sequence, offset: FILE_HEADER_BYTES as u64 })
        .collect();
    if let Some(position) = position {
        places.push(position.place);
        let file = name::segment(end);
        let path = directory.path().join(&file);
        let length = path.metadata().map_err(|error| (file, error))?.len();
        cut.tail_bytes = length.saturating_sub(position.place.offset);
    }
    for place in places {
        let newest = newest_behind(files, directory.id(), place, link);
        let newest = newest.map_err(|error| (name::segment(place.sequence), error))?;
        cut.newest = cut.newest.max(newest);
    }
    Ok(cut)
}

impl Plan {
    /// Whether file `name` is there already with what is to be kept in it, since a repair was
    /// interrupted.
    fn is_the_tail(&self, directory: &DataDirectory, name: &str) -> bool {
        let Self::Cut(cut) = self else { return false };
        let Some((position, kept)) = cut.tail() else { return false };
        let segment = directory.path().join(name::segment(position.place.sequence));
        let is_same = || {
            let (kept, segment) = (fs::read(directory.path().join(&kept))?, fs::read(segment)?);
            let offset = usize::try_from(position.place.offset).unwrap_or(usize::MAX);
            io::Result::Ok(segment.get(offset..) == Some(&kept[..]))
        };
        kept == name && is_same().unwrap_or(false)
    }

    /// The files that will hold what is set aside.
    fn kept(&self) -> Vec<String> {
        match self {
            Self::Snapshot(slots, lsn) => vec![name::cut(&name::snapshot(*slots, *lsn), 0)],
            Self::Cut(cut) => {
                let later =
                    cut.later.iter().map(|sequence| name::cut(&name::segment(*sequence), 0));
                cut.tail().into_iter().map(|(_, kept)| kept).chain(later).collect()
            }
        }
    }

    /// Does it. Answers the files that hold what was set aside.
    ///
    /// # Errors
    /// The system refuses something, or an earlier repair kept something under the same name.
    pub fn carry_out(&self, directory: &DataDirectory) -> Result<Vec<String>, RepairError> {
        let kept = self.kept();
        let is_taken = |name: &&String| {
            let path = directory.path().join(name);
            path.exists() && !self.is_the_tail(directory, name)
        };
        if let Some(name) = kept.iter().find(is_taken) {
            return Err(RepairError::KeptBefore(name.clone()));
        }
        match self {
            Self::Snapshot(slots, lsn) => {
                directory.rename(&name::snapshot(*slots, *lsn), &kept[0])?;
                directory.sync()?;
            }
            Self::Cut(cut) => cut.carry_out(directory)?,
        }
        Ok(kept)
    }
}

impl Cut {
    /// The position in the segment whose tail is cut off, and the file that keeps it.
    fn tail(&self) -> Option<(Position, String)> {
        let position = self.position.filter(|_| self.tail_bytes > 0)?;
        let segment = name::segment(position.place.sequence);
        Some((position, name::cut(&segment, position.place.offset)))
    }

    fn carry_out(&self, directory: &DataDirectory) -> Result<(), DirectoryError> {
        if let Some((position, kept)) = self.tail() {
            let path = directory.path().join(name::segment(position.place.sequence));
            let mut tail = open_at(&path, position.place.offset)?;
            directory.write(&kept, &mut tail)?;
        }
        // From the end: what is left in between is damaged at the same place.
        for &sequence in self.later.iter().rev() {
            let segment = name::segment(sequence);
            directory.rename(&segment, &name::cut(&segment, 0))?;
            directory.sync()?;
        }
        if let Some((sequence, first)) = self.begins() {
            // What stays was read, perhaps from the cache: it is not known to be durable.
            let durable = Lsn::NONE;
            let header = SegmentHeader { id: directory.id(), sequence, first, durable }.encode();
            directory.write(&name::segment(sequence), &mut &header[..])?;
        }
        let Some(Position { place, .. }) = self.position else { return Ok(()) };
        directory.cut(&name::segment(place.sequence), place.offset)
    }

    /// The segment that is begun, and what its first record will carry.
    fn begins(&self) -> Option<(u64, Link)> {
        match self.position {
            None => {
                let sequence = self.later.last().map_or(1, |last| last + 1);
                Some((sequence, Link { lsn: self.first, chain: 0 }))
            }
            // Its last record promises a successor; an empty one continues it.
            Some(Position { place, link, is_sealed: true }) => Some((place.sequence + 1, link)),
            Some(_) => None,
        }
    }
}

fn open_at(path: &Path, offset: u64) -> Result<impl Read + use<>, DirectoryError> {
    let open = || {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(file)
    };
    open().map_err(failed("reading", path))
}

impl fmt::Display for Plan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cut = match self {
            Self::Snapshot(slots, lsn) => {
                let name = name::snapshot(*slots, *lsn);
                return write!(
                    formatter,
                    "set {name} aside; nothing is lost, the log holds everything that is in it"
                );
            }
            Self::Cut(cut) => cut,
        };
        match cut.position {
            Some(Position { place, .. }) => {
                let segment = name::segment(place.sequence);
                write!(formatter, "end the log at byte {} of {segment}", place.offset)?;
                write!(formatter, ", and set aside the {} bytes behind it", cut.tail_bytes)?;
            }
            None if cut.first == Lsn(1) => formatter.write_str("begin the log anew")?,
            None => write!(formatter, "begin the log anew behind the snapshots")?,
        }
        if !cut.later.is_empty() {
            let names: Vec<_> = cut.later.iter().map(|later| name::segment(*later)).collect();
            write!(formatter, ", and set aside {}", names.join(", "))?;
        }
        match cut.newest.filter(|newest| *newest > cut.first) {
            Some(newest) => write!(formatter, "; the records {} to {newest} are lost", cut.first),
            None => write!(formatter, "; record {} and all behind it are lost", cut.first),
        }
    }
}

#[cfg(test)]
#[path = "repair_tests.rs"]
mod tests;
