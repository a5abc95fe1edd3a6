//! What both kinds of datagram socket are, and a received datagram.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::ops::Deref;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockAddr, SockRef};

use crate::buffer::{Lease, Payload, ReadBuffer};
use crate::error::{Errno, Error, Result};
use crate::limits;
use crate::op::datagram::{Letter, Parcel, Reception, Sender, Shape};
use crate::op::{Event, Op};
use crate::shard::completion::{Completion, Home, Stream};
use crate::time;

/// A received datagram: it reads as `[u8]`, and knows its sender `A`.
///
/// It is a part of the shard's buffers for datagrams: drop it soon, or copy it.
pub struct Datagram<A> {
    payload: Lease,
    sender: A,
    truncated: bool,
}

impl<A> Datagram<A> {
    /// Who sent it.
    pub fn sender(&self) -> &A {
        &self.sender
    }

    /// Whether its end was cut off for want of room. Never for UDP; a Unix datagram may be longer
    /// than [`crate::limits::DATAGRAM_BYTES_MAX`].
    pub fn is_truncated(&self) -> bool {
        self.truncated
    }

    /// Its bytes, which can be sent on without a copy.
    pub fn into_payload(self) -> Lease {
        self.payload
    }
}

impl<A> Deref for Datagram<A> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.payload
    }
}

impl<A: fmt::Debug> fmt::Debug for Datagram<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cut = if self.truncated { ", truncated" } else { "" };
        write!(f, "Datagram({} bytes from {:?}{cut})", self.payload.len(), self.sender)
    }
}

/// A datagram received into a buffer of the caller's.
#[derive(Debug)]
pub struct Received<A> {
    /// The buffer, with the datagram's bytes added.
    pub buffer: ReadBuffer,
    /// Who sent it.
    pub sender: A,
    /// Whether its end was cut off, because the buffer had no more room.
    pub truncated: bool,
}

/// The datagrams of a socket as an endless stream, with what fails among them.
#[must_use = "a stream does nothing unless polled"]
pub struct Datagrams<'a, A> {
    socket: &'a Socket,
    sender: PhantomData<A>,
}

impl<'a, A> Datagrams<'a, A> {
    pub(super) fn new(socket: &'a Socket) -> Self {
        Self { socket, sender: PhantomData }
    }
}

impl<A> fmt::Debug for Datagrams<'_, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Datagrams({})", self.socket.raw())
    }
}

impl futures_core::Stream for Datagrams<'_, std::net::SocketAddr> {
    type Item = Result<Datagram<std::net::SocketAddr>>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.socket.poll_receive(context).map(Some)
    }
}

impl futures_core::Stream for Datagrams<'_, std::os::unix::net::SocketAddr> {
    type Item = Result<Datagram<std::os::unix::net::SocketAddr>>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.socket.poll_receive(context).map(Some)
    }
}

/// A kind of sender address, made of what a driver has left.
pub(super) trait Address: Sized {
    fn read(sender: &Sender) -> Result<Self>;
}

impl Address for std::net::SocketAddr {
    fn read(sender: &Sender) -> Result<Self> {
        let nameless = || Error::io("reading a sender", Errno(libc::EAFNOSUPPORT));
        sender.as_inet().ok_or_else(nameless)
    }
}

impl Address for std::os::unix::net::SocketAddr {
    fn read(sender: &Sender) -> Result<Self> {
        let unreadable = |error| Error::io("reading a sender", Errno::from_io(&error));
        sender.to_unix().map_err(unreadable)
    }
}

/// A socket of datagrams.
pub(super) struct Socket {
    /// The receiving side, opened by the first receive. Dropped before the socket is closed.
    receiver: RefCell<Option<Stream>>,
    /// Whether a receive into a buffer of the caller's is under way.
    is_receiving: Cell<bool>,
    /// `None` only while being dropped.
    socket: Option<OwnedFd>,
    home: Home,
}

impl Socket {
    /// Takes over a socket for this shard.
    pub(super) fn new(socket: OwnedFd) -> Result<Self> {
        super::make_blocking(&socket)?;
        Ok(Self {
            receiver: RefCell::new(None),
            is_receiving: Cell::new(false),
            socket: Some(socket),
            home: Home::here(),
        })
    }

    /// Takes the socket off this shard, blocking as `std` makes them.
    pub(super) fn release(mut self) -> Result<OwnedFd> {
        if self.receiver.borrow().is_some() {
            return Err(Error::config(
                "only a socket that has not received into the shard's buffers can leave it: what \
                 has arrived waits there; release it before the first receive",
            ));
        }
        let socket = self.socket.take().expect("the socket is there until the drop");
        self.home.release(socket.as_raw_fd());
        Ok(socket)
    }

    pub(super) fn raw(&self) -> RawFd {
        self.socket.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }

    /// The descriptor, for an operation: on the shard whose driver knows it.
    fn number(&self) -> RawFd {
        self.home.assert_here();
        self.raw()
    }

    pub(super) fn descriptor(&self) -> &OwnedFd {
        self.socket.as_ref().expect("the socket is there until the drop")
    }

    /// Reads or sets something by an option of the socket's.
    pub(super) fn set<T>(
        &self,
        verb: &str,
        set: impl FnOnce(SockRef<'_>) -> std::io::Result<T>,
    ) -> Result<T> {
        let done = set(SockRef::from(self.descriptor()));
        done.map_err(|error| Error::io(verb, Errno::from_io(&error)))
    }

    pub(super) fn poll_receive<A: Address>(
        &self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Datagram<A>>> {
        let mut receiver = self.receiver.borrow_mut();
        let receiver = match &mut *receiver {
            Some(receiver) => receiver,
            _ if self.is_receiving.get() => return Poll::Ready(Err(Turn::is_taken())),
            none => {
                let open =
                    Op::ReceiveDatagrams { socket: self.number(), shape: Box::new(Shape::new()) };
                match Stream::open(open) {
                    Ok(stream) => none.insert(stream),
                    Err(errno) => return Poll::Ready(Err(Error::io("receiving", errno))),
                }
            }
        };
        receiver.poll_next(context).map(|event| match event {
            Event::Datagram(lease) => {
                let Parcel { payload, sender, truncated } = Parcel::open(lease);
                Ok(Datagram { payload, sender: A::read(&sender)?, truncated })
            }
            Event::Failed(errno) => Err(Error::io("receiving", errno)),
            Event::Accepted(_) | Event::Chunk(_) | Event::End => {
                unreachable!("a stream of datagrams yields datagrams")
            }
        })
    }

    pub(super) async fn receive<A: Address>(&self) -> Result<Datagram<A>> {
        poll_fn(|context| self.poll_receive(context)).await
    }

    pub(super) async fn receive_into<A: Address>(&self, buffer: ReadBuffer) -> Result<Received<A>> {
        if self.receiver.borrow().is_some() {
            return Err(Error::config(
                "a receive into a buffer on a socket that has received into the shard's: what \
                 has arrived already waits there; use one of the two",
            ));
        }
        let _turn = Turn::take(&self.is_receiving)?;
        let receive = Op::ReceiveFrom { socket: self.number(), reception: Reception::new(buffer) };
        let outcome = Completion::new(receive).await;
        match (outcome.result, outcome.op) {
            (Ok(_), Op::ReceiveFrom { reception, .. }) => {
                let sender = A::read(&reception.sender())?;
                let truncated = reception.is_truncated();
                Ok(Received { buffer: reception.buffer, sender, truncated })
            }
            (Err(errno), _) => Err(Error::io("receiving", errno)),
            (Ok(_), _) => unreachable!("an outcome gives its own operation back"),
        }
    }

    /// Sends one datagram, empty ones too, to the connected peer.
    pub(super) async fn send(&self, payload: Payload) -> Result<Payload> {
        let send = Op::Send { socket: self.number(), payload, sent: 0 };
        let outcome = Completion::new(send).await;
        match (outcome.result, outcome.op) {
            (Ok(_), Op::Send { payload, .. }) => Ok(payload),
            (Err(errno), _) => Err(Error::io("sending", errno)),
            (Ok(_), _) => unreachable!("an outcome gives its own operation back"),
        }
    }

    /// Sends one datagram to `address`.
    pub(super) async fn send_to(&self, payload: Payload, address: SockAddr) -> Result<Payload> {
        let (result, letter) = self.send_letter(Letter::new(payload, address)).await;
        result.map_err(|errno| Error::io("sending", errno))?;
        Ok(letter.expect("what was sent comes back").payload)
    }

    /// Sends one datagram to `address`, or to the connected peer, once that has room for it: for
    /// Unix sockets.
    pub(super) async fn send_with_patience(
        &self,
        payload: Payload,
        address: Option<SockAddr>,
    ) -> Result<Payload> {
        let mut letter = Letter::at_once(payload, address);
        let mut pause = Duration::from_micros(limits::UNREADY_PEER_US_MIN);
        loop {
            match self.send_letter(letter).await {
                (Ok(()), Some(sent)) => return Ok(sent.payload),
                (Err(Errno(libc::EAGAIN)), Some(back)) => letter = back,
                (Err(errno), _) => return Err(Error::io("sending", errno)),
                (Ok(()), None) => unreachable!("what was sent comes back"),
            }
            time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_micros(limits::UNREADY_PEER_US_MAX));
        }
    }

    /// The letter comes back, but for one that the driver has not taken.
    async fn send_letter(
        &self,
        letter: Box<Letter>,
    ) -> (std::result::Result<(), Errno>, Option<Box<Letter>>) {
        let outcome = Completion::new(Op::SendTo { socket: self.number(), letter }).await;
        let letter = match outcome.op {
            Op::SendTo { letter, .. } => Some(letter),
            _ => None,
        };
        (outcome.result.map(drop), letter)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        drop(self.receiver.take());
        if let Some(descriptor) = self.socket.take() {
            self.home.detach(Op::Close { descriptor });
        }
    }
}

/// One receive into a buffer at a time.
pub(super) struct Turn<'a>(&'a Cell<bool>);

impl<'a> Turn<'a> {
    pub(super) fn take(taken: &'a Cell<bool>) -> Result<Self> {
        if taken.replace(true) {
            return Err(Self::is_taken());
        }
        Ok(Self(taken))
    }

    pub(super) fn is_taken() -> Error {
        Error::config(
            "a second receive while one into a buffer is under way on the same socket: await that \
             one first, or receive into the shard's buffers only",
        )
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}
