//! Tasks: spawn, join, abort, panic, yield, classes.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::io::Write;
use std::rc::Rc;
use std::time::Duration;

use annulus::clock;
use annulus::task::Class;
use annulus::{Engine, task, time};

use crate::harness::{OnDrop, pair, receive_exactly, run, turns, turns_until};

on_every_engine!(
    a_joined_task_gives_its_value,
    tasks_run_in_the_order_of_their_spawns,
    a_spawned_task_never_runs_inline,
    a_task_without_its_handle_runs_on,
    an_abort_ends_a_task_at_its_await,
    an_abort_before_the_first_poll_drops_the_future,
    an_abort_of_a_finished_task_says_so,
    a_task_may_abort_itself_and_goes_on_until_its_next_await,
    a_panic_reaches_whoever_joins_and_nobody_else,
    what_a_task_drops_may_spawn_and_send,
    giving_way_lets_the_others_run,
    a_task_that_never_waits_keeps_nobody_from_the_network,
    under_load_classes_share_the_time,
    the_background_is_not_starved,
    a_crowd_of_tasks_ends,
);

fn a_joined_task_gives_its_value(engine: Engine) {
    run(engine, async {
        let task = task::spawn(async { String::from("value") });
        assert!(!task.is_finished());
        assert_eq!(task.await.unwrap(), "value");
        let outer = task::spawn(async { task::spawn(async { 5 }).await.unwrap() + 1 });
        assert_eq!(outer.await.unwrap(), 6);
    });
}

fn tasks_run_in_the_order_of_their_spawns(engine: Engine) {
    run(engine, async {
        let order: Rc<RefCell<Vec<u32>>> = Rc::default();
        for number in 0..100 {
            let order = Rc::clone(&order);
            task::spawn(async move { order.borrow_mut().push(number) }).detach();
        }
        turns_until(|| order.borrow().len() == 100).await;
        assert_eq!(*order.borrow(), (0..100).collect::<Vec<_>>());
    });
}

fn a_spawned_task_never_runs_inline(engine: Engine) {
    run(engine, async {
        let ran = Rc::new(Cell::new(false));
        let flag = Rc::clone(&ran);
        let task = task::spawn(async move { flag.set(true) });
        assert!(!ran.get());
        task.await.unwrap();
        assert!(ran.get());
    });
}

fn a_task_without_its_handle_runs_on(engine: Engine) {
    run(engine, async {
        let ran = Rc::new(Cell::new(0));
        let (one, two) = (Rc::clone(&ran), Rc::clone(&ran));
        drop(task::spawn(async move {
            time::sleep(Duration::from_millis(1)).await;
            one.set(one.get() + 1);
        }));
        task::spawn(async move { two.set(two.get() + 1) }).detach();
        while ran.get() < 2 {
            time::sleep(Duration::from_millis(1)).await;
        }
    });
}

fn an_abort_ends_a_task_at_its_await(engine: Engine) {
    run(engine, async {
        let dropped = Rc::new(Cell::new(false));
        let flag = Rc::clone(&dropped);
        let task = task::spawn(async move {
            let _guard = OnDrop(|| flag.set(true));
            pending::<()>().await;
        });
        turns(2).await;
        assert!(!dropped.get());
        assert!(task.abort());
        assert!(!dropped.get(), "not inline");
        let error = task.await.unwrap_err();
        assert!(error.is_cancelled());
        assert!(!error.is_panic());
        assert_eq!(error.to_string(), "the task was cancelled");
        assert!(dropped.get());
    });
}

fn an_abort_before_the_first_poll_drops_the_future(engine: Engine) {
    run(engine, async {
        let (polled, dropped) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(false)));
        let (poll, drops) = (Rc::clone(&polled), Rc::clone(&dropped));
        let guard = OnDrop(move || drops.set(true));
        let task = task::spawn(async move {
            poll.set(true);
            drop(guard);
        });
        assert!(task.abort());
        assert!(task.await.unwrap_err().is_cancelled());
        assert_eq!((polled.get(), dropped.get()), (false, true));
    });
}

fn an_abort_of_a_finished_task_says_so(engine: Engine) {
    run(engine, async {
        let old = task::spawn(async { 5 });
        turns(2).await;
        assert!(old.is_finished());
        // Another one in its place must not be hit.
        let new = task::spawn(async { 6 });
        assert!(!old.abort());
        assert_eq!(old.await.unwrap(), 5);
        assert_eq!(new.await.unwrap(), 6);
    });
}

fn a_task_may_abort_itself_and_goes_on_until_its_next_await(engine: Engine) {
    run(engine, async {
        let handle: Rc<RefCell<Option<task::JoinHandle<()>>>> = Rc::default();
        let steps = Rc::new(Cell::new(0));
        let (own, count) = (Rc::clone(&handle), Rc::clone(&steps));
        *handle.borrow_mut() = Some(task::spawn(async move {
            assert!(own.borrow().as_ref().unwrap().abort());
            count.set(1);
            task::yield_now().await;
            count.set(2);
        }));
        turns(4).await;
        assert_eq!(steps.get(), 1);
        let ended = handle.borrow_mut().take().unwrap();
        assert!(ended.await.unwrap_err().is_cancelled());
    });
}

fn a_panic_reaches_whoever_joins_and_nobody_else(engine: Engine) {
    run(engine, async {
        let other = task::spawn(async {
            time::sleep(Duration::from_millis(2)).await;
            5
        });
        let purpose = String::from("purpose");
        let error = task::spawn(async move { panic!("on {purpose}") }).await;
        let error = error.unwrap_err();
        assert!(error.is_panic());
        assert_eq!(error.to_string(), "the task panicked: on purpose");
        let panic = error.into_panic().unwrap();
        assert_eq!(panic.downcast_ref::<String>().unwrap(), "on purpose");
        task::spawn(async { panic!("nobody joins") }).detach();
        assert_eq!(other.await.unwrap(), 5);
    });
}

fn what_a_task_drops_may_spawn_and_send(engine: Engine) {
    run(engine, async {
        let ran = Rc::new(Cell::new(false));
        let flag = Rc::clone(&ran);
        let guard = OnDrop(move || {
            let flag = Rc::clone(&flag);
            task::spawn(async move { flag.set(true) }).detach();
        });
        let task = task::spawn(async move {
            let _guard = guard;
            let (_stream, _peer) = pair().await;
            pending::<()>().await;
        });
        time::sleep(Duration::from_millis(2)).await;
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        turns(2).await;
        assert!(ran.get());
    });
}

fn giving_way_lets_the_others_run(engine: Engine) {
    run(engine, async {
        let order: Rc<RefCell<String>> = Rc::default();
        let tasks: Vec<_> = ["a", "b", "c"]
            .map(|name| {
                let order = Rc::clone(&order);
                task::spawn(async move {
                    for _ in 0..3 {
                        order.borrow_mut().push_str(name);
                        task::yield_now().await;
                    }
                })
            })
            .into();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.borrow(), "abcabcabc");
    });
}

fn a_task_that_never_waits_keeps_nobody_from_the_network(engine: Engine) {
    run(engine, async {
        let (stream, mut peer) = pair().await;
        let busy = task::spawn(async {
            loop {
                task::yield_now().await;
            }
        });
        let polite = task::spawn(async {
            let mut rounds = 0u64;
            loop {
                rounds = rounds.wrapping_add(1);
                task::yield_if_needed().await;
            }
        });
        for round in 0..50u8 {
            peer.write_all(&[round]).unwrap();
            assert_eq!(receive_exactly(&stream, 1).await, [round]);
            time::sleep(Duration::from_micros(50)).await;
        }
        assert!(busy.abort());
        assert!(polite.abort());
    });
}

/// Burns time in short polls until told to stop, and counts them.
fn burner(class: Class, stop: &Rc<Cell<bool>>) -> Rc<Cell<u32>> {
    let polls = Rc::new(Cell::new(0));
    let (count, stop) = (Rc::clone(&polls), Rc::clone(stop));
    task::Builder::new()
        .class(class)
        .spawn(async move {
            while !stop.get() {
                let end = clock::now() + Duration::from_micros(20);
                while clock::now() < end {}
                count.set(count.get() + 1);
                task::yield_now().await;
            }
        })
        .detach();
    polls
}

fn under_load_classes_share_the_time(engine: Engine) {
    run(engine, async {
        let stop = Rc::new(Cell::new(false));
        // Many of each, so that more are ready than one slice can run.
        let count = |class| (0..100).map(|_| burner(class, &stop)).collect::<Vec<_>>();
        let sum = |polls: &[Rc<Cell<u32>>]| polls.iter().map(|count| count.get()).sum::<u32>();
        let (latency, background) = (count(Class::Latency), count(Class::Background));
        while sum(&latency) < 8000 {
            time::sleep(Duration::from_millis(5)).await;
        }
        stop.set(true);
        let (latency, background) = (sum(&latency), sum(&background));
        assert!(background > 0);
        assert!(latency > 2 * background, "{latency} polls against {background}");
        turns(50).await;
    });
}

fn the_background_is_not_starved(engine: Engine) {
    run(engine, async {
        let stop = Rc::new(Cell::new(false));
        let _busy: Vec<_> = (0..100).map(|_| burner(Class::Latency, &stop)).collect();
        let steps = async {
            for _ in 0..20 {
                task::yield_now().await;
            }
            7
        };
        let background = task::Builder::new().class(Class::Background).name("upkeep").spawn(steps);
        assert_eq!(background.await.unwrap(), 7);
        stop.set(true);
    });
}

fn a_crowd_of_tasks_ends(engine: Engine) {
    run(engine, async {
        let tasks: Vec<_> = (0..20_000u64)
            .map(|number| {
                task::spawn(async move {
                    task::yield_now().await;
                    number
                })
            })
            .collect();
        let mut sum = 0;
        for task in tasks {
            sum += task.await.unwrap();
        }
        assert_eq!(sum, 199_990_000);
    });
}
