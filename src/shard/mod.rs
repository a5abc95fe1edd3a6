//! Shards: a pinned thread with its driver, executor and data.
//!
//! Built by the runtime, one per planned CPU. Invariant: what belongs to a shard is touched by its
//! thread only.

pub mod placement;
pub mod topology;
