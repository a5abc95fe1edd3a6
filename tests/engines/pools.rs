//! Pools for calls that block: the runtime's own, a program's own, one in the place of the other.
//!
//! G1: `a_blocking_call_leaves_the_shard_to_others`, `blocking_calls_overlap`,
//!     `threads_of_the_default_pool_are_not_pinned_to_a_shard`
//! G2: `ten_jobs_on_five_threads_show_their_states_and_run_in_two_waves`
//! G4: `a_handle_is_awaited_by_tasks_and_waited_for_by_threads`
//! G5: `three_downloads_overlap`
//! G6: `the_default_pool_may_be_replaced`, `a_pool_that_is_shut_down_refuses_and_says_so`

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::Duration;

use annulus::blocking::{self, JobState, Pool};
use annulus::shard::placement::Placement;
use annulus::{Engine, cpu, task, time};

use crate::harness::{builder, eventually, eventually_here, run, run_with, turns, wait_for};

on_every_engine!(
    a_blocking_call_leaves_the_shard_to_others,
    blocking_calls_overlap,
    threads_of_the_default_pool_are_not_pinned_to_a_shard,
    ten_jobs_on_five_threads_show_their_states_and_run_in_two_waves,
    a_handle_is_awaited_by_tasks_and_waited_for_by_threads,
    a_wait_on_a_shards_thread_is_refused,
    three_downloads_overlap,
    the_default_pool_may_be_replaced,
    a_pool_that_is_shut_down_refuses_and_says_so,
    a_full_queue_is_an_error_or_a_wait,
    a_job_that_waits_is_called_back,
    a_run_that_is_given_up_is_called_back,
    a_panic_reaches_whoever_waits,
    idle_threads_end_and_new_ones_start,
    the_last_holder_closes_the_pool,
    settings_that_make_no_sense_are_refused,
    jobs_of_the_cpu_pool_have_handles_too,
    many_jobs_of_many_submitters_are_each_done_once,
);

/// A guard against hangs, not a time that is asserted.
const LONG: Duration = Duration::from_secs(60);

fn pool(threads: usize, queue: usize) -> Pool {
    Pool::builder().threads(threads).queue(queue).name("test-pool").build().unwrap()
}

fn a_blocking_call_leaves_the_shard_to_others(engine: Engine) {
    run(engine, async {
        let (open, gate) = mpsc::channel::<()>();
        let here = thread::current().id();
        let call = task::spawn(blocking::run(move || {
            gate.recv_timeout(LONG).unwrap();
            thread::current().id()
        }));
        for _ in 0..10 {
            time::sleep(Duration::from_millis(1)).await;
        }
        assert!(!call.is_finished());
        open.send(()).unwrap();
        assert_ne!(call.await.unwrap().unwrap(), here);
    });
}

fn blocking_calls_overlap(engine: Engine) {
    run(engine, async {
        // Each waits for all others: one after the other they would wait for ever.
        let barrier = Arc::new(Barrier::new(20));
        let calls: Vec<_> = (0..20)
            .map(|number| {
                let barrier = Arc::clone(&barrier);
                task::spawn(blocking::run(move || {
                    barrier.wait();
                    number
                }))
            })
            .collect();
        for (number, call) in calls.into_iter().enumerate() {
            assert_eq!(call.await.unwrap().unwrap(), number);
        }
    });
}

fn threads_of_the_default_pool_are_not_pinned_to_a_shard(engine: Engine) {
    fn allowed() -> String {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        status.lines().find(|line| line.starts_with("Cpus_allowed_list")).unwrap().to_owned()
    }
    // On a thread of its own: shard 0 pins the thread that builds the runtime.
    let test = thread::spawn(move || {
        let everywhere = allowed();
        let cpus = thread::available_parallelism().unwrap();
        run_with(builder(engine).placement(Placement::Pinned), async {
            let own = Pool::builder().threads(1).build().unwrap();
            assert_eq!(blocking::run(allowed).await.unwrap(), everywhere);
            assert_eq!(own.run(allowed).await.unwrap(), everywhere);
            // One thread for each CPU, and not for the one that this thread is pinned to.
            let settings = format!("{:?}", Pool::builder().build().unwrap());
            assert_eq!(settings.contains("threads_max: 1,"), cpus.get() == 1, "{settings}");
        });
    });
    test.join().unwrap();
}

fn ten_jobs_on_five_threads_show_their_states_and_run_in_two_waves(engine: Engine) {
    run(engine, async {
        let pool = pool(5, 5);
        let (begun, begins) = mpsc::channel();
        let gates: Vec<_> = (0..10).map(|_| mpsc::channel::<()>()).collect();
        let mut opens = Vec::new();
        let mut jobs = Vec::new();
        for (number, (open, gate)) in gates.into_iter().enumerate() {
            let begun = begun.clone();
            opens.push(open);
            jobs.push(pool.submit(move || {
                begun.send(number).unwrap();
                gate.recv_timeout(LONG).unwrap();
                number
            }));
        }
        let states = |jobs: &[blocking::Handle<usize>]| -> Vec<JobState> {
            jobs.iter().map(blocking::Handle::state).collect()
        };
        let (running, pending, done) = (JobState::Running, JobState::Pending, JobState::Done);
        assert_eq!(states(&jobs), [[running; 5], [pending; 5]].concat());
        assert_eq!(format!("{:?}", jobs[9]), "Handle { state: Pending }");
        assert_eq!((pool.running(), pool.pending()), (5, 5));
        let wave = || {
            let mut wave: Vec<_> = (0..5).map(|_| begins.recv_timeout(LONG).unwrap()).collect();
            wave.sort_unstable();
            wave
        };
        assert_eq!(wave(), [0, 1, 2, 3, 4]);
        opens[..5].iter().for_each(|open| open.send(()).unwrap());
        assert_eq!(wave(), [5, 6, 7, 8, 9]);
        assert_eq!(states(&jobs), [[done; 5], [running; 5]].concat());
        opens[5..].iter().for_each(|open| open.send(()).unwrap());
        for (number, job) in jobs.into_iter().enumerate() {
            assert_eq!(job.await.unwrap(), number);
        }
        assert_eq!(pool.threads(), 5);
    });
}

fn a_handle_is_awaited_by_tasks_and_waited_for_by_threads(engine: Engine) {
    let pool = pool(2, 10);
    let job = || pool.submit(|| String::from("value"));
    assert_eq!(job().wait().unwrap(), "value");
    assert_eq!(job().wait_timeout(LONG).unwrap(), "value");
    assert_eq!(wait_for(job()).unwrap(), "value");
    let (open, gate) = mpsc::channel::<()>();
    let mut slow = pool.submit(move || gate.recv_timeout(LONG).is_ok());
    assert!(slow.wait_timeout(Duration::from_millis(1)).unwrap_err().is_timed_out());
    run(engine, async {
        assert_eq!(job().await.unwrap(), "value");
        // Begun to be waited for by a thread, awaited by a task.
        let waiting = task::spawn(slow);
        turns(3).await;
        open.send(()).unwrap();
        assert!(waiting.await.unwrap().unwrap());
    });
}

fn a_wait_on_a_shards_thread_is_refused(engine: Engine) {
    run(engine, async {
        let pool = pool(1, 1);
        let (open, gate) = mpsc::channel::<()>();
        let mut job = pool.submit(move || gate.recv_timeout(LONG).is_ok());
        let error = job.wait_timeout(LONG).unwrap_err();
        assert!(error.error().is_already_running(), "{error}");
        open.send(()).unwrap();
        assert!(job.await.unwrap());
        assert!(pool.shut_down(LONG).unwrap_err().is_already_running());
        assert!(pool.is_closed());
    });
}

/// Answers `count` requests, but none before all have come.
fn server(count: usize) -> (std::net::SocketAddr, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = move || {
        let mut peers = Vec::new();
        for _ in 0..count {
            let (mut peer, _) = listener.accept().unwrap();
            let mut request = [0; "GET /a HTTP/1.0\r\n\r\n".len()];
            peer.read_exact(&mut request).unwrap();
            peers.push((peer, request[5]));
        }
        for (mut peer, name) in peers {
            let body = [name; 1000];
            peer.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 1000\r\n\r\n").unwrap();
            peer.write_all(&body).unwrap();
        }
    };
    (address, thread::spawn(serve))
}

fn three_downloads_overlap(engine: Engine) {
    run(engine, async {
        let (address, server) = server(3);
        let download = |name: char| {
            task::spawn(blocking::run(move || {
                let mut stream = TcpStream::connect(address).unwrap();
                stream.set_read_timeout(Some(LONG)).unwrap();
                write!(stream, "GET /{name} HTTP/1.0\r\n\r\n").unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).unwrap();
                answer.split_once("\r\n\r\n").unwrap().1.to_owned()
            }))
        };
        for (name, page) in ['a', 'b', 'c'].map(|name| (name, download(name))) {
            assert_eq!(page.await.unwrap().unwrap(), name.to_string().repeat(1000));
        }
        server.join().unwrap();
    });
}

fn the_default_pool_may_be_replaced(engine: Engine) {
    let pool = pool(1, 1);
    let own = pool.clone();
    let runtime = builder(engine).blocking_pool(pool.clone()).build().unwrap();
    runtime.block_on(async {
        let name = || thread::current().name().map(str::to_owned);
        assert_eq!(blocking::run(name).await.unwrap().as_deref(), Some("test-pool-0"));
        assert_eq!(blocking::pool().name(), "test-pool");
    });
    assert_eq!(runtime.handle().blocking_pool().submit(|| 5).wait().unwrap(), 5);
    // It outlives the runtime.
    runtime.shut_down();
    assert_eq!(own.submit(|| 6).wait().unwrap(), 6);
    let runtime = builder(engine).blocking_pool(pool).build().unwrap();
    own.shut_down(LONG).unwrap();
    runtime.block_on(async {
        assert!(blocking::run(|| ()).await.unwrap_err().is_closed());
    });
}

fn a_pool_that_is_shut_down_refuses_and_says_so(engine: Engine) {
    run(engine, async {
        let pool = pool(1, 2);
        let (open, gate) = mpsc::channel::<()>();
        let running = pool.submit(move || gate.recv_timeout(LONG).is_ok());
        let waiting = pool.submit(|| panic!("it must not begin"));
        let in_line = {
            let pool = pool.clone();
            pool.submit(|| ()).detach();
            task::spawn(async move { pool.run(|| ()).await })
        };
        turns(3).await;
        pool.close();
        assert!(waiting.await.unwrap_err().is_closed());
        assert!(in_line.await.unwrap().unwrap_err().is_closed());
        let refused = pool.submit(|| ());
        assert!(refused.is_finished());
        assert_eq!(refused.await.unwrap_err().to_string(), "the pool has shut down");
        assert!(pool.try_submit(|| ()).unwrap_err().is_closed());
        assert!(pool.run(|| ()).await.unwrap_err().is_closed());
        // What has begun goes on.
        assert_eq!(running.state(), JobState::Running);
        let patient = pool.clone();
        let late = blocking::run(move || patient.shut_down(Duration::from_millis(1))).await;
        assert!(late.unwrap().unwrap_err().is_timed_out());
        open.send(()).unwrap();
        assert!(running.await.unwrap());
        blocking::run(move || pool.shut_down(LONG)).await.unwrap().unwrap();
    });
}

fn a_full_queue_is_an_error_or_a_wait(engine: Engine) {
    run(engine, async {
        let pool = pool(1, 1);
        let (open, gate) = mpsc::channel::<()>();
        let first = pool.submit(move || gate.recv_timeout(LONG).is_ok());
        let second = pool.submit(|| 2);
        let error = pool.submit(|| 3).await.unwrap_err();
        assert!(error.is_limit());
        assert!(error.to_string().starts_with("1 jobs wait for the pool test-pool;"), "{error}");
        let refused = pool.try_submit(|| 4).unwrap_err();
        assert!(refused.is_full());
        assert_eq!(refused.into_job()(), 4);
        let patient = {
            let pool = pool.clone();
            task::spawn(async move { pool.run(|| 5).await })
        };
        turns(3).await;
        assert!(!patient.is_finished());
        open.send(()).unwrap();
        assert!(first.await.unwrap());
        assert_eq!(second.await.unwrap(), 2);
        assert_eq!(patient.await.unwrap().unwrap(), 5);
    });
}

fn a_job_that_waits_is_called_back(engine: Engine) {
    run(engine, async {
        let pool = pool(1, 1);
        let (open, gate) = mpsc::channel::<()>();
        let running = pool.submit(move || gate.recv_timeout(LONG).is_ok());
        let waiting = pool.submit(|| panic!("it must not begin"));
        assert!(!running.abort());
        assert!(waiting.abort());
        assert!(!waiting.abort());
        assert!(waiting.await.unwrap_err().is_cancelled());
        // Its place is free.
        let next = pool.try_submit(|| 7).unwrap();
        open.send(()).unwrap();
        assert_eq!(next.await.unwrap(), 7);
        assert!(running.await.unwrap());
    });
}

fn a_run_that_is_given_up_is_called_back(engine: Engine) {
    run(engine, async {
        let pool = pool(1, 1);
        let (open, gate) = mpsc::channel::<()>();
        let running = pool.submit(move || gate.recv_timeout(LONG).is_ok());
        for _ in 0..3 {
            let given_up = pool.run(|| panic!("it must not begin"));
            assert!(time::timeout(Duration::ZERO, given_up).await.is_err());
            assert_eq!(pool.pending(), 0);
        }
        open.send(()).unwrap();
        assert!(running.await.unwrap());
    });
}

fn a_panic_reaches_whoever_waits(engine: Engine) {
    run(engine, async {
        let pool = pool(1, 8);
        let error = blocking::run(|| panic!("on {}", "purpose")).await.unwrap_err();
        assert!(error.is_panicked());
        assert_eq!(error.to_string(), "panicked: on purpose");
        let error = cpu::run(|| panic!("on the cpu pool")).await.unwrap_err();
        assert_eq!(error.to_string(), "panicked: on the cpu pool");
        let error = pool.submit(|| std::panic::panic_any(5_u8)).await.unwrap_err();
        assert!(error.is_panicked());
        assert_eq!(error.into_panic().unwrap().downcast_ref(), Some(&5_u8));
        pool.submit(|| panic!("unseen")).detach();
        assert_eq!(pool.run(|| 5).await.unwrap(), 5);
    });
}

fn idle_threads_end_and_new_ones_start(engine: Engine) {
    run(engine, async {
        let idle = Duration::from_millis(5);
        let pool = Pool::builder().threads(4).idle(idle).build().unwrap();
        assert_eq!(pool.threads(), 0);
        for _ in 0..3 {
            pool.run(|| ()).await.unwrap();
            eventually_here("the thread ends", || pool.threads() == 0).await;
        }
    });
}

fn the_last_holder_closes_the_pool(engine: Engine) {
    let pool = pool(1, 4);
    let holder = pool.clone();
    let (open, gate) = mpsc::channel::<()>();
    let (begun, begin) = mpsc::channel::<()>();
    let running = pool.submit(move || {
        begun.send(()).unwrap();
        gate.recv_timeout(LONG).is_ok()
    });
    begin.recv_timeout(LONG).unwrap();
    drop(pool);
    let waiting = holder.submit(|| panic!("it must not begin"));
    drop(holder);
    run(engine, async move {
        assert!(waiting.await.unwrap_err().is_closed());
        open.send(()).unwrap();
        assert!(running.await.unwrap());
    });
}

fn settings_that_make_no_sense_are_refused(_: Engine) {
    let refusal = |builder: blocking::Builder| {
        let error = builder.build().unwrap_err();
        assert!(error.is_config());
        error.to_string()
    };
    assert_eq!(refusal(Pool::builder().threads(0)), "a pool of 0 threads: use 1 to 4096");
    assert_eq!(refusal(Pool::builder().threads(5000)), "a pool of 5000 threads: use 1 to 4096");
    let queue = refusal(Pool::builder().queue(usize::MAX));
    assert!(queue.ends_with("jobs: use at most 1048576"), "{queue}");
    assert_eq!(
        refusal(Pool::builder().name("zero\0")),
        "a pool's name with a zero byte: leave it out"
    );
}

fn jobs_of_the_cpu_pool_have_handles_too(engine: Engine) {
    run(engine, async {
        let (open, gate) = mpsc::channel::<()>();
        let running = cpu::pool().submit(move || gate.recv_timeout(LONG).is_ok());
        let waiting = cpu::pool().submit(|| 5);
        assert_eq!((running.state(), waiting.state()), (JobState::Running, JobState::Pending));
        assert_eq!(cpu::queued(), 1);
        open.send(()).unwrap();
        assert!(running.await.unwrap());
        assert_eq!(waiting.await.unwrap(), 5);
    });
}

fn many_jobs_of_many_submitters_are_each_done_once(engine: Engine) {
    const EACH: usize = 2000;
    let pool = pool(3, 4);
    let count = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let (pool, count) = (pool.clone(), Arc::clone(&count));
            thread::spawn(move || {
                for number in 0..EACH {
                    let count = Arc::clone(&count);
                    let job = move || {
                        count.fetch_add(1, Ordering::Relaxed);
                        number
                    };
                    assert_eq!(wait_for(pool.run(job)).unwrap(), number);
                }
            })
        })
        .collect();
    run(engine, async {
        let tasks: Vec<_> = (0..EACH)
            .map(|number| {
                let (pool, count) = (pool.clone(), Arc::clone(&count));
                task::spawn(async move {
                    let job = move || count.fetch_add(1, Ordering::Relaxed);
                    pool.run(job).await.map(|_| number)
                })
            })
            .collect();
        for (number, task) in tasks.into_iter().enumerate() {
            assert_eq!(task.await.unwrap().unwrap(), number);
        }
    });
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(count.load(Ordering::Relaxed), 4 * EACH);
    eventually("nothing is left", || pool.running() == 0 && pool.pending() == 0);
}
