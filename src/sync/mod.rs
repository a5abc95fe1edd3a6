//! What tasks and threads hand each other.

#[allow(dead_code, reason = "for tasks; other threads answer by `reply`")]
pub(crate) mod oneshot;
