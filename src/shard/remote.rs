//! A shard as others see it: lanes from the other shards, an inbox for every other thread.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;

use super::mesh::{Job, Lane};
use super::{ShardId, context};
use crate::clock::{self, Instant};
use crate::error::{Error, Result};
use crate::executor::{Inbox, Sleeper};
use crate::metrics::{self, Counter, Measure};
use crate::runtime::Shared;
use crate::sync::shared::oneshot::{self, Lost};
use crate::task;

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
    sleeper: Arc<Sleeper>,
}

thread_local! {
    static TAKEN: RefCell<Vec<Job>> = const { RefCell::new(Vec::new()) };
}

impl Remote {
    /// A receiver with a lane for each of `shards` senders.
    pub(crate) fn new(sleeper: &Arc<Sleeper>, shards: usize) -> Arc<Self> {
        Arc::new(Self {
            lanes: (0..shards).map(|_| Lane::new()).collect(),
            pending: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            first: AtomicUsize::new(0),
            jobs: Inbox::new(Arc::clone(sleeper)),
            sleeper: Arc::clone(sleeper),
        })
    }

    pub(crate) fn is_pending(&self) -> bool {
        self.pending.load(Ordering::Relaxed) || self.jobs.is_pending()
    }

    /// Runs what others sent, until `until`. For the owner.
    pub(crate) fn receive(&self, until: Instant) {
        if self.jobs.is_pending() {
            let mut taken = TAKEN.take();
            self.jobs.take(&mut taken);
            taken.drain(..).for_each(run);
            TAKEN.set(taken);
        }
        if self.pending.swap(false, Ordering::Acquire) {
            self.receive_lanes(until);
        }
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
        drop(self.jobs.close());
        for lane in &self.lanes {
            while let Some(job) = lane.pop() {
                drop(job);
            }
        }
    }

    /// Keeps the shard from sleeping, or ends its sleep, without a message.
    pub(crate) fn nudge(&self) {
        // Refused only by a shard that has ended, which needs no nudge.
        drop(self.jobs.push(Box::new(|| ())));
    }

    /// Sends a job from any thread that is no shard.
    fn inject(&self, job: Job) -> Result<()> {
        self.jobs.push(job).map_err(|_| Error::closed("the shard"))
    }

    /// Sends a job from the shard `source`; waits while the lane is full.
    async fn send(&self, source: ShardId, job: Job) -> Result<()> {
        let lane = &self.lanes[source.index()];
        let mut job = Some(job);
        poll_fn(|context| {
            for attempt in 0..2 {
                if self.closed.load(Ordering::SeqCst) {
                    return Poll::Ready(Err(Error::closed("the shard")));
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

/// A job that panics costs its sender the reply, not the shard its life.
fn run(job: Job) {
    if catch_unwind(AssertUnwindSafe(job)).is_err() {
        metrics::add(Counter::TaskPanics, 1);
    }
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
    pub fn submit<F, Fut, R>(&self, f: F) -> impl Future<Output = Result<R>> + use<F, Fut, R>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = R> + 'static,
        R: Send + 'static,
    {
        let this = self.clone();
        async move {
            let (sender, receiver) = oneshot::channel();
            let sent = clock::now();
            this.send(Box::new(move || {
                metrics::record(Measure::MeshHop, clock::now().nanos_since(sent));
                let answer = async move { drop(sender.send(f().await)) };
                task::Builder::new().name("submitted").spawn(answer).detach();
            }))
            .await?;
            reply(receiver).await
        }
    }

    /// Runs `f` on the shard between its tasks and returns its value: cheaper than
    /// [`ShardHandle::submit`] for what neither waits nor takes long.
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
            let (sender, receiver) = oneshot::channel();
            let sent = clock::now();
            this.send(Box::new(move || {
                metrics::record(Measure::MeshHop, clock::now().nanos_since(sent));
                drop(sender.send(f()));
            }))
            .await?;
            reply(receiver).await
        }
    }

    /// Starts `f` on the shard as a task from any thread, without waiting.
    ///
    /// # Errors
    /// `is_closed` if the shard has shut down.
    pub fn spawn<F, Fut>(&self, f: F) -> Result<()>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        self.shared.remote(self.id).inject(Box::new(move || {
            task::Builder::new().name("injected").spawn(f()).detach();
        }))
    }

    async fn send(&self, job: Job) -> Result<()> {
        let remote = self.shared.remote(self.id);
        // A connection's own thread and foreign threads have no lane.
        match context::try_with(|shard| (shard.has_lanes, shard.id())) {
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

async fn reply<R>(receiver: oneshot::Receiver<R>) -> Result<R> {
    receiver.await.map_err(|lost| match lost {
        Lost::Dropped => Error::closed("the shard"),
        Lost::Panicked => Error::panicked("the closure sent to another shard (see the log)"),
    })
}
