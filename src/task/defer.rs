//! Closures that run in the next turn: [`defer`].
//!
//! Each is a small task that is done at its first poll, so that it stands in one line with the
//! tasks and, if it panics, is reported as they are.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;

use super::{Builder, JoinHandle};

/// Runs `callback` on this shard in the next turn, never inline, behind what is ready by now: what
/// is deferred first runs first. The callback runs whether or not the handle is kept.
///
/// One that panics ends like a task that panics; the shard lives on.
///
/// # Panics
/// Outside a runtime.
#[track_caller]
pub fn defer(callback: impl FnOnce() + 'static) -> CallbackHandle {
    let is_pending = Rc::new(Cell::new(true));
    let pending = Rc::clone(&is_pending);
    let body = async move {
        if pending.replace(false) {
            callback();
        }
    };
    let task = Builder::new().name("deferred").spawn(body);
    CallbackHandle { is_pending, task }
}

/// A callback that waits for the next turn. Dropping the handle leaves the callback as it is.
pub struct CallbackHandle {
    is_pending: Rc<Cell<bool>>,
    task: JoinHandle<()>,
}

impl CallbackHandle {
    /// Sees to it that the callback never runs; what the closure holds is dropped in the next turn.
    /// False if the callback has begun or had been cancelled.
    pub fn cancel(&self) -> bool {
        let was_pending = self.is_pending.replace(false);
        if was_pending {
            self.task.abort();
        }
        was_pending
    }

    /// Whether the callback is still to come.
    pub fn is_pending(&self) -> bool {
        self.is_pending.get()
    }
}

impl fmt::Debug for CallbackHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("CallbackHandle");
        debug.field("pending", &self.is_pending()).finish_non_exhaustive()
    }
}
