//! Listening sockets.

use std::cell::RefCell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::task::{Context, Poll};

use socket2::{Domain, SockRef, Socket, Type};

use super::{TcpStream, UnixStream};
use crate::error::{Errno, Error, Result};
use crate::op::{Event, Op, SocketOptions};
use crate::shard::completion::{Home, Stream};
use crate::shard::connections::{Entry, Kind};
use crate::shard::{self, context};

/// Connections that the kernel keeps until they are accepted; cut to net.core.somaxconn.
const BACKLOG: i32 = 4096;

/// What both kinds of listener are.
struct Acceptor {
    /// Opened by the first accept. Dropped before the socket is closed.
    stream: RefCell<Option<Stream>>,
    entry: Option<Entry>,
    socket: Option<OwnedFd>,
    home: Home,
}

impl Acceptor {
    fn new(socket: OwnedFd) -> Self {
        let entry = context::with(|shard| {
            shard.shared.connections(shard.id()).enter(socket.as_raw_fd(), Kind::Listener)
        });
        Self {
            stream: RefCell::new(None),
            entry: Some(entry),
            socket: Some(socket),
            home: Home::here(),
        }
    }

    fn socket(&self) -> SockRef<'_> {
        SockRef::from(self.socket.as_ref().expect("the socket is there until the drop"))
    }

    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<Result<OwnedFd>> {
        let mut stream = self.stream.borrow_mut();
        let stream = match &mut *stream {
            Some(stream) => stream,
            none => {
                let listener = self.socket.as_ref().map_or(-1, AsRawFd::as_raw_fd);
                match Stream::open(Op::Accept { listener }) {
                    Ok(stream) => none.insert(stream),
                    Err(errno) => return Poll::Ready(Err(Error::io("accepting", errno))),
                }
            }
        };
        stream.poll_next(context).map(|event| match event {
            Event::Accepted(socket) => Ok(socket),
            // A listener that a drain has shut down.
            Event::Failed(Errno(libc::EINVAL)) if shard::is_draining() => {
                Err(Error::closed("the listener"))
            }
            Event::Failed(errno) => Err(Error::io("accepting", errno)),
            Event::Chunk(_) | Event::Datagram(_) | Event::End => {
                unreachable!("an accept yields connections")
            }
        })
    }

    async fn accept(&self) -> Result<OwnedFd> {
        poll_fn(|context| self.poll_accept(context)).await
    }
}

impl Acceptor {
    fn release(mut self) -> Result<OwnedFd> {
        if self.stream.borrow().is_some() {
            return Err(Error::config(
                "only a listener that has not accepted can leave its shard: connections may wait \
                 there; release it before the first accept",
            ));
        }
        drop(self.entry.take());
        let socket = self.socket.take().expect("the socket is there until the drop");
        self.home.release(socket.as_raw_fd());
        super::make_blocking(&socket)?;
        Ok(socket)
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        drop(self.stream.take());
        drop(self.entry.take());
        if let Some(descriptor) = self.socket.take() {
            self.home.detach(Op::Close { descriptor });
        }
    }
}

/// A TCP listener of one shard.
pub struct TcpListener {
    acceptor: Acceptor,
}

impl TcpListener {
    /// Listens on `address` with SO_REUSEPORT, so that every shard can have a listener on it and
    /// the kernel spreads connections. Port 0 takes a free one.
    ///
    /// SO_REUSEPORT also lets another process of the same user share the port; a program that
    /// wants to be told of that binds by itself and uses [`TcpListener::from_std`].
    ///
    /// # Errors
    /// The errors of bind(2) and listen(2).
    pub fn bind(address: SocketAddr) -> Result<Self> {
        let verb = format!("listening on {address}");
        let failed = |error| Error::io(&verb, Errno::from_io(&error));
        let socket =
            Socket::new(Domain::for_address(address), Type::STREAM, None).map_err(failed)?;
        socket.set_reuse_address(true).map_err(failed)?;
        socket.set_reuse_port(true).map_err(failed)?;
        socket.bind(&address.into()).map_err(failed)?;
        socket.listen(BACKLOG).map_err(failed)?;
        Self::from_std(socket.into())
    }

    /// Takes over a listening socket, for this shard.
    ///
    /// # Errors
    /// The errors of setsockopt(2).
    pub fn from_std(listener: std::net::TcpListener) -> Result<Self> {
        let socket = OwnedFd::from(listener);
        super::make_blocking(&socket)?;
        let this = Self { acceptor: Acceptor::new(socket) };
        // Accepted sockets inherit the listener's options.
        this.set_options(SocketOptions::default())?;
        Ok(this)
    }

    /// Gives the socket up to `std`, blocking. Only for a listener that has not accepted yet.
    ///
    /// # Errors
    /// `is_config` otherwise: what was accepted ahead waits here. The listener is closed then.
    pub fn into_std(self) -> Result<std::net::TcpListener> {
        self.acceptor.release().map(Into::into)
    }

    /// The options of connections that are accepted from now on.
    ///
    /// # Errors
    /// The errors of setsockopt(2).
    pub fn set_options(&self, options: SocketOptions) -> Result<()> {
        let applied = options.apply(self.acceptor.socket());
        applied.map_err(|error| Error::io("setting a socket option", Errno::from_io(&error)))
    }

    /// The next connection. Cancel-safe: a connection that is not taken stays for the next call.
    ///
    /// # Errors
    /// `is_closed` once the runtime drains; the errors of accept(2), of which EMFILE and ENFILE
    /// pass when descriptors are closed.
    pub async fn accept(&self) -> Result<TcpStream> {
        self.acceptor.accept().await.map(TcpStream::accepted)
    }

    /// The address that it listens on.
    ///
    /// # Errors
    /// The errors of getsockname(2).
    pub fn local_addr(&self) -> Result<SocketAddr> {
        let verb = "reading the local address";
        let address = self.acceptor.socket().local_addr();
        let address = address.map_err(|error| Error::io(verb, Errno::from_io(&error)))?;
        address.as_socket().ok_or_else(|| Error::io(verb, Errno(libc::EAFNOSUPPORT)))
    }
}

impl std::fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TcpListener({:?})", self.acceptor.socket)
    }
}

/// A Unix stream listener. It leaves its path behind, as the kernel does.
pub struct UnixListener {
    acceptor: Acceptor,
}

impl UnixListener {
    /// Listens at `path`, which must not exist.
    ///
    /// # Errors
    /// The errors of bind(2) and listen(2).
    pub fn bind(path: impl AsRef<Path>) -> Result<Self> {
        let verb = format!("listening on {}", path.as_ref().display());
        let failed = |error| Error::io(&verb, Errno::from_io(&error));
        let address = super::unix_address(path.as_ref())?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed)?;
        socket.bind(&address).map_err(failed)?;
        socket.listen(BACKLOG).map_err(failed)?;
        Ok(Self { acceptor: Acceptor::new(socket.into()) })
    }

    /// Takes over a listening socket, for this shard.
    ///
    /// # Errors
    /// The errors of fcntl(2).
    pub fn from_std(listener: std::os::unix::net::UnixListener) -> Result<Self> {
        let socket = OwnedFd::from(listener);
        super::make_blocking(&socket)?;
        Ok(Self { acceptor: Acceptor::new(socket) })
    }

    /// As [`TcpListener::into_std`].
    ///
    /// # Errors
    /// As [`TcpListener::into_std`].
    pub fn into_std(self) -> Result<std::os::unix::net::UnixListener> {
        self.acceptor.release().map(Into::into)
    }

    /// As [`TcpListener::accept`].
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// As [`TcpListener::accept`].
    pub async fn accept(&self) -> Result<UnixStream> {
        self.acceptor.accept().await.map(UnixStream::accepted)
    }
}

impl std::fmt::Debug for UnixListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "UnixListener({:?})", self.acceptor.socket)
    }
}
