//! What connections do. Called by the daemon.
//!
//! Invariant: the same service code runs on every engine.

pub mod resp;
