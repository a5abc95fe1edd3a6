//! The way into the kernel: io_uring_enter(2) by the ring's registered descriptor.
//!
//! Called directly, as the `io-uring` crate keeps a registered descriptor only within one of its
//! short-lived submitters and adds no flags of ours. A registration holds the ring open, so it is
//! undone when the ring is closed.

use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use io_uring::{EnterFlags, IoUring};

use super::setup::Given;
use crate::error::Errno;

/// IORING_REGISTER_RING_FDS and IORING_UNREGISTER_RING_FDS of <linux/io_uring.h>.
const REGISTER_RING_FDS: libc::c_uint = 20;
const UNREGISTER_RING_FDS: libc::c_uint = 21;

/// `struct io_uring_rsrc_update`.
#[repr(C)]
struct Registration {
    offset: u32,
    reserved: u32,
    data: u64,
}

/// `struct io_uring_getevents_arg`.
#[repr(C)]
struct WaitArguments {
    signal_mask: u64,
    signal_mask_size: u32,
    min_wait_us: u32,
    timeout: *const KernelTimespec,
}

/// `struct __kernel_timespec`.
#[repr(C)]
struct KernelTimespec {
    seconds: i64,
    nanos: i64,
}

pub(super) struct Door {
    ring: RawFd,
    /// The index of the registered descriptor.
    registered: Option<u32>,
    no_iowait: bool,
}

impl Door {
    /// Registers the ring's descriptor for the calling thread, where the kernel can.
    pub(super) fn open(ring: &IoUring, given: &mut Given) -> Self {
        let mut this =
            Self { ring: ring.as_raw_fd(), registered: None, no_iowait: given.no_iowait };
        match this.register(REGISTER_RING_FDS, u32::MAX) {
            Ok(offset) => this.registered = Some(offset),
            Err(errno) => given.given_up.push(format!("registered ring descriptor ({errno})")),
        }
        this
    }

    fn register(&self, opcode: libc::c_uint, offset: u32) -> Result<u32, Errno> {
        let mut update = Registration { offset, reserved: 0, data: self.ring as u64 };
        if opcode == UNREGISTER_RING_FDS {
            update.data = 0;
        }
        // SAFETY: the argument is one `io_uring_rsrc_update`, which the call reads and writes.
        let result = unsafe {
            libc::syscall(libc::SYS_io_uring_register, self.ring, opcode, &raw mut update, 1)
        };
        if result == 1 { Ok(update.offset) } else { Err(Errno::last()) }
    }

    /// Undoes the registration. Before the ring is closed, on the thread that opened the door.
    pub(super) fn close(&mut self) {
        if let Some(offset) = self.registered.take() {
            // Fails only on another thread, whose end undoes it as well.
            let _ = self.register(UNREGISTER_RING_FDS, offset);
        }
    }

    /// Submits `queued` entries and takes completions; waits for `want` of them, at most
    /// `timeout`.
    #[inline]
    pub(super) fn enter(
        &self,
        queued: u32,
        want: u32,
        timeout: Option<Duration>,
    ) -> Result<(), Errno> {
        let mut flags = EnterFlags::GETEVENTS;
        if want > 0 && self.no_iowait {
            flags |= EnterFlags::NO_IOWAIT;
        }
        let ring = match self.registered {
            Some(offset) => {
                flags |= EnterFlags::REGISTERED_RING;
                offset as RawFd
            }
            None => self.ring,
        };
        let mut time = KernelTimespec { seconds: 0, nanos: 0 };
        let mut arguments = WaitArguments {
            signal_mask: 0,
            signal_mask_size: 0,
            min_wait_us: 0,
            timeout: std::ptr::null(),
        };
        if let Some(timeout) = timeout {
            flags |= EnterFlags::EXT_ARG;
            time.seconds = i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX);
            time.nanos = i64::from(timeout.subsec_nanos());
            arguments.timeout = &raw const time;
        }
        let argument = match timeout {
            Some(_) => &raw const arguments,
            None => std::ptr::null(),
        };
        // SAFETY: with EXT_ARG the argument is an `io_uring_getevents_arg` of the size given,
        // without it null; both outlive the call. The queued entries are valid: see `Ring::push`.
        let result = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                ring,
                queued,
                want,
                flags.bits(),
                argument,
                size_of::<WaitArguments>(),
            )
        };
        if result >= 0 { Ok(()) } else { Err(Errno::last()) }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.close();
    }
}
