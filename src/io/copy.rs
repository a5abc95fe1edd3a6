//! From one stream to another.

use std::future::poll_fn;
use std::io::{Error, ErrorKind, Result};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::future::try_join;
use futures_util::io::{AsyncBufRead, AsyncWrite};

use crate::buffer::{Lease, Payload};
use crate::error;
use crate::net::{TcpStream, UnixStream};
use crate::op::Direction;

/// Copies everything from `reader` to `writer`, flushes, and says how many bytes it were. The
/// writer stays open. It holds one chunk of the reader's at a time: a slow writer slows the reader.
///
/// Cancel-safe as far as the writer is: what has been consumed has been written.
///
/// # Errors
/// Those of reader and writer; `WriteZero` if the writer takes nothing more.
pub async fn copy<R, W>(reader: &mut R, writer: &mut W) -> Result<u64>
where
    R: AsyncBufRead + Unpin + ?Sized,
    W: AsyncWrite + Unpin + ?Sized,
{
    let mut copied = 0;
    poll_fn(|context| poll_copy(context, &mut *reader, &mut *writer, &mut copied)).await?;
    Ok(copied)
}

fn poll_copy<R, W>(
    context: &mut Context<'_>,
    reader: &mut R,
    writer: &mut W,
    copied: &mut u64,
) -> Poll<Result<()>>
where
    R: AsyncBufRead + Unpin + ?Sized,
    W: AsyncWrite + Unpin + ?Sized,
{
    loop {
        let chunk = match Pin::new(&mut *reader).poll_fill_buf(context) {
            Poll::Ready(chunk) => chunk?,
            Poll::Pending => {
                // While there is nothing to read, what was written goes out.
                ready!(Pin::new(&mut *writer).poll_flush(context))?;
                return Poll::Pending;
            }
        };
        if chunk.is_empty() {
            return Pin::new(&mut *writer).poll_flush(context);
        }
        let count = ready!(Pin::new(&mut *writer).poll_write(context, chunk))?;
        if count == 0 {
            return Poll::Ready(Err(Error::new(ErrorKind::WriteZero, "the writer is full")));
        }
        Pin::new(&mut *reader).consume(count);
        *copied += count as u64;
    }
}

/// Copies in both directions until both have ended; the end of one is passed on by closing the
/// other's writing side. How many bytes went from `one` to `other`, and back.
///
/// # Errors
/// The first error of either side; the other direction is given up.
pub async fn copy_bidirectional<A, B>(one: &mut A, other: &mut B) -> Result<(u64, u64)>
where
    A: AsyncBufRead + AsyncWrite + Unpin + ?Sized,
    B: AsyncBufRead + AsyncWrite + Unpin + ?Sized,
{
    let (mut there, mut back) = (0, 0);
    let (mut there_is_over, mut back_is_over) = (false, false);
    poll_fn(|context| {
        if !there_is_over {
            there_is_over = poll_pass(context, &mut *one, &mut *other, &mut there)?.is_ready();
        }
        if !back_is_over {
            back_is_over = poll_pass(context, &mut *other, &mut *one, &mut back)?.is_ready();
        }
        if there_is_over && back_is_over { Poll::Ready(Ok(())) } else { Poll::Pending }
    })
    .await
    .map(|()| (there, back))
}

/// [`poll_copy`], and the end is passed on.
fn poll_pass<R, W>(
    context: &mut Context<'_>,
    reader: &mut R,
    writer: &mut W,
    copied: &mut u64,
) -> Poll<Result<()>>
where
    R: AsyncBufRead + Unpin + ?Sized,
    W: AsyncWrite + Unpin + ?Sized,
{
    ready!(poll_copy(context, reader, &mut *writer, copied))?;
    Pin::new(writer).poll_close(context)
}

/// A stream whose received chunks can be sent on as they are.
#[expect(async_fn_in_trait, reason = "sealed: streams of this crate, which stay on their shard")]
pub trait Relay: sealed::Sealed {
    /// The next chunk; `None` at the end.
    async fn receive(&self) -> error::Result<Option<Lease>>;
    /// Sends all of it.
    async fn forward(&self, payload: Payload) -> error::Result<()>;
    /// Ends the sending direction.
    async fn end(&self) -> error::Result<()>;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! relay {
    ($($stream:ty),*) => {$(
        impl sealed::Sealed for $stream {}

        impl Relay for $stream {
            async fn receive(&self) -> error::Result<Option<Lease>> {
                self.recv().await
            }

            async fn forward(&self, payload: Payload) -> error::Result<()> {
                self.send(payload).await.map(drop)
            }

            async fn end(&self) -> error::Result<()> {
                match self.shutdown(Direction::Write).await {
                    // The peer is gone, and with it who would see the end.
                    Err(error) if error.is_disconnected() => Ok(()),
                    ended => ended,
                }
            }
        }
    )*};
}
relay!(TcpStream, UnixStream);

/// [`copy_bidirectional`] between two streams without copying: each received chunk is sent on from
/// where the kernel has put it. Each direction holds one chunk at a time.
///
/// # Errors
/// The first error of either side; the other direction is given up.
pub async fn relay<A: Relay, B: Relay>(one: &A, other: &B) -> error::Result<(u64, u64)> {
    try_join(pass(one, other), pass(other, one)).await
}

async fn pass<A: Relay, B: Relay>(source: &A, target: &B) -> error::Result<u64> {
    let mut passed = 0;
    while let Some(chunk) = source.receive().await? {
        passed += chunk.len() as u64;
        target.forward(chunk.into()).await?;
    }
    target.end().await?;
    Ok(passed)
}
