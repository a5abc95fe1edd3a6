//! Callbacks on the end of a task.
//!
//! | row | test |
//! |---|---|
//! | A10 | callbacks_run_in_order_after_the_end, callbacks_may_come_late_again_and_again, … |

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::rc::{Rc, Weak};

use annulus::task::{JoinError, TaskState};
use annulus::{Engine, task};

use crate::harness::{OnDrop, run, turns};

on_every_engine!(
    callbacks_run_in_order_after_the_end,
    a_callback_on_an_ended_task_runs_on_the_next_turn,
    a_callback_sees_how_the_task_ended,
    a_callback_that_panics_holds_up_no_other,
    callbacks_come_after_the_drop_of_an_aborted_future,
    callbacks_may_come_late_again_and_again,
    callbacks_that_hold_their_own_handle_go_with_the_runtime,
);

type Trace = Rc<RefCell<Vec<String>>>;

fn note(trace: &Trace, entry: impl Into<String>) {
    trace.borrow_mut().push(entry.into());
}

async fn hello(first: u32, second: u32) -> u32 {
    task::yield_now().await;
    first + second
}

fn callbacks_run_in_order_after_the_end(engine: Engine) {
    run(engine, async {
        let trace = Trace::default();
        let inside = Rc::clone(&trace);
        let task = task::spawn(async move {
            note(&inside, "start");
            task::yield_now().await;
            note(&inside, "end");
            "FINISHED"
        });
        let callback = |name: &'static str| {
            let trace = Rc::clone(&trace);
            move |result: &Result<&str, JoinError>| {
                note(&trace, format!("{name} {}", result.as_ref().unwrap()));
            }
        };
        task.on_complete(callback("Shiyanlou"));
        let removed = task.on_complete(callback("removed"));
        task.on_complete(callback("second"));
        assert!(task.remove_callback(removed));
        assert!(!task.remove_callback(removed));
        let inside = Rc::clone(&trace);
        let beside = task::spawn(async move {
            turns(1).await;
            note(&inside, "turn of the end");
        });
        assert_eq!(task.await.unwrap(), "FINISHED");
        note(&trace, "joined");
        beside.await.unwrap();
        let expected =
            ["start", "end", "turn of the end", "Shiyanlou FINISHED", "second FINISHED", "joined"];
        assert_eq!(*trace.borrow(), expected);
    });
}

fn a_callback_on_an_ended_task_runs_on_the_next_turn(engine: Engine) {
    run(engine, async {
        let task = task::spawn(hello(2, 3));
        turns(3).await;
        assert!(task.is_finished());
        let seen = Rc::new(Cell::new(0));
        for factor in [1, 10] {
            let place = Rc::clone(&seen);
            task.on_complete(move |result| {
                place.set(place.get() * 10 + factor * result.as_ref().unwrap());
            });
        }
        let removed = task.on_complete(|_| panic!("it was removed"));
        assert!(task.remove_callback(removed));
        assert_eq!(seen.get(), 0, "never inline");
        task::yield_now().await;
        assert_eq!(seen.get(), 100);
        assert_eq!(task.state(), TaskState::Finished);
        // The result is still there for whoever joins.
        assert_eq!(task.await.unwrap(), 5);
    });
}

fn a_callback_sees_how_the_task_ended(engine: Engine) {
    run(engine, async {
        let seen: Rc<RefCell<Vec<String>>> = Rc::default();
        let cancelled = task::spawn(pending::<()>());
        let panicked = task::spawn(async { panic!("on purpose") });
        for task in [&cancelled, &panicked] {
            let seen = Rc::clone(&seen);
            task.on_complete(move |result| {
                seen.borrow_mut().push(result.as_ref().unwrap_err().to_string());
            });
        }
        cancelled.abort();
        assert!(cancelled.await.unwrap_err().is_cancelled());
        assert!(panicked.await.unwrap_err().is_panic());
        seen.borrow_mut().sort();
        assert_eq!(*seen.borrow(), ["the task panicked: on purpose", "the task was cancelled"]);
    });
}

fn a_callback_that_panics_holds_up_no_other(engine: Engine) {
    run(engine, async {
        let task = task::spawn(async { 1 });
        let ran = Rc::new(Cell::new(false));
        let flag = Rc::clone(&ran);
        task.on_complete(|_| panic!("on purpose"));
        task.on_complete(move |_| flag.set(true));
        assert_eq!(task.await.unwrap(), 1);
        assert!(ran.get());
    });
}

fn callbacks_come_after_the_drop_of_an_aborted_future(engine: Engine) {
    run(engine, async {
        let trace = Trace::default();
        let inside = Rc::clone(&trace);
        let guard = OnDrop(move || note(&inside, "dropped"));
        let task = task::spawn(async move {
            pending::<()>().await;
            drop(guard);
        });
        let inside = Rc::clone(&trace);
        task.on_complete(move |_| note(&inside, "called back"));
        turns(1).await;
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        assert_eq!(*trace.borrow(), ["dropped", "called back"]);
    });
}

fn callbacks_may_come_late_again_and_again(engine: Engine) {
    run(engine, async {
        let mut task = task::spawn(async { 1 });
        turns(2).await;
        let calls = Rc::new(Cell::new(0));
        for count in 1..=3 {
            let place = Rc::clone(&calls);
            task.on_complete(move |result| place.set(place.get() + result.as_ref().unwrap()));
            turns(3).await;
            assert_eq!(calls.get(), count);
        }
        let removed = task.on_complete(|_| panic!("it was removed"));
        assert!(task.remove_callback(removed));
        assert_eq!(task.try_join().unwrap().unwrap(), 1);
        turns(3).await;
        assert_eq!(task.state(), TaskState::Finished);
        let late = task::spawn(async move { task.on_complete(|_| ()) });
        assert!(late.await.unwrap_err().to_string().contains("register before joining"));
    });
}

fn callbacks_that_hold_their_own_handle_go_with_the_runtime(engine: Engine) {
    let held: Weak<()> = run(engine, async {
        let held = Rc::new(());
        let handles: Rc<RefCell<Vec<task::JoinHandle<()>>>> = Rc::default();
        let task = task::spawn(pending());
        let (inside, captured) = (Rc::clone(&handles), Rc::clone(&held));
        task.on_complete(move |_| {
            inside.borrow_mut().clear();
            drop(captured);
        });
        handles.borrow_mut().push(task);
        Rc::downgrade(&held)
    });
    assert_eq!(held.strong_count(), 0);
}
