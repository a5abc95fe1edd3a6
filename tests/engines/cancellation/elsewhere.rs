//! Work on other threads: pools and shards.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use annulus::blocking::{self, Pool};
use annulus::shard::{ShardId, shard};
use annulus::{Engine, Handle, cpu, task, time};

use super::{at_every_await, small, within};
use crate::harness::{eventually_here, run_with};

on_every_engine!(
    alone: jobs_of_the_pools,
    jobs_that_wait_for_room,
    tasks_on_another_shard,
    looking_at_all_shards,
);

fn job() -> u32 {
    thread::sleep(Duration::from_micros(300));
    5
}

fn jobs_of_the_pools(engine: Engine) {
    run_with(small(engine), async {
        at_every_await("cpu::run", async |cut| {
            let came = cut.until(cpu::run(job)).await;
            assert!(came.is_none_or(|came| came.unwrap() == 5));
        })
        .await;
        at_every_await("blocking::run", async |cut| {
            let came = cut.until(blocking::run(job)).await;
            assert!(came.is_none_or(|came| came.unwrap() == 5));
        })
        .await;
        let pool = Pool::builder().threads(1).build().unwrap();
        at_every_await("Pool::run", async |cut| {
            let came = cut.until(pool.run(job)).await;
            assert!(came.is_none_or(|came| came.unwrap() == 5));
            eventually_here("the pool is idle", || pool.pending() + pool.running() == 0).await;
        })
        .await;
        at_every_await("a handle of Pool::submit", async |cut| {
            let mut handle = pool.submit(job);
            // Given up by the one, it is there for the next.
            let came = match cut.until(&mut handle).await {
                Some(came) => came,
                None => within("a job's value", handle).await,
            };
            assert_eq!(came.unwrap(), 5);
        })
        .await;
        assert_eq!(cpu::run(job).await.unwrap(), 5);
    });
}

/// One thread is busy, one job waits: the next waits for room, and gives its place on.
fn jobs_that_wait_for_room(engine: Engine) {
    run_with(small(engine), async {
        at_every_await("Pool::run without room", async |cut| {
            let pool = Pool::builder().threads(1).queue(1).build().unwrap();
            let (go, ran) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
            let busy = {
                let go = Arc::clone(&go);
                pool.submit(move || {
                    while !go.load(Ordering::SeqCst) {
                        thread::sleep(Duration::from_micros(100));
                    }
                })
            };
            let waiting = pool.submit(|| ());
            let count = || {
                let ran = Arc::clone(&ran);
                move || ran.fetch_add(1, Ordering::SeqCst)
            };
            let behind = async {
                task::yield_now().await;
                within("a job behind one that was given up", pool.run(count())).await.unwrap()
            };
            let release = async {
                time::sleep(Duration::from_millis(1)).await;
                go.store(true, Ordering::SeqCst);
            };
            let first = cut.until(pool.run(count()));
            let (came, _, ()) = futures_util::join!(first, behind, release);
            busy.await.unwrap();
            waiting.await.unwrap();
            eventually_here("the pool is idle", || pool.pending() + pool.running() == 0).await;
            let ran = ran.load(Ordering::SeqCst);
            assert!(ran == 2 || ran == 1 && came.is_none(), "{ran} ran");
        })
        .await;
    });
}

fn tasks_on_another_shard(engine: Engine) {
    run_with(small(engine), async {
        let there = shard(ShardId(1));
        let work = async || {
            time::sleep(Duration::from_micros(200)).await;
            6
        };
        at_every_await("ShardHandle::submit", async |cut| {
            let came = cut.until(there.submit(work)).await;
            assert!(came.is_none_or(|came| came.unwrap() == 6));
        })
        .await;
        at_every_await("ShardHandle::call", async |cut| {
            let came = cut.until(there.call(|| 6)).await;
            assert!(came.is_none_or(|came| came.unwrap() == 6));
        })
        .await;
        at_every_await("a handle of ShardHandle::spawn", async |cut| {
            let mut handle = there.spawn(work);
            let came = match cut.until(&mut handle).await {
                Some(came) => came,
                None => within("a task's value", handle).await,
            };
            assert_eq!(came.unwrap(), 6);
        })
        .await;
        at_every_await("a handle that is aborted", async |cut| {
            let mut handle = there.spawn(|| time::sleep(Duration::from_secs(3600)));
            let ending = async {
                task::yield_now().await;
                handle.abort();
                (&mut handle).await
            };
            let ended = cut.until(ending).await;
            assert!(ended.is_none_or(|ended| ended.unwrap_err().is_cancelled()));
            handle.abort();
        })
        .await;
    });
}

fn looking_at_all_shards(engine: Engine) {
    run_with(small(engine), async {
        at_every_await("Handle::in_flight", async |cut| {
            let came = cut.until(Handle::current().in_flight()).await;
            assert!(came.is_none_or(|came| came.is_ok()));
        })
        .await;
        at_every_await("Handle::dump_tasks", async |cut| {
            let came = cut.until(Handle::current().dump_tasks()).await;
            assert!(came.is_none_or(|came| came.is_ok()));
        })
        .await;
    });
}
