//! Every operation, given up at every stage, leaves nothing behind: no slot, no descriptor, no
//! buffer; and what it had not yet done does not happen to others.
//!
//! A stage is a number of polls, and of turns of the shard in between and after, so that the
//! operation is caught before its submission, in the kernel, and with its outcome waiting.

use std::future::{Future, poll_fn};
use std::io::{Read, Write};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use annulus::buffer::AlignedBuffer;
use annulus::fs::{Directory, File, OpenOptions};
use annulus::net::{TcpListener, TcpStream, UnixStream};
use annulus::shard::{ShardId, shard};
use annulus::{Direction, Engine, Payload, cpu, task, time};

use super::{quiet, settled, settled_but_for_leases, small};
use crate::harness::{Scratch, connect, pair, pattern, receive_exactly, run_with, turns};

on_every_engine!(
    alone: a_receive_given_up_at_any_stage_leaves_nothing_and_loses_nothing,
    an_accept_given_up_at_any_stage_leaves_nothing_and_loses_nothing,
    a_listener_dropped_with_connections_in_hand_closes_them,
    a_connect_given_up_at_any_stage_leaves_nothing,
    a_send_given_up_at_any_stage_leaves_nothing,
    a_vectored_send_given_up_at_any_stage_leaves_nothing,
    a_connection_dropped_after_a_cancelled_send_is_closed,
    a_shutdown_given_up_at_any_stage_leaves_nothing,
    file_operations_given_up_at_any_stage_leave_nothing,
    waits_given_up_at_any_stage_leave_nothing,
    a_task_aborted_at_any_await_drops_what_it_holds,
);

/// Polls a future `polls` times with a turn in between each, lets `turns_after` more turns pass,
/// and gives it up. The value, if it came.
async fn give_up<F: Future>(future: F, polls: usize, turns_after: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    for _ in 0..polls {
        let polled = poll_fn(|context| match future.as_mut().poll(context) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending => Poll::Ready(None),
        });
        if let Some(value) = polled.await {
            return Some(value);
        }
        task::yield_now().await;
    }
    if turns_after == 3 {
        // Long enough for the outcome of what ends by itself to wait in its slot.
        time::sleep(Duration::from_millis(2)).await;
    } else {
        turns(turns_after).await;
    }
    None
}

/// Gives up what `make` makes at every stage, and looks at what is held after each.
async fn at_every_stage<F: Future>(what: &str, mut make: impl FnMut() -> F) {
    let before = quiet().await;
    for polls in 0..4 {
        for turns_after in 0..4 {
            drop(give_up(make(), polls, turns_after).await);
            settled(&before, &format!("{what} after {polls} polls and {turns_after} turns")).await;
        }
    }
}

/// The pool has all its buffers: more than it holds passes through a connection.
async fn pool_is_whole() {
    let (stream, mut peer) = pair().await;
    peer.write_all(&pattern(0, 60_000)).unwrap();
    assert!(receive_exactly(&stream, 60_000).await == pattern(0, 60_000), "the bytes differ");
}

fn a_receive_given_up_at_any_stage_leaves_nothing_and_loses_nothing(engine: Engine) {
    run_with(small(engine), async {
        let (stream, mut peer) = pair().await;
        assert!(give_up(stream.recv(), 2, 1).await.is_none());
        let before = quiet().await;
        let mut received = Vec::new();
        let mut sent = 0;
        for polls in 0..4 {
            for turns_after in 0..4 {
                peer.write_all(&pattern(sent, 700)).unwrap();
                sent += 700;
                if let Some(chunk) = give_up(stream.recv(), polls, turns_after).await {
                    received.extend_from_slice(&chunk.unwrap().unwrap());
                }
                settled_but_for_leases(&before, "recv").await;
            }
        }
        received.extend(receive_exactly(&stream, sent - received.len()).await);
        assert_eq!(received, pattern(0, sent));
        let (direct, _peer) = pair().await;
        at_every_stage("recv_into", || direct.recv_into(Vec::with_capacity(1000))).await;
        pool_is_whole().await;
        // With the stream itself, at every stage.
        let before = quiet().await;
        for polls in 0..4 {
            for turns_after in 0..4 {
                let (stream, mut peer) = pair().await;
                peer.write_all(&pattern(0, 3000)).unwrap();
                drop(give_up(stream.recv(), polls, turns_after).await);
                drop((stream, peer));
                settled(&before, "a stream").await;
            }
        }
        pool_is_whole().await;
    });
}

fn an_accept_given_up_at_any_stage_leaves_nothing_and_loses_nothing(engine: Engine) {
    run_with(small(engine), async {
        let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        assert!(give_up(listener.accept(), 2, 1).await.is_none());
        at_every_stage("accept", || listener.accept()).await;
        for polls in 0..4 {
            for turns_after in 0..4 {
                let peer = connect(address);
                let stream = match give_up(listener.accept(), polls, turns_after).await {
                    Some(stream) => stream.unwrap(),
                    None => listener.accept().await.unwrap(),
                };
                assert_eq!(stream.peer_addr().unwrap(), peer.local_addr().unwrap());
            }
        }
    });
}

fn a_listener_dropped_with_connections_in_hand_closes_them(engine: Engine) {
    run_with(small(engine), async {
        let before = quiet().await;
        for turns_after in 0..5 {
            let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let address = listener.local_addr().unwrap();
            assert!(give_up(listener.accept(), 1, 1).await.is_none());
            let mut peers: Vec<_> = (0..5).map(|_| connect(address)).collect();
            turns(turns_after).await;
            drop(listener);
            // The end, or a reset: of a listener that is closed the kernel resets what waits.
            time::sleep(Duration::from_millis(2)).await;
            for peer in &mut peers {
                assert!(!matches!(peer.read(&mut [0; 8]), Ok(1..)));
            }
            drop(peers);
            settled(&before, "a listener").await;
        }
    });
}

fn a_connect_given_up_at_any_stage_leaves_nothing(engine: Engine) {
    run_with(small(engine), async {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        at_every_stage("connect", || TcpStream::connect(address)).await;
        let full =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        full.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
        full.listen(0).unwrap();
        let address = full.local_addr().unwrap().as_socket().unwrap();
        at_every_stage("connect to a full listener", || TcpStream::connect(address)).await;
        at_every_stage("refused connect", || TcpStream::connect(crate::harness::dead_address()))
            .await;
        at_every_stage("unix connect", || UnixStream::connect("/nowhere/at/all")).await;
    });
}

fn a_send_given_up_at_any_stage_leaves_nothing(engine: Engine) {
    run_with(small(engine), async {
        // Nobody reads, so that it does not end by itself.
        let (stream, _peer) = pair().await;
        at_every_stage("send", || stream.send(vec![7; 8_000_000])).await;
        let (stream, mut peer) = pair().await;
        at_every_stage("short send", || stream.send(vec![7; 10])).await;
        // A lease goes back to its pool.
        peer.write_all(&[1; 1000]).unwrap();
        let chunk = stream.recv().await.unwrap().unwrap();
        assert!(give_up(stream.send(chunk), 0, 1).await.is_none());
        pool_is_whole().await;
    });
}

fn a_vectored_send_given_up_at_any_stage_leaves_nothing(engine: Engine) {
    run_with(small(engine), async {
        let (stream, _peer) = pair().await;
        let parts = || -> Vec<Payload> { (0..20).map(|_| vec![7; 400_000].into()).collect() };
        at_every_stage("vectored send", || stream.send_vectored(parts())).await;
    });
}

fn a_connection_dropped_after_a_cancelled_send_is_closed(engine: Engine) {
    run_with(small(engine), async {
        let before = quiet().await;
        for stage in 0..4 {
            let (stream, mut peer) = pair().await;
            assert!(give_up(stream.send(vec![7; 8_000_000]), stage, stage).await.is_none());
            drop(stream);
            turns(3).await;
            // The peer gets what was sent, then the end: nothing goes on sending.
            let reader = std::thread::spawn(move || {
                std::io::copy(&mut peer, &mut std::io::sink()).unwrap_or(0)
            });
            while !reader.is_finished() {
                time::sleep(Duration::from_millis(1)).await;
            }
            assert!(reader.join().unwrap() < 8_000_000);
            settled(&before, "a connection").await;
        }
    });
}

fn a_shutdown_given_up_at_any_stage_leaves_nothing(engine: Engine) {
    run_with(small(engine), async {
        let (stream, _peer) = pair().await;
        at_every_stage("shutdown", || stream.shutdown(Direction::Write)).await;
    });
}

fn file_operations_given_up_at_any_stage_leave_nothing(engine: Engine) {
    let scratch = Scratch::new();
    run_with(small(engine), async {
        let path = scratch.file("data");
        std::fs::write(&path, pattern(0, 1 << 20)).unwrap();
        let directory = Directory::open(&scratch.0).await.unwrap();
        at_every_stage("open", || File::open(&path)).await;
        at_every_stage("open below", || directory.open_file("data")).await;
        at_every_stage("failing open", || File::open("/nowhere/at/all")).await;
        let file = OpenOptions::new().read(true).write(true).open(&path).await.unwrap();
        at_every_stage("read", || file.read_at(Vec::with_capacity(1 << 20), 0)).await;
        at_every_stage("aligned read", || file.read_at(AlignedBuffer::new(8192, 4096), 0)).await;
        at_every_stage("write", || file.write_at(pattern(0, 1 << 20), 0)).await;
        at_every_stage("sync", || file.sync_all()).await;
        at_every_stage("data sync", || file.sync_data()).await;
        at_every_stage("status", || file.metadata()).await;
        assert_eq!(file.metadata().await.unwrap().len(), 1 << 20);
        // Files dropped with an operation just given up.
        let before = quiet().await;
        for stage in 0..4 {
            let file = File::open(&path).await.unwrap();
            drop(give_up(file.read_at(Vec::with_capacity(100_000), 0), stage, 0).await);
            drop(file);
            settled(&before, "a file").await;
        }
        assert_eq!(std::fs::read(&path).unwrap(), pattern(0, 1 << 20));
    });
}

fn waits_given_up_at_any_stage_leave_nothing(engine: Engine) {
    run_with(small(engine).shards(2).cpu_queue(1), async {
        at_every_stage("sleep", || time::sleep(Duration::from_secs(3600))).await;
        at_every_stage("short sleep", || time::sleep(Duration::from_micros(10))).await;
        let there = shard(ShardId(1));
        at_every_stage("submit", || there.submit(|| async { 5 })).await;
        at_every_stage("call", || there.call(|| 5)).await;
        at_every_stage("cpu", || cpu::run(|| std::thread::sleep(Duration::from_micros(100)))).await;
        let waiting = || async {
            let sleeper = task::spawn(time::sleep(Duration::from_micros(100)));
            time::timeout(Duration::from_secs(3600), sleeper).await.unwrap().unwrap();
        };
        at_every_stage("join", waiting).await;
        assert_eq!(shard(ShardId(1)).submit(|| async { 5 }).await.unwrap(), 5);
        assert_eq!(cpu::run(|| 6).await.unwrap(), 6);
    });
}

fn a_task_aborted_at_any_await_drops_what_it_holds(engine: Engine) {
    let scratch = Scratch::new();
    let path = scratch.file("data");
    std::fs::write(&path, pattern(0, 100_000)).unwrap();
    run_with(small(engine).shards(2), async move {
        let before = quiet().await;
        for stage in 0..40 {
            let path = path.clone();
            let (stream, mut peer) = pair().await;
            peer.write_all(b"go").unwrap();
            let working = task::spawn(async move {
                let start = stream.recv().await.unwrap().unwrap();
                let file = File::open(path).await.unwrap();
                let read = file.read_at(Vec::with_capacity(100_000), 0).await.unwrap();
                let read = cpu::run(move || read.into_vec()).await.unwrap();
                let read = shard(ShardId(1)).submit(move || async move { read }).await.unwrap();
                file.sync_data().await.unwrap();
                stream.send(start).await.unwrap();
                time::sleep(Duration::from_micros(200)).await;
                stream.send(read).await.unwrap();
                stream.send(vec![0; 8_000_000]).await.unwrap();
            });
            turns(stage).await;
            if stage % 4 == 3 {
                time::sleep(Duration::from_micros(stage as u64 * 20)).await;
            }
            working.abort();
            assert!(working.await.unwrap_err().is_cancelled());
            drop(peer);
            settled(&before, &format!("a task after {stage} turns")).await;
        }
        pool_is_whole().await;
    });
}
