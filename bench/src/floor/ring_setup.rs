//! The ring and the entries that both ring floors use.
//!
//! Invariant: one thread creates the ring and is the only one to enter it (SINGLE_ISSUER).

use std::io;

use io_uring::{IoUring, SubmissionQueue, Submitter, opcode, squeue, types};

/// Submission entries; completions get four times as many.
const RING_ENTRIES: u32 = 1024;
/// Connections at once: size of the table of direct descriptors.
pub(super) const CONNECTIONS_MAX: u32 = 16 * 1024;
/// The one group of receive buffers.
pub(super) const BUFFER_GROUP: u16 = 0;

/// What a completion is about; the upper half of its `user_data`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A connection came in.
    Accept,
    /// Bytes came in.
    Receive,
    /// Bytes went out.
    Send,
    /// A descriptor was shut down or closed: nothing to do.
    Close,
}

/// Packs what a completion is about and the connection it concerns.
pub(super) fn token(kind: Kind, connection: u32) -> u64 {
    ((kind as u64) << 32) | u64::from(connection)
}

/// The opposite of [`token`].
pub(super) fn untoken(user_data: u64) -> (Kind, u32) {
    let kind = match user_data >> 32 {
        0 => Kind::Accept,
        1 => Kind::Receive,
        2 => Kind::Send,
        _ => Kind::Close,
    };
    (kind, user_data as u32)
}

/// Builds the ring with the profile that annulus itself aims at.
pub(super) fn build() -> io::Result<IoUring> {
    IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_cqsize(RING_ENTRIES * 4)
        .build(RING_ENTRIES)
}

/// Accepts until told otherwise, into the table of direct descriptors.
pub(super) fn accept(listener: i32) -> squeue::Entry {
    opcode::AcceptMulti::new(types::Fd(listener))
        .allocate_file_index(true)
        .build()
        .user_data(token(Kind::Accept, 0))
}

/// Receives until the stream ends or buffers run out.
pub(super) fn receive(connection: u32) -> squeue::Entry {
    opcode::RecvMulti::new(types::Fixed(connection), BUFFER_GROUP)
        .build()
        .user_data(token(Kind::Receive, connection))
}

/// Sends all `len` bytes at `bytes`; the kernel goes on after short sends by itself.
pub(super) fn send(connection: u32, bytes: *const u8, len: u32) -> squeue::Entry {
    opcode::Send::new(types::Fixed(connection), bytes, len)
        .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
        .build()
        .user_data(token(Kind::Send, connection))
}

/// Ends both directions of the stream; an outstanding receive completes with zero.
pub(super) fn shutdown(connection: u32) -> squeue::Entry {
    opcode::Shutdown::new(types::Fixed(connection), libc::SHUT_RDWR)
        .build()
        .user_data(token(Kind::Close, connection))
}

/// Closes the direct descriptor.
pub(super) fn close(connection: u32) -> squeue::Entry {
    opcode::Close::new(types::Fixed(connection)).build().user_data(token(Kind::Close, connection))
}

/// Queues `entry`, entering the kernel only when the queue is full.
///
/// # Safety
/// Memory that `entry` names must stay valid and unmoved until its last completion.
pub(super) unsafe fn push(
    submitter: &Submitter<'_>,
    submissions: &mut SubmissionQueue<'_>,
    entry: &squeue::Entry,
) -> io::Result<()> {
    // SAFETY: the caller keeps what the entry names alive until it completes.
    while unsafe { submissions.push(entry) }.is_err() {
        submissions.sync();
        submitter.submit()?;
        submissions.sync();
    }
    Ok(())
}
