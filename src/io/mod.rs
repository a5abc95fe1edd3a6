//! Descriptors of any kind as something to await.
//!
//! For descriptors that other libraries made and read; sockets, files and pipes have types of
//! their own.

pub mod async_fd;

pub use self::async_fd::{AsyncFd, Readiness};
pub use crate::op::Interest;
