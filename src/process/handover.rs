//! Descriptors that a child inherits beside its standard streams, under a name.
//!
//! They keep their numbers; an environment variable of that name lists them. Used by
//! [`Command::hand_over`](super::Command::hand_over) and `ipc::ring`. Invariant: a descriptor is
//! inherited by the one child that it is meant for, since it is close-on-exec in this process until
//! the child has been forked.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use crate::error::{Errno, Error, Result};

/// Lower numbers are the standard streams.
const NUMBER_MIN: RawFd = 3;

/// What a command hands over.
#[derive(Default)]
pub(super) struct Handover {
    descriptors: Vec<OwnedFd>,
    is_over: bool,
}

impl Handover {
    pub(super) fn add(
        &mut self,
        command: &mut Command,
        name: &str,
        descriptors: Vec<OwnedFd>,
    ) -> Result<()> {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(Error::config(format!("{name:?} cannot name what is handed over")));
        }
        let descriptors: Vec<OwnedFd> =
            descriptors.into_iter().map(above_standard_streams).collect::<Result<_>>()?;
        let numbers: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let list: Vec<String> = numbers.iter().map(RawFd::to_string).collect();
        command.env(name, list.join(","));
        let inherit = move || {
            numbers.iter().try_for_each(|number| set_flags(*number, 0)).map_err(io::Error::from)
        };
        // SAFETY: the closure runs in the child between fork and exec. It only calls fcntl(2),
        // which is async-signal-safe (signal-safety(7)), and reads memory that was filled before;
        // its error carries a number and allocates nothing.
        unsafe { command.pre_exec(inherit) };
        self.descriptors.extend(descriptors);
        Ok(())
    }

    /// Before a child is started.
    pub(super) fn begin(&self) -> Result<()> {
        if self.is_over {
            return Err(Error::config(
                "this command has handed its descriptors over to an earlier child; make another \
                 command",
            ));
        }
        Ok(())
    }

    /// A child has been started: what was handed over is its own now.
    pub(super) fn end(&mut self) {
        self.is_over = !self.descriptors.is_empty();
        self.descriptors.clear();
    }
}

fn above_standard_streams(descriptor: OwnedFd) -> Result<OwnedFd> {
    if descriptor.as_raw_fd() >= NUMBER_MIN {
        return Ok(descriptor);
    }
    // SAFETY: F_DUPFD_CLOEXEC takes no pointers.
    let copy = unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_DUPFD_CLOEXEC, NUMBER_MIN) };
    if copy < 0 {
        return Err(Error::io("handing a descriptor over", Errno::last()));
    }
    // SAFETY: the descriptor was just made and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

fn set_flags(descriptor: RawFd, flags: i32) -> std::result::Result<(), Errno> {
    // SAFETY: F_SETFD takes no pointers.
    match unsafe { libc::fcntl(descriptor, libc::F_SETFD, flags) } {
        0 => Ok(()),
        _ => Err(Errno::last()),
    }
}

/// What the parent has handed over to this process under `name`, in order. Each is taken once, and
/// not inherited further.
///
/// # Errors
/// `is_config` if nothing was handed over by that name, or it was taken before.
pub fn inherited(name: &str) -> Result<Vec<OwnedFd>> {
    static TAKING: Mutex<()> = Mutex::new(());
    let _alone = TAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let list = std::env::var(name).map_err(|_| {
        Error::config(format!("the parent process has handed nothing over as {name}"))
    })?;
    let numbers = list.split(',').filter(|number| !number.is_empty());
    numbers.map(|number| take(name, number)).collect()
}

fn take(name: &str, number: &str) -> Result<OwnedFd> {
    let refused = |why: &str| Error::config(format!("{number:?} of {name} {why}"));
    let descriptor: RawFd =
        number.parse().map_err(|_| refused("is no descriptor: the parent sets the variable"))?;
    // SAFETY: F_GETFD takes no pointers.
    let flags = unsafe { libc::fcntl(descriptor, libc::F_GETFD) };
    // What this process has opened itself is close-on-exec, and so is what was taken.
    if descriptor < NUMBER_MIN || flags != 0 {
        return Err(refused("was not inherited, or was taken before"));
    }
    set_flags(descriptor, libc::FD_CLOEXEC)
        .map_err(|errno| Error::io("taking an inherited descriptor", errno))?;
    // SAFETY: the number is open and was inherited across exec (it was not close-on-exec); the
    // parent gave it to whoever asks for it by this name, and it is taken once: the flag is set
    // now, under the lock.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}
