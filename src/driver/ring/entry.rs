//! Each operation as a submission queue entry: the ring's half of the vocabulary, as a table.

use std::os::fd::AsRawFd;

use io_uring::opcode;
use io_uring::squeue::{Entry, Flags};
use io_uring::types::{self, Fd};

use super::buffer_ring;
use crate::driver::{calls, file_call};
use crate::limits;
use crate::op::{Op, Status};

/// `user_data` of entries whose completion means nothing.
pub(super) const IGNORED: u64 = u64::MAX;

/// `user_data` of the poll that ends a park.
pub(super) const WAKE: u64 = u64::MAX - 1;

/// The descriptor's own position, and no position of those that have none (io_uring_enter(2)).
const OWN_POSITION: u64 = u64::MAX;

const SEND_FLAGS: i32 = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;

fn transfer_length(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX).min(limits::TRANSFER_BYTES_MAX)
}

/// The entry that performs `op`. Its pointers lead into memory that the operation owns on the heap
/// (or the pool), so they stay valid while the operation lies in its slot.
pub(super) fn entry(op: &mut Op) -> Entry {
    match op {
        Op::Idle => opcode::Nop::new().build(),
        Op::Accept { listener } => {
            opcode::AcceptMulti::new(Fd(*listener)).flags(libc::SOCK_CLOEXEC).build()
        }
        Op::Connect { socket, address } => {
            opcode::Connect::new(Fd(*socket), address.as_ptr().cast(), address.len()).build()
        }
        Op::Receive { socket } => opcode::RecvMulti::new(Fd(*socket), buffer_ring::STREAMS).build(),
        Op::ReceiveOnce { socket, buffer } => {
            let (start, length) = buffer.spare();
            opcode::Recv::new(Fd(*socket), start.as_ptr(), transfer_length(length)).build()
        }
        Op::Send { socket, payload, sent } => {
            let rest = &payload[*sent..];
            opcode::Send::new(Fd(*socket), rest.as_ptr(), transfer_length(rest.len()))
                .flags(SEND_FLAGS)
                .build()
        }
        Op::SendVectored { socket, message } => {
            opcode::SendMsg::new(Fd(*socket), message.header()).flags(SEND_FLAGS as u32).build()
        }
        Op::ReceiveDatagrams { socket, shape } => {
            opcode::RecvMsgMulti::new(Fd(*socket), shape.header(), buffer_ring::DATAGRAMS).build()
        }
        Op::ReceiveFrom { socket, reception } => {
            opcode::RecvMsg::new(Fd(*socket), reception.header()).build()
        }
        Op::SendTo { socket, letter } => {
            let wait = if letter.is_at_once() { libc::MSG_DONTWAIT } else { 0 };
            opcode::SendMsg::new(Fd(*socket), letter.header())
                .flags((libc::MSG_NOSIGNAL | wait) as u32)
                .build()
        }
        Op::Shutdown { .. } => unreachable!("it is performed when it is started"),
        Op::Close { descriptor } => opcode::Close::new(Fd(descriptor.as_raw_fd())).build(),
        Op::Ready { .. } | Op::Read { .. } | Op::Write { .. } | Op::WaitChild { .. } => {
            process_entry(op)
        }
        _ => file_entry(op),
    }
}

/// As [`entry`], for files.
fn file_entry(op: &mut Op) -> Entry {
    match op {
        Op::Open { directory, path, how } => {
            let how = (&raw const **how).cast::<types::OpenHow>();
            opcode::OpenAt2::new(Fd(*directory), path.as_ptr(), how).build()
        }
        Op::ReadAt { file, buffer, offset } => {
            let (start, length) = buffer.spare();
            opcode::Read::new(Fd(*file), start.as_ptr(), transfer_length(length))
                .offset(*offset)
                .build()
        }
        Op::WriteAt { file, payload, skip, offset, durable, appends } => {
            let rest = &payload[*skip..];
            opcode::Write::new(Fd(*file), rest.as_ptr(), transfer_length(rest.len()))
                .offset(*offset)
                .rw_flags(file_call::write_flags(*durable, *appends))
                .build()
        }
        Op::ReadVectoredAt { file, scatter, offset } => {
            let vectors = scatter.vectors();
            opcode::Readv::new(Fd(*file), vectors.as_ptr(), vectors.len() as u32)
                .offset(*offset)
                .build()
        }
        Op::WriteVectoredAt { file, message, offset } => {
            let vectors = message.vectors();
            opcode::Writev::new(Fd(*file), vectors.as_ptr(), vectors.len() as u32)
                .offset(*offset)
                .build()
        }
        Op::Sync { file, data_only } => {
            opcode::Fsync::new(Fd(*file)).flags(sync_flags(*data_only)).build()
        }
        Op::Stat { file, status } => {
            let fields = (&raw mut status.fields).cast::<types::statx>();
            let (path, flags) = status.target();
            opcode::Statx::new(Fd(*file), path.as_ptr(), fields)
                .flags(flags)
                .mask(Status::MASK)
                .build()
        }
        Op::Allocate { file, mode, offset, length } => {
            opcode::Fallocate::new(Fd(*file), *length).offset(*offset).mode(*mode).build()
        }
        Op::Truncate { file, length } => opcode::Ftruncate::new(Fd(*file), *length).build(),
        Op::Advise { file, offset, length, advice } => {
            let length = *length as libc::off_t;
            opcode::Fadvise::new(Fd(*file), length, *advice).offset(*offset).build()
        }
        _ => name_entry(op),
    }
}

fn sync_flags(data_only: bool) -> types::FsyncFlags {
    if data_only { types::FsyncFlags::DATASYNC } else { types::FsyncFlags::empty() }
}

/// As [`entry`], for names of files.
fn name_entry(op: &mut Op) -> Entry {
    const HERE: Fd = Fd(libc::AT_FDCWD);
    match op {
        Op::Rename { from, to, flags } => {
            opcode::RenameAt::new(HERE, from.as_ptr(), HERE, to.as_ptr()).flags(*flags).build()
        }
        Op::Remove { path, flags } => {
            opcode::UnlinkAt::new(HERE, path.as_ptr()).flags(*flags).build()
        }
        Op::MakeDirectory { path, mode } => {
            opcode::MkDirAt::new(HERE, path.as_ptr()).mode(*mode).build()
        }
        Op::Link { directory, from, to, flags } => {
            opcode::LinkAt::new(Fd(*directory), from.as_ptr(), HERE, to.as_ptr())
                .flags(*flags)
                .build()
        }
        Op::Symlink { target, path } => {
            opcode::SymlinkAt::new(HERE, target.as_ptr(), path.as_ptr()).build()
        }
        _ => unreachable!("everything else has its entry above, or none"),
    }
}

/// As [`entry`], for what is shared with other processes: pipes, children, foreign descriptors.
fn process_entry(op: &mut Op) -> Entry {
    match op {
        Op::Ready { .. }
        | Op::WaitChild { held: Some(_), .. }
        | Op::Read { waits: true, .. }
        | Op::Write { waits: true, .. } => {
            let (descriptor, bits) = op.awaits();
            opcode::PollAdd::new(Fd(descriptor), bits as u32).build()
        }
        Op::Read { pipe, buffer, .. } => {
            let (start, length) = buffer.spare();
            opcode::Read::new(Fd(*pipe), start.as_ptr(), transfer_length(length))
                .offset(OWN_POSITION)
                .build()
        }
        Op::Write { pipe, payload, written, .. } => {
            let rest = &payload[*written..];
            opcode::Write::new(Fd(*pipe), rest.as_ptr(), transfer_length(rest.len()))
                .offset(OWN_POSITION)
                .rw_flags(calls::quiet_flags())
                .build()
        }
        Op::WaitChild { process, .. } => {
            // The status is left: whoever awaits it collects it, so that none is lost to a cancel.
            let options = libc::WEXITED | libc::WNOWAIT;
            opcode::WaitId::new(libc::P_PID, *process as libc::id_t, options).build()
        }
        _ => unreachable!("everything else has its entry above"),
    }
}

/// The entry that cancels what was submitted with `user_data`.
pub(super) fn cancel(user_data: u64) -> Entry {
    opcode::AsyncCancel::new(user_data).build().user_data(IGNORED).flags(Flags::SKIP_SUCCESS)
}

/// The entry that cancels everything.
pub(super) fn cancel_any() -> Entry {
    opcode::AsyncCancel2::new(types::CancelBuilder::any().all()).build().user_data(IGNORED)
}

/// The entry that turns bumps of an eventfd into completions, one each, without reading it: the
/// multishot poll reports each write anew (io_uring_multishot(7)).
pub(super) fn watch(event: std::os::fd::RawFd) -> Entry {
    opcode::PollAdd::new(Fd(event), libc::POLLIN as u32 | libc::EPOLLET as u32)
        .multi(true)
        .build()
        .user_data(WAKE)
}
