//! Every output, in input order.
//!
//! futures-util polls up to 30 futures all at once and gives each its own allocation and waker
//! beyond that. Here the futures are split into groups of that size, with one allocation and one
//! waker a group: few allocations for many futures, and a wake polls one group, not all of them.
//! Invariant: a group whose flag is not set has not been woken since it was last polled.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::future as small;
use futures_util::future::TryFuture;
use futures_util::task::AtomicWaker;

/// Futures in one group: futures-util keeps as many in one allocation.
const GROUP: usize = 30;

/// Awaits all futures at once, in this task, and gives their outputs in input order.
///
/// Cancel-safe as far as the futures are: dropping it drops those that have not ended, and the
/// outputs of those that have. With join handles the tasks go on.
///
/// A future may be polled when only a neighbour of it was woken.
pub fn join_all<I>(futures: I) -> JoinAll<I::Item>
where
    I: IntoIterator,
    I::Item: Future,
{
    JoinAll { groups: Groups::new(futures.into_iter(), small::join_all) }
}

/// Awaits all futures at once, in this task, and gives their values in input order, or the first
/// error as soon as it comes. Futures that have not ended are dropped then: a bare future is
/// cancelled, a join handle lets its task go on.
///
/// Cancel-safe as far as the futures are.
///
/// # Errors
/// The error that came first; of several at one poll, one of them.
pub fn try_join_all<I>(futures: I) -> TryJoinAll<I::Item>
where
    I: IntoIterator,
    I::Item: TryFuture,
{
    TryJoinAll { groups: Groups::new(futures.into_iter(), small::try_join_all) }
}

/// The future of [`join_all`].
#[must_use = "a future does nothing unless awaited"]
pub struct JoinAll<F: Future> {
    groups: Groups<small::JoinAll<F>, F::Output>,
}

impl<F: Future> Future for JoinAll<F> {
    type Output = Vec<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.groups.poll(context, Ok::<_, Infallible>).map(|Ok(outputs)| outputs)
    }
}

/// The future of [`try_join_all`].
#[must_use = "a future does nothing unless awaited"]
pub struct TryJoinAll<F: TryFuture> {
    groups: Groups<small::TryJoinAll<F>, F::Ok>,
}

impl<F: TryFuture> Future for TryJoinAll<F> {
    type Output = Result<Vec<F::Ok>, F::Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.groups.poll(context, |ended| ended)
    }
}

// Outputs lie in vectors and futures in boxes: nothing here is pinned in place.
impl<F: Future> Unpin for JoinAll<F> {}
impl<F: TryFuture> Unpin for TryJoinAll<F> {}

impl<F: Future> fmt::Debug for JoinAll<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinAll").finish_non_exhaustive()
    }
}

impl<F: TryFuture> fmt::Debug for TryJoinAll<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TryJoinAll").finish_non_exhaustive()
    }
}

/// Groups of futures in input order.
enum Groups<G, T> {
    /// Needs no waker of its own.
    One(G),
    Many(Many<G, T>),
    /// The outputs, or the first error, have been handed over.
    Ended,
}

impl<G: Future + Unpin, T> Groups<G, T> {
    fn new<I: Iterator>(mut futures: I, join: impl Fn(Vec<I::Item>) -> G) -> Self {
        let mut next_group = || futures.by_ref().take(GROUP).collect::<Vec<_>>();
        let first = next_group();
        if first.len() < GROUP {
            return Self::One(join(first));
        }
        let parent = Arc::new(AtomicWaker::new());
        let mut groups = vec![Group::new(join(first), &parent)];
        loop {
            let group = next_group();
            if group.is_empty() {
                let running = groups.len();
                return Self::Many(Many { groups, running, parent });
            }
            groups.push(Group::new(join(group), &parent));
        }
    }

    fn poll<E>(
        &mut self,
        context: &mut Context<'_>,
        check: impl Fn(G::Output) -> Result<Vec<T>, E>,
    ) -> Poll<Result<Vec<T>, E>> {
        let polled = match self {
            Self::One(group) => Pin::new(group).poll(context).map(check),
            Self::Many(many) => many.poll(context, check),
            Self::Ended => panic!("a join is not polled after its end"),
        };
        if polled.is_ready() {
            *self = Self::Ended;
        }
        polled
    }
}

struct Many<G, T> {
    groups: Vec<Group<G, T>>,
    running: usize,
    /// Wakes the task that awaits the join.
    parent: Arc<AtomicWaker>,
}

enum Group<G, T> {
    Running { join: G, signal: Arc<Signal>, waker: Waker },
    Ended(Vec<T>),
}

/// Whether a group was woken.
struct Signal {
    woken: AtomicBool,
    parent: Arc<AtomicWaker>,
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.woken.swap(true, Ordering::AcqRel) {
            self.parent.wake();
        }
    }
}

impl<G: Future + Unpin, T> Many<G, T> {
    fn poll<E>(
        &mut self,
        context: &mut Context<'_>,
        check: impl Fn(G::Output) -> Result<Vec<T>, E>,
    ) -> Poll<Result<Vec<T>, E>> {
        // Before the flags are looked at, so that a wake from another thread is not missed.
        self.parent.register(context.waker());
        for group in &mut self.groups {
            if let Poll::Ready(ended) = group.poll() {
                *group = Group::Ended(check(ended)?);
                self.running -= 1;
            }
        }
        if self.running > 0 {
            return Poll::Pending;
        }
        let mut outputs = Vec::with_capacity(self.groups.len() * GROUP);
        for group in &mut self.groups {
            if let Group::Ended(ended) = group {
                outputs.append(ended);
            }
        }
        Poll::Ready(Ok(outputs))
    }
}

impl<G: Future + Unpin, T> Group<G, T> {
    fn new(join: G, parent: &Arc<AtomicWaker>) -> Self {
        // As if woken, so that the first poll polls it.
        let signal = Signal { woken: AtomicBool::new(true), parent: Arc::clone(parent) };
        let signal = Arc::new(signal);
        Self::Running { join, waker: Waker::from(Arc::clone(&signal)), signal }
    }

    /// Ready when the group ends now; pending if it was not woken, or has ended before.
    fn poll(&mut self) -> Poll<G::Output> {
        match self {
            Self::Running { join, signal, waker } if signal.woken.swap(false, Ordering::AcqRel) => {
                Pin::new(join).poll(&mut Context::from_waker(waker))
            }
            _ => Poll::Pending,
        }
    }
}
