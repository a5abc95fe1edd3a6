//! The keyspace: partitions of databases of keys. Called by the services, through [`access`].
//!
//! Invariant: a [`Partition`] is plain data without clock, lock or task; time is an argument. What
//! changes it leaves a trace in its journal, which [`access`] hands to the log.
#![forbid(unsafe_code)]

pub mod access;
pub mod bytes;
pub mod capture;
pub mod change;
pub mod database;
pub mod directory;
mod eviction;
mod footprint;
pub mod gate;
pub mod glob;
mod journal;
pub mod keyspace;
pub mod loan;
pub mod memory;
mod partition;
mod recency;
pub mod recovery;
pub mod repair;
pub mod room;
pub mod saving;
mod slab;
pub mod slots;
pub mod snapshot;
pub mod stats;
pub mod storage;
pub mod value;
pub mod whole;

pub use access::{Home, Store, Trace};
pub use change::Change;
pub use database::Database;
pub use journal::Keeping;
pub use keyspace::{Expiry, Found, Keyspace};
pub use partition::Partition;
pub use room::Room;
pub use slots::{PartitionId, SlotMap};
pub use stats::Stats;
pub use value::{Value, WrongType};

/// Databases of a partition; `SELECT` takes numbers below this.
pub const DATABASES_COUNT: usize = 16;
