//! A connection: receive, send, half close.

use std::cell::RefCell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
use std::task::{Context, Poll};

use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use crate::buffer::{Lease, Payload, ReadBuffer};
use crate::error::{Errno, Error, Result};
use crate::limits;
use crate::metrics::{self, Counter};
use crate::op::{self, Direction, Event, Message, Op, SocketOptions};
use crate::shard::completion::{Completion, Home, Stream};
use crate::shard::connections::{ConnectionHandle, Entry, Kind};
use crate::shard::context;

/// What both kinds of stream are.
struct Connection {
    /// The receiving side, opened by the first receive. Dropped before the socket is closed.
    receiver: RefCell<Option<Stream>>,
    entry: Option<Entry>,
    /// `None` only while being dropped.
    socket: Option<OwnedFd>,
    home: Home,
}

/// A connected socket on its way to another thread.
pub(crate) struct Unbound(OwnedFd);

impl Unbound {
    /// Binds the socket to the calling thread's shard.
    pub(crate) fn bind(self) -> TcpStream {
        TcpStream { connection: Connection::new(self.0) }
    }
}

impl Connection {
    fn new(socket: OwnedFd) -> Self {
        let entry = context::with(|shard| {
            shard.shared.connections(shard.id()).enter(socket.as_raw_fd(), Kind::Stream)
        });
        Self {
            receiver: RefCell::new(None),
            entry: Some(entry),
            socket: Some(socket),
            home: Home::here(),
        }
    }

    fn raw(&self) -> RawFd {
        self.socket.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }

    /// Failed or given up, the socket is closed as every other: behind its operations, and with
    /// the driver's knowledge, so that its number can be of use again.
    async fn connect(socket: Socket, address: SockAddr) -> Result<Self> {
        let name = op::describe(&address);
        let this = Self::new(socket.into());
        let connect = Op::Connect { socket: this.raw(), address: Box::new(address) };
        let outcome = Completion::new(connect).await;
        outcome.result.map_err(|errno| Error::io(format!("connecting to {name}"), errno))?;
        Ok(this)
    }

    fn poll_receive(&self, context: &mut Context<'_>) -> Poll<Result<Option<Lease>>> {
        let mut receiver = self.receiver.borrow_mut();
        let receiver = match &mut *receiver {
            Some(receiver) => receiver,
            none => match Stream::open(Op::Receive { socket: self.raw() }) {
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

    async fn receive(&self) -> Result<Option<Lease>> {
        poll_fn(|context| self.poll_receive(context)).await
    }

    async fn receive_into(&self, buffer: ReadBuffer) -> Result<ReadBuffer> {
        if self.receiver.borrow().is_some() {
            return Err(Error::config(
                "recv_into on a stream that has used recv: what has arrived already waits there; \
                 use one of the two",
            ));
        }
        let outcome = Completion::new(Op::ReceiveOnce { socket: self.raw(), buffer }).await;
        match (outcome.result, outcome.op) {
            (Ok(_), Op::ReceiveOnce { buffer, .. }) => Ok(buffer),
            (Err(errno), _) => Err(Error::io("receiving", errno)),
            (Ok(_), _) => unreachable!("an outcome gives its own operation back"),
        }
    }

    async fn send(&self, payload: Payload) -> Result<Payload> {
        if payload.is_empty() {
            return Ok(payload);
        }
        let outcome = Completion::new(Op::Send { socket: self.raw(), payload, sent: 0 }).await;
        match (outcome.result, outcome.op) {
            (Ok(_), Op::Send { payload, .. }) => Ok(payload),
            (Err(errno), _) => Err(Error::io("sending", errno)),
            (Ok(_), _) => unreachable!("an outcome gives its own operation back"),
        }
    }

    async fn send_vectored(&self, payloads: Vec<Payload>) -> Result<Vec<Payload>> {
        if payloads.len() > limits::SEND_VECTORS_COUNT_MAX {
            let (count, max) = (payloads.len(), limits::SEND_VECTORS_COUNT_MAX);
            return Err(Error::limit(format!("{count} payloads in one send: at most {max}")));
        }
        if payloads.iter().all(|payload| payload.is_empty()) {
            return Ok(payloads);
        }
        let message = Box::new(Message::new(payloads));
        let outcome = Completion::new(Op::SendVectored { socket: self.raw(), message }).await;
        match (outcome.result, outcome.op) {
            (Ok(_), Op::SendVectored { message, .. }) => Ok(message.into_payloads()),
            (Err(errno), _) => Err(Error::io("sending", errno)),
            (Ok(_), _) => unreachable!("an outcome gives its own operation back"),
        }
    }

    async fn shutdown(&self, how: Direction) -> Result<()> {
        let outcome = Completion::new(Op::Shutdown { socket: self.raw(), how }).await;
        outcome.result.map(drop).map_err(|errno| Error::io("shutting down a socket", errno))
    }

    fn socket(&self) -> SockRef<'_> {
        let socket = self.socket.as_ref().expect("the socket is there until the drop");
        SockRef::from(socket)
    }

    fn handle(&self) -> ConnectionHandle {
        self.entry.as_ref().expect("the entry is there until the drop").handle()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // In this order: the receive is cancelled, others can no longer reach the number, and the
        // number is given up last.
        drop(self.receiver.take());
        drop(self.entry.take());
        if let Some(descriptor) = self.socket.take() {
            metrics::add(Counter::ConnectionsClosed, 1);
            self.home.detach(Op::Close { descriptor });
        }
    }
}

/// A TCP connection, with TCP_NODELAY on.
pub struct TcpStream {
    connection: Connection,
}

impl TcpStream {
    pub(crate) fn accepted(socket: OwnedFd) -> Self {
        Self { connection: Connection::new(socket) }
    }

    /// Connects to `address`. Dropping the future gives the attempt up.
    ///
    /// # Errors
    /// The errors of connect(2).
    pub async fn connect(address: SocketAddr) -> Result<Self> {
        Self::connect_with(address, SocketOptions::default()).await
    }

    /// [`TcpStream::connect`] with options.
    ///
    /// # Errors
    /// As [`TcpStream::connect`].
    pub async fn connect_with(address: SocketAddr, options: SocketOptions) -> Result<Self> {
        let making = |error| Error::io("making a socket", Errno::from_io(&error));
        let socket =
            Socket::new(Domain::for_address(address), Type::STREAM, None).map_err(making)?;
        options.apply(SockRef::from(&socket)).map_err(making)?;
        Ok(Self { connection: Connection::connect(socket, address.into()).await? })
    }

    /// The next received bytes, never none; `None` when the peer has finished sending.
    ///
    /// Cancel-safe: bytes that are not taken stay for the next call, so a timeout or a select
    /// around it loses nothing. The lease is a part of the shard's buffers: drop it soon.
    ///
    /// # Errors
    /// The errors of recv(2); the connection is of no use then.
    pub async fn recv(&self) -> Result<Option<Lease>> {
        self.connection.receive().await
    }

    /// Receives once into the buffer's spare capacity, without the shard's pool, and gives the
    /// buffer back; nothing is added at the end of the stream. Not cancel-safe: bytes may go with
    /// a dropped future. Only for a stream that never uses [`TcpStream::recv`].
    ///
    /// # Errors
    /// `is_config` after a [`TcpStream::recv`]; otherwise the errors of recv(2).
    pub async fn recv_into(&self, buffer: impl Into<ReadBuffer>) -> Result<ReadBuffer> {
        self.connection.receive_into(buffer.into()).await
    }

    /// [`TcpStream::recv`] as a poll function.
    pub fn poll_recv(&self, context: &mut Context<'_>) -> Poll<Result<Option<Lease>>> {
        self.connection.poll_receive(context)
    }

    /// Sends all of `payload` and gives it back, so that its memory can be used again.
    ///
    /// Dropping the future may leave any prefix sent. One send at a time: two that overlap may mix
    /// their bytes.
    ///
    /// # Errors
    /// The errors of send(2), EPIPE among them (never a signal).
    pub async fn send(&self, payload: impl Into<Payload>) -> Result<Payload> {
        self.connection.send(payload.into()).await
    }

    /// Sends all of several payloads, in order, as one operation.
    ///
    /// # Errors
    /// As [`TcpStream::send`]; `is_limit` above [`limits::SEND_VECTORS_COUNT_MAX`] payloads.
    pub async fn send_vectored(&self, payloads: Vec<Payload>) -> Result<Vec<Payload>> {
        self.connection.send_vectored(payloads).await
    }

    /// Shuts down a direction. After [`Direction::Write`] the peer sees the end of the stream, and
    /// receiving goes on.
    ///
    /// # Errors
    /// The errors of shutdown(2).
    pub async fn shutdown(&self, direction: Direction) -> Result<()> {
        self.connection.shutdown(direction).await
    }

    /// The peer's address.
    ///
    /// # Errors
    /// ENOTCONN if the peer is gone.
    pub fn peer_addr(&self) -> Result<SocketAddr> {
        address(self.connection.socket().peer_addr(), "reading the peer's address")
    }

    /// This end's address.
    ///
    /// # Errors
    /// The errors of getsockname(2).
    pub fn local_addr(&self) -> Result<SocketAddr> {
        address(self.connection.socket().local_addr(), "reading the local address")
    }

    /// Sets options anew.
    ///
    /// # Errors
    /// The errors of setsockopt(2).
    pub fn set_options(&self, options: SocketOptions) -> Result<()> {
        let applied = options.apply(self.connection.socket());
        applied.map_err(|error| Error::io("setting a socket option", Errno::from_io(&error)))
    }

    /// Ends this connection from any thread.
    pub fn handle(&self) -> ConnectionHandle {
        self.connection.handle()
    }

    /// Takes the socket off this shard. Only for a stream that has received nothing yet.
    pub(crate) fn into_unbound(mut self) -> Unbound {
        assert!(self.connection.receiver.borrow().is_none(), "a receiving stream stays");
        self.connection.entry = None;
        Unbound(self.connection.socket.take().expect("the socket is there until the drop"))
    }
}

fn address(read: std::io::Result<SockAddr>, verb: &str) -> Result<SocketAddr> {
    let address = read.map_err(|error| Error::io(verb, Errno::from_io(&error)))?;
    address.as_socket().ok_or_else(|| Error::io(verb, Errno(libc::EAFNOSUPPORT)))
}

impl std::fmt::Debug for TcpStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TcpStream({})", self.connection.raw())
    }
}

/// A connected Unix stream socket.
pub struct UnixStream {
    connection: Connection,
}

impl UnixStream {
    pub(crate) fn accepted(socket: OwnedFd) -> Self {
        Self { connection: Connection::new(socket) }
    }

    /// Connects to the socket at `path`.
    ///
    /// # Errors
    /// The errors of connect(2): EAGAIN among them while the listener's backlog is full, for which
    /// there is no readiness to wait for; only the ring waits.
    pub async fn connect(path: impl AsRef<Path>) -> Result<Self> {
        let making = |error| Error::io("making a socket", Errno::from_io(&error));
        let address = super::unix_address(path.as_ref())?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(making)?;
        Ok(Self { connection: Connection::connect(socket, address).await? })
    }

    /// Two sockets connected to each other, both on this shard.
    ///
    /// # Errors
    /// The errors of socketpair(2).
    pub fn pair() -> Result<(Self, Self)> {
        let pair = Socket::pair(Domain::UNIX, Type::STREAM, None);
        let (one, other) =
            pair.map_err(|error| Error::io("making a socket pair", Errno::from_io(&error)))?;
        Ok((Self::accepted(one.into()), Self::accepted(other.into())))
    }

    /// As [`TcpStream::recv`].
    ///
    /// # Errors
    /// As [`TcpStream::recv`].
    pub async fn recv(&self) -> Result<Option<Lease>> {
        self.connection.receive().await
    }

    /// As [`TcpStream::send`].
    ///
    /// # Errors
    /// As [`TcpStream::send`].
    pub async fn send(&self, payload: impl Into<Payload>) -> Result<Payload> {
        self.connection.send(payload.into()).await
    }

    /// As [`TcpStream::send_vectored`].
    ///
    /// # Errors
    /// As [`TcpStream::send_vectored`].
    pub async fn send_vectored(&self, payloads: Vec<Payload>) -> Result<Vec<Payload>> {
        self.connection.send_vectored(payloads).await
    }

    /// As [`TcpStream::shutdown`].
    ///
    /// # Errors
    /// As [`TcpStream::shutdown`].
    pub async fn shutdown(&self, direction: Direction) -> Result<()> {
        self.connection.shutdown(direction).await
    }

    /// Ends this connection from any thread.
    pub fn handle(&self) -> ConnectionHandle {
        self.connection.handle()
    }
}

impl std::fmt::Debug for UnixStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "UnixStream({})", self.connection.raw())
    }
}

impl AsFd for TcpStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.socket.as_ref().expect("the socket is there until the drop").as_fd()
    }
}
