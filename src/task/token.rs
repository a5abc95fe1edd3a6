//! Cancellation that a task takes part in: it is told, and ends when it is ready to.
//!
//! A token may be cancelled from any thread, and has one lock for the few words that it guards.
//! Invariant: the flag and the lists change under the lock; wakers are called, and dropped, outside
//! of it.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use slab::Slab;

/// Asks tasks to end. Clones are the same token; a child is cancelled with its parent but not the
/// other way round. May be used from any thread, inside a runtime or not.
///
/// It only asks: whoever does not look runs on. To end a task at its next await whatever it does,
/// [`super::JoinHandle::abort`].
///
/// ```
/// use annulus::{Runtime, task::{self, CancellationToken}};
/// use std::future::pending;
///
/// Runtime::new()?.block_on(async {
///     let stop = CancellationToken::new();
///     let child = stop.child_token();
///     let worker = task::spawn(async move {
///         child.run_until_cancelled(pending::<()>()).await;
///         "cleaned up"
///     });
///     stop.cancel();
///     assert_eq!(worker.await.unwrap(), "cleaned up");
/// });
/// # annulus::Result::Ok(())
/// ```
#[derive(Clone, Default)]
pub struct CancellationToken {
    node: Arc<Node>,
}

#[derive(Default)]
struct Node {
    /// Set under the lock, read without it.
    cancelled: AtomicBool,
    lists: Mutex<Lists>,
    /// The parent and this node's place there. It keeps the ancestors alive: one of them may be
    /// cancelled although nobody holds those in between.
    parent: Option<(Arc<Node>, usize)>,
}

#[derive(Default)]
struct Lists {
    waiters: Slab<Waker>,
    children: Slab<Weak<Node>>,
}

impl Node {
    fn new(cancelled: bool, parent: Option<(Arc<Node>, usize)>) -> Self {
        Self { cancelled: AtomicBool::new(cancelled), lists: Mutex::default(), parent }
    }

    fn lock(&self) -> MutexGuard<'_, Lists> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// Cancels this node alone; what is left to do is handed back.
    fn cancel(&self) -> Lists {
        let mut lists = self.lock();
        self.cancelled.store(true, Ordering::Release);
        std::mem::take(&mut *lists)
    }

    /// Adds a waiter or renews its waker. False if the token is cancelled.
    fn wait(&self, place: &mut Option<usize>, waker: &Waker) -> bool {
        let new = waker.clone();
        let mut lists = self.lock();
        if self.is_cancelled() {
            *place = None;
            return false;
        }
        let old = match *place {
            Some(place) => Some(std::mem::replace(&mut lists.waiters[place], new)),
            None => {
                *place = Some(lists.waiters.insert(new));
                None
            }
        };
        drop(lists);
        drop(old);
        true
    }

    fn forget_waiter(&self, place: usize) {
        let mut lists = self.lock();
        // A cancel has emptied the list, and nobody is added after it.
        let waker = lists.waiters.try_remove(place);
        drop(lists);
        drop(waker);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // A loop, so that a long line of ancestors does not drop by recursion.
        let mut parent = self.parent.take();
        while let Some((node, place)) = parent {
            let child = node.lock().children.try_remove(place);
            drop(child);
            parent = Arc::into_inner(node).and_then(|mut node| node.parent.take());
        }
    }
}

impl CancellationToken {
    /// A token that is not cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// A token that is cancelled with this one, at once if this one is cancelled already.
    /// Cancelling it leaves this one alone.
    #[must_use]
    pub fn child_token(&self) -> Self {
        let mut lists = self.node.lock();
        if self.node.is_cancelled() {
            return Self { node: Arc::new(Node::new(true, None)) };
        }
        // Listed and alive before the lock is given back: a cancel does not miss it.
        let entry = lists.children.vacant_entry();
        let parent = Some((Arc::clone(&self.node), entry.key()));
        let node = Arc::new(Node::new(false, parent));
        entry.insert(Arc::downgrade(&node));
        Self { node }
    }

    /// Cancels this token and its children: wakes all that wait for them. A second call does
    /// nothing.
    pub fn cancel(&self) {
        let mut open = vec![self.node.cancel()];
        while let Some(lists) = open.pop() {
            lists.waiters.into_iter().for_each(|(_, waker)| waker.wake());
            let children = lists.children.into_iter().filter_map(|(_, child)| child.upgrade());
            open.extend(children.map(|child| child.cancel()));
        }
    }

    /// Whether this token or one that it descends from has been cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.node.is_cancelled()
    }

    /// Waits until the token is cancelled.
    ///
    /// Cancel-safe: dropped, it leaves no waiter behind.
    pub fn cancelled(&self) -> Cancelled {
        Cancelled { node: Arc::clone(&self.node), place: None }
    }

    /// Awaits `future` unless and until the token is cancelled: `None` then, and the future is
    /// dropped at its await. A cancel goes first: once it is seen the future is not polled any
    /// more, even if it would be ready.
    ///
    /// Cancel-safe as far as the future is.
    pub async fn run_until_cancelled<F: Future>(&self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        let mut cancelled = self.cancelled();
        poll_fn(|context| match Pin::new(&mut cancelled).poll(context) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => future.as_mut().poll(context).map(Some),
        })
        .await
    }

    /// A guard that cancels the token when it is dropped.
    pub fn drop_guard(self) -> DropGuard {
        DropGuard { token: Some(self) }
    }

    #[cfg(test)]
    fn listed(&self) -> (usize, usize) {
        let lists = self.node.lock();
        (lists.waiters.len(), lists.children.len())
    }
}

impl fmt::Debug for CancellationToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cancelled = self.is_cancelled();
        f.debug_struct("CancellationToken").field("cancelled", &cancelled).finish_non_exhaustive()
    }
}

/// The future of [`CancellationToken::cancelled`]. It keeps its token.
#[must_use = "a future does nothing unless awaited"]
pub struct Cancelled {
    node: Arc<Node>,
    place: Option<usize>,
}

impl Future for Cancelled {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        // Without the lock for the common case of a token that is asked again and again.
        if this.node.is_cancelled() || !this.node.wait(&mut this.place, context.waker()) {
            this.place = None;
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

impl Drop for Cancelled {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            self.node.forget_waiter(place);
        }
    }
}

impl fmt::Debug for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cancelled = self.node.is_cancelled();
        f.debug_struct("Cancelled").field("cancelled", &cancelled).finish_non_exhaustive()
    }
}

/// Cancels its token on drop, unless disarmed.
#[derive(Debug)]
#[must_use = "dropping the guard cancels its token"]
pub struct DropGuard {
    token: Option<CancellationToken>,
}

impl DropGuard {
    /// Gives the token back, not cancelled.
    pub fn disarm(mut self) -> CancellationToken {
        self.token.take().expect("it is there until the guard is disarmed or dropped")
    }
}

impl Drop for DropGuard {
    fn drop(&mut self) {
        if let Some(token) = &self.token {
            token.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(cancelled: &mut Cancelled) -> Poll<()> {
        Pin::new(cancelled).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_wait_that_is_dropped_leaves_no_waiter() {
        let token = CancellationToken::new();
        let mut one = token.cancelled();
        let mut two = token.cancelled();
        assert!(poll(&mut one).is_pending());
        assert!(poll(&mut one).is_pending());
        assert!(poll(&mut two).is_pending());
        assert_eq!(token.listed(), (2, 0));
        drop(one);
        assert_eq!(token.listed(), (1, 0));
        token.cancel();
        assert_eq!(token.listed(), (0, 0));
        assert!(poll(&mut two).is_ready());
        assert!(poll(&mut token.cancelled()).is_ready());
    }

    #[test]
    fn a_child_that_is_dropped_leaves_its_parent() {
        let token = CancellationToken::new();
        let child = token.child_token();
        let grandchild = child.child_token();
        drop(child);
        assert_eq!(token.listed(), (0, 1), "the grandchild is reached through it");
        token.cancel();
        assert!(grandchild.is_cancelled());
        let token = CancellationToken::new();
        let grandchild = token.child_token().child_token();
        drop(grandchild);
        assert_eq!(token.listed(), (0, 0));
    }

    #[test]
    fn a_long_line_of_children_is_cancelled_and_dropped() {
        const LENGTH: usize = 200_000;
        let first = CancellationToken::new();
        let mut last = first.child_token();
        for _ in 0..LENGTH {
            last = last.child_token();
        }
        first.cancel();
        assert!(last.is_cancelled());
        assert!(last.child_token().is_cancelled());
    }

    #[test]
    fn a_child_made_during_a_cancel_is_not_missed() {
        for _ in 0..2000 {
            let token = CancellationToken::new();
            let parent = token.clone();
            let cancelling = std::thread::spawn(move || parent.cancel());
            let children: Vec<_> = (0..50).map(|_| token.child_token()).collect();
            cancelling.join().unwrap();
            assert!(children.iter().all(CancellationToken::is_cancelled));
        }
    }

    #[test]
    fn a_token_may_cross_threads() {
        fn may_cross<T: Send + Sync + Unpin>() {}
        may_cross::<CancellationToken>();
        may_cross::<Cancelled>();
        may_cross::<DropGuard>();
    }
}
