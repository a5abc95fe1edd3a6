//! What a task is besides its future: its identity and class, how it can end, and the wrapper that
//! makes it end well.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use super::live::{Beginning, LiveTasks, TaskKey};
use crate::error::Error;

/// The scheduling class of a task. Under load each class gets time by its share; without load
/// there is no difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Class {
    /// Somebody waits for each step of it.
    Latency,
    /// Everything else.
    #[default]
    Normal,
    /// May wait: upkeep, prefetching, expiry.
    Background,
}

impl Class {
    pub(crate) const ALL: [Class; 3] = [Class::Latency, Class::Normal, Class::Background];

    /// Parts of the shard's time under load, relative to the other classes.
    pub(crate) const fn share(self) -> u64 {
        match self {
            Class::Latency => 16,
            Class::Normal => 8,
            Class::Background => 1,
        }
    }

    /// What a nanosecond of it counts: the more, the smaller its share.
    pub(super) const fn weight(self) -> u64 {
        Class::Latency.share() / self.share()
    }
}

/// Names a task among all that this process has ever spawned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(pub(super) u64);

impl TaskId {
    /// Bits that count the tasks of one executor; those above count the executors.
    pub(super) const COUNT_BITS: u32 = 40;
}

impl fmt::Display for TaskId {
    /// `3.17`: the 17th task of the third executor of this process.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0 & ((1 << Self::COUNT_BITS) - 1);
        write!(f, "{}.{count}", self.0 >> Self::COUNT_BITS)
    }
}

/// A name that costs nothing to make where it is a literal. Shared otherwise: infos are copied.
#[derive(Clone)]
enum Name {
    Static(&'static str),
    Shared(Arc<str>),
}

/// A task's identity, name, spawn site and class.
#[derive(Clone)]
pub struct TaskInfo {
    pub(super) id: TaskId,
    name: Name,
    location: &'static Location<'static>,
    class: Class,
}

impl TaskInfo {
    /// What is known before the executor gives the task its identity.
    pub(crate) fn new(
        name: Cow<'static, str>,
        class: Class,
        location: &'static Location<'static>,
    ) -> Self {
        let name = match name {
            Cow::Borrowed(name) => Name::Static(name),
            Cow::Owned(name) => Name::Shared(name.into()),
        };
        Self { id: TaskId(0), name, location, class }
    }

    /// Its identity.
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// The name given at spawn, or an empty one.
    pub fn name(&self) -> &str {
        match &self.name {
            Name::Static(name) => name,
            Name::Shared(name) => name,
        }
    }

    /// Where it was spawned.
    pub fn location(&self) -> &'static Location<'static> {
        self.location
    }

    /// Its scheduling class.
    pub fn class(&self) -> Class {
        self.class
    }
}

impl fmt::Debug for TaskInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TaskInfo({self})")
    }
}

impl fmt::Display for TaskInfo {
    /// `name#id (file:line:column)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{} ({})", self.name(), self.id, self.location)
    }
}

/// Why a task gave no value: it was cancelled, or it panicked.
pub struct JoinError {
    panic: Option<Panic>,
}

/// What a panic carried, in a mutex, so that an error that holds it is `Sync` and fits where errors
/// go.
pub(crate) struct Panic(Mutex<Box<dyn Any + Send>>);

impl Panic {
    pub(crate) fn new(payload: Box<dyn Any + Send>) -> Self {
        Self(Mutex::new(payload))
    }

    /// Its text, as `panic!` makes it.
    pub(crate) fn message(&self) -> String {
        panic_message(&**self.0.lock().unwrap_or_else(PoisonError::into_inner)).to_owned()
    }

    pub(crate) fn into_payload(self) -> Box<dyn Any + Send> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl JoinError {
    pub(crate) fn cancelled() -> Self {
        Self { panic: None }
    }

    pub(crate) fn panicked(payload: Box<dyn Any + Send>) -> Self {
        Self { panic: Some(Panic::new(payload)) }
    }

    /// Aborted, or dropped by a shutdown.
    pub fn is_cancelled(&self) -> bool {
        self.panic.is_none()
    }

    /// Ended by a panic.
    pub fn is_panic(&self) -> bool {
        self.panic.is_some()
    }

    /// What the task panicked with, for [`std::panic::resume_unwind`].
    pub fn into_panic(self) -> Option<Box<dyn Any + Send>> {
        self.panic.map(Panic::into_payload)
    }
}

/// The text of a panic, as `panic!` makes it.
pub(crate) fn panic_message(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a value that is no text")
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.panic {
            None => f.write_str("the task was cancelled"),
            Some(panic) => write!(f, "the task panicked: {}", panic.message()),
        }
    }
}

impl fmt::Debug for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinError({self})")
    }
}

impl std::error::Error for JoinError {}

impl From<JoinError> for Error {
    fn from(error: JoinError) -> Self {
        match error.panic {
            None => Error::cancelled("the task"),
            Some(panic) => Error::panicked(panic.message()),
        }
    }
}

/// A task's future: ends by abort, carries a panic to whoever joins, lets callbacks see the result
/// first, and leaves the live tasks when it is dropped.
pub(super) struct Tracked<F> {
    /// `None` once it has ended: it is dropped in the poll that ends it, before anyone hears of it.
    future: Option<F>,
    live: Rc<LiveTasks>,
    key: TaskKey,
}

impl<F> Tracked<F> {
    pub(super) fn new(future: F, live: Rc<LiveTasks>, key: TaskKey) -> Self {
        Self { future: Some(future), live, key }
    }

    /// Drops the future where it lies. What panics in there costs this task, and nobody else.
    fn drop_future(&mut self) {
        let dropped = catch_unwind(AssertUnwindSafe(|| self.future = None));
        if let Err(panic) = dropped {
            self.live.report_panic(self.key, &*panic);
        }
    }
}

impl<F: Future> Tracked<F> {
    /// Polls the future, and drops it if that was its last poll.
    fn step(
        self: Pin<&mut Self>,
        aborted: bool,
        context: &mut Context<'_>,
    ) -> Poll<Result<F::Output, JoinError>> {
        // SAFETY: the future is pinned with `self`: it is never moved, only dropped in its place,
        // and `Tracked` is not `Unpin` when the future is not.
        let this = unsafe { self.get_unchecked_mut() };
        let future = this.future.as_mut().expect("a task is not polled after its end");
        let polled = if aborted {
            Poll::Ready(Err(JoinError::cancelled()))
        } else {
            // SAFETY: as above.
            let future = unsafe { Pin::new_unchecked(future) };
            // A future that panicked is never polled again, so nobody sees its broken state.
            match catch_unwind(AssertUnwindSafe(|| future.poll(context))) {
                Ok(polled) => polled.map(Ok),
                Err(panic) => {
                    this.live.report_panic(this.key, &*panic);
                    Poll::Ready(Err(JoinError::panicked(panic)))
                }
            }
        };
        if polled.is_ready() {
            this.drop_future();
        }
        polled
    }
}

impl<F: Future<Output: 'static>> Future for Tracked<F> {
    type Output = Result<F::Output, JoinError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let (live, key) = (Rc::clone(&self.live), self.key);
        let aborted = match live.begin_poll(key) {
            Beginning::Running => false,
            Beginning::Aborted => true,
            Beginning::Settling => return live.run_callbacks(key, context),
        };
        let outer = live.enter_locals(key);
        let polled = self.step(aborted, context);
        live.leave_locals(key, outer);
        match polled {
            Poll::Pending => Poll::Pending,
            Poll::Ready(result) => live.settle(key, result, context),
        }
    }
}

impl<F> Drop for Tracked<F> {
    fn drop(&mut self) {
        if self.future.is_some() {
            // Dropped at the await it stands at, by a shutdown.
            let outer = self.live.enter_locals(self.key);
            self.drop_future();
            self.live.leave_locals(self.key, outer);
        }
        self.live.leave(self.key);
    }
}
