//! What is known of a task, and what a program may do about it.
//!
//! | row | test |
//! |---|---|
//! | A4 | a_name_shows_in_the_list_of_tasks |
//! | A5 | a_task_goes_through_its_states |
//! | A6 A7 | a_result_is_had_without_waiting_and_once, how_a_task_ended_is_told_apart |
//! | A8 | an_abort_handle_aborts_and_holds_nothing |
//! | A9 | a_task_is_finished_however_it_ended |
//! | A11 | a_dump_says_where_a_task_is_stuck |
//! | A12 | the_running_task_is_known_to_itself_alone |
//! | A14 | a_handle_knows_its_shard |
//! | A19 | a_spawn_hook_sees_and_wraps_every_spawn, … |
//! | J1 | a_slow_poll_is_counted_from_the_limit_on |
//! | J2 | a_panic_hook_is_set_read_and_restored, … |
//! | J3 | a_panic_that_nobody_looks_at_is_counted |

use std::cell::{Cell, RefCell};
use std::future::{Future, pending};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use annulus::metrics::Counter;
use annulus::shard::{ShardId, shard};
use annulus::task::{LocalBoxFuture, TaskId, TaskInfo, TaskPanic, TaskState, Waiting};
use annulus::{Engine, Handle, task, time};

use crate::harness::{OnDrop, builder, eventually_here, pair, run, run_with, turns};

on_every_engine!(
    a_name_shows_in_the_list_of_tasks,
    a_task_goes_through_its_states,
    a_result_is_had_without_waiting_and_once,
    how_a_task_ended_is_told_apart,
    an_abort_handle_aborts_and_holds_nothing,
    a_task_is_finished_however_it_ended,
    a_dump_says_where_a_task_is_stuck,
    a_dump_covers_every_shard,
    the_running_task_is_known_to_itself_alone,
    a_handle_knows_its_shard,
    a_spawn_hook_sees_and_wraps_every_spawn,
    a_spawn_hook_that_swallows_a_future_cancels_the_task,
    a_slow_poll_is_counted_from_the_limit_on,
    a_panic_hook_is_set_read_and_restored,
    a_panic_hook_that_panics_is_contained,
    a_panic_hook_hears_of_every_callback,
    an_abort_of_a_sleeping_task_frees_its_timer,
    a_panic_is_resumed_where_it_is_joined,
    a_panic_that_nobody_looks_at_is_counted,
    a_panic_in_a_drop_costs_the_task_alone,
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
        let line = line!() + 1;
        let remote = shard(ShardId(1)).spawn(pending::<()>);
        let remote_site = loop {
            let dump = Handle::current().dump_tasks().await.unwrap();
            let found = dump.iter().find(|task| task.info.name() == "remote");
            if let Some(found) = found {
                break found.info.location();
            }
        };
        assert_eq!((remote_site.file(), remote_site.line()), (file!(), line));
        remote.abort();
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

fn a_panic_hook_hears_of_every_callback(engine: Engine) {
    run(engine, async {
        let handle = Handle::current();
        let told: Arc<Mutex<Vec<String>>> = Arc::default();
        let place = Arc::clone(&told);
        let hook = move |panic: &TaskPanic<'_>| {
            place.lock().unwrap().push(panic.message().to_owned());
        };
        handle.set_panic_hook(Arc::new(hook));
        task::defer(|| panic!("deferred"));
        turns(3).await;
        time::schedule_after(Duration::ZERO, || panic!("scheduled"));
        eventually_here("the timer fires", || told.lock().unwrap().len() == 2).await;
        let ended = task::spawn(async {});
        ended.on_complete(|_| panic!("on completion"));
        ended.await.unwrap();
        shard(ShardId(0)).defer(|| panic!("sent")).unwrap();
        eventually_here("all are told", || told.lock().unwrap().len() == 4).await;
        let expected = ["deferred", "scheduled", "on completion", "sent"];
        assert_eq!(*told.lock().unwrap(), expected);
        assert_eq!(counted(&handle, Counter::TaskPanics), 4);
    });
}

fn an_abort_of_a_sleeping_task_frees_its_timer(engine: Engine) {
    run(engine, async {
        let timers = || {
            let waits = task::dump().into_iter().flat_map(|task| task.waits_for);
            waits.filter(|waiting| matches!(waiting, Waiting::Timer(_))).count()
        };
        let held = Rc::new(());
        let guard = Rc::clone(&held);
        let sleeping = task::spawn(async move {
            time::sleep(Duration::from_secs(3600)).await;
            drop(guard);
        });
        turns(2).await;
        assert_eq!(timers(), 1);
        assert!(sleeping.abort());
        assert!(sleeping.await.unwrap_err().is_cancelled());
        assert_eq!((timers(), Rc::strong_count(&held)), (0, 1));
    });
}

fn a_panic_is_resumed_where_it_is_joined(engine: Engine) {
    run(engine, async {
        let task = task::spawn(async {
            let inner = task::spawn(async { std::panic::panic_any("the same") });
            let panic = inner.await.unwrap_err().into_panic().unwrap();
            std::panic::resume_unwind(panic);
        });
        let panic = task.await.unwrap_err().into_panic().unwrap();
        assert_eq!(panic.downcast_ref(), Some(&"the same"));
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

fn a_panic_in_a_drop_costs_the_task_alone(engine: Engine) {
    let left = Rc::new(RefCell::new(None));
    let place = Rc::clone(&left);
    run(engine, async move {
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
        place.replace(Some(left));
    });
    // The shutdown has dropped it.
    assert!(left.take().is_some_and(|left| left.is_finished()));
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
