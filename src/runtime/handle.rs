//! A runtime as other threads, and its own tasks, see it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Shared;
use crate::blocking::Pool;
use crate::driver::InFlight;
use crate::error::{Error, Result};
use crate::metrics::Registry;
use crate::shard::remote::ShardHandle;
use crate::shard::{ShardId, context};
use crate::task::{self, PanicHook, TaskDump};

/// A runtime as other threads see it.
#[derive(Clone)]
pub struct Handle {
    pub(super) shared: Arc<Shared>,
}

impl Handle {
    /// The runtime of the calling task.
    ///
    /// # Panics
    /// Outside a runtime.
    pub fn current() -> Self {
        context::with(|shard| Self { shared: Arc::clone(&shard.shared) })
    }

    /// The runtime of the calling task or, between turns, the one entered by
    /// [`Runtime::enter`](super::Runtime::enter).
    ///
    /// # Errors
    /// `is_not_running` outside a runtime.
    pub fn try_current() -> Result<Self> {
        context::try_with(|shard| Self { shared: Arc::clone(&shard.shared) })
            .ok_or_else(Error::not_running)
    }

    /// Has [`Runtime::run_forever`](super::Runtime::run_forever) return once it has finished the
    /// turn that it runs; what is ready by then waits for the next run. One that begins after this
    /// runs a single turn. From a task or any thread; does nothing to a `block_on`.
    pub fn stop(&self) {
        self.shared.ask_to_stop();
    }

    /// Whether the loop of shard 0 runs now.
    pub fn is_running(&self) -> bool {
        self.shared.is_running()
    }

    /// Whether the runtime has been closed, or is about to be.
    pub fn is_closed(&self) -> bool {
        self.shared.is_stopping()
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.shared.shards()
    }

    /// One shard.
    ///
    /// # Panics
    /// If there is no such shard.
    pub fn shard(&self, id: ShardId) -> ShardHandle {
        ShardHandle::new(Arc::clone(&self.shared), id)
    }

    /// The pool for blocking calls, for threads outside of the runtime.
    pub fn blocking_pool(&self) -> Pool {
        self.shared.pools.blocking.clone()
    }

    /// The histograms and counters of all shards.
    pub fn metrics(&self) -> &Registry {
        &self.shared.registry
    }

    /// Begins to drain: listeners end, and receives end once what has arrived is consumed, as if
    /// every peer had finished sending. [`crate::shard::is_draining`] is true from now on.
    pub fn drain(&self) {
        self.shared.draining.store(true, Ordering::SeqCst);
        self.shared.connections.iter().for_each(|connections| connections.drain());
    }

    /// Connections that are open.
    pub fn connections(&self) -> usize {
        self.shared.open_streams()
    }

    /// The operations in flight on every shard, longest first.
    ///
    /// Cancel-safe: it only looks.
    ///
    /// # Errors
    /// `is_closed` if a shard has shut down.
    pub async fn in_flight(&self) -> Result<Vec<(ShardId, InFlight)>> {
        let mut list = Vec::new();
        for index in 0..self.shards() {
            let id = ShardId(index as u16);
            let dump = || context::with(|shard| shard.driver.borrow().in_flight());
            let operations = self.shard(id).call(dump).await?;
            list.extend(operations.into_iter().map(|operation| (id, operation)));
        }
        list.sort_by_key(|(_, operation)| std::cmp::Reverse(operation.age_ns));
        Ok(list)
    }

    /// What the tasks of every shard are doing, by shard and age. Under the `threads` engine each
    /// connection has a thread of its own, whose tasks are not in the list.
    ///
    /// Cancel-safe: it only looks.
    ///
    /// # Errors
    /// `is_closed` if a shard has shut down.
    pub async fn dump_tasks(&self) -> Result<Vec<TaskDump>> {
        let mut list = Vec::new();
        for index in 0..self.shards() {
            list.extend(self.shard(ShardId(index as u16)).call(task::dump).await?);
        }
        Ok(list)
    }

    /// Has `hook` hear of every panic of a task, callback or message, on the thread where it
    /// happened, instead of the log; gives back the hook before. The shard goes on in any case. A
    /// hook that panics itself is contained.
    pub fn set_panic_hook(&self, hook: Arc<PanicHook>) -> Option<Arc<PanicHook>> {
        self.shared.hooks.set_panic_hook(Some(hook))
    }

    /// The panic hook; `None` if panics go to the log.
    pub fn panic_hook(&self) -> Option<Arc<PanicHook>> {
        self.shared.hooks.panic_hook()
    }

    /// Has panics go to the log again; gives back the hook.
    pub fn take_panic_hook(&self) -> Option<Arc<PanicHook>> {
        self.shared.hooks.set_panic_hook(None)
    }

    /// From how long on a poll is logged with its task's name and spawn site, and counted.
    pub fn slow_poll(&self) -> Duration {
        Duration::from_nanos(self.shared.hooks.slow_poll_ns())
    }

    /// Sets it, for all shards ([`crate::limits::SLOW_POLL_NS`] by default).
    pub fn set_slow_poll(&self, limit: Duration) {
        self.shared.hooks.set_slow_poll(limit);
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("shards", &self.shards()).finish()
    }
}
