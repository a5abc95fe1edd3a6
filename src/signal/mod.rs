//! Signals as streams.
//!
//! The handler writes to an eventfd of each stream, and a readiness operation of the shard reports
//! that: signals need no thread, and reach whichever shard listens. Not by signalfd(2), which works
//! only while every thread of the process blocks the signal, and that is not a library's to decide.

mod handler;

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;

use self::handler::Seat;
use crate::error::{Error, Result};
use crate::op::{Interest, Op};
use crate::shard::completion::Completion;

/// A signal (signal(7)).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SignalKind(i32);

/// Defines the names.
macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        impl SignalKind {
            $($(#[$doc])* pub const $name: Self = Self(libc::$name);)*
        }

        const NAMES: &[(i32, &str)] = &[$((libc::$name, stringify!($name))),*];
    };
}

kinds! {
    /// Interrupted from the terminal, by Ctrl-C.
    SIGINT,
    /// Asked to end.
    SIGTERM,
    /// The terminal is gone; for a daemon: read the configuration again.
    SIGHUP,
    /// Asked to quit from the terminal, by Ctrl-\.
    SIGQUIT,
    /// For the program to define.
    SIGUSR1,
    /// For the program to define.
    SIGUSR2,
    /// A child has ended or stopped. `process` does not need it.
    SIGCHLD,
    /// A timer of alarm(2).
    SIGALRM,
    /// A write that nobody reads. The runtime's own writes raise none.
    SIGPIPE,
    /// The terminal's size has changed.
    SIGWINCH,
    /// Input or output is possible (fcntl(2), F_SETOWN).
    SIGIO,
    /// Continued after a stop.
    SIGCONT,
    /// Asked to stop from the terminal, by Ctrl-Z.
    SIGTSTP,
}

impl SignalKind {
    /// A signal by its number, for those that have no name here.
    pub const fn from_raw(number: i32) -> Self {
        Self(number)
    }

    /// The signal's number.
    pub const fn as_raw(self) -> i32 {
        self.0
    }

    /// Refuses what cannot be caught, must not be, or is not a signal.
    fn check(self) -> Result<()> {
        let why = match self.0 {
            libc::SIGKILL | libc::SIGSTOP => "cannot be caught by any program",
            libc::SIGSEGV | libc::SIGILL | libc::SIGFPE | libc::SIGBUS => {
                "is raised by a fault of the program, which cannot go on after it"
            }
            libc::SIGURG => "wakes the runtime's own threads under the `threads` engine",
            32 | 33 => "belongs to the C library",
            1..=handler::SIGNAL_MAX => return Ok(()),
            _ => "is no signal: they are 1 to 64",
        };
        Err(Error::config(format!("{self:?} {why}")))
    }
}

impl fmt::Debug for SignalKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(number, _)| *number == self.0) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "signal {}", self.0),
        }
    }
}

/// Listens to a signal from now on, instead of what it did before.
///
/// Every stream of a signal gets it. Signals **coalesce**: those that come before the stream is
/// asked again are one, as they are in the kernel (signal(7)), so a stream says *that* a signal
/// came, not how often. A handler that other code had installed before is still called.
///
/// When the last stream of a signal is dropped, what the signal did before is restored: the default
/// in a program that set nothing, which for most ends the process.
///
/// It may be called on any thread, before there is a runtime: what comes meanwhile is kept.
///
/// # Errors
/// `is_config` for signals that cannot be listened to: SIGKILL, SIGSTOP, SIGSEGV, SIGILL, SIGFPE,
/// SIGBUS, and SIGURG, which the runtime uses. `is_limit` past
/// [`crate::limits::SIGNAL_STREAMS_COUNT_MAX`]. The errors of eventfd(2).
pub fn stream(kind: SignalKind) -> Result<Signals> {
    kind.check()?;
    Ok(Signals { waiting: None, seat: Seat::take(kind.0)?, kind })
}

/// Waits for one Ctrl-C (SIGINT). The signal has its usual effect until the first poll, and again
/// after the end: for a second one keep a [`stream`].
///
/// A dropped future listens no more: a signal that comes after it has its usual effect.
///
/// # Errors
/// As [`stream`].
pub async fn ctrl_c() -> Result<()> {
    stream(SignalKind::SIGINT)?.recv().await.map(drop)
}

/// The arrivals of one signal; see [`stream`].
pub struct Signals {
    /// Dropped before the seat.
    waiting: Option<Completion>,
    seat: Seat,
    kind: SignalKind,
}

impl Signals {
    /// Waits for the signal, unless it came since the last call. Cancel-safe.
    ///
    /// # Errors
    /// ENFILE at [`crate::limits::OPERATIONS_COUNT_MAX`]; the errors of poll(2).
    ///
    /// # Panics
    /// Outside a runtime.
    pub async fn recv(&mut self) -> Result<SignalKind> {
        poll_fn(|context| self.poll_recv(context)).await
    }

    fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Result<SignalKind>> {
        loop {
            if self.seat.has_come() {
                return Poll::Ready(Ok(self.kind));
            }
            let descriptor = self.seat.descriptor();
            let waiting = self.waiting.get_or_insert_with(|| {
                Completion::new(Op::Ready { descriptor, interest: Interest::Readable, held: None })
            });
            let outcome = ready!(Pin::new(waiting).poll(context));
            self.waiting = None;
            if let Err(errno) = outcome.result {
                return Poll::Ready(Err(Error::io("waiting for a signal", errno)));
            }
        }
    }
}

impl Stream for Signals {
    type Item = Result<SignalKind>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<SignalKind>>> {
        self.poll_recv(context).map(Some)
    }
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signals({:?})", self.kind)
    }
}
