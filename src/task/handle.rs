//! Handles of a task: join, abort, look, and be called back.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

use async_task::FallibleTask;

use super::dump::TaskState;
use crate::executor::{
    self, CallbackId, Callbacks, Executor, JoinError, TaskId, TaskInfo, TaskKey, unobserved,
};
use crate::shard::{Shard, ShardId, context};

type Joined<T> = FallibleTask<Result<T, JoinError>, executor::Home>;

/// Where the result of a task is.
enum Inner<T> {
    /// With the task, which runs or has ended.
    Task(Joined<T>),
    /// Here: somebody looked how the task ended.
    Ended(Result<T, JoinError>),
    /// With callbacks that came after the end; they see it first.
    Late(Rc<Callbacks<T>>),
    /// Given away.
    Taken,
}

/// Waits for a task. Dropping it leaves the task running.
///
/// Cancel-safe: a handle that is awaited by reference (`(&mut handle).await`) keeps the result when
/// the wait is dropped.
#[must_use = "a task runs without its handle, but then nobody sees how it ends; detach it"]
pub struct JoinHandle<T> {
    inner: RefCell<Inner<T>>,
    callbacks: RefCell<Option<Rc<Callbacks<T>>>>,
    /// How the task ended, once somebody has seen its result.
    end: Cell<Option<TaskState>>,
    key: TaskKey,
    shard: ShardId,
    /// Not `Send`: an abort is for the executor that the task lives on.
    home: Weak<Executor>,
}

impl<T: 'static> JoinHandle<T> {
    pub(super) fn spawn<F>(shard: &Shard, info: TaskInfo, future: F) -> Self
    where
        F: Future<Output = T> + 'static,
    {
        let (task, key) = shard.executor.spawn(info, future);
        Self {
            inner: RefCell::new(Inner::Task(task.fallible())),
            callbacks: RefCell::new(None),
            end: Cell::new(None),
            key,
            shard: shard.id(),
            home: Rc::downgrade(&shard.executor),
        }
    }

    /// Has `call` called with the result once the task has ended, on the turn after that and before
    /// the result goes to whoever joins; never inline. Callbacks are called once, in the order of
    /// their registration, each with the task locals of whoever registered it; one that panics is
    /// reported as a task that panics. On a task that has ended they run on the next turn. A
    /// shutdown of the runtime calls none.
    ///
    /// # Panics
    /// Outside a runtime, or if the result has been taken.
    pub fn on_complete(&self, call: impl FnOnce(&Result<T, JoinError>) + 'static) -> CallbackId {
        assert!(
            !matches!(*self.inner.borrow(), Inner::Taken),
            "on_complete after the result was taken: register before joining"
        );
        let executor = context::with(|shard| Rc::clone(&shard.executor));
        let callbacks = Rc::clone(self.callbacks.borrow_mut().get_or_insert_default());
        let id = executor.add_callback(&callbacks, call);
        if !executor.set_callbacks(self.key, Rc::clone(&callbacks)) {
            self.call_late(callbacks);
        }
        id
    }

    /// Has a task call the callbacks that came after the end.
    fn call_late(&self, callbacks: Rc<Callbacks<T>>) {
        self.look();
        let mut inner = self.inner.borrow_mut();
        if let Inner::Ended(_) = *inner {
            let late = Inner::Late(Rc::clone(&callbacks));
            let Inner::Ended(result) = std::mem::replace(&mut *inner, late) else {
                unreachable!("matched above")
            };
            callbacks.keep(result);
        }
        drop(inner);
        if callbacks.needs_late_call() {
            let run = async move {
                let executor = context::with(|shard| Rc::clone(&shard.executor));
                while !executor.run_callbacks(&callbacks) {
                    super::yield_now().await;
                }
            };
            super::Builder::new().name("callbacks").spawn(run).detach();
        }
    }

    /// Takes a callback back. False if it has been called, or taken back before.
    pub fn remove_callback(&self, id: CallbackId) -> bool {
        let callbacks = self.callbacks.borrow();
        callbacks.as_ref().is_some_and(|callbacks| callbacks.remove(id))
    }
}

impl<T> JoinHandle<T> {
    /// Ends the task at its current await: its future is dropped on the next turn. False if it had
    /// ended.
    pub fn abort(&self) -> bool {
        abort(&self.home, self.key)
    }

    /// A handle that can abort the task and nothing else.
    pub fn abort_handle(&self) -> AbortHandle {
        AbortHandle { home: Weak::clone(&self.home), key: self.key }
    }

    /// Lets the task run without anyone who waits for it.
    pub fn detach(self) {
        drop(self);
    }

    /// Whether the task has ended, in whatever way.
    pub fn is_finished(&self) -> bool {
        match &*self.inner.borrow() {
            Inner::Task(task) => task.is_finished(),
            Inner::Ended(_) | Inner::Late(_) | Inner::Taken => true,
        }
    }

    /// The result if the task has ended, without waiting; it is given away once. `None` while the
    /// task runs, and while callbacks are to see the result first.
    ///
    /// # Panics
    /// If the result has been taken.
    pub fn try_join(&mut self) -> Option<Result<T, JoinError>> {
        match self.take(Waker::noop()) {
            Poll::Ready(result) => Some(result),
            Poll::Pending => None,
        }
    }

    /// What the task is about, and how it ended if it has.
    pub fn state(&self) -> TaskState {
        if self.home.upgrade().is_some_and(|executor| executor.is_running(self.key)) {
            return TaskState::Running;
        }
        self.look();
        self.end.get().unwrap_or(TaskState::Pending)
    }

    /// The task's identity.
    pub fn id(&self) -> TaskId {
        self.key.id()
    }

    /// The shard that the task runs on.
    pub fn shard_id(&self) -> ShardId {
        self.shard
    }

    /// Name, spawn site and class, as long as the task has not ended.
    pub fn info(&self) -> Option<TaskInfo> {
        self.home.upgrade()?.info(self.key)
    }

    /// Takes the result over from the task, if it has ended.
    fn look(&self) {
        let mut inner = self.inner.borrow_mut();
        if let Inner::Task(task) = &mut *inner
            && task.is_finished()
            && let Poll::Ready(result) = poll_task(task, &mut Context::from_waker(Waker::noop()))
        {
            self.end.set(Some(state_of(&result)));
            *inner = Inner::Ended(result);
        }
    }

    fn take(&mut self, waker: &Waker) -> Poll<Result<T, JoinError>> {
        let inner = self.inner.get_mut();
        let polled = match inner {
            Inner::Task(task) => poll_task(task, &mut Context::from_waker(waker)),
            Inner::Late(callbacks) => callbacks.poll(waker).map_or(Poll::Pending, Poll::Ready),
            Inner::Ended(_) => {
                let Inner::Ended(result) = std::mem::replace(inner, Inner::Taken) else {
                    unreachable!("matched above")
                };
                return Poll::Ready(result);
            }
            Inner::Taken => panic!("the task's result has been taken: join a task once"),
        };
        if let Poll::Ready(result) = &polled {
            self.end.set(Some(state_of(result)));
            *inner = Inner::Taken;
        }
        polled
    }
}

fn state_of<T>(result: &Result<T, JoinError>) -> TaskState {
    match result {
        Ok(_) => TaskState::Finished,
        Err(error) if error.is_cancelled() => TaskState::Cancelled,
        Err(_) => TaskState::Panicked,
    }
}

fn poll_task<T>(task: &mut Joined<T>, context: &mut Context<'_>) -> Poll<Result<T, JoinError>> {
    // `None`: dropped by a shutdown.
    let polled = Pin::new(task).poll(context);
    polled.map(|ended| ended.unwrap_or_else(|| Err(JoinError::cancelled())))
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.take(context.waker())
    }
}

impl<T> Unpin for JoinHandle<T> {}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        let ended = match std::mem::replace(self.inner.get_mut(), Inner::Taken) {
            Inner::Taken | Inner::Late(_) => return,
            Inner::Ended(result) => Some(result),
            Inner::Task(mut task) if task.is_finished() => {
                match poll_task(&mut task, &mut Context::from_waker(Waker::noop())) {
                    Poll::Ready(result) => Some(result),
                    Poll::Pending => None,
                }
            }
            Inner::Task(task) => {
                if let Some(executor) = self.home.upgrade() {
                    executor.detach(self.key);
                }
                task.detach();
                None
            }
        };
        if let Some(Err(error)) = ended
            && let Some(panic) = error.into_panic()
        {
            unobserved(self.key.id(), &*panic);
        }
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle")
            .field("id", &self.key.id())
            .field("finished", &self.is_finished())
            .finish_non_exhaustive()
    }
}

/// Aborts one task. Holds neither the task nor its result.
#[derive(Clone)]
pub struct AbortHandle {
    home: Weak<Executor>,
    key: TaskKey,
}

impl AbortHandle {
    /// As [`JoinHandle::abort`].
    pub fn abort(&self) -> bool {
        abort(&self.home, self.key)
    }

    /// The task's identity.
    pub fn id(&self) -> TaskId {
        self.key.id()
    }
}

impl fmt::Debug for AbortHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AbortHandle({})", self.key.id())
    }
}

fn abort(home: &Weak<Executor>, key: TaskKey) -> bool {
    home.upgrade().is_some_and(|executor| executor.abort(key))
}
