//! Calls that are tried before readiness is waited for: sends, writes, and single receives.

use super::super::calls;
use super::super::settle;
use super::super::slots::{SlotKey, Slots};
use crate::clock::Instant;
use crate::error::Errno;
use crate::op::Op;

/// Sends what the socket takes. True if it must become writable first.
pub(super) fn send(key: SlotKey, slots: &mut Slots, now: Instant) -> bool {
    loop {
        let step = match slots.op(key) {
            Some(Op::Send { socket, payload, sent }) => {
                calls::send(*socket, &payload[*sent..], libc::MSG_DONTWAIT)
            }
            Some(Op::SendVectored { socket, message }) => {
                let socket = *socket;
                // SAFETY: the message owns all that its header leads to.
                unsafe { calls::send_message(socket, message.header(), libc::MSG_DONTWAIT) }
            }
            Some(Op::SendTo { socket, letter }) => {
                let socket = *socket;
                // SAFETY: the letter owns all that its header leads to.
                unsafe { calls::send_message(socket, letter.header(), libc::MSG_DONTWAIT) }
            }
            Some(Op::Write { pipe, payload, written, .. }) => {
                calls::write(*pipe, &payload[*written..])
            }
            _ => return false,
        };
        match step {
            Err(Errno(libc::EAGAIN)) if !is_at_once(key, slots) => return true,
            Err(Errno(libc::EINTR)) => {}
            step => {
                if !settle::sent(slots, key, step, now) {
                    return false;
                }
            }
        }
    }
}

fn is_at_once(key: SlotKey, slots: &mut Slots) -> bool {
    let op = slots.op(key);
    matches!(op, Some(Op::SendTo { letter, .. }) if letter.is_at_once())
}

/// Receives once. True if the socket must become readable first.
pub(super) fn receive_once(key: SlotKey, slots: &mut Slots, now: Instant) -> bool {
    loop {
        let received = match slots.op(key) {
            Some(Op::ReceiveOnce { socket, buffer }) => {
                let (start, length) = buffer.spare();
                // SAFETY: the spare part belongs to the operation.
                unsafe { calls::receive(*socket, start, length, libc::MSG_DONTWAIT) }
            }
            Some(Op::ReceiveFrom { socket, reception }) => {
                let (socket, header) = (*socket, reception.header());
                // SAFETY: the reception owns all that its header leads to.
                unsafe { calls::receive_message(socket, header, libc::MSG_DONTWAIT) }
            }
            Some(Op::Read { pipe, buffer, .. }) => {
                let (start, length) = buffer.spare();
                // SAFETY: the spare part belongs to the operation.
                unsafe { calls::read(*pipe, start, length) }
            }
            _ => return false,
        };
        match received {
            Err(Errno(libc::EAGAIN)) => return true,
            Err(Errno(libc::EINTR)) => {}
            count => {
                // SAFETY: this is the kernel's answer to this operation.
                unsafe { settle::settle(slots, key, count, now) };
                return false;
            }
        }
    }
}
