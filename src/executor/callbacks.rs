//! Callbacks on the end of a task: called once each, in the order of their registration, on the
//! turn after the end, and before whoever joins sees the result.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::task::Waker;

use super::live::LiveTasks;
use super::local::Locals;
use super::task::JoinError;

/// Names a callback of one task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallbackId(u64);

type Callback<T> = Box<dyn FnOnce(&Result<T, JoinError>)>;

struct Registered<T> {
    id: CallbackId,
    /// The locals of whoever registered it.
    locals: Option<Locals>,
    call: Callback<T>,
}

/// The callbacks of one task, and its result while they are called.
pub(crate) struct Callbacks<T> {
    list: RefCell<VecDeque<Registered<T>>>,
    registered: Cell<u64>,
    result: RefCell<Option<Result<T, JoinError>>>,
    /// Who waits for the result.
    joiner: Cell<Option<Waker>>,
    /// Whether a task is on its way that calls them, after the end.
    is_called_late: Cell<bool>,
}

/// Callbacks of a task whose type is not known here.
pub(super) trait AnyCallbacks {
    /// Drops them uncalled.
    fn clear(&self);
    fn into_any(self: Rc<Self>) -> Rc<dyn Any>;
}

impl<T: 'static> AnyCallbacks for Callbacks<T> {
    fn clear(&self) {
        // Dropped when nothing is borrowed: they may hold anything.
        drop(self.list.take());
    }

    fn into_any(self: Rc<Self>) -> Rc<dyn Any> {
        self
    }
}

impl<T> Default for Callbacks<T> {
    fn default() -> Self {
        Self {
            list: RefCell::default(),
            registered: Cell::new(0),
            result: RefCell::new(None),
            joiner: Cell::default(),
            is_called_late: Cell::default(),
        }
    }
}

impl<T> Callbacks<T> {
    pub(super) fn add(&self, locals: Option<Locals>, call: Callback<T>) -> CallbackId {
        let id = CallbackId(self.registered.get());
        self.registered.set(id.0 + 1);
        self.list.borrow_mut().push_back(Registered { id, locals, call });
        id
    }

    /// Takes a callback back. False if it has been called, or taken back before.
    pub(crate) fn remove(&self, id: CallbackId) -> bool {
        let mut list = self.list.borrow_mut();
        let place = list.iter().position(|registered| registered.id == id);
        let removed = place.and_then(|place| list.remove(place));
        drop(list);
        // Dropped when nothing is borrowed: it may hold anything.
        removed.is_some()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.borrow().is_empty()
    }

    /// Keeps the result for the callbacks.
    pub(crate) fn keep(&self, result: Result<T, JoinError>) {
        let before = self.result.replace(Some(result));
        assert!(before.is_none(), "a task ends once");
    }

    /// Calls what is registered now. The result, unless more has been registered meanwhile: then
    /// it is to be called again, on a later turn.
    pub(super) fn run(
        &self,
        panicked: impl Fn(&(dyn Any + Send)),
        live: &LiveTasks,
    ) -> Option<Result<T, JoinError>> {
        let count = self.list.borrow().len();
        for _ in 0..count {
            let Some(next) = self.list.borrow_mut().pop_front() else { break };
            let result = self.result.borrow();
            let result = result.as_ref().expect("callbacks run once there is a result");
            let before = live.replace_locals(next.locals);
            let called = catch_unwind(AssertUnwindSafe(|| (next.call)(result)));
            drop(live.replace_locals(before));
            if let Err(panic) = called {
                panicked(&*panic);
            }
        }
        if self.is_empty() { self.result.take() } else { None }
    }

    /// The result, once no callback is to see it any more; `joiner` is woken then.
    pub(crate) fn poll(&self, joiner: &Waker) -> Option<Result<T, JoinError>> {
        if self.is_empty()
            && let Ok(mut result) = self.result.try_borrow_mut()
            && result.is_some()
        {
            return result.take();
        }
        self.joiner.set(Some(joiner.clone()));
        None
    }

    /// Whether a task has to be started that calls them, after the end. Told once.
    pub(crate) fn needs_late_call(&self) -> bool {
        !self.is_called_late.replace(true)
    }

    /// [`Callbacks::run`] for a task that had ended before: true once all has been called.
    pub(super) fn run_late(&self, panicked: impl Fn(&(dyn Any + Send)), live: &LiveTasks) -> bool {
        // All may have been taken back meanwhile, and the result as well.
        if !self.is_empty() {
            let Some(result) = self.run(panicked, live) else { return false };
            self.keep(result);
        }
        self.is_called_late.set(false);
        if let Some(joiner) = self.joiner.take() {
            joiner.wake();
        }
        true
    }
}
