//! A shard: one thread with its driver, executor, timers and lanes, and the loop that marries them.
//!
//! `runtime.rs` builds one on each shard's thread and calls `Shard::turn` until it is told to
//! stop. Under the `threads` engine each connection's thread has a small one of its own. Invariant:
//! everything here belongs to one thread; other threads reach it through `Remote` alone.

mod affinity;
pub(crate) mod completion;
pub(crate) mod connections;
pub(crate) mod context;
mod mesh;
pub(crate) mod paused;
pub mod placement;
pub(crate) mod priority;
pub(crate) mod remote;
mod remote_task;
pub mod topology;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use self::remote::Remote;
use crate::clock::{self, Instant};
use crate::driver::{BufferSettings, Choice, Driver, Leaked, Wait};
use crate::error::Errno;
use crate::executor::timers::Timers;
use crate::executor::{Executor, Inbox, Sleeper};
use crate::limits;
use crate::metrics::{Counter, Measure, Recorder};
use crate::runtime::Shared;

pub use self::context::{count, current, is_draining};
pub use self::remote::{ShardHandle, shard};
pub use self::remote_task::RemoteHandle;

/// Index of a shard in its runtime, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

impl ShardId {
    /// The index as a number for arrays.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// One thread's part of a runtime.
pub(crate) struct Shard {
    id: ShardId,
    pub(crate) shared: Arc<Shared>,
    pub(crate) executor: Rc<Executor>,
    pub(crate) driver: RefCell<Driver>,
    pub(crate) timers: RefCell<Timers>,
    /// Whether the other shards keep a lane for this one: not for a connection's own thread.
    pub(crate) has_lanes: bool,
    remote: Arc<Remote>,
    sleeper: Arc<Sleeper>,
    wakes: Arc<Inbox>,
    /// Wakes the future that `block_on` drives beside the tasks.
    main: Arc<MainWaker>,
    recorder: Rc<Recorder>,
    slice_end: Cell<Instant>,
    has_slept: Cell<bool>,
    turns: Cell<u32>,
    /// Where the clock stands while this shard is not entered; `None` if it follows the real one.
    paused_at: Cell<Option<Instant>>,
    /// The scheduler is asked to run this thread soon.
    _slice: priority::Short,
}

/// Wakes the future of [`Shard::drive`].
struct MainWaker {
    woken: AtomicBool,
    sleeper: Arc<Sleeper>,
}

impl Wake for MainWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.sleeper.wake();
    }
}

impl Shard {
    /// Builds a shard on the calling thread, for good or (without lanes) for one connection.
    pub(crate) fn new(
        id: ShardId,
        shared: Arc<Shared>,
        choice: &Choice,
        buffers: BufferSettings,
        has_lanes: bool,
    ) -> Result<Rc<Self>, Errno> {
        let lanes = if has_lanes { shared.shards() } else { 0 };
        let driver = Driver::new(choice, buffers)?;
        let unparker = driver.unparker();
        let sleeper = Arc::new(Sleeper::new(Box::new(move || unparker.unpark())));
        let wakes = Inbox::new(Arc::clone(&sleeper));
        let now = clock::now();
        let executor = Executor::new(Arc::clone(&wakes), Arc::clone(&shared.hooks));
        let is_paused = shared.has_paused_clock();
        Ok(Rc::new(Self {
            id,
            recorder: Rc::new(shared.registry.recorder(id.index())),
            shared,
            executor,
            driver: RefCell::new(driver),
            timers: RefCell::new(if is_paused { Timers::exact(now) } else { Timers::new(now) }),
            paused_at: Cell::new(is_paused.then_some(now)),
            has_lanes,
            remote: Remote::new(&sleeper, lanes),
            main: Arc::new(MainWaker {
                woken: AtomicBool::new(false),
                sleeper: Arc::clone(&sleeper),
            }),
            sleeper,
            wakes,
            slice_end: Cell::new(now),
            has_slept: Cell::new(false),
            turns: Cell::new(0),
            _slice: priority::Short::for_current_thread(),
        }))
    }

    pub(crate) fn id(&self) -> ShardId {
        self.id
    }

    /// How other threads reach this shard.
    pub(crate) fn remote(&self) -> &Arc<Remote> {
        &self.remote
    }

    pub(crate) fn recorder(&self) -> &Rc<Recorder> {
        &self.recorder
    }

    /// The turn's time.
    pub(crate) fn now(&self) -> Instant {
        self.executor.now()
    }

    /// Turns until `future` ends; it is polled between turns.
    pub(crate) fn drive<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        let waker = Waker::from(Arc::clone(&self.main));
        let mut context = Context::from_waker(&waker);
        waker.wake_by_ref();
        loop {
            // Looked at first: a swap costs much more.
            if self.main.woken.load(Ordering::Relaxed)
                && self.main.woken.swap(false, Ordering::AcqRel)
            {
                // The turn before may have slept since it read the clock.
                self.tick();
                if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
                    return value;
                }
            }
            if let Err(errno) = self.turn(true) {
                panic!("the driver of shard {} failed: {errno}", self.id.0);
            }
        }
    }

    /// One pass of the loop. It sleeps at its end if nothing is ready and `may_sleep`.
    pub(crate) fn turn(&self, may_sleep: bool) -> Result<(), Errno> {
        let start = self.tick();
        self.reap(start);
        self.receive(start);
        self.expire(start);
        let end = self.run(start);
        self.end_turn(start, end);
        self.submit_or_park(may_sleep)
    }

    /// Reads the clock for the turn that begins: exactly after a sleep, which ends at a deadline.
    fn tick(&self) -> Instant {
        if self.has_slept.replace(false) {
            self.executor.tick_exactly()
        } else {
            self.executor.tick()
        }
    }

    /// Drains completions into slots; tasks are only put on the run queue.
    fn reap(&self, now: Instant) {
        self.driver.borrow_mut().reap(now);
    }

    /// Takes what other threads sent: woken tasks, and messages within a time budget.
    fn receive(&self, now: Instant) {
        self.executor.receive();
        self.remote.receive(now + Duration::from_nanos(limits::MESH_SLICE_NS));
    }

    /// Fires due timers.
    fn expire(&self, now: Instant) {
        self.timers.borrow_mut().expire(now);
    }

    /// Polls one cohort of ready tasks.
    fn run(&self, now: Instant) -> Instant {
        let slice_end = now + Duration::from_nanos(limits::SLICE_NS);
        self.slice_end.set(slice_end);
        self.executor.run(slice_end)
    }

    fn end_turn(&self, start: Instant, end: Instant) {
        /// Figures of a shard that never sleeps are late by this many turns at most.
        const TURNS_PER_FLUSH: u32 = 64;
        self.recorder.record(Measure::Turn, end.nanos_since(start));
        self.recorder.add(Counter::Turns, 1);
        self.turns.set(self.turns.get().wrapping_add(1));
        if self.recorder.is_half_full() || self.turns.get().is_multiple_of(TURNS_PER_FLUSH) {
            self.recorder.flush();
        }
    }

    /// Hands over what was started. Sleeps until the next timer, a completion or a message if
    /// nothing is ready.
    fn submit_or_park(&self, may_sleep: bool) -> Result<(), Errno> {
        let mut wait = if self.executor.is_ready() { Wait::Busy } else { Wait::No };
        if may_sleep && !self.executor.is_ready() {
            self.sleeper.announce();
            if self.shared.has_paused_clock() {
                wait = self.look_and_jump()?;
            } else if !self.has_messages() {
                self.recorder.flush();
                wait = Wait::Until(self.timers.borrow().next_deadline());
            } else {
                wait = Wait::Busy;
            }
        }
        self.has_slept.set(matches!(wait, Wait::Until(_)));
        let parked = self.driver.borrow_mut().park(wait);
        self.sleeper.awake();
        parked
    }

    fn has_messages(&self) -> bool {
        self.wakes.is_pending()
            || self.remote.is_pending()
            || self.main.woken.load(Ordering::Relaxed)
            // The nudge that came with it may have been taken in this very turn.
            || self.shared.is_stopping()
    }

    /// Whether the running task has had its slice, or completions wait.
    pub(crate) fn should_yield(&self) -> bool {
        self.driver.borrow_mut().has_news() || self.executor.tick() >= self.slice_end.get()
    }

    /// Refuses messages and drops every task at the await it stands at. Called while the shard is
    /// entered: what the tasks drop cancels its operations.
    pub(crate) fn cancel_tasks(&self) {
        self.remote.close();
        self.executor.cancel_all();
        self.recorder.flush();
    }

    /// Cancels all operations and waits for the kernel to be done with them.
    pub(crate) fn shut_down(self: Rc<Self>, deadline: Instant) -> Leaked {
        let Ok(shard) = Rc::try_unwrap(self) else {
            unreachable!("a shard is shut down by its last holder, after its context is left")
        };
        shard.driver.into_inner().shut_down(deadline)
    }
}
