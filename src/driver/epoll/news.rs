//! What tells that a reap has something to do: for a running task, and for somebody else's loop.

use std::os::fd::{AsFd, BorrowedFd};

use super::{Epoll, WAKE};

impl Epoll {
    /// The epoll instance, which is readable itself while it has something to report (epoll(7)).
    pub(in crate::driver) fn descriptor(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// Whether something has been taken from the kernel, or left by a helper, that has not been
    /// acted on. A wake is no news by itself.
    #[inline]
    pub(in crate::driver) fn has_news(&self) -> bool {
        !self.events.is_empty()
            && (self.events.iter().any(|event| event.u64 != WAKE) || self.offload.has_answers())
    }
}
