//! Work sent to other shards: it runs there, its value comes back here, and a full lane waits.
//!
//! K3 → the_kernel_spreads_connections_over_the_listeners_of_all_shards

use std::cell::Cell;
use std::io::{Read, Write};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use annulus::net::TcpListener;
use annulus::shard::{self, ShardId, shard};
use annulus::{Engine, task, time};

use crate::harness::{Server, builder, connect, eventually, eventually_here, run_with, wait_for};

on_every_engine!(
    submitted_work_runs_on_its_shard_and_its_value_comes_back,
    a_call_runs_between_the_tasks_of_its_shard,
    futures_of_another_shard_need_not_be_send,
    work_may_be_handed_on_and_back,
    a_full_lane_makes_its_sender_wait_and_loses_nothing,
    a_panic_on_another_shard_comes_back_as_an_error,
    work_spawned_from_a_thread_outside_runs,
    a_thread_outside_may_submit_and_wait,
    connections_submit_to_every_shard,
    run_on_all_gives_the_values_by_shard,
    a_panic_in_run_on_all_is_an_error,
    a_busy_shard_answers_too,
    the_kernel_spreads_connections_over_the_listeners_of_all_shards,
);

fn submitted_work_runs_on_its_shard_and_its_value_comes_back(engine: Engine) {
    run_with(builder(engine).shards(3), async {
        assert_eq!((shard::current(), shard::count()), (ShardId(0), 3));
        for id in [1, 2, 0, 2, 1].map(ShardId) {
            let target = shard(id);
            let there = target.submit(|| async {
                time::sleep(Duration::from_micros(100)).await;
                (shard::current(), thread::current().id())
            });
            let (there, thread) = there.await.unwrap();
            assert_eq!(there, id);
            assert_eq!(thread == thread::current().id(), id == ShardId(0));
        }
    });
}

fn a_call_runs_between_the_tasks_of_its_shard(engine: Engine) {
    run_with(builder(engine).shards(2), async {
        for number in 0..500 {
            assert_eq!(shard(ShardId(number % 2)).call(move || number).await.unwrap(), number);
        }
    });
}

fn futures_of_another_shard_need_not_be_send(engine: Engine) {
    run_with(builder(engine).shards(2), async {
        let there = shard(ShardId(1));
        let value = there.submit(|| async {
            let local = Rc::new(Cell::new(1));
            let inner = Rc::clone(&local);
            task::spawn(async move { inner.set(inner.get() + 1) }).await.unwrap();
            local.get()
        });
        assert_eq!(value.await.unwrap(), 2);
    });
}

fn work_may_be_handed_on_and_back(engine: Engine) {
    run_with(builder(engine).shards(2), async {
        let there = shard(ShardId(1));
        let path = there.submit(|| async {
            let origin = shard(ShardId(0));
            let back = origin.submit(|| async {
                let there = shard(ShardId(1)).call(shard::current).await.unwrap();
                vec![there, shard::current()]
            });
            let mut path = back.await.unwrap();
            path.push(shard::current());
            path
        });
        assert_eq!(path.await.unwrap(), [1, 0, 1].map(ShardId));
    });
}

fn a_full_lane_makes_its_sender_wait_and_loses_nothing(engine: Engine) {
    run_with(builder(engine).shards(2), async {
        let done = Arc::new(AtomicUsize::new(0));
        // The shard looks at nothing for a while, and the lane holds 1024.
        let busy = task::spawn(async {
            shard(ShardId(1)).call(|| thread::sleep(Duration::from_millis(20))).await
        });
        let tasks: Vec<_> = (0..5000)
            .map(|number| {
                let done = Arc::clone(&done);
                task::spawn(async move {
                    let job = move || {
                        done.fetch_add(1, Ordering::Relaxed);
                        number
                    };
                    shard(ShardId(1)).call(job).await.unwrap()
                })
            })
            .collect();
        for (number, task) in tasks.into_iter().enumerate() {
            assert_eq!(task.await.unwrap(), number);
        }
        busy.await.unwrap().unwrap();
        assert_eq!(done.load(Ordering::Relaxed), 5000);
    });
}

fn a_panic_on_another_shard_comes_back_as_an_error(engine: Engine) {
    run_with(builder(engine).shards(2), async {
        let there = shard(ShardId(1));
        for _ in 0..3 {
            let error = there.call(|| panic!("in a call")).await.unwrap_err();
            assert!(error.is_panicked(), "{error}");
            let error = there.submit(|| async { panic!("in a future") }).await;
            assert!(error.unwrap_err().is_panicked());
            let closure = || -> std::future::Ready<()> { panic!("in a closure") };
            assert!(there.submit(closure).await.unwrap_err().is_panicked());
            assert_eq!(there.call(|| 5).await.unwrap(), 5);
        }
    });
}

fn work_spawned_from_a_thread_outside_runs(engine: Engine) {
    let runtime = builder(engine).shards(2).build().unwrap();
    let handle = runtime.handle();
    let count = Arc::new(AtomicUsize::new(0));
    for id in [0, 1].map(ShardId) {
        for _ in 0..100 {
            let count = Arc::clone(&count);
            let work = move || async move {
                task::yield_now().await;
                count.fetch_add(1, Ordering::Relaxed);
            };
            handle.shard(id).spawn(work).detach();
        }
    }
    // Shard 0 makes progress only inside `block_on`, shard 1 by itself.
    eventually("shard 1 has done its part", || count.load(Ordering::Relaxed) >= 100);
    runtime.block_on(async {
        while count.load(Ordering::Relaxed) < 200 {
            time::sleep(Duration::from_millis(1)).await;
        }
    });
}

fn a_thread_outside_may_submit_and_wait(engine: Engine) {
    let runtime = builder(engine).shards(2).build().unwrap();
    let there = runtime.handle().shard(ShardId(1));
    for number in 0..300 {
        assert_eq!(wait_for(there.submit(move || async move { number })).unwrap(), number);
    }
    let error = wait_for(there.call(|| panic!("on purpose"))).unwrap_err();
    assert!(error.is_panicked());
}

fn connections_submit_to_every_shard(engine: Engine) {
    let server = Server::start(builder(engine).shards(3), |stream| async move {
        while let Ok(Some(chunk)) = stream.recv().await {
            let id = ShardId(u16::from(chunk[0]));
            let there = shard(id).call(shard::current).await.unwrap();
            stream.send(vec![there.0 as u8]).await.unwrap();
        }
    });
    let mut peers: Vec<_> = (0..10).map(|_| server.connect()).collect();
    for round in 0..30 {
        for (number, peer) in peers.iter_mut().enumerate() {
            peer.write_all(&[((number + round) % 3) as u8]).unwrap();
        }
        for (number, peer) in peers.iter_mut().enumerate() {
            let mut answer = [9];
            peer.read_exact(&mut answer).unwrap();
            assert_eq!(usize::from(answer[0]), (number + round) % 3);
        }
    }
}

fn run_on_all_gives_the_values_by_shard(engine: Engine) {
    let runtime = builder(engine).shards(3).build().unwrap();
    for round in 0..3 {
        let values = runtime.run_on_all(move |id| async move {
            let local = Rc::new(id.0);
            task::yield_now().await;
            (shard::current(), *local + round)
        });
        let expected = [0, 1, 2].map(|id| (ShardId(id), id + round));
        assert_eq!(values.unwrap(), expected);
    }
}

fn a_panic_in_run_on_all_is_an_error(engine: Engine) {
    let runtime = builder(engine).shards(2).build().unwrap();
    let ended = runtime.run_on_all(|id| async move { assert_eq!(id, ShardId(0), "on purpose") });
    assert!(ended.unwrap_err().is_panicked());
    assert_eq!(runtime.run_on_all(|id| async move { id.0 }).unwrap(), [0, 1]);
}

fn a_busy_shard_answers_too(engine: Engine) {
    run_with(builder(engine).shards(2), async {
        let busy = || async {
            task::spawn(async {
                loop {
                    task::yield_now().await;
                }
            })
            .detach();
        };
        shard(ShardId(1)).submit(busy).await.unwrap();
        for number in 0..200 {
            assert_eq!(shard(ShardId(1)).call(move || number).await.unwrap(), number);
        }
    });
}

/// SO_REUSEPORT: by chance, but all on one side of 64 is no chance that matters.
fn the_kernel_spreads_connections_over_the_listeners_of_all_shards(engine: Engine) {
    const CONNECTIONS: usize = 64;
    run_with(builder(engine).shards(2), async {
        let total = Arc::new(AtomicUsize::new(0));
        let accept = |listener: TcpListener, total: Arc<AtomicUsize>| async move {
            let mut own = Vec::new();
            while total.load(Ordering::SeqCst) < CONNECTIONS {
                let accepted = time::timeout(Duration::from_millis(5), listener.accept()).await;
                if let Ok(stream) = accepted {
                    own.push(stream.unwrap());
                    total.fetch_add(1, Ordering::SeqCst);
                }
            }
            own.len()
        };
        let here = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = here.local_addr().unwrap();
        let bound = Arc::new(AtomicBool::new(false));
        let both_bound = Arc::clone(&bound);
        let counted = Arc::clone(&total);
        let there = task::spawn(async move {
            let serve = move || async move {
                let listener = TcpListener::bind(address).unwrap();
                bound.store(true, Ordering::SeqCst);
                accept(listener, counted).await
            };
            shard(ShardId(1)).submit(serve).await.unwrap()
        });
        eventually_here("both listen", || both_bound.load(Ordering::SeqCst)).await;
        let clients: Vec<_> = (0..CONNECTIONS).map(|_| connect(address)).collect();
        let here = accept(here, total).await;
        let there = there.await.unwrap();
        assert_eq!(here + there, CONNECTIONS);
        assert!(here > 0 && there > 0, "{here} here, {there} there");
        drop(clients);
    });
}
