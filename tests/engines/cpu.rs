//! The cpu pool: values come back, panics too, and a full queue makes its callers wait.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use annulus::shard::placement::Placement;
use annulus::{Engine, Runtime, cpu, task, time};

use crate::harness::{Server, builder, echo, eventually, eventually_here, run, run_with, turns};

on_every_engine!(
    a_closure_runs_elsewhere_and_its_value_comes_back,
    a_panic_comes_back_as_an_error_and_the_pool_lives_on,
    a_full_queue_makes_the_caller_wait_and_drops_nothing,
    a_caller_that_goes_away_passes_its_turn_on,
    the_shard_serves_others_while_it_waits,
    thousands_of_jobs_come_back_to_their_callers,
    connections_use_the_pool,
    a_closure_runs_on_a_core_that_is_no_shards,
);

fn a_closure_runs_elsewhere_and_its_value_comes_back(engine: Engine) {
    run(engine, async {
        let here = thread::current().id();
        let (there, value) =
            cpu::run(|| (thread::current().id(), String::from("value"))).await.unwrap();
        assert_ne!(here, there);
        assert_eq!(value, "value");
    });
}

fn a_panic_comes_back_as_an_error_and_the_pool_lives_on(engine: Engine) {
    run(engine, async {
        for _ in 0..3 {
            let error = cpu::run(|| panic!("on purpose")).await.unwrap_err();
            assert!(error.is_panicked(), "{error}");
            assert_eq!(cpu::run(|| 7).await.unwrap(), 7);
        }
    });
}

fn a_full_queue_makes_the_caller_wait_and_drops_nothing(engine: Engine) {
    run_with(builder(engine).cpu_queue(1), async {
        let (open, gate) = mpsc::channel::<()>();
        let first = task::spawn(cpu::run(move || gate.recv().unwrap()));
        let count = Arc::new(AtomicUsize::new(0));
        let tasks: Vec<_> = (0..50)
            .map(|_| {
                let count = Arc::clone(&count);
                task::spawn(cpu::run(move || count.fetch_add(1, Ordering::Relaxed)))
            })
            .collect();
        turns(5).await;
        assert!(cpu::queued() <= 1);
        assert_eq!(count.load(Ordering::Relaxed), 0);
        open.send(()).unwrap();
        first.await.unwrap().unwrap();
        for task in tasks {
            task.await.unwrap().unwrap();
        }
        assert_eq!(count.load(Ordering::Relaxed), 50);
    });
}

fn a_caller_that_goes_away_passes_its_turn_on(engine: Engine) {
    run_with(builder(engine).cpu_queue(1), async {
        for round in 0..4 {
            let (open, gate) = mpsc::channel::<()>();
            let (started, running) = mpsc::channel::<()>();
            let first = task::spawn(cpu::run(move || {
                started.send(()).unwrap();
                gate.recv().unwrap();
            }));
            eventually_here("the first job runs", || running.try_recv().is_ok()).await;
            let second = task::spawn(cpu::run(|| ()));
            eventually_here("the queue is full", || cpu::queued() == 1).await;
            // Two wait for room. The first in line goes away: before, or just after its turn came.
            let leaving = task::spawn(cpu::run(|| ()));
            turns(2).await;
            let staying = task::spawn(cpu::run(|| ()));
            turns(2).await;
            if round % 2 == 0 {
                assert!(leaving.abort());
                turns(2).await;
                open.send(()).unwrap();
            } else {
                open.send(()).unwrap();
                // No await here: its wake has come, perhaps, but it has not been polled.
                thread::sleep(Duration::from_millis(5));
                leaving.abort();
            }
            let staying = time::timeout(Duration::from_secs(20), staying).await;
            staying.expect("the one who stayed was forgotten").unwrap().unwrap();
            first.await.unwrap().unwrap();
            second.await.unwrap().unwrap();
        }
    });
}

fn the_shard_serves_others_while_it_waits(engine: Engine) {
    run(engine, async {
        let (open, gate) = mpsc::channel::<()>();
        let waiting = task::spawn(cpu::run(move || gate.recv().is_ok()));
        turns(3).await;
        for _ in 0..10 {
            time::sleep(Duration::from_millis(1)).await;
        }
        assert!(!waiting.is_finished());
        open.send(()).unwrap();
        assert!(waiting.await.unwrap().unwrap());
    });
}

fn thousands_of_jobs_come_back_to_their_callers(engine: Engine) {
    run_with(builder(engine).cpu_cores(2), async {
        let square = |n: u64| task::spawn(async move { (n, cpu::run(move || n * n).await) });
        for task in (0..5000).map(square).collect::<Vec<_>>() {
            let (n, square) = task.await.unwrap();
            assert_eq!(square.unwrap(), n * n);
        }
    });
}

fn connections_use_the_pool(engine: Engine) {
    use std::io::{Read, Write};
    let jobs = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&jobs);
    let server = Server::start(builder(engine).cpu_queue(2), move |stream| {
        let count = Arc::clone(&count);
        async move {
            let count = Arc::clone(&count);
            cpu::run(move || count.fetch_add(1, Ordering::Relaxed)).await.unwrap();
            echo(stream).await;
        }
    });
    let mut peers: Vec<_> = (0..20).map(|_| server.connect()).collect();
    for peer in &mut peers {
        peer.write_all(b"x").unwrap();
        peer.read_exact(&mut [0]).unwrap();
    }
    eventually("each has had its job", || jobs.load(Ordering::Relaxed) == 20);
}

fn a_closure_runs_on_a_core_that_is_no_shards(engine: Engine) {
    // SAFETY: takes no pointers.
    let cpu = || unsafe { libc::sched_getcpu() };
    if thread::available_parallelism().unwrap().get() < 2 {
        println!("skipped: one CPU is for both");
        return;
    }
    let builder = Runtime::builder().engine(engine).placement(Placement::Pinned);
    run_with(builder.shards(1).cpu_cores(1), async move {
        let here = cpu();
        for _ in 0..10 {
            assert_ne!(cpu::run(cpu).await.unwrap(), here);
            assert_eq!(cpu(), here);
        }
    });
}
