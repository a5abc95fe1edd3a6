//! Streams and their halves under the traits of futures-io.

use std::io::{IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::io::{AsyncBufRead, AsyncRead, AsyncWrite};

use super::{ReadHalf, TcpStream, UnixStream, WriteHalf};

/// Reading and writing by shared reference, as `std` has it for its streams.
macro_rules! read_and_write {
    ($($stream:ty),*) => {$(
        impl AsyncRead for $stream {
            fn poll_read(
                self: Pin<&mut Self>,
                context: &mut Context<'_>,
                buffer: &mut [u8],
            ) -> Poll<Result<usize>> {
                self.connection.poll_read(context, buffer).map_err(Into::into)
            }
        }

        impl AsyncWrite for $stream {
            fn poll_write(
                self: Pin<&mut Self>,
                context: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<Result<usize>> {
                self.connection.poll_write(context, &[IoSlice::new(bytes)]).map_err(Into::into)
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                context: &mut Context<'_>,
                slices: &[IoSlice<'_>],
            ) -> Poll<Result<usize>> {
                self.connection.poll_write(context, slices).map_err(Into::into)
            }

            fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
                self.connection.poll_flush(context).map_err(Into::into)
            }

            fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
                self.connection.poll_close(context).map_err(Into::into)
            }
        }
    )*};
}
read_and_write!(TcpStream, UnixStream, &TcpStream, &UnixStream);

/// The chunk itself is the buffer.
macro_rules! read_chunks {
    ($($stream:ty),*) => {$(
        impl AsyncBufRead for $stream {
            fn poll_fill_buf(
                self: Pin<&mut Self>,
                context: &mut Context<'_>,
            ) -> Poll<Result<&[u8]>> {
                self.get_mut().connection.poll_fill(context).map_err(Into::into)
            }

            fn consume(self: Pin<&mut Self>, count: usize) {
                self.get_mut().connection.consume(count);
            }
        }
    )*};
}
read_chunks!(TcpStream, UnixStream);

impl<S> AsyncRead for ReadHalf<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<Result<usize>> {
        if buffer.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let chunk = ready!(self.as_mut().poll_fill_buf(context))?;
        let count = chunk.len().min(buffer.len());
        buffer[..count].copy_from_slice(&chunk[..count]);
        self.consume(count);
        Poll::Ready(Ok(count))
    }
}

impl<S> AsyncBufRead for ReadHalf<S> {
    fn poll_fill_buf(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<&[u8]>> {
        let this = self.get_mut();
        if this.rest.is_none() {
            this.rest = ready!(this.connection.poll_receive(context))?;
        }
        Poll::Ready(Ok(this.rest.as_deref().unwrap_or_default()))
    }

    fn consume(self: Pin<&mut Self>, count: usize) {
        super::connection::consume(&mut self.get_mut().rest, count);
    }
}

impl<S> Unpin for ReadHalf<S> {}

impl<S> Unpin for WriteHalf<S> {}

impl<S> AsyncWrite for WriteHalf<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        self.connection().poll_write(context, &[IoSlice::new(bytes)]).map_err(Into::into)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        self.connection().poll_write(context, slices).map_err(Into::into)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        self.connection().poll_flush(context).map_err(Into::into)
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        self.connection().poll_close(context).map_err(Into::into)
    }
}
