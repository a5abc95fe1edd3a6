//! Time that stands still while tasks run and jumps when nothing is left to do.
//!
//! - E5 → `a_sleep_takes_exactly_its_time`, `time_stands_still_while_tasks_run`
//! - F, paused clock → all of this file

use std::cell::RefCell;
use std::future::pending;
use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use annulus::net::{TcpListener, TcpStream, serve_connection};
use annulus::{Builder, Engine, Runtime, clock, cpu, fs, shard, task, time};

use crate::harness::{Scratch, builder, echo, run, run_with};

on_every_engine!(
    time_stands_still_while_tasks_run,
    a_sleep_takes_exactly_its_time,
    each_sleeper_wakes_at_its_own_nanosecond,
    a_time_limit_is_over_exactly_at_its_end,
    a_day_passes_in_a_moment,
    sleeps_of_one_deadline_end_in_the_order_in_which_they_began,
    time_moved_by_hand_wakes_what_became_due,
    time_moved_by_hand_stops_before_the_end_of_time,
    a_clock_that_is_not_paused_cannot_be_moved,
    time_does_not_move_while_a_job_is_on_the_cpu_pool,
    time_does_not_move_while_a_file_is_read,
    time_does_not_move_while_connected_tasks_talk,
    a_wake_from_another_thread_is_heard_where_no_timer_is,
    the_clock_is_real_again_outside_the_runtime,
    the_clock_goes_on_where_it_stood,
    a_runtime_with_real_time_is_dropped_inside,
    two_shards_are_refused,
    one_shard_is_the_default,
);

const U: Duration = Duration::from_millis(20);

fn paused(engine: Engine) -> Builder {
    builder(engine).paused_clock(true)
}

type Trace = Rc<RefCell<Vec<(u128, &'static str)>>>;

/// Sleeps, and notes when that was over: in milliseconds since `start`.
async fn note_after(duration: Duration, name: &'static str, start: time::Instant, trace: Trace) {
    time::sleep(duration).await;
    trace.borrow_mut().push((time::now().since(start).as_millis(), name));
}

fn time_stands_still_while_tasks_run(engine: Engine) {
    run_with(paused(engine), async {
        let start = clock::now();
        for _ in 0..3 {
            thread::sleep(Duration::from_millis(2));
            task::yield_now().await;
            assert_eq!(clock::now(), start);
            assert_eq!(time::now(), start);
        }
    });
}

fn a_sleep_takes_exactly_its_time(engine: Engine) {
    run_with(paused(engine), async {
        let start = time::now();
        for duration in [Duration::from_nanos(1), U * 3, Duration::ZERO, Duration::from_secs(9)] {
            let before = time::now();
            time::sleep(duration).await;
            assert_eq!(time::now().since(before), duration);
        }
        assert_eq!(clock::now().since(start), Duration::from_nanos(1) + U * 3 + U * 450);
    });
}

fn each_sleeper_wakes_at_its_own_nanosecond(engine: Engine) {
    run_with(paused(engine), async {
        let start = time::now();
        let tasks = [400u64, 7, 1_000_000_000, 8, 65_536, 65_537, 3_600_000_000_000].map(|nanos| {
            task::spawn(async move {
                time::sleep(Duration::from_nanos(nanos)).await;
                assert_eq!(time::now().nanos_since(start), nanos);
            })
        });
        for task in tasks {
            task.await.unwrap();
        }
    });
}

fn a_time_limit_is_over_exactly_at_its_end(engine: Engine) {
    run_with(paused(engine), async {
        let start = time::now();
        assert!(time::timeout(U * 2, pending::<()>()).await.is_err());
        assert_eq!(time::now().since(start), U * 2);
        // What is ready at the deadline wins, what is ready behind it does not.
        assert_eq!(time::timeout(U, time::sleep(U)).await, Ok(()));
        let late = time::sleep(U + Duration::from_nanos(1));
        assert!(time::timeout(U, late).await.is_err());
        assert_eq!(time::now().since(start), U * 4);
    });
}

fn a_day_passes_in_a_moment(engine: Engine) {
    run_with(paused(engine), async {
        let start = time::now();
        for _ in 0..24 {
            time::sleep(Duration::from_secs(3600)).await;
        }
        assert_eq!(time::now().since(start), Duration::from_secs(86_400));
    });
}

fn sleeps_of_one_deadline_end_in_the_order_in_which_they_began(engine: Engine) {
    run_with(paused(engine), async {
        let trace = Trace::default();
        let start = time::now();
        let sleeper = |millis, name| {
            task::spawn(note_after(Duration::from_millis(millis), name, start, Rc::clone(&trace)))
        };
        let (a, b, c) = (sleeper(30, "a"), sleeper(10, "b"), sleeper(30, "c"));
        time::sleep(U).await;
        let d = sleeper(10, "d");
        for task in [a, b, c, d] {
            task.await.unwrap();
        }
        assert_eq!(*trace.borrow(), [(10, "b"), (30, "a"), (30, "c"), (30, "d")]);
    });
}

fn time_moved_by_hand_wakes_what_became_due(engine: Engine) {
    run_with(paused(engine), async {
        let trace = Trace::default();
        let start = time::now();
        let tasks: Vec<_> = [(50, "late"), (30, "second"), (10, "first")]
            .map(|(millis, name)| {
                let millis = Duration::from_millis(millis);
                task::spawn(note_after(millis, name, start, Rc::clone(&trace)))
            })
            .into();
        task::yield_now().await;
        time::advance(Duration::from_millis(40));
        assert_eq!(time::now().since(start), Duration::from_millis(40));
        assert!(trace.borrow().is_empty(), "not inline");
        task::yield_now().await;
        assert_eq!(*trace.borrow(), [(40, "first"), (40, "second")]);
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(trace.borrow()[2], (50, "late"));
    });
}

fn time_moved_by_hand_stops_before_the_end_of_time(engine: Engine) {
    run_with(paused(engine), async {
        time::advance(Duration::MAX);
        let end = time::now();
        assert!(end < time::Instant::NEVER);
        time::advance(Duration::from_secs(1));
        assert_eq!(clock::now(), end);
    });
}

fn a_clock_that_is_not_paused_cannot_be_moved(engine: Engine) {
    let panic = run(engine, async {
        catch_unwind(|| time::advance(U)).unwrap_err().downcast::<&str>().unwrap()
    });
    assert!(panic.contains("build it with Builder::paused_clock(true)"), "{panic}");
    let outside = catch_unwind(|| time::advance(U)).unwrap_err();
    assert!(outside.downcast::<&str>().unwrap().contains("no annulus runtime"));
}

fn time_does_not_move_while_a_job_is_on_the_cpu_pool(engine: Engine) {
    run_with(paused(engine), async {
        let start = time::now();
        for _ in 0..20 {
            let job = cpu::run(|| {
                thread::sleep(Duration::from_micros(300));
                7
            });
            assert_eq!(time::timeout(Duration::from_nanos(1), job).await.unwrap().unwrap(), 7);
        }
        assert_eq!(time::now(), start);
        // One that panics lets go as well.
        let job = cpu::run(|| panic!("on purpose"));
        assert!(time::timeout(U, job).await.unwrap().is_err());
        time::sleep(U).await;
        assert_eq!(time::now().since(start), U);
    });
}

fn time_does_not_move_while_a_file_is_read(engine: Engine) {
    let scratch = Scratch::new();
    let path = scratch.file("read");
    std::fs::write(&path, vec![7; 3_000_000]).unwrap();
    run_with(paused(engine), async {
        let start = time::now();
        let reading = async {
            let file = fs::File::open(&path).await.unwrap();
            let read = file.read_at(vec![0; 3_000_000], 0).await.unwrap();
            drop(file);
            read.len()
        };
        assert!(time::timeout(Duration::from_nanos(1), reading).await.unwrap() > 0);
        assert_eq!(time::now(), start);
    });
}

fn time_does_not_move_while_connected_tasks_talk(engine: Engine) {
    run_with(paused(engine), async {
        let start = time::now();
        let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        task::spawn(async move {
            let stream = listener.accept().await.unwrap();
            serve_connection("echo", stream, echo).unwrap();
        })
        .detach();
        let talking = async {
            let stream = TcpStream::connect(address).await.unwrap();
            for _ in 0..100 {
                stream.send(b"hello").await.unwrap();
                assert_eq!(&stream.recv().await.unwrap().unwrap()[..], b"hello");
            }
        };
        time::timeout(Duration::from_secs(3600), talking).await.unwrap();
        assert_eq!(time::now(), start);
    });
}

fn a_wake_from_another_thread_is_heard_where_no_timer_is(engine: Engine) {
    let runtime = paused(engine).build().unwrap();
    let handle = runtime.handle();
    let (told, tell) = std::sync::mpsc::channel();
    let peer = thread::spawn(move || {
        let address: std::net::SocketAddr = tell.recv().unwrap();
        thread::sleep(Duration::from_millis(5));
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.write_all(b"x").unwrap();
        stream.read_exact(&mut [0]).unwrap();
        let there = handle.shard(shard::ShardId(0));
        assert_eq!(crate::harness::wait_for(there.call(|| 5)).unwrap(), 5);
    });
    runtime.block_on(async {
        let start = time::now();
        let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        told.send(listener.local_addr().unwrap()).unwrap();
        echo(listener.accept().await.unwrap()).await;
        assert_eq!(time::now(), start);
    });
    runtime.block_on(async { time::sleep(U).await });
    // Its call is answered while the shard turns.
    while !peer.is_finished() {
        runtime.block_on(task::yield_now());
    }
    peer.join().unwrap();
}

fn the_clock_is_real_again_outside_the_runtime(engine: Engine) {
    let before = clock::now();
    let runtime = paused(engine).build().unwrap();
    let far = runtime.block_on(async {
        time::sleep(Duration::from_secs(86_400)).await;
        clock::now()
    });
    let between = clock::now();
    assert!(between >= before);
    assert!(between < far, "a day has not passed");
    let panicking = AssertUnwindSafe(|| {
        runtime.block_on(async {
            time::sleep(Duration::from_secs(1)).await;
            panic!("on purpose");
        })
    });
    assert!(catch_unwind(panicking).is_err());
    assert!(clock::now() < far);
    assert!(runtime.shut_down().leaked.is_empty());
    assert!(clock::now() < far);
}

fn the_clock_goes_on_where_it_stood(engine: Engine) {
    let runtime = paused(engine).build().unwrap();
    let first = runtime.block_on(async {
        time::sleep(Duration::from_secs(5)).await;
        time::now()
    });
    thread::sleep(Duration::from_millis(2));
    let second = runtime.block_on(async {
        assert_eq!(clock::now(), first);
        time::sleep(Duration::from_secs(5)).await;
        time::now()
    });
    assert_eq!(second.since(first), Duration::from_secs(5));
}

fn a_runtime_with_real_time_is_dropped_inside(engine: Engine) {
    let inner = builder(engine).build().unwrap();
    inner.block_on(async {
        task::spawn(async { time::sleep(Duration::from_secs(3600)).await }).detach();
        task::yield_now().await;
    });
    run_with(paused(engine), async move {
        let start = clock::now();
        assert!(inner.shut_down().leaked.is_empty());
        assert_eq!(clock::now(), start);
        time::sleep(U).await;
        assert_eq!(clock::now().since(start), U);
    });
}

fn two_shards_are_refused(engine: Engine) {
    let error = paused(engine).shards(2).build().map(drop).unwrap_err();
    assert!(error.is_config());
    let text = "a paused clock with 2 shards: it is the clock of one thread, use 1 shard";
    assert_eq!(error.to_string(), text);
}

fn one_shard_is_the_default(engine: Engine) {
    let runtime = Runtime::builder().engine(engine).paused_clock(true).build().unwrap();
    assert_eq!(runtime.handle().shards(), 1);
}
