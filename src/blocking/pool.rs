//! The pool: threads, and jobs for them with an answer each.
//!
//! Three pools share it: the cpu pool, the runtime's default pool for blocking calls, and those
//! that a program builds. Threads hold the core; who holds a [`Pool`] keeps it open.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::handle::{CalledBack, Handle};
use super::queue::{BoxedWork, Placed, Queue, Refusal, Work};
use crate::clock::{self, Instant};
use crate::error::{Errno, Error, Result};
use crate::limits;
use crate::metrics::{self, Counter, Measure, Registry};
use crate::reply::{self, Duty, Receiver};
use crate::shard::paused::ClockHold;
use crate::shard::placement::{self, Unpinned};
use crate::shard::topology::CpuId;
use crate::shard::{context, priority};

/// Whose pool it is, and where its threads sit.
pub(crate) enum Kind {
    /// One thread for each seat, from the start, pinned where the seat names a CPU.
    Seats(Box<[Option<CpuId>]>),
    /// Threads that start when they are needed, anywhere, and end when they have been idle.
    Floating,
}

/// What a runtime's pool records, and where.
pub(crate) struct Measured {
    pub(crate) registry: Registry,
    pub(crate) wait: Measure,
    pub(crate) run: Measure,
    pub(crate) panics: Counter,
}

/// What a pool and its threads share.
pub(super) struct Core {
    pub(super) queue: Queue,
    name: String,
    /// Who is said to have shut down.
    what: &'static str,
    kind: Kind,
    measured: Option<Measured>,
    started: AtomicUsize,
}

/// Closes the pool with its last holder.
struct Owner(Arc<Core>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.queue.close();
    }
}

/// Threads that do jobs, with a bounded queue. Cloning shares it; the threads end when the last
/// clone is dropped, each after the job that it has, and jobs that wait are dropped.
#[derive(Clone)]
pub struct Pool(Arc<Owner>);

impl Pool {
    /// A builder with the defaults: one thread per CPU at most, started when needed.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn new(
        settings: Builder,
        what: &'static str,
        kind: Kind,
        measured: Option<Measured>,
    ) -> Self {
        let (threads, idle) = match &kind {
            Kind::Seats(seats) => (seats.len(), None),
            Kind::Floating => (settings.threads, Some(settings.idle)),
        };
        let queue = Queue::new(threads, settings.queue, idle);
        let core =
            Core { queue, name: settings.name, what, kind, measured, started: AtomicUsize::new(0) };
        Self(Arc::new(Owner(Arc::new(core))))
    }

    fn core(&self) -> &Arc<Core> {
        &self.0.0
    }

    /// Starts the thread of each seat.
    pub(crate) fn start_seats(&self) -> Result<()> {
        let Kind::Seats(seats) = &self.core().kind else { return Ok(()) };
        self.core().queue.expect_threads(seats.len());
        for left in (0..seats.len()).rev() {
            if let Err(error) = start_thread(self.core()) {
                // This one and those that are not tried any more.
                (0..=left).for_each(|_| drop(self.core().queue.miss_thread()));
                return Err(error);
            }
        }
        Ok(())
    }

    /// Puts `f` in the queue and gives a handle to it: to await in any task or executor, to wait
    /// for on a plain thread, to call back. Never waits itself: what the pool refuses is the
    /// handle's error. If a thread is free the job is running when this returns.
    ///
    /// # Errors
    /// The handle's. At once: `is_closed` if the pool has shut down, `is_limit` if its queue is
    /// full; [`Pool::run`] waits for room instead, and [`Pool::try_submit`] gives `f` back.
    pub fn submit<F, R>(&self, f: F) -> Handle<R>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        self.try_submit(f).unwrap_or_else(|refused| Handle::refused(refused.error))
    }

    /// [`Pool::submit`] that gives `f` back if the pool does not take it.
    ///
    /// # Errors
    /// `is_closed` if the pool has shut down, `is_full` if its queue is full.
    pub fn try_submit<F, R>(&self, f: F) -> std::result::Result<Handle<R>, SubmitError<F>>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        let mut kept = Some(f);
        let mut receiver = None;
        let make = || {
            let (work, waiting) = self.job(kept.take().expect("a job is made once"));
            receiver = Some(waiting);
            work
        };
        let placed = self.core().queue.try_push(make);
        match (placed, receiver, kept) {
            (Ok(placed), Some(receiver), _) => Ok(self.placed(placed, receiver)),
            (Err(refusal), _, Some(job)) => Err(SubmitError { job, error: self.error(refusal) }),
            _ => unreachable!("a job is made if, and only if, it is taken"),
        }
    }

    /// Runs `f` on a thread of the pool and returns its value. Waits while the queue is full.
    ///
    /// Dropping the future calls back what has not begun; what runs goes on, and its value is
    /// dropped.
    ///
    /// # Errors
    /// `is_panicked` if `f` panicked, `is_closed` if the pool has shut down.
    pub async fn run<F, R>(&self, f: F) -> Result<R>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        let (work, receiver) = self.job(f);
        let placed = self.core().queue.push(work).await.map_err(|refusal| self.error(refusal))?;
        Ok(CalledBack(self.placed(placed, receiver)).await?)
    }

    fn job<F, R>(&self, f: F) -> (BoxedWork, Receiver<R>)
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        let (duty, receiver) = reply::channel(self.core().what);
        let core = self.core();
        let measures = core.measured.as_ref().map(|m| (m.wait, m.run, m.panics));
        let hold = context::try_with(|shard| ClockHold::new(&shard.shared)).flatten();
        (Box::new(Job { f, duty, queued: clock::now(), measures, hold }), receiver)
    }

    /// The handle to a job that has been taken; starts a thread for it if it wants one.
    fn placed<R>(&self, placed: Placed, receiver: Receiver<R>) -> Handle<R> {
        let core = self.core();
        if placed.wants_thread
            && let Err(error) = start_thread(core)
        {
            for work in core.queue.miss_thread() {
                work.refuse(error.clone());
            }
        }
        Handle::new(receiver, placed.number.map(|number| (Arc::clone(core), number)))
    }

    fn error(&self, refusal: Refusal) -> Error {
        match refusal {
            Refusal::Closed => Error::closed(self.core().what),
            Refusal::Full => {
                let (count, name) = (self.core().queue.capacity(), &self.core().name);
                let advice = "wait for room by Pool::run, or allow for more by Builder::queue";
                Error::limit(format!("{count} jobs wait for the pool {name}; {advice}"))
            }
        }
    }

    /// Refuses further jobs and drops those that no thread has; their handles say so. Does not wait
    /// for what runs.
    pub fn close(&self) {
        self.core().queue.close();
    }

    /// Closes the pool and blocks the calling thread until its threads have ended, at most for
    /// `limit`.
    ///
    /// # Errors
    /// `is_timed_out` if a job took longer: it goes on. `is_already_running` on the thread of a
    /// shard, which must not stop; the pool is closed all the same.
    pub fn shut_down(&self, limit: Duration) -> Result<()> {
        self.close();
        if context::is_running() {
            return Err(Error::would_stop_shard());
        }
        match self.end(clock::now() + limit) {
            0 => Ok(()),
            busy => {
                Err(Error::timed_out(format!("the end of {busy} threads of {}", self.core().name)))
            }
        }
    }

    /// Closes the pool and waits for its threads until `deadline`; returns how many are left.
    pub(crate) fn end(&self, deadline: Instant) -> usize {
        self.close();
        self.core().queue.wait_for_end(deadline)
    }

    /// Whether it takes no more jobs.
    pub fn is_closed(&self) -> bool {
        self.core().queue.is_closed()
    }

    /// Jobs that wait for a thread.
    pub fn pending(&self) -> usize {
        self.core().queue.pending()
    }

    /// Jobs that a thread has.
    pub fn running(&self) -> usize {
        self.core().queue.busy()
    }

    /// Threads that it has now.
    pub fn threads(&self) -> usize {
        self.core().queue.threads()
    }

    /// The name of its threads, without their number.
    pub fn name(&self) -> &str {
        &self.core().name
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("name", &self.name())
            .field("threads_max", &self.core().queue.threads_max())
            .field("running", &self.running())
            .field("pending", &self.pending())
            .finish()
    }
}

/// A closure, and whom to tell what it returns.
struct Job<F, R> {
    f: F,
    duty: Duty<R>,
    queued: Instant,
    measures: Option<(Measure, Measure, Counter)>,
    /// A paused clock stands still until the job has been answered.
    hold: Option<ClockHold>,
}

impl<F, R> Work for Job<F, R>
where
    F: FnOnce() -> R + Send,
    R: Send,
{
    fn assign(&self) {
        let has_begun = self.duty.begin();
        assert!(has_begun, "a job is called back through its queue alone");
    }

    fn run(self: Box<Self>, done: &dyn Fn()) {
        let Self { f, duty, queued, measures, hold: _hold } = *self;
        let Some((wait, run, panics)) = measures else {
            return duty.answer(f, |_| (), done);
        };
        let started = clock::now();
        metrics::record(wait, started.nanos_since(queued));
        let timed = move || {
            let value = f();
            metrics::record(run, clock::now().nanos_since(started));
            value
        };
        duty.answer(timed, |_| metrics::add(panics, 1), done);
    }

    fn refuse(self: Box<Self>, error: Error) {
        self.duty.refuse(error);
    }
}

/// Starts one thread, which the queue counts already.
fn start_thread(core: &Arc<Core>) -> Result<()> {
    let index = core.started.fetch_add(1, Ordering::Relaxed);
    let unpinned = match &core.kind {
        Kind::Seats(_) => None,
        // A thread starts where its maker sits, and that may be pinned to a shard's core.
        Kind::Floating => placement::before_pinning(),
    };
    let work = {
        let core = Arc::clone(core);
        move || live(&core, index, unpinned)
    };
    let spawned = thread::Builder::new().name(format!("{}-{index}", core.name)).spawn(work);
    spawned.map(drop).map_err(|error| {
        let verb = format!("starting a thread of the pool {} (raise `ulimit -u`)", core.name);
        Error::io(verb, Errno::from_io(&error))
    })
}

/// The life of a thread.
fn live(core: &Core, index: usize, unpinned: Option<Unpinned>) {
    match &core.kind {
        Kind::Seats(seats) => {
            if let Some(Some(cpu)) = seats.get(index)
                && !placement::pin_current_thread(*cpu)
            {
                tracing::warn!(cpu = cpu.0, pool = core.name, "a thread could not be pinned");
            }
            priority::give_way();
        }
        Kind::Floating => {
            priority::take_ordinary_slices();
            unpinned.iter().for_each(Unpinned::apply);
        }
    }
    let recorder = core.measured.as_ref().map(|measured| measured.registry.recorder(index));
    let _recording = recorder.map(|recorder| metrics::enter(Rc::new(recorder)));
    while let Some(work) = core.queue.next() {
        let run = || work.run(&|| core.queue.done());
        // A panic of the job has been answered; this is one of whoever is told.
        if catch_unwind(AssertUnwindSafe(run)).is_err() {
            tracing::error!(pool = core.name, "what waited for a job panicked when it was told");
        }
        metrics::flush();
    }
}

/// How a pool is built.
#[derive(Clone, Debug)]
pub struct Builder {
    threads: usize,
    queue: usize,
    name: String,
    idle: Duration,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            threads: thread::available_parallelism().map_or(1, usize::from),
            queue: limits::POOL_QUEUE_COUNT_DEFAULT,
            name: "annulus-pool".into(),
            idle: Duration::from_millis(limits::POOL_IDLE_MS_DEFAULT),
        }
    }
}

impl Builder {
    /// How many jobs run at once: a thread each, started when it is needed.
    #[must_use]
    pub fn threads(mut self, count: usize) -> Self {
        self.threads = count;
        self
    }

    /// How many jobs may wait for a thread. With 0 a job is taken only if a thread is free.
    #[must_use]
    pub fn queue(mut self, jobs: usize) -> Self {
        self.queue = jobs;
        self
    }

    /// The name of its threads; a number follows. Linux shows the first 15 bytes.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// How long a thread waits for a job before it ends.
    #[must_use]
    pub fn idle(mut self, limit: Duration) -> Self {
        self.idle = limit;
        self
    }

    /// Builds the pool. No thread is started yet.
    ///
    /// # Errors
    /// `is_config` if a setting makes no sense.
    pub fn build(self) -> Result<Pool> {
        self.check()?;
        Ok(Pool::new(self, "the pool", Kind::Floating, None))
    }

    pub(crate) fn check(&self) -> Result<()> {
        let max = limits::POOL_THREADS_COUNT_MAX;
        if !(1..=max).contains(&self.threads) {
            return Err(Error::config(format!(
                "a pool of {} threads: use 1 to {max}",
                self.threads
            )));
        }
        let max = limits::POOL_QUEUE_COUNT_MAX;
        if self.queue > max {
            return Err(Error::config(format!(
                "a queue of {} jobs: use at most {max}",
                self.queue
            )));
        }
        if self.name.contains('\0') {
            return Err(Error::config("a pool's name with a zero byte: leave it out"));
        }
        Ok(())
    }
}

/// A job that a pool did not take ([`Pool::try_submit`]).
pub struct SubmitError<F> {
    job: F,
    error: Error,
}

impl<F> SubmitError<F> {
    /// Whether the queue was full.
    pub fn is_full(&self) -> bool {
        self.error.is_limit()
    }

    /// Whether the pool has shut down.
    pub fn is_closed(&self) -> bool {
        self.error.is_closed()
    }

    /// The job, to be tried again or done otherwise.
    pub fn into_job(self) -> F {
        self.job
    }
}

impl<F> fmt::Debug for SubmitError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SubmitError({})", self.error)
    }
}

impl<F> fmt::Display for SubmitError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<F> std::error::Error for SubmitError<F> {}

impl<F> From<SubmitError<F>> for Error {
    fn from(refused: SubmitError<F>) -> Self {
        refused.error
    }
}
