//! Tasks that do not outlive the block that spawns them.
//!
//! A scope is driven by whoever awaits it: it runs the body, joins the children, and cancels them
//! where a failure asks for it. Invariant: when the scope's future gives its result, every child
//! has ended and its future is dropped; when it is dropped, every child is aborted.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::gather::flatten;
use super::{AbortHandle, Builder, JoinSet, TaskError, TaskId};
use crate::sync::oneshot;

/// What a scope does when its body or a child fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnError {
    /// Drops the body at its await, aborts the other children, and awaits their ends.
    #[default]
    CancelRest,
    /// Lets the body and the other children come to their own ends, and reports then.
    AwaitRest,
}

/// [`scope_with`] that cancels the rest when one fails.
///
/// # Errors
/// As [`scope_with`].
pub async fn scope<T, E, Fut>(body: impl FnOnce(Scope<E>) -> Fut) -> Result<T, ScopeError<E>>
where
    E: 'static,
    Fut: Future<Output = Result<T, E>>,
{
    scope_with(OnError::CancelRest, body).await
}

/// Runs `body`, which may spawn children into the scope, and gives its value once every child has
/// ended as well. The body runs in the calling task and may borrow from it; children are tasks of
/// this shard and own what they use.
///
/// A body that panics counts as a failure: the panic goes on when the children have ended.
///
/// Cancel-safe in that nothing is left behind: if the scope is aborted or dropped, so is the body,
/// and every child is aborted (its future is dropped on the next turn).
///
/// # Errors
/// [`ScopeError`], with all that failed until every child had ended, if the body or a child gave an
/// error or a child panicked. A child that was cancelled has not failed.
///
/// ```
/// use annulus::{Runtime, task};
/// use std::io;
///
/// let sum = Runtime::new()?.block_on(task::scope(async |scope| {
///     let two = scope.spawn(async { Ok(2) });
///     scope.spawn(async { Ok(println!("runs beside it")) });
///     io::Result::Ok(1 + two.await.unwrap_or(0))
/// }));
/// assert_eq!(sum.unwrap(), 3);
/// # annulus::Result::Ok(())
/// ```
pub async fn scope_with<T, E, Fut>(
    on_error: OnError,
    body: impl FnOnce(Scope<E>) -> Fut,
) -> Result<T, ScopeError<E>>
where
    E: 'static,
    Fut: Future<Output = Result<T, E>>,
{
    let owner = Owner(Rc::default());
    let scope = Scope { state: Rc::clone(&owner.0) };
    let mut run = Run { state: &owner.0, on_error, ended: None, failures: Vec::new() };
    // Made inside, so that a panic of the closure is one of the body.
    let mut body = pin!(Some(async move { body(scope).await }));
    poll_fn(|context| run.poll(body.as_mut(), context)).await;
    match run.ended {
        Some(Err(panic)) => resume_unwind(panic),
        Some(Ok(value)) if run.failures.is_empty() => Ok(value),
        _ => Err(ScopeError { failures: run.failures }),
    }
}

/// A scope as its body and its children see it: where they spawn. A clone may go into a child.
pub struct Scope<E> {
    state: Rc<State<E>>,
}

struct State<E> {
    children: RefCell<JoinSet<Result<(), E>>>,
    /// No children are taken any more.
    is_closed: Cell<bool>,
    /// Wakes whoever awaits the scope, so that it looks at a new child.
    owner: RefCell<Option<Waker>>,
}

impl<E: 'static> Scope<E> {
    /// Spawns a child. Its error or panic is the scope's; its value goes to the handle, which may
    /// be dropped.
    ///
    /// In a scope that is ending after a failure, or has ended, the future is dropped and the
    /// handle gives `None`.
    ///
    /// # Panics
    /// Outside a runtime.
    #[track_caller]
    pub fn spawn<T, F>(&self, future: F) -> ScopedTask<T>
    where
        T: 'static,
        F: Future<Output = Result<T, E>> + 'static,
    {
        self.spawn_on(Builder::new(), future)
    }

    /// [`Scope::spawn`] with a name or a class.
    ///
    /// # Panics
    /// Outside a runtime.
    #[track_caller]
    pub fn spawn_on<T, F>(&self, builder: Builder, future: F) -> ScopedTask<T>
    where
        T: 'static,
        F: Future<Output = Result<T, E>> + 'static,
    {
        let (sender, value) = oneshot::channel();
        if self.state.is_closed.get() {
            return ScopedTask { value, task: None };
        }
        // Refused only if nobody waits for the value.
        let child = async move { future.await.map(|value| drop(sender.send(value))) };
        let task = builder.spawn(child);
        let abort = task.abort_handle();
        self.state.children.borrow_mut().insert(task);
        let owner = self.state.owner.take();
        owner.into_iter().for_each(Waker::wake);
        ScopedTask { value, task: Some(abort) }
    }

    /// Aborts the children that run now. That is no failure: the body goes on, and the scope gives
    /// its value. For children that serve the body and would never end by themselves.
    pub fn abort_children(&self) {
        self.state.children.borrow().abort_all();
    }

    /// Children that have not been seen to end.
    pub fn children(&self) -> usize {
        self.state.children.borrow().len()
    }
}

impl<E> Clone for Scope<E> {
    fn clone(&self) -> Self {
        Self { state: Rc::clone(&self.state) }
    }
}

impl<E> fmt::Debug for Scope<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("closed", &self.state.is_closed.get()).finish_non_exhaustive()
    }
}

impl<E> Default for State<E> {
    fn default() -> Self {
        Self {
            children: RefCell::default(),
            is_closed: Cell::new(false),
            owner: RefCell::default(),
        }
    }
}

/// Waits for the value of a child: `None` if it failed, panicked or was cancelled; the scope says
/// which. Dropping it changes nothing for the child, so it need not be used.
///
/// Cancel-safe.
pub struct ScopedTask<T> {
    value: oneshot::Receiver<T>,
    /// `None` if the scope took no children any more.
    task: Option<AbortHandle>,
}

impl<T> ScopedTask<T> {
    /// Ends the child at its current await, which is no failure of the scope. False if it had
    /// ended.
    pub fn abort(&self) -> bool {
        self.task.as_ref().is_some_and(AbortHandle::abort)
    }

    /// The child's identity, if the scope took it.
    pub fn id(&self) -> Option<TaskId> {
        self.task.as_ref().map(AbortHandle::id)
    }
}

impl<T> Future for ScopedTask<T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        Pin::new(&mut self.value).poll(context).map(Result::ok)
    }
}

impl<T> fmt::Debug for ScopedTask<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScopedTask").field("id", &self.id()).finish_non_exhaustive()
    }
}

/// Aborts the children on drop: for a scope that does not come to its end.
struct Owner<E>(Rc<State<E>>);

impl<E> Drop for Owner<E> {
    fn drop(&mut self) {
        self.0.is_closed.set(true);
        // Taken out first: what is dropped with it may look at the scope.
        let children = self.0.children.take();
        drop(children);
    }
}

/// A scope while it is awaited.
struct Run<'a, T, E> {
    state: &'a State<E>,
    on_error: OnError,
    /// The body's value or panic; `None` also after it failed or was dropped.
    ended: Option<Result<T, Box<dyn Any + Send>>>,
    failures: Vec<TaskError<E>>,
}

impl<T, E> Run<'_, T, E> {
    /// Ready when the body and all children have ended.
    fn poll<F>(&mut self, mut body: Pin<&mut Option<F>>, context: &mut Context<'_>) -> Poll<()>
    where
        F: Future<Output = Result<T, E>>,
    {
        loop {
            // Children first, so that a failed one ends the body before the body misses its value.
            let children = self.poll_children(context);
            if self.must_cancel() {
                self.state.is_closed.set(true);
                body.set(None);
                self.state.children.borrow().abort_all();
            }
            let Some(future) = body.as_mut().as_pin_mut() else {
                self.leave_waker(context);
                return children;
            };
            // What the body spawns needs to wake nobody: it is looked at right after.
            drop(self.state.owner.take());
            match catch_unwind(AssertUnwindSafe(|| future.poll(context))) {
                Ok(Poll::Pending) => {
                    let _ = self.poll_children(context);
                    if self.must_cancel() {
                        continue;
                    }
                    self.leave_waker(context);
                    return Poll::Pending;
                }
                Ok(Poll::Ready(Ok(value))) => self.ended = Some(Ok(value)),
                Ok(Poll::Ready(Err(error))) => self.failures.push(TaskError::Failed(error)),
                Err(panic) => self.ended = Some(Err(panic)),
            }
            body.set(None);
        }
    }

    /// Notes what the children ended with. Ready when none is left.
    fn poll_children(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            let polled = self.state.children.borrow_mut().poll_join_next(context);
            match polled {
                Poll::Ready(Some(ended)) => {
                    let failure = flatten(ended).err().filter(|error| !error.is_cancelled());
                    self.failures.extend(failure);
                }
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Whether a failure asks for an end that has not begun.
    fn must_cancel(&self) -> bool {
        let has_failed = !self.failures.is_empty() || matches!(self.ended, Some(Err(_)));
        has_failed && self.on_error == OnError::CancelRest && !self.state.is_closed.get()
    }

    fn leave_waker(&self, context: &Context<'_>) {
        let before = self.state.owner.replace(Some(context.waker().clone()));
        drop(before);
    }
}

/// What failed in a scope: at least one error or panic, in the order in which they were seen.
pub struct ScopeError<E> {
    failures: Vec<TaskError<E>>,
}

impl<E> ScopeError<E> {
    /// All failures, the first first: usually the cause of the others.
    pub fn failures(&self) -> &[TaskError<E>] {
        &self.failures
    }

    /// All failures, to keep.
    pub fn into_failures(self) -> Vec<TaskError<E>> {
        self.failures
    }

    /// The first error that was returned, if all did not panic.
    pub fn first_error(self) -> Option<E> {
        self.failures.into_iter().find_map(|failure| match failure {
            TaskError::Failed(error) => Some(error),
            TaskError::Join(_) => None,
        })
    }
}

impl<E: fmt::Display> fmt::Display for ScopeError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} failed in the scope: ", self.failures.len())?;
        for (index, failure) in self.failures.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{failure}")?;
        }
        Ok(())
    }
}

impl<E: fmt::Debug> fmt::Debug for ScopeError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ScopeError").field(&self.failures).finish()
    }
}

impl<E: std::error::Error + 'static> std::error::Error for ScopeError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.failures.first().map(|failure| failure as _)
    }
}
