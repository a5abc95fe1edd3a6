//! Futures put together: in turn, all at once, the first of them.
//!
//! A1 → an_async_fn_does_nothing_until_it_is_awaited, a_future_that_is_dropped_unpolled_never_runs.
//! A2 → the doctest of `annulus::future`.
//! A15 → plain_awaits_run_one_after_the_other, nested_awaits_end_from_the_inside_out,
//! a_main_that_awaits_freezes_until_it_has_its_answer.
//! A22 → two_tasks_that_give_way_take_turns, a_zero_sleep_lets_another_ready_task_run.
//! B1 → a_join_runs_all_at_once_and_keeps_the_input_order, one_after_the_other_takes_the_sum.
//! B2 → a_join_of_tasks_ends_with_the_slowest.
//! B3 → a_try_join_gives_the_first_error_and_drops_bare_futures,
//! a_try_join_of_tasks_leaves_the_others_running.
//! B6 → results_come_in_the_order_of_their_ends.
//! B7 → a_time_limit_drops_what_it_cuts_short, a_result_in_time_wins_over_its_limit.
//! B9 → cleanup_runs_when_a_task_is_cancelled.
//! B10 → a_sleep_is_never_early_and_its_lateness_is_reported.
//! R → polling_a_task_gives_its_value_and_burns_turns, awaiting_a_task_gives_its_value,
//! a_callback_is_given_a_tasks_value.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending};
use std::io;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use annulus::metrics::{Counter, Measure};
use annulus::stream::StreamExt;
use annulus::{Engine, Handle, clock, future, task, time};

use crate::harness::{builder, eventually_here, run, turns};
use crate::script::{Script, U, Watch, run_timed};

on_every_engine!(
    an_async_fn_does_nothing_until_it_is_awaited,
    a_future_that_is_dropped_unpolled_never_runs,
    plain_awaits_run_one_after_the_other,
    nested_awaits_end_from_the_inside_out,
    a_main_that_awaits_freezes_until_it_has_its_answer,
    two_tasks_that_give_way_take_turns,
    a_zero_sleep_lets_another_ready_task_run,
    a_join_runs_all_at_once_and_keeps_the_input_order,
    one_after_the_other_takes_the_sum,
    a_join_of_tasks_ends_with_the_slowest,
    a_join_keeps_the_order_of_any_number_of_futures,
    a_large_join_polls_only_groups_that_were_woken,
    a_join_of_tasks_woken_by_threads_misses_none,
    a_join_that_is_dropped_drops_its_futures,
    a_try_join_gives_the_first_error_and_drops_bare_futures,
    a_try_join_of_tasks_leaves_the_others_running,
    results_come_in_the_order_of_their_ends,
    a_race_has_one_winner_and_drops_the_others,
    an_or_prefers_its_first_future,
    a_select_gives_back_the_loser,
    macros_join_and_select,
    a_time_limit_drops_what_it_cuts_short,
    a_result_in_time_wins_over_its_limit,
    cleanup_runs_when_a_task_is_cancelled,
    a_sleep_is_never_early_and_its_lateness_is_reported,
    polling_a_task_gives_its_value_and_burns_turns,
    awaiting_a_task_gives_its_value,
    a_callback_is_given_a_tasks_value,
);

async fn count(counter: Rc<Cell<u32>>) {
    counter.set(counter.get() + 1);
}

fn an_async_fn_does_nothing_until_it_is_awaited(engine: Engine) {
    let counter = Rc::new(Cell::new(0));
    let runtime = builder(engine).build().unwrap();
    let counting = count(Rc::clone(&counter));
    assert_eq!(counter.get(), 0);
    runtime.block_on(counting);
    assert_eq!(counter.get(), 1);
}

fn a_future_that_is_dropped_unpolled_never_runs(engine: Engine) {
    run(engine, async {
        let counter = Rc::new(Cell::new(0));
        drop(count(Rc::clone(&counter)));
        drop(future::join_all([count(Rc::clone(&counter))]));
        drop(future::race([count(Rc::clone(&counter))]));
        drop(future::as_completed([count(Rc::clone(&counter))]));
        turns(2).await;
        assert_eq!((counter.get(), Rc::strong_count(&counter)), (0, 1));
    });
}

fn plain_awaits_run_one_after_the_other(engine: Engine) {
    run_timed(engine, async {
        let script = Script::default();
        let watch = Watch::start();
        script.clone().act("one", 2, ()).await;
        script.clone().act("two", 2, ()).await;
        watch.assert_units(4);
        assert_eq!(script.text(), "one begins,one ends,two begins,two ends");

        let watch = Watch::start();
        script.clone().act("hello", 1, ()).await;
        script.clone().act("world", 2, ()).await;
        watch.assert_units(3);
    });
}

fn nested_awaits_end_from_the_inside_out(engine: Engine) {
    run_timed(engine, async {
        let script = Script::default();
        let watch = Watch::start();
        script.note("03b");
        for (begin, end, units) in [("02b", "02e", 3), ("01b", "01e", 2)] {
            let script = script.clone();
            async move {
                script.note(begin);
                async { time::sleep(U * units).await }.await;
                script.note(end);
            }
            .await;
        }
        script.note("03e");
        watch.assert_units(5);
        assert_eq!(script.text(), "03b,02b,02e,01b,01e,03e");
    });
}

fn a_main_that_awaits_freezes_until_it_has_its_answer(engine: Engine) {
    run_timed(engine, async {
        let script = Script::default();
        let watch = Watch::start();
        let answer = script.clone().act("sum", 3, 10 + 20).await;
        script.note(answer.to_string());
        watch.assert_units(3);
        assert_eq!(script.text(), "sum begins,sum ends,30");
    });
}

fn two_tasks_that_give_way_take_turns(engine: Engine) {
    run(engine, async {
        let script = Script::default();
        let tasks = [("1", "2"), ("3", "4")].map(|(before, after)| {
            let script = script.clone();
            async move {
                script.note(before);
                task::yield_now().await;
                script.note(after);
            }
        });
        task::gather(tasks).await;
        assert_eq!(script.text(), "1,3,2,4");
    });
}

fn a_zero_sleep_lets_another_ready_task_run(engine: Engine) {
    run(engine, async {
        let script = Script::default();
        let (one, two) = (script.clone(), script.clone());
        let sleeper = task::spawn(async move {
            one.note("before");
            time::sleep(Duration::ZERO).await;
            one.note("after");
        });
        let other = task::spawn(async move { two.note("other") });
        sleeper.await.unwrap();
        other.await.unwrap();
        assert_eq!(script.text(), "before,other,after");
    });
}

fn a_join_runs_all_at_once_and_keeps_the_input_order(engine: Engine) {
    run_timed(engine, async {
        let script = Script::default();
        let watch = Watch::start();
        let acts = [("01", 3, 15), ("02", 2, 5), ("03", 4, 50)];
        let acts = acts.map(|(name, units, value)| script.clone().act(name, units, value));
        assert_eq!(future::join_all(acts).await, [15, 5, 50]);
        watch.assert_units(4);
        let expected = "01 begins,02 begins,03 begins,02 ends,01 ends,03 ends";
        assert_eq!(script.text(), expected);

        let script = Script::default();
        let (one, two, three) = future::join!(
            script.clone().act("01", 3, 15),
            script.clone().act("02", 2, "five"),
            script.clone().act("03", 4, 50.0),
        );
        assert_eq!((one, two, three), (15, "five", 50.0));
        assert_eq!(script.text(), expected);
    });
}

fn one_after_the_other_takes_the_sum(engine: Engine) {
    run_timed(engine, async {
        let script = Script::default();
        let watch = Watch::start();
        let mut values = Vec::new();
        for (name, units, value) in [("01", 3, 15), ("02", 2, 5), ("03", 4, 50)] {
            values.push(script.clone().act(name, units, value).await);
        }
        watch.assert_units(9);
        assert_eq!(values, [15, 5, 50]);
        assert_eq!(script.text(), "01 begins,01 ends,02 begins,02 ends,03 begins,03 ends");
    });
}

fn a_join_of_tasks_ends_with_the_slowest(engine: Engine) {
    run_timed(engine, async {
        let script = Script::default();
        let watch = Watch::start();
        let one = task::spawn(script.clone().act("ONE", 3, "ONE"));
        let two = task::spawn(script.clone().act("TWO", 1, "TWO"));
        let results = future::join_all([one, two]).await;
        watch.assert_units(3);
        assert_eq!(results.into_iter().map(Result::unwrap).collect::<Vec<_>>(), ["ONE", "TWO"]);
        assert_eq!(script.text(), "ONE begins,TWO begins,TWO ends,ONE ends");
    });
}

fn a_join_keeps_the_order_of_any_number_of_futures(engine: Engine) {
    run(engine, async {
        for number in [0, 1, 30, 31, 32, 33, 100, 1024, 1025, 2100] {
            // Later ones end first.
            let late = |place| async move {
                turns((number - place) % 7).await;
                place
            };
            let expected: Vec<usize> = (0..number).collect();
            assert_eq!(future::join_all((0..number).map(late)).await, expected);
            let checked = (0..number).map(|place| async move { Ok::<_, ()>(late(place).await) });
            assert_eq!(future::try_join_all(checked).await, Ok(expected));
        }
    });
}

fn a_large_join_polls_only_groups_that_were_woken(engine: Engine) {
    const FUTURES: usize = 300;
    run(engine, async {
        let polls = Rc::new(Cell::new(0));
        let (senders, tasks): (Vec<_>, Vec<_>) = (0..FUTURES)
            .map(|place| {
                let (sender, mut receiver) = futures_channel();
                let polls = Rc::clone(&polls);
                let counted = future::poll_fn(move |context| {
                    polls.set(polls.get() + 1);
                    receiver.as_mut().poll(context).map(|()| place)
                });
                (sender, counted)
            })
            .unzip();
        let joined = task::spawn(future::join_all(tasks));
        turns(2).await;
        assert_eq!(polls.get(), FUTURES);
        for sender in senders {
            sender();
            turns(2).await;
        }
        assert_eq!(joined.await.unwrap(), (0..FUTURES).collect::<Vec<_>>());
        let one_by_one = polls.get() - FUTURES;
        assert!(one_by_one <= 16 * FUTURES, "{one_by_one} polls, not {}", FUTURES * FUTURES);
    });
}

type Wait = std::pin::Pin<Box<dyn Future<Output = ()>>>;

/// A wait, and what ends it.
fn futures_channel() -> (Box<dyn FnOnce()>, Wait) {
    let token = task::CancellationToken::new();
    let cancelled = token.cancelled();
    (Box::new(move || token.cancel()), Box::pin(cancelled))
}

fn a_join_of_tasks_woken_by_threads_misses_none(engine: Engine) {
    run(engine, async {
        let tokens: Vec<_> = (0..200).map(|_| task::CancellationToken::new()).collect();
        let cancelled: Vec<_> = tokens.iter().map(task::CancellationToken::cancelled).collect();
        let thread = thread::spawn(move || {
            for token in tokens.iter().rev() {
                token.cancel();
                thread::yield_now();
            }
        });
        assert_eq!(future::join_all(cancelled).await.len(), 200);
        thread.join().unwrap();
    });
}

fn a_join_that_is_dropped_drops_its_futures(engine: Engine) {
    run(engine, async {
        for number in [3_usize, 100] {
            let held = Rc::new(());
            let hold = |place| {
                let held = Rc::clone(&held);
                async move {
                    if place % 2 == 0 {
                        pending::<()>().await;
                    }
                    held
                }
            };
            let joined = task::spawn(future::join_all((0..number).map(hold)));
            turns(2).await;
            assert_eq!(Rc::strong_count(&held), number + 1);
            assert!(joined.abort());
            assert!(joined.await.unwrap_err().is_cancelled());
            assert_eq!(Rc::strong_count(&held), 1);
        }
    });
}

async fn fail_after(script: Script, name: &'static str, units: u32) -> Result<u32, &'static str> {
    let _guard = script.on_drop(name);
    time::sleep(U * units).await;
    if units == 1 { Err("failed") } else { Ok(units) }
}

fn a_try_join_gives_the_first_error_and_drops_bare_futures(engine: Engine) {
    run_timed(engine, async {
        let script = Script::default();
        let watch = Watch::start();
        let futures = [("slow", 3), ("fails", 1), ("slower", 50)];
        let mut joined = future::try_join_all(
            futures.map(|(name, units)| fail_after(script.clone(), name, units)),
        );
        assert_eq!((&mut joined).await, Err("failed"));
        watch.assert_units(1);
        assert_eq!(script.text(), "fails,slow,slower", "dropped although the join is held");
        drop(joined);

        let all = [2, 1, 3].map(|units| fail_after(script.clone(), "", units));
        assert_eq!(future::join_all(all).await, [Ok(2), Err("failed"), Ok(3)]);
    });
}

fn a_try_join_of_tasks_leaves_the_others_running(engine: Engine) {
    run_timed(engine, async {
        let script = Script::default();
        let watch = Watch::start();
        let futures = [("slow", 3), ("fails", 1), ("slower", 4)];
        let gathered =
            task::try_gather(futures.map(|(name, units)| fail_after(script.clone(), name, units)));
        assert_eq!(gathered.await.unwrap_err().failed(), Some(&"failed"));
        watch.assert_units(1);
        assert_eq!(script.text(), "fails");
        time::sleep(U * 5).await;
        assert_eq!(script.text(), "fails,slow,slower");
    });
}

fn results_come_in_the_order_of_their_ends(engine: Engine) {
    run_timed(engine, async {
        let script = Script::default();
        let acts = [("01", 3, 15), ("02", 2, 5), ("03", 4, 50)];
        let acts = acts.map(|(name, units, value)| script.clone().act(name, units, value));
        let mut results = future::as_completed(acts);
        assert_eq!(results.len(), 3);
        let mut values = Vec::new();
        while let Some(value) = results.next().await {
            values.push(value);
        }
        assert_eq!(values, [5, 15, 50]);
        assert_eq!((results.next().await, results.is_empty()), (None, true));
    });
}

fn a_race_has_one_winner_and_drops_the_others(engine: Engine) {
    run_timed(engine, async {
        let script = Script::default();
        let run_to = |name: &'static str, units| {
            let script = script.clone();
            async move {
                let _guard = script.on_drop(name);
                time::sleep(U * units).await;
                name
            }
        };
        let mut race = future::race([run_to("slow", 50), run_to("fast", 1), run_to("last", 60)]);
        assert_eq!((&mut race).await, "fast");
        let losers = script.text();
        assert!(["fast,slow,last", "fast,last,slow"].contains(&losers.as_str()), "{losers}");
        // Ready at the first poll: the first in the input.
        assert_eq!(future::race([1, 2, 3].map(future::ready)).await, 1);
    });
}

fn an_or_prefers_its_first_future(engine: Engine) {
    run(engine, async {
        assert_eq!(future::or(async { 1 }, async { 2 }).await, 1);
        assert_eq!(future::or(pending(), async { 2 }).await, 2);
        let late = async {
            task::yield_now().await;
            3
        };
        assert_eq!(future::or(late, pending()).await, 3);
    });
}

fn a_select_gives_back_the_loser(engine: Engine) {
    run_timed(engine, async {
        let script = Script::default();
        let slow = Box::pin(script.clone().act("slow", 2, "slow"));
        let fast = Box::pin(script.clone().act("fast", 1, 1));
        match future::select(slow, fast).await {
            future::Either::Right((1, slow)) => assert_eq!(slow.await, "slow"),
            _ => panic!("the slow one won"),
        }
        assert_eq!(script.text(), "slow begins,fast begins,fast ends,slow ends");
    });
}

fn macros_join_and_select(engine: Engine) {
    use annulus::future::FutureExt;
    run_timed(engine, async {
        let both: Result<(u32, u32), &str> =
            future::try_join!(async { Ok(1) }, fail_after(Script::default(), "", 1));
        assert_eq!(both, Err("failed"));
        let mut one = std::pin::pin!(time::sleep(U).fuse());
        let mut two = std::pin::pin!(time::sleep(U * 2).fuse());
        let mut order = Vec::new();
        loop {
            future::select! {
                () = one => order.push(1),
                () = two => order.push(2),
                complete => break,
            }
        }
        assert_eq!(order, [1, 2]);
    });
}

fn a_time_limit_drops_what_it_cuts_short(engine: Engine) {
    run_timed(engine, async {
        let script = Script::default();
        let guard = script.on_drop("dropped");
        let endless = async move {
            let _guard = guard;
            pending::<()>().await;
        };
        let elapsed = time::timeout(U, endless).await.unwrap_err();
        assert_eq!(script.text(), "dropped");
        let error = io::Error::other(elapsed);
        assert_ne!(error.kind(), io::ErrorKind::TimedOut, "a limit of ours is no error of a peer");
        assert!(error.downcast::<time::Elapsed>().is_ok());
    });
}

fn a_result_in_time_wins_over_its_limit(engine: Engine) {
    run_timed(engine, async {
        assert_eq!(time::timeout(U * 50, time::sleep(U)).await, Ok(()));
        assert_eq!(time::timeout(Duration::ZERO, async { 5 }).await, Ok(5));
        // Both at the same instant: the value wins.
        let deadline = time::now() + U;
        assert_eq!(time::timeout_at(deadline, time::sleep_until(deadline)).await, Ok(()));
    });
}

fn cleanup_runs_when_a_task_is_cancelled(engine: Engine) {
    run(engine, async {
        let script = Script::default();
        let (noted, guard) = (script.clone(), script.on_drop("cleanup"));
        let task = task::spawn(async move {
            let _guard = guard;
            noted.note("working");
            pending::<()>().await;
            noted.note("never");
        });
        turns(2).await;
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        assert_eq!(script.text(), "working,cleanup");
    });
}

fn a_sleep_is_never_early_and_its_lateness_is_reported(engine: Engine) {
    run(engine, async {
        let handle = Handle::current();
        let before = handle.metrics().snapshot();
        for micros in [0, 10, 500, 3000] {
            let duration = Duration::from_micros(micros);
            let start = clock::now();
            time::sleep(duration).await;
            assert!(clock::now().since(start) >= duration);
            let deadline = clock::now() + duration;
            time::sleep_until(deadline).await;
            assert!(clock::now() >= deadline);
        }
        let passed = handle.metrics().snapshot().since(&before);
        assert_eq!(passed.counter(Counter::TimersFired), 8);
        assert_eq!(passed.summary(Measure::TimerLateness).count, 8);
    });
}

/// What the three ways of being told wait for.
async fn work() -> u32 {
    turns(50).await;
    666
}

fn polls_of(handle: &Handle) -> u64 {
    handle.metrics().snapshot().counter(Counter::Polls)
}

fn polling_a_task_gives_its_value_and_burns_turns(engine: Engine) {
    let polled = run(engine, async {
        task::spawn(async {
            let before = polls_of(&Handle::current());
            let task = task::spawn(work());
            while !task.is_finished() {
                task::yield_now().await;
            }
            assert_eq!(task.await.unwrap(), 666);
            polls_of(&Handle::current()) - before
        })
        .await
        .unwrap()
    });
    let awaited = run(engine, async {
        task::spawn(async {
            let before = polls_of(&Handle::current());
            assert_eq!(task::spawn(work()).await.unwrap(), 666);
            polls_of(&Handle::current()) - before
        })
        .await
        .unwrap()
    });
    assert!(polled >= awaited + 45, "{polled} polls, awaited {awaited}");
}

fn awaiting_a_task_gives_its_value(engine: Engine) {
    run(engine, async {
        let seen = Rc::new(RefCell::new(None));
        let told = Rc::clone(&seen);
        let waiter =
            task::spawn(async move { *told.borrow_mut() = task::spawn(work()).await.ok() });
        waiter.await.unwrap();
        assert_eq!(*seen.borrow(), Some(666));
    });
}

fn a_callback_is_given_a_tasks_value(engine: Engine) {
    run(engine, async {
        let script = Script::default();
        let (told, body) = (script.clone(), script.clone());
        let task = task::spawn(async move {
            let value = work().await;
            body.note("end");
            value
        });
        task.on_complete(move |result| told.note(format!("told {}", result.as_ref().unwrap())));
        let waits = script.clone();
        eventually_here("the callback ran", move || waits.text().contains("told")).await;
        assert_eq!(script.text(), "end,told 666");
        assert_eq!(task.await.unwrap(), 666, "the callback only looked at it");
    });
}
