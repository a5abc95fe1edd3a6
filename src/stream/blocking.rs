//! A stream as an iterator, for code outside of a runtime. Invariant: the runtime turns only inside
//! `next`.

use std::fmt;
use std::pin::Pin;

use futures_util::stream::{Fuse, Stream, StreamExt};

use crate::error::{Error, Result};
use crate::runtime::Runtime;
use crate::shard::context;

/// Reads `stream` from code that is not async: each `next` of the iterator blocks the calling
/// thread on `runtime` until the stream's next value. In between the stream, and every task of
/// shard 0, stands still. Dropping the iterator drops the stream.
///
/// # Errors
/// `is_already_running` inside a runtime, where blocking would stop the very shard that is waited
/// for: read the stream with [`StreamExt::next`] there.
///
/// ```
/// use annulus::{Runtime, stream};
///
/// let runtime = Runtime::new()?;
/// let numbers = stream::block_on_stream(&runtime, stream::iter(1..=3))?;
/// assert_eq!(numbers.collect::<Vec<_>>(), [1, 2, 3]);
/// # annulus::Result::Ok(())
/// ```
pub fn block_on_stream<S: Stream>(runtime: &Runtime, stream: S) -> Result<BlockingStream<'_, S>> {
    if context::is_running() {
        return Err(Error::already_running());
    }
    Ok(BlockingStream { runtime, stream: Box::pin(stream.fuse()) })
}

/// The iterator of [`block_on_stream`]. Past its end it yields `None` for ever.
///
/// # Panics
/// Its `next` panics inside a runtime.
#[must_use = "an iterator does nothing unless read"]
pub struct BlockingStream<'a, S> {
    runtime: &'a Runtime,
    stream: Pin<Box<Fuse<S>>>,
}

impl<S: Stream> Iterator for BlockingStream<'_, S> {
    type Item = S::Item;

    fn next(&mut self) -> Option<S::Item> {
        self.runtime.block_on(self.stream.next())
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.stream.size_hint()
    }
}

impl<S: Stream> std::iter::FusedIterator for BlockingStream<'_, S> {}

impl<S> fmt::Debug for BlockingStream<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockingStream").finish_non_exhaustive()
    }
}
