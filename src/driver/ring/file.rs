//! Operations on files: entries where the ring has one, and helper threads for the rest.
//!
//! Called by the ring's own start, cancel, reap and completion. Invariant: a file whose number a
//! worker or a helper will look up stays open until the operation is over.

use std::os::fd::OwnedFd;

use super::{Ring, entry};
use crate::clock::{self, Instant};
use crate::driver::offload::Offload;
use crate::driver::settle;
use crate::driver::slots::{SlotKey, Slots};
use crate::error::Errno;
use crate::limits;
use crate::op::Op;

impl Ring {
    pub(super) fn start_file(&mut self, key: SlotKey, slots: &mut Slots) {
        let op = slots.op(key).expect("an operation is started in a live slot");
        if op.is_looked_up_late() {
            self.named.begin(op.descriptor());
        }
        let has_entry = match op {
            Op::List { .. } | Op::ReadLink { .. } => false,
            Op::Truncate { .. } => self.given.truncate,
            // An entry has 32 bits for it.
            Op::Advise { length, .. } => u32::try_from(*length).is_ok(),
            _ => true,
        };
        if has_entry {
            let entry = entry::entry(op).user_data(key.to_user_data());
            self.push(entry);
            self.files_queued += 1;
            if self.files_queued >= limits::FILE_BATCH_COUNT {
                self.hurry();
            }
        } else {
            self.hand_over(key, slots);
        }
    }

    /// Hands over what is queued before the turn ends: the disk works while the tasks run.
    fn hurry(&mut self) {
        if let Err(errno) = self.enter(0, None) {
            tracing::warn!(%errno, "handing over file operations failed; done at the turn's end");
        }
    }

    /// Has a helper make the call. Its file is in use already.
    fn hand_over(&mut self, key: SlotKey, slots: &mut Slots) {
        let Some(op) = slots.op(key) else { return };
        let event = &self.event;
        let make = || Offload::new(limits::OFFLOAD_THREADS_COUNT, event);
        if let Err(errno) = self.offload.get_or_insert_with(make).submit(key, op) {
            self.named.end(op.descriptor());
            // SAFETY: an error says nothing about memory.
            unsafe { settle::settle(slots, key, Err(errno), clock::now()) };
        }
    }

    /// The kernel's answer to an entry.
    pub(super) fn complete_file(
        &mut self,
        key: SlotKey,
        count: Result<u32, Errno>,
        slots: &mut Slots,
        now: Instant,
    ) {
        let is_orphaned = slots.is_orphaned(key);
        let Some(op) = slots.op(key) else { return };
        match count {
            Err(Errno(libc::EINTR)) if !is_orphaned => {
                let entry = entry::entry(op).user_data(key.to_user_data());
                return self.push(entry);
            }
            // Somewhere below, something would have had to wait. A call does so.
            Err(Errno(libc::EAGAIN)) if !is_orphaned => {
                if !op.is_looked_up_late() {
                    self.named.begin(op.descriptor());
                }
                return self.hand_over(key, slots);
            }
            _ => {}
        }
        if op.is_looked_up_late() {
            self.named.end(op.descriptor());
        }
        // SAFETY: this is the kernel's answer to this operation.
        unsafe { settle::settle(slots, key, count, now) };
    }

    /// Keeps a descriptor that is in use, to close it later. Gives back what can be closed now.
    pub(in crate::driver) fn keep(&mut self, descriptor: OwnedFd) -> Option<OwnedFd> {
        self.named.keep(descriptor)
    }

    /// Whether a close can go its way. Otherwise its descriptor is kept until it is not in use.
    pub(super) fn closes_now(&mut self, op: &mut Op) -> bool {
        let Op::Close { descriptor } = std::mem::replace(op, Op::Idle) else { return true };
        match self.keep(descriptor) {
            Some(descriptor) => {
                *op = Op::Close { descriptor };
                true
            }
            None => false,
        }
    }

    /// Takes what helpers have left.
    pub(super) fn take_answers(&mut self, slots: &mut Slots, now: Instant) {
        let Some(offload) = &mut self.offload else { return };
        let named = &mut self.named;
        offload.reap(|key, answer| {
            if let Some(op) = slots.op(key) {
                named.end(op.descriptor());
            }
            // SAFETY: this is the kernel's answer to the operation of that key.
            unsafe { settle::settle(slots, key, answer, now) };
        });
    }

    /// Takes an operation back that waits for a helper. False if it is not there.
    pub(super) fn call_back(&mut self, key: SlotKey, slots: &mut Slots) -> bool {
        let Some(offload) = &mut self.offload else { return false };
        let is_back = offload.call_back(key);
        if is_back {
            self.called_back(key, slots);
        }
        is_back
    }

    /// Takes back every operation that waits for a helper.
    pub(super) fn call_back_all(&mut self, slots: &mut Slots) {
        let waiting = self.offload.as_mut().map(Offload::call_back_all);
        for key in waiting.unwrap_or_default() {
            self.called_back(key, slots);
        }
    }

    fn called_back(&mut self, key: SlotKey, slots: &mut Slots) {
        if let Some(op) = slots.op(key) {
            self.named.end(op.descriptor());
        }
        slots.complete(key, Err(Errno(libc::ECANCELED)), clock::now());
    }

    /// Whether a helper has something to do: its answer comes by the eventfd.
    pub(super) fn is_helped(&self) -> bool {
        self.offload.as_ref().is_some_and(Offload::is_busy)
    }
}
