//! Timers and giving way.

use std::time::Duration;

use annulus::stream::StreamExt;
use annulus::{Engine, clock, task, time};

use super::{at_every_await, small};
use crate::harness::run_with;

on_every_engine!(alone: sleeping, timing_out, ticking, giving_way);

const SHORT: Duration = Duration::from_millis(1);
const AGES: Duration = Duration::from_secs(3600);

fn sleeping(engine: Engine) {
    run_with(small(engine), async {
        at_every_await("sleep", async |cut| cut.past(time::sleep(SHORT)).await).await;
        at_every_await("sleep_until", async |cut| {
            let deadline = clock::now() + SHORT;
            if cut.until(time::sleep_until(deadline)).await.is_some() {
                assert!(clock::now() >= deadline);
            }
        })
        .await;
        at_every_await("sleep, reset on its way", async |cut| {
            let mut sleep = time::sleep(AGES);
            let sleeping = async {
                assert!(futures_util::poll!(&mut sleep).is_pending());
                sleep.reset(clock::now() + SHORT);
                (&mut sleep).await;
                sleep.reset(clock::now() + SHORT);
                sleep.await;
            };
            cut.past(sleeping).await;
        })
        .await;
    });
}

fn timing_out(engine: Engine) {
    run_with(small(engine), async {
        at_every_await("timeout that expires", async |cut| {
            let ended = cut.until(time::timeout(SHORT, time::sleep(AGES))).await;
            assert!(ended.is_none_or(|ended| ended.is_err()));
        })
        .await;
        at_every_await("timeout that does not", async |cut| {
            let ended = cut.until(time::timeout(AGES, time::sleep(SHORT))).await;
            assert!(ended.is_none_or(|ended| ended.is_ok()));
        })
        .await;
        at_every_await("timeout_at", async |cut| {
            let ended = cut.until(time::timeout_at(clock::now() + SHORT, time::sleep(AGES))).await;
            assert!(ended.is_none_or(|ended| ended.is_err()));
        })
        .await;
    });
}

fn ticking(engine: Engine) {
    run_with(small(engine), async {
        at_every_await("Interval::tick", async |cut| {
            let mut interval = time::interval(SHORT);
            let start = interval.tick().await;
            // A tick that was given up comes with the next call.
            let came = match cut.until(interval.tick()).await {
                Some(came) => came,
                None => interval.tick().await,
            };
            assert_eq!(came, start + SHORT);
        })
        .await;
        at_every_await("Interval as a stream", async |cut| {
            let mut interval = time::interval(SHORT);
            let start = interval.next().await.unwrap();
            let came = match cut.until(interval.next()).await {
                Some(came) => came,
                None => interval.next().await,
            };
            assert_eq!(came, Some(start + SHORT));
        })
        .await;
    });
}

fn giving_way(engine: Engine) {
    run_with(small(engine), async {
        at_every_await("yield_now", async |cut| cut.past(task::yield_now()).await).await;
        at_every_await("yield_if_needed", async |cut| {
            let giving_way = async {
                for _ in 0..20 {
                    std::thread::sleep(Duration::from_micros(200));
                    task::yield_if_needed().await;
                }
            };
            cut.past(giving_way).await;
        })
        .await;
    });
}
