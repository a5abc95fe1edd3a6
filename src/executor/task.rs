//! What a task carries besides its future: its class, its name, and its place in the live set.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use slab::Slab;

use crate::metrics::{self, Counter};

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
}

/// A task's name, spawn site and class.
#[derive(Clone, Copy, Debug)]
pub struct TaskInfo {
    name: &'static str,
    location: &'static Location<'static>,
    class: Class,
}

impl TaskInfo {
    pub(crate) fn new(
        name: &'static str,
        class: Class,
        location: &'static Location<'static>,
    ) -> Self {
        Self { name, location, class }
    }

    /// The name given at spawn, or an empty one.
    pub fn name(&self) -> &'static str {
        self.name
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

/// How a task ended other than by its value.
pub(crate) enum Ended {
    Aborted,
    Panicked(Box<dyn Any + Send>),
}

/// Names a task among those of its executor that have not finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TaskKey {
    place: usize,
    number: u64,
}

struct LiveTask {
    number: u64,
    waker: Waker,
    aborted: bool,
}

/// The tasks of an executor that have not finished, so that an abort or a shutdown reaches them.
#[derive(Default)]
pub(super) struct LiveTasks {
    tasks: RefCell<Slab<LiveTask>>,
    spawned: Cell<u64>,
}

impl LiveTasks {
    pub(super) fn count(&self) -> usize {
        self.tasks.borrow().len()
    }

    /// Takes a place for a task about to be made; its waker follows.
    pub(super) fn reserve(&self) -> TaskKey {
        let number = self.spawned.get() + 1;
        self.spawned.set(number);
        let task = LiveTask { number, waker: Waker::noop().clone(), aborted: false };
        TaskKey { place: self.tasks.borrow_mut().insert(task), number }
    }

    pub(super) fn set_waker(&self, key: TaskKey, waker: Waker) {
        self.tasks.borrow_mut()[key.place].waker = waker;
    }

    pub(super) fn wakers(&self) -> Vec<Waker> {
        self.tasks.borrow().iter().map(|(_, task)| task.waker.clone()).collect()
    }

    /// Marks a task as aborted and gives the waker to call then; `None` if it has finished.
    pub(super) fn abort(&self, key: TaskKey) -> Option<Waker> {
        let mut tasks = self.tasks.borrow_mut();
        let task = tasks.get_mut(key.place).filter(|task| task.number == key.number)?;
        task.aborted = true;
        Some(task.waker.clone())
    }

    fn is_aborted(&self, key: TaskKey) -> bool {
        self.tasks.borrow()[key.place].aborted
    }

    fn remove(&self, key: TaskKey) {
        let task = self.tasks.borrow_mut().try_remove(key.place);
        // Dropped when nothing is borrowed: a waker's drop may drop other things.
        drop(task);
    }
}

/// A task's future: ends by abort, carries a panic to whoever joins, and leaves the live tasks when
/// it is dropped.
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

impl<F: Future> Future for Tracked<F> {
    type Output = Result<F::Output, Ended>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.live.is_aborted(self.key) {
            return Poll::Ready(Err(Ended::Aborted));
        }
        // SAFETY: `future` is pinned with `self`: it is never moved out, `Tracked` has no Drop
        // code that moves it, and it is not `Unpin` when the future is not.
        let future = unsafe { self.map_unchecked_mut(|this| &mut this.future) };
        // A future that panicked is never polled again, so nobody sees its broken state.
        match catch_unwind(AssertUnwindSafe(|| future.poll(context))) {
            Ok(poll) => poll.map(Ok),
            Err(panic) => {
                metrics::add(Counter::TaskPanics, 1);
                Poll::Ready(Err(Ended::Panicked(panic)))
            }
        }
    }
}

impl<F> Drop for Tracked<F> {
    fn drop(&mut self) {
        self.live.remove(self.key);
    }
}
