//! The tasks of an executor that have not finished: what is known of each, so that an abort, a
//! dump or a shutdown reaches it.
//!
//! Invariant: nothing foreign (a waker, a task, a callback) is called or dropped while the table is
//! borrowed.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use slab::Slab;

use super::callbacks::{AnyCallbacks, Callbacks};
use super::hooks::Hooks;
use super::local::Locals;
use super::task::{JoinError, TaskId, TaskInfo, panic_message};
use crate::clock::Instant;
use crate::metrics::{self, Counter};

/// Names a task among those of its executor that have not finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TaskKey {
    place: u32,
    id: TaskId,
}

impl TaskKey {
    pub(crate) fn id(self) -> TaskId {
        self.id
    }
}

/// What few tasks have.
#[derive(Default)]
struct Extras {
    locals: Option<Locals>,
    /// `Callbacks<T>` of the task's own `T`.
    callbacks: Option<Rc<dyn AnyCallbacks>>,
    /// It has ended; its callbacks run at its next poll.
    settling: bool,
}

struct LiveTask {
    info: TaskInfo,
    /// With a reference: it keeps a task alive that nobody else could wake.
    waker: Waker,
    spawned: Instant,
    polls: u32,
    aborted: bool,
    /// Nobody holds its handle.
    detached: bool,
    /// Its future is gone; the entry stays until the poll in which that happened is accounted for.
    over: bool,
    extras: Option<Box<Extras>>,
}

impl LiveTask {
    /// Drops the entry, when nothing is borrowed: a waker's drop may drop other things. Callbacks
    /// that were not called, because of a shutdown, may hold their own task's handle.
    fn forget(self) {
        if let Some(callbacks) = self.extras.and_then(|extras| extras.callbacks) {
            callbacks.clear();
        }
    }
}

/// A live task as a dump shows it.
pub(crate) struct LiveView {
    pub(crate) info: TaskInfo,
    pub(crate) running: bool,
    pub(crate) polls: u32,
    pub(crate) spawned: Instant,
    pub(crate) waker: Waker,
}

/// How a poll begins.
pub(super) enum Beginning {
    Running,
    /// The task is to end instead.
    Aborted,
    /// It has ended; its callbacks are to see the result.
    Settling,
}

pub(super) struct LiveTasks {
    tasks: RefCell<Slab<LiveTask>>,
    spawned: Cell<u64>,
    /// The task that is being polled.
    running: Cell<Option<TaskKey>>,
    /// Locals of whoever runs: the task that is being polled, or the main future.
    locals: RefCell<Option<Locals>>,
    /// Whether any local has ever been set here: until then none is looked for.
    uses_locals: Cell<bool>,
    pub(super) hooks: Arc<Hooks>,
}

impl LiveTasks {
    pub(super) fn new(hooks: Arc<Hooks>) -> Rc<Self> {
        static EXECUTORS: AtomicU64 = AtomicU64::new(0);
        let ordinal = EXECUTORS.fetch_add(1, Ordering::Relaxed);
        Rc::new(Self {
            tasks: RefCell::default(),
            spawned: Cell::new(ordinal << TaskId::COUNT_BITS),
            running: Cell::default(),
            locals: RefCell::default(),
            uses_locals: Cell::default(),
            hooks,
        })
    }

    pub(super) fn count(&self) -> usize {
        self.tasks.borrow().len()
    }

    /// An identity for the next task.
    pub(super) fn next_id(&self) -> TaskId {
        let id = TaskId(self.spawned.get() + 1);
        self.spawned.set(id.0);
        id
    }

    /// Takes a place for the task that `make` makes around its key, with the waker that reaches it.
    pub(super) fn insert<R>(
        &self,
        mut info: TaskInfo,
        now: Instant,
        make: impl FnOnce(TaskKey) -> (R, Waker),
    ) -> (R, TaskKey) {
        if info.id == TaskId(0) {
            info.id = self.next_id();
        }
        let id = info.id;
        let extras = self.inherited();
        let mut tasks = self.tasks.borrow_mut();
        let entry = tasks.vacant_entry();
        let key = TaskKey { place: entry.key() as u32, id };
        let (made, waker) = make(key);
        entry.insert(LiveTask {
            info,
            waker,
            spawned: now,
            polls: 0,
            aborted: false,
            detached: false,
            over: false,
            extras,
        });
        (made, key)
    }

    /// What a new task has from the one that spawns it: a copy of its locals.
    fn inherited(&self) -> Option<Box<Extras>> {
        let locals = self.locals()?;
        Some(Box::new(Extras { locals: Some(locals), ..Extras::default() }))
    }

    fn with<R>(&self, key: TaskKey, f: impl FnOnce(&mut LiveTask) -> R) -> Option<R> {
        let mut tasks = self.tasks.borrow_mut();
        let task = tasks.get_mut(key.place as usize)?;
        (task.info.id == key.id && !task.over).then(|| f(task))
    }

    /// A task is about to be polled.
    pub(super) fn begin_poll(&self, key: TaskKey) -> Beginning {
        self.running.set(Some(key));
        let mut tasks = self.tasks.borrow_mut();
        let task = &mut tasks[key.place as usize];
        task.polls = task.polls.saturating_add(1);
        match &task.extras {
            Some(extras) if extras.settling => Beginning::Settling,
            _ if task.aborted => Beginning::Aborted,
            _ => Beginning::Running,
        }
    }

    /// Puts a task's locals in the place of those of whoever ran before, which are given back.
    pub(super) fn enter_locals(&self, key: TaskKey) -> Option<Locals> {
        if !self.uses_locals.get() {
            return None;
        }
        let own = self.with(key, |task| task.extras.as_mut()?.locals.take()).flatten();
        self.locals.replace(own)
    }

    /// The locals are the task's own again, and those before are back.
    pub(super) fn leave_locals(&self, key: TaskKey, outer: Option<Locals>) {
        // Asked again: they may have been used for the first time since.
        if !self.uses_locals.get() {
            return;
        }
        let own = self.locals.replace(outer);
        if let Some(own) = own {
            self.with(key, |task| task.extras.get_or_insert_default().locals = Some(own));
        }
    }

    /// What a poll accounts for has been accounted for: nothing runs now.
    pub(super) fn end_run(&self) {
        let Some(key) = self.running.take() else { return };
        let mut tasks = self.tasks.borrow_mut();
        if tasks.get(key.place as usize).is_some_and(|task| task.over && task.info.id == key.id) {
            let task = tasks.remove(key.place as usize);
            drop(tasks);
            task.forget();
        }
    }

    /// A task's future is dropped.
    pub(super) fn leave(&self, key: TaskKey) {
        let mut tasks = self.tasks.borrow_mut();
        if self.running.get() == Some(key) {
            tasks[key.place as usize].over = true;
            return;
        }
        let task = tasks.try_remove(key.place as usize);
        drop(tasks);
        task.into_iter().for_each(LiveTask::forget);
    }

    /// A task has ended. It is ready, unless callbacks are to see the result first, at its next
    /// poll.
    pub(super) fn settle<T: 'static>(
        &self,
        key: TaskKey,
        result: Result<T, JoinError>,
        context: &mut Context<'_>,
    ) -> Poll<Result<T, JoinError>> {
        match self.callbacks::<T>(key) {
            Some(callbacks) if !callbacks.is_empty() => {
                callbacks.keep(result);
                self.with(key, |task| task.extras.get_or_insert_default().settling = true);
                context.waker().wake_by_ref();
                Poll::Pending
            }
            _ => Poll::Ready(result),
        }
    }

    /// Has the callbacks of a task that has ended see its result.
    pub(super) fn run_callbacks<T: 'static>(
        &self,
        key: TaskKey,
        context: &mut Context<'_>,
    ) -> Poll<Result<T, JoinError>> {
        let callbacks = self.callbacks::<T>(key).expect("a task settles that has callbacks");
        let info = self.running_info();
        match callbacks.run(|panic| self.hooks.panicked(info.as_ref(), panic), self) {
            Some(result) => Poll::Ready(result),
            None => {
                context.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    /// The callbacks that a live task has.
    fn callbacks<T: 'static>(&self, key: TaskKey) -> Option<Rc<Callbacks<T>>> {
        let callbacks = self.with(key, |task| task.extras.as_ref()?.callbacks.clone())??;
        Some(callbacks.into_any().downcast().expect("callbacks are of their task's type"))
    }

    /// Gives a live task callbacks. False if it has finished.
    pub(super) fn set_callbacks(&self, key: TaskKey, callbacks: Rc<dyn AnyCallbacks>) -> bool {
        self.with(key, |task| {
            task.extras.get_or_insert_default().callbacks = Some(callbacks);
        })
        .is_some()
    }

    /// A task has panicked in its poll.
    pub(super) fn report_panic(&self, key: TaskKey, panic: &(dyn Any + Send)) {
        let seen = self.with(key, |task| (task.info.clone(), task.detached));
        let Some((info, detached)) = seen else { return };
        self.hooks.panicked(Some(&info), panic);
        if detached {
            unobserved(info.id(), panic);
        }
    }

    /// Nobody holds the task's handle any more.
    pub(super) fn detach(&self, key: TaskKey) {
        self.with(key, |task| task.detached = true);
    }

    /// Marks a task as aborted and gives the waker to call then; `None` if it has ended.
    pub(super) fn abort(&self, key: TaskKey) -> Option<Waker> {
        self.with(key, |task| {
            if task.extras.as_ref().is_some_and(|extras| extras.settling) {
                return None;
            }
            task.aborted = true;
            Some(task.waker.clone())
        })?
    }

    /// [`LiveTasks::abort`] of the task that is being polled.
    pub(super) fn abort_running(&self) -> Option<Waker> {
        self.running.get().and_then(|key| self.abort(key))
    }

    pub(super) fn wakers(&self) -> Vec<Waker> {
        self.tasks.borrow().iter().map(|(_, task)| task.waker.clone()).collect()
    }

    /// Whether the task is being polled right now.
    pub(super) fn is_running(&self, key: TaskKey) -> bool {
        self.running.get() == Some(key)
    }

    /// The task that is being polled.
    pub(super) fn running_info(&self) -> Option<TaskInfo> {
        let key = self.running.get()?;
        self.tasks.borrow().get(key.place as usize).map(|task| task.info.clone())
    }

    /// A live task's info.
    pub(super) fn info(&self, key: TaskKey) -> Option<TaskInfo> {
        self.with(key, |task| task.info.clone())
    }

    /// All live tasks, oldest first.
    pub(super) fn views(&self) -> Vec<LiveView> {
        let running = self.running.get().map(|key| key.id);
        let tasks = self.tasks.borrow();
        let live = tasks.iter().filter(|(_, task)| !task.over);
        let mut views: Vec<_> = live
            .map(|(_, task)| LiveView {
                info: task.info.clone(),
                running: running == Some(task.info.id),
                polls: task.polls,
                spawned: task.spawned,
                waker: task.waker.clone(),
            })
            .collect();
        views.sort_by_key(|view| view.info.id);
        views
    }

    /// A copy of the locals of whoever runs.
    pub(super) fn locals(&self) -> Option<Locals> {
        if self.uses_locals.get() { self.locals.borrow().clone() } else { None }
    }

    /// Puts locals in the place of those of whoever runs, which are given back.
    pub(super) fn replace_locals(&self, locals: Option<Locals>) -> Option<Locals> {
        if locals.is_some() {
            self.uses_locals.set(true);
        }
        self.locals.replace(locals)
    }
}

/// Says that a task panicked and that nobody will ever ask it how it ended. Which task it was has
/// been said when it panicked.
pub(crate) fn unobserved(task: TaskId, panic: &(dyn Any + Send)) {
    metrics::add(Counter::TaskPanicsUnobserved, 1);
    tracing::error!(
        %task,
        message = panic_message(panic),
        "a task panicked and nobody looked: await its handle, or handle the error inside"
    );
}
