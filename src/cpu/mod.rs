//! The cpu pool: threads on cores of their own for work that computes.
//!
//! A shard hands over a closure and awaits its value; meanwhile it serves others. The queue is
//! bounded: when it is full the caller waits, nothing is dropped. A panic in the closure comes back
//! as an error.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::thread;

use crate::clock::{self, Instant};
use crate::error::{Error, Result};
use crate::limits;
use crate::metrics::{self, Counter, Measure, Registry};
use crate::shard::context;
use crate::shard::placement;
use crate::shard::priority;
use crate::shard::topology::CpuId;
use crate::sync::shared::oneshot::{self, Lost};

type Job = Box<dyn FnOnce() + Send>;

struct Queue {
    jobs: VecDeque<Job>,
    /// Tasks that wait for room, in line, each with its ticket.
    waiting: VecDeque<(u64, Waker)>,
    tickets: u64,
    closed: bool,
    /// Threads that have not ended.
    threads: usize,
}

/// The pool's shared part.
pub(crate) struct Pool {
    queue: Mutex<Queue>,
    filled: Condvar,
    /// A thread has ended.
    ended: Condvar,
    capacity: usize,
}

/// The pool's threads, which end with this.
pub(crate) struct Threads(Arc<Pool>);

impl Pool {
    pub(crate) fn new(capacity: usize) -> Arc<Self> {
        assert!(capacity > 0, "a cpu pool needs room for one job");
        let queue = Queue {
            jobs: VecDeque::new(),
            waiting: VecDeque::new(),
            tickets: 0,
            closed: false,
            threads: 0,
        };
        Arc::new(Self {
            queue: Mutex::new(queue),
            filled: Condvar::new(),
            ended: Condvar::new(),
            capacity,
        })
    }

    /// Starts one thread for each seat, pinned where the seat names a CPU.
    pub(crate) fn start(
        self: &Arc<Self>,
        seats: &[Option<CpuId>],
        registry: &Registry,
    ) -> std::io::Result<Threads> {
        let threads = Threads(Arc::clone(self));
        for (index, seat) in seats.iter().copied().enumerate() {
            let pool = Arc::clone(self);
            let recorder = registry.recorder(index);
            let work = move || {
                if let Some(cpu) = seat
                    && !placement::pin_current_thread(cpu)
                {
                    tracing::warn!(cpu = cpu.0, "the cpu pool's thread could not be pinned");
                }
                priority::give_way();
                let _recording = metrics::enter(std::rc::Rc::new(recorder));
                pool.work();
            };
            let builder = thread::Builder::new().name(format!("annulus-cpu-{index}"));
            self.lock().threads += 1;
            if let Err(error) = builder.spawn(work) {
                self.lock().threads -= 1;
                return Err(error);
            }
        }
        Ok(threads)
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        while let Some(job) = self.take() {
            // The job's sender tells its caller about a panic; the thread lives on.
            if catch_unwind(AssertUnwindSafe(job)).is_err() {
                metrics::add(Counter::CpuPanics, 1);
            }
            metrics::flush();
        }
        self.lock().threads -= 1;
        self.ended.notify_all();
    }

    fn take(&self) -> Option<Job> {
        let mut queue = self.lock();
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                let next = queue.waiting.pop_front();
                drop(queue);
                if let Some((_, waker)) = next {
                    waker.wake();
                }
                return Some(job);
            }
            if queue.closed {
                return None;
            }
            queue = self.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Puts a job in the queue; waits while it is full.
    async fn push(&self, job: Job) -> Result<()> {
        let mut job = Some(job);
        let mut place = Place { pool: self, ticket: None };
        poll_fn(|context| {
            let mut queue = self.lock();
            if queue.closed {
                return Poll::Ready(Err(Error::closed("the cpu pool")));
            }
            if queue.jobs.len() >= self.capacity {
                place.keep(&mut queue, context.waker());
                return Poll::Pending;
            }
            queue.jobs.extend(job.take());
            drop(queue);
            self.filled.notify_one();
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// Jobs that wait for a thread.
    pub(crate) fn queued(&self) -> usize {
        self.lock().jobs.len()
    }
}

/// A place in the line of those who wait for room. Who leaves the line without having been told
/// that there is room does nothing; who leaves after it tells the next.
struct Place<'a> {
    pool: &'a Pool,
    ticket: Option<u64>,
}

impl Place<'_> {
    /// Takes a place, or keeps the one that it has.
    fn keep(&mut self, queue: &mut Queue, waker: &Waker) {
        let held = self
            .ticket
            .and_then(|ticket| queue.waiting.iter_mut().find(|(other, _)| *other == ticket));
        if let Some((_, place)) = held {
            place.clone_from(waker);
            return;
        }
        queue.tickets += 1;
        self.ticket = Some(queue.tickets);
        queue.waiting.push_back((queue.tickets, waker.clone()));
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let mut queue = self.pool.lock();
        let place = queue.waiting.iter().position(|(other, _)| *other == ticket);
        let left = match place {
            Some(place) => queue.waiting.remove(place),
            // It was told of room, which it may not have used.
            None if queue.jobs.len() < self.pool.capacity => queue.waiting.pop_front(),
            None => None,
        };
        drop(queue);
        if let (None, Some((_, waker))) = (place, left) {
            waker.wake();
        }
    }
}

impl Threads {
    /// Refuses new jobs, drops those that have not begun, and waits until `deadline` for those
    /// that have. A job that takes longer goes on without anyone who waits for it; how many do is
    /// returned.
    pub(crate) fn end(&self, deadline: Instant) -> usize {
        let pool = &self.0;
        let (jobs, waiting) = {
            let mut queue = pool.lock();
            queue.closed = true;
            (std::mem::take(&mut queue.jobs), std::mem::take(&mut queue.waiting))
        };
        drop(jobs);
        for (_, waker) in waiting {
            waker.wake();
        }
        pool.filled.notify_all();
        let mut queue = pool.lock();
        while queue.threads > 0 {
            let left = deadline.since(clock::now());
            if left.is_zero() {
                break;
            }
            let waited = pool.ended.wait_timeout(queue, left);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        queue.threads
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.end(clock::now());
    }
}

/// Runs `f` on a core of the cpu pool and returns its value. Waits while the pool's queue is full
/// ([`limits::CPU_QUEUE_COUNT_MAX`] jobs).
///
/// Dropping the future does not stop a closure that has been queued; its value is dropped.
///
/// # Errors
/// `is_panicked` if `f` panicked, `is_closed` if the runtime is shutting down.
///
/// # Panics
/// When polled outside a runtime.
pub async fn run<F, R>(f: F) -> Result<R>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    let pool = context::with(|shard| Arc::clone(&shard.shared.cpu));
    metrics::add(Counter::CpuJobs, 1);
    let (sender, receiver) = oneshot::channel();
    let queued = clock::now();
    pool.push(Box::new(move || {
        let started = clock::now();
        metrics::record(Measure::CpuWait, started.nanos_since(queued));
        let value = f();
        metrics::record(Measure::CpuRun, clock::now().nanos_since(started));
        drop(sender.send(value));
    }))
    .await?;
    receiver.await.map_err(|lost| match lost {
        Lost::Panicked => Error::panicked("the closure on the cpu pool (see the log)"),
        Lost::Dropped => Error::closed("the cpu pool"),
    })
}

/// Jobs that wait for a thread of the pool.
///
/// # Panics
/// Outside a runtime.
pub fn queued() -> usize {
    context::with(|shard| shard.shared.cpu.queued())
}

const _: () = assert!(limits::CPU_QUEUE_COUNT_MAX > 0);
