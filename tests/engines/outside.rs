//! A runtime inside of somebody else's loop, which polls its descriptor and runs its turns.
//!
//! - life 7 (driven from outside) → all of this file

use std::cell::Cell;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use annulus::net::TcpListener;
use annulus::{Engine, Runtime, clock, shard, task, time};

use crate::harness::{builder, connect, echo, pattern};

on_every_engine!(
    a_foreign_loop_serves_an_echo,
    a_foreign_loop_sleeps_until_the_next_timer,
    a_wake_from_another_thread_makes_the_descriptor_readable,
    what_is_spawned_between_turns_makes_the_descriptor_readable,
    an_idle_runtime_leaves_its_descriptor_quiet,
    work_that_is_left_makes_the_descriptor_readable,
    the_threads_engine_has_no_descriptor,
    a_turn_sleeps_no_longer_than_it_may,
    a_turn_moves_a_paused_clock_no_further_than_it_may,
    a_turn_takes_no_heed_of_a_future_that_is_gone,
);

/// Longer than the guard against hangs.
const LONG: Duration = Duration::from_secs(3600);

/// poll(2): whether the descriptor became readable in time.
fn is_readable(descriptor: &OwnedFd, timeout: Option<Duration>) -> bool {
    let mut polled = libc::pollfd { fd: descriptor.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let millis = timeout.map_or(-1, |timeout| timeout.as_micros().div_ceil(1000) as i32);
    // SAFETY: one entry, which is valid for the call.
    let count = unsafe { libc::poll(&raw mut polled, 1, millis) };
    assert!(count >= 0);
    count == 1
}

/// The foreign loop: it knows of the runtime only its descriptor and its next deadline.
fn turn_until(runtime: &Runtime, is_over: impl Fn() -> bool) {
    let Ok(descriptor) = runtime.descriptor() else {
        // The threads engine: each turn sleeps by itself.
        while !is_over() {
            runtime.turn(Some(LONG)).unwrap();
        }
        return;
    };
    while !is_over() {
        let timeout = runtime.next_deadline().map(|deadline| deadline.since(clock::now()));
        is_readable(&descriptor, timeout);
        runtime.turn(Some(Duration::ZERO)).unwrap();
    }
}

fn a_foreign_loop_serves_an_echo(engine: Engine) {
    let runtime = builder(engine).build().unwrap();
    let (address, served) = {
        let _entered = runtime.enter().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        (address, task::spawn(async move { echo(listener.accept().await.unwrap()).await }))
    };
    let client = thread::spawn(move || {
        let mut peer = connect(address);
        for number in 0..100 {
            let sent = pattern(number, 1 + number * 97);
            peer.write_all(&sent).unwrap();
            let mut received = vec![0; sent.len()];
            peer.read_exact(&mut received).unwrap();
            assert!(received == sent, "message {number}");
            if number % 20 == 0 {
                thread::sleep(Duration::from_millis(2));
            }
        }
    });
    turn_until(&runtime, || served.is_finished());
    client.join().unwrap();
    assert!(runtime.close().unwrap().leaked.is_empty());
}

fn a_foreign_loop_sleeps_until_the_next_timer(engine: Engine) {
    let runtime = builder(engine).build().unwrap();
    assert_eq!(runtime.next_deadline(), None);
    let start = clock::now();
    let task = {
        let _entered = runtime.enter().unwrap();
        task::spawn(async {
            for _ in 0..3 {
                time::sleep(Duration::from_millis(5)).await;
            }
        })
    };
    assert!(runtime.next_deadline().unwrap() <= clock::now(), "a task is ready");
    runtime.turn(Some(Duration::ZERO)).unwrap();
    runtime.turn(Some(Duration::ZERO)).unwrap();
    assert!(runtime.next_deadline().unwrap() >= start + Duration::from_millis(5));
    turn_until(&runtime, || task.is_finished());
    assert!(clock::now() >= start + Duration::from_millis(15));
    assert_eq!(runtime.next_deadline(), None);
}

fn a_wake_from_another_thread_makes_the_descriptor_readable(engine: Engine) {
    let runtime = builder(engine).build().unwrap();
    let Ok(descriptor) = runtime.descriptor() else { return };
    let count = Rc::new(Cell::new(0));
    // After a turn, and after loops of other kinds.
    for round in 0..30 {
        match round % 3 {
            0 => runtime.turn(Some(Duration::ZERO)).unwrap(),
            1 => runtime.block_on(async {}),
            _ => {
                runtime.handle().stop();
                runtime.run_forever().unwrap();
            }
        }
        let there = runtime.handle().shard(shard::ShardId(0));
        let (called, call) = mpsc::channel();
        let caller = thread::spawn(move || {
            thread::sleep(Duration::from_micros(round * 97));
            there.defer(move || called.send(round).unwrap()).unwrap();
        });
        let mut turns = 0;
        while call.try_recv().is_err() {
            assert!(is_readable(&descriptor, Some(Duration::from_secs(60))), "round {round}");
            runtime.turn(Some(Duration::ZERO)).unwrap();
            turns += 1;
        }
        assert!(turns < 10, "it is told once, not for ever");
        caller.join().unwrap();
        count.set(count.get() + 1);
    }
    assert_eq!(count.get(), 30);
}

fn what_is_spawned_between_turns_makes_the_descriptor_readable(engine: Engine) {
    let runtime = builder(engine).build().unwrap();
    let Ok(descriptor) = runtime.descriptor() else { return };
    let entered = runtime.enter().unwrap();
    let task = task::spawn(async { 5 });
    drop(entered);
    assert!(is_readable(&descriptor, Some(Duration::ZERO)));
    runtime.turn(Some(Duration::ZERO)).unwrap();
    assert!(task.is_finished());
}

fn an_idle_runtime_leaves_its_descriptor_quiet(engine: Engine) {
    let runtime = builder(engine).build().unwrap();
    let Ok(descriptor) = runtime.descriptor() else { return };
    let _task = {
        let _entered = runtime.enter().unwrap();
        task::spawn(async { time::sleep(LONG).await })
    };
    // What the entering left to do, and then nothing.
    for _ in 0..5 {
        runtime.turn(Some(Duration::ZERO)).unwrap();
    }
    assert!(!is_readable(&descriptor, Some(Duration::from_millis(5))));
    assert!(runtime.next_deadline().unwrap() > clock::now());
}

fn work_that_is_left_makes_the_descriptor_readable(engine: Engine) {
    let runtime = builder(engine).build().unwrap();
    let Ok(descriptor) = runtime.descriptor() else { return };
    let count = Rc::new(Cell::new(0));
    let turns = Rc::clone(&count);
    {
        let _entered = runtime.enter().unwrap();
        drop(task::spawn(async move {
            loop {
                turns.set(turns.get() + 1);
                task::yield_now().await;
            }
        }));
    }
    for number in 1..20 {
        assert!(is_readable(&descriptor, Some(Duration::ZERO)));
        assert!(runtime.next_deadline().unwrap() <= clock::now());
        runtime.turn(Some(Duration::ZERO)).unwrap();
        assert_eq!(count.get(), number);
    }
}

fn the_threads_engine_has_no_descriptor(engine: Engine) {
    let runtime = builder(engine).build().unwrap();
    match runtime.descriptor() {
        Ok(_) => assert_ne!(engine, Engine::Threads),
        Err(error) => {
            assert_eq!(engine, Engine::Threads);
            assert!(error.is_unsupported());
            assert!(error.to_string().contains("use the uring or the epoll engine"));
        }
    }
}

fn a_turn_sleeps_no_longer_than_it_may(engine: Engine) {
    let runtime = builder(engine).build().unwrap();
    for timeout in [Duration::ZERO, Duration::from_millis(2)] {
        let before = clock::now();
        // A turn may end early for no reason; in the end the time has passed.
        while clock::now() < before + timeout {
            runtime.turn(Some(timeout)).unwrap();
        }
        runtime.turn(Some(timeout)).unwrap();
    }
    // A wake ends the sleep of a turn that has no limit.
    let there = runtime.handle().shard(shard::ShardId(0));
    let caller = thread::spawn(move || {
        thread::sleep(Duration::from_millis(2));
        there.defer(|| ()).unwrap();
    });
    while !caller.is_finished() {
        runtime.turn(Some(Duration::from_millis(100))).unwrap();
    }
    caller.join().unwrap();
}

fn a_turn_moves_a_paused_clock_no_further_than_it_may(engine: Engine) {
    let runtime = builder(engine).paused_clock(true).build().unwrap();
    let entered = runtime.enter().unwrap();
    let start = clock::now();
    let task = task::spawn(async { time::sleep(Duration::from_millis(10)).await });
    runtime.turn(Some(Duration::from_millis(1))).unwrap();
    assert_eq!(clock::now(), start, "a task was ready");
    for number in 1..10 {
        runtime.turn(Some(Duration::from_millis(1))).unwrap();
        assert_eq!(clock::now(), start + Duration::from_millis(number));
        assert!(!task.is_finished());
        runtime.turn(Some(Duration::ZERO)).unwrap();
        assert_eq!(clock::now(), start + Duration::from_millis(number));
    }
    assert_eq!(runtime.next_deadline(), Some(clock::now()), "it need not be waited for");
    runtime.turn(None).unwrap();
    assert!(task.is_finished());
    assert_eq!(clock::now(), start + Duration::from_millis(10));
    drop(entered);
}

fn a_turn_takes_no_heed_of_a_future_that_is_gone(engine: Engine) {
    let runtime = builder(engine).build().unwrap();
    // It wakes itself and is done.
    runtime.block_on(std::future::poll_fn(|context| {
        context.waker().wake_by_ref();
        std::task::Poll::Ready(())
    }));
    if let Ok(descriptor) = runtime.descriptor() {
        runtime.turn(Some(Duration::ZERO)).unwrap();
        runtime.turn(Some(Duration::ZERO)).unwrap();
        assert!(!is_readable(&descriptor, Some(Duration::ZERO)));
    }
    assert_eq!(runtime.next_deadline(), None);
}
