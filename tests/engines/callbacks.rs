//! Closures that run later: in the next turn, or at an instant.
//!
//! - E1 → `deferred_callbacks_run_in_the_next_turn_in_order`,
//!   `a_deferred_callback_that_is_cancelled_never_runs`
//! - E2 → `callbacks_run_by_their_deadlines`,
//!   `a_callback_whose_time_has_passed_runs_in_the_next_turn`,
//!   `a_timer_handle_knows_its_deadline_and_cancels`, `a_hundred_thousand_callbacks_come_and_go`;
//!   unit test in `src/time/callback.rs` (a cancel frees its slot)
//! - E3 → `callbacks_of_one_deadline_run_in_the_order_of_their_insertion`; property test in
//!   `src/executor/timers.rs`
//! - E4 → `a_callback_that_panics_costs_the_shard_nothing`

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use annulus::{Engine, task, time};

use crate::harness::{builder, eventually_here, run, run_with};

on_every_engine!(
    deferred_callbacks_run_in_the_next_turn_in_order,
    a_deferred_callback_that_is_cancelled_never_runs,
    callbacks_run_by_their_deadlines,
    a_callback_whose_time_has_passed_runs_in_the_next_turn,
    a_timer_handle_knows_its_deadline_and_cancels,
    a_hundred_thousand_callbacks_come_and_go,
    callbacks_of_one_deadline_run_in_the_order_of_their_insertion,
    callbacks_and_sleeps_of_one_deadline_share_one_order,
    a_callback_that_panics_costs_the_shard_nothing,
    a_callback_may_schedule_and_cancel_others,
    what_a_cancelled_callback_holds_is_dropped,
);

const MS: Duration = Duration::from_millis(1);

type Trace = Rc<RefCell<Vec<u32>>>;

fn noting(trace: &Trace, number: u32) -> impl FnOnce() + 'static {
    let trace = Rc::clone(trace);
    move || trace.borrow_mut().push(number)
}

fn deferred_callbacks_run_in_the_next_turn_in_order(engine: Engine) {
    run_with(builder(engine).paused_clock(true), async {
        let trace = Trace::default();
        for number in 0..100 {
            // The handle need not be kept.
            drop(task::defer(noting(&trace, number)));
        }
        assert!(trace.borrow().is_empty(), "never inline");
        task::yield_now().await;
        assert!(trace.borrow().iter().copied().eq(0..100));
    });
}

fn a_deferred_callback_that_is_cancelled_never_runs(engine: Engine) {
    run_with(builder(engine).paused_clock(true), async {
        let trace = Trace::default();
        let [first, second] = [1, 2].map(|number| task::defer(noting(&trace, number)));
        assert!(first.is_pending());
        assert!(first.cancel());
        assert!(!first.is_pending());
        assert!(!first.cancel(), "once");
        task::yield_now().await;
        assert_eq!(*trace.borrow(), [2]);
        assert!(!second.cancel(), "it has run");
        assert!(!second.is_pending());
    });
}

fn callbacks_run_by_their_deadlines(engine: Engine) {
    run(engine, async {
        let trace = Trace::default();
        for millis in [30, 10, 20] {
            drop(time::schedule_after(MS * millis, noting(&trace, millis)));
        }
        eventually_here("all have run", || trace.borrow().len() == 3).await;
        assert_eq!(*trace.borrow(), [10, 20, 30]);
    });
}

fn a_callback_whose_time_has_passed_runs_in_the_next_turn(engine: Engine) {
    run_with(builder(engine).paused_clock(true), async {
        let trace = Trace::default();
        drop(time::schedule_at(time::Instant::from_nanos(3), noting(&trace, 1)));
        drop(time::schedule_after(Duration::ZERO, noting(&trace, 2)));
        drop(task::defer(noting(&trace, 3)));
        drop(time::schedule_at(time::now(), noting(&trace, 4)));
        assert!(trace.borrow().is_empty(), "never inline");
        task::yield_now().await;
        assert_eq!(*trace.borrow(), [1, 2, 3, 4]);
    });
}

fn a_timer_handle_knows_its_deadline_and_cancels(engine: Engine) {
    run_with(builder(engine).paused_clock(true), async {
        let trace = Trace::default();
        let deadline = time::now() + MS * 5;
        let [first, second] =
            [1, 2].map(|number| time::schedule_at(deadline, noting(&trace, number)));
        assert_eq!(first.when(), deadline);
        assert_eq!(time::schedule_after(MS, || ()).when(), time::now() + MS);
        time::sleep(MS * 4).await;
        assert!(first.is_pending());
        assert!(first.cancel());
        assert!(!first.is_pending());
        assert!(!first.cancel(), "once");
        time::sleep(MS * 4).await;
        assert_eq!(*trace.borrow(), [2]);
        assert!(!second.cancel(), "it has run");
        assert_eq!(second.when(), deadline);
    });
}

fn a_hundred_thousand_callbacks_come_and_go(engine: Engine) {
    run_with(builder(engine).paused_clock(true), async {
        let count = Rc::new(Cell::new(0u32));
        let mut handles = Vec::new();
        for number in 0..100_000u64 {
            let count = Rc::clone(&count);
            let after = Duration::from_micros(number * 7919 % 1_000_003);
            handles.push(time::schedule_after(after, move || count.set(count.get() + 1)));
        }
        let cancelled = handles.iter().step_by(2).filter(|handle| handle.cancel()).count();
        assert_eq!(cancelled, 50_000);
        time::sleep(Duration::from_secs(2)).await;
        assert_eq!(count.get(), 50_000);
        assert!(!handles.iter().any(time::TimerHandle::is_pending));
    });
}

fn callbacks_of_one_deadline_run_in_the_order_of_their_insertion(engine: Engine) {
    run(engine, async {
        let trace = Trace::default();
        let deadline = time::now() + MS * 20;
        for number in 0..50 {
            drop(time::schedule_at(deadline, noting(&trace, number)));
            // Some are inserted further away than others.
            if number % 10 == 0 {
                time::sleep(MS).await;
            }
        }
        eventually_here("all have run", || trace.borrow().len() == 50).await;
        assert!(trace.borrow().iter().copied().eq(0..50), "{:?}", trace.borrow());
    });
}

fn callbacks_and_sleeps_of_one_deadline_share_one_order(engine: Engine) {
    run_with(builder(engine).paused_clock(true), async {
        let trace = Trace::default();
        let deadline = time::now() + MS * 20;
        let task = task::spawn({
            let trace = Rc::clone(&trace);
            async move {
                drop(time::schedule_at(deadline, noting(&trace, 1)));
                time::sleep_until(deadline).await;
                trace.borrow_mut().push(2);
            }
        });
        task::yield_now().await;
        drop(time::schedule_at(deadline, noting(&trace, 3)));
        task.await.unwrap();
        time::sleep(MS).await;
        assert_eq!(*trace.borrow(), [1, 2, 3]);
    });
}

fn a_callback_that_panics_costs_the_shard_nothing(engine: Engine) {
    run_with(builder(engine).paused_clock(true), async {
        let trace = Trace::default();
        drop(task::defer(|| panic!("on purpose")));
        drop(task::defer(noting(&trace, 1)));
        drop(time::schedule_after(MS, || panic!("on purpose")));
        drop(time::schedule_after(MS * 2, noting(&trace, 2)));
        time::sleep(MS * 5).await;
        assert_eq!(*trace.borrow(), [1, 2]);
    });
}

fn a_callback_may_schedule_and_cancel_others(engine: Engine) {
    run_with(builder(engine).paused_clock(true), async {
        let trace = Trace::default();
        let victim = time::schedule_after(MS * 2, noting(&trace, 99));
        let inner = Rc::clone(&trace);
        drop(time::schedule_after(MS, move || {
            inner.borrow_mut().push(1);
            assert!(victim.cancel());
            drop(task::defer(noting(&inner, 2)));
            drop(time::schedule_after(MS * 2, noting(&inner, 3)));
        }));
        time::sleep(MS * 10).await;
        assert_eq!(*trace.borrow(), [1, 2, 3]);
    });
}

fn what_a_cancelled_callback_holds_is_dropped(engine: Engine) {
    run_with(builder(engine).paused_clock(true), async {
        let held = Rc::new(());
        let [first, second] = [Rc::clone(&held), Rc::clone(&held)];
        let timer = time::schedule_after(Duration::from_secs(3600), move || drop(first));
        let deferred = task::defer(move || drop(second));
        task::yield_now().await;
        assert_eq!(Rc::strong_count(&held), 2, "the deferred one has run");
        assert!(timer.cancel());
        assert!(!deferred.cancel());
        task::yield_now().await;
        assert_eq!(Rc::strong_count(&held), 1);
    });
}
