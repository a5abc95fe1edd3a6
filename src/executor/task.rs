//! What a task is besides its future: its identity and class, how it can end, and the wrapper that
//! makes it end well.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::live::{Beginning, LiveTasks, TaskKey};

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
    panic: Option<Box<dyn Any + Send>>,
}

impl JoinError {
    pub(crate) fn cancelled() -> Self {
        Self { panic: None }
    }

    pub(crate) fn panicked(panic: Box<dyn Any + Send>) -> Self {
        Self { panic: Some(panic) }
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
        self.panic
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
            Some(panic) => write!(f, "the task panicked: {}", panic_message(&**panic)),
        }
    }
}

impl fmt::Debug for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinError({self})")
    }
}

impl std::error::Error for JoinError {}

/// A task's future: ends by abort, carries a panic to whoever joins, lets callbacks see the result
/// first, and leaves the live tasks when it is dropped.
pub(super) struct Tracked<F> {
    future: F,
    live: Rc<LiveTasks>,
    key: TaskKey,
}

impl<F> Tracked<F> {
    pub(super) fn new(future: F, live: Rc<LiveTasks>, key: TaskKey) -> Self {
        Self { future, live, key }
    }
}

impl<F: Future<Output: 'static>> Future for Tracked<F> {
    type Output = Result<F::Output, JoinError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let (live, key) = (Rc::clone(&self.live), self.key);
        let outer = match live.begin_poll(key) {
            Beginning::Plain => None,
            Beginning::WithLocals(outer) => Some(outer),
            Beginning::Aborted => return live.settle(key, Err(JoinError::cancelled()), context),
            Beginning::Settling => return live.run_callbacks(key, context),
        };
        // SAFETY: `future` is pinned with `self`: it is never moved out, `Tracked` has no Drop
        // code that moves it, and it is not `Unpin` when the future is not.
        let future = unsafe { self.map_unchecked_mut(|this| &mut this.future) };
        // A future that panicked is never polled again, so nobody sees its broken state.
        let polled = catch_unwind(AssertUnwindSafe(|| future.poll(context)));
        if let Some(outer) = outer {
            live.leave_locals(key, outer);
        }
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(value)) => live.settle(key, Ok(value), context),
            Err(panic) => {
                live.report_panic(key, &*panic);
                live.settle(key, Err(JoinError::panicked(panic)), context)
            }
        }
    }
}

impl<F> Drop for Tracked<F> {
    fn drop(&mut self) {
        self.live.leave(self.key);
    }
}
