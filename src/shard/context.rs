//! The shard of the calling thread: how the layers above reach driver, executor and timers.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use super::{Shard, ShardId};
use crate::clock::{self, Instant};
use crate::error::{Error, Result};
use crate::{executor, metrics};

thread_local! {
    static CURRENT: RefCell<Option<Rc<Shard>>> = const { RefCell::new(None) };
}

/// Leaves the shard on drop; the one before, if any, is back then.
pub(crate) struct Entered {
    before: Option<Rc<Shard>>,
    /// Where the thread's clock had been paused.
    clock_before: Option<Instant>,
    _executor: executor::Entered,
    _metrics: metrics::Entered,
}

/// Makes `shard` the shard of the calling thread. An error if there is one already.
pub(crate) fn enter(shard: &Rc<Shard>) -> Result<Entered> {
    if is_entered() {
        return Err(Error::already_running());
    }
    Ok(enter_instead(shard))
}

impl Drop for Entered {
    fn drop(&mut self) {
        let paused_at = clock::pause_at(self.clock_before);
        let left = CURRENT.replace(self.before.take());
        if let Some(shard) = &left {
            shard.paused_at.set(paused_at);
        }
        drop(left);
    }
}

/// Makes `shard` the shard of the calling thread, in the place of the one that may be there.
pub(crate) fn enter_instead(shard: &Rc<Shard>) -> Entered {
    let before = CURRENT.replace(Some(Rc::clone(shard)));
    Entered {
        before,
        clock_before: clock::pause_at(shard.paused_at.get()),
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

/// Whether a shard runs on this thread.
pub(crate) fn is_entered() -> bool {
    CURRENT.try_with(|current| current.borrow().is_some()).unwrap_or(false)
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
