//! What all threads of a runtime share: its settings, how its shards are reached, and how far its
//! life has come.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;

use slab::Slab;

use super::pools::Pools;
use crate::driver::{BufferSettings, Choice};
use crate::executor::Hooks;
use crate::metrics::Registry;
use crate::shard::ShardId;
use crate::shard::connections::Connections;
use crate::shard::remote::Remote;

/// What all threads of a runtime share.
pub(crate) struct Shared {
    pub(super) choice: Choice,
    pub(super) buffers: BufferSettings,
    shards: usize,
    /// Set once every shard has been built.
    pub(super) remotes: OnceLock<Box<[Arc<Remote>]>>,
    pub(super) connections: Box<[Arc<Connections>]>,
    pub(crate) registry: Registry,
    pub(crate) pools: Pools,
    pub(crate) hooks: Arc<Hooks>,
    pub(crate) draining: AtomicBool,
    pub(super) stopping: AtomicBool,
    /// Whether the loop of shard 0 runs.
    running: AtomicBool,
    /// Whether `run_forever` is to return.
    stop: AtomicBool,
    /// Whether the end waits for tasks.
    ending: AtomicBool,
    /// Shards that sleep and have no task; kept up to date while the end waits.
    idle: Box<[AtomicBool]>,
    /// Tasks that the end has cancelled.
    cancelled: AtomicUsize,
    /// Whether the clock stands still while the one shard works.
    paused_clock: bool,
    /// Jobs on other threads for which it stands still as well.
    clock_holds: AtomicUsize,
    /// Threads of single connections (the `threads` engine), by what wakes them.
    connection_threads: Mutex<Slab<Waker>>,
}

impl Shared {
    pub(super) fn new(
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
            running: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            idle: (0..shards).map(|_| AtomicBool::new(false)).collect(),
            cancelled: AtomicUsize::new(0),
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

    pub(super) fn set_running(&self, on: bool) {
        self.running.store(on, Ordering::SeqCst);
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.load(Ordering::SeqCst)
    }

    /// Has `run_forever` return after the turn that runs now, or after its first.
    pub(super) fn ask_to_stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.remote(ShardId(0)).nudge();
    }

    pub(super) fn is_asked_to_stop(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// [`Shared::is_asked_to_stop`], which is answered by that.
    pub(super) fn take_stop(&self) -> bool {
        self.stop.swap(false, Ordering::SeqCst)
    }

    /// The end waits for tasks from now on: shards say when they have none.
    pub(super) fn begin_to_end(&self) {
        self.ending.store(true, Ordering::SeqCst);
        for remote in self.remotes.get().iter().flat_map(|remotes| remotes.iter()) {
            remote.nudge();
        }
    }

    /// Whether the end waits for tasks.
    pub(super) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::SeqCst)
    }

    /// Where a shard other than the first falls asleep, and where it wakes.
    pub(crate) fn tell_idle(&self, id: ShardId, is_idle: bool) {
        if self.ending.load(Ordering::Relaxed) {
            let was_idle = self.idle[id.index()].swap(is_idle, Ordering::SeqCst);
            if is_idle && !was_idle {
                self.remote(ShardId(0)).nudge();
            }
        }
    }

    /// Whether shards other than the first and threads of connections have nothing to do.
    pub(super) fn are_others_idle(&self) -> bool {
        self.idle.iter().skip(1).all(|idle| idle.load(Ordering::SeqCst))
            && self.connection_threads().is_empty()
    }

    pub(crate) fn count_cancelled(&self, tasks: usize) {
        self.cancelled.fetch_add(tasks, Ordering::Relaxed);
    }

    pub(super) fn cancelled(&self) -> usize {
        self.cancelled.load(Ordering::Relaxed)
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

    pub(super) fn connection_threads(&self) -> MutexGuard<'_, Slab<Waker>> {
        self.connection_threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn open_streams(&self) -> usize {
        self.connections.iter().map(|connections| connections.streams()).sum()
    }
}
