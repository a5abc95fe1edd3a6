//! An end in order: what is open is drained and closed before the rings are torn down.
//!
//! - F5 → all of this file; `a_drained_end_leaves_nothing_behind` counts descriptors

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::io::{Read, Write};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use annulus::net::{TcpListener, TcpStream, serve_connection};
use annulus::shard::{ShardId, is_draining, shard};
use annulus::{Engine, Runtime, task, time};

use crate::harness::{builder, connect, descriptors, pair, turns};

on_every_engine!(
    an_end_waits_for_tasks,
    an_end_waits_for_tasks_of_other_shards,
    an_end_waits_for_connections_that_say_goodbye,
    an_end_stops_waiting_at_its_limit,
    an_end_with_nothing_to_do_does_not_wait,
    an_end_inside_another_runtime_waits_for_nothing,
    an_end_on_a_paused_clock_takes_no_time,
    a_task_hears_that_the_runtime_drains,
    an_open_resource_is_closed_before_the_end,
);

/// Counts descriptors.
mod alone {
    use super::a_drained_end_leaves_nothing_behind;
    on_every_engine!(alone: a_drained_end_leaves_nothing_behind);
}

/// Longer than the guard against hangs: an end that waits for it is seen.
const LONG: Duration = Duration::from_secs(3600);

fn an_end_waits_for_tasks(engine: Engine) {
    let runtime = builder(engine).build().unwrap();
    let ended = Rc::new(Cell::new(0));
    runtime.block_on(async {
        for millis in [1, 5, 10] {
            let ended = Rc::clone(&ended);
            drop(task::spawn(async move {
                time::sleep(Duration::from_millis(millis)).await;
                // One that begins meanwhile is waited for too.
                task::spawn(async move { ended.set(ended.get() + 1) }).detach();
            }));
        }
    });
    let report = runtime.shut_down_within(LONG);
    assert_eq!(ended.get(), 3);
    assert_eq!(report.cancelled, 0);
    assert!(report.leaked.is_empty());
}

fn an_end_waits_for_tasks_of_other_shards(engine: Engine) {
    let runtime = builder(engine).shards(3).build().unwrap();
    let ended = Arc::new(AtomicUsize::new(0));
    for id in [1, 2].map(ShardId) {
        let ended = Arc::clone(&ended);
        let there = runtime.handle().shard(id);
        there
            .spawn(move || async move {
                time::sleep(Duration::from_millis(10)).await;
                let home = shard(ShardId(0)).submit(|| async { 5 });
                assert_eq!(home.await.unwrap(), 5);
                ended.fetch_add(1, Ordering::SeqCst);
            })
            .detach();
    }
    assert_eq!(runtime.shut_down_within(LONG).cancelled, 0);
    assert_eq!(ended.load(Ordering::SeqCst), 2);
}

/// Accepts until it drains, and says goodbye to each peer.
async fn serve(listener: TcpListener, goodbyes: Arc<AtomicUsize>) {
    while let Ok(stream) = listener.accept().await {
        let goodbyes = Arc::clone(&goodbyes);
        let polite = |stream: TcpStream| async move {
            while let Some(chunk) = stream.recv().await.unwrap() {
                stream.send(chunk).await.unwrap();
            }
            stream.send(b"goodbye").await.unwrap();
            goodbyes.fetch_add(1, Ordering::SeqCst);
        };
        serve_connection("polite", stream, polite).unwrap();
    }
}

/// A runtime that serves `count` peers, each of which has been answered once.
fn serving(runtime: &Runtime, count: usize) -> (Vec<std::net::TcpStream>, Arc<AtomicUsize>) {
    let goodbyes = Arc::new(AtomicUsize::new(0));
    let (told, tell) = mpsc::channel();
    let peers = thread::spawn(move || {
        let address = tell.recv().unwrap();
        let mut peers: Vec<_> = (0..count).map(|_| connect(address)).collect();
        for peer in &mut peers {
            peer.write_all(b"hello").unwrap();
            peer.read_exact(&mut [0; 5]).unwrap();
        }
        peers
    });
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        told.send(listener.local_addr().unwrap()).unwrap();
        task::spawn(serve(listener, Arc::clone(&goodbyes))).detach();
        while !peers.is_finished() {
            time::sleep(Duration::from_millis(1)).await;
        }
    });
    (peers.join().unwrap(), goodbyes)
}

fn an_end_waits_for_connections_that_say_goodbye(engine: Engine) {
    let runtime = builder(engine).shards(2).build().unwrap();
    let (peers, goodbyes) = serving(&runtime, 10);
    let report = runtime.shut_down_within(LONG);
    assert_eq!((report.cancelled, report.leaked.len()), (0, 0));
    assert_eq!(goodbyes.load(Ordering::SeqCst), 10);
    for mut peer in peers {
        let mut rest = Vec::new();
        peer.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"goodbye");
    }
}

fn an_end_stops_waiting_at_its_limit(engine: Engine) {
    let runtime = builder(engine).shards(2).build().unwrap();
    let guard = Arc::new(());
    let (here, there) = (Arc::clone(&guard), Arc::clone(&guard));
    runtime.block_on(async {
        drop(task::spawn(async move {
            pending::<()>().await;
            drop(here);
        }));
        let start = shard(ShardId(1)).submit(|| async move {
            drop(task::spawn(async move {
                let (stream, _peer) = pair().await;
                // A drain ends receives, and this is none.
                drop(stream.send(vec![0; 20_000_000]).await);
                drop(there);
            }));
        });
        start.await.unwrap();
    });
    let report = runtime.shut_down_within(Duration::from_millis(5));
    assert_eq!((report.cancelled, report.leaked.len()), (2, 0));
    assert_eq!(Arc::strong_count(&guard), 1, "both guards have run");
}

fn an_end_with_nothing_to_do_does_not_wait(engine: Engine) {
    let runtime = builder(engine).shards(2).build().unwrap();
    assert_eq!(runtime.close_within(LONG).unwrap().cancelled, 0);
    assert!(runtime.is_closed());
    assert_eq!(builder(engine).build().unwrap().shut_down_within(LONG).cancelled, 0);
}

fn an_end_inside_another_runtime_waits_for_nothing(engine: Engine) {
    let (inner, outer) = (builder(engine).build().unwrap(), builder(engine).build().unwrap());
    inner.block_on(async { drop(task::spawn(pending::<()>())) });
    outer.block_on(async move {
        assert_eq!(inner.shut_down_within(LONG).cancelled, 1);
        assert_eq!(task::spawn(async { 5 }).await.unwrap(), 5);
    });
}

fn an_end_on_a_paused_clock_takes_no_time(engine: Engine) {
    let runtime = builder(engine).paused_clock(true).build().unwrap();
    let ended = Rc::new(Cell::new(false));
    let end = Rc::clone(&ended);
    runtime.block_on(async {
        drop(task::spawn(async move {
            time::sleep(LONG).await;
            end.set(true);
        }));
        drop(task::spawn(pending::<()>()));
    });
    assert_eq!(runtime.shut_down_within(LONG * 2).cancelled, 1);
    assert!(ended.get());
}

fn a_task_hears_that_the_runtime_drains(engine: Engine) {
    let runtime = builder(engine).build().unwrap();
    let ticks = Rc::new(Cell::new(0));
    let count = Rc::clone(&ticks);
    runtime.block_on(async {
        drop(task::spawn(async move {
            let mut interval = time::interval(Duration::from_millis(1));
            while !is_draining() {
                interval.tick().await;
                count.set(count.get() + 1);
            }
        }));
        time::sleep(Duration::from_millis(3)).await;
    });
    assert_eq!(runtime.shut_down_within(LONG).cancelled, 0);
    assert!(ticks.get() > 0);
}

fn a_drained_end_leaves_nothing_behind(engine: Engine) {
    let before = descriptors();
    for _ in 0..3 {
        let runtime = builder(engine).shards(2).build().unwrap();
        let (peers, goodbyes) = serving(&runtime, 5);
        let report = runtime.shut_down_within(LONG);
        assert_eq!((report.cancelled, report.leaked.len()), (0, 0));
        assert_eq!(goodbyes.load(Ordering::SeqCst), 5);
        drop(peers);
    }
    assert_eq!(descriptors(), before);
}

fn an_open_resource_is_closed_before_the_end(engine: Engine) {
    let runtime = builder(engine).build().unwrap();
    let trace: Rc<RefCell<Vec<&str>>> = Rc::default();
    let (stream, mut peer) = runtime.block_on(pair());
    peer.write_all(b"half of it is read").unwrap();
    let seen = Rc::clone(&trace);
    runtime.block_on(async move {
        let body = Rc::clone(&seen);
        let open = task::bracket(
            stream,
            async move |stream| {
                let chunk = stream.recv().await.unwrap().unwrap();
                assert_eq!(&chunk[..4], b"half");
                body.borrow_mut().push("half read");
                // Until the drain.
                assert!(stream.recv().await.unwrap().is_none());
            },
            async move |stream| {
                stream.send(&b"goodbye"[..]).await.unwrap();
                time::sleep(Duration::from_millis(2)).await;
                seen.borrow_mut().push("closed");
            },
        );
        task::spawn(open).detach();
        turns(3).await;
    });
    let report = runtime.shut_down_within(LONG);
    assert_eq!((report.cancelled, report.leaked.len()), (0, 0));
    assert_eq!(*trace.borrow(), ["half read", "closed"]);
    let mut heard = Vec::new();
    peer.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, b"goodbye");
}
