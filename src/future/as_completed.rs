//! Results in the order in which they come. Invariant: only a future that was woken is polled.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::stream::{FusedStream, FuturesUnordered, Stream};

/// The outputs of `futures` as a stream, each as soon as its future has ended; of several that end
/// between two polls, the one woken first. Join handles are futures too: with those, the tasks go
/// on whether or not the stream is polled, and also once it is dropped.
///
/// Cancel-safe: a `next` that is dropped loses nothing. Dropping the stream drops the futures.
///
/// ```
/// use annulus::{Runtime, future, stream::StreamExt, task};
///
/// let results: Vec<u32> = Runtime::new()?.block_on(async {
///     let late = async { task::yield_now().await; 1 };
///     let tasks = [task::spawn(late), task::spawn(async { 2 })];
///     future::as_completed(tasks).map(Result::unwrap).collect().await
/// });
/// assert_eq!(results, [2, 1]);
/// # annulus::Result::Ok(())
/// ```
pub fn as_completed<I>(futures: I) -> AsCompleted<I::Item>
where
    I: IntoIterator,
    I::Item: Future,
{
    AsCompleted { futures: futures.into_iter().collect() }
}

/// The stream of [`as_completed`].
#[must_use = "a stream does nothing unless polled"]
pub struct AsCompleted<F> {
    futures: FuturesUnordered<F>,
}

impl<F> AsCompleted<F> {
    /// Futures that have not been yielded.
    pub fn len(&self) -> usize {
        self.futures.len()
    }

    /// Whether the stream is at its end.
    pub fn is_empty(&self) -> bool {
        self.futures.is_empty()
    }
}

impl<F: Future> Stream for AsCompleted<F> {
    type Item = F::Output;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<F::Output>> {
        Pin::new(&mut self.futures).poll_next(context)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len(), Some(self.len()))
    }
}

impl<F: Future> FusedStream for AsCompleted<F> {
    fn is_terminated(&self) -> bool {
        self.is_empty()
    }
}

impl<F> fmt::Debug for AsCompleted<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsCompleted").field("left", &self.len()).finish()
    }
}
