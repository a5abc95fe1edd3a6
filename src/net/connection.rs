//! What both kinds of stream are: the socket, what has arrived, what is on its way out.
//!
//! Receives are one multishot operation, opened by the first. Polled writes copy what they are
//! given and send it behind the caller's back, one operation at a time, so that one given up has
//! taken bytes or has not. Invariant: the rest of a chunk is older than all that the receive has.

use std::cell::{Cell, OnceCell, RefCell};
use std::future::{Future, poll_fn};
use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use socket2::{SockAddr, SockRef, Socket};

use super::datagram::Turn;
use super::sending::{Performing, Sending};
use super::stream::TcpStream;
use crate::buffer::{Lease, Payload, ReadBuffer};
use crate::error::{Errno, Error, Result};
use crate::limits;
use crate::metrics::{self, Counter};
use crate::op::{self, Direction, Event, Message, Op};
use crate::shard::completion::{Completion, Home, Stream};
use crate::shard::connections::{ConnectionHandle, Entry, Kind};
use crate::shard::context;

/// What both kinds of stream are.
pub(super) struct Connection {
    /// The receiving side, opened by the first receive. Dropped before the socket is closed.
    receiver: RefCell<Option<Stream>>,
    /// Whether a receive into a buffer is under way.
    is_receiving: Cell<bool>,
    polled: OnceCell<Box<Polled>>,
    entry: Option<Entry>,
    /// `None` only while being dropped.
    socket: Option<OwnedFd>,
    home: Home,
}

/// What polled reads and writes leave behind. Apart, as most streams never have any of it and an
/// idle connection is to be small.
#[derive(Default)]
struct Polled {
    /// What a polled read has left of a chunk.
    rest: RefCell<Option<Lease>>,
    /// A polled write that is under way. Dropped before the socket is closed.
    sending: RefCell<Option<Completion>>,
    /// How the last polled write failed, for the next to report.
    send_error: Cell<Option<Errno>>,
}

/// A connected socket on its way to another thread.
pub(crate) struct Unbound(pub(super) OwnedFd);

impl Unbound {
    /// Binds the socket to the calling thread's shard.
    pub(crate) fn bind(self) -> TcpStream {
        TcpStream { connection: Connection::new(self.0) }
    }
}

impl Connection {
    pub(super) fn new(socket: OwnedFd) -> Self {
        let entry = context::with(|shard| {
            shard.shared.connections(shard.id()).enter(socket.as_raw_fd(), Kind::Stream)
        });
        Self {
            receiver: RefCell::new(None),
            is_receiving: Cell::new(false),
            polled: OnceCell::new(),
            entry: Some(entry),
            socket: Some(socket),
            home: Home::here(),
        }
    }

    fn polled(&self) -> &Polled {
        self.polled.get_or_init(Box::default)
    }

    pub(super) fn raw(&self) -> RawFd {
        self.socket.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }

    /// The descriptor, for an operation: on the shard whose driver knows it.
    pub(super) fn number(&self) -> RawFd {
        self.home.assert_here();
        self.raw()
    }

    /// Failed or given up, the socket is closed as every other: behind its operations, and with
    /// the driver's knowledge, so that its number can be of use again.
    pub(super) async fn connect(socket: Socket, address: SockAddr) -> Result<Self> {
        let name = op::describe(&address);
        let this = Self::new(socket.into());
        let connect = Op::Connect { socket: this.raw(), address: Box::new(address) };
        let outcome = Completion::new(connect).await;
        outcome.result.map_err(|errno| Error::io(format!("connecting to {name}"), errno))?;
        Ok(this)
    }

    /// The rest of a chunk that polled reads have begun, or the next chunk.
    pub(super) fn poll_receive(&self, context: &mut Context<'_>) -> Poll<Result<Option<Lease>>> {
        if let Some(rest) = self.polled.get().and_then(|polled| polled.rest.take()) {
            return Poll::Ready(Ok(Some(rest)));
        }
        let mut receiver = self.receiver.borrow_mut();
        let receiver = match &mut *receiver {
            Some(receiver) => receiver,
            _ if self.is_receiving.get() => return Poll::Ready(Err(Turn::is_taken())),
            none => match Stream::open(Op::Receive { socket: self.number() }) {
                Ok(stream) => none.insert(stream),
                Err(errno) => return Poll::Ready(Err(Error::io("receiving", errno))),
            },
        };
        receiver.poll_next(context).map(|event| match event {
            Event::Chunk(lease) => Ok(Some(lease)),
            Event::End => Ok(None),
            Event::Failed(errno) => Err(Error::io("receiving", errno)),
            Event::Accepted(_) | Event::Datagram(_) => unreachable!("a receive yields bytes"),
        })
    }

    pub(super) async fn receive(&self) -> Result<Option<Lease>> {
        poll_fn(|context| self.poll_receive(context)).await
    }

    pub(super) async fn receive_into(&self, buffer: ReadBuffer) -> Result<ReadBuffer> {
        if self.receiver.borrow().is_some() {
            return Err(Error::config(
                "recv_into on a stream that has used recv: what has arrived already waits there; \
                 use one of the two",
            ));
        }
        let _turn = Turn::take(&self.is_receiving)?;
        let outcome = Completion::new(Op::ReceiveOnce { socket: self.number(), buffer }).await;
        match (outcome.result, outcome.op) {
            (Ok(_), Op::ReceiveOnce { buffer, .. }) => Ok(buffer),
            (Err(errno), _) => Err(Error::io("receiving", errno)),
            (Ok(_), _) => unreachable!("an outcome gives its own operation back"),
        }
    }

    /// Copies the rest of a chunk, or of the next, as far as there is room.
    pub(super) fn poll_read(
        &self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<Result<usize>> {
        if buffer.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let Some(mut chunk) = ready!(self.poll_receive(context))? else {
            return Poll::Ready(Ok(0));
        };
        let count = chunk.len().min(buffer.len());
        buffer[..count].copy_from_slice(&chunk[..count]);
        if count < chunk.len() {
            chunk.advance(count);
            self.put_back(chunk);
        }
        Poll::Ready(Ok(count))
    }

    /// The rest of a chunk, or the next; nothing at the end of the stream.
    pub(super) fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<Result<&[u8]>> {
        if self.polled().rest.borrow().is_none() {
            let chunk = ready!(self.poll_receive(context))?;
            self.polled().rest.replace(chunk);
        }
        let rest = self.polled.get_mut().and_then(|polled| polled.rest.get_mut().as_deref());
        Poll::Ready(Ok(rest.unwrap_or_default()))
    }

    /// Drops the first `count` bytes of what [`Connection::poll_fill`] gave.
    pub(super) fn consume(&mut self, count: usize) {
        if let Some(polled) = self.polled.get_mut() {
            consume(polled.rest.get_mut(), count);
        }
    }

    /// Makes `rest` what is received next.
    pub(super) fn put_back(&self, rest: Lease) {
        let before = self.polled().rest.replace(Some(rest));
        assert!(before.is_none(), "a chunk is taken before its rest is put back");
    }

    /// Copies bytes and sends them behind the caller's back, once what was written before is out.
    pub(super) fn poll_write(
        &self,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        ready!(self.poll_flush(context))?;
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        let mut left = total.min(limits::WRITE_BEHIND_BYTES_MAX);
        if left == 0 {
            return Poll::Ready(Ok(0));
        }
        let mut bytes = Vec::with_capacity(left);
        for slice in slices {
            let part = &slice[..slice.len().min(left)];
            bytes.extend_from_slice(part);
            left -= part.len();
        }
        let count = bytes.len();
        let send = Op::Send { socket: self.number(), payload: bytes.into(), sent: 0 };
        self.polled().sending.replace(Some(Completion::new(send)));
        match self.poll_flush(context) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(count)),
        }
    }

    /// Waits until what polled writes have copied is with the kernel. Once one has failed, so does
    /// everything after it: bytes are missing.
    pub(super) fn poll_flush(&self, context: &mut Context<'_>) -> Poll<Result<()>> {
        let Some(polled) = self.polled.get() else { return Poll::Ready(Ok(())) };
        let mut sending = polled.sending.borrow_mut();
        if let Some(completion) = &mut *sending {
            let outcome = ready!(Pin::new(completion).poll(context));
            *sending = None;
            polled.send_error.set(outcome.result.err());
        }
        Poll::Ready(match polled.send_error.get() {
            Some(errno) => Err(Error::io("sending", errno)),
            None => Ok(()),
        })
    }

    /// Ends the sending direction once all is sent.
    pub(super) fn poll_close(&self, context: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.poll_flush(context))?;
        self.handle().shutdown(Direction::Write);
        Poll::Ready(Ok(()))
    }

    /// Performs an operation behind what polled writes have copied.
    pub(super) fn perform(&self, op: Op) -> Performing<'_> {
        Performing { connection: self, completion: Completion::new(op) }
    }

    /// Takes the socket off this shard, blocking as `std` makes them. It must be at rest.
    pub(super) fn release(mut self) -> Result<OwnedFd> {
        let is_sending = |polled: &Box<Polled>| polled.sending.borrow().is_some();
        let is_at_rest =
            self.receiver.borrow().is_none() && !self.polled.get().is_some_and(is_sending);
        if !is_at_rest {
            return Err(Error::config(
                "only a stream that has not received and has sent all can leave its shard: what \
                 has arrived waits there; release it before the first receive, after a flush",
            ));
        }
        self.entry = None;
        let socket = self.socket.take().expect("the socket is there until the drop");
        self.home.release(socket.as_raw_fd());
        super::make_blocking(&socket)?;
        Ok(socket)
    }

    pub(super) fn send(&self, payload: Payload) -> Sending<'_> {
        Sending(self.perform(Op::Send { socket: self.raw(), payload, sent: 0 }))
    }

    pub(super) async fn send_vectored(&self, payloads: Vec<Payload>) -> Result<Vec<Payload>> {
        if payloads.len() > limits::SEND_VECTORS_COUNT_MAX {
            let (count, max) = (payloads.len(), limits::SEND_VECTORS_COUNT_MAX);
            return Err(Error::limit(format!("{count} payloads in one send: at most {max}")));
        }
        if payloads.iter().all(|payload| payload.is_empty()) {
            return Ok(payloads);
        }
        let message = Box::new(Message::new(payloads));
        let send = Op::SendVectored { socket: self.raw(), message };
        let outcome = self.perform(send).await?;
        match (outcome.result, outcome.op) {
            (Ok(_), Op::SendVectored { message, .. }) => Ok(message.into_payloads()),
            (Err(errno), _) => Err(Error::io("sending", errno)),
            (Ok(_), _) => unreachable!("an outcome gives its own operation back"),
        }
    }

    pub(super) async fn shutdown(&self, how: Direction) -> Result<()> {
        let shutdown = Op::Shutdown { socket: self.raw(), how };
        let outcome = match how {
            Direction::Read => Completion::new(shutdown).await,
            Direction::Write | Direction::Both => self.perform(shutdown).await?,
        };
        outcome.result.map(drop).map_err(|errno| Error::io("shutting down a socket", errno))
    }

    pub(super) fn descriptor(&self) -> &OwnedFd {
        self.socket.as_ref().expect("the socket is there until the drop")
    }

    pub(super) fn socket(&self) -> SockRef<'_> {
        SockRef::from(self.descriptor())
    }

    pub(super) fn handle(&self) -> ConnectionHandle {
        self.entry.as_ref().expect("the entry is there until the drop").handle()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // In this order: receive and send are cancelled, others can no longer reach the number, and
        // the number is given up last.
        drop(self.receiver.take());
        drop(self.polled.take());
        drop(self.entry.take());
        if let Some(descriptor) = self.socket.take() {
            metrics::add(Counter::ConnectionsClosed, 1);
            self.home.detach(Op::Close { descriptor });
        }
    }
}

/// Drops the first `count` bytes of what is left of a chunk, and the chunk with its last.
pub(super) fn consume(rest: &mut Option<Lease>, count: usize) {
    match rest {
        Some(chunk) if count < chunk.len() => chunk.advance(count),
        Some(chunk) => {
            assert!(count == chunk.len(), "no more is consumed than was filled");
            *rest = None;
        }
        None => assert!(count == 0, "no more is consumed than was filled"),
    }
}
