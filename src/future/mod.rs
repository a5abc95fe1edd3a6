//! Combining futures: all of them, the first of them, each as it ends.
//!
//! These run inside the task that awaits them: no spawn, nothing `'static`. Dropping one drops the
//! futures in it, which cancels what they were doing; none leaves anything behind. What runs on
//! without its waiter is a task: see [`crate::task`].
//!
//! | wanted | here |
//! |---|---|
//! | every result, in input order | [`join_all`], [`join!`] for different types |
//! | every result, or the first error | [`try_join_all`], [`try_join!`] |
//! | the first result, the others dropped | [`race`], [`or`], [`select()`] for different types |
//! | the first result, the others kept | [`select()`] gives back the loser; [`select!`] in a loop |
//! | each result as it comes | [`as_completed`] |
//!
//! The macros are those of futures-util. A future that [`select!`] gets by name must be `Unpin` and
//! fused ([`FutureExt::fuse`]; [`std::pin::pin`]); `select!` picks among several that are ready at
//! random, [`select_biased!`] takes the first in the order of its arms.
//!
//! ```
//! use annulus::{Runtime, future, task};
//!
//! Runtime::new()?.block_on(async {
//!     let (one, two) = future::join!(async { 1 }, async { "two" });
//!     assert_eq!((one, two), (1, "two"));
//!     let both = future::try_join!(async { Ok(1) }, async { Err::<u32, _>("no") });
//!     assert_eq!(both, Err("no"));
//!     let first = future::select_biased! {
//!         never = future::pending::<u32>() => never,
//!         four = future::ready(4) => four,
//!     };
//!     assert_eq!(first, 4);
//!     assert_eq!(future::join_all((1..=3).map(future::ready)).await, [1, 2, 3]);
//! });
//! # annulus::Result::Ok(())
//! ```

mod as_completed;
mod join_all;
mod race;

pub use futures_util::future::{
    Either, FusedFuture, FutureExt, Map, Select, TryFutureExt, maybe_done, pending, poll_fn, ready,
    select,
};
pub use futures_util::{join, select, select_biased, try_join};

pub use self::as_completed::{AsCompleted, as_completed};
pub use self::join_all::{JoinAll, TryJoinAll, join_all, try_join_all};
pub use self::race::{Or, Race, or, race};
