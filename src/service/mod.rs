//! What connections do: one folder per protocol, between the runtime and the store.
//!
//! Called by `daemon`, which owns the listeners. Invariant: nothing in here knows which engine
//! runs.

pub mod http;
mod input;
pub mod resp;
mod room;
