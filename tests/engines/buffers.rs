//! The receive pool: exhausted on purpose, recovered without loss; and no connection takes it all.

use std::cell::{Cell, RefCell};
use std::io::Write;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use annulus::{Engine, Lease, task, time};

use crate::harness::{
    Server, builder, echo, eventually_here, pair, pattern, receive_exactly, run_with,
};

on_every_engine!(
    an_exhausted_pool_loses_nothing_and_recovers,
    one_small_buffer_is_enough_to_go_on,
    chunks_that_nobody_takes_leave_the_pool_to_others,
    a_small_pool_serves_many_connections,
    a_flood_that_nobody_receives_is_bounded_and_complete,
    a_connection_that_holds_its_credit_leaves_buffers_for_others,
    leases_held_in_the_order_of_arrival_stay_as_they_were,
);

fn an_exhausted_pool_loses_nothing_and_recovers(engine: Engine) {
    run_with(builder(engine).buffers(2, 1024), async {
        let hold = Rc::new(Cell::new(true));
        let held = Rc::new(Cell::new(0));
        let mut tasks = Vec::new();
        let mut peers = Vec::new();
        for number in 0..8 {
            let (stream, mut peer) = pair().await;
            peer.write_all(&pattern(number, 3000)).unwrap();
            peers.push(peer);
            let (hold, held) = (Rc::clone(&hold), Rc::clone(&held));
            tasks.push(task::spawn(async move {
                let mut leases: Vec<Lease> = Vec::new();
                let mut received = Vec::new();
                while received.len() < 3000 {
                    let lease = stream.recv().await.unwrap().unwrap();
                    received.extend_from_slice(&lease);
                    leases.push(lease);
                    held.set(held.get() + 1);
                    while hold.get() {
                        time::sleep(Duration::from_millis(1)).await;
                    }
                    leases.clear();
                }
                assert_eq!(received, pattern(number, 3000));
            }));
        }
        eventually_here("a connection holds a lease", || held.get() > 0).await;
        // All that the two buffers can hold is held now; the others wait.
        time::sleep(Duration::from_millis(20)).await;
        assert!(held.get() < 8, "two buffers cannot serve eight connections at once");
        hold.set(false);
        for task in tasks {
            task.await.unwrap();
        }
    });
}

fn one_small_buffer_is_enough_to_go_on(engine: Engine) {
    run_with(builder(engine).buffers(1, 1024), async {
        let (one, mut one_peer) = pair().await;
        let (other, mut other_peer) = pair().await;
        let other = task::spawn(async move { receive_exactly(&other, 45_000).await });
        for round in 0..50 {
            one_peer.write_all(&pattern(round * 700, 700)).unwrap();
            other_peer.write_all(&pattern(round * 900, 900)).unwrap();
            task::yield_now().await;
        }
        assert_eq!(receive_exactly(&one, 35_000).await, pattern(0, 35_000));
        assert_eq!(other.await.unwrap(), pattern(0, 45_000));
    });
}

fn chunks_that_nobody_takes_leave_the_pool_to_others(engine: Engine) {
    run_with(builder(engine).buffers(1, 1024), async {
        let (one, mut one_peer) = pair().await;
        let (other, mut other_peer) = pair().await;
        for (stream, peer) in [(&one, &mut one_peer), (&other, &mut other_peer)] {
            peer.write_all(b"x").unwrap();
            assert_eq!(receive_exactly(stream, 1).await, b"x");
        }
        for round in 0..20 {
            // What comes first is taken last, and there is one buffer.
            other_peer.write_all(&pattern(round, 1000)).unwrap();
            time::sleep(Duration::from_millis(2)).await;
            one_peer.write_all(&pattern(round, 700)).unwrap();
            assert_eq!(receive_exactly(&one, 700).await, pattern(round, 700));
            assert_eq!(receive_exactly(&other, 1000).await, pattern(round, 1000));
        }
    });
}

fn a_small_pool_serves_many_connections(engine: Engine) {
    use std::io::Read;
    let server = Server::start(builder(engine).buffers(3, 1024), echo);
    let peers = (0..40).map(|number| {
        let mut peer = server.connect();
        thread::spawn(move || {
            for round in 0..10 {
                let question = pattern(number + round, 5000);
                peer.write_all(&question).unwrap();
                let mut answer = vec![0; question.len()];
                peer.read_exact(&mut answer).unwrap();
                assert!(answer == question, "the bytes differ");
            }
        })
    });
    for peer in peers.collect::<Vec<_>>() {
        peer.join().unwrap();
    }
}

fn a_flood_that_nobody_receives_is_bounded_and_complete(engine: Engine) {
    const TOTAL: usize = 64 << 20;
    run_with(builder(engine), async {
        let (stream, mut peer) = pair().await;
        let written = Arc::new(AtomicUsize::new(0));
        let progress = Arc::clone(&written);
        let block = Arc::new(pattern(0, 999_983));
        let source = Arc::clone(&block);
        let writer = thread::spawn(move || {
            let mut left = TOTAL;
            while left > 0 {
                let place = (TOTAL - left) % source.len();
                let step = left.min(source.len() - place).min(10_000);
                peer.write_all(&source[place..place + step]).unwrap();
                left -= step;
                progress.fetch_add(step, Ordering::Relaxed);
            }
        });
        let first = stream.recv().await.unwrap().unwrap();
        let mut at = first.len();
        assert!(first[..] == block[..at]);
        drop(first);
        // The peer goes on until every queue between the two is full.
        let mut before = usize::MAX;
        while std::mem::replace(&mut before, written.load(Ordering::Relaxed)) != before {
            time::sleep(Duration::from_millis(100)).await;
        }
        assert!(before < TOTAL, "somebody keeps {before} bytes that nobody has received");
        while at < TOTAL {
            let chunk = stream.recv().await.unwrap().expect("the peer has more");
            let mut rest = &chunk[..];
            while !rest.is_empty() {
                let place = at % block.len();
                let step = rest.len().min(block.len() - place);
                assert!(rest[..step] == block[place..place + step], "the bytes differ at {at}");
                rest = &rest[step..];
                at += step;
            }
        }
        assert_eq!(at, TOTAL);
        assert!(stream.recv().await.unwrap().is_none());
        writer.join().unwrap();
    });
}

fn a_connection_that_holds_its_credit_leaves_buffers_for_others(engine: Engine) {
    run_with(builder(engine).buffers(64, 64 * 1024), async {
        let (greedy, mut flood) = pair().await;
        let flooding = thread::spawn(move || {
            // Ends with an error when the other end is dropped.
            let bytes = vec![1; 50_000];
            while flood.write_all(&bytes).is_ok() {}
        });
        let hoard: Rc<RefCell<Vec<Lease>>> = Rc::default();
        let leases = Rc::clone(&hoard);
        let hoarding = task::spawn(async move {
            while let Ok(Some(lease)) = greedy.recv().await {
                leases.borrow_mut().push(lease);
            }
        });
        let bytes = || hoard.borrow().iter().map(|lease| lease.len()).sum::<usize>();
        eventually_here("the hoard is as large as it gets", || bytes() >= 256 * 1024).await;
        let (modest, mut peer) = pair().await;
        for round in 0..20 {
            peer.write_all(&pattern(round, 2000)).unwrap();
            assert_eq!(receive_exactly(&modest, 2000).await, pattern(round, 2000));
        }
        // A kernel before 6.17 may go on for 32 receives before the ring looks at the credit.
        assert!(
            bytes() <= 512 * 1024 || engine == Engine::Uring && !bounds_receives(),
            "{} bytes are too much for one",
            bytes()
        );
        assert!(hoarding.abort());
        assert!(hoarding.await.unwrap_err().is_cancelled());
        hoard.borrow_mut().clear();
        eventually_here("the flood ends", || flooding.is_finished()).await;
        flooding.join().unwrap();
    });
}

/// Whether this kernel lets a multishot receive end by itself (Linux 6.17).
fn bounds_receives() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(17))
}

fn leases_held_in_the_order_of_arrival_stay_as_they_were(engine: Engine) {
    run_with(builder(engine).buffers(4, 4096), async {
        let (stream, mut peer) = pair().await;
        let mut held: Vec<(usize, Lease)> = Vec::new();
        let mut at = 0;
        for round in 0..200 {
            peer.write_all(&pattern(round * 100, 100)).unwrap();
            let end = (round + 1) * 100;
            while at < end {
                let lease = stream.recv().await.unwrap().unwrap();
                let start = at;
                at += lease.len();
                held.push((start, lease));
            }
            // Not in the order in which they came.
            while held.len() > 8 {
                held.swap_remove(round % held.len());
            }
            for (start, lease) in &held {
                assert_eq!(lease[..], pattern(*start, lease.len()));
            }
        }
    });
}
