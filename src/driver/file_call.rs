//! File operations as plain system calls: made in place by the blocking backend, by helper threads
//! under epoll, and on the ring where it has no entry for one.
//!
//! A call is a number and its arguments, addresses among them, so that it can move to a helper
//! thread. Invariant: an address leads into memory that the operation owns, which its slot keeps.

use std::ffi::CStr;

use crate::driver::calls::{check, length_of};
use crate::error::Errno;
use crate::op::{Op, OpenHow, Status};

/// A system call on a file, by address.
pub(super) struct FileCall {
    number: libc::c_long,
    arguments: [usize; 6],
    /// An `iovec` that the second argument is to lead to.
    vector: Option<[usize; 2]>,
}

/// Arguments that are not looked at.
const NONE: usize = 0;

/// The working directory, for paths.
const HERE: usize = libc::AT_FDCWD as usize;

fn address<T: ?Sized>(of: *const T) -> usize {
    of.cast::<()>() as usize
}

fn text(path: &CStr) -> usize {
    address(path.as_ptr())
}

impl FileCall {
    /// The call for a file operation; `None` for the others.
    pub(super) fn of(op: &mut Op) -> Option<Self> {
        let (number, arguments) = match op {
            Op::Rename { .. }
            | Op::Remove { .. }
            | Op::MakeDirectory { .. }
            | Op::Link { .. }
            | Op::Symlink { .. } => Self::of_names(op),
            Op::ReadAt { .. }
            | Op::WriteAt { .. }
            | Op::ReadVectoredAt { .. }
            | Op::WriteVectoredAt { .. } => return Some(Self::of_transfer(op)),
            Op::Open { directory, path, how } => {
                let how = address(&raw const **how);
                let size = size_of::<OpenHow>();
                (libc::SYS_openat2, [*directory as usize, text(path), how, size, NONE])
            }
            Op::Sync { file, data_only } => {
                let number = if *data_only { libc::SYS_fdatasync } else { libc::SYS_fsync };
                (number, [*file as usize, NONE, NONE, NONE, NONE])
            }
            Op::Stat { file, status } => {
                let fields = address(&raw mut status.fields);
                let (path, flags) = status.target();
                let mask = Status::MASK as usize;
                (libc::SYS_statx, [*file as usize, text(path), flags as usize, mask, fields])
            }
            Op::Allocate { file, mode, offset, length } => {
                let (offset, length) = (*offset as usize, *length as usize);
                (libc::SYS_fallocate, [*file as usize, *mode as usize, offset, length, NONE])
            }
            Op::Truncate { file, length } => {
                (libc::SYS_ftruncate, [*file as usize, *length as usize, NONE, NONE, NONE])
            }
            Op::Advise { file, offset, length, advice } => {
                let (offset, length) = (*offset as usize, *length as usize);
                (libc::SYS_fadvise64, [*file as usize, offset, length, *advice as usize, NONE])
            }
            Op::List { directory, buffer } => {
                let (start, length) = buffer.spare();
                let start = address(start.as_ptr());
                let length = length_of(length);
                (libc::SYS_getdents64, [*directory as usize, start, length, NONE, NONE])
            }
            Op::ReadLink { path, buffer } => {
                let (start, length) = buffer.spare();
                let start = address(start.as_ptr());
                (libc::SYS_readlinkat, [HERE, text(path), start, length_of(length), NONE])
            }
            _ => return None,
        };
        let [first, second, third, fourth, fifth] = arguments;
        let arguments = [first, second, third, fourth, fifth, NONE];
        Some(Self { number, arguments, vector: None })
    }

    fn of_names(op: &Op) -> (libc::c_long, [usize; 5]) {
        match op {
            Op::Rename { from, to, flags } => {
                (libc::SYS_renameat2, [HERE, text(from), HERE, text(to), *flags as usize])
            }
            Op::Remove { path, flags } => {
                (libc::SYS_unlinkat, [HERE, text(path), *flags as usize, NONE, NONE])
            }
            Op::MakeDirectory { path, mode } => {
                (libc::SYS_mkdirat, [HERE, text(path), *mode as usize, NONE, NONE])
            }
            Op::Link { directory, from, to, flags } => {
                let directory = *directory as usize;
                (libc::SYS_linkat, [directory, text(from), HERE, text(to), *flags as usize])
            }
            Op::Symlink { target, path } => {
                (libc::SYS_symlinkat, [text(target), HERE, text(path), NONE, NONE])
            }
            _ => unreachable!("only operations on names come here"),
        }
    }

    /// Reads and writes by pread64(2), and by preadv(2) and pwritev2(2), whose offset takes two
    /// arguments: the second counts on 32-bit systems only.
    fn of_transfer(op: &mut Op) -> Self {
        let mut single = None;
        let (number, file, start, length, offset, flags) = match op {
            Op::ReadAt { file, buffer, offset } => {
                let (start, length) = buffer.spare();
                let start = address(start.as_ptr());
                (libc::SYS_pread64, *file, start, length_of(length), *offset, 0)
            }
            Op::ReadVectoredAt { file, scatter, offset } => {
                let vectors = scatter.vectors();
                let start = address(vectors.as_ptr());
                (libc::SYS_preadv, *file, start, vectors.len(), *offset, 0)
            }
            Op::WriteAt { file, payload, skip, offset, durable, appends } => {
                let rest = &payload[*skip..];
                single = Some([address(rest.as_ptr()), length_of(rest.len())]);
                let flags = write_flags(*durable, *appends);
                (libc::SYS_pwritev2, *file, NONE, 1, *offset, flags)
            }
            Op::WriteVectoredAt { file, message, offset } => {
                let vectors = message.vectors();
                let start = address(vectors.as_ptr());
                (libc::SYS_pwritev2, *file, start, vectors.len(), *offset, 0)
            }
            _ => unreachable!("only reads and writes come here"),
        };
        let offset = offset as usize;
        let arguments = [file as usize, start, length, offset, NONE, flags as usize];
        Self { number, arguments, vector: single }
    }

    /// Makes the call, repeating it when interrupted.
    ///
    /// # Safety
    /// The operation that this was made of is still in its slot, untouched.
    pub(super) unsafe fn perform(&self) -> Result<u32, Errno> {
        let mut arguments = self.arguments;
        if let Some(vector) = &self.vector {
            arguments[1] = address(vector);
        }
        let [first, second, third, fourth, fifth, sixth] = arguments;
        loop {
            // SAFETY: each address was taken from memory that the operation owns, of the length
            // given, and the operation is untouched (the caller's contract); or it leads to the
            // vector of this call, two words as an `iovec` is, which leads into such memory.
            let result =
                unsafe { libc::syscall(self.number, first, second, third, fourth, fifth, sixth) };
            match check(result as isize) {
                Err(Errno(libc::EINTR)) => {}
                result => return result,
            }
        }
    }
}

const _: () = assert!(size_of::<libc::iovec>() == size_of::<[usize; 2]>());

/// The flags of a write (pwritev2(2)).
pub(super) fn write_flags(durable: bool, appends: bool) -> i32 {
    let durable = if durable { libc::RWF_DSYNC } else { 0 };
    durable | if appends { libc::RWF_APPEND } else { 0 }
}
