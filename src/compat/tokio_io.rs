//! A stream with the I/O traits of tokio.

use std::io::{IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::ReadBuf;

use crate::io::{AsyncBufRead, AsyncRead, AsyncWrite};

/// A reader or writer of futures-io, such as a [`TcpStream`](crate::net::TcpStream), with the
/// traits of tokio.
///
/// What it promises is what the inner one does: for a stream, cancel-safe reads, and writes that
/// must be flushed before the drop.
#[derive(Debug)]
pub struct Tokio<S> {
    inner: S,
}

impl<S> Tokio<S> {
    /// Wraps `inner`.
    pub fn new(inner: S) -> Self {
        Self { inner }
    }

    /// What is wrapped.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// What is wrapped, mutably.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Unwraps.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S: Unpin> Tokio<S> {
    fn pin(self: Pin<&mut Self>) -> Pin<&mut S> {
        Pin::new(&mut self.get_mut().inner)
    }
}

impl<S: AsyncRead + Unpin> tokio::io::AsyncRead for Tokio<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        let count = ready!(self.pin().poll_read(context, buffer.initialize_unfilled()))?;
        buffer.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncBufRead + Unpin> tokio::io::AsyncBufRead for Tokio<S> {
    fn poll_fill_buf(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<&[u8]>> {
        self.pin().poll_fill_buf(context)
    }

    fn consume(self: Pin<&mut Self>, count: usize) {
        self.pin().consume(count);
    }
}

impl<S: AsyncWrite + Unpin> tokio::io::AsyncWrite for Tokio<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        self.pin().poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        self.pin().poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        self.pin().poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        self.pin().poll_close(context)
    }
}
