//! The cpu pool: threads on cores of their own for work that computes.
//!
//! A shard hands over a closure and awaits its value; meanwhile it serves others. The queue is
//! bounded: when it is full the caller waits, nothing is dropped. A panic in the closure comes back
//! as an error. It is a [`Pool`] of [`crate::blocking`] whose threads have seats.

use crate::blocking::{Kind, Measured, Pool};
use crate::error::Result;
use crate::limits;
use crate::metrics::{self, Counter, Measure, Registry};
use crate::shard::context;
use crate::shard::topology::CpuId;

/// A pool with a thread for each seat, none of which is started yet.
pub(crate) fn new_pool(queue: usize, seats: &[Option<CpuId>], registry: &Registry) -> Pool {
    let measured = Measured {
        registry: registry.clone(),
        wait: Measure::CpuWait,
        run: Measure::CpuRun,
        panics: Counter::CpuPanics,
    };
    let settings = Pool::builder().name("annulus-cpu").queue(queue);
    Pool::new(settings, "the cpu pool", Kind::Seats(seats.into()), Some(measured))
}

/// Runs `f` on a core of the cpu pool and returns its value. Waits while the pool's queue is full
/// ([`limits::CPU_QUEUE_COUNT_MAX`] jobs).
///
/// Dropping the future calls back what has not begun; what runs goes on, and its value is dropped.
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
    metrics::add(Counter::CpuJobs, 1);
    pool().run(f).await
}

/// Jobs that wait for a thread of the pool.
///
/// # Panics
/// Outside a runtime.
pub fn queued() -> usize {
    pool().pending()
}

/// The cpu pool of this task's runtime: for handles to its jobs ([`Pool::submit`]). It ends with
/// the runtime.
///
/// # Panics
/// Outside a runtime.
pub fn pool() -> Pool {
    context::with(|shard| shard.shared.pools.cpu.clone())
}

const _: () = assert!(limits::CPU_QUEUE_COUNT_MAX > 0);
