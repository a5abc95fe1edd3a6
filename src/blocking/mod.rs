//! Threads for work that must not run on a shard: calls that block, and computations.
//!
//! [`run`] hands a blocking call to the runtime's default pool, whose threads are started as they
//! are needed. A [`Pool`] of one's own has its own threads and its own bounded queue. The cpu pool
//! ([`crate::cpu`]) is the same pool with its threads on cores of their own. Invariant: nothing
//! that is refused or dropped goes unsaid; whoever waits for the job learns of it.
//!
//! ```
//! use annulus::{Runtime, blocking};
//!
//! Runtime::new()?.block_on(async {
//!     let entries = blocking::run(|| std::fs::read_dir("/").map(Iterator::count)).await?;
//!     assert!(entries.is_ok_and(|count| count > 0));
//!
//!     let pool = blocking::Pool::builder().threads(2).name("sums").build()?;
//!     let sums: Vec<_> = (0..4_u64).map(|n| pool.submit(move || n * n)).collect();
//!     for (n, sum) in sums.into_iter().enumerate() {
//!         assert_eq!(sum.await?, (n * n) as u64);
//!     }
//!     annulus::Result::Ok(())
//! })?;
//! # annulus::Result::Ok(())
//! ```

mod handle;
mod pool;
mod queue;

pub use self::handle::Handle;
pub use self::pool::{Builder, Pool, SubmitError};
pub(crate) use self::pool::{Kind, Measured};
use crate::error::Result;
pub use crate::reply::{JobState, WaitError};
use crate::shard::context;

/// Runs `f`, which may block, on a thread of the runtime's default pool and returns its value. The
/// shard serves others meanwhile. Waits while the pool's queue is full.
///
/// Computations belong on the cpu pool ([`crate::cpu::run`]), which has as many threads as cores.
///
/// Dropping the future calls back what has not begun; what runs goes on, and its value is dropped.
/// The end of the runtime waits for it, up to [`crate::Builder::teardown`].
///
/// # Errors
/// `is_panicked` if `f` panicked, `is_closed` if the pool or the runtime has shut down.
///
/// # Panics
/// When polled outside a runtime; there a [`Pool`] can be waited for ([`Handle::wait`]).
pub async fn run<F, R>(f: F) -> Result<R>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    pool().run(f).await
}

/// The default pool of this task's runtime ([`crate::Builder::blocking_pool`]).
///
/// # Panics
/// Outside a runtime.
pub fn pool() -> Pool {
    context::with(|shard| shard.shared.pools.blocking.clone())
}
