//! Writes to pipes where the kernel has none that raise no SIGPIPE (before Linux 6.18).
//!
//! It would raise one on behalf of the shard's thread, which ends the process. Blocking the signal
//! there for good is no way out: children and threads inherit that. So such writes are made here,
//! under a mask that lasts as long as the call, and only their readiness is awaited by the ring.

use crate::clock;
use crate::driver::slots::{SlotKey, Slots};
use crate::driver::{calls, settle};
use crate::error::Errno;
use crate::op::Op;

/// Writes what the pipe has room for. True if it must become writable first: the operation then
/// waits for that.
pub(super) fn write(key: SlotKey, slots: &mut Slots) -> bool {
    loop {
        let Some(Op::Write { pipe, payload, written, waits }) = slots.op(key) else { return false };
        let result = calls::set_nonblocking(*pipe, true)
            .and_then(|()| calls::write(*pipe, &payload[*written..]));
        match result {
            Err(Errno(libc::EAGAIN)) => {
                *waits = true;
                return true;
            }
            Err(Errno(libc::EINTR)) => {}
            step => {
                if !settle::sent(slots, key, step, clock::now()) {
                    return false;
                }
            }
        }
    }
}
