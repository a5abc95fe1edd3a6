//! The first to end wins, and the others are dropped.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::stream::{FuturesUnordered, Stream};
use pin_project_lite::pin_project;

/// The output of the future that ends first; the others are dropped, which cancels what they were
/// doing. Of several that are ready when it is first polled the first in the input wins, later the
/// one that was woken first. To keep the others, race tasks in a [`crate::task::JoinSet`].
///
/// Cancel-safe as far as the futures are: dropping it drops them all.
///
/// # Panics
/// If `futures` is empty: nobody could win.
pub fn race<I>(futures: I) -> Race<I::Item>
where
    I: IntoIterator,
    I::Item: Future,
{
    let futures: FuturesUnordered<_> = futures.into_iter().collect();
    assert!(!futures.is_empty(), "a race of no futures never ends: give it at least one");
    Race { futures }
}

/// The future of [`race`].
#[must_use = "a future does nothing unless awaited"]
pub struct Race<F> {
    futures: FuturesUnordered<F>,
}

impl<F: Future> Future for Race<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        match Pin::new(&mut self.futures).poll_next(context) {
            Poll::Ready(Some(output)) => {
                // The losers end now, not when whoever holds the race lets go of it.
                self.futures.clear();
                Poll::Ready(output)
            }
            Poll::Ready(None) => panic!("a race is not polled after its end"),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<F> fmt::Debug for Race<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Race").field("running", &self.futures.len()).finish()
    }
}

/// The output of `first` or of `second`, whichever ends first; `first` if both are ready. The other
/// is dropped with the returned future. Allocates nothing.
///
/// Cancel-safe as far as both are.
pub fn or<A, B>(first: A, second: B) -> Or<A, B>
where
    A: Future,
    B: Future<Output = A::Output>,
{
    Or { first, second }
}

pin_project! {
    /// The future of [`or`].
    #[derive(Debug)]
    #[must_use = "a future does nothing unless awaited"]
    pub struct Or<A, B> {
        #[pin]
        first: A,
        #[pin]
        second: B,
    }
}

impl<A, B> Future for Or<A, B>
where
    A: Future,
    B: Future<Output = A::Output>,
{
    type Output = A::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<A::Output> {
        let this = self.project();
        match this.first.poll(context) {
            Poll::Ready(output) => Poll::Ready(output),
            Poll::Pending => this.second.poll(context),
        }
    }
}
