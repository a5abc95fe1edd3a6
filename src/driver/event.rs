//! A counter that another thread bumps to end a shard's sleep (eventfd(2)).
//!
//! Used by the ring and epoll backends and by their helper threads. Bumps add up, so none is lost,
//! and it is never read where an edge is enough.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::error::Errno;

pub(crate) struct EventFd(OwnedFd);

impl EventFd {
    pub(crate) fn new() -> Result<Self, Errno> {
        // SAFETY: eventfd takes no pointers.
        let descriptor = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if descriptor < 0 {
            return Err(Errno::last());
        }
        // SAFETY: the descriptor was just made and nobody else has it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(descriptor) }))
    }

    pub(crate) fn descriptor(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Sets the counter back to zero.
    pub(crate) fn reset(&self) {
        let mut count = [0u8; 8];
        // SAFETY: reads eight bytes into a valid array; non-blocking, so it returns at once.
        unsafe { libc::read(self.descriptor(), count.as_mut_ptr().cast(), count.len()) };
    }

    /// Bumps the counter.
    pub(crate) fn notify(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: writes eight bytes from a valid array. It fails only with EAGAIN at 2^64 - 2
        // unread bumps, and then the counter is not zero, which is all that matters.
        unsafe { libc::write(self.descriptor(), one.as_ptr().cast(), one.len()) };
    }
}

/// Several eventfds as one descriptor, readable while any of them is not zero (epoll(7)).
pub(crate) struct EventSet(OwnedFd);

impl EventSet {
    pub(crate) fn new(events: [&EventFd; 2]) -> Result<Self, Errno> {
        // SAFETY: epoll_create1 takes no pointers.
        let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if epoll < 0 {
            return Err(Errno::last());
        }
        // SAFETY: the descriptor was just made and nobody else has it.
        let epoll = unsafe { OwnedFd::from_raw_fd(epoll) };
        for event in events {
            let mut entry = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 0 };
            // SAFETY: the entry is a valid local for the call.
            let result = unsafe {
                let (epoll, event) = (epoll.as_raw_fd(), event.descriptor());
                libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, event, &raw mut entry)
            };
            if result != 0 {
                return Err(Errno::last());
            }
        }
        Ok(Self(epoll))
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
