//! The commands, one file per kind. Called through the rows of the command table.
//!
//! Invariant: a command on keys is a plain function of a partition, its arguments and the time.

pub mod connection;
pub mod expiry;
pub mod introspection;
pub mod keys;
pub mod numbers;
pub mod persistence;
pub mod scan;
pub mod server;
pub mod strings;
