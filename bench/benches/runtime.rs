//! What the runtime itself costs: tasks, timers, operations, hops between shards.
//!
//! `cargo bench -p annulus-bench --bench runtime`. Everything goes through the public interface;
//! loops run inside the runtime, so that entering it is not measured.

use std::future::Future;
use std::hint::black_box;
use std::task::Poll;
use std::time::{Duration, Instant};

use annulus::net::UnixStream;
use annulus::shard::{ShardId, shard};
use annulus::{Engine, Runtime, task, time};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

/// Hops in flight at once, so that neither shard goes to sleep.
const HOPS_IN_FLIGHT: u64 = 64;
/// Timers that are set while others are measured: a wheel must not care.
const TIMERS_WAITING: usize = 10_000;

fn runtime(engine: Engine, shards: usize) -> Runtime {
    Runtime::builder()
        .engine(engine)
        .shards(shards)
        .cpu_cores(0)
        .build()
        .unwrap_or_else(|error| panic!("no runtime on this host: {error}"))
}

/// The time that `work` takes inside `runtime`.
fn timed<F: Future>(runtime: &Runtime, work: impl FnOnce() -> F) -> Duration {
    runtime.block_on(async {
        let started = Instant::now();
        black_box(work().await);
        started.elapsed()
    })
}

fn tasks(criterion: &mut Criterion) {
    let runtime = runtime(Engine::Auto, 1);
    let mut group = criterion.benchmark_group("task");
    group.bench_function("spawn and join", |bencher| {
        bencher.iter_custom(|count| {
            timed(&runtime, || async move {
                for number in 0..count {
                    let joined = task::spawn(async move { black_box(number) }).await;
                    assert!(joined.is_ok(), "the task does not panic");
                }
            })
        });
    });
    group.bench_function("wake and run", |bencher| {
        bencher.iter_custom(|count| {
            timed(&runtime, || {
                let mut left = count;
                std::future::poll_fn(move |context| {
                    if left == 0 {
                        return Poll::Ready(());
                    }
                    left -= 1;
                    context.waker().wake_by_ref();
                    Poll::Pending
                })
            })
        });
    });
    group.bench_function("yield", |bencher| {
        bencher.iter_custom(|count| {
            timed(&runtime, || async move {
                for _ in 0..count {
                    task::yield_now().await;
                }
            })
        });
    });
    group.finish();
}

fn timers(criterion: &mut Criterion) {
    let runtime = runtime(Engine::Auto, 1);
    let mut group = criterion.benchmark_group("timer");
    // A timeout that does not fire: set and taken back, the life of nearly every timer.
    let set_and_drop = |count: u64| async move {
        for _ in 0..count {
            let ended = time::timeout(Duration::from_secs(30), std::future::ready(())).await;
            assert!(ended.is_ok(), "a ready future does not time out");
        }
    };
    group.bench_function("set and drop", |bencher| {
        bencher.iter_custom(|count| timed(&runtime, || set_and_drop(count)));
    });
    group.bench_function("set and drop among 10 000", |bencher| {
        bencher.iter_custom(|count| {
            runtime.block_on(async {
                let waiting: Vec<_> = (0..TIMERS_WAITING)
                    .map(|number| {
                        let length = Duration::from_millis(60_000 + number as u64);
                        task::spawn(time::sleep(length))
                    })
                    .collect();
                task::yield_now().await;
                let started = Instant::now();
                set_and_drop(count).await;
                let elapsed = started.elapsed();
                for task in waiting {
                    task.abort();
                }
                elapsed
            })
        });
    });
    group.bench_function("fire", |bencher| {
        bencher.iter_custom(|count| {
            timed(&runtime, || async move {
                for _ in 0..count {
                    time::sleep(Duration::ZERO).await;
                }
            })
        });
    });
    group.finish();
}

/// One byte there and back through a socket pair: four operations from slot to outcome.
fn operations(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("operation");
    for engine in [Engine::Uring, Engine::Epoll] {
        let runtime = runtime(engine, 1);
        group.bench_function(BenchmarkId::new("send and receive, twice", engine), |bencher| {
            bencher.iter_custom(|count| {
                timed(&runtime, || async move {
                    let (near, far) = UnixStream::pair()?;
                    let answerer = task::spawn(async move {
                        while let Some(chunk) = far.recv().await? {
                            far.send(chunk).await?;
                        }
                        annulus::Result::Ok(())
                    });
                    for _ in 0..count {
                        near.send(&b"x"[..]).await?;
                        black_box(near.recv().await?);
                    }
                    drop(near);
                    answerer.detach();
                    annulus::Result::Ok(())
                })
            });
        });
    }
    group.finish();
}

fn hops(criterion: &mut Criterion) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores < 2 {
        eprintln!("mesh hop: skipped, two shards need two cores");
        return;
    }
    let runtime = runtime(Engine::Auto, 2);
    let mut group = criterion.benchmark_group("mesh");
    group.bench_function("hop and back, alone", |bencher| {
        bencher.iter_custom(|count| timed(&runtime, || hop(count)));
    });
    group.bench_function("hop and back, 64 at once", |bencher| {
        bencher.iter_custom(|count| {
            timed(&runtime, || async move {
                let share = count.div_ceil(HOPS_IN_FLIGHT);
                let callers: Vec<_> =
                    (0..HOPS_IN_FLIGHT).map(|_| task::spawn(hop(share))).collect();
                for caller in callers {
                    assert!(caller.await.is_ok(), "no hop panics");
                }
            })
        });
    });
    group.finish();
}

async fn hop(count: u64) {
    let other = shard(ShardId(1));
    for number in 0..count {
        let answer = other.call(move || black_box(number)).await;
        assert!(answer.is_ok(), "the other shard is up");
    }
}

criterion_group!(benches, tasks, timers, operations, hops);
criterion_main!(benches);
