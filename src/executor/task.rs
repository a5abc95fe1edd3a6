//! What a task carries besides its future: its class, its name, and its place in the live set.

use std::any::Any;
use std::cell::RefCell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
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

/// What lies beside a task's future for as long as anything refers to the task.
#[derive(Debug)]
pub(crate) struct Meta {
    pub(crate) info: TaskInfo,
    /// Set by [`abort`]; the next poll then drops the future.
    aborted: AtomicBool,
    place: AtomicUsize,
}

impl Meta {
    pub(super) fn new(info: TaskInfo) -> Self {
        Self { info, aborted: AtomicBool::new(false), place: AtomicUsize::new(usize::MAX) }
    }

    pub(super) fn set_place(&self, place: usize) {
        self.place.store(place, Ordering::Relaxed);
    }

    /// Asks the task to end at its next poll. Returns the waker to call for that, which the live
    /// set gives; `None` if the task has finished.
    pub(super) fn abort(&self, live: &Live) -> Option<Waker> {
        self.aborted.store(true, Ordering::Relaxed);
        live.borrow().get(self.place.load(Ordering::Relaxed)).cloned()
    }
}

/// How a task ended other than by its value.
pub(crate) enum Ended {
    Aborted,
    Panicked(Box<dyn Any + Send>),
}

/// The wakers of all tasks that have not finished, so that a shutdown can reach them.
pub(super) type Live = Rc<RefCell<Slab<Waker>>>;

/// A task's future: ends by abort, carries a panic to whoever joins, and leaves the live set when
/// it is dropped.
pub(super) struct Tracked<'a, F> {
    future: F,
    meta: &'a Meta,
    live: Live,
    place: usize,
}

impl<'a, F> Tracked<'a, F> {
    pub(super) fn new(future: F, meta: &'a Meta, live: Live, place: usize) -> Self {
        Self { future, meta, live, place }
    }
}

impl<F: Future> Future for Tracked<'_, F> {
    type Output = Result<F::Output, Ended>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.meta.aborted.load(Ordering::Relaxed) {
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

impl<F> Drop for Tracked<'_, F> {
    fn drop(&mut self) {
        // The waker is dropped after the set is released: its drop may drop other things.
        let waker = self.live.borrow_mut().try_remove(self.place);
        drop(waker);
    }
}
