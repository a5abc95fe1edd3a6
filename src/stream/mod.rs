//! Streams: values that come one after another, each awaited.
//!
//! [`Stream`], its adaptors ([`StreamExt`], [`TryStreamExt`]) and the sets of futures are those of
//! futures-util. Own are the ways to make one, [`iter`], [`from_fn`] and [`unfold`], whose end is
//! final: past it they yield `None` for ever, which the trait alone does not promise; and
//! [`block_on_stream`], by which code that is not async reads one.
//!
//! A `next().await` is cancel-safe: dropped, it has taken nothing. A stream made of futures holds
//! the one that is under way, though, with its place in whatever line that waits in: drop a stream
//! that is not read on.
//!
//! ```
//! use annulus::{Runtime, stream::{self, StreamExt}};
//!
//! let read: Vec<u32> = Runtime::new()?.block_on(async {
//!     let mut left = 1..100;
//!     let reader = stream::from_fn(async move || left.next());
//!     reader.chain(stream::iter([7])).collect().await
//! });
//! assert_eq!(read.len(), 100);
//! # annulus::Result::Ok(())
//! ```

mod blocking;

use std::future::Future;

pub use futures_util::stream::{
    BoxStream, FusedStream, FuturesOrdered, FuturesUnordered, LocalBoxStream, Stream, StreamExt,
    TryStreamExt, empty, once, pending, poll_fn, repeat, repeat_with, select, select_all,
};

pub use self::blocking::{BlockingStream, block_on_stream};

/// The values of an iterator, as a stream that is always ready. It never gives way: a long loop
/// over it calls [`crate::task::yield_if_needed`].
pub fn iter<I: IntoIterator>(
    values: I,
) -> futures_util::stream::Iter<std::iter::Fuse<I::IntoIter>> {
    futures_util::stream::iter(values.into_iter().fuse())
}

/// Calls and awaits `next` for each value until it gives `None`: an async iterator from an async
/// closure. Once ended, `next` is not called any more.
///
/// Dropping the stream drops the call under way. It is not `Unpin`: for `next`, [`std::pin::pin!`]
/// it first.
pub fn from_fn<T, F>(next: F) -> impl FusedStream<Item = T>
where
    F: AsyncFnMut() -> Option<T>,
{
    unfold(next, async |mut next| next().await.map(|value| (value, next)))
}

/// Calls and awaits `next` with a state for each value, and the state that it gives back for the
/// one after, until it gives `None`.
///
/// Dropping the stream drops the state, and the call under way.
pub fn unfold<S, T, F, Fut>(state: S, next: F) -> impl FusedStream<Item = T>
where
    F: FnMut(S) -> Fut,
    Fut: Future<Output = Option<(T, S)>>,
{
    futures_util::stream::unfold(state, next).fuse()
}
