//! Unix datagram sockets: datagrams on one host, in order, none lost.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::SocketAddr;
use std::path::Path;
use std::task::{Context, Poll};

use socket2::{Domain, Type};

use super::datagram::{Datagram, Datagrams, Received, Socket};
use super::unix_address;
use crate::buffer::{Payload, ReadBuffer};
use crate::error::{Errno, Error, Result};

/// A Unix datagram socket of one shard (unix(7)). It leaves its path behind, as the kernel does.
///
/// A sender waits while the receiver's queue is full, so nothing is dropped. A path that begins
/// with a zero byte is an abstract name.
pub struct UnixDatagram {
    socket: Socket,
}

impl UnixDatagram {
    /// A socket at `path`, which must not exist.
    ///
    /// # Errors
    /// The errors of bind(2).
    pub fn bind(path: impl AsRef<Path>) -> Result<Self> {
        let verb = format!("binding to {}", path.as_ref().display());
        let failed = |error| Error::io(&verb, Errno::from_io(&error));
        let address = unix_address(path.as_ref())?;
        let socket = socket2::Socket::new(Domain::UNIX, Type::DGRAM, None).map_err(failed)?;
        socket.bind(&address).map_err(failed)?;
        Ok(Self { socket: Socket::new(socket.into())? })
    }

    /// A socket without a name: it can send, but nobody can send to it.
    ///
    /// # Errors
    /// The errors of socket(2).
    pub fn unbound() -> Result<Self> {
        let failed = |error| Error::io("making a socket", Errno::from_io(&error));
        let socket = socket2::Socket::new(Domain::UNIX, Type::DGRAM, None).map_err(failed)?;
        Ok(Self { socket: Socket::new(socket.into())? })
    }

    /// Two sockets connected to each other, both on this shard.
    ///
    /// # Errors
    /// The errors of socketpair(2).
    pub fn pair() -> Result<(Self, Self)> {
        let failed = |error| Error::io("making a socket pair", Errno::from_io(&error));
        let pair = socket2::Socket::pair(Domain::UNIX, Type::DGRAM, None);
        let (one, other) = pair.map_err(failed)?;
        let (one, other) = (Socket::new(one.into())?, Socket::new(other.into())?);
        Ok((Self { socket: one }, Self { socket: other }))
    }

    /// Takes over a socket, for this shard.
    ///
    /// # Errors
    /// The errors of fcntl(2).
    pub fn from_std(socket: std::os::unix::net::UnixDatagram) -> Result<Self> {
        Ok(Self { socket: Socket::new(socket.into())? })
    }

    /// Gives the socket up to `std`, blocking. Only for one that has not received into the shard's
    /// buffers.
    ///
    /// # Errors
    /// `is_config` otherwise; the socket is closed then.
    pub fn into_std(self) -> Result<std::os::unix::net::UnixDatagram> {
        self.socket.release().map(Into::into)
    }

    /// Sets the peer of [`UnixDatagram::send`]; from then on only its datagrams are received.
    /// Takes no time.
    ///
    /// # Errors
    /// The errors of connect(2).
    pub fn connect(&self, path: impl AsRef<Path>) -> Result<()> {
        let verb = format!("connecting to {}", path.as_ref().display());
        let address = unix_address(path.as_ref())?;
        self.socket.set(&verb, |socket| socket.connect(&address))
    }

    /// The next datagram and its sender, which may have no name.
    ///
    /// Cancel-safe: a datagram that is not taken stays for the next call. One above
    /// [`crate::limits::DATAGRAM_BYTES_MAX`] is cut off, and says so:
    /// [`UnixDatagram::recv_from_into`] has no such limit.
    ///
    /// # Errors
    /// The errors of recv(2); ECONNRESET if a connected peer is gone.
    pub async fn recv_from(&self) -> Result<Datagram<SocketAddr>> {
        self.socket.receive().await
    }

    /// All datagrams as a stream. Dropping it loses nothing: what waits is there for the next
    /// receive.
    pub fn datagrams(&self) -> Datagrams<'_, SocketAddr> {
        Datagrams::new(&self.socket)
    }

    /// [`UnixDatagram::recv_from`] as a poll function.
    pub fn poll_recv_from(&self, context: &mut Context<'_>) -> Poll<Result<Datagram<SocketAddr>>> {
        self.socket.poll_receive(context)
    }

    /// As [`super::UdpSocket::recv_from_into`].
    ///
    /// Not cancel-safe: a datagram may go with a dropped future.
    ///
    /// # Errors
    /// As [`super::UdpSocket::recv_from_into`].
    pub async fn recv_from_into(
        &self,
        buffer: impl Into<ReadBuffer>,
    ) -> Result<Received<SocketAddr>> {
        self.socket.receive_into(buffer.into()).await
    }

    /// Sends one datagram to the socket at `path` and gives the payload back. Waits while the
    /// receiver's queue is full. A dropped future may have sent it.
    ///
    /// # Errors
    /// The errors of sendto(2): ENOENT or ECONNREFUSED if there is nobody, EMSGSIZE above the send
    /// buffer (SO_SNDBUF).
    pub async fn send_to(
        &self,
        payload: impl Into<Payload>,
        path: impl AsRef<Path>,
    ) -> Result<Payload> {
        let address = unix_address(path.as_ref())?;
        self.socket.send_with_patience(payload.into(), Some(address)).await
    }

    /// Sends one datagram to the peer of [`UnixDatagram::connect`] or of a pair.
    ///
    /// A dropped future may have sent it.
    ///
    /// # Errors
    /// As [`UnixDatagram::send_to`]; ENOTCONN without a peer.
    pub async fn send(&self, payload: impl Into<Payload>) -> Result<Payload> {
        self.socket.send_with_patience(payload.into(), None).await
    }

    /// This end's address, which may have no name.
    ///
    /// # Errors
    /// The errors of getsockname(2).
    pub fn local_addr(&self) -> Result<SocketAddr> {
        let verb = "reading the local address";
        let address = self.socket.set(verb, |socket| socket.local_addr())?;
        address.as_unix().ok_or_else(|| Error::io(verb, Errno(libc::EAFNOSUPPORT)))
    }
}

impl fmt::Debug for UnixDatagram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UnixDatagram({})", self.socket.raw())
    }
}

impl AsFd for UnixDatagram {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.descriptor().as_fd()
    }
}
