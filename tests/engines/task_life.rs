//! What is known of a task, and what a program may do about it.
//!
//! | row | test |
//! |---|---|
//! | A4 | a_name_shows_in_the_list_of_tasks |
//! | A5 | a_task_goes_through_its_states |
//! | A6 A7 | a_result_is_had_without_waiting_and_once, how_a_task_ended_is_told_apart |
//! | A8 | an_abort_handle_aborts_and_holds_nothing |
//! | A9 | a_task_is_finished_however_it_ended |
//! | A10 | callbacks_run_in_order_after_the_end, … |
//! | A11 | a_dump_says_where_a_task_is_stuck |
//! | A12 | the_running_task_is_known_to_itself_alone |
//! | A14 | a_handle_knows_its_shard |
//! | A19 | a_spawn_hook_sees_and_wraps_every_spawn, … |
//! | A20 | a_task_local_is_copied_at_the_spawn |
//! | J1 | a_slow_poll_is_counted_from_the_limit_on |
//! | J2 | a_panic_hook_is_set_read_and_restored, … |
//! | J3 | a_panic_that_nobody_looks_at_is_counted |

use std::cell::{Cell, RefCell};
use std::future::{Future, pending};
use std::rc::{Rc, Weak};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use annulus::metrics::Counter;
use annulus::shard::{ShardId, shard};
use annulus::task::{JoinError, LocalBoxFuture, TaskId, TaskInfo, TaskPanic, TaskState, Waiting};
use annulus::{Engine, Handle, task, task_local, time};

use crate::harness::{builder, pair, run, run_with, turns};

on_every_engine!(
    a_name_shows_in_the_list_of_tasks,
    a_task_goes_through_its_states,
    a_result_is_had_without_waiting_and_once,
    how_a_task_ended_is_told_apart,
    an_abort_handle_aborts_and_holds_nothing,
    a_task_is_finished_however_it_ended,
    callbacks_run_in_order_after_the_end,
    a_callback_on_an_ended_task_runs_on_the_next_turn,
    a_callback_sees_how_the_task_ended,
    a_callback_that_panics_holds_up_no_other,
    a_dump_says_where_a_task_is_stuck,
    a_dump_covers_every_shard,
    the_running_task_is_known_to_itself_alone,
    a_handle_knows_its_shard,
    a_spawn_hook_sees_and_wraps_every_spawn,
    a_spawn_hook_that_swallows_a_future_cancels_the_task,
    a_task_local_is_copied_at_the_spawn,
    a_callback_sees_the_locals_of_who_registered_it,
    a_slow_poll_is_counted_from_the_limit_on,
    a_panic_hook_is_set_read_and_restored,
    a_panic_hook_that_panics_is_contained,
    a_panic_that_nobody_looks_at_is_counted,
    a_panic_in_a_drop_costs_the_task_alone,
    callbacks_come_after_the_drop_of_an_aborted_future,
    callbacks_may_come_late_again_and_again,
    callbacks_that_hold_their_own_handle_go_with_the_runtime,
    the_first_local_of_all_stays_with_its_task,
    what_is_dropped_sees_the_locals_of_its_task,
    a_message_has_no_locals_and_each_run_starts_afresh,
    a_waker_may_drop_what_waits_for_a_timer,
    a_clock_moved_by_hand_makes_no_poll_slow,
    a_future_begun_in_another_runtime_says_so,
);

type Trace = Rc<RefCell<Vec<String>>>;

fn note(trace: &Trace, entry: impl Into<String>) {
    trace.borrow_mut().push(entry.into());
}

fn a_name_shows_in_the_list_of_tasks(engine: Engine) {
    run(engine, async {
        let trace = Trace::default();
        let spawn = |name: &str| {
            let trace = Rc::clone(&trace);
            let own = name.to_owned();
            task::Builder::new().name(name.to_owned()).spawn(async move {
                note(&trace, own.as_str());
                time::sleep(Duration::from_millis(1)).await;
                note(&trace, own.as_str());
            })
        };
        note(&trace, "start");
        let tasks = [spawn("1"), spawn("2")];
        note(&trace, "end");
        let names: Vec<String> = task::all().iter().map(|task| task.name().to_owned()).collect();
        assert_eq!(names, ["1", "2"]);
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*trace.borrow(), ["start", "end", "1", "2", "1", "2"]);
        assert!(task::all().is_empty());
    });
}

fn a_task_goes_through_its_states(engine: Engine) {
    run(engine, async {
        let own: Rc<RefCell<Option<task::JoinHandle<()>>>> = Rc::default();
        let seen = Rc::new(Cell::new(None));
        let (inside, states) = (Rc::clone(&own), Rc::clone(&seen));
        let task = task::spawn(async move {
            states.set(inside.borrow().as_ref().map(task::JoinHandle::state));
            task::yield_now().await;
        });
        assert_eq!(task.state(), TaskState::Pending);
        *own.borrow_mut() = Some(task);
        task::yield_now().await;
        assert_eq!(seen.get(), Some(TaskState::Running));
        let task = own.take().unwrap();
        assert_eq!(task.state(), TaskState::Pending);
        turns(2).await;
        assert_eq!(task.state(), TaskState::Finished);
        let aborted = task::spawn(pending::<()>());
        assert!(aborted.abort());
        turns(2).await;
        assert_eq!(aborted.state(), TaskState::Cancelled);
        let panicked = task::spawn(async { panic!("on purpose") });
        turns(2).await;
        assert_eq!(panicked.state(), TaskState::Panicked);
        assert!(panicked.await.unwrap_err().is_panic());
    });
}

async fn hello(first: u32, second: u32) -> u32 {
    task::yield_now().await;
    first + second
}

fn a_result_is_had_without_waiting_and_once(engine: Engine) {
    run(engine, async {
        let mut task = task::spawn(hello(10, 5));
        assert!(task.try_join().is_none());
        turns(3).await;
        assert_eq!(task.try_join().unwrap().unwrap(), 15);
        let again = task::spawn(task);
        assert!(again.await.unwrap_err().to_string().contains("join a task once"));
    });
}

fn how_a_task_ended_is_told_apart(engine: Engine) {
    run(engine, async {
        let mut cancelled = task::spawn(pending::<()>());
        cancelled.abort();
        let mut panicked = task::spawn(async { std::panic::panic_any(7_u32) });
        let mut nothing = task::spawn(async {});
        turns(2).await;
        let cancelled = cancelled.try_join().unwrap().unwrap_err();
        assert!(cancelled.is_cancelled());
        assert_eq!(cancelled.to_string(), "the task was cancelled");
        let panicked = panicked.try_join().unwrap().unwrap_err();
        assert!(panicked.is_panic());
        assert_eq!(panicked.into_panic().unwrap().downcast_ref(), Some(&7_u32));
        assert!(nothing.try_join().unwrap().is_ok());
    });
}

fn an_abort_handle_aborts_and_holds_nothing(engine: Engine) {
    run(engine, async {
        let value = Rc::new(());
        let held = Rc::clone(&value);
        let task = task::spawn(async move {
            pending::<()>().await;
            drop(held);
        });
        let handle = task.abort_handle();
        assert_eq!(handle.id(), task.id());
        turns(1).await;
        assert!(handle.abort());
        assert!(task.await.unwrap_err().is_cancelled());
        assert_eq!(Rc::strong_count(&value), 1);
        assert!(!handle.abort());
    });
}

fn a_task_is_finished_however_it_ended(engine: Engine) {
    run(engine, async {
        let tasks = [
            task::spawn(async {}),
            task::spawn(pending()),
            task::spawn(async { panic!("on purpose") }),
        ];
        assert!(tasks[1].abort());
        turns(2).await;
        assert!(tasks.iter().all(task::JoinHandle::is_finished));
        for task in tasks {
            let _ = task.await;
        }
    });
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

fn a_dump_says_where_a_task_is_stuck(engine: Engine) {
    run(engine, async {
        let (stream, _peer) = pair().await;
        let line = line!() + 1;
        let receiving = task::Builder::new().name("receiver").spawn(async move {
            let _ = stream.recv().await;
        });
        let sleeping = task::spawn(time::sleep(Duration::from_secs(3600)));
        turns(2).await;
        let dump = task::dump();
        assert_eq!(dump.len(), 2);
        let receiver = &dump[0];
        assert_eq!(receiver.info.name(), "receiver");
        assert_eq!(receiver.info.location().file(), file!());
        assert_eq!(receiver.info.location().line(), line);
        assert_eq!(receiver.state, TaskState::Pending);
        assert_eq!(receiver.polls, 1);
        let [Waiting::Operation { name: "receive", descriptor, .. }] = receiver.waits_for[..]
        else {
            panic!("{:?}", receiver.waits_for)
        };
        assert!(receiver.to_string().contains(&format!("receive fd={descriptor}")), "{receiver}");
        assert!(matches!(dump[1].waits_for[..], [Waiting::Timer(_)]), "{}", dump[1]);
        receiving.abort();
        sleeping.abort();
        turns(2).await;
        assert!(task::dump().is_empty());
    });
}

fn a_dump_covers_every_shard(engine: Engine) {
    run_with(builder(engine).shards(2), async {
        let here = task::Builder::new().name("here").spawn(pending::<()>());
        let start = || async {
            task::Builder::new().name("there").spawn(pending::<()>()).detach();
        };
        shard(ShardId(1)).submit(start).await.unwrap();
        let dump = Handle::current().dump_tasks().await.unwrap();
        let names: Vec<_> = dump
            .iter()
            .filter(|task| ["here", "there"].contains(&task.info.name()))
            .map(|task| (task.shard, task.info.name()))
            .collect();
        assert_eq!(names, [(ShardId(0), "here"), (ShardId(1), "there")]);
        here.abort();
    });
}

fn the_running_task_is_known_to_itself_alone(engine: Engine) {
    assert!(task::current().is_none());
    run(engine, async {
        assert!(task::current().is_none(), "the main future is no task");
        let own = async || task::current().map(|task| (task.id(), task.name().to_owned()));
        let tasks = ["a", "b", "c"].map(|name| task::Builder::new().name(name).spawn(own()));
        assert_eq!(task::all().len(), 3);
        for (task, name) in tasks.into_iter().zip(["a", "b", "c"]) {
            let id = task.id();
            assert_eq!(task.await.unwrap(), Some((id, name.to_owned())));
        }
        assert_eq!(task::all().len(), 0);
    });
}

fn a_handle_knows_its_shard(engine: Engine) {
    run_with(builder(engine).shards(2), async {
        let spawned = || async { task::spawn(async {}).shard_id() };
        assert_eq!(spawned().await, ShardId(0));
        assert_eq!(shard(ShardId(1)).submit(spawned).await.unwrap(), ShardId(1));
        assert_eq!(Handle::current().shards(), 2);
    });
}

fn a_spawn_hook_sees_and_wraps_every_spawn(engine: Engine) {
    run(engine, async {
        assert!(task::spawn_hook().is_none());
        let trace = Trace::default();
        let seen = Rc::clone(&trace);
        let ids: Rc<RefCell<Vec<TaskId>>> = Rc::default();
        let identified = Rc::clone(&ids);
        let hook = move |info: &TaskInfo, future: LocalBoxFuture| -> LocalBoxFuture {
            identified.borrow_mut().push(info.id());
            note(&seen, format!("spawn {}", info.name()));
            let seen = Rc::clone(&seen);
            let name = info.name().to_owned();
            Box::pin(async move {
                future.await;
                note(&seen, format!("end {name}"));
            })
        };
        assert!(task::set_spawn_hook(Some(Rc::new(hook))).is_none());
        assert!(task::spawn_hook().is_some());
        let spawn = |name: &'static str| task::Builder::new().name(name).spawn(hello(1, 2));
        let tasks = [spawn("one"), spawn("two")];
        assert_eq!(*ids.borrow(), [tasks[0].id(), tasks[1].id()]);
        for task in tasks {
            assert_eq!(task.await.unwrap(), 3);
        }
        assert!(task::set_spawn_hook(None).is_some());
        assert_eq!(spawn("three").await.unwrap(), 3);
        assert_eq!(*trace.borrow(), ["spawn one", "spawn two", "end one", "end two"]);
    });
}

fn a_spawn_hook_that_swallows_a_future_cancels_the_task(engine: Engine) {
    run(engine, async {
        task::set_spawn_hook(Some(Rc::new(|_, _| Box::pin(async {}))));
        let task = task::spawn(async { 1 });
        task::set_spawn_hook(None);
        assert!(task.await.unwrap_err().is_cancelled());
    });
}

task_local! {
    static NUMBER: u32;
    static WORD: &'static str;
}

fn a_task_local_is_copied_at_the_spawn(engine: Engine) {
    run(engine, async {
        assert_eq!(NUMBER.get(), None);
        NUMBER.set(1);
        WORD.set("main");
        let child = task::spawn(async {
            assert_eq!((NUMBER.get(), WORD.get()), (Some(1), Some("main")));
            NUMBER.set(2);
            task::yield_now().await;
            let grandchild = task::spawn(async { NUMBER.get() }).await.unwrap();
            (NUMBER.get(), grandchild)
        });
        // Set after the spawn: not the child's.
        NUMBER.set(3);
        assert_eq!(child.await.unwrap(), (Some(2), Some(2)));
        assert_eq!(NUMBER.get(), Some(3));
        assert_eq!(NUMBER.clear().as_deref(), Some(&3));
        assert_eq!((NUMBER.get(), WORD.get()), (None, Some("main")));
        let bare = task::spawn(async { (NUMBER.get(), WORD.get()) });
        assert_eq!(bare.await.unwrap(), (None, Some("main")));
    });
}

fn a_callback_sees_the_locals_of_who_registered_it(engine: Engine) {
    run(engine, async {
        NUMBER.set(1);
        let task = task::spawn(async { NUMBER.set(2) });
        let seen = Rc::new(Cell::new(None));
        let place = Rc::clone(&seen);
        task.on_complete(move |_| place.set(NUMBER.get()));
        task.await.unwrap();
        assert_eq!(seen.get(), Some(1));
        assert_eq!(NUMBER.get(), Some(1));
    });
}

fn counted(handle: &Handle, counter: Counter) -> u64 {
    handle.metrics().snapshot().counter(counter)
}

fn a_slow_poll_is_counted_from_the_limit_on(engine: Engine) {
    run(engine, async {
        let handle = Handle::current();
        assert_eq!(handle.slow_poll(), Duration::from_millis(100));
        let before = counted(&handle, Counter::SlowPolls);
        handle.set_slow_poll(Duration::from_secs(3600));
        task::spawn(async {}).await.unwrap();
        turns(2).await;
        assert_eq!(counted(&handle, Counter::SlowPolls), before);
        handle.set_slow_poll(Duration::ZERO);
        task::spawn(async {}).await.unwrap();
        turns(2).await;
        assert!(counted(&handle, Counter::SlowPolls) > before);
    });
}

fn a_panic_hook_is_set_read_and_restored(engine: Engine) {
    run(engine, async {
        let handle = Handle::current();
        assert!(handle.panic_hook().is_none());
        let told: Arc<Mutex<Vec<String>>> = Arc::default();
        let place = Arc::clone(&told);
        let hook = move |panic: &TaskPanic<'_>| {
            let name = panic.task().map_or("none", TaskInfo::name);
            place.lock().unwrap().push(format!("{name}: {}", panic.message()));
        };
        assert!(handle.set_panic_hook(Arc::new(hook)).is_none());
        assert!(handle.panic_hook().is_some());
        let spawn = || task::Builder::new().name("bad").spawn(async { panic!("on purpose") });
        assert!(spawn().await.unwrap_err().is_panic());
        assert!(handle.take_panic_hook().is_some());
        assert!(handle.panic_hook().is_none());
        assert!(spawn().await.unwrap_err().is_panic());
        assert_eq!(*told.lock().unwrap(), ["bad: on purpose"]);
        assert_eq!(task::spawn(async { 5 }).await.unwrap(), 5);
    });
}

fn a_panic_hook_that_panics_is_contained(engine: Engine) {
    run(engine, async {
        let handle = Handle::current();
        handle.set_panic_hook(Arc::new(|_| panic!("the hook itself")));
        let error = task::spawn(async { panic!("on purpose") }).await.unwrap_err();
        assert_eq!(error.to_string(), "the task panicked: on purpose");
        assert_eq!(task::spawn(async { 5 }).await.unwrap(), 5);
    });
}

fn a_panic_that_nobody_looks_at_is_counted(engine: Engine) {
    run(engine, async {
        let handle = Handle::current();
        let spawn = || task::spawn(async { panic!("on purpose") });
        let unobserved = |handle: &Handle| counted(handle, Counter::TaskPanicsUnobserved);
        // Looked at: joined, or its state asked and the result taken.
        assert!(spawn().await.unwrap_err().is_panic());
        turns(2).await;
        assert_eq!(unobserved(&handle), 0);
        spawn().detach();
        turns(3).await;
        assert_eq!(unobserved(&handle), 1, "nobody held the handle");
        let kept = spawn();
        turns(2).await;
        drop(kept);
        turns(2).await;
        assert_eq!(unobserved(&handle), 2, "the handle was dropped unasked");
        assert_eq!(counted(&handle, Counter::TaskPanics), 3);
    });
}

/// Calls something when it is dropped.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

fn a_panic_in_a_drop_costs_the_task_alone(engine: Engine) {
    let left = run(engine, async {
        let panics = || OnDrop(|| panic!("on purpose, in a drop"));
        let aborted = {
            let guard = panics();
            task::spawn(async move {
                pending::<()>().await;
                drop(guard);
            })
        };
        turns(1).await;
        aborted.abort();
        assert!(aborted.await.unwrap_err().is_cancelled());
        // What is captured goes with the future, after its value was made.
        let guard = panics();
        let value = task::spawn(async move {
            let _guard = &guard;
            7
        });
        let value = value.await;
        assert!(matches!(value, Ok(7) | Err(_)));
        assert_eq!(task::spawn(async { 5 }).await.unwrap(), 5);
        let guard = panics();
        let left = task::spawn(async move {
            pending::<()>().await;
            drop(guard);
        });
        turns(1).await;
        left
    });
    // The shutdown has dropped it.
    assert!(left.is_finished());
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

fn the_first_local_of_all_stays_with_its_task(engine: Engine) {
    run(engine, async {
        let task = task::spawn(async {
            NUMBER.set(7);
            task::yield_now().await;
            NUMBER.get()
        });
        assert_eq!(task.await.unwrap(), Some(7));
        assert_eq!(NUMBER.get(), None);
    });
}

fn what_is_dropped_sees_the_locals_of_its_task(engine: Engine) {
    run(engine, async {
        NUMBER.set(1);
        let seen = Rc::new(Cell::new(None));
        let place = Rc::clone(&seen);
        let guard = OnDrop(move || {
            place.set(NUMBER.get());
            NUMBER.set(99);
        });
        let task = task::spawn(async move {
            NUMBER.set(2);
            pending::<()>().await;
            drop(guard);
        });
        turns(1).await;
        task.abort();
        assert!(task.await.is_err());
        assert_eq!((seen.get(), NUMBER.get()), (Some(2), Some(1)));
    });
}

fn a_message_has_no_locals_and_each_run_starts_afresh(engine: Engine) {
    let runtime = builder(engine).build().unwrap();
    runtime.block_on(async {
        NUMBER.set(1);
        let own = shard(ShardId(0));
        let swapped = || NUMBER.set(2).map(|value| *value);
        assert_eq!(own.call(swapped).await.unwrap(), None);
        assert_eq!(own.call(swapped).await.unwrap(), None);
        assert_eq!(NUMBER.get(), Some(1));
    });
    assert_eq!(runtime.block_on(async { NUMBER.get() }), None);
}

/// Drops what it holds when it is woken.
struct DropsOnWake(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl Wake for DropsOnWake {
    fn wake(self: Arc<Self>) {
        if let Some(act) = self.0.lock().unwrap().take() {
            act();
        }
    }
}

thread_local! {
    static OTHER: RefCell<Option<time::Sleep>> = const { RefCell::new(None) };
}

fn a_waker_may_drop_what_waits_for_a_timer(engine: Engine) {
    run(engine, async {
        let act: Box<dyn FnOnce() + Send> = Box::new(|| drop(OTHER.take()));
        let waker = Waker::from(Arc::new(DropsOnWake(Mutex::new(Some(act)))));
        let mut first = Box::pin(time::sleep(Duration::from_millis(1)));
        assert!(first.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        let mut other = Box::pin(time::sleep(Duration::from_secs(3600)));
        assert!(other.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        OTHER.set(Some(*std::pin::Pin::into_inner(other)));
        time::sleep(Duration::from_millis(5)).await;
        assert!(OTHER.take().is_none(), "the waker has dropped it");
    });
}

fn a_clock_moved_by_hand_makes_no_poll_slow(engine: Engine) {
    run_with(builder(engine).paused_clock(true), async {
        let handle = Handle::current();
        task::spawn(async { time::advance(Duration::from_secs(3600)) }).await.unwrap();
        turns(2).await;
        assert_eq!(counted(&handle, Counter::SlowPolls), 0);
    });
}

fn a_future_begun_in_another_runtime_says_so(engine: Engine) {
    let mut begun = Box::pin(time::sleep(Duration::from_secs(3600)));
    let first = builder(engine).build().unwrap();
    first.block_on(async {
        let mut context = Context::from_waker(Waker::noop());
        assert!(begun.as_mut().poll(&mut context).is_pending());
    });
    run(engine, async move {
        let error = task::spawn(begun).await.unwrap_err();
        assert!(error.to_string().contains("begun in another runtime"), "{error}");
    });
}
