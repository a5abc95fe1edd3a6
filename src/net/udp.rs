//! UDP sockets.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::task::{Context, Poll};

use socket2::{Domain, Type};

use super::datagram::{Datagram, Datagrams, Received, Socket};
use crate::buffer::{Payload, ReadBuffer};
use crate::error::{Errno, Error, Result};

/// A UDP socket of one shard.
///
/// What arrives waits in the shard's buffers from the first receive on: a receive only takes the
/// next one, so that giving it up loses nothing. While the socket's share of the buffers is spent
/// ([`crate::limits::CONNECTION_CREDIT_BYTES`]), or before anything was received, the kernel keeps
/// what [`UdpSocket::set_receive_buffer`] has room for. Beyond that it drops datagrams, as UDP may,
/// and tells nobody; `/proc/net/udp` counts them.
///
/// A drain does not end its receives: there is no connection to end.
pub struct UdpSocket {
    socket: Socket,
}

impl UdpSocket {
    /// Binds to `address`, alone. Port 0 takes a free one.
    ///
    /// # Errors
    /// The errors of bind(2).
    pub fn bind(address: SocketAddr) -> Result<Self> {
        Self::bind_with(address, |_| Ok(()))
    }

    /// Binds to `address` with SO_REUSEPORT (socket(7)), so that every shard can have a socket on
    /// it; the kernel spreads datagrams over them by the addresses of both ends.
    ///
    /// # Errors
    /// The errors of bind(2).
    pub fn bind_shared(address: SocketAddr) -> Result<Self> {
        Self::bind_with(address, |socket| socket.set_reuse_port(true))
    }

    fn bind_with(
        address: SocketAddr,
        prepare: impl FnOnce(&socket2::Socket) -> std::io::Result<()>,
    ) -> Result<Self> {
        let failed = |error| Error::io(format!("binding to {address}"), Errno::from_io(&error));
        let socket = socket2::Socket::new(Domain::for_address(address), Type::DGRAM, None);
        let socket = socket.map_err(failed)?;
        prepare(&socket).map_err(failed)?;
        socket.bind(&address.into()).map_err(failed)?;
        Ok(Self { socket: Socket::new(socket.into())? })
    }

    /// Takes over a socket, for this shard.
    ///
    /// # Errors
    /// The errors of fcntl(2).
    pub fn from_std(socket: std::net::UdpSocket) -> Result<Self> {
        Ok(Self { socket: Socket::new(socket.into())? })
    }

    /// Gives the socket up to `std`, blocking. Only for one that has not received into the shard's
    /// buffers.
    ///
    /// # Errors
    /// `is_config` otherwise; the socket is closed then.
    pub fn into_std(self) -> Result<std::net::UdpSocket> {
        self.socket.release().map(Into::into)
    }

    /// Sets the peer of [`UdpSocket::send`]; from then on only its datagrams are received. Those of
    /// others that have arrived already stay. Takes no time: nothing is sent.
    ///
    /// # Errors
    /// The errors of connect(2).
    pub fn connect(&self, peer: SocketAddr) -> Result<()> {
        let verb = format!("connecting to {peer}");
        self.socket.set(&verb, |socket| socket.connect(&peer.into()))
    }

    /// The next datagram and its sender.
    ///
    /// Cancel-safe: a datagram that is not taken stays for the next call, so a timeout or a select
    /// around it loses nothing.
    ///
    /// # Errors
    /// The errors of recv(2): on a connected socket ECONNREFUSED among them, which tells of an
    /// earlier send and passes; the socket can be used on.
    pub async fn recv_from(&self) -> Result<Datagram<SocketAddr>> {
        self.socket.receive().await
    }

    /// [`UdpSocket::recv_from`] for a connected socket, whose sender is known.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// As [`UdpSocket::recv_from`].
    pub async fn recv(&self) -> Result<Datagram<SocketAddr>> {
        self.socket.receive().await
    }

    /// All datagrams as a stream. Dropping it loses nothing: what waits is there for the next
    /// receive.
    pub fn datagrams(&self) -> Datagrams<'_, SocketAddr> {
        Datagrams::new(&self.socket)
    }

    /// [`UdpSocket::recv_from`] as a poll function.
    pub fn poll_recv_from(&self, context: &mut Context<'_>) -> Poll<Result<Datagram<SocketAddr>>> {
        self.socket.poll_receive(context)
    }

    /// Receives one datagram into the buffer's spare capacity, without the shard's buffers; what
    /// does not fit is cut off, and reported. Not cancel-safe: a datagram may go with a dropped
    /// future. Only for a socket that never uses [`UdpSocket::recv_from`].
    ///
    /// # Errors
    /// `is_config` after a [`UdpSocket::recv_from`], or while another such receive is under way;
    /// otherwise the errors of recv(2).
    pub async fn recv_from_into(
        &self,
        buffer: impl Into<ReadBuffer>,
    ) -> Result<Received<SocketAddr>> {
        self.socket.receive_into(buffer.into()).await
    }

    /// Sends one datagram to `peer` and gives the payload back. A dropped future may have sent it.
    ///
    /// # Errors
    /// The errors of sendto(2), EMSGSIZE above 65,507 bytes among them.
    pub async fn send_to(&self, payload: impl Into<Payload>, peer: SocketAddr) -> Result<Payload> {
        self.socket.send_to(payload.into(), peer.into()).await
    }

    /// Sends one datagram to the peer of [`UdpSocket::connect`].
    ///
    /// A dropped future may have sent it.
    ///
    /// # Errors
    /// As [`UdpSocket::send_to`]; EDESTADDRREQ without a peer.
    pub async fn send(&self, payload: impl Into<Payload>) -> Result<Payload> {
        self.socket.send(payload.into()).await
    }

    /// This end's address.
    ///
    /// # Errors
    /// The errors of getsockname(2).
    pub fn local_addr(&self) -> Result<SocketAddr> {
        let verb = "reading the local address";
        let address = self.socket.set(verb, |socket| socket.local_addr())?;
        address.as_socket().ok_or_else(|| Error::io(verb, Errno(libc::EAFNOSUPPORT)))
    }

    /// The address of the peer of [`UdpSocket::connect`].
    ///
    /// # Errors
    /// ENOTCONN without one.
    pub fn peer_addr(&self) -> Result<SocketAddr> {
        let verb = "reading the peer's address";
        let address = self.socket.set(verb, |socket| socket.peer_addr())?;
        address.as_socket().ok_or_else(|| Error::io(verb, Errno(libc::EAFNOSUPPORT)))
    }

    /// Allows sending to broadcast addresses (SO_BROADCAST, socket(7)).
    ///
    /// # Errors
    /// The errors of setsockopt(2).
    pub fn set_broadcast(&self, on: bool) -> Result<()> {
        self.option(|socket| socket.set_broadcast(on))
    }

    /// Routers that a datagram may pass (IP_TTL, ip(7)).
    ///
    /// # Errors
    /// The errors of setsockopt(2).
    pub fn set_ttl(&self, hops: u32) -> Result<()> {
        self.option(|socket| socket.set_ttl_v4(hops))
    }

    /// Routers that a multicast may pass; 1 by default (IP_MULTICAST_TTL, ip(7)).
    ///
    /// # Errors
    /// The errors of setsockopt(2).
    pub fn set_multicast_ttl_v4(&self, hops: u32) -> Result<()> {
        self.option(|socket| socket.set_multicast_ttl_v4(hops))
    }

    /// Whether multicasts that are sent come back to this host; on by default (ip(7)).
    ///
    /// # Errors
    /// The errors of setsockopt(2).
    pub fn set_multicast_loop_v4(&self, on: bool) -> Result<()> {
        self.option(|socket| socket.set_multicast_loop_v4(on))
    }

    /// [`UdpSocket::set_multicast_loop_v4`] for IPv6 (ipv6(7)).
    ///
    /// # Errors
    /// The errors of setsockopt(2).
    pub fn set_multicast_loop_v6(&self, on: bool) -> Result<()> {
        self.option(|socket| socket.set_multicast_loop_v6(on))
    }

    /// Receives what is sent to `group`, by the interface with the address `interface`
    /// (unspecified: one of the kernel's choice).
    ///
    /// # Errors
    /// The errors of setsockopt(2).
    pub fn join_multicast_v4(&self, group: Ipv4Addr, interface: Ipv4Addr) -> Result<()> {
        self.option(|socket| socket.join_multicast_v4(&group, &interface))
    }

    /// Undoes [`UdpSocket::join_multicast_v4`].
    ///
    /// # Errors
    /// The errors of setsockopt(2).
    pub fn leave_multicast_v4(&self, group: Ipv4Addr, interface: Ipv4Addr) -> Result<()> {
        self.option(|socket| socket.leave_multicast_v4(&group, &interface))
    }

    /// Receives what is sent to `group`, by the interface with the index `interface` (0: one of the
    /// kernel's choice).
    ///
    /// # Errors
    /// The errors of setsockopt(2).
    pub fn join_multicast_v6(&self, group: Ipv6Addr, interface: u32) -> Result<()> {
        self.option(|socket| socket.join_multicast_v6(&group, interface))
    }

    /// Undoes [`UdpSocket::join_multicast_v6`].
    ///
    /// # Errors
    /// The errors of setsockopt(2).
    pub fn leave_multicast_v6(&self, group: Ipv6Addr, interface: u32) -> Result<()> {
        self.option(|socket| socket.leave_multicast_v6(&group, interface))
    }

    /// Bytes that the kernel keeps of what nobody has received yet; it drops what comes beyond
    /// (SO_RCVBUF, socket(7): doubled by the kernel, cut to net.core.rmem_max).
    ///
    /// # Errors
    /// The errors of setsockopt(2).
    pub fn set_receive_buffer(&self, bytes: usize) -> Result<()> {
        self.option(|socket| socket.set_recv_buffer_size(bytes))
    }

    fn option(&self, set: impl FnOnce(socket2::SockRef<'_>) -> std::io::Result<()>) -> Result<()> {
        self.socket.set("setting a socket option", set)
    }
}

impl fmt::Debug for UdpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UdpSocket({})", self.socket.raw())
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.descriptor().as_fd()
    }
}
