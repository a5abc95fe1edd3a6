//! Wakes from other threads: none is lost, whatever the shard's thread is doing or blocked in.

use std::future::poll_fn;
use std::io::Write;
use std::net::TcpListener as StdListener;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

use annulus::net::TcpListener;
use annulus::shard::{ShardId, shard};
use annulus::{Engine, task, time};

use crate::harness::{builder, pair, run, run_with};

on_every_engine!(
    no_wake_is_lost_while_nothing_else_is_waited_for,
    no_wake_is_lost_while_a_receive_waits,
    no_wake_is_lost_while_several_receives_wait,
    no_wake_is_lost_while_an_accept_waits,
    no_wake_is_lost_while_a_send_waits,
    no_wake_is_lost_while_a_timer_is_set,
    no_wake_is_lost_between_bytes,
    no_hop_is_lost_between_two_shards,
    no_wake_of_the_main_future_is_lost,
    wakes_by_many_threads_all_arrive,
);

/// A number that one side writes and the other awaits.
#[derive(Default)]
struct Board {
    state: Mutex<(u64, Option<Waker>)>,
}

impl Board {
    fn write(&self, value: u64) {
        let mut state = self.state.lock().unwrap();
        state.0 = value;
        let waker = state.1.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    async fn reaches(&self, value: u64) {
        poll_fn(|context| {
            let mut state = self.state.lock().unwrap();
            if state.0 >= value {
                return Poll::Ready(());
            }
            state.1 = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// Plays `rounds` between the calling shard and a thread outside. A lost wake would hang it.
async fn ping_pong(rounds: u64) {
    let (ping, pong) = (Arc::new(Board::default()), Arc::new(Board::default()));
    let (their_ping, their_pong) = (Arc::clone(&ping), Arc::clone(&pong));
    let thread = thread::spawn(move || {
        for round in 1..=rounds {
            crate::harness::wait_for(their_ping.reaches(round));
            if round % 64 == 0 {
                // Meets the shard in another phase of falling asleep.
                let pause = clock_spin(round);
                std::hint::black_box(pause);
            }
            their_pong.write(round);
        }
    });
    let playing = task::spawn(async move {
        for round in 1..=rounds {
            ping.write(round);
            pong.reaches(round).await;
        }
    });
    playing.await.unwrap();
    thread.join().unwrap();
}

fn clock_spin(round: u64) -> u64 {
    (0..round % 5000).fold(0, |sum, step| std::hint::black_box(sum ^ step))
}

fn no_wake_is_lost_while_nothing_else_is_waited_for(engine: Engine) {
    run(engine, ping_pong(100_000));
}

fn no_wake_is_lost_while_a_receive_waits(engine: Engine) {
    run(engine, async {
        let (stream, peer) = pair().await;
        let waiting = task::spawn(async move { stream.recv().await.map(|chunk| chunk.is_none()) });
        ping_pong(15_000).await;
        drop(peer);
        assert!(waiting.await.unwrap().unwrap());
    });
}

fn no_wake_is_lost_while_several_receives_wait(engine: Engine) {
    run(engine, async {
        let mut peers = Vec::new();
        for _ in 0..3 {
            let (stream, peer) = pair().await;
            peers.push(peer);
            task::spawn(async move { stream.recv().await.map(drop) }).detach();
        }
        ping_pong(30_000).await;
    });
}

fn no_wake_is_lost_while_an_accept_waits(engine: Engine) {
    run(engine, async {
        let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let waiting = task::spawn(async move { listener.accept().await.map(drop) });
        ping_pong(10_000).await;
        assert!(waiting.abort());
    });
}

fn no_wake_is_lost_while_a_send_waits(engine: Engine) {
    run(engine, async {
        let (stream, _peer) = pair().await;
        let waiting = task::spawn(async move { stream.send(vec![1; 20_000_000]).await.map(drop) });
        ping_pong(10_000).await;
        assert!(waiting.abort());
    });
}

fn no_wake_is_lost_while_a_timer_is_set(engine: Engine) {
    run(engine, async {
        let timer = task::spawn(time::sleep(Duration::from_secs(3600)));
        let (stream, _peer) = pair().await;
        let waiting = task::spawn(async move {
            time::timeout(Duration::from_secs(3600), stream.recv()).await.map(|_| ())
        });
        ping_pong(10_000).await;
        assert!(timer.abort());
        assert!(waiting.abort());
    });
}

fn no_wake_is_lost_between_bytes(engine: Engine) {
    run(engine, async {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stream = annulus::net::TcpStream::connect(address).await.unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        let writer = thread::spawn(move || {
            for number in 0..20_000u32 {
                peer.write_all(&[number as u8]).unwrap();
            }
        });
        let receiving = task::spawn(async move {
            let mut count = 0;
            while let Some(chunk) = stream.recv().await.unwrap() {
                count += chunk.len();
            }
            count
        });
        ping_pong(10_000).await;
        writer.join().unwrap();
        assert_eq!(receiving.await.unwrap(), 20_000);
    });
}

fn no_hop_is_lost_between_two_shards(engine: Engine) {
    run_with(builder(engine).shards(2), async {
        for number in 0..100_000u32 {
            assert_eq!(shard(ShardId(1)).call(move || number).await.unwrap(), number);
        }
    });
}

fn no_wake_of_the_main_future_is_lost(engine: Engine) {
    let (ping, pong) = (Arc::new(Board::default()), Arc::new(Board::default()));
    let (their_ping, their_pong) = (Arc::clone(&ping), Arc::clone(&pong));
    let thread = thread::spawn(move || {
        for round in 1..=50_000 {
            crate::harness::wait_for(their_ping.reaches(round));
            their_pong.write(round);
        }
    });
    run(engine, async {
        for round in 1..=50_000 {
            ping.write(round);
            pong.reaches(round).await;
        }
    });
    thread.join().unwrap();
}

fn wakes_by_many_threads_all_arrive(engine: Engine) {
    run(engine, async {
        let (stream, _peer) = pair().await;
        let idle = task::spawn(async move { stream.recv().await.map(drop) });
        let boards: Vec<_> = (0..8).map(|_| Arc::new(Board::default())).collect();
        let threads: Vec<_> = boards
            .iter()
            .map(|board| {
                let board = Arc::clone(board);
                thread::spawn(move || (1..=2000).for_each(|round| board.write(round)))
            })
            .collect();
        let tasks: Vec<_> = boards
            .into_iter()
            .map(|board| {
                task::spawn(async move {
                    for round in 1..=2000 {
                        board.reaches(round).await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        for thread in threads {
            thread.join().unwrap();
        }
        assert!(idle.abort());
    });
}
