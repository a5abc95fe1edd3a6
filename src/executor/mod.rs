//! Runs tasks: spawn, wake, poll, and nothing else. It knows no I/O, no descriptor and no shard.
//!
//! `shard/` owns one [`Executor`] per thread and calls [`Executor::run`] once a turn. A wake on the
//! owning thread pushes on the run queue; a wake from another thread goes through the [`Inbox`]
//! and ends the shard's sleep. Invariant: a task is polled and dropped only on its own thread.

mod callbacks;
mod hooks;
mod inbox;
mod live;
mod local;
mod run_queue;
mod task;
pub(crate) mod timers;
pub(crate) mod yield_now;

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use async_task::{Runnable, Task};

pub use self::callbacks::CallbackId;
pub(crate) use self::callbacks::Callbacks;
pub(crate) use self::hooks::Hooks;
pub use self::hooks::{PanicHook, TaskPanic};
pub(crate) use self::inbox::{Inbox, Sleeper};
use self::live::LiveTasks;
pub(crate) use self::live::{LiveView, TaskKey, unobserved};
pub(crate) use self::local::Locals;
use self::run_queue::RunQueue;
pub use self::task::{Class, JoinError, TaskId, TaskInfo};
pub(crate) use self::task::{Panic, panic_message};
use crate::clock::{self, Instant, Ticker};
use crate::metrics::{self, Counter, Measure};

/// What joins a task.
pub(crate) type Joint<T> = Task<Result<T, JoinError>, Home>;

/// A woken task.
pub(crate) type Ready = Runnable<Home>;

/// Where a woken task goes. It lies in the task and not in its schedule function, which has to be
/// without size: otherwise each wake takes and gives back a reference to keep it alive.
pub(crate) struct Home {
    class: Class,
    inbox: Arc<Inbox>,
}

thread_local! {
    /// The executor of this thread, while one is entered: where wakes on this thread push.
    static LOCAL: RefCell<Option<Rc<Executor>>> = const { RefCell::new(None) };
}

/// The tasks of one thread.
pub(crate) struct Executor {
    queue: RefCell<RunQueue>,
    /// Where [`Executor::receive`] takes the inbox's messages to.
    woken: RefCell<Vec<Ready>>,
    inbox: Arc<Inbox>,
    ticker: Ticker,
    /// The turn's time: what a wake is stamped with.
    now: Cell<Instant>,
    /// The time before the clock was moved by hand in this poll.
    moved_from: Cell<Option<Instant>>,
    live: Rc<LiveTasks>,
    /// Sees every spawn; what it is made of is of no concern here.
    spawn_hook: RefCell<Option<Rc<SpawnHook>>>,
}

/// A future without its type and value, as a spawn hook sees it.
type Erased = Pin<Box<dyn Future<Output = ()>>>;
type SpawnHook = dyn Fn(&TaskInfo, Erased) -> Erased;

/// Leaves the executor on drop; the one before, if any, is back then.
pub(crate) struct Entered(Option<Rc<Executor>>);

impl Executor {
    pub(crate) fn new(inbox: Arc<Inbox>, hooks: Arc<Hooks>) -> Rc<Self> {
        Rc::new(Self {
            queue: RefCell::new(RunQueue::new()),
            woken: RefCell::new(Vec::new()),
            inbox,
            ticker: Ticker::new(),
            now: Cell::new(clock::now()),
            moved_from: Cell::new(None),
            live: LiveTasks::new(hooks),
            spawn_hook: RefCell::new(None),
        })
    }

    /// Makes this the executor of the calling thread until the guard is dropped.
    pub(crate) fn enter(self: &Rc<Self>) -> Entered {
        Entered(LOCAL.replace(Some(Rc::clone(self))))
    }

    /// Whether a task is ready to be polled.
    pub(crate) fn is_ready(&self) -> bool {
        !self.queue.borrow().is_empty()
    }

    /// Spawns a task on this thread. It is never polled inline.
    pub(crate) fn spawn<F>(
        self: &Rc<Self>,
        info: TaskInfo,
        future: F,
    ) -> (Joint<F::Output>, TaskKey)
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        metrics::add(Counter::TasksSpawned, 1);
        let home = Home { class: info.class(), inbox: Arc::clone(&self.inbox) };
        let ((ready, task), key) = self.live.insert(info, self.now.get(), |key| {
            let tracked = task::Tracked::new(future, Rc::clone(&self.live), key);
            let builder = async_task::Builder::new().metadata(home);
            // SAFETY: future and output are 'static, and `schedule` is a plain function. The future
            // need not be Send: its Runnable is run and dropped only on this thread: `schedule`
            // keeps it here or sends it here through the inbox, whose owner drops what is left (and
            // leaks what arrives after that).
            let (ready, task) = unsafe { builder.spawn_unchecked(|_| tracked, schedule) };
            let waker = ready.waker();
            ((ready, task), waker)
        });
        ready.schedule();
        (task, key)
    }

    /// Ends a task at its next poll. False if it had finished.
    pub(crate) fn abort(&self, key: TaskKey) -> bool {
        self.live.abort(key).map(Waker::wake).is_some()
    }

    /// Tasks that have not ended.
    pub(crate) fn count(&self) -> usize {
        self.live.count()
    }

    /// Takes over the tasks that other threads have woken.
    pub(crate) fn receive(&self) {
        if !self.inbox.is_pending() {
            return;
        }
        let mut woken = self.woken.borrow_mut();
        self.inbox.take(&mut woken);
        let mut queue = self.queue.borrow_mut();
        for ready in woken.drain(..) {
            let class = ready.metadata().class;
            queue.push(ready, class, self.now.get());
        }
    }

    /// The turn's time, or the end of the last poll where that is later.
    pub(crate) fn now(&self) -> Instant {
        self.now.get()
    }

    /// Sets the turn's time, on a clock that is moved by hand.
    pub(crate) fn set_now(&self, now: Instant) {
        self.moved_from.set(self.moved_from.get().or(Some(self.now.get())));
        self.now.set(now);
    }

    /// [`Executor::tick`] by the real clock, without the ticker's lag.
    pub(crate) fn tick_exactly(&self) -> Instant {
        let now = self.ticker.read();
        self.now.set(now);
        now
    }

    /// Reads the clock and makes that the turn's time.
    #[inline]
    pub(crate) fn tick(&self) -> Instant {
        let now = self.ticker.now();
        self.now.set(now);
        now
    }

    /// Polls one cohort: the tasks that are ready now, by class and share, until the slice ends.
    /// Tasks woken meanwhile wait for the next turn, so that I/O is looked at in between. Returns
    /// the time at its end.
    pub(crate) fn run(&self, slice_end: Instant) -> Instant {
        self.queue.borrow_mut().begin_cohort();
        let mut before = self.now.get();
        loop {
            let Some((ready, woken, class)) = self.queue.borrow_mut().pop() else { break };
            before = self.poll(ready, class, woken, before);
            if before >= slice_end {
                break;
            }
        }
        before
    }

    /// Polls one task and accounts for its time.
    fn poll(&self, ready: Ready, class: Class, woken: Instant, before: Instant) -> Instant {
        ready.run();
        // What a task moved the clock on by, where that goes by hand, is not time that it took.
        let moved_from = self.moved_from.take();
        let after = self.tick();
        let nanos = moved_from.unwrap_or(after).nanos_since(before);
        metrics::with(|recorder| {
            recorder.record(Measure::ReadyDelay, before.nanos_since(woken));
            recorder.record(Measure::Poll, nanos);
            recorder.add(Counter::Polls, 1);
        });
        self.queue.borrow_mut().charge(class, nanos);
        if nanos >= self.live.hooks.slow_poll_ns() {
            self.report_slow_poll(nanos);
        }
        self.live.end_run();
        after
    }

    #[cold]
    fn report_slow_poll(&self, nanos: u64) {
        let Some(info) = self.live.running_info() else { return };
        metrics::add(Counter::SlowPolls, 1);
        tracing::warn!(
            task = info.name(),
            spawned_at = %info.location(),
            poll_ms = nanos / 1_000_000,
            "slow poll: the task kept its shard from everything else; move the work to the cpu \
             pool (cpu::run) or let others in (task::yield_if_needed)"
        );
    }

    /// The task that is being polled.
    pub(crate) fn running(&self) -> Option<TaskInfo> {
        self.live.running_info()
    }

    /// Whether that is this task.
    pub(crate) fn is_running(&self, key: TaskKey) -> bool {
        self.live.is_running(key)
    }

    /// A task that has not finished.
    pub(crate) fn info(&self, key: TaskKey) -> Option<TaskInfo> {
        self.live.info(key)
    }

    /// All tasks that have not finished, oldest first.
    pub(crate) fn tasks(&self) -> Vec<LiveView> {
        self.live.views()
    }

    /// Ends the task that is being polled, at its next poll.
    pub(crate) fn abort_running(&self) {
        if let Some(waker) = self.live.abort_running() {
            waker.wake();
        }
    }

    /// Sees every spawn; `None` if nobody does.
    pub(crate) fn spawn_hook(&self) -> Option<Rc<SpawnHook>> {
        self.spawn_hook.borrow().clone()
    }

    /// Sets who sees every spawn; gives back who did.
    pub(crate) fn set_spawn_hook(&self, hook: Option<Rc<SpawnHook>>) -> Option<Rc<SpawnHook>> {
        self.spawn_hook.replace(hook)
    }

    /// Nobody will join the task.
    pub(crate) fn detach(&self, key: TaskKey) {
        self.live.detach(key);
    }

    /// What the program hangs into this runtime's executors.
    pub(crate) fn hooks(&self) -> &Arc<Hooks> {
        &self.live.hooks
    }

    /// Gives callbacks to a task that has not finished. False if it has.
    pub(crate) fn set_callbacks<T: 'static>(
        &self,
        key: TaskKey,
        callbacks: Rc<Callbacks<T>>,
    ) -> bool {
        self.live.set_callbacks(key, callbacks)
    }

    /// Registers a callback, which will see the locals of whoever runs now.
    pub(crate) fn add_callback<T>(
        &self,
        callbacks: &Callbacks<T>,
        call: impl FnOnce(&Result<T, JoinError>) + 'static,
    ) -> CallbackId {
        callbacks.add(self.live.locals(), Box::new(call))
    }

    /// Calls the callbacks of a task that had ended before they were registered. False if more
    /// have come meanwhile.
    pub(crate) fn run_callbacks<T>(&self, callbacks: &Callbacks<T>) -> bool {
        let report = |panic: &(dyn Any + Send)| self.live.hooks.panicked(None, panic);
        callbacks.run_late(report, &self.live)
    }

    /// An identity for a task that is about to be spawned, for whoever has to know it before.
    pub(crate) fn identify(&self, info: &mut TaskInfo) {
        info.id = self.live.next_id();
    }

    /// A copy of the locals of whoever runs.
    pub(crate) fn locals(&self) -> Option<Locals> {
        self.live.locals()
    }

    /// Puts locals in the place of those of whoever runs, which are given back.
    pub(crate) fn replace_locals(&self, locals: Option<Locals>) -> Option<Locals> {
        self.live.replace_locals(locals)
    }

    /// Cancels every task: each is dropped here, at the await it stands at. What other threads
    /// wake after this is leaked.
    pub(crate) fn cancel_all(&self) {
        // Dropping a task may spawn or wake others; their number is bounded by the rounds.
        const ROUNDS_MAX: usize = 1000;
        for _ in 0..ROUNDS_MAX {
            self.live.wakers().into_iter().for_each(Waker::wake);
            self.receive();
            self.queue.borrow_mut().begin_cohort();
            loop {
                let Some((ready, _, _)) = self.queue.borrow_mut().pop() else { break };
                drop(ready);
            }
            if self.live.count() == 0 {
                break;
            }
        }
        for ready in self.inbox.close() {
            drop(ready);
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let left = LOCAL.replace(self.0.take());
        drop(left);
    }
}

/// Puts a woken task onto this thread's queue if it lives here, into its inbox otherwise.
fn schedule(ready: Ready) {
    let mut ready = Some(ready);
    // An error: the thread is ending, and with it its executor.
    let _ = LOCAL.try_with(|local| {
        if let Ok(Some(executor)) = local.try_borrow().as_deref()
            && let Some(ready) =
                ready.take_if(|ready| Arc::ptr_eq(&executor.inbox, &ready.metadata().inbox))
        {
            let class = ready.metadata().class;
            executor.queue.borrow_mut().push(ready, class, executor.now.get());
        }
    });
    if let Some(ready) = ready
        && let Err(ready) = Arc::clone(&ready.metadata().inbox).push(ready)
    {
        // Its thread is gone and the future may not be dropped on another: leaked on purpose.
        std::mem::forget(ready);
    }
}
