//! Temporary.
#![allow(dead_code, unused_macros)]
#[macro_use]
#[path = "engines/harness.rs"]
mod harness;
#[path = "engines/snapshots.rs"]
mod snapshots;
