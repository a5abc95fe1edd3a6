//! Waits for readiness alone, of any descriptor: what [`Op::Ready`] and [`Op::WaitChild`] are here.
//!
//! Each wait has a descriptor number of its own (a duplicate, or a pidfd), so that a descriptor may
//! be awaited several times, be a socket that is registered already, or be closed meanwhile.
//! Invariant: such a number is taken out of epoll before it is closed, since epoll(7) keeps
//! reporting what another duplicate holds open.

use std::os::fd::{AsRawFd, RawFd};

use super::Epoll;
use crate::clock::{self, Instant};
use crate::driver::calls;
use crate::driver::slots::{SlotKey, Slots};
use crate::error::Errno;
use crate::op::{Op, Value};

/// What is reported although nobody asked for it (poll(2)).
const ALWAYS: u32 = (libc::EPOLLHUP | libc::EPOLLERR) as u32;

impl Epoll {
    /// Looks whether the descriptor is ready; if not, has epoll say when.
    pub(super) fn watch(&mut self, key: SlotKey, slots: &mut Slots, now: Instant) {
        let Some(op) = slots.op(key) else { return };
        let descriptor = match Self::hold(op) {
            Ok(Some(descriptor)) => descriptor,
            Ok(None) => {
                let (descriptor, bits) = op.awaits();
                let ready = calls::ready_now(descriptor, bits);
                return slots.complete(key, ready.map(Value::Count), now);
            }
            Err(errno) => return slots.complete(key, Err(errno), now),
        };
        match self.socket(descriptor) {
            Ok(entry) => entry.watcher = Some(key),
            Err(errno) => slots.complete(key, Err(errno), now),
        }
    }

    /// A number that only this operation uses; `None` if it is ready as it stands.
    fn hold(op: &mut Op) -> Result<Option<RawFd>, Errno> {
        let (descriptor, bits) = op.awaits();
        let held = match op {
            Op::WaitChild { process, held } => held.insert(calls::open_process(*process)?),
            Op::Ready { held, .. } if calls::ready_now(descriptor, bits)? == 0 => {
                held.insert(calls::duplicate(descriptor)?)
            }
            _ => return Ok(None),
        };
        Ok(Some(held.as_raw_fd()))
    }

    /// Epoll has reported the number at `index`: over, if it is what the operation waits for.
    pub(super) fn watched(&mut self, key: SlotKey, index: usize, ready: u32, slots: &mut Slots) {
        let Some(op) = slots.op(key) else { return };
        let found = ready & (op.awaits().1 as u32 | ALWAYS);
        if found != 0 {
            self.release(index as RawFd);
            slots.complete(key, Ok(Value::Count(found)), clock::now());
        }
    }
}
