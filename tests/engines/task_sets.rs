//! Sets of tasks: joined as they end, waited for in part, ended or let go with their owner.
//!
//! B4 → a_wait_with_a_time_limit_leaves_the_others_running, a_wait_for_the_first_returns_with_it,
//! a_wait_for_an_error_goes_by_what_ends_well.
//! B5 → a_set_gives_each_result_once.
//! B6 → a_set_joins_in_the_order_of_the_ends.
//! B8 → a_shielded_future_outlives_who_awaits_it.

use std::cell::Cell;
use std::future::pending;
use std::rc::Rc;
use std::time::Duration;

use annulus::task::{Class, JoinSet, WaitFor};
use annulus::{Engine, future, task, time};

use crate::harness::{eventually_here, run, turns};
use crate::script::{Script, U, Watch, run_timed};

on_every_engine!(
    a_set_gives_each_result_once,
    a_set_joins_in_the_order_of_the_ends,
    a_set_that_is_dropped_aborts_its_tasks,
    a_set_lets_its_tasks_go_if_asked,
    a_set_shuts_down,
    an_aborted_set_still_gives_every_result,
    one_task_of_a_set_is_aborted_by_its_handle,
    a_join_that_is_dropped_loses_no_result,
    a_set_takes_tasks_that_run_already,
    a_set_of_many_tasks_is_joined,
    a_wait_with_a_time_limit_leaves_the_others_running,
    a_wait_for_the_first_returns_with_it,
    a_wait_for_an_error_goes_by_what_ends_well,
    a_wait_may_look_for_a_result,
    a_wait_that_is_dropped_loses_no_result,
    a_wait_for_nothing_returns_at_once,
    a_gather_that_is_dropped_leaves_its_tasks_running,
    a_gather_gives_panics_beside_values,
    a_shielded_future_outlives_who_awaits_it,
);

fn values<T>(done: Vec<Result<T, task::JoinError>>) -> Vec<T> {
    done.into_iter().map(Result::unwrap).collect()
}

fn a_set_gives_each_result_once(engine: Engine) {
    run(engine, async {
        let mut set = JoinSet::new();
        for number in [3, 1, 2] {
            set.spawn(async move {
                turns(number).await;
                number
            });
        }
        assert_eq!(set.len(), 3);
        let mut results = Vec::new();
        while let Some(result) = set.join_next().await {
            results.push(result.unwrap());
        }
        results.sort_unstable();
        assert_eq!(results, [1, 2, 3]);
        assert!(set.is_empty());
        assert!(set.join_next().await.is_none());
        // An emptied set takes tasks again.
        set.spawn_on(task::Builder::new().name("late").class(Class::Latency), async { 4 });
        assert_eq!(set.join_next().await.unwrap().unwrap(), 4);
    });
}

fn a_set_joins_in_the_order_of_the_ends(engine: Engine) {
    run_timed(engine, async {
        let script = Script::default();
        let mut set = JoinSet::new();
        for (name, units, value) in [("01", 3, 15), ("02", 2, 5), ("03", 4, 50)] {
            set.spawn(script.clone().act(name, units, value));
        }
        let mut results = Vec::new();
        while let Some(result) = set.join_next().await {
            results.push(result.unwrap());
        }
        assert_eq!(results, [5, 15, 50]);
        // Also where all have ended before anybody asked.
        for number in [30, 10, 20] {
            set.spawn(async move {
                turns(number).await;
                number
            });
        }
        turns(40).await;
        let mut results = Vec::new();
        while let Some(result) = set.join_next().await {
            results.push(result.unwrap());
        }
        assert_eq!(results, [10, 20, 30]);
    });
}

fn a_set_that_is_dropped_aborts_its_tasks(engine: Engine) {
    run(engine, async {
        let held = Rc::new(());
        let mut set = JoinSet::new();
        for _ in 0..3 {
            let held = Rc::clone(&held);
            set.spawn(async move {
                pending::<()>().await;
                drop(held);
            });
        }
        turns(2).await;
        drop(set);
        turns(2).await;
        assert_eq!(Rc::strong_count(&held), 1);
    });
}

fn a_set_lets_its_tasks_go_if_asked(engine: Engine) {
    run(engine, async {
        let ran = Rc::new(Cell::new(0));
        let mut set = JoinSet::new();
        for _ in 0..3 {
            let ran = Rc::clone(&ran);
            set.spawn(async move {
                turns(3).await;
                ran.set(ran.get() + 1);
            });
        }
        set.detach_all();
        assert!(set.is_empty());
        drop(set);
        eventually_here("the tasks ran on", || ran.get() == 3).await;
    });
}

fn a_set_shuts_down(engine: Engine) {
    run(engine, async {
        let held = Rc::new(());
        let hold = Rc::clone(&held);
        let mut set = JoinSet::new();
        set.spawn(async move {
            pending::<()>().await;
            drop(hold);
        });
        set.spawn(async {});
        set.shut_down().await;
        assert_eq!((set.len(), Rc::strong_count(&held)), (0, 1));
    });
}

fn an_aborted_set_still_gives_every_result(engine: Engine) {
    run(engine, async {
        let mut set = JoinSet::new();
        set.spawn(async { 1 });
        set.spawn(pending());
        turns(2).await;
        set.abort_all();
        assert_eq!(set.join_next().await.unwrap().unwrap(), 1, "it had ended");
        assert!(set.join_next().await.unwrap().unwrap_err().is_cancelled());
        assert!(set.join_next().await.is_none());
    });
}

fn one_task_of_a_set_is_aborted_by_its_handle(engine: Engine) {
    run(engine, async {
        let mut set = JoinSet::new();
        let endless = set.spawn(pending());
        let ends = set.spawn(async { 1 });
        assert_ne!(endless.id(), ends.id());
        assert!(endless.abort());
        assert!(set.join_next().await.unwrap().unwrap_err().is_cancelled());
        assert_eq!(set.join_next().await.unwrap().unwrap(), 1);
        assert!(!ends.abort());
    });
}

fn a_join_that_is_dropped_loses_no_result(engine: Engine) {
    run(engine, async {
        let mut set = JoinSet::new();
        for number in 0..20 {
            set.spawn(async move {
                turns(number).await;
                number
            });
        }
        let mut results = Vec::new();
        while !set.is_empty() {
            let joined = async { Some(set.join_next().await) };
            let cut_short = async {
                task::yield_now().await;
                None
            };
            if let Some(Some(result)) = future::or(joined, cut_short).await {
                results.push(result.unwrap());
            }
        }
        assert_eq!(results, (0..20).collect::<Vec<_>>());
    });
}

fn a_set_takes_tasks_that_run_already(engine: Engine) {
    run(engine, async {
        let mut set: JoinSet<u32> = [task::spawn(async { 1 })].into_iter().collect();
        turns(2).await;
        set.extend([task::spawn(async { 2 })]);
        assert_eq!(set.join_next().await.unwrap().unwrap(), 1);
        assert_eq!(set.join_next().await.unwrap().unwrap(), 2);
    });
}

fn a_set_of_many_tasks_is_joined(engine: Engine) {
    run(engine, async {
        let mut set = JoinSet::new();
        for number in 0..5000_u64 {
            set.spawn(async move { number });
        }
        let (done, left) = task::wait(&mut set, WaitFor::All, None).await;
        assert_eq!((done.len(), left), (5000, 0));
        assert_eq!(values(done).into_iter().sum::<u64>(), 5000 * 4999 / 2);
    });
}

fn a_wait_with_a_time_limit_leaves_the_others_running(engine: Engine) {
    run_timed(engine, async {
        let script = Script::default();
        let watch = Watch::start();
        let mut set = JoinSet::new();
        set.spawn(script.clone().act("short", 1, 1));
        set.spawn(script.clone().act("long", 5, 5));
        let (done, left) = task::wait(&mut set, WaitFor::All, Some(U * 5 / 2)).await;
        assert_eq!((values(done), left), (vec![1], 1));
        assert_eq!(script.text(), "short begins,long begins,short ends");
        // Not cancelled: it comes to its end, and its result is still for the taking.
        let (done, left) = task::wait(&mut set, WaitFor::All, None).await;
        watch.assert_units(5);
        assert_eq!((values(done), left), (vec![5], 0));
        assert_eq!(script.text(), "short begins,long begins,short ends,long ends");
    });
}

fn a_wait_for_the_first_returns_with_it(engine: Engine) {
    run_timed(engine, async {
        let script = Script::default();
        let watch = Watch::start();
        let mut set = JoinSet::new();
        set.spawn(script.clone().act("long", 5, 5));
        set.spawn(script.clone().act("short", 1, 1));
        let (done, left) = task::wait(&mut set, WaitFor::First, Some(U * 50)).await;
        watch.assert_units(1);
        assert_eq!((values(done), left, set.len()), (vec![1], 1, 1));
        let (done, left) = task::wait(&mut set, WaitFor::First, None).await;
        assert_eq!((values(done), left), (vec![5], 0));
    });
}

fn a_wait_for_an_error_goes_by_what_ends_well(engine: Engine) {
    run_timed(engine, async {
        let mut set = JoinSet::new();
        set.spawn(async { 1 });
        set.spawn(async {
            turns(5).await;
            panic!("on purpose")
        });
        set.spawn(pending());
        let (done, left) = task::wait(&mut set, WaitFor::FirstError, None).await;
        let [first, second] = &done[..] else { panic!("{done:?}") };
        assert_eq!(*first.as_ref().unwrap(), 1);
        assert!(second.as_ref().unwrap_err().is_panic());
        assert_eq!(left, 1);
        set.abort_all();
        let (done, left) = task::wait(&mut set, WaitFor::FirstError, None).await;
        assert!(done[0].as_ref().unwrap_err().is_cancelled());
        assert_eq!(left, 0);
        // No error: all of them.
        set.spawn(async { 2 });
        set.spawn(async { 3 });
        let (done, left) = task::wait(&mut set, WaitFor::FirstError, None).await;
        assert_eq!((values(done), left), (vec![2, 3], 0));
    });
}

fn a_wait_may_look_for_a_result(engine: Engine) {
    run(engine, async {
        let mut set = JoinSet::new();
        for number in 0..5 {
            set.spawn(async move {
                turns(number * 2).await;
                if number == 2 { Err("failed") } else { Ok(number) }
            });
        }
        let is_error = |ended: &Result<Result<_, _>, _>| matches!(ended, Ok(Err(_)));
        let (done, left) = task::wait_where(&mut set, is_error, None).await;
        assert_eq!((values(done), left), (vec![Ok(0), Ok(1), Err("failed")], 2));
    });
}

fn a_wait_that_is_dropped_loses_no_result(engine: Engine) {
    run(engine, async {
        let mut set = JoinSet::new();
        set.spawn(async { 1 });
        set.spawn(pending());
        let cut_short = time::timeout(Duration::from_millis(5), async {
            task::wait(&mut set, WaitFor::All, None).await;
        });
        assert!(cut_short.await.is_err());
        assert_eq!(set.len(), 2);
        // The one that has ended is what this wait waits for.
        let (done, left) = task::wait(&mut set, WaitFor::First, None).await;
        assert_eq!((values(done), left), (vec![1], 1));
    });
}

fn a_wait_for_nothing_returns_at_once(engine: Engine) {
    run(engine, async {
        let mut set = JoinSet::<()>::new();
        for wait_for in [WaitFor::All, WaitFor::First, WaitFor::FirstError] {
            let (done, left) = task::wait(&mut set, wait_for, None).await;
            assert_eq!((done.len(), left), (0, 0));
        }
    });
}

fn a_gather_that_is_dropped_leaves_its_tasks_running(engine: Engine) {
    run(engine, async {
        let ran = Rc::new(Cell::new(0));
        let counts = [1, 2, 3].map(|number| {
            let ran = Rc::clone(&ran);
            async move {
                turns(number).await;
                ran.set(ran.get() + 1);
            }
        });
        let gathered = task::gather(counts);
        assert_eq!(ran.get(), 0, "never inline");
        drop(gathered);
        eventually_here("the tasks ran on", || ran.get() == 3).await;
    });
}

fn a_gather_gives_panics_beside_values(engine: Engine) {
    run(engine, async {
        let results = task::gather([1, 2, 3].map(|number| async move {
            assert_ne!(number, 2, "on purpose");
            number
        }))
        .await;
        assert_eq!(results.len(), 3);
        assert_eq!(*results[0].as_ref().unwrap(), 1);
        assert!(results[1].as_ref().unwrap_err().is_panic());
        assert_eq!(*results[2].as_ref().unwrap(), 3);
        let failed = task::try_gather([1, 2].map(|number| async move {
            assert_ne!(number, 2, "on purpose");
            turns(100).await;
            Ok::<_, ()>(number)
        }))
        .await;
        assert!(failed.unwrap_err().is_panic());
    });
}

fn a_shielded_future_outlives_who_awaits_it(engine: Engine) {
    run(engine, async {
        let done = Rc::new(Cell::new(false));
        let flag = Rc::clone(&done);
        let inner = async move {
            turns(5).await;
            flag.set(true);
        };
        let outer = task::spawn(async { task::shield(inner).await.unwrap() });
        turns(2).await;
        assert!(outer.abort());
        assert!(outer.await.unwrap_err().is_cancelled());
        assert!(!done.get());
        eventually_here("the inner one goes on", || done.get()).await;
    });
}
