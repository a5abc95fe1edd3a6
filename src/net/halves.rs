//! The two directions of a stream, for two tasks of one shard.

use std::fmt;
use std::marker::PhantomData;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::connection::Connection;
use super::{TcpStream, UnixStream};
use crate::buffer::{Lease, Payload};
use crate::error::Result;
use crate::op::Direction;

/// The receiving half of a stream `S`.
pub struct ReadHalf<S> {
    pub(super) connection: Rc<Connection>,
    /// What a polled read has left of a chunk: its own, since the other half holds the stream too.
    pub(super) rest: Option<Lease>,
    kind: PhantomData<S>,
}

/// The sending half of a stream `S`. Dropping it ends that direction, as a shutdown would, unless
/// the halves are reunited; flush it before.
pub struct WriteHalf<S> {
    /// `None` only while being dropped.
    connection: Option<Rc<Connection>>,
    kind: PhantomData<S>,
}

pub(super) fn split<S>(connection: Connection) -> (ReadHalf<S>, WriteHalf<S>) {
    let connection = Rc::new(connection);
    let write = WriteHalf { connection: Some(Rc::clone(&connection)), kind: PhantomData };
    (ReadHalf { connection, rest: None, kind: PhantomData }, write)
}

impl<S> ReadHalf<S> {
    /// As [`TcpStream::recv`].
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// As [`TcpStream::recv`].
    pub async fn recv(&mut self) -> Result<Option<Lease>> {
        match self.rest.take() {
            Some(rest) => Ok(Some(rest)),
            None => self.connection.receive().await,
        }
    }

    /// [`ReadHalf::recv`] as a poll function.
    pub fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Lease>>> {
        match self.rest.take() {
            Some(rest) => Poll::Ready(Ok(Some(rest))),
            None => self.connection.poll_receive(context),
        }
    }

    fn join(self, mut write: WriteHalf<S>) -> std::result::Result<Connection, ReuniteError<S>> {
        let is_pair = write.connection.as_ref().is_some_and(|o| Rc::ptr_eq(o, &self.connection));
        if !is_pair {
            return Err(ReuniteError(self, write));
        }
        drop(write.connection.take());
        let Ok(connection) = Rc::try_unwrap(self.connection) else {
            unreachable!("two halves hold a stream, and nobody else")
        };
        if let Some(rest) = self.rest {
            connection.put_back(rest);
        }
        Ok(connection)
    }
}

impl<S> WriteHalf<S> {
    pub(super) fn connection(&self) -> &Connection {
        self.connection.as_ref().expect("the stream is there until the drop")
    }

    /// As [`TcpStream::send`].
    ///
    /// Not cancel-safe: any prefix may be sent.
    ///
    /// # Errors
    /// As [`TcpStream::send`].
    pub async fn send(&mut self, payload: impl Into<Payload>) -> Result<Payload> {
        self.connection().send(payload.into()).await
    }

    /// As [`TcpStream::send_vectored`].
    ///
    /// Not cancel-safe: any prefix may be sent.
    ///
    /// # Errors
    /// As [`TcpStream::send_vectored`].
    pub async fn send_vectored(&mut self, payloads: Vec<Payload>) -> Result<Vec<Payload>> {
        self.connection().send_vectored(payloads).await
    }

    /// Ends the direction: the peer sees the end of the stream.
    ///
    /// A dropped future may have shut the direction down or not; it can be done again.
    ///
    /// # Errors
    /// As [`TcpStream::shutdown`].
    pub async fn shutdown(&mut self) -> Result<()> {
        self.connection().shutdown(Direction::Write).await
    }
}

impl<S> Drop for WriteHalf<S> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take()
            && Rc::strong_count(&connection) > 1
        {
            connection.handle().shutdown(Direction::Write);
        }
    }
}

macro_rules! reunite {
    ($($stream:ident),*) => {$(
        impl ReadHalf<$stream> {
            /// Makes the halves one stream again.
            ///
            /// # Errors
            /// Gives both halves back if they are of two streams.
            pub fn reunite(
                self,
                write: WriteHalf<$stream>,
            ) -> std::result::Result<$stream, ReuniteError<$stream>> {
                self.join(write).map(|connection| $stream { connection })
            }
        }
    )*};
}
reunite!(TcpStream, UnixStream);

/// Two halves that are not of one stream.
pub struct ReuniteError<S>(pub ReadHalf<S>, pub WriteHalf<S>);

impl<S> fmt::Debug for ReuniteError<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReuniteError({}, {})", self.0.connection.raw(), self.1.connection().raw())
    }
}

impl<S> fmt::Display for ReuniteError<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the halves are of two streams")
    }
}

impl<S> std::error::Error for ReuniteError<S> {}

impl<S> fmt::Debug for ReadHalf<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReadHalf({})", self.connection.raw())
    }
}

impl<S> fmt::Debug for WriteHalf<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WriteHalf({})", self.connection().raw())
    }
}
