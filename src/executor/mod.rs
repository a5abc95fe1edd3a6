//! Runs tasks: spawn, wake, poll, and nothing else. It knows no I/O, no descriptor and no shard.
//!
//! `shard/` owns one [`Executor`] per thread and calls [`Executor::run`] once a turn. A wake on the
//! owning thread pushes on the run queue; a wake from another thread goes through the [`Inbox`]
//! and ends the shard's sleep. Invariant: a task is polled and dropped only on its own thread.

mod inbox;
mod run_queue;
mod task;
pub(crate) mod timers;
pub(crate) mod yield_now;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use async_task::{Runnable, Task};

pub(crate) use self::inbox::{Inbox, Sleeper};
use self::run_queue::RunQueue;
use self::task::LiveTasks;
pub use self::task::{Class, TaskInfo};
pub(crate) use self::task::{Ended, TaskKey};
use crate::clock::{self, Instant};
use crate::limits;
use crate::metrics::{self, Counter, Measure};

/// What joins a task.
pub(crate) type Joint<T> = Task<Result<T, Ended>, TaskInfo>;

/// A woken task.
pub(crate) type Ready = Runnable<TaskInfo>;

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
    /// The turn's time: what a wake is stamped with.
    now: Cell<Instant>,
    live: Rc<LiveTasks>,
}

/// Leaves the executor on drop; the one before, if any, is back then.
pub(crate) struct Entered(Option<Rc<Executor>>);

impl Executor {
    pub(crate) fn new(inbox: Arc<Inbox>) -> Rc<Self> {
        Rc::new(Self {
            queue: RefCell::new(RunQueue::new()),
            woken: RefCell::new(Vec::new()),
            inbox,
            now: Cell::new(clock::now()),
            live: Rc::default(),
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
        let inbox = Arc::clone(&self.inbox);
        let schedule = move |ready: Ready| schedule(&inbox, ready);
        let key = self.live.reserve();
        let tracked = task::Tracked::new(future, Rc::clone(&self.live), key);
        // SAFETY: future and output are 'static and so is the schedule function, which is also
        // Send and Sync (it holds an `Arc<Inbox>`). The future need not be Send: its Runnable is
        // run and dropped only on this thread: `schedule` keeps it here or sends it here through
        // the inbox, whose owner drops what is left (and leaks what arrives after that).
        let (ready, task) = unsafe {
            async_task::Builder::new().metadata(info).spawn_unchecked(|_| tracked, schedule)
        };
        self.live.set_waker(key, ready.waker());
        ready.schedule();
        (task, key)
    }

    /// Ends a task at its next poll. False if it had finished.
    pub(crate) fn abort(&self, key: TaskKey) -> bool {
        self.live.abort(key).map(Waker::wake).is_some()
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
            let class = ready.metadata().class();
            queue.push(ready, class, self.now.get());
        }
    }

    /// The turn's time, or the end of the last poll where that is later.
    pub(crate) fn now(&self) -> Instant {
        self.now.get()
    }

    /// Sets the turn's time.
    pub(crate) fn set_now(&self, now: Instant) {
        self.now.set(now);
    }

    /// Polls one cohort: the tasks that are ready now, by class and share, until the slice ends.
    /// Tasks woken meanwhile wait for the next turn, so that I/O is looked at in between. Returns
    /// the time at its end.
    pub(crate) fn run(&self, slice_end: Instant) -> Instant {
        self.queue.borrow_mut().begin_cohort();
        let mut before = self.now.get();
        loop {
            let Some((ready, woken, class)) = self.queue.borrow_mut().pop() else { break };
            metrics::record(Measure::ReadyDelay, before.nanos_since(woken));
            before = self.poll(ready, class, before);
            if before >= slice_end {
                break;
            }
        }
        before
    }

    /// Polls one task and accounts for its time.
    fn poll(&self, ready: Ready, class: Class, before: Instant) -> Instant {
        let info = *ready.metadata();
        ready.run();
        let after = clock::now();
        self.now.set(after);
        let nanos = after.nanos_since(before);
        metrics::record(Measure::Poll, nanos);
        metrics::add(Counter::Polls, 1);
        self.queue.borrow_mut().charge(class, nanos);
        if nanos >= limits::SLOW_POLL_NS {
            metrics::add(Counter::SlowPolls, 1);
            tracing::warn!(
                task = info.name(),
                spawned_at = %info.location(),
                poll_ms = nanos / 1_000_000,
                "slow poll: the task kept its shard from everything else; move the work to the \
                 cpu pool (cpu::run) or let others in (task::yield_if_needed)"
            );
        }
        after
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

/// Where a woken task goes: onto this thread's queue if it lives here, into its inbox otherwise.
fn schedule(inbox: &Arc<Inbox>, ready: Ready) {
    let mut ready = Some(ready);
    // An error: the thread is ending, and with it its executor.
    let _ = LOCAL.try_with(|local| {
        if let Ok(Some(executor)) = local.try_borrow().as_deref()
            && Arc::ptr_eq(&executor.inbox, inbox)
            && let Some(ready) = ready.take()
        {
            let class = ready.metadata().class();
            executor.queue.borrow_mut().push(ready, class, executor.now.get());
        }
    });
    if let Some(ready) = ready
        && let Err(ready) = inbox.push(ready)
    {
        // Its thread is gone and the future may not be dropped on another: leaked on purpose.
        std::mem::forget(ready);
    }
}
