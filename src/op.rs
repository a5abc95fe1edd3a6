//! The vocabulary: everything a task can ask of the world outside its shard, as one enum.
//!
//! An operation owns what the kernel may touch (buffer, path, address) and names the descriptor;
//! nothing else. `driver/` performs it and gives back an [`Outcome`], or a stream of [`Event`]s
//! for the multishot operations: `Accept`, `Receive`, `ReceiveDatagrams`. Descriptors are borrowed:
//! whoever submits an operation keeps its descriptor open until the outcome, or submits `Close`
//! after it.

pub(crate) mod datagram;
mod file;

use std::ffi::CString;
use std::net::SocketAddr;
use std::os::fd::{OwnedFd, RawFd};

use self::datagram::{Letter, Reception, Shape};
pub(crate) use self::file::{OpenHow, Scatter, Status};
use crate::buffer::{Lease, Payload, ReadBuffer};
use crate::error::Errno;
use crate::limits;
use crate::metrics::Measure;

/// One request to the driver.
pub(crate) enum Op {
    /// Nothing. The content of a slot that holds no operation.
    Idle,
    /// Accept connections until abandoned (multishot).
    Accept { listener: RawFd },
    /// Connect a socket. After a cancel it may or may not be connected: close it.
    Connect { socket: RawFd, address: Box<socket2::SockAddr> },
    /// Receive into the shard's pool until abandoned (multishot). Loses nothing when the task
    /// that waits goes away, since bytes wait in the slot.
    Receive { socket: RawFd },
    /// Receive once into a buffer of the caller's.
    ReceiveOnce { socket: RawFd, buffer: ReadBuffer },
    /// Send all of the payload. After a cancel any prefix may have been sent.
    Send { socket: RawFd, payload: Payload, sent: usize },
    /// Send all of several payloads in order. After a cancel any prefix may have been sent.
    SendVectored { socket: RawFd, message: Box<Message> },
    /// Receive datagrams into the shard's pool for them until abandoned (multishot). Loses nothing
    /// when the task that waits goes away, since they wait in the slot.
    ReceiveDatagrams { socket: RawFd, shape: Box<Shape> },
    /// Receive one datagram into a buffer of the caller's.
    ReceiveFrom { socket: RawFd, reception: Box<Reception> },
    /// Send one datagram to an address, or one at once. After a cancel it may have been sent.
    SendTo { socket: RawFd, letter: Box<Letter> },
    /// Shut down one or both directions (shutdown(2)).
    Shutdown { socket: RawFd, how: Direction },
    /// Close a descriptor.
    Close { descriptor: OwnedFd },
    /// Open a path below a directory (openat2(2)).
    Open { directory: RawFd, path: CString, how: Box<OpenHow> },
    /// Read at an offset, once: may be short.
    ReadAt { file: RawFd, buffer: ReadBuffer, offset: u64 },
    /// Write at an offset, or at the end of the file if it `appends`, once: may be short. What was
    /// written is durable then if asked for. After a cancel it may have happened.
    WriteAt {
        file: RawFd,
        payload: Payload,
        skip: usize,
        offset: u64,
        durable: bool,
        appends: bool,
    },
    /// Read at an offset into several buffers in order, once: may be short.
    ReadVectoredAt { file: RawFd, scatter: Box<Scatter>, offset: u64 },
    /// Write several payloads in order at an offset, once: may be short. After a cancel it may have
    /// happened.
    WriteVectoredAt { file: RawFd, message: Box<Message>, offset: u64 },
    /// Make a file's data durable, and its metadata unless `data_only` (fdatasync(2), fsync(2)).
    Sync { file: RawFd, data_only: bool },
    /// Read the status of a file, or of what a path leads to (statx(2)).
    Stat { file: RawFd, status: Box<Status> },
    /// Give space to a part of a file, or take it (fallocate(2)).
    Allocate { file: RawFd, mode: i32, offset: u64, length: u64 },
    /// Cut a file, or extend it by zeros (ftruncate(2)).
    Truncate { file: RawFd, length: u64 },
    /// Say how a part of a file will be used (posix_fadvise(2)).
    Advise { file: RawFd, offset: u64, length: u64, advice: i32 },
    /// Give a file another name (renameat2(2)). After a cancel it may have happened, as with all
    /// operations on names.
    Rename { from: CString, to: CString, flags: u32 },
    /// Take a name away (unlinkat(2)).
    Remove { path: CString, flags: i32 },
    /// Make a directory (mkdirat(2)).
    MakeDirectory { path: CString, mode: u32 },
    /// Give a file one more name (linkat(2)). `from` is looked up below `directory`.
    Link { directory: RawFd, from: CString, to: CString, flags: i32 },
    /// Make a symbolic link (symlinkat(2)).
    Symlink { target: CString, path: CString },
    /// Read entries where the directory stands (getdents64(2)); nothing at its end. After a cancel
    /// it may stand behind them.
    List { directory: RawFd, buffer: ReadBuffer },
    /// Read what a symbolic link says (readlinkat(2)).
    ReadLink { path: CString, buffer: ReadBuffer },
    /// Wait until a descriptor is ready (poll(2)); yields the poll bits. `held` is a duplicate
    /// for the backends that look at a number more than once.
    Ready { descriptor: RawFd, interest: Interest, held: Option<OwnedFd> },
    /// Read once from a pipe. `waits` while only its readiness is awaited.
    Read { pipe: RawFd, buffer: ReadBuffer, waits: bool },
    /// Write all of the payload to a pipe. After a cancel any prefix may have been written.
    Write { pipe: RawFd, payload: Payload, written: usize, waits: bool },
    /// Wait until a child process has ended, and leave its status to be collected. `held` is a
    /// pidfd for the backends that have no other means.
    WaitChild { process: libc::pid_t, held: Option<OwnedFd> },
}

const _: () = assert!(size_of::<Op>() <= limits::OPERATION_BYTES_MAX);

impl Op {
    /// Which histogram measures it, and its name in reports.
    pub(crate) fn measure(&self) -> Measure {
        match self {
            Op::Idle | Op::Close { .. } => Measure::Close,
            Op::Accept { .. } => Measure::Accept,
            Op::Connect { .. } => Measure::Connect,
            Op::Receive { .. }
            | Op::ReceiveOnce { .. }
            | Op::ReceiveDatagrams { .. }
            | Op::ReceiveFrom { .. } => Measure::Receive,
            Op::Send { .. } | Op::SendVectored { .. } | Op::SendTo { .. } => Measure::Send,
            Op::Shutdown { .. } => Measure::Shutdown,
            Op::Open { .. } => Measure::Open,
            Op::ReadAt { .. } | Op::ReadVectoredAt { .. } => Measure::ReadAt,
            Op::WriteAt { .. } | Op::WriteVectoredAt { .. } => Measure::WriteAt,
            Op::Sync { .. } => Measure::Sync,
            Op::Stat { .. } => Measure::Stat,
            Op::Allocate { .. } | Op::Truncate { .. } | Op::Advise { .. } => Measure::Allocate,
            Op::Rename { .. }
            | Op::Remove { .. }
            | Op::MakeDirectory { .. }
            | Op::Link { .. }
            | Op::Symlink { .. } => Measure::Name,
            Op::List { .. } | Op::ReadLink { .. } => Measure::List,
            Op::Ready { .. } => Measure::Ready,
            Op::Read { .. } => Measure::Read,
            Op::Write { .. } => Measure::Write,
            Op::WaitChild { .. } => Measure::WaitChild,
        }
    }

    /// Whether it is over soon whatever others do: it waits for this machine's disk and not for a
    /// peer.
    pub(crate) fn ends_by_itself(&self) -> bool {
        matches!(self, Op::Close { .. }) || self.is_on_file()
    }

    /// Whether it works on files or their names.
    pub(crate) fn is_on_file(&self) -> bool {
        matches!(
            self,
            Op::Open { .. }
                | Op::ReadAt { .. }
                | Op::WriteAt { .. }
                | Op::ReadVectoredAt { .. }
                | Op::WriteVectoredAt { .. }
                | Op::Sync { .. }
                | Op::Stat { .. }
                | Op::Allocate { .. }
                | Op::Truncate { .. }
                | Op::Advise { .. }
                | Op::Rename { .. }
                | Op::Remove { .. }
                | Op::MakeDirectory { .. }
                | Op::Link { .. }
                | Op::Symlink { .. }
                | Op::List { .. }
                | Op::ReadLink { .. }
        )
    }

    /// Whether it may be looked for by its descriptor's number after its submission (on the ring
    /// everything on files that always goes to a worker). Reads and writes find theirs at once.
    pub(crate) fn is_looked_up_late(&self) -> bool {
        let is_transfer = matches!(
            self,
            Op::ReadAt { .. }
                | Op::WriteAt { .. }
                | Op::ReadVectoredAt { .. }
                | Op::WriteVectoredAt { .. }
        );
        self.is_on_file() && !is_transfer
    }

    /// The operation's noun for logs and dumps.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Op::Idle => "idle",
            Op::Accept { .. } => "accept",
            Op::Connect { .. } => "connect",
            Op::Receive { .. } => "receive",
            Op::ReceiveOnce { .. } => "receive-once",
            Op::Send { .. } => "send",
            Op::SendVectored { .. } => "send-vectored",
            Op::ReceiveDatagrams { .. } => "receive-datagrams",
            Op::ReceiveFrom { .. } => "receive-from",
            Op::SendTo { .. } => "send-to",
            Op::Shutdown { .. } => "shutdown",
            Op::Close { .. } => "close",
            Op::Open { .. } => "open",
            Op::ReadAt { .. } => "read-at",
            Op::WriteAt { .. } => "write-at",
            Op::Sync { .. } => "sync",
            Op::Stat { .. } => "stat",
            Op::ReadVectoredAt { .. } => "read-vectored-at",
            Op::WriteVectoredAt { .. } => "write-vectored-at",
            Op::Allocate { .. } => "allocate",
            Op::Truncate { .. } => "truncate",
            Op::Advise { .. } => "advise",
            Op::Rename { .. } => "rename",
            Op::Remove { .. } => "remove",
            Op::MakeDirectory { .. } => "make-directory",
            Op::Link { .. } => "link",
            Op::Symlink { .. } => "symlink",
            Op::List { .. } => "list",
            Op::ReadLink { .. } => "read-link",
            Op::Ready { .. } => "ready",
            Op::Read { .. } => "read",
            Op::Write { .. } => "write",
            Op::WaitChild { .. } => "wait-child",
        }
    }

    /// The descriptor whose readiness lets it go on, and the poll(2) bits to look for.
    pub(crate) fn awaits(&self) -> (RawFd, i16) {
        use std::os::fd::AsRawFd;
        match self {
            Op::Connect { .. }
            | Op::Send { .. }
            | Op::SendVectored { .. }
            | Op::SendTo { .. }
            | Op::Write { .. } => (self.descriptor(), libc::POLLOUT),
            Op::Ready { descriptor, interest, held } => {
                (held.as_ref().map_or(*descriptor, AsRawFd::as_raw_fd), interest.bits())
            }
            _ => (self.descriptor(), libc::POLLIN),
        }
    }

    /// Whether it is a call on a pipe.
    pub(crate) fn is_on_pipe(&self) -> bool {
        matches!(self, Op::Read { .. } | Op::Write { .. })
    }

    /// Whether readiness is all that it waits for.
    pub(crate) fn is_watch(&self) -> bool {
        matches!(self, Op::Ready { .. } | Op::WaitChild { .. })
    }

    /// The descriptor that it works on.
    pub(crate) fn descriptor(&self) -> RawFd {
        use std::os::fd::AsRawFd;
        match self {
            Op::Idle => -1,
            Op::Accept { listener } => *listener,
            Op::Connect { socket, .. }
            | Op::Receive { socket }
            | Op::ReceiveOnce { socket, .. }
            | Op::Send { socket, .. }
            | Op::SendVectored { socket, .. }
            | Op::ReceiveDatagrams { socket, .. }
            | Op::ReceiveFrom { socket, .. }
            | Op::SendTo { socket, .. }
            | Op::Shutdown { socket, .. } => *socket,
            Op::Close { descriptor } => descriptor.as_raw_fd(),
            Op::Open { directory, .. }
            | Op::Link { directory, .. }
            | Op::List { directory, .. } => *directory,
            Op::ReadAt { file, .. }
            | Op::WriteAt { file, .. }
            | Op::ReadVectoredAt { file, .. }
            | Op::WriteVectoredAt { file, .. }
            | Op::Sync { file, .. }
            | Op::Stat { file, .. }
            | Op::Allocate { file, .. }
            | Op::Truncate { file, .. }
            | Op::Advise { file, .. } => *file,
            Op::Rename { .. }
            | Op::Remove { .. }
            | Op::MakeDirectory { .. }
            | Op::Symlink { .. }
            | Op::ReadLink { .. } => libc::AT_FDCWD,
            Op::Ready { descriptor, .. } => *descriptor,
            Op::Read { pipe, .. } | Op::Write { pipe, .. } => *pipe,
            Op::WaitChild { held, .. } => held.as_ref().map_or(-1, AsRawFd::as_raw_fd),
        }
    }
}

/// What a readiness is awaited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Bytes, a connection or an event to take; or the other side has finished.
    Readable,
    /// Room to write; or nobody reads any more.
    Writable,
    /// Either.
    Both,
}

impl Interest {
    /// As poll(2) bits.
    pub(crate) fn bits(self) -> i16 {
        const READ: i16 = libc::POLLIN | libc::POLLRDHUP;
        match self {
            Interest::Readable => READ,
            Interest::Writable => libc::POLLOUT,
            Interest::Both => READ | libc::POLLOUT,
        }
    }
}

/// What came back of a one-shot operation: its result, and the operation with all it owned.
pub(crate) struct Outcome {
    pub(crate) result: Result<Value, Errno>,
    pub(crate) op: Op,
}

/// What a successful operation yields.
#[derive(Debug)]
pub(crate) enum Value {
    /// Bytes moved, or nothing to say.
    Count(u32),
    /// A descriptor, closed when dropped.
    Descriptor(OwnedFd),
}

/// What a multishot operation yields, one at a time.
#[derive(Debug)]
pub(crate) enum Event {
    /// A connection.
    Accepted(OwnedFd),
    /// Received bytes, never none.
    Chunk(Lease),
    /// A datagram in the layout of [`datagram`].
    Datagram(Lease),
    /// The peer has finished sending.
    End,
    /// It failed; a later event may still follow if the cause is passing.
    Failed(Errno),
}

/// A direction of a connection (shutdown(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// No more receives.
    Read,
    /// No more sends; the peer sees the end of the stream.
    Write,
    /// Neither.
    Both,
}

impl Direction {
    pub(crate) fn as_raw(self) -> i32 {
        match self {
            Direction::Read => libc::SHUT_RD,
            Direction::Write => libc::SHUT_WR,
            Direction::Both => libc::SHUT_RDWR,
        }
    }
}

/// Several payloads sent as one, and what the kernel reads to find them.
pub(crate) struct Message {
    payloads: Vec<Payload>,
    vectors: Vec<libc::iovec>,
    header: libc::msghdr,
}

impl Message {
    pub(crate) fn new(payloads: Vec<Payload>) -> Self {
        assert!(payloads.len() <= limits::SEND_VECTORS_COUNT_MAX);
        let vectors = payloads
            .iter()
            .map(|payload| libc::iovec {
                iov_base: payload.as_ptr().cast_mut().cast(),
                iov_len: payload.len(),
            })
            .collect();
        // SAFETY: all-zero is a valid msghdr: null pointers with zero lengths.
        let header = unsafe { std::mem::zeroed() };
        Self { payloads, vectors, header }
    }

    /// Bytes not yet sent.
    pub(crate) fn remaining(&self) -> usize {
        self.vectors.iter().map(|vector| vector.iov_len).sum()
    }

    /// Skips `count` sent bytes.
    pub(crate) fn advance(&mut self, mut count: usize) {
        for vector in &mut self.vectors {
            let step = count.min(vector.iov_len);
            vector.iov_base = vector.iov_base.wrapping_byte_add(step);
            vector.iov_len -= step;
            count -= step;
        }
        assert_eq!(count, 0, "the kernel sends no more than it was given");
    }

    /// What is not yet sent, for pwritev(2), valid as long as the message stays where it is.
    pub(crate) fn vectors(&self) -> &[libc::iovec] {
        &self.vectors
    }

    /// The header for sendmsg(2), valid as long as the message stays where it is.
    pub(crate) fn header(&mut self) -> *const libc::msghdr {
        self.header.msg_iov = self.vectors.as_mut_ptr();
        self.header.msg_iovlen = self.vectors.len();
        &raw const self.header
    }

    pub(crate) fn into_payloads(self) -> Vec<Payload> {
        self.payloads
    }
}

/// Options of a TCP connection, set once when it is made (tcp(7), socket(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketOptions {
    /// Send small segments at once (TCP_NODELAY). On unless turned off.
    pub nodelay: bool,
    /// Probe an idle peer after this long (SO_KEEPALIVE, TCP_KEEPIDLE); none by default.
    pub keepalive: Option<std::time::Duration>,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self { nodelay: true, keepalive: None }
    }
}

impl SocketOptions {
    /// Whether applying them takes no system call beyond the defaults of a listener, which
    /// accepted sockets inherit.
    pub(crate) fn apply(&self, socket: socket2::SockRef<'_>) -> std::io::Result<()> {
        socket.set_tcp_nodelay(self.nodelay)?;
        if let Some(idle) = self.keepalive {
            socket.set_tcp_keepalive(&socket2::TcpKeepalive::new().with_time(idle))?;
        }
        Ok(())
    }
}

/// An address for messages.
pub(crate) fn describe(address: &socket2::SockAddr) -> String {
    match address.as_socket() {
        Some(SocketAddr::V4(address)) => address.to_string(),
        Some(SocketAddr::V6(address)) => address.to_string(),
        None => address
            .as_pathname()
            .map_or_else(|| "unix socket".into(), |path| path.display().to_string()),
    }
}
