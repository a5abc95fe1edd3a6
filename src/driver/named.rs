//! Descriptors that operations under way name by their number, and those that wait to be closed.
//!
//! A helper thread, or a worker of the kernel, looks a number up when it begins: late enough for an
//! operation that was given up to find another file there, if its own has been closed meanwhile.
//! Used by the backends that hand operations over. Invariant: a number that is in use stays open.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

#[derive(Default)]
pub(super) struct Named {
    /// One entry for each operation.
    in_use: Vec<RawFd>,
    closing: Vec<OwnedFd>,
}

impl Named {
    /// An operation on `descriptor` is under way.
    pub(super) fn begin(&mut self, descriptor: RawFd) {
        // Negative ones (AT_FDCWD) are nobody's.
        if descriptor >= 0 {
            self.in_use.push(descriptor);
        }
    }

    /// It is over. Closes what waited for it.
    pub(super) fn end(&mut self, descriptor: RawFd) {
        if let Some(place) = self.in_use.iter().position(|used| *used == descriptor) {
            self.in_use.swap_remove(place);
            let in_use = &self.in_use;
            self.closing.retain(|waiting| in_use.contains(&waiting.as_raw_fd()));
        }
    }

    /// Keeps a descriptor that is in use, to close it later. Gives back what can be closed now.
    pub(super) fn keep(&mut self, descriptor: OwnedFd) -> Option<OwnedFd> {
        if self.in_use.contains(&descriptor.as_raw_fd()) {
            self.closing.push(descriptor);
            return None;
        }
        Some(descriptor)
    }
}
