//! The shard of the calling thread: how the layers above reach driver, executor and timers.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::Ordering;

use super::{Shard, ShardId};
use crate::clock::{self, Instant};
use crate::error::{Error, Result};
use crate::{executor, metrics};

thread_local! {
    static CURRENT: RefCell<Option<Rc<Shard>>> = const { RefCell::new(None) };
    /// Whether a shard's loop runs on this thread.
    static RUNNING: Cell<bool> = const { Cell::new(false) };
    /// What was uninstalled while a loop ran above it: left when that has returned.
    static UNINSTALLED: RefCell<Option<Entered>> = const { RefCell::new(None) };
}

/// Leaves the shard on drop; the one before, if any, is back then.
pub(crate) struct Entered {
    before: Option<Rc<Shard>>,
    /// Where the thread's clock had been paused.
    clock_before: Option<Instant>,
    _executor: executor::Entered,
    _metrics: metrics::Entered,
}

/// A shard whose loop runs on the calling thread. Leaves it on drop.
pub(crate) struct Running(Option<Entered>);

/// Makes `shard` the shard of the calling thread, to run its loop. An error if a loop runs there.
pub(crate) fn enter(shard: &Rc<Shard>) -> Result<Running> {
    if RUNNING.replace(true) {
        return Err(Error::already_running());
    }
    Ok(Running(Some(enter_instead(shard))))
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.take());
        RUNNING.set(false);
        drop(UNINSTALLED.take());
    }
}

/// A shard that is the calling thread's while its loop does not run. Leaves it on drop.
pub(crate) struct Installed(Option<Entered>);

/// Makes `shard` the shard of the calling thread, outside its loop. An error if there is one.
pub(crate) fn install(shard: &Rc<Shard>) -> Result<Installed> {
    if is_entered() {
        return Err(Error::already_running());
    }
    Ok(Installed(Some(enter_instead(shard))))
}

impl Drop for Installed {
    fn drop(&mut self) {
        let entered = self.0.take();
        if is_running() {
            UNINSTALLED.set(entered);
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        // While a shard is entered its time is the thread's. The one left may be the one before.
        let paused_at = clock::pause_at(None);
        let before = self.before.take();
        let left = CURRENT.replace(before.as_ref().map(Rc::clone));
        if let Some(shard) = &left {
            shard.paused_at.set(paused_at);
        }
        clock::pause_at(match &before {
            Some(shard) => shard.paused_at.get(),
            None => self.clock_before,
        });
        drop(left);
    }
}

/// Makes `shard` the shard of the calling thread, in the place of the one that may be there.
pub(crate) fn enter_instead(shard: &Rc<Shard>) -> Entered {
    let before = CURRENT.replace(Some(Rc::clone(shard)));
    let clock_before = clock::pause_at(None);
    if let Some(before) = &before {
        before.paused_at.set(clock_before);
    }
    clock::pause_at(shard.paused_at.get());
    Entered {
        before,
        clock_before,
        _executor: shard.executor.enter(),
        _metrics: metrics::enter(Rc::clone(shard.recorder())),
    }
}

/// What the panic says when a future is polled on another shard than the one it was begun on.
pub(crate) const OF_ANOTHER_SHARD: &str = "this future was begun in another runtime, whose timers \
    and operations only that one performs: poll it where it was first polled";

/// Whether this shard runs on the calling thread.
pub(crate) fn is_current(shard: &Rc<Shard>) -> bool {
    try_with(|current| Rc::ptr_eq(current, shard)).unwrap_or(false)
}

/// Whether this thread has a shard, whether or not that runs.
pub(crate) fn is_entered() -> bool {
    CURRENT.try_with(|current| current.borrow().is_some()).unwrap_or(false)
}

/// Whether a shard's loop runs on this thread.
pub(crate) fn is_running() -> bool {
    RUNNING.try_with(Cell::get).unwrap_or(false)
}

/// Calls `f` with this thread's shard.
///
/// # Panics
/// Outside a runtime.
#[inline]
pub(crate) fn with<R>(f: impl FnOnce(&Rc<Shard>) -> R) -> R {
    CURRENT.with_borrow(|current| match current {
        Some(shard) => f(shard),
        None => panic!(
            "no annulus runtime on this thread: call this inside Runtime::block_on, or reach a \
             shard from elsewhere by Runtime::handle"
        ),
    })
}

/// Calls `f` with this thread's shard, if there is one: for `Drop` code, which may run late.
#[inline]
pub(crate) fn try_with<R>(f: impl FnOnce(&Rc<Shard>) -> R) -> Option<R> {
    CURRENT.try_with(|current| current.borrow().as_ref().map(f)).ok().flatten()
}

/// The shard that the calling task runs on.
///
/// # Panics
/// Outside a runtime.
pub fn current() -> ShardId {
    with(|shard| shard.id())
}

/// How many shards the runtime has.
///
/// # Panics
/// Outside a runtime.
pub fn count() -> usize {
    with(|shard| shard.shared.shards())
}

/// Whether the runtime is draining: no new connections, receives end. Services finish what they
/// have in hand.
///
/// # Panics
/// Outside a runtime.
pub fn is_draining() -> bool {
    with(|shard| shard.shared.draining.load(Ordering::Relaxed))
}

/// What the tasks of the calling shard hold of it: for tests that nothing is left behind.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Tasks that have not finished.
    pub tasks: usize,
    /// Timers, armed and fired.
    pub timers: usize,
    /// Received chunks and datagrams.
    pub leases: usize,
}

/// Counts what is held.
///
/// # Panics
/// Outside a runtime.
#[doc(hidden)]
pub fn held() -> Held {
    with(|shard| Held {
        tasks: shard.executor.tasks().len(),
        timers: shard.timers.borrow().count(),
        leases: shard.driver.borrow().leases(),
    })
}
