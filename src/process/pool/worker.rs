//! The worker's side: a program that serves jobs on its standard input instead of doing what it
//! usually does.
//!
//! The pool gives it one end of a socket pair there. A thread of its own reads: when the pool is
//! gone, however it ended, the worker ends too, even in the middle of a job. Invariant: each
//! request has one reply, and the functions' own standard input is empty.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::exit;
use std::sync::mpsc;
use std::thread;

use super::frame::{self, Decoded, Request, Status};
use crate::executor::panic_message;

/// What a worker can do for its pool: bytes in, bytes out.
pub type Function = fn(&[u8]) -> Vec<u8>;

/// The first argument of a program that is to be a worker.
pub(super) const ARGUMENT: &str = "--annulus-pool-worker";

/// The exit status of a worker that cannot serve.
const CANNOT_SERVE: i32 = 2;

/// A process of a pool, from the inside.
#[derive(Debug)]
pub enum Worker {}

impl Worker {
    /// Serves the pool that has started this process, and never returns; returns at once if no pool
    /// has. The first thing that `main` does: before threads, before arguments are looked at.
    ///
    /// ```no_run
    /// use annulus::process::pool::{Pool, Worker};
    ///
    /// fn sum(bytes: &[u8]) -> Vec<u8> {
    ///     vec![bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))]
    /// }
    ///
    /// fn main() -> annulus::Result<()> {
    ///     Worker::serve_if_asked(&[("sum", sum)]);
    ///     let pool = Pool::builder().workers(2).build()?;
    ///     annulus::Runtime::new()?.block_on(async {
    ///         assert_eq!(pool.call("sum", [1, 2, 3]).await?, [6]);
    ///         annulus::Result::Ok(())
    ///     })
    /// }
    /// ```
    pub fn serve_if_asked(functions: &[(&str, Function)]) {
        if is_asked() {
            Self::serve(functions);
        }
    }

    /// Serves the pool whose socket is the standard input, until the pool is gone: for a program
    /// that is nothing but a worker ([`super::Builder::command`]).
    pub fn serve(functions: &[(&str, Function)]) -> ! {
        let error = match serve(functions) {
            Ok(()) => exit(0),
            Err(error) => error,
        };
        // Its pool may be gone already.
        let _ = writeln!(io::stderr(), "annulus: a worker cannot serve: {error}");
        exit(CANNOT_SERVE)
    }
}

/// Whether this process has been started as a worker.
pub(super) fn is_asked() -> bool {
    std::env::args_os().nth(1).is_some_and(|argument| argument == ARGUMENT)
}

fn serve(functions: &[(&str, Function)]) -> io::Result<()> {
    let mut socket = take_standard_input()?;
    let reader = socket.try_clone()?;
    let (sender, requests) = mpsc::channel();
    thread::Builder::new().name("annulus-requests".into()).spawn(move || read(reader, &sender))?;
    send(&mut socket, Status::Ready, frame::GREETING)?;
    for bytes in requests {
        let request = match frame::decode_request(&bytes) {
            Ok(Decoded::Complete(request)) => request,
            Ok(Decoded::NeedMore(_)) => unreachable!("only whole frames are passed on"),
            Err(invalid) => return Err(io::Error::other(invalid)),
        };
        let (status, content) = perform(functions, &request);
        send(&mut socket, status, &content)?;
    }
    Ok(())
}

/// Reads requests until the pool is gone, and ends the process then.
fn read(mut socket: UnixStream, requests: &mpsc::Sender<Vec<u8>>) {
    let mut bytes = Vec::new();
    loop {
        let missing = match frame::decode_request(&bytes) {
            Ok(Decoded::NeedMore(count)) => count as u64,
            // What is invalid is named by the one who performs.
            Ok(Decoded::Complete(_)) | Err(_) => {
                if requests.send(std::mem::take(&mut bytes)).is_err() {
                    return;
                }
                continue;
            }
        };
        match (&mut socket).take(missing).read_to_end(&mut bytes) {
            Ok(0) | Err(_) => exit(0),
            Ok(_) => {}
        }
    }
}

fn perform(functions: &[(&str, Function)], request: &Request<'_>) -> (Status, Vec<u8>) {
    let found = functions.iter().find(|(name, _)| *name == request.function);
    let Some((_, function)) = found else {
        let names: Vec<_> = functions.iter().map(|(name, _)| *name).collect();
        return (Status::Unknown, names.join(", ").into());
    };
    match catch_unwind(AssertUnwindSafe(|| function(request.input))) {
        Ok(output) => (Status::Done, output),
        Err(panic) => (Status::Panicked, panic_message(&*panic).into()),
    }
}

fn send(socket: &mut UnixStream, status: Status, content: &[u8]) -> io::Result<()> {
    let head = match frame::encode_reply_head(status, content.len()) {
        Ok(head) => head,
        Err(error) => return send(socket, Status::TooLong, error.to_string().as_bytes()),
    };
    socket.write_all(&head)?;
    socket.write_all(content)
}

/// The pool's socket. The standard input is empty from now on.
fn take_standard_input() -> io::Result<UnixStream> {
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let empty = File::open("/dev/null")?;
    // SAFETY: takes no pointers. Both descriptors are open; descriptor 0 is nobody's to own: the
    // standard library borrows it for each use and never closes it.
    let result = unsafe { libc::dup2(empty.as_raw_fd(), libc::STDIN_FILENO) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(socket) }
}
