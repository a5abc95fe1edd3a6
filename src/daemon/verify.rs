//! `annulus verify`: reads a store's directory as a start would, and reports. Called by `main`.
//!
//! Invariant: nothing in the directory is changed but the lock's holder.

use std::fmt::Write as _;
use std::path::Path;

use super::Failure;
use crate::store::SlotMap;
use crate::store::directory::{DataDirectory, Listing, Missing};
use crate::store::recovery::{self, Recovered};

/// Reads everything in `directory`; answers the report.
///
/// # Errors
/// The directory is damaged, in use, or no store's.
pub fn run(directory: &Path) -> Result<String, Failure> {
    let directory = DataDirectory::open(directory, Missing::Refuse)?;
    let listing = directory.list()?;
    let recovered = recovery::load(&directory, &listing, map())?;
    Ok(report(&directory, &listing, &recovered))
}

/// As many partitions as there are processors to fill them.
pub(super) fn map() -> SlotMap {
    SlotMap::new(std::thread::available_parallelism().map_or(1, usize::from))
}

/// What was found, for people.
pub(super) fn report(
    directory: &DataDirectory,
    listing: &Listing,
    recovered: &Recovered,
) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(out, "{name:<11}{value}");
    };
    line("directory", &directory.path().display().to_string());
    if recovered.snapshots.is_empty() {
        line("snapshots", "none");
    }
    for (slots, lsn) in &recovered.snapshots {
        let until = slots.until - 1;
        line("snapshot", &format!("slots {} to {until}, up to record {lsn}", slots.from));
    }
    let kept = &recovered.start.kept;
    let bytes: u64 = kept.iter().map(|kept| kept.bytes).sum();
    line("log", &format!("{} segment(s), {bytes} bytes", kept.len()));
    let (figures, last) = (&recovered.figures, recovered.start.next.lsn.0 - 1);
    match figures.first {
        Some(first) => line("records", &format!("{first} to {last}")),
        None => line("records", &format!("none behind the snapshots; the last was {last}")),
    }
    line("keys", &figures.keys.to_string());
    match &recovered.torn {
        Some(torn) => line("ending", &format!("torn: {torn}; the next start cuts them off")),
        None => line("ending", "clean"),
    }
    let needless = listing.unfinished.len() + recovered.superseded.len();
    if needless > 0 {
        line("left over", &format!("{needless} file(s) that the next start removes"));
    }
    out
}
