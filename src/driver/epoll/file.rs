//! Operations on files: helper threads make their calls, as epoll has no readiness for files.
//!
//! Called by the backend's own start, cancel and reap. Invariant: a file that a helper may look up
//! stays open until the operation is over.

use std::os::fd::OwnedFd;

use super::Epoll;
use crate::clock::{self, Instant};
use crate::driver::settle;
use crate::driver::slots::{SlotKey, Slots};
use crate::error::Errno;

impl Epoll {
    pub(super) fn start_file(&mut self, key: SlotKey, slots: &mut Slots, now: Instant) {
        let op = slots.op(key).expect("an operation is started in a live slot");
        match self.offload.submit(key, op) {
            Ok(()) => self.named.begin(op.descriptor()),
            Err(errno) => slots.complete(key, Err(errno), now),
        }
    }

    /// Ends what no helper has begun. The rest stays in its slot until the answer.
    pub(super) fn cancel_file(&mut self, key: SlotKey, slots: &mut Slots) {
        if self.offload.call_back(key) {
            self.called_back(key, slots);
        }
    }

    /// Ends everything that no helper has begun.
    pub(super) fn cancel_files(&mut self, slots: &mut Slots) {
        for key in self.offload.call_back_all() {
            self.called_back(key, slots);
        }
    }

    fn called_back(&mut self, key: SlotKey, slots: &mut Slots) {
        if let Some(op) = slots.op(key) {
            self.named.end(op.descriptor());
        }
        slots.complete(key, Err(Errno(libc::ECANCELED)), clock::now());
    }

    /// Keeps a descriptor that is in use, to close it later. Gives back what can be closed now.
    pub(in crate::driver) fn keep(&mut self, descriptor: OwnedFd) -> Option<OwnedFd> {
        self.named.keep(descriptor)
    }

    /// Takes what helpers have left.
    pub(super) fn take_answers(&mut self, slots: &mut Slots, now: Instant) {
        self.offload.reap(|key, answer| {
            if let Some(op) = slots.op(key) {
                self.named.end(op.descriptor());
            }
            // SAFETY: this is the kernel's answer to the operation of that key.
            unsafe { settle::settle(slots, key, answer, now) };
        });
    }
}
