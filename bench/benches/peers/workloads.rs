//! The workloads, written once and expanded in each contender's module.
//!
//! A macro and not a trait: tokio's plain `spawn` wants `Send` futures and the others do not, so
//! one generic text cannot serve both. A contender's module provides, by these names: `World` with
//! `build` and `run`, `spawn`, `yield_now`, `sleep`, `timeout`, `unconstrained`, `OneshotSender`,
//! `oneshot`, `answer`, `receive`, `new_lock`, `acquire`, `bounded`, `unbounded`, `send`, `push`,
//! `next`, `next_pushed`, `join_all`. Invariant: all loops run inside one spawned task, because
//! some runtimes treat the future given to `block_on` differently from every other.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Tasks that yield by turns, or are joined at once.
pub(crate) const MANY: u64 = 100;
/// Items in a queue before its reader starts, and the period of the channel workloads.
pub(crate) const ITEMS: u64 = 1_000_000;
/// What a bounded channel holds.
pub(crate) const BOUND: usize = 1024;
/// A timer that never fires while it is measured.
pub(crate) const FAR: Duration = Duration::from_secs(30);

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    SpawnAndJoin,
    SpawnYieldAndJoin,
    SpawnAndJoinMany,
    Yield,
    YieldByTurns,
    WakeSelf,
    OneshotRoundTrip,
    Lock,
    BoundedChannel,
    UnboundedChannel,
    TimerSetAndDropped,
    TimeoutOverOneYield,
    JoinAllBare,
}

impl Line {
    pub(crate) const ALL: [Line; 13] = [
        Line::SpawnAndJoin,
        Line::SpawnYieldAndJoin,
        Line::SpawnAndJoinMany,
        Line::Yield,
        Line::YieldByTurns,
        Line::WakeSelf,
        Line::OneshotRoundTrip,
        Line::Lock,
        Line::BoundedChannel,
        Line::UnboundedChannel,
        Line::TimerSetAndDropped,
        Line::TimeoutOverOneYield,
        Line::JoinAllBare,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Line::SpawnAndJoin => "spawn and join",
            Line::SpawnYieldAndJoin => "spawn one that yields, join",
            Line::SpawnAndJoinMany => "spawn 100, join all",
            Line::Yield => "yield, alone",
            Line::YieldByTurns => "yield, 100 by turns",
            Line::WakeSelf => "wake itself and run",
            Line::OneshotRoundTrip => "oneshot round trip",
            Line::Lock => "lock, uncontended",
            Line::BoundedChannel => "channel of 1024, item",
            Line::UnboundedChannel => "channel unbounded, item",
            Line::TimerSetAndDropped => "timer set and dropped",
            Line::TimeoutOverOneYield => "timeout over one yield",
            Line::JoinAllBare => "join_all of 100 futures",
        }
    }
}

/// One runtime, ready to be measured.
pub(crate) trait Contender {
    /// The column of the table. Variants of one runtime share it; the fastest stands for all.
    const RUNTIME: &'static str;
    /// What distinguishes the variant, if there are several.
    const VARIANT: &'static str;

    /// The runtime, warm enough to run futures.
    fn new() -> Self;

    /// The CPU time of this thread that `count` repetitions of `line` take.
    fn measure(&mut self, line: Line, count: u64) -> Duration;
}

/// The CPU time that this thread has had: unlike the wall clock, it does not see the neighbours.
pub(crate) fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// A future that is ready the second time, having woken itself: the least that can be awaited.
pub(crate) struct ReadyLater(pub(crate) bool);

impl Future for ReadyLater {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

macro_rules! contender {
    ($runtime:literal, $variant:literal) => {
        use std::future::{Future, poll_fn};
        use std::hint::black_box;
        use std::pin::pin;
        use std::task::Poll;
        use std::time::Duration;

        use $crate::workloads::{
            BOUND, Contender, FAR, ITEMS, Line, MANY, ReadyLater, thread_time,
        };

        impl Contender for World {
            const RUNTIME: &'static str = $runtime;
            const VARIANT: &'static str = $variant;

            fn new() -> Self {
                World::build()
            }

            fn measure(&mut self, line: Line, count: u64) -> Duration {
                match line {
                    Line::SpawnAndJoin => self.run(timed(spawn_and_join(count))),
                    Line::SpawnYieldAndJoin => self.run(timed(spawn_yield_and_join(count))),
                    Line::SpawnAndJoinMany => self.run(timed(spawn_and_join_many(count))),
                    Line::Yield => self.run(timed(yield_alone(count))),
                    Line::YieldByTurns => self.run(timed(yield_by_turns(count))),
                    Line::WakeSelf => self.run(timed(wake_self(count))),
                    Line::OneshotRoundTrip => self.run(timed(oneshot_round_trip(count))),
                    Line::Lock => self.run(timed(lock_uncontended(count))),
                    Line::BoundedChannel => self.run(timed(bounded_channel(count))),
                    Line::UnboundedChannel => self.run(timed(unbounded_channel(count))),
                    Line::TimerSetAndDropped => self.run(timed(unconstrained(set_and_drop(count)))),
                    Line::TimeoutOverOneYield => self.run(timed(timeout_over_one_yield(count))),
                    Line::JoinAllBare => self.run(timed(join_all_bare(count))),
                }
            }
        }

        async fn timed<F: Future>(work: F) -> Duration {
            let started = thread_time();
            black_box(work.await);
            thread_time() - started
        }

        async fn spawn_and_join(count: u64) {
            for number in 0..count {
                let _ = black_box(spawn(async move { black_box(number) }).await);
            }
        }

        /// glommio runs a new task inside `spawn`: only one that yields shows its executor.
        async fn spawn_yield_and_join(count: u64) {
            for _ in 0..count {
                let _ = black_box(spawn(ReadyLater(false)).await);
            }
        }

        async fn spawn_and_join_many(count: u64) {
            for _ in 0..count {
                let mut handles = Vec::with_capacity(MANY as usize);
                for number in 0..MANY {
                    handles.push(spawn(async move { black_box(number) }));
                }
                for handle in handles {
                    let _ = black_box(handle.await);
                }
            }
        }

        async fn yield_alone(count: u64) {
            for _ in 0..count {
                yield_now().await;
            }
        }

        async fn yield_by_turns(count: u64) {
            let share = count.div_ceil(MANY);
            let mut handles = Vec::with_capacity(MANY as usize);
            for _ in 0..MANY {
                handles.push(spawn(yield_alone(share)));
            }
            for handle in handles {
                let _ = black_box(handle.await);
            }
        }

        async fn wake_self(count: u64) {
            let mut left = count;
            poll_fn(move |context| {
                if left == 0 {
                    return Poll::Ready(());
                }
                left -= 1;
                context.waker().wake_by_ref();
                Poll::Pending
            })
            .await;
        }

        /// Each message carries the way back.
        struct Ball(OneshotSender<Ball>);

        async fn oneshot_round_trip(count: u64) {
            let (mut there, first) = oneshot::<Ball>();
            let other = spawn(async move {
                let mut incoming = first;
                while let Some(Ball(back)) = receive(incoming).await {
                    let (next, receiver) = oneshot();
                    answer(back, Ball(next));
                    incoming = receiver;
                }
            });
            for _ in 0..count {
                let (back, receiver) = oneshot();
                answer(there, Ball(back));
                let Some(Ball(next)) = receive(receiver).await else { panic!("the ball is lost") };
                there = next;
            }
            drop(there);
            let _ = black_box(other.await);
        }

        async fn lock_uncontended(count: u64) {
            let lock = new_lock();
            for _ in 0..count {
                black_box(&acquire(&lock).await);
            }
        }

        async fn bounded_channel(count: u64) {
            let (sender, mut receiver) = bounded(BOUND);
            let producer = spawn(async move {
                for number in 0..count {
                    send(&sender, number).await;
                }
            });
            let mut received = 0;
            while let Some(number) = next(&mut receiver).await {
                received += 1;
                black_box(number);
            }
            assert_eq!(received, count, "every item arrives");
            let _ = black_box(producer.await);
        }

        async fn unbounded_channel(count: u64) {
            let mut left = count;
            while left > 0 {
                let items = left.min(ITEMS);
                left -= items;
                let (sender, mut receiver) = unbounded();
                let producer = spawn(async move {
                    for number in 0..items {
                        push(&sender, number);
                    }
                });
                let mut received = 0;
                while let Some(number) = next_pushed(&mut receiver).await {
                    received += 1;
                    black_box(number);
                }
                assert_eq!(received, items, "every item arrives");
                let _ = black_box(producer.await);
            }
        }

        async fn set_and_drop(count: u64) {
            for _ in 0..count {
                let mut sleep = pin!(sleep(FAR));
                poll_fn(|context| {
                    assert!(sleep.as_mut().poll(context).is_pending(), "it is far");
                    Poll::Ready(())
                })
                .await;
            }
        }

        async fn timeout_over_one_yield(count: u64) {
            for _ in 0..count {
                let ended = timeout(FAR, ReadyLater(false)).await;
                assert!(ended, "the future is ready long before");
            }
        }

        async fn join_all_bare(count: u64) {
            for _ in 0..count {
                let futures = (0..MANY).map(|_| ReadyLater(false));
                black_box(join_all(futures).await);
            }
        }
    };
}
pub(crate) use contender;
