//! The system calls by which the epoll and blocking backends perform operations, one function each.
//!
//! Receives and sends go by syscall(2): glibc's own wrappers are cancellation points, which cost
//! 30 to 50 ns each in a process of several threads.
//!
//! None of them keeps a pointer after it returns. Interrupted calls (EINTR) are the caller's to
//! repeat: the blocking backend uses them to be woken.

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::OnceLock;

use crate::error::Errno;
use crate::limits;
use crate::op::{Direction, datagram};

pub(super) fn check(result: isize) -> Result<u32, Errno> {
    if result >= 0 { Ok(result as u32) } else { Err(Errno::last()) }
}

pub(super) fn length_of(length: usize) -> usize {
    length.min(limits::TRANSFER_BYTES_MAX as usize)
}

/// recv(2) into `length` bytes at `start`.
///
/// # Safety
/// The bytes are writable and nobody else uses them during the call.
pub(super) unsafe fn receive(
    socket: RawFd,
    start: NonNull<u8>,
    length: usize,
    flags: i32,
) -> Result<u32, Errno> {
    let null = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: writable for the call by the caller's contract; no address is asked for.
    check(unsafe {
        libc::syscall(
            libc::SYS_recvfrom,
            socket,
            start.as_ptr(),
            length_of(length),
            flags,
            null,
            null,
        ) as isize
    })
}

/// send(2); never raises SIGPIPE.
pub(super) fn send(socket: RawFd, bytes: &[u8], flags: i32) -> Result<u32, Errno> {
    let length = length_of(bytes.len());
    let flags = flags | libc::MSG_NOSIGNAL;
    let null = std::ptr::null::<libc::c_void>();
    // SAFETY: the bytes are readable for the call; no address is given.
    check(unsafe {
        libc::syscall(libc::SYS_sendto, socket, bytes.as_ptr(), length, flags, null, 0) as isize
    })
}

/// sendmsg(2); never raises SIGPIPE.
///
/// # Safety
/// The header and all that it points to is readable.
pub(super) unsafe fn send_message(
    socket: RawFd,
    header: *const libc::msghdr,
    flags: i32,
) -> Result<u32, Errno> {
    // SAFETY: readable by the caller's contract.
    check(unsafe { libc::sendmsg(socket, header, flags | libc::MSG_NOSIGNAL) })
}

/// recvmsg(2).
///
/// # Safety
/// The header and all that it points to is writable, and nobody else uses it during the call.
pub(super) unsafe fn receive_message(
    socket: RawFd,
    header: *mut libc::msghdr,
    flags: i32,
) -> Result<u32, Errno> {
    // SAFETY: writable by the caller's contract.
    check(unsafe { libc::recvmsg(socket, header, flags) })
}

/// Receives one datagram into `length` bytes at `start`, in the layout of [`datagram`], and says
/// how many of them it takes.
///
/// # Safety
/// The bytes are writable and nobody else uses them during the call.
pub(super) unsafe fn receive_datagram(
    socket: RawFd,
    start: NonNull<u8>,
    length: usize,
    flags: i32,
) -> Result<u32, Errno> {
    assert!(length > datagram::PAYLOAD_OFFSET, "a datagram's room has a place for its name");
    // SAFETY: the offsets lie inside the room (asserted), which is writable by the caller's
    // contract; an all-zero msghdr is valid and is filled in before the call reads it.
    let (received, header) = unsafe {
        let name = start.add(datagram::HEADER_BYTES);
        let payload = start.add(datagram::PAYLOAD_OFFSET);
        let mut vector = libc::iovec {
            iov_base: payload.as_ptr().cast(),
            iov_len: length - datagram::PAYLOAD_OFFSET,
        };
        let mut header: libc::msghdr = std::mem::zeroed();
        header.msg_name = name.as_ptr().cast();
        header.msg_namelen = datagram::NAME_BYTES as libc::socklen_t;
        header.msg_iov = &raw mut vector;
        header.msg_iovlen = 1;
        // The lease of this room reads as initialised bytes, also past a short name.
        name.write_bytes(0, datagram::NAME_BYTES);
        (receive_message(socket, &raw mut header, flags)?, header)
    };
    let layout = datagram::Header {
        name_length: header.msg_namelen,
        payload_length: received,
        flags: header.msg_flags as u32,
    };
    // SAFETY: the room has at least the bytes of the header (asserted).
    unsafe { start.cast::<[u8; datagram::HEADER_BYTES]>().write(layout.to_bytes()) };
    Ok(datagram::PAYLOAD_OFFSET as u32 + received)
}

/// accept4(2), close-on-exec.
pub(super) fn accept(listener: RawFd) -> Result<OwnedFd, Errno> {
    let null = std::ptr::null_mut();
    // SAFETY: with a null address the call writes nothing.
    let result = unsafe { libc::accept4(listener, null, std::ptr::null_mut(), libc::SOCK_CLOEXEC) };
    let descriptor = check(result as isize)?;
    // SAFETY: the descriptor was just made and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor as RawFd) })
}

/// connect(2).
pub(super) fn connect(socket: RawFd, address: &socket2::SockAddr) -> Result<u32, Errno> {
    // SAFETY: the address is valid for its length during the call.
    let result = unsafe { libc::connect(socket, address.as_ptr().cast(), address.len()) };
    check(result as isize)
}

/// shutdown(2).
pub(super) fn shutdown(socket: RawFd, direction: Direction) -> Result<u32, Errno> {
    // SAFETY: shutdown takes no pointers.
    check(unsafe { libc::shutdown(socket, direction.as_raw()) } as isize)
}

/// How a connect that was in progress has ended (SO_ERROR, socket(7)).
pub(super) fn connected(socket: RawFd) -> Result<u32, Errno> {
    let mut error: libc::c_int = 0;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: both pointers lead to locals of the sizes given.
    let result = unsafe {
        libc::getsockopt(
            socket,
            libc::SOL_SOCKET,
            libc::SO_ERROR,
            (&raw mut error).cast(),
            &raw mut length,
        )
    };
    check(result as isize)?;
    if error == 0 { Ok(0) } else { Err(Errno(error)) }
}

/// The status flags of an open file (F_GETFL of fcntl(2)).
pub(super) fn status_flags(descriptor: RawFd) -> Result<i32, Errno> {
    // SAFETY: F_GETFL takes no pointers.
    check(unsafe { libc::fcntl(descriptor, libc::F_GETFL) } as isize).map(|flags| flags as i32)
}

/// Turns O_NONBLOCK of a descriptor on or off (fcntl(2)).
pub(super) fn set_nonblocking(descriptor: RawFd, on: bool) -> Result<(), Errno> {
    let flags = status_flags(descriptor)?;
    let wanted = if on { flags | libc::O_NONBLOCK } else { flags & !libc::O_NONBLOCK };
    if wanted != flags {
        // SAFETY: F_SETFL takes no pointers.
        check(unsafe { libc::fcntl(descriptor, libc::F_SETFL, wanted) } as isize)?;
    }
    Ok(())
}

/// Turns a file to direct I/O (O_DIRECT, fcntl(2)); EINVAL if its file system has none.
pub(super) fn set_direct(descriptor: RawFd) -> Result<(), Errno> {
    let flags = status_flags(descriptor)? | libc::O_DIRECT;
    // SAFETY: F_SETFL takes no pointers.
    check(unsafe { libc::fcntl(descriptor, libc::F_SETFL, flags) } as isize).map(drop)
}

/// RWF_NOSIGNAL of <linux/fs.h> (Linux 6.18): a write to a pipe that nobody reads gives EPIPE and
/// raises no SIGPIPE.
const NO_SIGNAL: i32 = 0x100;

/// The flags for a write that raises no SIGPIPE; zero where the kernel has none. Asked once.
pub(super) fn quiet_flags() -> i32 {
    static FLAGS: OnceLock<i32> = OnceLock::new();
    *FLAGS.get_or_init(|| {
        let probe = || -> Result<u32, Errno> {
            let null = std::fs::OpenOptions::new().write(true).open("/dev/null");
            let null = null.map_err(|error| Errno::from_io(&error))?;
            write_once(null.as_raw_fd(), b"x", NO_SIGNAL)
        };
        if probe().is_ok() {
            return NO_SIGNAL;
        }
        tracing::debug!(
            "writes to pipes block SIGPIPE meanwhile (RWF_NOSIGNAL came with Linux 6.18)"
        );
        0
    })
}

fn write_once(descriptor: RawFd, bytes: &[u8], flags: i32) -> Result<u32, Errno> {
    let vector =
        libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: length_of(bytes.len()) };
    // SAFETY: the vector leads to readable bytes, which the call does not change. An offset of -1
    // is the descriptor's own position (pwritev2(2)).
    check(unsafe { libc::pwritev2(descriptor, &raw const vector, 1, -1, flags) })
}

/// write(2) to a pipe; never raises SIGPIPE.
pub(super) fn write(pipe: RawFd, bytes: &[u8]) -> Result<u32, Errno> {
    match quiet_flags() {
        0 => write_masked(pipe, bytes),
        flags => write_once(pipe, bytes, flags),
    }
}

/// A write with SIGPIPE blocked: one that it raises waits for this thread alone, and is taken back.
fn write_masked(pipe: RawFd, bytes: &[u8]) -> Result<u32, Errno> {
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the sets are locals that the calls fill before they are read; a null argument asks
    // for nothing back.
    unsafe {
        let broken = pipe_signal();
        let mut pending = MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigpending(pending.as_mut_ptr());
        let was_pending = libc::sigismember(pending.as_ptr(), libc::SIGPIPE) == 1;
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const broken, before.as_mut_ptr());
        let result = write_once(pipe, bytes, 0);
        if result == Err(Errno(libc::EPIPE)) && !was_pending {
            let none = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            libc::sigtimedwait(&raw const broken, std::ptr::null_mut(), &raw const none);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut());
        result
    }
}

fn pipe_signal() -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset fills the set.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGPIPE);
        set.assume_init()
    }
}

/// read(2).
///
/// # Safety
/// The bytes are writable and nobody else uses them during the call.
pub(super) unsafe fn read(pipe: RawFd, start: NonNull<u8>, length: usize) -> Result<u32, Errno> {
    // SAFETY: writable for the call by the caller's contract.
    check(unsafe { libc::read(pipe, start.as_ptr().cast(), length_of(length)) })
}

/// Which of the poll(2) `events` a descriptor is ready for now; zero for none.
pub(super) fn ready_now(descriptor: RawFd, events: i16) -> Result<u32, Errno> {
    let mut asked = [libc::pollfd { fd: descriptor, events, revents: 0 }];
    loop {
        match poll(&mut asked, Some(0)) {
            Err(Errno(libc::EINTR)) => {}
            Err(errno) => return Err(errno),
            Ok(_) if asked[0].revents & libc::POLLNVAL != 0 => return Err(Errno(libc::EBADF)),
            Ok(_) => return Ok(asked[0].revents as u32),
        }
    }
}

/// Another number for what `descriptor` is, close-on-exec (fcntl(2)).
pub(super) fn duplicate(descriptor: RawFd) -> Result<OwnedFd, Errno> {
    // SAFETY: F_DUPFD_CLOEXEC takes no pointers.
    let copy = check(unsafe { libc::fcntl(descriptor, libc::F_DUPFD_CLOEXEC, 0) } as isize)?;
    // SAFETY: the descriptor was just made and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy as RawFd) })
}

/// A descriptor that becomes readable when a child has ended (pidfd_open(2), close-on-exec).
pub(super) fn open_process(process: libc::pid_t) -> Result<OwnedFd, Errno> {
    // SAFETY: pidfd_open takes no pointers.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, process, 0) };
    let descriptor = check(result as isize)?;
    // SAFETY: the descriptor was just made and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor as RawFd) })
}

/// poll(2) with a timeout in nanoseconds (`None`: no limit), as ppoll(2).
pub(super) fn poll(
    descriptors: &mut [libc::pollfd],
    timeout_ns: Option<u64>,
) -> Result<u32, Errno> {
    let timeout = timeout_ns.map(|nanos| libc::timespec {
        tv_sec: (nanos / 1_000_000_000) as i64,
        tv_nsec: (nanos % 1_000_000_000) as i64,
    });
    let timeout = timeout.as_ref().map_or(std::ptr::null(), |time| &raw const *time);
    let count = descriptors.len() as libc::nfds_t;
    // SAFETY: the array has `count` entries; the timeout is null or a local that outlives the call.
    let result = unsafe { libc::ppoll(descriptors.as_mut_ptr(), count, timeout, std::ptr::null()) };
    check(result as isize)
}

/// Sets SO_RCVTIMEO or SO_SNDTIMEO (socket(7)); zero is no limit.
pub(super) fn set_timeout(socket: RawFd, option: i32, nanos: u64) -> Result<(), Errno> {
    let micros = nanos.div_ceil(1000);
    let time =
        libc::timeval { tv_sec: (micros / 1_000_000) as i64, tv_usec: (micros % 1_000_000) as i64 };
    let length = size_of_val(&time) as libc::socklen_t;
    // SAFETY: the option takes a timeval of this length.
    let result = unsafe {
        libc::setsockopt(socket, libc::SOL_SOCKET, option, (&raw const time).cast(), length)
    };
    check(result as isize).map(drop)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_masked_write_raises_no_signal_and_leaves_none_behind() {
        // SAFETY: sets a disposition, which is put back below; whatever raised the signal meanwhile
        // would end the process, and nothing else here writes to pipes that nobody reads.
        let before = unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        let (reader, writer) = std::io::pipe().unwrap();
        assert_eq!(write_masked(writer.as_raw_fd(), b"read"), Ok(4));
        drop(reader);
        for _ in 0..3 {
            assert_eq!(write_masked(writer.as_raw_fd(), b"x"), Err(Errno(libc::EPIPE)));
        }
        // SAFETY: as above.
        unsafe { libc::signal(libc::SIGPIPE, before) };
    }
}
