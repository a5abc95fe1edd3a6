//! A shard as others see it: lanes from the other shards, an inbox for every other thread.

use std::any::Any;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::thread::{self, ThreadId};

use super::mesh::{Job, Lane};
use super::remote_task::{self, RemoteHandle};
use super::{Shard, ShardId, context};
use crate::clock::{self, Instant};
use crate::error::{Error, Result};
use crate::executor::{Inbox, Sleeper};
use crate::limits;
use crate::metrics::{self, Counter, Measure};
use crate::reply;
use crate::runtime::Shared;

/// Who is said to have shut down.
const THE_SHARD: &str = "the shard";

/// Jobs taken between two looks at the clock.
const JOBS_PER_LOOK: usize = 16;

/// The receiving side of one shard. Shared with every thread of the runtime.
pub(crate) struct Remote {
    lanes: Box<[Lane]>,
    /// Whether a lane may hold a job.
    pending: AtomicBool,
    closed: AtomicBool,
    /// The lane that is looked at first; the owner's alone.
    first: AtomicUsize,
    jobs: Arc<Inbox<Job>>,
    /// What has been taken from `jobs` and waits for the next turn; the owner's alone.
    backlog: Mutex<VecDeque<Job>>,
    has_backlog: AtomicBool,
    /// Jobs in `jobs` and in the backlog.
    injected: AtomicUsize,
    sleeper: Arc<Sleeper>,
    /// Where the shard lives.
    thread: ThreadId,
}

impl Remote {
    /// A receiver for the calling thread, with a lane for each of `shards` senders.
    pub(crate) fn new(sleeper: &Arc<Sleeper>, shards: usize) -> Arc<Self> {
        Arc::new(Self {
            lanes: (0..shards).map(|_| Lane::new()).collect(),
            pending: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            first: AtomicUsize::new(0),
            jobs: Inbox::new(Arc::clone(sleeper)),
            backlog: Mutex::default(),
            has_backlog: AtomicBool::new(false),
            injected: AtomicUsize::new(0),
            sleeper: Arc::clone(sleeper),
            thread: thread::current().id(),
        })
    }

    pub(crate) fn is_pending(&self) -> bool {
        self.pending.load(Ordering::Relaxed)
            || self.has_backlog.load(Ordering::Relaxed)
            || self.jobs.is_pending()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    pub(super) fn thread(&self) -> ThreadId {
        self.thread
    }

    /// Runs what others sent, until `until`. For the owner.
    pub(crate) fn receive(&self, until: Instant) {
        if self.jobs.is_pending() || self.has_backlog.load(Ordering::Relaxed) {
            self.receive_jobs(until);
        }
        // Looked at first: a swap costs much more, every turn.
        if self.pending.load(Ordering::Relaxed) && self.pending.swap(false, Ordering::Acquire) {
            self.receive_lanes(until);
        }
    }

    /// Runs what came from other threads, in order; what the time does not suffice for stays.
    fn receive_jobs(&self, until: Instant) {
        // The lock is not held while jobs run.
        let mut backlog = std::mem::take(&mut *self.lock_backlog());
        if backlog.is_empty() {
            let mut taken = Vec::from(backlog);
            self.jobs.take(&mut taken);
            backlog = VecDeque::from(taken);
        }
        let mut count = 0;
        while let Some(job) = backlog.pop_front() {
            run(job);
            count += 1;
            if count % JOBS_PER_LOOK == 0 && clock::now() >= until {
                break;
            }
        }
        self.injected.fetch_sub(count, Ordering::Relaxed);
        self.has_backlog.store(!backlog.is_empty(), Ordering::Relaxed);
        *self.lock_backlog() = backlog;
    }

    fn lock_backlog(&self) -> std::sync::MutexGuard<'_, VecDeque<Job>> {
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Empties the lanes, beginning behind the one at which the time was over the last time, so
    /// that a busy lane holds up no other for more than one slice.
    fn receive_lanes(&self, until: Instant) {
        let first = self.first.load(Ordering::Relaxed);
        let mut count = 0;
        for step in 0..self.lanes.len() {
            let index = (first + step) % self.lanes.len();
            while let Some(job) = self.lanes[index].pop() {
                run(job);
                count += 1;
                if count % JOBS_PER_LOOK == 0 && clock::now() >= until {
                    self.first.store(index + 1, Ordering::Relaxed);
                    self.pending.store(true, Ordering::Relaxed);
                    return;
                }
            }
        }
    }

    /// Refuses further jobs and drops what is left: their senders learn that the shard is gone.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        let backlog = std::mem::take(&mut *self.lock_backlog());
        drop(backlog);
        drop(self.jobs.close());
        for lane in &self.lanes {
            while let Some(job) = lane.pop() {
                drop(job);
            }
        }
    }

    /// Keeps the shard from sleeping, or ends its sleep, without a message.
    pub(crate) fn nudge(&self) {
        self.injected.fetch_add(1, Ordering::Relaxed);
        // Refused only by a shard that has ended, which needs no nudge.
        drop(self.jobs.push(Box::new(|| ())));
    }

    /// Sends a job from any thread, after those that it has sent this way before.
    fn inject(&self, job: Job) -> Result<()> {
        self.reserve()?;
        self.push(job)
    }

    /// Makes sure of room for one job that is pushed after this.
    fn reserve(&self) -> Result<()> {
        if self.injected.fetch_add(1, Ordering::Relaxed) < limits::REMOTE_JOBS_COUNT_MAX {
            return Ok(());
        }
        self.injected.fetch_sub(1, Ordering::Relaxed);
        let max = limits::REMOTE_JOBS_COUNT_MAX;
        Err(Error::limit(format!("{max} jobs wait for the shard; wait for some of their replies")))
    }

    fn push(&self, job: Job) -> Result<()> {
        self.jobs.push(job).map_err(|_| {
            self.injected.fetch_sub(1, Ordering::Relaxed);
            Error::closed(THE_SHARD)
        })
    }

    /// Sends a job from the shard `source`; waits while the lane is full.
    async fn send(&self, source: ShardId, job: Job) -> Result<()> {
        let lane = &self.lanes[source.index()];
        let mut job = Some(job);
        poll_fn(|context| {
            for attempt in 0..2 {
                if self.closed.load(Ordering::SeqCst) {
                    return Poll::Ready(Err(Error::closed(THE_SHARD)));
                }
                match job.take().map(|job| lane.push(job)) {
                    Some(Err(full)) => job = Some(full),
                    _ => {
                        self.pending.store(true, Ordering::Release);
                        if self.closed.load(Ordering::SeqCst) {
                            // The owner may have looked for the last time before this job came.
                            while let Some(job) = lane.pop() {
                                drop(job);
                            }
                        }
                        metrics::add(Counter::MeshMessages, 1);
                        metrics::add(Counter::MeshWakes, u64::from(self.sleeper.wake()));
                        return Poll::Ready(Ok(()));
                    }
                }
                if attempt == 0 {
                    metrics::add(Counter::MeshWaits, 1);
                    lane.wait(context.waker());
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// A job that panics costs its sender the reply, not the shard its life. It has no task-locals, and
/// what it sets is nobody's.
fn run(job: Job) {
    let executor = context::with(|shard| Rc::clone(&shard.executor));
    let before = executor.replace_locals(None);
    if let Err(panic) = catch_unwind(AssertUnwindSafe(job)) {
        report_panic(&*panic);
    }
    drop(executor.replace_locals(before));
}

fn report_panic(panic: &(dyn Any + Send)) {
    context::with(|shard| Arc::clone(&shard.shared.hooks)).panicked(None, panic);
}

/// Names one shard of a runtime; usable from any thread.
#[derive(Clone)]
pub struct ShardHandle {
    shared: Arc<Shared>,
    id: ShardId,
}

/// The shard with this index in the calling task's runtime.
///
/// # Panics
/// Outside a runtime, or if there is no such shard.
pub fn shard(id: ShardId) -> ShardHandle {
    let shared = context::with(|shard| Arc::clone(&shard.shared));
    ShardHandle::new(shared, id)
}

impl ShardHandle {
    pub(crate) fn new(shared: Arc<Shared>, id: ShardId) -> Self {
        let count = shared.shards();
        assert!(id.index() < count, "shard {} does not exist; there are {count}", id.0);
        Self { shared, id }
    }

    /// Runs `f` on the shard as a task and returns what its future yields.
    ///
    /// Waits while the lane there is full. Dropping the returned future does not stop what has been
    /// sent.
    ///
    /// # Errors
    /// `is_closed` if the shard has shut down, `is_panicked` if `f` or its future panicked.
    #[track_caller]
    pub fn submit<F, Fut, R>(&self, f: F) -> impl Future<Output = Result<R>> + use<F, Fut, R>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = R> + 'static,
        R: Send + 'static,
    {
        let this = self.clone();
        let site = Location::caller();
        async move {
            let (duty, receiver) = reply::channel(THE_SHARD);
            let sent = clock::now();
            this.send(Box::new(move || {
                metrics::record(Measure::MeshHop, clock::now().nanos_since(sent));
                remote_task::start("submitted", site, f, duty);
            }))
            .await?;
            receiver.await.map_err(Error::from)
        }
    }

    /// Runs `f` on the shard between its tasks and returns its value: cheaper than
    /// [`ShardHandle::submit`] for what neither waits nor takes long.
    ///
    /// Dropping the returned future does not stop what has been sent.
    ///
    /// # Errors
    /// As [`ShardHandle::submit`].
    pub fn call<F, R>(&self, f: F) -> impl Future<Output = Result<R>> + use<F, R>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        let this = self.clone();
        async move {
            let (duty, receiver) = reply::channel(THE_SHARD);
            let sent = clock::now();
            this.send(Box::new(move || {
                metrics::record(Measure::MeshHop, clock::now().nanos_since(sent));
                duty.answer(f, report_panic, || ());
            }))
            .await?;
            receiver.await.map_err(Error::from)
        }
    }

    /// Runs `f` on the shard as a task, from any thread, and gives a handle to it: to await in any
    /// task or executor, to wait for on a plain thread, to abort. Never waits itself.
    ///
    /// ```
    /// # let runtime = annulus::Runtime::builder().shards(2).build()?;
    /// let shard = runtime.handle().shard(annulus::shard::ShardId(1));
    /// let mut sum = shard.spawn(|| async { 100 + 200 });
    /// assert_eq!(sum.wait_timeout(std::time::Duration::from_secs(60))?, 300);
    /// # annulus::Result::Ok(())
    /// ```
    ///
    /// # Errors
    /// The handle's. At once: `is_closed` if the shard has shut down, `is_limit` past
    /// [`limits::REMOTE_JOBS_COUNT_MAX`] jobs that the shard has not taken.
    #[track_caller]
    pub fn spawn<F, Fut, T>(&self, f: F) -> RemoteHandle<T>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
        T: Send + 'static,
    {
        let remote = self.shared.remote(self.id);
        let site = Location::caller();
        let (duty, receiver) = reply::channel(THE_SHARD);
        if let Err(error) = remote.reserve() {
            duty.refuse(error);
        } else {
            // A job that is refused answers by being dropped.
            drop(remote.push(Box::new(move || remote_task::start("remote", site, f, duty))));
        }
        RemoteHandle::new(receiver, remote.thread())
    }

    /// Runs `f` on the shard between its tasks, soon, from any thread: what one thread defers runs
    /// in that order. Ends the shard's sleep. A panic in `f` is counted and logged like a task's.
    ///
    /// ```
    /// # let runtime = annulus::Runtime::builder().shards(2).build()?;
    /// let (sender, receiver) = std::sync::mpsc::channel();
    /// let shard = runtime.handle().shard(annulus::shard::ShardId(1));
    /// shard.defer(move || sender.send("from the shard").unwrap())?;
    /// assert_eq!(receiver.recv(), Ok("from the shard"));
    /// # annulus::Result::Ok(())
    /// ```
    ///
    /// # Errors
    /// `is_closed` if the shard has shut down, `is_limit` past [`limits::REMOTE_JOBS_COUNT_MAX`]
    /// closures that the shard has not taken. A closure that waits when the shard shuts down is
    /// dropped.
    pub fn defer<F: FnOnce() + Send + 'static>(&self, f: F) -> Result<()> {
        self.shared.remote(self.id).inject(Box::new(f))
    }

    async fn send(&self, job: Job) -> Result<()> {
        let remote = self.shared.remote(self.id);
        // A connection's own thread, foreign threads and shards of other runtimes have no lane.
        let lane = |shard: &Rc<Shard>| {
            (shard.has_lanes && Arc::ptr_eq(&shard.shared, &self.shared), shard.id())
        };
        match context::try_with(lane) {
            Some((true, source)) => remote.send(source, job).await,
            _ => remote.inject(job),
        }
    }
}

impl std::fmt::Debug for ShardHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ShardHandle({})", self.id.0)
    }
}
