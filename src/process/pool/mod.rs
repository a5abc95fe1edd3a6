//! Worker processes for jobs: work that crashes, leaks or holds a lock of its language runtime does
//! so in a process of its own.
//!
//! A closure cannot travel to another process. Jobs are bytes for a function with a name; a worker
//! is this program, started once more and held in [`Worker::serve_if_asked`], or any program that
//! serves ([`Builder::command`]). A thread of the pool ([`crate::blocking::Pool`]) blocks on the
//! socket to its worker, so that tasks await a job and plain threads wait for it alike. Invariant:
//! a worker never outlives its pool for long: it ends when the other end of its socket is closed.
//!
//! Both directions copy the bytes through the kernel, and a worker takes some milliseconds to
//! start: for computations in this program's own language, [`crate::cpu::run`] is the cheaper way.

mod child;
mod frame;
mod worker;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use slab::Slab;

use self::child::{Cord, Process};
pub use self::worker::{Function, Worker};
use crate::blocking;
use crate::clock;
use crate::error::{Errno, Error, Result};
use crate::limits;
use crate::reply::JobState;

/// Who is said to have shut down.
const THE_POOL: &str = "the process pool";

/// A worker, and its place among those that live.
struct Seated {
    process: Process,
    place: usize,
}

/// What the pool and its jobs share.
struct Core {
    command: Mutex<Command>,
    /// Workers that have nothing to do; `None` once closed.
    idle: Mutex<Option<Vec<Seated>>>,
    /// All workers that live, by process id.
    living: Mutex<Slab<(u32, Cord)>>,
    /// Whether the workers have been cut off.
    is_cut: AtomicBool,
}

/// Ends the idle workers with the last holder of the pool; the others end after their jobs.
struct Owner {
    threads: blocking::Pool,
    core: Arc<Core>,
}

/// Processes that do jobs, with a bounded queue. Cloning shares it. Workers start when they are
/// needed; the last clone dropped, each ends after the job that it has, and jobs that wait are
/// dropped.
#[derive(Clone)]
pub struct Pool(Arc<Owner>);

impl Pool {
    /// A builder with the defaults: this program as the worker, one for each CPU at most.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Has a worker run `function` on `input`, and returns what it makes of it. Waits while the
    /// queue is full.
    ///
    /// Dropping the future calls back what has not begun; what runs goes on, and its output is
    /// dropped.
    ///
    /// # Errors
    /// `is_panicked` if the function panicked; its worker lives on. `is_disconnected` if the worker
    /// was killed, or ended, before it had the output: the error names worker and function, and the
    /// job may have happened. `is_config` if there is no such function, or if the program is no
    /// worker. `is_limit` if input or output are longer than
    /// [`limits::PROCESS_FRAME_BYTES_MAX`]. `is_closed` if the pool has shut down.
    pub async fn call(&self, function: &str, input: impl Into<Vec<u8>>) -> Result<Vec<u8>> {
        let job = self.job(function, input.into())?;
        self.0.threads.run(job).await?
    }

    /// Hands a job to a worker, or puts it in the queue, and gives a handle to it. Never waits
    /// itself: what the pool refuses is the handle's error, `is_limit` if the queue is full.
    /// Otherwise as [`Pool::call`].
    pub fn submit(&self, function: &str, input: impl Into<Vec<u8>>) -> Handle {
        Handle(match self.job(function, input.into()) {
            Ok(job) => self.0.threads.submit(job),
            Err(error) => blocking::Handle::refused(error),
        })
    }

    fn job(
        &self,
        function: &str,
        input: Vec<u8>,
    ) -> Result<impl FnOnce() -> Result<Vec<u8>> + Send + use<>> {
        let max = limits::PROCESS_FRAME_BYTES_MAX;
        let head = frame::encode_request_head(function, input.len()).map_err(|_| {
            let (name, bytes) = (function.len(), input.len());
            Error::limit(format!(
                "a job of {bytes} bytes, its function's name of {name}: {max} bytes may be sent, \
                 65535 of them for the name"
            ))
        })?;
        let (core, function) = (Arc::clone(&self.0.core), function.to_owned());
        Ok(move || core.perform(&function, &head, &input))
    }

    /// Process ids of the workers that live.
    pub fn workers(&self) -> Vec<u32> {
        self.0.core.living().iter().map(|(_, (id, _))| *id).collect()
    }

    /// Jobs that wait for a worker.
    pub fn pending(&self) -> usize {
        self.0.threads.pending()
    }

    /// Refuses further jobs, drops those that have not begun, and has idle workers end. Does not
    /// wait for the others, which end after their jobs.
    pub fn close(&self) {
        self.0.close();
    }

    /// Closes the pool and blocks the calling thread until all workers have ended and have been
    /// waited for. Jobs that take longer than `limit` are ended with their workers.
    ///
    /// # Errors
    /// `is_timed_out` if a job took longer, whose handle says `is_closed` then;
    /// `is_already_running` on the thread of a shard, which must not stop: the pool is closed all
    /// the same. Tasks call this through [`blocking::run`].
    pub fn shut_down(&self, limit: Duration) -> Result<()> {
        let Owner { threads, core } = &*self.0;
        let left = core.take_idle();
        let ended = threads.shut_down(limit);
        if ended.as_ref().is_err_and(Error::is_already_running) {
            end_elsewhere(Arc::clone(core), left);
            return ended;
        }
        if ended.is_err() {
            core.cut();
            // They see their workers gone now, and wait for them.
            threads.end(clock::now() + Duration::from_millis(2 * limits::PROCESS_EXIT_MS_MAX));
        }
        core.end_all(left);
        ended
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("workers", &self.workers())
            .field("pending", &self.pending())
            .finish_non_exhaustive()
    }
}

impl Owner {
    fn close(&self) {
        self.threads.close();
        end_elsewhere(Arc::clone(&self.core), self.core.take_idle());
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.close();
    }
}

/// Ends workers without making the calling thread wait for them.
fn end_elsewhere(core: Arc<Core>, left: Vec<Seated>) {
    if left.is_empty() {
        return;
    }
    core.cut_off(&left);
    let end = {
        let core = Arc::clone(&core);
        move || core.end_all(left)
    };
    // Without a thread they are ended by being dropped, here.
    drop(thread::Builder::new().name("annulus-reaper".into()).spawn(end));
}

impl Core {
    fn living(&self) -> MutexGuard<'_, Slab<(u32, Cord)>> {
        self.living.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn idle(&self) -> MutexGuard<'_, Option<Vec<Seated>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the pool for workers: what becomes idle after this ends.
    fn take_idle(&self) -> Vec<Seated> {
        self.idle().take().unwrap_or_default()
    }

    /// Has a worker do a job. Called on a thread of the pool.
    fn perform(&self, function: &str, head: &[u8], input: &[u8]) -> Result<Vec<u8>> {
        let mut seated = self.take_worker()?;
        match seated.process.call(head, input) {
            Ok(output) => {
                self.put_back(seated);
                output
            }
            Err(how) => {
                let id = seated.process.id();
                self.end(seated);
                if self.is_cut.load(Ordering::SeqCst) {
                    return Err(Error::closed(THE_POOL));
                }
                tracing::warn!(worker = id, function, how, "a worker was lost with its job");
                Err(Error::disconnected(format!("worker {id} {how} while it ran {function:?}")))
            }
        }
    }

    /// An idle worker that lives, or a new one.
    fn take_worker(&self) -> Result<Seated> {
        loop {
            let idle = self.idle().as_mut().and_then(Vec::pop);
            let Some(mut seated) = idle else { break };
            if seated.process.is_alive() {
                return Ok(seated);
            }
            tracing::warn!(worker = seated.process.id(), "an idle worker has ended; replaced");
            self.end(seated);
        }
        self.start_worker()
    }

    fn start_worker(&self) -> Result<Seated> {
        let process = {
            let mut command = self.command.lock().unwrap_or_else(PoisonError::into_inner);
            Process::start(&mut command)?
        };
        let cord = process
            .cord()
            .map_err(|error| Error::io("holding a worker's socket", Errno::from_io(&error)))?;
        let place = self.living().insert((process.id(), cord));
        let mut seated = Seated { process, place };
        // It is listed before this is looked at: one of both sees the other.
        let greeted = if self.is_cut.load(Ordering::SeqCst) {
            Err(Error::closed(THE_POOL))
        } else {
            seated.process.greet()
        };
        match greeted {
            Ok(()) => Ok(seated),
            Err(error) => {
                self.end(seated);
                let is_cut = self.is_cut.load(Ordering::SeqCst);
                Err(if is_cut { Error::closed(THE_POOL) } else { error })
            }
        }
    }

    fn put_back(&self, seated: Seated) {
        if let Some(idle) = self.idle().as_mut() {
            return idle.push(seated);
        }
        // The pool has been closed.
        self.end(seated);
    }

    fn end(&self, seated: Seated) {
        let Seated { process, place } = seated;
        // Waited for first, so that no other process can have its id while it is listed.
        drop(process);
        drop(self.living().remove(place));
    }

    fn end_all(&self, left: Vec<Seated>) {
        self.cut_off(&left);
        for seated in left {
            self.end(seated);
        }
    }

    /// Tells workers to end, so that waiting for one after the other takes as long as for one.
    fn cut_off(&self, left: &[Seated]) {
        let living = self.living();
        left.iter().filter_map(|seated| living.get(seated.place)).for_each(|(_, cord)| cord.cut());
    }

    /// Tells all workers to end, those at work too.
    fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
        self.living().iter().for_each(|(_, (_, cord))| cord.cut());
    }
}

/// How a pool is built.
#[derive(Debug)]
pub struct Builder {
    workers: Option<usize>,
    queue: usize,
    command: Option<Command>,
}

impl Default for Builder {
    fn default() -> Self {
        Self { workers: None, queue: limits::POOL_QUEUE_COUNT_DEFAULT, command: None }
    }
}

impl Builder {
    /// How many workers at most.
    #[must_use]
    pub fn workers(mut self, count: usize) -> Self {
        self.workers = Some(count);
        self
    }

    /// How many jobs may wait for a worker. With 0 a job is taken only if a worker is free.
    #[must_use]
    pub fn queue(mut self, jobs: usize) -> Self {
        self.queue = jobs;
        self
    }

    /// The worker, instead of this program: one that calls [`Worker::serve`]. Its standard input is
    /// the socket to the pool; output and errors go where the command says, or where this
    /// process's go.
    #[must_use]
    pub fn command(mut self, command: Command) -> Self {
        self.command = Some(command);
        self
    }

    /// Builds the pool. No worker is started yet.
    ///
    /// # Errors
    /// `is_config` if a setting makes no sense, and in a process that is itself a worker and has
    /// come past [`Worker::serve_if_asked`]: each worker would start workers.
    pub fn build(self) -> Result<Pool> {
        if self.command.is_none() && worker::is_asked() {
            return Err(Error::config(
                "this process is a worker itself: call Worker::serve_if_asked first in main",
            ));
        }
        let max = limits::PROCESS_WORKERS_COUNT_MAX;
        let mut threads = blocking::Pool::builder().queue(self.queue).name("annulus-procs");
        if let Some(count) = self.workers {
            if !(1..=max).contains(&count) {
                return Err(Error::config(format!("{count} worker processes: use 1 to {max}")));
            }
            threads = threads.threads(count);
        }
        let core = Core {
            command: Mutex::new(self.command.unwrap_or_else(child::this_program)),
            idle: Mutex::new(Some(Vec::new())),
            living: Mutex::default(),
            is_cut: AtomicBool::new(false),
        };
        Ok(Pool(Arc::new(Owner { threads: threads.build()?, core: Arc::new(core) })))
    }
}

/// A job of a process pool ([`Pool::submit`]).
///
/// Awaiting it works in every task of every executor, [`Handle::wait`] on plain threads.
/// Cancel-safe: an await or a wait that is given up loses nothing, and the handle may be awaited
/// again. Dropping the handle leaves the job to its pool.
///
/// # Errors
/// As [`Pool::call`], and `is_cancelled` if the job was aborted.
///
/// # Panics
/// If it is awaited or waited for again after it gave the outcome.
#[must_use = "a job runs without its handle, but then nobody sees how it ends; detach it"]
#[derive(Debug)]
pub struct Handle(blocking::Handle<Result<Vec<u8>>>);

impl Handle {
    /// Pending while it waits for a worker, running from the moment it has one.
    pub fn state(&self) -> JobState {
        self.0.state()
    }

    /// Whether the job has ended, in whatever way.
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }

    /// Calls the job back. False if a worker has it, or if it has ended.
    pub fn abort(&self) -> bool {
        self.0.abort()
    }

    /// Lets the job run without anyone who waits for it.
    pub fn detach(self) {
        self.0.detach();
    }

    /// Blocks the calling thread until the job ends.
    ///
    /// # Errors
    /// As [`Handle`]. `is_already_running` on the thread of a shard, which must not stop: await the
    /// handle there.
    pub fn wait(self) -> Result<Vec<u8>> {
        self.0.wait()?
    }

    /// Blocks the calling thread until the job ends, at most for `limit`.
    ///
    /// # Errors
    /// `is_timed_out` if the time is over first: the job goes on, and may be waited for again.
    /// Otherwise as [`Handle::wait`].
    pub fn wait_timeout(&mut self, limit: Duration) -> Result<Vec<u8>> {
        self.0.wait_timeout(limit)?
    }
}

impl Future for Handle {
    type Output = Result<Vec<u8>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|ended| ended?)
    }
}
