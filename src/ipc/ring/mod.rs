//! A ring in memory that two processes share: messages in one direction, without a system call
//! while both are awake.
//!
//! Made by one process, which keeps one part and hands the other over. Each side also holds an end
//! of a socket pair: a byte in it wakes a side that sleeps, its end says that the peer is gone.
//! Invariant: what the peer has written is checked before it is used (`protocol`).

mod memory;
mod protocol;

use std::fmt;
use std::io::{ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use self::memory::Memory;
use self::protocol::{Corrupt, Reader, Step, Writer};
use crate::error::{Errno, Error, Result};
use crate::io::AsyncFd;
use crate::limits;
use crate::process::{Command, handover};
use crate::task;

/// A loop over messages that are all there lets other tasks in, after so many.
const LOOK_UP_EVERY: u32 = 64;

/// Makes a ring that holds `capacity_bytes` of messages and their lengths (8 bytes each, and each
/// message is rounded up to 8). Rounded up to a power of two, at least
/// [`limits::SHARED_RING_BYTES_MIN`].
///
/// Each part is opened in this process or handed over to a child.
///
/// ```no_run
/// use annulus::{ipc::ring, process::Command};
///
/// # async fn parent() -> annulus::Result<()> {
/// let (sender, receiver) = ring::create(1 << 20)?;
/// let mut command = Command::new("worker");
/// receiver.hand_over(&mut command, "JOBS")?;
/// let child = command.spawn()?;
/// let mut sender = sender.open()?;
/// sender.send(b"a job").await?;
/// # Ok(()) }
/// # async fn child() -> annulus::Result<()> {
/// // In the worker:
/// let mut receiver = ring::Receiver::open_inherited("JOBS")?;
/// while let Some(job) = receiver.recv().await? {
///     println!("{} bytes", job.len());
/// }
/// # Ok(()) }
/// ```
///
/// # Errors
/// `is_config` for a capacity of zero; `is_limit` above [`limits::SHARED_RING_BYTES_MAX`]; the
/// errors of memfd_create(2), of which ENOSPC and ENOMEM say that there is no memory for it.
pub fn create(capacity_bytes: usize) -> Result<(SenderPart, ReceiverPart)> {
    if capacity_bytes == 0 {
        return Err(Error::config("a shared ring of 0 bytes holds nothing; give it a capacity"));
    }
    if capacity_bytes > limits::SHARED_RING_BYTES_MAX {
        let max = limits::SHARED_RING_BYTES_MAX;
        return Err(Error::limit(format!(
            "a shared ring of {capacity_bytes} bytes: at most {max}"
        )));
    }
    let capacity = capacity_bytes.next_power_of_two().max(limits::SHARED_RING_BYTES_MIN);
    let failed = |error| Error::io("making a shared ring", Errno::from_io(&error));
    let memory = memory::create(capacity)?;
    let copy = memory.try_clone().map_err(failed)?;
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    Ok((
        SenderPart(Part { memory, socket: ours.into() }),
        ReceiverPart(Part { memory: copy, socket: theirs.into() }),
    ))
}

/// What a side consists of before it is opened.
struct Part {
    memory: OwnedFd,
    socket: OwnedFd,
}

impl Part {
    fn inherited(name: &str) -> Result<Self> {
        let mut descriptors = handover::inherited(name)?.into_iter();
        match (descriptors.next(), descriptors.next(), descriptors.next()) {
            (Some(memory), Some(socket), None) => Ok(Self { memory, socket }),
            _ => Err(Error::config(format!("what was handed over as {name} is no shared ring"))),
        }
    }

    fn hand_over(self, command: &mut Command, name: &str) -> Result<()> {
        command.hand_over(name, [self.memory, self.socket]).map(drop)
    }

    fn open(self) -> Result<Link> {
        let memory = Memory::open(&self.memory)?;
        let socket = UnixStream::from(self.socket);
        let failed = |error| Error::io("opening a shared ring", Errno::from_io(&error));
        // No other process has this end, so the flag is its own.
        socket.set_nonblocking(true).map_err(failed)?;
        Ok(Link { memory, socket: AsyncFd::new(socket), broken: None, calls: 0 })
    }
}

/// The names by which a side is handed over: so that neither is taken for the other.
fn sender_name(name: &str) -> String {
    format!("{name}_SENDER")
}

fn receiver_name(name: &str) -> String {
    format!("{name}_RECEIVER")
}

/// The sending side, to be opened here or handed over. May go to another shard.
pub struct SenderPart(Part);

impl SenderPart {
    /// Opens it in this process.
    ///
    /// # Errors
    /// The errors of mmap(2).
    pub fn open(self) -> Result<Sender> {
        Ok(Sender { link: self.0.open()?, writer: Writer::default() })
    }

    /// Hands it over to the child that `command` starts, which takes it by
    /// [`Sender::open_inherited`] under the same name. Environment variables are cleared before
    /// this, not after.
    ///
    /// # Errors
    /// As [`Command::hand_over`].
    pub fn hand_over(self, command: &mut Command, name: &str) -> Result<()> {
        self.0.hand_over(command, &sender_name(name))
    }
}

/// The receiving side, to be opened here or handed over. May go to another shard.
pub struct ReceiverPart(Part);

impl ReceiverPart {
    /// Opens it in this process.
    ///
    /// # Errors
    /// The errors of mmap(2).
    pub fn open(self) -> Result<Receiver> {
        Ok(Receiver { link: self.0.open()?, reader: Reader::default() })
    }

    /// Hands it over to the child that `command` starts, which takes it by
    /// [`Receiver::open_inherited`] under the same name. Environment variables are cleared before
    /// this, not after.
    ///
    /// # Errors
    /// As [`Command::hand_over`].
    pub fn hand_over(self, command: &mut Command, name: &str) -> Result<()> {
        self.0.hand_over(command, &receiver_name(name))
    }
}

/// What an opened side has of the other.
struct Link {
    memory: Memory,
    socket: AsyncFd<UnixStream>,
    /// Why the ring is of no use any more.
    broken: Option<Error>,
    calls: u32,
}

impl Link {
    fn check(&self) -> Result<()> {
        self.broken.clone().map_or(Ok(()), Err)
    }

    fn fail(&mut self, error: Error) -> Error {
        self.broken = Some(error.clone());
        error
    }

    fn corrupt(&mut self, _: Corrupt) -> Error {
        let what = "reading a shared ring that its peer has corrupted";
        self.fail(Error::io(what, Errno(libc::EPROTO)))
    }

    fn gone(&mut self) -> Error {
        self.fail(Error::io("using a shared ring: the peer is gone", Errno(libc::EPIPE)))
    }

    /// Wakes the peer, which sleeps. False if it is gone.
    fn wake(&self) -> bool {
        let socket = socket2::SockRef::from(self.socket.get_ref());
        match socket.send_with_flags(&[1], libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT) {
            Ok(_) => true,
            // Full: it has been woken often enough.
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        }
    }

    /// Sleeps until the peer wakes this side. False if the peer is gone.
    async fn sleep(&mut self) -> Result<bool> {
        self.socket.readable().await?;
        let mut wakes = [0; 64];
        match self.socket.get_ref().read(&mut wakes) {
            Ok(0) => Ok(false),
            Ok(_) => Ok(true),
            Err(error) => {
                Ok(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted))
            }
        }
    }

    async fn look_up(&mut self) {
        self.calls = self.calls.wrapping_add(1);
        if self.calls.is_multiple_of(LOOK_UP_EVERY) {
            task::yield_if_needed().await;
        }
    }
}

/// The sending side. Dropped, it ends the ring in order: the receiver takes what is left, and then
/// sees the end.
pub struct Sender {
    link: Link,
    writer: Writer,
}

impl Sender {
    /// Opens what the parent has handed over under `name`.
    ///
    /// # Errors
    /// `is_config` if nothing was, or it was opened before, or it is no ring; the errors of
    /// mmap(2).
    pub fn open_inherited(name: &str) -> Result<Self> {
        SenderPart(Part::inherited(&sender_name(name))?).open()
    }

    /// The most bytes that a message may have.
    pub fn message_bytes_max(&self) -> usize {
        protocol::message_bytes_max(self.link.memory.words().len())
    }

    /// Sends a message, which may be empty. Waits while the ring has no room for it.
    ///
    /// Cancel-safe: a message is written as a whole when this ends well, and not at all otherwise.
    ///
    /// # Errors
    /// `is_limit` above [`Sender::message_bytes_max`]; `is_disconnected` (`peer is gone`) once the
    /// receiver was dropped or its process has ended, which is noticed at the latest when the ring
    /// is full: a message that was sent may have been read by nobody. EPROTO if the peer has
    /// written what no ring holds.
    pub async fn send(&mut self, message: &[u8]) -> Result<()> {
        loop {
            self.link.look_up().await;
            if self.try_send(message)? {
                return Ok(());
            }
            self.link.memory.header().sender().announce(protocol::words_of(message.len()));
            let is_sent = self.try_send(message)?;
            let is_awake = is_sent || self.link.sleep().await?;
            self.link.memory.header().sender().awake();
            match (is_sent, is_awake) {
                (true, _) => return Ok(()),
                (false, true) => {}
                (false, false) => return Err(self.link.gone()),
            }
        }
    }

    /// Sends a message if there is room for it now.
    ///
    /// # Errors
    /// As [`Sender::send`].
    pub fn try_send(&mut self, message: &[u8]) -> Result<bool> {
        self.link.check()?;
        let max = self.message_bytes_max();
        if message.len() > max {
            let length = message.len();
            return Err(Error::limit(format!("a message of {length} bytes: at most {max}")));
        }
        let memory = &self.link.memory;
        if memory.header().receiver().is_closed() {
            return Err(self.link.gone());
        }
        match self.writer.write(memory.header(), memory.words(), message) {
            Ok(Step::Stuck) => Ok(false),
            Ok(Step::Done { wake }) if !wake || self.link.wake() => Ok(true),
            Ok(Step::Done { .. }) => Err(self.link.gone()),
            Err(corrupt) => Err(self.link.corrupt(corrupt)),
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.link.memory.header().sender().close();
        // The socket closes with the link, which wakes the receiver.
    }
}

/// The receiving side. Dropped, the sender is told that its peer is gone.
pub struct Receiver {
    link: Link,
    reader: Reader,
}

impl Receiver {
    /// Opens what the parent has handed over under `name`.
    ///
    /// # Errors
    /// `is_config` if nothing was, or it was opened before, or it is no ring; the errors of
    /// mmap(2).
    pub fn open_inherited(name: &str) -> Result<Self> {
        ReceiverPart(Part::inherited(&receiver_name(name))?).open()
    }

    /// The next message; `None` once the sender was dropped and all was taken.
    ///
    /// Cancel-safe: a message that is not taken stays for the next call.
    ///
    /// # Errors
    /// `is_disconnected` (`peer is gone`) if the sender's process has ended without dropping it,
    /// once all was taken that it had sent. EPROTO if it has written what no ring holds: then
    /// nothing more is taken.
    pub async fn recv(&mut self) -> Result<Option<Vec<u8>>> {
        let mut message = Vec::new();
        Ok(self.recv_into(&mut message).await?.then_some(message))
    }

    /// Appends the next message to a vector of the caller's, which may be used again: false at the
    /// end.
    ///
    /// Cancel-safe, as [`Receiver::recv`].
    ///
    /// # Errors
    /// As [`Receiver::recv`].
    pub async fn recv_into(&mut self, into: &mut Vec<u8>) -> Result<bool> {
        loop {
            self.link.look_up().await;
            if self.try_recv_into(into)? {
                return Ok(true);
            }
            self.link.memory.header().receiver().announce(1);
            let is_taken = self.try_recv_into(into)?;
            let is_awake = is_taken || self.link.sleep().await?;
            self.link.memory.header().receiver().awake();
            if is_taken {
                return Ok(true);
            }
            if !is_awake {
                return self.last(into);
            }
        }
    }

    /// The peer is gone: what it had sent before is still there.
    fn last(&mut self, into: &mut Vec<u8>) -> Result<bool> {
        let is_closed = self.link.memory.header().sender().is_closed();
        match self.try_recv_into(into)? {
            true => Ok(true),
            false if is_closed => Ok(false),
            false => Err(self.link.gone()),
        }
    }

    /// Appends the next message if one is there.
    ///
    /// # Errors
    /// As [`Receiver::recv`].
    pub fn try_recv_into(&mut self, into: &mut Vec<u8>) -> Result<bool> {
        self.link.check()?;
        let memory = &self.link.memory;
        match self.reader.read(memory.header(), memory.words(), into) {
            Ok(Step::Stuck) => Ok(false),
            Ok(Step::Done { wake }) => {
                if wake {
                    // A sender that is gone needs no wake; that is noticed when all is taken.
                    let _ = self.link.wake();
                }
                Ok(true)
            }
            Err(corrupt) => Err(self.link.corrupt(corrupt)),
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.link.memory.header().receiver().close();
        // The socket closes with the link, which wakes the sender.
    }
}

/// Defines `Debug` by name: there is nothing to show.
macro_rules! named {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(concat!("ring::", stringify!($name))).finish_non_exhaustive()
            }
        }
    )*};
}
named!(SenderPart, ReceiverPart, Sender, Receiver);
