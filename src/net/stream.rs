//! TCP and Unix streams: connect, receive, send, half close.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::task::{Context, Poll};

use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use super::connection::{Connection, Unbound};
use super::halves::{ReadHalf, WriteHalf};
use super::sending::Sending;
use crate::buffer::{Lease, Payload, ReadBuffer};
use crate::error::{Errno, Error, Result};
use crate::op::{Direction, SocketOptions};
use crate::shard::connections::ConnectionHandle;

/// A TCP connection, with TCP_NODELAY on.
///
/// It receives chunks ([`TcpStream::recv`]) and sends owned payloads ([`TcpStream::send`]). It also
/// is an [`AsyncRead`](crate::io::AsyncRead), an [`AsyncBufRead`](crate::io::AsyncBufRead) over the
/// chunks, which needs no buffer of its own, and an [`AsyncWrite`](crate::io::AsyncWrite). All may
/// be mixed: a chunk that was read in part is received next.
///
/// A polled write copies the bytes and returns while they are on their way, at most
/// [`WRITE_BEHIND_BYTES_MAX`](crate::limits::WRITE_BEHIND_BYTES_MAX) of them; the next waits until
/// they are out and reports how that went. Flush or close before the drop, which gives up what the
/// socket has no room for. Polled reads and writes are cancel-safe.
pub struct TcpStream {
    pub(super) connection: Connection,
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
    /// Dropping the future gives the attempt up.
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
    /// Not cancel-safe: dropping the future may leave any prefix sent. One send at a time: two that
    /// overlap may mix their bytes.
    ///
    /// # Errors
    /// The errors of send(2), EPIPE among them (never a signal).
    pub fn send(&self, payload: impl Into<Payload>) -> Sending<'_> {
        self.connection.send(payload.into())
    }

    /// Sends all of several payloads, in order, as one operation.
    ///
    /// Not cancel-safe: dropping the future may leave any prefix sent.
    ///
    /// # Errors
    /// As [`TcpStream::send`]; `is_limit` above [`crate::limits::SEND_VECTORS_COUNT_MAX`] payloads.
    pub async fn send_vectored(&self, payloads: Vec<Payload>) -> Result<Vec<Payload>> {
        self.connection.send_vectored(payloads).await
    }

    /// Shuts down a direction. After [`Direction::Write`] the peer sees the end of the stream, and
    /// receiving goes on.
    ///
    /// A dropped future may have shut the direction down or not; it can be done again.
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

    /// Takes over a connected socket, for this shard, with the options it has.
    ///
    /// # Errors
    /// The errors of fcntl(2).
    pub fn from_std(stream: std::net::TcpStream) -> Result<Self> {
        let socket = OwnedFd::from(stream);
        super::make_blocking(&socket)?;
        Ok(Self::accepted(socket))
    }

    /// Gives the socket up to `std`, blocking. Only for a stream that has not received yet and has
    /// flushed what it wrote.
    ///
    /// # Errors
    /// `is_config` otherwise; the stream is closed then.
    pub fn into_std(self) -> Result<std::net::TcpStream> {
        self.connection.release().map(Into::into)
    }

    /// Two halves for two tasks of this shard. Dropping the writing half ends that direction.
    pub fn split(self) -> (ReadHalf<Self>, WriteHalf<Self>) {
        super::halves::split(self.connection)
    }

    /// Takes the socket off this shard. Only for a stream that has received nothing yet.
    pub(crate) fn into_unbound(self) -> Result<Unbound> {
        self.connection.release().map(Unbound)
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

/// A connected Unix stream socket. It reads and writes in the same ways as a [`TcpStream`].
pub struct UnixStream {
    pub(super) connection: Connection,
}

impl UnixStream {
    pub(crate) fn accepted(socket: OwnedFd) -> Self {
        Self { connection: Connection::new(socket) }
    }

    /// Connects to the socket at `path`.
    ///
    /// Dropping the future gives the attempt up.
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
    /// Cancel-safe.
    ///
    /// # Errors
    /// As [`TcpStream::recv`].
    pub async fn recv(&self) -> Result<Option<Lease>> {
        self.connection.receive().await
    }

    /// As [`TcpStream::recv_into`].
    ///
    /// Not cancel-safe.
    ///
    /// # Errors
    /// As [`TcpStream::recv_into`].
    pub async fn recv_into(&self, buffer: impl Into<ReadBuffer>) -> Result<ReadBuffer> {
        self.connection.receive_into(buffer.into()).await
    }

    /// As [`TcpStream::poll_recv`].
    pub fn poll_recv(&self, context: &mut Context<'_>) -> Poll<Result<Option<Lease>>> {
        self.connection.poll_receive(context)
    }

    /// Takes over a connected socket, for this shard.
    ///
    /// # Errors
    /// The errors of fcntl(2).
    pub fn from_std(stream: std::os::unix::net::UnixStream) -> Result<Self> {
        let socket = OwnedFd::from(stream);
        super::make_blocking(&socket)?;
        Ok(Self::accepted(socket))
    }

    /// As [`TcpStream::into_std`].
    ///
    /// # Errors
    /// As [`TcpStream::into_std`].
    pub fn into_std(self) -> Result<std::os::unix::net::UnixStream> {
        self.connection.release().map(Into::into)
    }

    /// As [`TcpStream::split`].
    pub fn split(self) -> (ReadHalf<Self>, WriteHalf<Self>) {
        super::halves::split(self.connection)
    }

    /// As [`TcpStream::send`].
    ///
    /// Not cancel-safe: any prefix may be sent.
    ///
    /// # Errors
    /// As [`TcpStream::send`].
    pub fn send(&self, payload: impl Into<Payload>) -> Sending<'_> {
        self.connection.send(payload.into())
    }

    /// As [`TcpStream::send_vectored`].
    ///
    /// Not cancel-safe: any prefix may be sent.
    ///
    /// # Errors
    /// As [`TcpStream::send_vectored`].
    pub async fn send_vectored(&self, payloads: Vec<Payload>) -> Result<Vec<Payload>> {
        self.connection.send_vectored(payloads).await
    }

    /// As [`TcpStream::shutdown`].
    ///
    /// A dropped future may have shut the direction down or not; it can be done again.
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
        self.connection.descriptor().as_fd()
    }
}

impl AsFd for UnixStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.descriptor().as_fd()
    }
}
