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

#[cfg(test)]
mod tests {
    use super::*;

    fn null() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn a_descriptor_is_kept_until_the_last_operation_on_it_is_over() {
        let mut named = Named::default();
        let (one, two) = (null(), null());
        let number = one.as_raw_fd();
        named.begin(number);
        named.begin(number);
        named.begin(libc::AT_FDCWD);
        assert!(named.keep(two).is_some(), "nobody uses it");
        assert!(named.keep(one).is_none());
        named.end(libc::AT_FDCWD);
        named.end(number);
        assert_eq!(named.closing.len(), 1);
        named.end(number);
        assert_eq!((named.closing.len(), named.in_use.len()), (0, 0));
    }
}
