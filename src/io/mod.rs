//! Reading and writing by the traits of futures-io, which streams, their halves and pipes have.
//!
//! The traits and the adaptors that need nothing of this runtime are futures-util's, re-exported:
//! `use annulus::io::*` and any reader has `read_exact`, `take`, `chain` and so on. Here are those
//! that need a bound on what a peer may send, or that gain by the runtime's chunks:
//!
//! - A stream is its own [`AsyncBufRead`]: the received chunk is the buffer, nothing is copied to
//!   look at it. [`BufReader`] is for readers that have no buffer, such as files.
//! - [`Lines`], [`read_until`] and [`read_to_end`] take a limit and fail at it instead of growing.
//! - [`copy`] moves bytes from the reader's own buffer; [`relay`] sends received chunks on as they
//!   are.
//!
//! [`AsyncFd`] makes any other descriptor awaitable.
//!
//! Errors are [`std::io::Error`], as in the traits. A limit that is reached, and any other
//! [`crate::Error`], comes back whole by [`crate::Error::from`].

pub mod async_fd;
mod copy;
mod lines;

pub use futures_util::io::{
    AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncSeek, AsyncSeekExt, AsyncWrite,
    AsyncWriteExt, BufReader, BufWriter, Cursor, Empty, IoSlice, IoSliceMut, LineWriter, Repeat,
    SeekFrom, Sink, empty, repeat, sink,
};

pub use self::async_fd::{AsyncFd, Readiness};
pub use self::copy::{Relay, copy, copy_bidirectional, relay};
pub use self::lines::Lines;
pub use crate::op::Interest;

use std::future::poll_fn;
use std::io::{Error, ErrorKind, Result};
use std::pin::Pin;

use crate::error;

/// Reads exactly `buffer.len()` bytes. Not cancel-safe: what a dropped future has read is gone.
///
/// # Errors
/// `UnexpectedEof` if the reader ends before; the reader's own errors.
pub async fn read_exact<R>(reader: &mut R, buffer: &mut [u8]) -> Result<()>
where
    R: AsyncRead + Unpin + ?Sized,
{
    let mut filled = 0;
    while filled < buffer.len() {
        let rest = &mut buffer[filled..];
        match poll_fn(|context| Pin::new(&mut *reader).poll_read(context, rest)).await {
            Ok(0) => {
                let what = format!("the end after {filled} of {} bytes", buffer.len());
                return Err(Error::new(ErrorKind::UnexpectedEof, what));
            }
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Appends everything up to the end of `reader` to `bytes`, at most `bytes_max` of it, and says how
/// much that was. Cancel-safe: what was read is in `bytes`.
///
/// # Errors
/// A limit ([`crate::Error::is_limit`]) if there is more; what came before is in `bytes`. The
/// reader's own errors.
pub async fn read_to_end<R>(reader: &mut R, bytes: &mut Vec<u8>, bytes_max: usize) -> Result<usize>
where
    R: AsyncBufRead + Unpin + ?Sized,
{
    take_chunks(reader, bytes, bytes_max, "bytes", |_| None).await
}

/// [`read_to_end`] into text.
///
/// Not cancel-safe: what a dropped future has read is gone.
///
/// # Errors
/// As [`read_to_end`]; `InvalidData` if it is not UTF-8, and then `text` is as it was.
pub async fn read_to_string<R>(reader: &mut R, text: &mut String, bytes_max: usize) -> Result<usize>
where
    R: AsyncBufRead + Unpin + ?Sized,
{
    let mut bytes = Vec::new();
    let count = read_to_end(reader, &mut bytes, bytes_max).await?;
    let read = String::from_utf8(bytes);
    text.push_str(&read.map_err(|error| Error::new(ErrorKind::InvalidData, error))?);
    Ok(count)
}

/// Appends what comes up to and with `delimiter` to `bytes`, or up to the end, at most `bytes_max`
/// of it, and says how much that was: zero at the end of the reader. Cancel-safe: what was read is
/// in `bytes`, and a call with the same vector goes on (the limit is then counted anew).
///
/// # Errors
/// A limit ([`crate::Error::is_limit`]) if the delimiter is not among the first `bytes_max` bytes,
/// which are in `bytes` then. The reader's own errors.
pub async fn read_until<R>(
    reader: &mut R,
    delimiter: u8,
    bytes: &mut Vec<u8>,
    bytes_max: usize,
) -> Result<usize>
where
    R: AsyncBufRead + Unpin + ?Sized,
{
    let end = |chunk: &[u8]| chunk.iter().position(|byte| *byte == delimiter);
    take_chunks(reader, bytes, bytes_max, "bytes up to a delimiter", end).await
}

/// Appends chunks to `bytes` up to the end of the reader, or to the first byte that `end` finds.
async fn take_chunks<R>(
    reader: &mut R,
    bytes: &mut Vec<u8>,
    bytes_max: usize,
    what: &str,
    end: impl Fn(&[u8]) -> Option<usize>,
) -> Result<usize>
where
    R: AsyncBufRead + Unpin + ?Sized,
{
    let mut taken = 0;
    loop {
        let step = poll_fn(|context| {
            let chunk = match Pin::new(&mut *reader).poll_fill_buf(context) {
                std::task::Poll::Ready(chunk) => chunk,
                std::task::Poll::Pending => return std::task::Poll::Pending,
            };
            std::task::Poll::Ready(chunk.map(|chunk| {
                let part = &chunk[..chunk.len().min(bytes_max - taken)];
                let found = end(part);
                let part = found.map_or(part, |place| &part[..=place]);
                bytes.extend_from_slice(part);
                (part.len(), found.is_some(), chunk.is_empty())
            }))
        });
        let (count, is_found, is_over) = match step.await {
            Ok(step) => step,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        Pin::new(&mut *reader).consume(count);
        taken += count;
        if is_found || is_over {
            return Ok(taken);
        }
        if count == 0 {
            return Err(error::Error::limit(format!("more than {bytes_max} {what}")).into());
        }
    }
}
