//! The runtime's face: a builder, the threads it starts, and the way they end.
//!
//! Shard 0 is the thread that builds the runtime and calls [`Runtime::block_on`]; the other shards
//! have threads of their own. Above `driver/` these are the only files (with the store's access)
//! that know which engine runs: they start the threads.

mod builder;
mod connection;
mod ending;
mod handle;
mod outside;
mod pools;
mod shared;
mod threads;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

pub use self::builder::Builder;
pub(crate) use self::connection::spawn_connection;
pub use self::ending::ShutdownReport;
pub use self::handle::Handle;
pub(crate) use self::shared::Shared;
use self::threads::ShardThread;
use crate::driver::Wait;
use crate::engine::EngineReport;
use crate::error::{Error, Result};
use crate::metrics::Registry;
use crate::shard::placement::{self, Plan};
use crate::shard::remote::ShardHandle;
use crate::shard::{FOR_EVER, Shard, ShardId, context};

/// A runtime. Shard 0 is the thread that built it and makes progress only while that runs its loop:
/// in [`Runtime::block_on`], [`Runtime::run_forever`] or [`Runtime::turn`], one after the other and
/// as often as wanted until [`Runtime::close`]. A thread runs one loop at a time; other threads may
/// have runtimes of their own.
pub struct Runtime {
    shared: Arc<Shared>,
    report: EngineReport,
    plan: Plan,
    /// Shard 0; `None` once closed.
    home: RefCell<Option<Rc<Shard>>>,
    affinity: Cell<Option<placement::Pinned>>,
    threads: RefCell<Vec<ShardThread>>,
    teardown: Duration,
    /// Guards of [`Runtime::enter`].
    guards: Cell<usize>,
}

impl Runtime {
    /// A builder with the defaults: the best engine, every CPU.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// A runtime with the defaults.
    ///
    /// # Errors
    /// As [`Builder::build`].
    pub fn new() -> Result<Self> {
        Self::builder().build()
    }

    /// The engine that runs, why, and what it had to give up.
    pub fn report(&self) -> &EngineReport {
        &self.report
    }

    /// Where the threads sit.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The histograms and counters of all shards.
    pub fn metrics(&self) -> &Registry {
        &self.shared.registry
    }

    /// A handle for other threads.
    pub fn handle(&self) -> Handle {
        Handle { shared: Arc::clone(&self.shared) }
    }

    /// Runs `future` on the calling thread, as shard 0, until it ends. May be called again. Tasks
    /// that have not ended by then go on in the next call.
    ///
    /// Between two turns of the loop the future is polled, if it has been woken: behind the tasks
    /// that were woken with it.
    ///
    /// # Panics
    /// With the message of [`Runtime::try_block_on`]'s error, or if the driver fails for good.
    #[track_caller]
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.try_block_on(future).unwrap_or_else(|error| panic!("{error}"))
    }

    /// [`Runtime::block_on`] that says why it cannot run `future`, which is dropped then.
    ///
    /// # Errors `is_already_running` if a runtime runs on this thread, this one or another;
    /// `is_closed` after [`Runtime::close`].
    ///
    /// # Panics
    /// If the driver fails for good.
    pub fn try_block_on<F: Future>(&self, future: F) -> Result<F::Output> {
        self.run(|shard| shard.drive(future))
    }

    /// Runs the tasks of shard 0 on the calling thread until [`Handle::stop`] is called, by a task
    /// or from another thread. One turn is run in any case, and only that one if it has been called
    /// before. May be called again.
    ///
    /// # Errors
    /// As [`Runtime::try_block_on`], and if the driver fails for good.
    pub fn run_forever(&self) -> Result<()> {
        self.run(|shard| {
            loop {
                let limit = if self.shared.is_asked_to_stop() { Wait::No } else { FOR_EVER };
                let turned = shard.turn_alone(limit);
                turned.map_err(|errno| Error::io("turning shard 0", errno))?;
                if self.shared.take_stop() {
                    return Ok(());
                }
            }
        })?
    }

    /// Whether the loop of shard 0 runs now.
    pub fn is_running(&self) -> bool {
        self.shared.is_running()
    }

    /// Whether the runtime has been closed.
    pub fn is_closed(&self) -> bool {
        self.shared.is_stopping()
    }

    /// Makes this the runtime of the calling thread until the guard is dropped, without running its
    /// loop: tasks can be spawned, callbacks scheduled and listeners opened before it runs. Futures
    /// make no progress meanwhile.
    ///
    /// # Errors
    /// `is_already_running` if a runtime runs on this thread, or one is entered there; `is_closed`
    /// after [`Runtime::close`].
    pub fn enter(&self) -> Result<EnterGuard<'_>> {
        let shard = self.home()?;
        let installed = context::install(&shard)?;
        self.guards.set(self.guards.get() + 1);
        Ok(EnterGuard { runtime: self, shard, installed: Some(installed) })
    }

    fn home(&self) -> Result<Rc<Shard>> {
        let home = self.home.borrow().as_ref().map(Rc::clone);
        home.ok_or_else(|| Error::closed("the runtime"))
    }

    /// Has `body` turn shard 0.
    fn run<R>(&self, body: impl FnOnce(&Shard) -> R) -> Result<R> {
        let shard = self.home()?;
        let _entered = context::enter(&shard)?;
        self.shared.set_running(true);
        let _running = Running(&shard);
        Ok(body(&shard))
    }

    /// Runs `f` on every shard at once and returns what the futures yield, by shard. The futures
    /// need not be `Send`.
    ///
    /// # Errors
    /// `is_panicked` if one of them panicked on another shard.
    ///
    /// # Panics
    /// As [`Runtime::block_on`].
    pub fn run_on_all<F, Fut, R>(&self, f: F) -> Result<Vec<R>>
    where
        F: Fn(ShardId) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = R> + 'static,
        R: Send + 'static,
    {
        self.block_on(async {
            let mut others = Vec::new();
            for index in 1..self.shared.shards() {
                let (id, f) = (ShardId(index as u16), f.clone());
                let handle = ShardHandle::new(Arc::clone(&self.shared), id);
                let submit = async move { handle.submit(move || f(id)).await };
                others.push(crate::task::Builder::new().name("run on all").spawn(submit));
            }
            let mut values = vec![f(ShardId(0)).await];
            for other in others {
                values.push(other.await.map_err(Error::panicked)??);
            }
            Ok(values)
        })
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.end();
    }
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime").field("engine", &self.report.engine).finish_non_exhaustive()
    }
}

/// The loop of shard 0 runs while this lives.
struct Running<'a>(&'a Shard);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.leave_watched();
        self.0.recorder().flush();
        self.0.shared.set_running(false);
    }
}

/// Keeps a runtime entered ([`Runtime::enter`]).
#[must_use = "the runtime is left as soon as the guard is dropped"]
pub struct EnterGuard<'a> {
    runtime: &'a Runtime,
    shard: Rc<Shard>,
    /// `None` only while being dropped.
    installed: Option<context::Installed>,
}

impl Drop for EnterGuard<'_> {
    fn drop(&mut self) {
        if !context::is_running() {
            self.shard.leave_watched();
        }
        drop(self.installed.take());
        self.runtime.guards.set(self.runtime.guards.get() - 1);
    }
}

impl std::fmt::Debug for EnterGuard<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EnterGuard")
    }
}
