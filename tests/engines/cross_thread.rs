//! Shards reached from plain threads: tasks started, awaited, aborted there; closures deferred.
//!
//! H1: `a_thread_goes_on_with_its_own_work_while_a_task_computes`,
//!     `a_handle_is_awaited_in_any_shard_and_in_any_executor`,
//!     `a_wait_on_a_shards_own_thread_is_refused`, `dropping_a_handle_leaves_the_task_running`
//! H2: `deferred_closures_run_on_the_shard_in_order`, `none_of_many_deferred_closures_is_lost`,
//!     `a_panic_in_a_deferred_closure_is_contained_and_counted`,
//!     `a_flood_of_deferred_closures_leaves_time_for_tasks`, `too_many_waiting_jobs_are_refused`
//! H3: `a_panic_reaches_the_thread_that_waits`, `an_abort_drops_the_future_on_its_shard`,
//!     `a_task_that_has_not_begun_is_called_back`, `what_a_closing_shard_drops_is_an_error`,
//!     `a_task_cancelled_on_its_shard_is_cancelled_for_its_thread`

use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, ThreadId};
use std::time::Duration;

use annulus::metrics::Counter;
use annulus::shard::{self, ShardId, shard};
use annulus::{Engine, JobState, limits, task, time};

use crate::harness::{builder, eventually, run_with, wait_for};

on_every_engine!(
    a_thread_goes_on_with_its_own_work_while_a_task_computes,
    a_handle_is_awaited_in_any_shard_and_in_any_executor,
    a_wait_on_a_shards_own_thread_is_refused,
    dropping_a_handle_leaves_the_task_running,
    a_panic_reaches_the_thread_that_waits,
    a_panic_that_nobody_waits_for_is_its_shards,
    an_abort_drops_the_future_on_its_shard,
    a_task_that_has_not_begun_is_called_back,
    a_task_cancelled_on_its_shard_is_cancelled_for_its_thread,
    what_a_closing_shard_drops_is_an_error,
    deferred_closures_run_on_the_shard_in_order,
    none_of_many_deferred_closures_is_lost,
    a_panic_in_a_deferred_closure_is_contained_and_counted,
    a_flood_of_deferred_closures_leaves_time_for_tasks,
    too_many_waiting_jobs_are_refused,
    handles_of_many_threads_get_their_own_values,
);

/// A guard against hangs, not a time that is asserted.
const LONG: Duration = Duration::from_secs(60);

fn a_thread_goes_on_with_its_own_work_while_a_task_computes(engine: Engine) {
    let runtime = builder(engine).shards(2).build().unwrap();
    let shard = runtime.handle().shard(ShardId(1));
    let go = Arc::new(AtomicBool::new(false));
    let is_told = Arc::clone(&go);
    let mut sum = shard.spawn(move || async move {
        let mut sum = 0;
        while !is_told.load(Ordering::Relaxed) || sum < 300 {
            time::sleep(Duration::from_millis(1)).await;
            sum = (sum + 100).min(300);
        }
        sum
    });
    let mut frames = 0;
    let sum = loop {
        match sum.wait_timeout(Duration::from_millis(1)) {
            Ok(sum) => break sum,
            Err(error) => assert!(error.is_timed_out(), "{error}"),
        }
        frames += 1;
        go.store(frames >= 3, Ordering::Relaxed);
    };
    assert_eq!(sum, 300);
    assert!(frames >= 3);
}

fn a_handle_is_awaited_in_any_shard_and_in_any_executor(engine: Engine) {
    let runtime = builder(engine).shards(3).build().unwrap();
    let handle = runtime.handle();
    let slow = |id| {
        handle.shard(ShardId(id)).spawn(move || async move {
            time::sleep(Duration::from_millis(2)).await;
            shard::current()
        })
    };
    assert_eq!(wait_for(slow(1)).unwrap(), ShardId(1));
    assert_eq!(slow(2).wait().unwrap(), ShardId(2));
    let (first, second, third) = (slow(1), slow(1), slow(0));
    let there = runtime.block_on(async move {
        assert_eq!(first.await.unwrap(), ShardId(1));
        let elsewhere = shard(ShardId(2)).submit(move || async move { second.await.unwrap() });
        (elsewhere.await.unwrap(), third.await.unwrap())
    });
    assert_eq!(there, (ShardId(1), ShardId(0)));
}

fn a_wait_on_a_shards_own_thread_is_refused(engine: Engine) {
    let runtime = builder(engine).shards(2).build().unwrap();
    let handle = runtime.handle();
    // Inside of the runtime, whichever shard it is.
    runtime.block_on(async {
        for id in [0, 1].map(ShardId) {
            let mut never = handle.shard(id).spawn(std::future::pending::<()>);
            let error = never.wait_timeout(LONG).unwrap_err();
            assert!(error.error().is_already_running(), "{error}");
            assert!(error.to_string().contains("await the handle instead"), "{error}");
            assert!(never.abort());
            assert!(never.await.unwrap_err().is_cancelled());
        }
        // What is there already is given.
        let mut done = handle.shard(ShardId(1)).spawn(|| async { 5 });
        while !done.is_finished() {
            time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(done.wait_timeout(Duration::ZERO).unwrap(), 5);
    });
    // Outside of it shard 0 does not turn while its thread waits.
    let task = handle.shard(ShardId(0)).spawn(|| async { 6 });
    assert!(task.wait().unwrap_err().error().is_already_running());
    assert_eq!(handle.shard(ShardId(1)).spawn(|| async { 7 }).wait().unwrap(), 7);
}

fn dropping_a_handle_leaves_the_task_running(engine: Engine) {
    let runtime = builder(engine).shards(2).build().unwrap();
    let (sender, receiver) = mpsc::channel();
    let (open, opened) = mpsc::channel::<()>();
    let task = runtime.handle().shard(ShardId(1)).spawn(move || async move {
        while opened.try_recv() == Err(mpsc::TryRecvError::Empty) {
            time::sleep(Duration::from_millis(1)).await;
        }
        sender.send(5).unwrap();
    });
    drop(task);
    drop(open);
    assert_eq!(receiver.recv_timeout(LONG), Ok(5));
}

fn a_panic_reaches_the_thread_that_waits(engine: Engine) {
    let runtime = builder(engine).shards(2).build().unwrap();
    let shard = runtime.handle().shard(ShardId(1));
    let error = shard.spawn(|| async { panic!("in a future {}", 1) }).wait().unwrap_err();
    assert!(error.is_panicked());
    assert_eq!(error.to_string(), "panicked: in a future 1");
    let closure = || -> std::future::Ready<()> { panic!("in a closure") };
    assert_eq!(shard.spawn(closure).wait().unwrap_err().to_string(), "panicked: in a closure");
    let odd = shard.spawn(|| async { std::panic::panic_any(77_u8) });
    let payload = odd.wait().unwrap_err().into_panic().unwrap();
    assert_eq!(payload.downcast_ref::<u8>(), Some(&77));
    // The same for what is submitted and called.
    let error = wait_for(shard.submit(|| async { panic!("submitted") })).unwrap_err();
    assert_eq!(error.to_string(), "panicked: submitted");
    let error = wait_for(shard.call(|| panic!("called"))).unwrap_err();
    assert_eq!(error.to_string(), "panicked: called");
}

fn a_panic_that_nobody_waits_for_is_its_shards(engine: Engine) {
    let runtime = builder(engine).shards(2).build().unwrap();
    let shard = runtime.handle().shard(ShardId(1));
    shard.spawn(|| async { panic!("on purpose") }).detach();
    let panics = || runtime.metrics().snapshot().counter(Counter::TaskPanics);
    eventually("the panic is counted", || panics() == 1);
    assert_eq!(shard.spawn(|| async { 5 }).wait().unwrap(), 5);
}

/// Tells on which thread it was dropped.
struct Witness(mpsc::Sender<ThreadId>);

impl Drop for Witness {
    fn drop(&mut self) {
        let _ = self.0.send(thread::current().id());
    }
}

fn an_abort_drops_the_future_on_its_shard(engine: Engine) {
    let runtime = builder(engine).shards(2).build().unwrap();
    let shard = runtime.handle().shard(ShardId(1));
    let home = wait_for(shard.call(|| thread::current().id())).unwrap();
    let (sender, dropped) = mpsc::channel();
    let witness = Witness(sender);
    let (begin, begun) = mpsc::channel();
    let mut task = shard.spawn(move || async move {
        let _witness = witness;
        begin.send(()).unwrap();
        std::future::pending::<()>().await;
    });
    // One that has not begun is called back: see `a_task_that_has_not_begun_is_called_back`.
    begun.recv_timeout(LONG).unwrap();
    assert!(task.wait_timeout(Duration::from_millis(1)).unwrap_err().is_timed_out());
    assert!(task.abort());
    let error = task.wait_timeout(LONG).unwrap_err();
    assert!(error.is_cancelled(), "{error}");
    // It was dropped before the wait ended.
    assert_eq!(dropped.try_recv(), Ok(home));
    let mut done = shard.spawn(|| async { 5 });
    eventually("the task has ended", || done.is_finished());
    assert!(!done.abort());
    assert_eq!(done.wait_timeout(LONG).unwrap(), 5);
}

fn a_task_that_has_not_begun_is_called_back(engine: Engine) {
    let runtime = builder(engine).build().unwrap();
    let handle = runtime.handle();
    let has_run = Arc::new(AtomicBool::new(false));
    let runs = Arc::clone(&has_run);
    // Shard 0 takes nothing until `block_on`.
    let task = handle.shard(ShardId(0)).spawn(move || async move {
        runs.store(true, Ordering::Relaxed);
    });
    assert_eq!(task.state(), JobState::Pending);
    assert!(task.abort());
    assert_eq!(task.state(), JobState::Done);
    assert!(task.wait().unwrap_err().is_cancelled());
    runtime.block_on(async {
        handle.shard(ShardId(0)).spawn(|| async {}).await.unwrap();
        task::yield_now().await;
    });
    assert!(!has_run.load(Ordering::Relaxed));
}

fn a_task_cancelled_on_its_shard_is_cancelled_for_its_thread(engine: Engine) {
    let runtime = builder(engine).shards(2).build().unwrap();
    let shard = runtime.handle().shard(ShardId(1));
    let swallow = || task::set_spawn_hook(Some(Rc::new(|_, _| Box::pin(async {})))).is_none();
    assert!(wait_for(shard.call(swallow)).unwrap());
    let cancelled = shard.spawn(|| async { 5 });
    assert!(cancelled.wait().unwrap_err().is_cancelled());
    wait_for(shard.call(|| task::set_spawn_hook(None).is_some())).unwrap();
    assert_eq!(shard.spawn(|| async { 5 }).wait().unwrap(), 5);
}

fn what_a_closing_shard_drops_is_an_error(engine: Engine) {
    let runtime = builder(engine).shards(2).build().unwrap();
    let handle = runtime.handle();
    let running = handle.shard(ShardId(1)).spawn(std::future::pending::<()>);
    eventually("it runs", || running.state() == JobState::Running);
    let queued = handle.shard(ShardId(0)).spawn(|| async {});
    let waiting = thread::spawn(move || (running.wait(), queued.wait()));
    handle.shard(ShardId(0)).defer(|| ()).unwrap();
    drop(runtime);
    let (running, queued) = waiting.join().unwrap();
    assert!(running.unwrap_err().is_closed());
    assert!(queued.unwrap_err().is_closed());
    for id in [0, 1].map(ShardId) {
        let late = handle.shard(id).spawn(|| async {});
        assert!(late.is_finished());
        assert_eq!(late.wait().unwrap_err().to_string(), "the shard has shut down");
        assert!(handle.shard(id).defer(|| ()).unwrap_err().is_closed());
    }
}

fn deferred_closures_run_on_the_shard_in_order(engine: Engine) {
    let runtime = builder(engine).shards(2).build().unwrap();
    let shard = runtime.handle().shard(ShardId(1));
    let home = wait_for(shard.call(|| thread::current().id())).unwrap();
    let (sender, receiver) = mpsc::channel();
    for number in 0..1000 {
        let sender = sender.clone();
        let report = move || sender.send((number, thread::current().id())).unwrap();
        shard.defer(report).unwrap();
        if number % 100 == 0 {
            // The shard has fallen asleep by now, most likely, and has to be woken.
            thread::sleep(Duration::from_millis(2));
        }
    }
    for number in 0..1000 {
        assert_eq!(receiver.recv_timeout(LONG).unwrap(), (number, home));
    }
}

fn none_of_many_deferred_closures_is_lost(engine: Engine) {
    const EACH: usize = 100_000;
    let runtime = builder(engine).shards(2).build().unwrap();
    let shard = runtime.handle().shard(ShardId(1));
    let counts: Arc<[AtomicUsize; 4]> = Arc::default();
    let senders: Vec<_> = (0..4)
        .map(|sender| {
            let (shard, counts) = (shard.clone(), Arc::clone(&counts));
            thread::spawn(move || {
                for number in 0..EACH {
                    let counts = Arc::clone(&counts);
                    let count = move || {
                        // In the order in which this thread sent them.
                        assert_eq!(counts[sender].fetch_add(1, Ordering::Relaxed), number);
                    };
                    shard.defer(count).unwrap();
                }
            })
        })
        .collect();
    for sender in senders {
        sender.join().unwrap();
    }
    // What was deferred before this has run when it comes back.
    wait_for(shard.call(|| ())).unwrap();
    assert_eq!([0, 1, 2, 3].map(|sender| counts[sender].load(Ordering::Relaxed)), [EACH; 4]);
    runtime.block_on(async {});
    assert_eq!(runtime.metrics().snapshot().counter(Counter::TaskPanics), 0);
}

fn a_panic_in_a_deferred_closure_is_contained_and_counted(engine: Engine) {
    let runtime = builder(engine).shards(2).build().unwrap();
    let shard = runtime.handle().shard(ShardId(1));
    let count = Arc::new(AtomicUsize::new(0));
    for number in 0..6 {
        let count = Arc::clone(&count);
        let closure = move || {
            assert_ne!(number % 2, 0, "on purpose");
            count.fetch_add(1, Ordering::Relaxed);
        };
        shard.defer(closure).unwrap();
    }
    let panics = || runtime.metrics().snapshot().counter(Counter::TaskPanics);
    eventually("the panics are counted", || panics() == 3);
    assert_eq!(count.load(Ordering::Relaxed), 3);
}

fn a_flood_of_deferred_closures_leaves_time_for_tasks(engine: Engine) {
    let turns = run_with(builder(engine), async {
        let turns = Arc::new(AtomicUsize::new(0));
        let (sender, receiver) = mpsc::channel();
        let here = shard(ShardId(0));
        for _ in 0..1000 {
            here.defer(|| thread::sleep(Duration::from_micros(20))).unwrap();
        }
        let counted = Arc::clone(&turns);
        here.defer(move || sender.send(counted.load(Ordering::Relaxed)).unwrap()).unwrap();
        loop {
            task::yield_now().await;
            turns.fetch_add(1, Ordering::Relaxed);
            if let Ok(turns) = receiver.try_recv() {
                return turns;
            }
        }
    });
    assert!(turns > 10, "tasks had {turns} turns while a thousand closures slept 20 ms");
}

fn too_many_waiting_jobs_are_refused(engine: Engine) {
    let runtime = builder(engine).build().unwrap();
    let here = runtime.handle().shard(ShardId(0));
    for _ in 0..limits::REMOTE_JOBS_COUNT_MAX {
        here.defer(|| ()).unwrap();
    }
    assert!(here.defer(|| ()).unwrap_err().is_limit());
    let refused = here.spawn(|| async {});
    assert!(refused.is_finished());
    assert!(refused.wait().unwrap_err().is_limit());
    runtime.block_on(async {
        while here.defer(|| ()).is_err() {
            task::yield_now().await;
        }
        assert_eq!(here.spawn(|| async { 5 }).await.unwrap(), 5);
    });
}

fn handles_of_many_threads_get_their_own_values(engine: Engine) {
    let runtime = builder(engine).shards(3).build().unwrap();
    let handle = runtime.handle();
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let handle = handle.clone();
            thread::spawn(move || {
                for number in 0..200 {
                    let shard = handle.shard(ShardId(1 + number % 2));
                    let echo = shard.spawn(move || async move {
                        task::yield_now().await;
                        (thread, number)
                    });
                    assert_eq!(echo.wait().unwrap(), (thread, number));
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}
