//! How a runtime begins, is used again, drains and ends.

use std::io::{Read, Write};
use std::net::TcpStream as StdStream;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use annulus::net::{TcpListener, TcpStream, serve_connection};
use annulus::shard::placement::Placement;
use annulus::shard::topology::CpuSet;
use annulus::shard::{ShardId, is_draining};
use annulus::{Engine, Runtime, task, time};

use crate::harness::{
    Server, builder, connect, echo, eventually, in_flight, pair, pattern, wait_for,
};

on_every_engine!(
    block_on_may_be_called_again_and_tasks_go_on,
    a_runtime_inside_a_runtime_is_refused,
    a_panic_in_block_on_leaves_the_runtime_in_order,
    zero_shards_are_refused,
    a_cpu_that_does_not_exist_is_refused,
    settings_that_make_no_sense_are_refused,
    work_for_a_shard_that_is_gone_is_refused,
    a_drain_ends_listeners_and_receives_and_lets_answers_out,
    a_drain_lets_what_has_arrived_be_consumed,
    a_shutdown_with_connections_open_ends_them,
    a_shutdown_ends_connections_that_wait_for_something_else,
    a_shutdown_drops_tasks_and_what_they_hold,
    a_runtime_may_be_dropped_while_another_runs,
    in_flight_lists_what_waits,
);

fn block_on_may_be_called_again_and_tasks_go_on(engine: Engine) {
    let runtime = builder(engine).build().unwrap();
    let (task, stream, mut peer) = runtime.block_on(async {
        let (stream, peer) = pair().await;
        let task = task::spawn(async {
            time::sleep(Duration::from_millis(2)).await;
            5
        });
        (task, stream, peer)
    });
    peer.write_all(b"between").unwrap();
    assert_eq!(runtime.block_on(task).unwrap(), 5);
    let chunk = runtime.block_on(stream.recv()).unwrap().unwrap();
    assert_eq!(&chunk[..], b"between");
    // A lease outlives its runtime.
    runtime.block_on(async { drop(stream) });
    drop(runtime);
    assert_eq!(&chunk[..], b"between");
}

fn a_runtime_inside_a_runtime_is_refused(engine: Engine) {
    let runtime = builder(engine).build().unwrap();
    let error = runtime.block_on(async move { builder(engine).build().map(drop).unwrap_err() });
    assert!(error.is_already_running());
    assert!(error.to_string().contains("a runtime already runs on this thread"));
    let nested = std::panic::AssertUnwindSafe(|| {
        runtime.block_on(async { runtime.block_on(async {}) });
    });
    assert!(std::panic::catch_unwind(nested).is_err());
    assert_eq!(runtime.block_on(async { 5 }), 5, "it is of use after that");
}

fn a_panic_in_block_on_leaves_the_runtime_in_order(engine: Engine) {
    let runtime = builder(engine).build().unwrap();
    for _ in 0..3 {
        let panicking = std::panic::AssertUnwindSafe(|| {
            runtime.block_on(async {
                let (stream, _peer) = pair().await;
                let _ = time::timeout(Duration::from_millis(1), stream.recv()).await;
                panic!("on purpose");
            })
        });
        assert!(std::panic::catch_unwind(panicking).is_err());
        runtime.block_on(async {
            let (stream, mut peer) = pair().await;
            peer.write_all(b"x").unwrap();
            assert_eq!(&stream.recv().await.unwrap().unwrap()[..], b"x");
        });
    }
    assert!(runtime.shut_down().leaked.is_empty());
}

fn refusal(builder: annulus::Builder) -> String {
    let error = builder.build().map(drop).unwrap_err();
    assert!(error.is_config(), "{error}");
    error.to_string()
}

fn zero_shards_are_refused(engine: Engine) {
    let text = refusal(Runtime::builder().engine(engine).shards(0));
    assert!(text.contains("shard"), "{text}");
}

fn a_cpu_that_does_not_exist_is_refused(engine: Engine) {
    let cpus: CpuSet = [4093].into_iter().collect();
    let text = refusal(Runtime::builder().engine(engine).placement(Placement::Cpus(cpus)));
    assert!(text.contains("4093"), "{text}");
}

fn settings_that_make_no_sense_are_refused(engine: Engine) {
    let builder = || builder(engine);
    assert_eq!(refusal(builder().buffers(0, 4096)), "0 buffers: use a number from 1 to 32768");
    let text = refusal(builder().buffers(8, 10));
    assert_eq!(text, "a buffer of 10 bytes: use 1024 to 16777216");
    assert_eq!(refusal(builder().cpu_queue(0)), "a cpu queue of 0 jobs: use at least 1");
    assert_eq!(refusal(builder().ring_entries(0)), "0 ring entries: use 1 to 32768");
    refusal(builder().shards(100_000));
}

fn work_for_a_shard_that_is_gone_is_refused(engine: Engine) {
    let runtime = builder(engine).shards(2).build().unwrap();
    let handle = runtime.handle();
    runtime.block_on(async {});
    drop(runtime);
    for id in [0, 1].map(ShardId) {
        let error = handle.shard(id).spawn(|| async {}).wait().unwrap_err();
        assert!(error.is_closed());
        assert_eq!(error.to_string(), "the shard has shut down");
        assert!(wait_for(handle.shard(id).call(|| ())).unwrap_err().is_closed());
        assert!(wait_for(handle.shard(id).submit(|| async {})).unwrap_err().is_closed());
    }
    assert!(wait_for(handle.in_flight()).unwrap_err().is_closed());
    assert_eq!(handle.connections(), 0);
}

fn a_drain_ends_listeners_and_receives_and_lets_answers_out(engine: Engine) {
    let drained = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&drained);
    let server = Server::start(builder(engine).shards(2), move |stream| {
        let count = Arc::clone(&count);
        async move {
            while let Some(chunk) = stream.recv().await.unwrap() {
                stream.send(chunk).await.unwrap();
            }
            assert!(is_draining());
            stream.send(b"goodbye").await.unwrap();
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    let mut peers: Vec<_> = (0..10).map(|_| server.connect()).collect();
    for peer in &mut peers {
        peer.write_all(b"hello").unwrap();
        peer.read_exact(&mut [0; 5]).unwrap();
    }
    let address = server.address;
    drop(server);
    assert_eq!(drained.load(Ordering::Relaxed), 10);
    for peer in &mut peers {
        let mut rest = Vec::new();
        peer.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"goodbye");
    }
    assert!(StdStream::connect(address).is_err(), "nobody listens any more");
}

fn a_drain_lets_what_has_arrived_be_consumed(engine: Engine) {
    let (begin, gate) = mpsc::channel::<()>();
    let gate = Arc::new(std::sync::Mutex::new(gate));
    let total = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&total);
    let server = Server::start(builder(engine), move |stream| {
        let (gate, count) = (Arc::clone(&gate), Arc::clone(&count));
        async move {
            let first = stream.recv().await.unwrap().unwrap();
            count.fetch_add(first.len(), Ordering::Relaxed);
            while gate.lock().unwrap().try_recv().is_err() {
                time::sleep(Duration::from_millis(1)).await;
            }
            while let Some(chunk) = stream.recv().await.unwrap() {
                count.fetch_add(chunk.len(), Ordering::Relaxed);
            }
        }
    });
    let mut peer = server.connect();
    peer.write_all(b"x").unwrap();
    eventually("the first byte is there", || total.load(Ordering::Relaxed) == 1);
    peer.write_all(&pattern(0, 100_000)).unwrap();
    thread::sleep(Duration::from_millis(20));
    server.handle.drain();
    begin.send(()).unwrap();
    drop(server);
    assert_eq!(total.load(Ordering::Relaxed), 100_001);
}

fn a_shutdown_with_connections_open_ends_them(engine: Engine) {
    let (address_out, address_in) = mpsc::channel();
    let (stop, stopped) = mpsc::channel::<()>();
    let serving = thread::spawn(move || {
        let runtime = builder(engine).shards(2).build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
            address_out.send(listener.local_addr().unwrap()).unwrap();
            let accepting = task::spawn(async move {
                loop {
                    let stream = listener.accept().await.unwrap();
                    serve_connection("echo", stream, echo).unwrap();
                }
            });
            while stopped.try_recv().is_err() {
                time::sleep(Duration::from_millis(1)).await;
            }
            assert!(!accepting.is_finished());
        });
        runtime.shut_down()
    });
    let address = address_in.recv().unwrap();
    let mut peers: Vec<_> = (0..20).map(|_| connect(address)).collect();
    for peer in &mut peers {
        peer.write_all(b"x").unwrap();
        peer.read_exact(&mut [0]).unwrap();
    }
    stop.send(()).unwrap();
    assert!(serving.join().unwrap().leaked.is_empty());
    for peer in &mut peers {
        assert!(!matches!(peer.read(&mut [0]), Ok(1..)), "the end or a reset");
    }
}

fn a_shutdown_ends_connections_that_wait_for_something_else(engine: Engine) {
    let dropped = Arc::new(AtomicUsize::new(0));
    struct Held(Arc<AtomicUsize>);
    impl Drop for Held {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    // Longer than the test's own guard: a shutdown that waits for it is seen.
    let builder = builder(engine).teardown(Duration::from_secs(600));
    let runtime = builder.build().unwrap();
    let peers = runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let mut peers = Vec::new();
        for number in 0..6 {
            peers.push(connect(listener.local_addr().unwrap()));
            let stream = listener.accept().await.unwrap();
            let held = Held(Arc::clone(&dropped));
            let serve = move |stream: TcpStream| async move {
                let _held = held;
                match number % 3 {
                    0 => time::sleep(Duration::from_secs(3600)).await,
                    1 => std::future::pending().await,
                    _ => drop(task::spawn(std::future::pending::<()>()).await),
                }
                drop(stream);
            };
            serve_connection("sleeper", stream, serve).unwrap();
        }
        time::sleep(Duration::from_millis(10)).await;
        peers
    });
    assert!(runtime.shut_down().leaked.is_empty());
    assert_eq!(dropped.load(Ordering::Relaxed), 6);
    drop(peers);
}

fn a_shutdown_drops_tasks_and_what_they_hold(engine: Engine) {
    struct Flag(Arc<AtomicBool>);
    impl Drop for Flag {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let runtime = builder(engine).shards(2).build().unwrap();
    let (here, there) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (here_flag, there_flag) = (Flag(Arc::clone(&here)), Flag(Arc::clone(&there)));
    runtime.block_on(async {
        task::spawn(async move {
            let _flag = here_flag;
            let (stream, _peer) = pair().await;
            drop(stream.recv().await);
        })
        .detach();
        let there = annulus::shard::shard(ShardId(1));
        let submitted = there.submit(|| async {
            task::spawn(async move {
                let _flag = there_flag;
                let (stream, _peer) = pair().await;
                drop(stream.send(vec![0; 20_000_000]).await);
            })
            .detach();
        });
        submitted.await.unwrap();
        time::sleep(Duration::from_millis(5)).await;
    });
    assert!(runtime.shut_down().leaked.is_empty());
    assert!(here.load(Ordering::Relaxed));
    assert!(there.load(Ordering::Relaxed));
}

fn a_runtime_may_be_dropped_while_another_runs(engine: Engine) {
    let inner = builder(engine).build().unwrap();
    let outer = builder(engine).build().unwrap();
    let mut inner_peer = inner.block_on(async {
        let (stream, peer) = pair().await;
        task::spawn(async move {
            let _ = time::timeout(Duration::from_secs(3600), stream.recv()).await;
        })
        .detach();
        time::sleep(Duration::from_millis(1)).await;
        peer
    });
    outer.block_on(async {
        let (stream, mut peer) = pair().await;
        let stream = Rc::new(stream);
        let receiver = Rc::clone(&stream);
        let task = task::spawn(async move { receiver.recv().await.unwrap().map(|c| c.to_vec()) });
        task::yield_now().await;
        drop(inner);
        // What the dropped one cancelled was its own.
        peer.write_all(b"mine").unwrap();
        assert_eq!(task.await.unwrap().unwrap(), b"mine");
    });
    assert_eq!(inner_peer.read(&mut [0]).unwrap_or(0), 0);
}

fn in_flight_lists_what_waits(engine: Engine) {
    let server = Server::start(builder(engine), echo);
    eventually("the accept is listed", || in_flight(&server.handle).contains(&"accept"));
    let mut peer = server.connect();
    peer.write_all(b"x").unwrap();
    peer.read_exact(&mut [0]).unwrap();
    if engine != Engine::Threads {
        // A connection's own thread is not asked.
        eventually("the receive is listed", || in_flight(&server.handle).contains(&"receive"));
    }
}
