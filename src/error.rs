//! The error of the public edge: what happened, to what, and what to do.
//!
//! Operations report an [`Errno`] below the edge; the runtime's face turns it into an [`Error`]
//! with the verb that failed. Callers ask by `is_*`; the kind is not an enum to match on, so that
//! kinds can be added.

use std::fmt;
use std::io;

/// An error number of the kernel (errno(3)), positive.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

impl Errno {
    /// The error number of the last failed system call of this thread.
    pub fn last() -> Self {
        Self(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
    }

    /// From an [`io::Error`]; one that carries no number counts as EIO.
    pub fn from_io(error: &io::Error) -> Self {
        Self(error.raw_os_error().unwrap_or(libc::EIO))
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&io::Error::from_raw_os_error(self.0), f)
    }
}

impl From<Errno> for io::Error {
    fn from(errno: Errno) -> Self {
        io::Error::from_raw_os_error(errno.0)
    }
}

/// `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Io(Errno),
    Cancelled,
    Closed,
    LimitReached,
    Config,
    Unsupported,
    AlreadyRunning,
    NotRunning,
    Panicked,
    Foreign(io::ErrorKind),
    Unresolved,
    TimedOut,
    Disconnected,
}

/// What went wrong, as one sentence, with queries for the cases a program can act on.
#[derive(Clone, Debug)]
pub struct Error {
    kind: Kind,
    message: String,
}

impl Error {
    /// A system call failed: `verb` says what was attempted, on what.
    pub fn io(verb: impl fmt::Display, errno: Errno) -> Self {
        let kind = if errno.0 == libc::ECANCELED { Kind::Cancelled } else { Kind::Io(errno) };
        Self { kind, message: format!("{verb}: {errno}") }
    }

    /// A setting or an argument makes no sense; the message says which, and what would.
    pub fn config(message: impl Into<String>) -> Self {
        Self { kind: Kind::Config, message: message.into() }
    }

    /// The other side (shard, pool, runtime) has shut down.
    pub fn closed(what: impl fmt::Display) -> Self {
        Self { kind: Kind::Closed, message: format!("{what} has shut down") }
    }

    /// A named limit is reached.
    pub fn limit(message: impl Into<String>) -> Self {
        Self { kind: Kind::LimitReached, message: message.into() }
    }

    /// This host or engine cannot do it; the message says what would.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self { kind: Kind::Unsupported, message: message.into() }
    }

    /// A runtime already runs on this thread.
    pub fn already_running() -> Self {
        Self {
            kind: Kind::AlreadyRunning,
            message: "a runtime already runs on this thread; use task::spawn inside it, \
                      or another thread"
                .into(),
        }
    }

    /// A wait that would block the thread of a shard.
    pub fn would_stop_shard() -> Self {
        Self {
            kind: Kind::AlreadyRunning,
            message: "waiting here would stop the shard that runs on this thread; await the \
                      handle instead, or wait on another thread"
                .into(),
        }
    }

    /// `what` was called off before it had a value.
    pub fn cancelled(what: impl fmt::Display) -> Self {
        Self { kind: Kind::Cancelled, message: format!("{what} was cancelled") }
    }

    /// The time for `what` was over first.
    pub fn timed_out(what: impl fmt::Display) -> Self {
        Self { kind: Kind::TimedOut, message: format!("{what} took longer than its time limit") }
    }

    /// A host's name could not be turned into addresses.
    pub fn unresolved(host: &str, why: impl fmt::Display) -> Self {
        Self { kind: Kind::Unresolved, message: format!("resolving {host:?}: {why}") }
    }

    /// The same kind of error with another message.
    pub(crate) fn with_message(self, message: String) -> Self {
        Self { message, ..self }
    }

    /// The peer is gone; the message says which, and how.
    pub fn disconnected(message: impl Into<String>) -> Self {
        Self { kind: Kind::Disconnected, message: message.into() }
    }

    /// What is not possible while a runtime runs; the message says when it is.
    pub(crate) fn running(message: impl Into<String>) -> Self {
        Self { kind: Kind::AlreadyRunning, message: message.into() }
    }

    /// No runtime runs, or is entered, on this thread.
    pub(crate) fn not_running() -> Self {
        Self {
            kind: Kind::NotRunning,
            message: "no annulus runtime on this thread: call this inside Runtime::block_on, or \
                      reach a runtime from elsewhere by Runtime::handle"
                .into(),
        }
    }

    /// Code handed to another thread or task panicked with `message`.
    pub fn panicked(message: impl fmt::Display) -> Self {
        Self { kind: Kind::Panicked, message: format!("panicked: {message}") }
    }

    /// The kernel's error number, if a system call failed.
    pub fn errno(&self) -> Option<Errno> {
        match self.kind {
            Kind::Io(errno) => Some(errno),
            Kind::Cancelled => Some(Errno(libc::ECANCELED)),
            _ => None,
        }
    }

    /// Whether the operation or task was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.kind == Kind::Cancelled
    }

    /// Whether the shard, pool or runtime asked has shut down.
    pub fn is_closed(&self) -> bool {
        self.kind == Kind::Closed
    }

    /// Whether a named limit of [`crate::limits`] or of a setting is reached.
    pub fn is_limit(&self) -> bool {
        self.kind == Kind::LimitReached
    }

    /// Whether a setting or an argument is wrong.
    pub fn is_config(&self) -> bool {
        self.kind == Kind::Config
    }

    /// Whether this host, engine or file system cannot do it.
    pub fn is_unsupported(&self) -> bool {
        self.kind == Kind::Unsupported || self.is_errno(&[libc::EOPNOTSUPP, libc::ENOSYS])
    }

    /// Whether a runtime ran on this thread already, which allows no second one and no blocking.
    pub fn is_already_running(&self) -> bool {
        self.kind == Kind::AlreadyRunning
    }

    /// Whether there was no runtime on this thread.
    pub fn is_not_running(&self) -> bool {
        self.kind == Kind::NotRunning
    }

    /// Whether foreign code panicked.
    pub fn is_panicked(&self) -> bool {
        self.kind == Kind::Panicked
    }

    /// Whether a host's name could not be turned into addresses.
    pub fn is_unresolved(&self) -> bool {
        self.kind == Kind::Unresolved
    }

    /// Whether a time limit was reached first.
    pub fn is_timed_out(&self) -> bool {
        self.kind == Kind::TimedOut
    }

    /// Whether the peer is gone: reset, broken pipe, aborted, timed out by the kernel, killed.
    pub fn is_disconnected(&self) -> bool {
        self.kind == Kind::Disconnected
            || matches!(
                self.errno(),
                Some(Errno(
                    libc::ECONNRESET
                        | libc::EPIPE
                        | libc::ECONNABORTED
                        | libc::ETIMEDOUT
                        | libc::ENOTCONN
                ))
            )
    }

    /// Whether the address is taken.
    pub fn is_address_in_use(&self) -> bool {
        self.errno() == Some(Errno(libc::EADDRINUSE))
    }

    /// Whether a reader has ended before what was to be read.
    pub fn is_unexpected_end(&self) -> bool {
        self.kind == Kind::Foreign(io::ErrorKind::UnexpectedEof)
    }

    /// Whether the file is missing.
    pub fn is_not_found(&self) -> bool {
        self.is_errno(&[libc::ENOENT])
    }

    /// Whether the name is taken already.
    pub fn is_already_exists(&self) -> bool {
        self.is_errno(&[libc::EEXIST])
    }

    /// Whether there is no room: the file system is full, or the user's quota of it is used up.
    /// What was to be written can be written again when there is.
    pub fn is_storage_full(&self) -> bool {
        self.is_errno(&[libc::ENOSPC, libc::EDQUOT])
    }

    /// Whether the file would be longer than its file system, or the process (RLIMIT_FSIZE),
    /// allows.
    pub fn is_file_too_large(&self) -> bool {
        self.is_errno(&[libc::EFBIG])
    }

    /// Whether the file system can only be read.
    pub fn is_read_only(&self) -> bool {
        self.is_errno(&[libc::EROFS])
    }

    /// Whether the process may not do that.
    pub fn is_permission_denied(&self) -> bool {
        self.is_errno(&[libc::EACCES, libc::EPERM])
    }

    /// Whether a directory to be removed, or replaced, has something in it.
    pub fn is_directory_not_empty(&self) -> bool {
        self.is_errno(&[libc::ENOTEMPTY])
    }

    /// Whether a part of the path that must be a directory is none.
    pub fn is_not_a_directory(&self) -> bool {
        self.is_errno(&[libc::ENOTDIR])
    }

    /// Whether the device has failed to read or write: what was there, or was to be, may be lost.
    pub fn is_device_failure(&self) -> bool {
        self.is_errno(&[libc::EIO])
    }

    fn is_errno(&self, numbers: &[i32]) -> bool {
        self.errno().is_some_and(|errno| numbers.contains(&errno.0))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<io::Error> for Error {
    /// An [`Error`] that was made an [`io::Error`] comes back as it was.
    fn from(error: io::Error) -> Self {
        match error.downcast::<Error>() {
            Ok(own) => own,
            Err(error) => match error.raw_os_error() {
                Some(number) => Self::io("reading or writing", Errno(number)),
                None => Self { kind: Kind::Foreign(error.kind()), message: error.to_string() },
            },
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        match error.errno() {
            Some(errno) => errno.into(),
            None => match error.kind {
                Kind::Foreign(kind) => io::Error::new(kind, error),
                _ => io::Error::other(error),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_can_act_on_has_a_query() {
        type Query = fn(&Error) -> bool;
        let queries: [(&[i32], Query); 9] = [
            (&[libc::ENOENT], Error::is_not_found),
            (&[libc::EEXIST], Error::is_already_exists),
            (&[libc::ENOSPC, libc::EDQUOT], Error::is_storage_full),
            (&[libc::EFBIG], Error::is_file_too_large),
            (&[libc::EROFS], Error::is_read_only),
            (&[libc::EACCES, libc::EPERM], Error::is_permission_denied),
            (&[libc::ENOTEMPTY], Error::is_directory_not_empty),
            (&[libc::ENOTDIR], Error::is_not_a_directory),
            (&[libc::EIO], Error::is_device_failure),
        ];
        for (place, (numbers, _)) in queries.iter().enumerate() {
            for number in *numbers {
                let error = Error::io("trying", Errno(*number));
                let answers = queries.iter().enumerate().filter(|(_, (_, query))| query(&error));
                assert_eq!(answers.map(|(place, _)| place).collect::<Vec<_>>(), [place]);
            }
        }
        assert!(Error::io("trying", Errno(libc::EOPNOTSUPP)).is_unsupported());
    }
}
