//! What tasks and threads hand each other.

pub(crate) mod oneshot;
