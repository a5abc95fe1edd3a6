//! Turns the count or error number that a kernel call gave into the outcome of its operation.

use std::os::fd::{FromRawFd, OwnedFd};

use super::slots::{SlotKey, Slots};
use crate::clock::Instant;
use crate::error::Errno;
use crate::metrics::{self, Counter};
use crate::op::{Op, Value};

/// Completes a one-shot operation other than a send, which may have a rest.
///
/// # Safety
/// `count` is what the kernel answered to this very operation.
pub(super) unsafe fn settle(
    slots: &mut Slots,
    key: SlotKey,
    count: Result<u32, Errno>,
    now: Instant,
) {
    let Some(op) = slots.op(key) else { return };
    let value = match (op, count) {
        (_, Err(errno)) => Err(errno),
        (Op::Open { .. }, Ok(descriptor)) => {
            // SAFETY: a successful open answers with a descriptor that nobody else has.
            Ok(Value::Descriptor(unsafe { OwnedFd::from_raw_fd(descriptor as i32) }))
        }
        (
            Op::ReceiveOnce { buffer, .. }
            | Op::ReadAt { buffer, .. }
            | Op::List { buffer, .. }
            | Op::ReadLink { buffer, .. }
            | Op::Read { buffer, .. },
            Ok(count),
        ) => {
            // SAFETY: the kernel has written `count` bytes at the buffer's spare part, which has
            // not moved since the call was prepared.
            unsafe { buffer.fill(count as usize) };
            Ok(Value::Count(count))
        }
        (Op::ReadVectoredAt { scatter, .. }, Ok(count)) => {
            // SAFETY: as above, for the spare parts of several buffers in order.
            unsafe { scatter.fill(count as usize) };
            Ok(Value::Count(count))
        }
        (Op::ReceiveFrom { reception, .. }, Ok(count)) => {
            // SAFETY: as above: the kernel has filled the buffer that the header led to.
            unsafe { reception.buffer.fill(count as usize) };
            Ok(Value::Count(count))
        }
        (_, Ok(count)) => Ok(Value::Count(count)),
    };
    slots.complete(key, value, now);
}

/// Notes that `step` bytes of a send or write have gone out. True if there is a rest; otherwise the
/// operation is complete.
pub(super) fn sent(
    slots: &mut Slots,
    key: SlotKey,
    step: Result<u32, Errno>,
    now: Instant,
) -> bool {
    let op = slots.op(key);
    if let Ok(step) = step
        && !matches!(op, Some(Op::Write { .. }))
    {
        metrics::add(Counter::BytesSent, u64::from(step));
    }
    let total = match (op, step) {
        (None, _) => return false,
        (Some(Op::Write { payload, written, .. }), Ok(step)) => {
            *written += step as usize;
            if *written < payload.len() && step > 0 {
                return true;
            }
            payload.len()
        }
        (Some(Op::Send { payload, sent, .. }), Ok(step)) => {
            *sent += step as usize;
            if *sent < payload.len() && step > 0 {
                return true;
            }
            payload.len()
        }
        (Some(Op::SendVectored { message, .. }), Ok(step)) => {
            message.advance(step as usize);
            if message.remaining() > 0 && step > 0 {
                return true;
            }
            step as usize
        }
        // A datagram goes whole or not at all.
        (Some(Op::SendTo { .. }), Ok(step)) => step as usize,
        (Some(_), Ok(_)) => unreachable!("only sends and writes are continued"),
        (Some(_), Err(errno)) => {
            slots.complete(key, Err(errno), now);
            return false;
        }
    };
    slots.complete(key, Ok(Value::Count(total as u32)), now);
    false
}
