//! Ticks at a fixed period, and what follows a tick that was taken late.
//!
//! - E, intervals → all of this file

use std::panic::catch_unwind;
use std::pin::Pin;
use std::time::Duration;

use annulus::time::{MissedTick, interval, interval_at};
use annulus::{Engine, clock, time};
use futures_core::Stream;

use crate::harness::{builder, run, run_with};

on_every_engine!(
    the_first_tick_is_at_once_and_the_others_at_their_period,
    an_interval_may_begin_later,
    missed_ticks_come_in_a_burst,
    a_late_tick_delays_the_next,
    missed_ticks_are_skipped,
    a_tick_that_is_not_taken_stays,
    an_interval_is_a_stream,
    an_interval_can_begin_anew,
    ticks_are_never_early,
    an_interval_of_no_time_is_refused,
);

const MS: Duration = Duration::from_millis(1);

/// When ticks are due, and when they are taken, in milliseconds; one of them is taken late.
fn ticks(engine: Engine, missed: MissedTick) -> Vec<(u128, u128)> {
    run_with(builder(engine).paused_clock(true), async {
        let start = time::now();
        let mut interval = interval(MS * 10).missed_tick(missed);
        let mut ticks = Vec::new();
        for number in 0..6 {
            if number == 2 {
                time::sleep(MS * 35).await;
            }
            let due = interval.tick().await;
            ticks.push((due.since(start).as_millis(), time::now().since(start).as_millis()));
        }
        ticks
    })
}

fn the_first_tick_is_at_once_and_the_others_at_their_period(engine: Engine) {
    run_with(builder(engine).paused_clock(true), async {
        let start = time::now();
        let mut interval = interval(MS * 10);
        assert_eq!(interval.period(), MS * 10);
        for number in 0..5 {
            assert_eq!(interval.due(), start + MS * 10 * number);
            assert_eq!(interval.tick().await, start + MS * 10 * number);
            assert_eq!(time::now(), start + MS * 10 * number);
        }
    });
}

fn an_interval_may_begin_later(engine: Engine) {
    run_with(builder(engine).paused_clock(true), async {
        let start = time::now();
        let mut interval = interval_at(start + MS * 3, MS * 10);
        assert_eq!(interval.tick().await, start + MS * 3);
        assert_eq!(interval.tick().await, start + MS * 13);
        assert_eq!(time::now(), start + MS * 13);
    });
}

fn missed_ticks_come_in_a_burst(engine: Engine) {
    let expected = [(0, 0), (10, 10), (20, 45), (30, 45), (40, 45), (50, 50)];
    assert_eq!(ticks(engine, MissedTick::Burst), expected);
}

fn a_late_tick_delays_the_next(engine: Engine) {
    let expected = [(0, 0), (10, 10), (20, 45), (55, 55), (65, 65), (75, 75)];
    assert_eq!(ticks(engine, MissedTick::Delay), expected);
}

fn missed_ticks_are_skipped(engine: Engine) {
    let expected = [(0, 0), (10, 10), (20, 45), (50, 50), (60, 60), (70, 70)];
    assert_eq!(ticks(engine, MissedTick::Skip), expected);
}

fn a_tick_that_is_not_taken_stays(engine: Engine) {
    run_with(builder(engine).paused_clock(true), async {
        let start = time::now();
        let mut interval = interval(MS * 10);
        interval.tick().await;
        for _ in 0..5 {
            assert!(time::timeout(MS, interval.tick()).await.is_err());
        }
        assert_eq!(interval.tick().await, start + MS * 10);
        assert_eq!(time::now(), start + MS * 10);
    });
}

fn an_interval_is_a_stream(engine: Engine) {
    run_with(builder(engine).paused_clock(true), async {
        let start = time::now();
        let mut interval = interval(MS * 10);
        for number in 0..3 {
            let next = std::future::poll_fn(|context| Pin::new(&mut interval).poll_next(context));
            assert_eq!(next.await, Some(start + MS * 10 * number));
        }
    });
}

fn an_interval_can_begin_anew(engine: Engine) {
    run_with(builder(engine).paused_clock(true), async {
        let start = time::now();
        let mut interval = interval(MS * 10);
        interval.tick().await;
        time::sleep(MS * 7).await;
        interval.reset();
        assert_eq!(interval.tick().await, start + MS * 17);
        assert_eq!(interval.tick().await, start + MS * 27);
    });
}

fn ticks_are_never_early(engine: Engine) {
    run(engine, async {
        let start = clock::now();
        let mut interval = interval(MS);
        for number in 0..10 {
            let due = interval.tick().await;
            assert!(due >= start + MS * number);
            assert!(clock::now() >= due);
        }
    });
}

fn an_interval_of_no_time_is_refused(_: Engine) {
    let panic = catch_unwind(|| drop(interval(Duration::ZERO))).unwrap_err();
    let text = panic.downcast::<&str>().unwrap();
    assert!(text.contains("use a period of at least 1 ns"), "{text}");
}
