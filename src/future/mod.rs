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
//!
//! Whether something can be awaited is a matter of its type, `F: Future`, and settled when it is
//! compiled; there is nothing to ask at run time. A function is not a future, its call is:
//!
//! ```compile_fail,E0277
//! async fn work() -> u32 { 1 }
//! annulus::task::spawn(work).detach();
//! ```
//!
//! ```no_run
//! async fn work() -> u32 { 1 }
//! annulus::task::spawn(work()).detach();
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

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::time::Duration;

    use super::*;
    use crate::stream::{self, StreamExt};
    use crate::task::{self, CancellationToken, JoinSet, WaitFor};
    use crate::{Runtime, shard::context, time};

    const FAR: Duration = Duration::from_secs(3600);

    /// Timers, tasks beside the calling one, and holders of `held` beside it.
    fn left(held: &Rc<()>) -> (usize, usize, usize) {
        let timers = context::with(|shard| shard.timers.borrow().armed());
        (timers, task::all().len() - 1, Rc::strong_count(held) - 1)
    }

    /// Sleeps for an hour, holding something.
    async fn far(held: Rc<()>) -> Result<(), String> {
        time::sleep(FAR).await;
        drop(held);
        Ok(())
    }

    type Local = futures_util::future::LocalBoxFuture<'static, ()>;

    /// One of each, stuck: a future that must leave nothing behind when it is dropped.
    fn stuck(held: &Rc<()>) -> Vec<(&'static str, Local)> {
        let one = || far(Rc::clone(held));
        let many = |count: usize| (0..count).map(|_| one()).collect::<Vec<_>>();
        let (few, crowd) = (many(3), many(100));
        let (try_few, try_crowd) = (many(3), many(100));
        let (racing, ending, two, three) = (many(5), many(5), (one(), one()), (one(), one()));
        let (in_set, in_wait, in_scope, in_body) = (one(), one(), one(), one());
        let (with_token, bracket) = (one(), Box::pin(one()));
        vec![
            ("join_all", async { drop(join_all(few).await) }.boxed_local()),
            ("join_all of many", async { drop(join_all(crowd).await) }.boxed_local()),
            ("try_join_all", async { drop(try_join_all(try_few).await) }.boxed_local()),
            ("try_join_all of many", async { drop(try_join_all(try_crowd).await) }.boxed_local()),
            ("race", async { drop(race(racing).await) }.boxed_local()),
            ("or", async { drop(or(two.0, two.1).await) }.boxed_local()),
            ("join!", async { drop(join!(three.0, three.1)) }.boxed_local()),
            ("as_completed", async { drop(as_completed(ending).next().await) }.boxed_local()),
            (
                "JoinSet",
                async {
                    let mut set = JoinSet::new();
                    set.spawn(in_set);
                    drop(set.join_next().await);
                }
                .boxed_local(),
            ),
            (
                "wait",
                async {
                    let mut set = JoinSet::new();
                    set.spawn(in_wait);
                    task::wait(&mut set, WaitFor::All, Some(FAR)).await;
                }
                .boxed_local(),
            ),
            (
                "scope",
                async {
                    let body = async |scope: task::Scope<String>| {
                        scope.spawn(in_scope);
                        in_body.await
                    };
                    drop(task::scope(body).await);
                }
                .boxed_local(),
            ),
            (
                "run_until_cancelled",
                async {
                    let token = CancellationToken::new();
                    token.child_token().run_until_cancelled(with_token).await;
                }
                .boxed_local(),
            ),
            (
                "bracket",
                task::bracket(bracket, async |stuck| drop(stuck.await), async |_| ()).boxed_local(),
            ),
            (
                "unfold",
                {
                    let held = Rc::clone(held);
                    let next = |held| async { far(held).await.ok().map(|()| ((), Rc::default())) };
                    stream::unfold(held, next).collect::<Vec<()>>().map(drop)
                }
                .boxed_local(),
            ),
        ]
    }

    #[test]
    fn what_is_dropped_leaves_no_task_timer_or_value_behind() {
        let runtime = Runtime::builder().shards(1).build().unwrap();
        let body = async {
            let held = Rc::new(());
            let count = stuck(&held).len();
            assert_eq!(left(&held), (0, 0, 0), "none does anything before it is polled");
            for index in 0..count {
                let mut all = stuck(&held);
                let (name, mut future) = all.swap_remove(index);
                drop(all);
                for _ in 0..3 {
                    assert!(poll_once(&mut future).await, "{name}");
                    task::yield_now().await;
                }
                assert!(left(&held).0 > 0, "{name} waits for a timer");
                drop(future);
                // An aborted task ends on the next turn.
                task::yield_now().await;
                task::yield_now().await;
                assert_eq!(left(&held), (0, 0, 0), "{name}");
            }
        };
        runtime.block_on(async { task::spawn(body).await }).unwrap();
    }

    /// Whether the future is pending.
    async fn poll_once(future: &mut Local) -> bool {
        poll_fn(|context| std::task::Poll::Ready(future.as_mut().poll(context).is_pending())).await
    }
}
