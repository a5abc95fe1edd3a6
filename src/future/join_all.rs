//! Every output, in input order.
//!
//! futures-util polls up to 30 futures all at once and gives each its own allocation and waker
//! beyond that. Here the futures are split into small groups, with one allocation and one waker
//! each: few allocations for many futures, and a wake polls one group, not all of them.
//! Invariant: a group whose bit is not set has not been woken since it was last polled.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::iter::{Peekable, Take};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::future as small;
use futures_util::future::TryFuture;
use futures_util::task::AtomicWaker;

/// Futures in one group. More of them make fewer allocations, fewer make fewer polls of futures that
/// were not woken.
const GROUP: usize = 16;

/// Futures that need no groups: futures-util keeps as many in one allocation.
const ALONE: usize = 30;

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
    JoinAll { groups: Groups::new(futures.into_iter(), |group| small::join_all(group)) }
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
    TryJoinAll { groups: Groups::new(futures.into_iter(), |group| small::try_join_all(group)) }
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
    fn new<I: Iterator>(futures: I, join: impl Fn(Take<&mut Peekable<I>>) -> G) -> Self {
        let mut futures = futures.peekable();
        if futures.size_hint().1.is_some_and(|most| most <= ALONE) {
            return Self::One(join(futures.by_ref().take(ALONE)));
        }
        let mut groups = Vec::with_capacity(futures.size_hint().0.div_ceil(GROUP));
        while futures.peek().is_some() {
            groups.push(join(futures.by_ref().take(GROUP)));
        }
        Self::Many(Many::new(groups))
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
    signals: Arc<Signals>,
}

enum Group<G, T> {
    Running { join: G, waker: Waker },
    Ended(Vec<T>),
}

/// Which groups were woken, and the task to wake then.
struct Signals {
    /// A bit for each group.
    woken: Box<[AtomicU64]>,
    task: AtomicWaker,
}

/// Wakes one group.
struct Signal {
    group: usize,
    signals: Arc<Signals>,
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let bit = 1 << (self.group % 64);
        let before = self.signals.woken[self.group / 64].fetch_or(bit, Ordering::AcqRel);
        if before & bit == 0 {
            self.signals.task.wake();
        }
    }
}

impl<G: Future + Unpin, T> Many<G, T> {
    fn new(joins: Vec<G>) -> Self {
        // All woken, so that the first poll polls them; the last word may have bits to spare.
        let all = |word: usize| u64::MAX >> (64 - (joins.len() - word * 64).min(64));
        let woken = (0..joins.len().div_ceil(64)).map(|word| AtomicU64::new(all(word))).collect();
        let signals = Arc::new(Signals { woken, task: AtomicWaker::new() });
        let running = joins.len();
        let with_waker = |(group, join)| {
            let signal = Signal { group, signals: Arc::clone(&signals) };
            Group::Running { join, waker: Waker::from(Arc::new(signal)) }
        };
        let groups = joins.into_iter().enumerate().map(with_waker).collect();
        Self { groups, running, signals }
    }

    fn poll<E>(
        &mut self,
        context: &mut Context<'_>,
        check: impl Fn(G::Output) -> Result<Vec<T>, E>,
    ) -> Poll<Result<Vec<T>, E>> {
        // Before the bits are looked at, so that a wake from another thread is not missed.
        self.signals.task.register(context.waker());
        for (word, woken) in self.signals.woken.iter().enumerate() {
            if woken.load(Ordering::Acquire) == 0 {
                continue;
            }
            let mut bits = woken.swap(0, Ordering::AcqRel);
            while bits != 0 {
                let group = &mut self.groups[word * 64 + bits.trailing_zeros() as usize];
                bits &= bits - 1;
                if let Group::Running { join, waker } = group
                    && let Poll::Ready(ended) = Pin::new(join).poll(&mut Context::from_waker(waker))
                {
                    *group = Group::Ended(check(ended)?);
                    self.running -= 1;
                }
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
