//! The runtime's face: a builder, the threads it starts, and the way they end.
//!
//! Shard 0 is the thread that builds the runtime and calls [`Runtime::block_on`]; the other shards
//! have threads of their own. Above `driver/` this is the only file (with the store's access) that
//! knows which engine runs: it starts the threads.

mod builder;
mod handle;
mod pools;

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

pub use self::builder::Builder;
pub use self::handle::Handle;
use self::pools::Pools;
use slab::Slab;

use crate::clock;
use crate::driver::{BufferSettings, Choice, InFlight, Leaked};
use crate::engine::EngineReport;
use crate::error::{Errno, Error, Result};
use crate::executor::Hooks;
use crate::metrics::Registry;
use crate::shard::connections::Connections;
use crate::shard::placement::{self, Plan};
use crate::shard::remote::{Remote, ShardHandle};
use crate::shard::topology::CpuId;
use crate::shard::{Shard, ShardId, context};

/// What all threads of a runtime share.
pub(crate) struct Shared {
    choice: Choice,
    buffers: BufferSettings,
    shards: usize,
    /// Set once every shard has been built.
    remotes: OnceLock<Box<[Arc<Remote>]>>,
    connections: Box<[Arc<Connections>]>,
    pub(crate) registry: Registry,
    pub(crate) pools: Pools,
    pub(crate) hooks: Arc<Hooks>,
    pub(crate) draining: AtomicBool,
    stopping: AtomicBool,
    /// Whether the clock stands still while the one shard works.
    paused_clock: bool,
    /// Jobs on other threads for which it stands still as well.
    clock_holds: AtomicUsize,
    /// Threads of single connections (the `threads` engine), by what wakes them.
    connection_threads: Mutex<Slab<Waker>>,
}

impl Shared {
    fn new(
        choice: Choice,
        buffers: BufferSettings,
        shards: usize,
        registry: Registry,
        pools: Pools,
        paused_clock: bool,
    ) -> Self {
        Self {
            choice,
            buffers,
            shards,
            remotes: OnceLock::new(),
            connections: (0..shards).map(|_| Arc::default()).collect(),
            registry,
            pools,
            hooks: Arc::default(),
            draining: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            paused_clock,
            clock_holds: AtomicUsize::new(0),
            connection_threads: Mutex::default(),
        }
    }

    pub(crate) fn shards(&self) -> usize {
        self.shards
    }

    pub(crate) fn remote(&self, id: ShardId) -> &Arc<Remote> {
        let remotes = self.remotes.get().expect("shards run only after all have been built");
        &remotes[id.index()]
    }

    pub(crate) fn connections(&self, id: ShardId) -> &Arc<Connections> {
        &self.connections[id.index()]
    }

    /// Whether the runtime ends: nobody falls asleep any more.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    pub(crate) fn has_paused_clock(&self) -> bool {
        self.paused_clock
    }

    /// Whether a paused clock may not move. What a job sent before it let go is visible after this.
    pub(crate) fn is_clock_held(&self) -> bool {
        self.clock_holds.load(Ordering::Acquire) > 0
    }

    pub(crate) fn hold_clock(&self) {
        self.clock_holds.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn release_clock(&self) {
        self.clock_holds.fetch_sub(1, Ordering::Release);
        // The shard may wait without a deadline until the clock may move.
        self.remote(ShardId(0)).nudge();
    }

    fn connection_threads(&self) -> MutexGuard<'_, Slab<Waker>> {
        self.connection_threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_streams(&self) -> usize {
        self.connections.iter().map(|connections| connections.streams()).sum()
    }
}

fn new_shard(shared: &Arc<Shared>, id: ShardId, has_lanes: bool) -> Result<Rc<Shard>> {
    Shard::new(id, Arc::clone(shared), &shared.choice, shared.buffers, has_lanes)
        .map_err(|errno| Error::io(format!("building shard {}", id.0), errno))
}

type ShardThread = thread::JoinHandle<Leaked>;

/// Starts the thread of one shard and waits until the shard is built.
fn start_shard(
    shared: &Arc<Shared>,
    id: ShardId,
    seat: Option<CpuId>,
    teardown: Duration,
) -> Result<(ShardThread, Arc<Remote>)> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let shared = Arc::clone(shared);
    let body = move || {
        if let Some(cpu) = seat
            && !placement::pin_current_thread(cpu)
        {
            tracing::warn!(shard = id.0, cpu = cpu.0, "the shard could not be pinned");
        }
        let shard = match new_shard(&shared, id, true) {
            Ok(shard) => shard,
            Err(error) => {
                drop(sender.send(Err(error)));
                return Leaked::default();
            }
        };
        if sender.send(Ok(Arc::clone(shard.remote()))).is_err() {
            return Leaked::default();
        }
        // All shards are built before the first runs.
        while shared.remotes.get().is_none() && !shared.stopping.load(Ordering::Relaxed) {
            thread::park();
        }
        run_shard(shard, teardown)
    };
    let thread = thread::Builder::new()
        .name(format!("annulus-{}", id.0))
        .spawn(body)
        .map_err(|error| Error::io("starting a shard's thread", Errno::from_io(&error)))?;
    match receiver.recv() {
        Ok(built) => Ok((thread, built?)),
        Err(_) => Err(Error::panicked(format!("shard {} while it was built", id.0))),
    }
}

/// The life of a shard's thread: turns until the runtime stops.
fn run_shard(shard: Rc<Shard>, teardown: Duration) -> Leaked {
    let Ok(entered) = context::enter(&shard) else { unreachable!("the thread is new") };
    let turns = || {
        while !shard.shared.is_stopping() {
            if let Err(errno) = shard.turn(true) {
                tracing::error!(shard = shard.id().0, %errno, "the driver failed; the shard ends");
                break;
            }
        }
    };
    if catch_unwind(AssertUnwindSafe(turns)).is_err() {
        tracing::error!(shard = shard.id().0, "the shard's loop panicked; the shard ends");
    }
    shard.cancel_tasks();
    drop(entered);
    shard.shut_down(clock::now() + teardown)
}

/// A running runtime. Shard 0 makes progress only inside [`Runtime::block_on`].
pub struct Runtime {
    shared: Arc<Shared>,
    report: EngineReport,
    plan: Plan,
    /// Shard 0; `None` once shut down.
    home: Option<Rc<Shard>>,
    affinity: Option<placement::Pinned>,
    threads: Vec<ShardThread>,
    teardown: Duration,
    leaked: Vec<InFlight>,
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

    /// Runs `future` on the calling thread, as shard 0, until it ends. May be called again.
    ///
    /// # Panics
    /// Inside a runtime, or if the driver fails for good.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        let shard = self.home.as_ref().expect("shard 0 is there until the runtime is shut down");
        let entered = context::enter(shard);
        let _entered = entered.unwrap_or_else(|error| panic!("{error}"));
        shard.drive(future)
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

    /// Ends the runtime: cancels all tasks, then all operations, and waits for the kernel to be
    /// done with them until the teardown deadline. Dropping a runtime does the same without the
    /// report.
    pub fn shut_down(mut self) -> ShutdownReport {
        self.end();
        ShutdownReport { leaked: std::mem::take(&mut self.leaked) }
    }

    fn end(&mut self) {
        // Deadlines of the end are real ones, also inside a runtime whose clock stands still.
        let _real = clock::real_for_now();
        self.shared.stopping.store(true, Ordering::SeqCst);
        for thread in &self.threads {
            thread.thread().unpark();
        }
        for remote in self.shared.remotes.get().iter().flat_map(|remotes| remotes.iter()) {
            remote.nudge();
        }
        self.end_connection_threads();
        if let Some(home) = self.home.take() {
            {
                // Another runtime may run on this thread while this one is dropped.
                let _entered = context::enter_instead(&home);
                home.cancel_tasks();
            }
            let leaked = home.shut_down(clock::now() + self.teardown);
            self.leaked.extend(leaked.operations);
        }
        for thread in self.threads.drain(..) {
            match thread.join() {
                Ok(leaked) => self.leaked.extend(leaked.operations),
                Err(_) => tracing::error!("a shard's thread had panicked"),
            }
        }
        self.shared.pools.end(clock::now() + self.teardown);
        for operation in &self.leaked {
            tracing::error!(
                operation = operation.operation,
                descriptor = operation.descriptor,
                age_ms = operation.age_ns / 1_000_000,
                "the kernel did not give an operation back in time; its memory is leaked"
            );
        }
    }

    /// Has connections' own threads drop their tasks, and waits for them, up to the deadline.
    fn end_connection_threads(&self) {
        const LOOK_EVERY: Duration = Duration::from_millis(1);
        let deadline = clock::now() + self.teardown;
        loop {
            let left: Vec<Waker> =
                self.shared.connection_threads().iter().map(|(_, waker)| waker.clone()).collect();
            if left.is_empty() {
                return;
            }
            if clock::now() >= deadline {
                tracing::error!(left = left.len(), "threads of connections did not end in time");
                return;
            }
            left.iter().for_each(Waker::wake_by_ref);
            thread::sleep(LOOK_EVERY);
        }
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

/// How a runtime ended.
#[derive(Clone, Debug, Default)]
pub struct ShutdownReport {
    /// Operations that the kernel did not give back in time. Their memory is leaked on purpose.
    pub leaked: Vec<InFlight>,
}

/// Runs what `start` makes for one connection: as a task of this shard, or, under the `threads`
/// engine, on a thread of the connection's own.
///
/// # Errors
/// If the connection's thread cannot be started.
#[track_caller]
pub(crate) fn spawn_connection<F, Fut>(name: &'static str, start: F) -> Result<()>
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let (shared, id) = context::with(|shard| (Arc::clone(&shard.shared), shard.id()));
    // A paused clock is that of one thread, so its connections stay there.
    if !matches!(shared.choice, Choice::Blocking) || shared.has_paused_clock() {
        crate::task::Builder::new().name(name).spawn(start()).detach();
        return Ok(());
    }
    let running = ConnectionThread::new(&shared);
    let body = move || {
        let served = new_shard(&running.shared, id, false).and_then(|shard| {
            let entered = context::enter(&shard)?;
            let serve = AssertUnwindSafe(|| shard.drive(running.until_stopped(start())));
            if let Err(panic) = catch_unwind(serve) {
                shard.executor.hooks().panicked(None, &*panic);
            }
            shard.cancel_tasks();
            drop(entered);
            shard.shut_down(clock::now());
            Ok(())
        });
        if let Err(error) = served {
            tracing::error!(%error, "a connection could not be served");
        }
    };
    let spawned = thread::Builder::new().name(name.into()).spawn(body);
    spawned.map(drop).map_err(|error| {
        Error::io("starting a connection's thread (raise `ulimit -u`)", Errno::from_io(&error))
    })
}

/// A connection's thread in the list of those that run.
struct ConnectionThread {
    shared: Arc<Shared>,
    place: usize,
}

impl ConnectionThread {
    fn new(shared: &Arc<Shared>) -> Self {
        let place = shared.connection_threads().insert(Waker::noop().clone());
        Self { shared: Arc::clone(shared), place }
    }

    /// Runs `serve` until it ends, or drops it where it stands once the runtime stops.
    async fn until_stopped(&self, serve: impl Future<Output = ()>) {
        let mut serve = pin!(serve);
        let mut is_listed = false;
        poll_fn(|context| {
            if !is_listed {
                is_listed = true; // The thread has one waker only.
                self.shared.connection_threads()[self.place].clone_from(context.waker());
            }
            // Looked at after the waker has been left, so that a stop is not missed.
            if self.shared.stopping.load(Ordering::SeqCst) {
                return Poll::Ready(());
            }
            serve.as_mut().poll(context)
        })
        .await;
    }
}

impl Drop for ConnectionThread {
    fn drop(&mut self) {
        drop(self.shared.connection_threads().remove(self.place));
    }
}
