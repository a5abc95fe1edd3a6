//! The loop itself: run again, run for ever, stopped, entered, closed, and where it may not run.
//!
//! - A3 → `block_on_gives_its_value_as_often_as_wanted`, `a_nested_run_is_refused`;
//!   `a_shutdown_drops_tasks_and_what_they_hold` in `lifecycle`
//! - A21 → `tasks_of_one_shard_share_its_thread`, `each_shard_has_a_thread_and_a_cpu_of_its_own`
//! - A23 → `a_nested_run_is_refused`, `another_thread_may_run_another_runtime`
//! - F1 → `the_current_runtime_is_known_inside_and_nowhere_else`
//! - F2 → `a_runtime_can_be_entered_before_it_runs`, `what_entering_refuses`,
//!   `a_guard_may_be_dropped_while_a_loop_runs`, `entering_pauses_the_clock_too`
//! - F3 → `block_on_gives_its_value_as_often_as_wanted`, `a_closed_runtime_refuses_everything`
//! - F4 → `a_task_stops_the_loop`, `another_thread_stops_the_loop`,
//!   `a_stop_before_the_start_leaves_one_turn`, `running_and_closed_are_told_apart`
//! - F6 → `turns_are_counted` (the counter of the metrics stands for a driver that counts them)

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::future::pending;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use annulus::metrics::Counter;
use annulus::net::TcpListener;
use annulus::shard::placement::Placement;
use annulus::{Engine, Handle, Runtime, clock, shard, task, time};

use crate::harness::{builder, pair, run_with, wait_for};

on_every_engine!(
    block_on_gives_its_value_as_often_as_wanted,
    a_nested_run_is_refused,
    another_thread_may_run_another_runtime,
    the_current_runtime_is_known_inside_and_nowhere_else,
    a_task_stops_the_loop,
    another_thread_stops_the_loop,
    a_stop_before_the_start_leaves_one_turn,
    a_loop_that_runs_for_ever_sleeps_after_a_block_on,
    running_and_closed_are_told_apart,
    a_closed_runtime_refuses_everything,
    a_runtime_is_not_closed_from_within,
    a_runtime_can_be_entered_before_it_runs,
    what_entering_refuses,
    a_guard_may_be_dropped_while_a_loop_runs,
    a_guard_that_is_forgotten_does_no_harm,
    entering_pauses_the_clock_too,
    tasks_of_one_shard_share_its_thread,
    each_shard_has_a_thread_and_a_cpu_of_its_own,
    turns_are_counted,
);

const U: Duration = Duration::from_millis(20);

fn block_on_gives_its_value_as_often_as_wanted(engine: Engine) {
    let runtime = builder(engine).build().unwrap();
    for number in 0..5 {
        assert_eq!(runtime.block_on(async { number }), number);
        assert_eq!(runtime.try_block_on(async { number }).unwrap(), number);
    }
    // Two in sequence on one thread.
    drop(runtime);
    assert_eq!(builder(engine).build().unwrap().block_on(async { 7 }), 7);
}

fn a_nested_run_is_refused(engine: Engine) {
    let (inner, outer) = (builder(engine).build().unwrap(), builder(engine).build().unwrap());
    outer.block_on(async {
        for runtime in [&inner, &outer] {
            let error = runtime.try_block_on(async {}).unwrap_err();
            assert!(error.is_already_running());
            assert!(runtime.run_forever().unwrap_err().is_already_running());
            assert!(runtime.turn(None).unwrap_err().is_already_running());
            let panic = catch_unwind(AssertUnwindSafe(|| runtime.block_on(async {}))).unwrap_err();
            assert_eq!(*panic.downcast::<String>().unwrap(), error.to_string());
        }
        assert!(builder(engine).build().map(drop).unwrap_err().is_already_running());
    });
    assert_eq!(inner.block_on(async { 5 }), 5, "both are of use after that");
    assert_eq!(outer.block_on(async { 6 }), 6);
}

fn another_thread_may_run_another_runtime(engine: Engine) {
    let runtime = builder(engine).build().unwrap();
    runtime.block_on(async {
        let other = thread::spawn(move || builder(engine).build().unwrap().block_on(async { 5 }));
        assert_eq!(other.join().unwrap(), 5);
    });
}

fn the_current_runtime_is_known_inside_and_nowhere_else(engine: Engine) {
    let error = Handle::try_current().map(drop).unwrap_err();
    assert!(error.is_not_running());
    assert!(error.to_string().contains("no annulus runtime on this thread"));
    let runtime = builder(engine).shards(2).build().unwrap();
    assert!(Handle::try_current().is_err(), "building is not running");
    runtime.block_on(async {
        assert_eq!(Handle::try_current().unwrap().shards(), 2);
        assert_eq!(Handle::current().shards(), 2);
        let there = shard::shard(shard::ShardId(1)).call(|| Handle::try_current().is_ok());
        assert!(there.await.unwrap());
        assert!(thread::spawn(|| Handle::try_current().is_err()).join().unwrap());
    });
    assert!(Handle::try_current().is_err());
}

fn a_task_stops_the_loop(engine: Engine) {
    let runtime = builder(engine).paused_clock(true).build().unwrap();
    let trace = Rc::new(RefCell::new(Vec::new()));
    let (early, late) = (Rc::clone(&trace), Rc::clone(&trace));
    {
        let _entered = runtime.enter().unwrap();
        drop(time::schedule_after(U * 5, move || late.borrow_mut().push("late")));
        drop(task::spawn(async move {
            time::sleep(U).await;
            let after = Rc::clone(&early);
            drop(task::defer(move || after.borrow_mut().push("next run")));
            Handle::current().stop();
            early.borrow_mut().push("asked to stop");
        }));
    }
    runtime.run_forever().unwrap();
    assert_eq!(*trace.borrow(), ["asked to stop"]);
    // What was ready by then runs in the next run.
    runtime.handle().stop();
    runtime.run_forever().unwrap();
    assert_eq!(*trace.borrow(), ["asked to stop", "next run"]);
    runtime.block_on(time::sleep(U * 5));
    assert_eq!(trace.borrow()[2], "late");
}

fn another_thread_stops_the_loop(engine: Engine) {
    let runtime = builder(engine).build().unwrap();
    for _ in 0..3 {
        let handle = runtime.handle();
        let stopper = thread::spawn(move || {
            thread::sleep(Duration::from_millis(3));
            assert!(handle.is_running());
            handle.stop();
        });
        runtime.run_forever().unwrap();
        stopper.join().unwrap();
    }
    assert_eq!(runtime.block_on(async { 5 }), 5);
}

fn a_stop_before_the_start_leaves_one_turn(engine: Engine) {
    let runtime = builder(engine).build().unwrap();
    let turns = Rc::new(Cell::new(0));
    let count = Rc::clone(&turns);
    {
        let _entered = runtime.enter().unwrap();
        drop(task::spawn(async move {
            loop {
                count.set(count.get() + 1);
                task::yield_now().await;
            }
        }));
    }
    for number in 1..4 {
        runtime.handle().stop();
        runtime.run_forever().unwrap();
        assert_eq!(turns.get(), number);
    }
    // A stop is answered once.
    let handle = runtime.handle();
    runtime.block_on(async { drop(task::defer(move || handle.stop())) });
    runtime.run_forever().unwrap();
}

fn a_loop_that_runs_for_ever_sleeps_after_a_block_on(engine: Engine) {
    let runtime = builder(engine).build().unwrap();
    // The future is gone when its waker is woken.
    let (sender, receiver) = mpsc::channel();
    runtime.block_on(std::future::poll_fn(|context| {
        sender.send(context.waker().clone()).unwrap();
        std::task::Poll::Ready(())
    }));
    let (waker, handle) = (receiver.recv().unwrap(), runtime.handle());
    let turns = |handle: &Handle| handle.metrics().snapshot().counter(Counter::Turns);
    let before = turns(&handle);
    let stopper = thread::spawn(move || {
        thread::sleep(Duration::from_millis(20));
        waker.wake();
        thread::sleep(Duration::from_millis(20));
        handle.stop();
    });
    runtime.run_forever().unwrap();
    stopper.join().unwrap();
    assert!(turns(&runtime.handle()) - before < 20, "it turned without end");
}

fn running_and_closed_are_told_apart(engine: Engine) {
    let runtime = builder(engine).build().unwrap();
    let handle = runtime.handle();
    let told = || {
        let told = (runtime.is_running(), runtime.is_closed());
        assert_eq!(told, (handle.is_running(), handle.is_closed()));
        told
    };
    assert_eq!(told(), (false, false));
    assert_eq!(runtime.block_on(async { told() }), (true, false));
    assert_eq!(told(), (false, false));
    let panicking = AssertUnwindSafe(|| runtime.block_on(async { panic!("on purpose") }));
    assert!(catch_unwind(panicking).is_err());
    assert_eq!(told(), (false, false));
    drop(runtime.close().unwrap());
    assert_eq!(told(), (false, true));
}

fn a_closed_runtime_refuses_everything(engine: Engine) {
    let runtime = builder(engine).build().unwrap();
    let dropped = Rc::new(());
    let held = Rc::clone(&dropped);
    runtime.block_on(async {
        drop(task::spawn(async move {
            let _held = held;
            pending::<()>().await;
        }));
        task::yield_now().await;
    });
    let report = runtime.close().unwrap();
    assert!(report.leaked.is_empty());
    assert_eq!(report.cancelled, 1);
    assert_eq!(Rc::strong_count(&dropped), 1, "what was left is gone");
    let error = runtime.try_block_on(async {}).unwrap_err();
    assert!(error.is_closed());
    assert_eq!(error.to_string(), "the runtime has shut down");
    let panic = catch_unwind(AssertUnwindSafe(|| runtime.block_on(async {}))).unwrap_err();
    assert_eq!(*panic.downcast::<String>().unwrap(), "the runtime has shut down");
    assert!(runtime.run_forever().unwrap_err().is_closed());
    assert!(runtime.turn(None).unwrap_err().is_closed());
    assert!(runtime.enter().unwrap_err().is_closed());
    assert!(runtime.descriptor().unwrap_err().is_closed());
    assert_eq!(runtime.next_deadline(), None);
    assert!(runtime.run_on_all_is_closed());
    let there = runtime.handle().shard(shard::ShardId(0));
    assert!(there.defer(|| ()).unwrap_err().is_closed());
    assert!(wait_for(there.call(|| ())).unwrap_err().is_closed());
    // Again is nothing.
    runtime.handle().stop();
    assert!(runtime.close().unwrap().leaked.is_empty());
    assert!(runtime.close_within(U).unwrap().leaked.is_empty());
}

/// [`Runtime::run_on_all`] panics as `block_on` does.
trait RunOnAll {
    fn run_on_all_is_closed(&self) -> bool;
}

impl RunOnAll for Runtime {
    fn run_on_all_is_closed(&self) -> bool {
        let run = AssertUnwindSafe(|| drop(self.run_on_all(|_| async {})));
        let panic = catch_unwind(run).unwrap_err();
        *panic.downcast::<String>().unwrap() == "the runtime has shut down"
    }
}

fn a_runtime_is_not_closed_from_within(engine: Engine) {
    let runtime = builder(engine).build().unwrap();
    runtime.block_on(async {
        for error in [runtime.close().unwrap_err(), runtime.close_within(U).unwrap_err()] {
            assert!(error.is_already_running());
            assert!(error.to_string().contains("cannot be closed from within its loop"));
        }
        task::yield_now().await;
    });
    let entered = runtime.enter().unwrap();
    let error = runtime.close().unwrap_err();
    assert!(error.is_already_running());
    assert!(error.to_string().contains("drop the guard"), "{error}");
    drop(entered);
    assert!(runtime.close().is_ok());
}

fn a_runtime_can_be_entered_before_it_runs(engine: Engine) {
    let runtime = builder(engine).build().unwrap();
    let (task, listener, callback) = {
        let _entered = runtime.enter().unwrap();
        assert_eq!(Handle::try_current().unwrap().shards(), 1);
        assert!(!runtime.is_running());
        let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let task = task::spawn(async { 5 });
        (task, listener, task::defer(|| ()))
    };
    assert!(Handle::try_current().is_err());
    assert!(!task.is_finished());
    assert!(callback.is_pending());
    assert_eq!(runtime.block_on(task).unwrap(), 5);
    assert!(!callback.is_pending());
    runtime.block_on(async { drop(listener) });
    // A loop may run, and another runtime be built, while it is entered.
    let _entered = runtime.enter().unwrap();
    let task = task::spawn(async { 6 });
    assert_eq!(runtime.block_on(task).unwrap(), 6);
    let other = builder(engine).build().unwrap();
    assert_eq!(other.block_on(async { 7 }), 7);
    let task = task::spawn(async { 8 });
    assert_eq!(runtime.block_on(task).unwrap(), 8);
}

fn what_entering_refuses(engine: Engine) {
    let (first, second) = (builder(engine).build().unwrap(), builder(engine).build().unwrap());
    first.block_on(async {
        assert!(first.enter().unwrap_err().is_already_running());
        assert!(second.enter().unwrap_err().is_already_running());
    });
    let entered = first.enter().unwrap();
    assert!(first.enter().unwrap_err().is_already_running());
    assert!(second.enter().unwrap_err().is_already_running());
    drop(entered);
    drop(second.enter().unwrap());
}

fn a_guard_may_be_dropped_while_a_loop_runs(engine: Engine) {
    let (first, second) = (builder(engine).build().unwrap(), builder(engine).build().unwrap());
    for running in [&first, &second] {
        let entered = first.enter().unwrap();
        running.block_on(async {
            let (stream, _peer) = pair().await;
            drop(entered);
            assert!(Handle::try_current().is_ok());
            drop(stream);
            assert_eq!(task::spawn(async { 5 }).await.unwrap(), 5);
        });
        assert!(Handle::try_current().is_err(), "it is left now");
    }
    assert!(first.close().is_ok());
}

fn a_guard_that_is_forgotten_does_no_harm(engine: Engine) {
    // On a thread of its own, which stays entered.
    let forgetting = thread::spawn(move || {
        let runtime = builder(engine).build().unwrap();
        std::mem::forget(runtime.enter().unwrap());
        assert_eq!(runtime.block_on(async { 5 }), 5);
        assert!(runtime.close().unwrap_err().is_already_running());
        assert!(runtime.shut_down().leaked.is_empty());
        assert_eq!(builder(engine).build().unwrap().block_on(async { 6 }), 6);
    });
    forgetting.join().unwrap();
}

fn entering_pauses_the_clock_too(engine: Engine) {
    let runtime = builder(engine).paused_clock(true).build().unwrap();
    let start = runtime.block_on(async { time::now() });
    let entered = runtime.enter().unwrap();
    assert_eq!(clock::now(), start);
    time::advance(U);
    assert_eq!(clock::now(), start + U);
    runtime.block_on(async {
        assert_eq!(time::now(), start + U);
        time::sleep(U).await;
    });
    assert_eq!(clock::now(), start + U * 2);
    // Another runtime's clock is its own.
    let other = builder(engine).build().unwrap();
    other.block_on(async {
        let before = clock::now();
        thread::sleep(Duration::from_millis(1));
        assert!(clock::now() > before);
    });
    assert_eq!(clock::now(), start + U * 2);
    drop(entered);
    let before = clock::now();
    thread::sleep(Duration::from_millis(1));
    assert!(clock::now() > before);
    assert_eq!(runtime.block_on(async { clock::now() }), start + U * 2);
}

fn tasks_of_one_shard_share_its_thread(engine: Engine) {
    run_with(builder(engine).paused_clock(true), async {
        let start = time::now();
        let trace = Rc::new(RefCell::new(Vec::new()));
        let tasks = [(1, "01"), (2, "02"), (3, "03")].map(|(rank, name)| {
            let trace = Rc::clone(&trace);
            task::spawn(async move {
                time::sleep(U * (4 - rank)).await;
                trace.borrow_mut().push(name);
                thread::current().id()
            })
        });
        for task in tasks {
            assert_eq!(task.await.unwrap(), thread::current().id());
        }
        assert_eq!(*trace.borrow(), ["03", "02", "01"]);
        assert_eq!(time::now().since(start), U * 3);
    });
}

fn each_shard_has_a_thread_and_a_cpu_of_its_own(engine: Engine) {
    // SAFETY: takes no pointers.
    let cpu = || unsafe { libc::sched_getcpu() };
    let cpus = thread::available_parallelism().unwrap().get();
    let runtime = Runtime::builder().engine(engine).placement(Placement::Pinned).shards(cpus);
    let runtime = runtime.cpu_cores(0).build().unwrap();
    let seats = runtime.plan().shards.clone();
    let seen = runtime
        .run_on_all(move |_| async move {
            let (thread, first) = (thread::current().id(), cpu());
            for _ in 0..100 {
                time::sleep(Duration::from_micros(100)).await;
                assert_eq!((thread::current().id(), cpu()), (thread, first));
            }
            (thread, first)
        })
        .unwrap();
    for ((_, cpu), seat) in seen.iter().zip(seats) {
        assert_eq!(seat.map(|seat| seat.0), usize::try_from(*cpu).ok());
    }
    let threads: HashSet<_> = seen.iter().map(|(thread, _)| *thread).collect();
    assert_eq!(threads.len(), cpus);
    assert_eq!(seen.iter().map(|(_, cpu)| *cpu).collect::<HashSet<_>>().len(), cpus);
}

fn turns_are_counted(engine: Engine) {
    let runtime = builder(engine).build().unwrap();
    let turns = || runtime.metrics().snapshot().counter(Counter::Turns);
    let before = turns();
    runtime.block_on(async {
        for _ in 0..100 {
            task::yield_now().await;
        }
    });
    assert!(turns() - before >= 100);
    let before = turns();
    for _ in 0..5 {
        runtime.turn(Some(Duration::ZERO)).unwrap();
    }
    assert_eq!(turns() - before, 5);
}
