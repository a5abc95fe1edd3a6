//! The write-ahead log: what was acknowledged is in it. Called by the store, which decides what is
//! logged; the log knows bytes and no keys.
//!
//! Invariant: an [`Lsn`] names one record, and a record is whole or it is not there.
#![forbid(unsafe_code)]

mod handle;
mod lanes;

use std::fmt;

pub use handle::{Admission, Figures, Log, LogFailed, Policy};

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
        Self(self.0 + 1)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}
