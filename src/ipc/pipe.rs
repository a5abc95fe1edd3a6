//! Pipes: a stream of bytes in one direction, between tasks or processes (pipe(7)).
//!
//! Also what a child's standard streams are (`process`). Invariant: bytes that a read has taken
//! out of the pipe wait in the [`Receiver`] until they are taken, whoever gave up meanwhile.

use std::fmt;
use std::fs::OpenOptions;
use std::future::poll_fn;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll, ready};

use super::manner::Manner;
use crate::buffer::{Payload, ReadBuffer};
use crate::driver;
use crate::error::{Errno, Error, Result};
use crate::limits;
use crate::op::{Interest, Op, Outcome};
use crate::shard::completion::{Completion, Home};
use crate::shard::context;

/// A pipe: what is written to the sender comes out of the receiver, in order.
///
/// ```
/// use annulus::{Runtime, ipc};
///
/// Runtime::new()?.block_on(async {
///     let (mut sender, mut receiver) = ipc::pipe()?;
///     sender.write_all(b"hello").await?;
///     sender.close().await?;
///     assert_eq!(receiver.recv().await?.as_deref(), Some(&b"hello"[..]));
///     assert_eq!(receiver.recv().await?, None);
///     annulus::Result::Ok(())
/// })?;
/// # annulus::Result::Ok(())
/// ```
///
/// # Errors
/// The errors of pipe2(2): too many open descriptors.
///
/// # Panics
/// Outside a runtime.
pub fn pipe() -> Result<(Sender, Receiver)> {
    let made = std::io::pipe();
    let (reader, writer) =
        made.map_err(|error| Error::io("making a pipe", Errno::from_io(&error)))?;
    Ok((Sender::new(writer.into()), Receiver::new(reader.into())))
}

/// One end, closed behind its operations.
struct End {
    /// `None` once closed or handed over.
    descriptor: Option<OwnedFd>,
    /// How it was, for what others share and the driver changes.
    manner: Option<Manner>,
    home: Home,
}

impl End {
    fn new(descriptor: OwnedFd) -> Self {
        Self { descriptor: Some(descriptor), manner: None, home: Home::here() }
    }

    /// An end that others share; refuses what has positions: a pipe's operations have none.
    fn taken(descriptor: OwnedFd) -> Result<Self> {
        let failed = |error| Error::io("looking at a descriptor", Errno::from_io(&error));
        let copy = descriptor.try_clone().map_err(failed)?;
        let metadata = std::fs::File::from(copy).metadata().map_err(failed)?;
        let kind = metadata.file_type();
        if !(kind.is_fifo() || kind.is_socket() || kind.is_char_device()) {
            let what = "not a pipe, a socket or a terminal; for a file use annulus::fs";
            return Err(Error::config(what));
        }
        let is_changed = context::with(|shard| shard.driver.borrow().unblocks_pipes());
        let place = (metadata.dev(), metadata.ino());
        let manner = is_changed.then(|| Manner::note(&descriptor, place)).transpose()?;
        Ok(Self { descriptor: Some(descriptor), manner, home: Home::here() })
    }

    fn raw(&self) -> RawFd {
        self.descriptor.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }

    /// The descriptor, to be closed, as it was before it came here.
    fn take(&mut self) -> Option<OwnedFd> {
        let descriptor = self.descriptor.take()?;
        if let Some(manner) = self.manner.take() {
            manner.give_back(&descriptor);
        }
        Some(descriptor)
    }

    /// Closes in the background.
    fn detach(&mut self) {
        if let Some(descriptor) = self.take() {
            self.home.detach(Op::Close { descriptor });
        }
    }

    async fn close(mut self) -> Result<()> {
        let Some(descriptor) = self.take() else { return Ok(()) };
        let outcome = Completion::new(Op::Close { descriptor }).await;
        outcome.result.map(drop).map_err(|errno| Error::io("closing a pipe", errno))
    }

    /// The descriptor, blocking, for another process.
    fn into_owned_fd(mut self) -> Result<OwnedFd> {
        let failed = |errno| Error::io("handing a pipe over", errno);
        self.home.release(self.raw());
        driver::set_blocking(self.raw()).map_err(failed)?;
        self.descriptor.take().ok_or_else(|| failed(Errno(libc::EBADF)))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.detach();
    }
}

fn open_fifo(path: &Path, options: &mut OpenOptions) -> Result<OwnedFd> {
    let opened = options.custom_flags(libc::O_NONBLOCK).open(path);
    let file = opened.map_err(|error| match Errno::from_io(&error) {
        Errno(libc::ENXIO) => {
            let path = path.display();
            Error::io(format!("opening {path}: nobody has it open to read"), Errno(libc::ENXIO))
        }
        errno => Error::io(format!("opening {}", path.display()), errno),
    })?;
    let kind = file.metadata().map(|metadata| metadata.file_type());
    if kind.is_ok_and(|kind| kind.is_fifo()) {
        return Ok(file.into());
    }
    Err(Error::config(format!("{} is no fifo; make one with mkfifo(3)", path.display())))
}

/// The end that is written to. Dropping it closes it in the background.
///
/// Also an [`AsyncWrite`](crate::io::AsyncWrite): its writes copy up to
/// [`limits::WRITE_BEHIND_BYTES_MAX`] and return at once, so flush or close it before it is
/// dropped.
pub struct Sender {
    /// What a polled write has copied. Dropped before the end is closed.
    behind: Option<Box<Completion>>,
    /// Why a write behind has failed: bytes are missing after that.
    failed: Option<Errno>,
    end: End,
}

impl Sender {
    pub(crate) fn new(descriptor: OwnedFd) -> Self {
        Self::of(End::new(descriptor))
    }

    fn of(end: End) -> Self {
        Self { behind: None, failed: None, end }
    }

    /// Takes a pipe's writing end, a socket or a terminal from elsewhere. Under the `epoll` and
    /// `threads` engines, and under `uring` before Linux 6.18, it becomes non-blocking for everyone
    /// who shares it, until it is closed here (the last, of several such ends of one open file) or
    /// handed over.
    ///
    /// # Errors
    /// `is_config` for anything else: files have an interface of their own.
    ///
    /// # Panics
    /// Outside a runtime.
    pub fn from_owned_fd(descriptor: OwnedFd) -> Result<Self> {
        End::taken(descriptor).map(Self::of)
    }

    /// Opens a fifo to write to it. Somebody must have it open to read.
    ///
    /// # Errors
    /// ENXIO if nobody reads; `is_config` if it is no fifo; the errors of open(2).
    ///
    /// # Panics
    /// Outside a runtime.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        open_fifo(path.as_ref(), OpenOptions::new().write(true)).map(Self::new)
    }

    /// Writes all of the payload, and gives it back. Waits while the pipe is full.
    ///
    /// Not cancel-safe: once given up, any prefix may have been written. Up to PIPE_BUF (4096)
    /// bytes are written as one, among several writers (pipe(7)).
    ///
    /// # Errors
    /// `is_disconnected` (EPIPE) once nobody reads; no signal is raised.
    pub async fn write_all(&mut self, payload: impl Into<Payload>) -> Result<Payload> {
        let payload = payload.into();
        poll_fn(|context| self.poll_flush(context)).await?;
        if payload.is_empty() {
            return Ok(payload);
        }
        let Outcome { result, op } = self.write(payload).await;
        match (result, op) {
            (Ok(_), Op::Write { payload, .. }) => Ok(payload),
            (Err(errno), _) => Err(Error::io("writing to a pipe", errno)),
            (Ok(_), _) => unreachable!("an outcome gives its own operation back"),
        }
    }

    fn write(&self, payload: Payload) -> Completion {
        let pipe = self.end.raw();
        Completion::new(Op::Write { pipe, payload, written: 0, waits: false })
    }

    /// Copies what there is room for, once the copy before has been written.
    pub(super) fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        ready!(self.poll_flush(context))?;
        let bytes = &bytes[..bytes.len().min(limits::WRITE_BEHIND_BYTES_MAX)];
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.behind = Some(Box::new(self.write(bytes.to_vec().into())));
        match self.poll_flush(context) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(bytes.len())),
        }
    }

    pub(super) fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        if let Some(completion) = &mut self.behind {
            let outcome = ready!(Pin::new(&mut **completion).poll(context));
            self.behind = None;
            self.failed = outcome.result.err();
        }
        Poll::Ready(match self.failed {
            Some(errno) => Err(Error::io("writing to a pipe", errno)),
            None => Ok(()),
        })
    }

    pub(super) fn poll_close(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        let flushed = ready!(self.poll_flush(context));
        self.end.detach();
        Poll::Ready(flushed)
    }

    /// Closes the end and waits for that: the reader then comes to the end. Given up, it is closed
    /// in the background.
    ///
    /// # Errors
    /// The errors of close(2); of an earlier polled write.
    pub async fn close(mut self) -> Result<()> {
        poll_fn(|context| self.poll_flush(context)).await?;
        self.end.close().await
    }

    /// The descriptor, blocking, for another process or library.
    ///
    /// # Errors
    /// `is_config` while polled writes are under way; the errors of fcntl(2).
    pub fn into_owned_fd(self) -> Result<OwnedFd> {
        if self.behind.is_some() {
            return Err(Error::config("a pipe is handed over before its writes are flushed"));
        }
        self.end.into_owned_fd()
    }

    /// The end as a child's standard output or error.
    ///
    /// # Errors
    /// As [`Sender::into_owned_fd`].
    pub fn into_stdio(self) -> Result<Stdio> {
        self.into_owned_fd().map(Stdio::from)
    }
}

impl AsFd for Sender {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.end.descriptor.as_ref().expect("the end is there until the drop").as_fd()
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pipe::Sender({})", self.end.raw())
    }
}

/// A read under way, and how much of its buffer was filled before.
struct Reading {
    completion: Completion,
    skip: usize,
}

/// The end that is read from. Dropping it closes it in the background.
///
/// Also an [`AsyncBufRead`](crate::io::AsyncBufRead), and so an
/// [`AsyncRead`](crate::io::AsyncRead): the bytes as they came are its buffer.
pub struct Receiver {
    /// Dropped before the end is closed.
    reading: Option<Reading>,
    end: End,
    is_over: bool,
    /// What the readers of futures-io have not consumed: from `consumed` on.
    rest: Vec<u8>,
    consumed: usize,
}

impl Receiver {
    pub(crate) fn new(descriptor: OwnedFd) -> Self {
        Self::of(End::new(descriptor))
    }

    fn of(end: End) -> Self {
        Self { reading: None, end, is_over: false, rest: Vec::new(), consumed: 0 }
    }

    /// Takes a pipe's reading end, a socket or a terminal from elsewhere. Under the `epoll` and
    /// `threads` engines, and under `uring` before Linux 6.18, it becomes non-blocking for everyone
    /// who shares it, until it is closed here (the last, of several such ends of one open file) or
    /// handed over.
    ///
    /// # Errors
    /// `is_config` for anything else: files have an interface of their own.
    ///
    /// # Panics
    /// Outside a runtime.
    pub fn from_owned_fd(descriptor: OwnedFd) -> Result<Self> {
        End::taken(descriptor).map(Self::of)
    }

    /// Opens a fifo to read from it, and waits until somebody has written.
    ///
    /// Given up, it closes the fifo again: what somebody had written by then, and not kept open, is
    /// lost, as with every fifo that nobody reads any more (fifo(7)).
    ///
    /// # Errors
    /// `is_config` if it is no fifo; the errors of open(2).
    ///
    /// # Panics
    /// Outside a runtime.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self> {
        let descriptor = open_fifo(path.as_ref(), OpenOptions::new().read(true))?;
        // Before the first writer a read would report the end.
        let number = descriptor.as_raw_fd();
        let op = Op::Ready { descriptor: number, interest: Interest::Readable, held: None };
        let verb = || format!("waiting for a writer of {}", path.as_ref().display());
        Completion::new(op).await.result.map_err(|errno| Error::io(verb(), errno))?;
        Ok(Self::new(descriptor))
    }

    /// The next bytes, never none, at most [`limits::PIPE_CHUNK_BYTES_MAX`]; `None` at the end,
    /// once every sender is closed.
    ///
    /// Cancel-safe: bytes that a given-up call had taken out of the pipe come with the next one.
    ///
    /// # Errors
    /// The errors of read(2).
    pub async fn recv(&mut self) -> Result<Option<Vec<u8>>> {
        poll_fn(|context| self.poll_recv(context)).await
    }

    /// As [`Receiver::recv`], appended to a buffer of the caller's, within its spare capacity (one
    /// without any gets some). Nothing is appended at the end.
    ///
    /// Given up, the buffer is lost with what it held, but no byte of the pipe: those come with the
    /// next call.
    ///
    /// # Errors
    /// As [`Receiver::recv`].
    pub async fn recv_into(&mut self, mut buffer: Vec<u8>) -> Result<Vec<u8>> {
        if self.is_over && self.rest.is_empty() {
            return Ok(buffer);
        }
        if self.reading.is_some() || !self.rest.is_empty() {
            // What a call that was given up has asked for comes first.
            if let Some(bytes) = self.recv().await? {
                buffer.extend_from_slice(&bytes);
            }
            return Ok(buffer);
        }
        if buffer.capacity() == buffer.len() {
            buffer.reserve(limits::PIPE_CHUNK_BYTES_MAX);
        }
        self.begin(buffer);
        poll_fn(|context| self.poll_reading(context)).await.map(|(buffer, _)| buffer)
    }

    /// All that comes until the end. Given up, what had come is lost.
    ///
    /// # Errors
    /// `is_limit` if it is more than `bytes_max`; as [`Receiver::recv`].
    pub async fn recv_all(&mut self, bytes_max: usize) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(bytes) = self.recv().await? {
            if bytes.len() > bytes_max - all.len() {
                return Err(Error::limit(format!("more than {bytes_max} bytes came")));
            }
            if all.is_empty() {
                all = bytes;
            } else {
                all.extend_from_slice(&bytes);
            }
        }
        Ok(all)
    }

    fn begin(&mut self, buffer: Vec<u8>) {
        let skip = buffer.len();
        let pipe = self.end.raw();
        let op = Op::Read { pipe, buffer: ReadBuffer::Vec(buffer), waits: false };
        self.reading = Some(Reading { completion: Completion::new(op), skip });
    }

    fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Vec<u8>>>> {
        if !self.rest.is_empty() {
            let rest = mem::take(&mut self.rest).split_off(mem::take(&mut self.consumed));
            return Poll::Ready(Ok(Some(rest)));
        }
        if self.is_over {
            return Poll::Ready(Ok(None));
        }
        if self.reading.is_none() {
            self.begin(Vec::with_capacity(limits::PIPE_CHUNK_BYTES_MAX));
        }
        let (mut bytes, skip) = ready!(self.poll_reading(context))?;
        bytes.drain(..skip);
        if bytes.len() < bytes.capacity() / 4 {
            bytes.shrink_to_fit();
        }
        Poll::Ready(Ok(Some(bytes).filter(|bytes| !bytes.is_empty())))
    }

    fn poll_reading(&mut self, context: &mut Context<'_>) -> Poll<Result<(Vec<u8>, usize)>> {
        let reading = self.reading.as_mut().expect("a read was begun");
        let outcome = ready!(Pin::new(&mut reading.completion).poll(context));
        let skip = mem::take(&mut self.reading).map_or(0, |reading| reading.skip);
        Poll::Ready(match (outcome.result, outcome.op) {
            (Ok(_), Op::Read { buffer, .. }) => {
                self.is_over = buffer.len() == skip;
                Ok((buffer.into_vec(), skip))
            }
            (Err(errno), _) => Err(Error::io("reading from a pipe", errno)),
            (Ok(_), _) => unreachable!("an outcome gives its own operation back"),
        })
    }

    /// What is there, as it came; empty at the end.
    pub(super) fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<Result<&[u8]>> {
        if self.rest.is_empty() {
            self.rest = ready!(self.poll_recv(context))?.unwrap_or_default();
        }
        Poll::Ready(Ok(&self.rest[self.consumed..]))
    }

    pub(super) fn consume(&mut self, count: usize) {
        self.consumed += count;
        assert!(self.consumed <= self.rest.len(), "no more is consumed than was there");
        if self.consumed == self.rest.len() {
            self.rest = Vec::new();
            self.consumed = 0;
        }
    }

    /// The descriptor, blocking, for another process or library.
    ///
    /// # Errors
    /// `is_config` while bytes that were taken are here, or a receive that was given up is under
    /// way and may take some.
    /// The errors of fcntl(2).
    pub fn into_owned_fd(self) -> Result<OwnedFd> {
        if self.reading.is_some() || !self.rest.is_empty() {
            return Err(Error::config(
                "a pipe is handed over while bytes of it are here, or a receive that was given up \
                 is under way; hand it over before it is used",
            ));
        }
        self.end.into_owned_fd()
    }

    /// The end as a child's standard input.
    ///
    /// # Errors
    /// As [`Receiver::into_owned_fd`].
    pub fn into_stdio(self) -> Result<Stdio> {
        self.into_owned_fd().map(Stdio::from)
    }
}

impl AsFd for Receiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.end.descriptor.as_ref().expect("the end is there until the drop").as_fd()
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pipe::Receiver({})", self.end.raw())
    }
}
