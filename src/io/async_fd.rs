//! A descriptor of any kind, awaited for readiness.
//!
//! Used for descriptors of other libraries, and by `ipc` and `signal`. Invariant: a wait holds what
//! its descriptor was when it began; what the number means later is never reported to it.

use std::fmt;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd};

use crate::error::{Errno, Error, Result};
use crate::op::{Interest, Op, Value};
use crate::shard::completion::Completion;
use crate::task;

/// A descriptor that tasks wait for: an eventfd, a timerfd, a device, a socket of another library.
///
/// Readiness is **level-triggered** and looked at anew by every call: a descriptor of which half
/// was read is ready again at once. Nothing is kept between two waits, so there is nothing to
/// clear after a `WouldBlock`, nothing to deregister, and any number of tasks may wait for one
/// descriptor at a time, for the same direction or for different ones.
///
/// A wait is a one-shot poll operation (`IORING_OP_POLL_ADD`, epoll(7), poll(2)). It holds the open
/// file, not its number: once the descriptor is closed and its number is used again, a wait that is
/// left never sees the new one.
///
/// The descriptor may be blocking or not; [`AsyncFd`] never changes that. Readiness is a hint, as
/// with poll(2): where several read, another may have been first, so set it non-blocking and use
/// [`AsyncFd::perform`], or be its only reader. Regular files are always ready.
///
/// ```
/// use annulus::{Runtime, io::AsyncFd};
/// use std::{io::{Read, Write}, os::unix::net::UnixStream};
///
/// Runtime::new()?.block_on(async {
///     let (ours, mut theirs) = UnixStream::pair().unwrap();
///     let ours = AsyncFd::new(ours);
///     theirs.write_all(b"hello").unwrap();
///     assert!(ours.readable().await?.is_readable());
///     let mut bytes = [0; 5];
///     ours.get_ref().read_exact(&mut bytes).unwrap();
///     assert_eq!(&bytes, b"hello");
///     annulus::Result::Ok(())
/// })?;
/// # annulus::Result::Ok(())
/// ```
pub struct AsyncFd<T: AsFd> {
    inner: T,
}

impl<T: AsFd> AsyncFd<T> {
    /// Takes a descriptor. Nothing is registered: each wait speaks for itself, on the shard that
    /// awaits it.
    pub fn new(inner: T) -> Self {
        Self { inner }
    }

    /// What was given to [`AsyncFd::new`].
    pub fn get_ref(&self) -> &T {
        &self.inner
    }

    /// What was given to [`AsyncFd::new`], to change.
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.inner
    }

    /// Gives back what was given to [`AsyncFd::new`].
    pub fn into_inner(self) -> T {
        self.inner
    }

    /// Waits until there is something to read, or the other side has finished. Cancel-safe.
    ///
    /// # Errors
    /// The errors of poll(2).
    pub async fn readable(&self) -> Result<Readiness> {
        self.ready(Interest::Readable).await
    }

    /// Waits until there is room to write, or nobody reads any more. Cancel-safe.
    ///
    /// # Errors
    /// The errors of poll(2).
    pub async fn writable(&self) -> Result<Readiness> {
        self.ready(Interest::Writable).await
    }

    /// Waits for either direction or both; the answer says which came. Cancel-safe: a wait that is
    /// dropped has taken nothing.
    ///
    /// # Errors
    /// The errors of poll(2).
    pub async fn ready(&self, interest: Interest) -> Result<Readiness> {
        let descriptor = self.inner.as_fd().as_raw_fd();
        let op = Op::Ready { descriptor, interest, held: None };
        match Completion::new(op).await.result {
            Ok(Value::Count(bits)) => Ok(Readiness { bits: bits as i32 }),
            Ok(Value::Descriptor(_)) => unreachable!("a poll yields bits"),
            Err(errno) => Err(Error::io("waiting for a descriptor to be ready", errno)),
        }
    }

    /// Calls `perform` until it does something other than to fail with `WouldBlock`, and waits for
    /// readiness in between. The descriptor must be non-blocking.
    ///
    /// Cancel-safe as far as `perform` is: it is not interrupted, only not called again.
    ///
    /// # Errors
    /// What `perform` fails with, other than `WouldBlock` and `Interrupted`.
    pub async fn perform<R>(
        &self,
        interest: Interest,
        mut perform: impl FnMut(&T) -> io::Result<R>,
    ) -> Result<R> {
        loop {
            match perform(&self.inner) {
                Ok(value) => return Ok(value),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.ready(interest).await?;
                    // A descriptor that is ready and will not be used must not hold up the shard.
                    task::yield_if_needed().await;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(Error::io("using a descriptor", Errno::from_io(&error)));
                }
            }
        }
    }
}

impl<T: AsFd + fmt::Debug> fmt::Debug for AsyncFd<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AsyncFd").field(&self.inner).finish()
    }
}

/// What a descriptor is ready for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Readiness {
    /// As poll(2) reports it.
    bits: i32,
}

impl Readiness {
    fn has(self, bits: i16) -> bool {
        self.bits & i32::from(bits) != 0
    }

    /// Whether a read would not block: there are bytes, the end, or an error to report.
    pub fn is_readable(self) -> bool {
        self.has(libc::POLLIN | libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR)
    }

    /// Whether a write would not block: there is room, or an error to report.
    pub fn is_writable(self) -> bool {
        self.has(libc::POLLOUT | libc::POLLHUP | libc::POLLERR)
    }

    /// Whether the other side has finished (POLLHUP, POLLRDHUP). Bytes may be left to read.
    pub fn is_closed(self) -> bool {
        self.has(libc::POLLHUP | libc::POLLRDHUP)
    }

    /// Whether an error waits to be fetched (POLLERR): also that nobody reads a pipe any more.
    pub fn is_error(self) -> bool {
        self.has(libc::POLLERR)
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readiness")
            .field("readable", &self.is_readable())
            .field("writable", &self.is_writable())
            .field("closed", &self.is_closed())
            .field("error", &self.is_error())
            .finish()
    }
}
