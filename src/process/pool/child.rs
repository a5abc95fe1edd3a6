//! The pool's side of one worker: a child process and the socket to it.
//!
//! Used by one thread of the pool at a time, which blocks on it. Invariant: a child is waited for,
//! whichever way it ends: none is left as a zombie.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use super::frame::{self, Decoded, Status};
use super::worker;
use crate::clock;
use crate::error::{Errno, Error, Result};
use crate::limits;

/// A worker that lives, or has just been lost.
pub(super) struct Process {
    child: Child,
    socket: UnixStream,
}

/// This program as a worker.
pub(super) fn this_program() -> Command {
    // Not by its path, at which there may be another program by now.
    let mut command = Command::new("/proc/self/exe");
    if let Ok(path) = std::env::current_exe() {
        command.arg0(path);
    }
    command.arg(worker::ARGUMENT);
    command
}

impl Process {
    /// Starts a worker.
    pub(super) fn start(command: &mut Command) -> Result<Self> {
        let failed = |verb: &str, error: &io::Error| Error::io(verb, Errno::from_io(error));
        let pair = UnixStream::pair();
        let (socket, theirs) = pair.map_err(|error| failed("making a worker's socket", &error))?;
        command.stdin(Stdio::from(OwnedFd::from(theirs)));
        let child = command.spawn();
        // The command would keep the worker's end open, and nobody would see the worker go.
        command.stdin(Stdio::null());
        let child = child.map_err(|error| {
            let program = command.get_program().to_string_lossy().into_owned();
            failed(&format!("starting the worker {program}"), &error)
        })?;
        Ok(Self { child, socket })
    }

    /// Waits for the worker's greeting, but not for ever: the program may be no worker.
    pub(super) fn greet(&mut self) -> Result<()> {
        let limit = Duration::from_millis(limits::PROCESS_START_MS_MAX);
        let advice = "is Worker::serve_if_asked the first thing that its main does?";
        let received = self.socket.set_read_timeout(Some(limit)).and_then(|()| self.receive());
        match received {
            Ok((Status::Ready, greeting)) if greeting == frame::GREETING => {
                let result = self.socket.set_read_timeout(None);
                result.map_err(|error| {
                    Error::io("setting up a worker's socket", Errno::from_io(&error))
                })
            }
            Ok(_) => Err(Error::config(format!("the program is no worker: {advice}"))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(Error::timed_out(format!("the start of a worker ({advice})")))
            }
            Err(_) => {
                let how = self.end();
                Err(Error::disconnected(format!("a worker {how} before it was ready: {advice}")))
            }
        }
    }

    /// Its process id.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// A second hold of the socket, to cut the worker off while a thread waits for it.
    pub(super) fn cord(&self) -> io::Result<Cord> {
        Ok(Cord(self.socket.try_clone()?))
    }

    /// Whether it has not ended, as far as is known.
    pub(super) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Has it run a function. The outer error: the worker is lost, and says how in words.
    pub(super) fn call(
        &mut self,
        head: &[u8],
        input: &[u8],
    ) -> std::result::Result<Result<Vec<u8>>, String> {
        let sent = self.socket.write_all(head).and_then(|()| self.socket.write_all(input));
        let (status, content) = match sent.and_then(|()| self.receive()) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                self.end();
                return Err(format!("sent what is no reply ({error})"));
            }
            Err(_) => return Err(self.end()),
        };
        let text = || String::from_utf8_lossy(&content).into_owned();
        Ok(match status {
            Status::Done => Ok(content),
            Status::Panicked => Err(Error::panicked(text())),
            Status::Unknown => {
                Err(Error::config(format!("the worker has no such function; it has: {}", text())))
            }
            Status::TooLong => Err(Error::limit(format!("the output would be {}", text()))),
            Status::Ready => {
                self.end();
                return Err("greeted in the place of a reply".into());
            }
        })
    }

    /// Receives one frame.
    fn receive(&mut self) -> io::Result<(Status, Vec<u8>)> {
        let mut received = Vec::new();
        loop {
            let missing = match frame::decode_reply(&received) {
                Ok(Decoded::Complete(reply)) => {
                    // The frame is all that was received, and its content is the end of it.
                    let (status, length) = (reply.status, reply.content.len());
                    received.drain(..received.len() - length);
                    return Ok((status, received));
                }
                Ok(Decoded::NeedMore(count)) => count as u64,
                Err(invalid) => return Err(io::Error::new(io::ErrorKind::InvalidData, invalid)),
            };
            if (&mut self.socket).take(missing).read_to_end(&mut received)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Closes the socket, at which a worker ends, waits for it, and kills it if it does not. Says
    /// how it ended.
    fn end(&mut self) -> String {
        const LOOK_EVERY: Duration = Duration::from_millis(1);
        drop(self.socket.shutdown(Shutdown::Both));
        let deadline = clock::now() + Duration::from_millis(limits::PROCESS_EXIT_MS_MAX);
        while clock::now() < deadline {
            match self.child.try_wait() {
                Ok(None) => thread::sleep(LOOK_EVERY),
                Ok(Some(status)) => return describe(status),
                Err(_) => break,
            }
        }
        drop(self.child.kill());
        match self.child.wait() {
            Ok(_) => "had to be killed".into(),
            Err(error) => format!("could not be waited for ({error})"),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A child that has been waited for stays so.
        self.end();
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit status {code}"),
        (_, Some(signal)) => format!("was killed by signal {signal}"),
        _ => "ended".into(),
    }
}

/// Cuts a worker off from the pool, whoever waits for it.
pub(super) struct Cord(UnixStream);

impl Cord {
    pub(super) fn cut(&self) {
        drop(self.0.shutdown(Shutdown::Both));
    }
}
