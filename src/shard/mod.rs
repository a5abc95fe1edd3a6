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
mod outside;
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

#[doc(hidden)]
pub use self::context::{Held, held};
pub use self::context::{count, current, is_draining};
pub use self::remote::{ShardHandle, shard};
pub use self::remote_task::RemoteHandle;

/// A turn that sleeps for as long as nothing happens.
pub(crate) const FOR_EVER: Wait = Wait::Until(Instant::NEVER);

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
    /// Who is to be woken by timers that have fired.
    woken: Cell<Vec<Waker>>,
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
    /// Operations that were complete at once, in this turn.
    at_once: Cell<u32>,
    turns: Cell<u32>,
    /// Where the clock stands while this shard is not entered; `None` if it follows the real one.
    paused_at: Cell<Option<Instant>>,
    /// Whether somebody polls the driver's descriptor while the loop does not run.
    is_watched: Cell<bool>,
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
            woken: Cell::default(),
            paused_at: Cell::new(is_paused.then_some(now)),
            is_watched: Cell::new(false),
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
            at_once: Cell::new(0),
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
        // Each run starts afresh.
        drop(self.executor.replace_locals(None));
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
            if let Err(errno) = self.turn(FOR_EVER) {
                panic!("the driver of shard {} failed: {errno}", self.id.0);
            }
        }
    }

    /// Turns of a loop that drives no future besides the tasks: one pass, as [`Shard::turn`].
    pub(crate) fn turn_alone(&self, limit: Wait) -> Result<(), Errno> {
        self.forget_main();
        self.turn(limit)
    }

    /// Takes no heed of a future that was driven before: its waker may have outlived it.
    fn forget_main(&self) {
        self.main.woken.store(false, Ordering::Relaxed);
    }

    /// One pass of the loop. It sleeps at its end, until `limit`, if nothing is ready.
    pub(crate) fn turn(&self, limit: Wait) -> Result<(), Errno> {
        self.work();
        self.submit_or_park(limit)
    }

    /// The part of a turn in which things happen.
    fn work(&self) {
        let start = self.tick();
        self.reap(start);
        self.receive(start);
        self.expire(start);
        let end = self.run(start);
        self.end_turn(start, end);
    }

    /// Reads the clock for the turn that begins: exactly after a sleep, which ends at a deadline.
    fn tick(&self) -> Instant {
        self.at_once.set(0);
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
        let mut woken = self.woken.take();
        self.timers.borrow_mut().expire(now, &mut woken);
        woken.drain(..).for_each(Waker::wake);
        self.woken.set(woken);
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

    /// Hands over what was started. Sleeps until the next timer, a completion, a message or the
    /// limit if nothing is ready.
    fn submit_or_park(&self, limit: Wait) -> Result<(), Errno> {
        let mut wait = if self.executor.is_ready() { Wait::Busy } else { Wait::No };
        if let Wait::Until(limit) = limit
            && !self.executor.is_ready()
        {
            self.sleeper.announce();
            if self.shared.has_paused_clock() {
                wait = self.look_and_jump(limit)?;
            } else if !self.has_messages() {
                self.recorder.flush();
                wait = Wait::Until(self.timers.borrow().next_deadline().min(limit));
            } else {
                wait = Wait::Busy;
            }
        }
        let sleeps = matches!(wait, Wait::Until(_));
        self.has_slept.set(sleeps);
        if sleeps {
            self.tell_idle(self.executor.count() == 0);
        }
        let parked = self.driver.borrow_mut().park(wait);
        self.sleeper.awake();
        if sleeps {
            self.tell_idle(false);
        }
        parked
    }

    /// Tells an end that waits for tasks whether this shard has any. Shard 0, which waits, looks
    /// for itself; for a connection's own thread its end tells.
    fn tell_idle(&self, is_idle: bool) {
        if self.has_lanes && self.id != ShardId(0) {
            self.shared.tell_idle(self.id, is_idle);
        }
    }

    pub(crate) fn has_messages(&self) -> bool {
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

    /// Whether operations that complete at once have kept the shard long enough from everything
    /// else. Counted as well as timed, since time may stand still.
    pub(crate) fn has_had_its_share(&self) -> bool {
        const AT_ONCE_COUNT_MAX: u32 = 1024;
        self.at_once.set(self.at_once.get() + 1);
        self.at_once.get() > AT_ONCE_COUNT_MAX || self.executor.tick() >= self.slice_end.get()
    }

    /// Refuses messages and drops every task at the await it stands at. Called while the shard is
    /// entered: what the tasks drop cancels its operations.
    pub(crate) fn cancel_tasks(&self) {
        self.remote.close();
        self.shared.count_cancelled(self.executor.count());
        self.executor.cancel_all();
        self.recorder.flush();
    }

    /// Cancels all operations and waits for the kernel to be done with them.
    pub(crate) fn shut_down(&self, deadline: Instant) -> Leaked {
        self.driver.borrow_mut().shut_down(deadline)
    }
}
