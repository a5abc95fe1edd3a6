//! Time: never early, in order, and nothing lost to a time limit.

use std::cell::RefCell;
use std::future::pending;
use std::io::Write;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use annulus::clock;
use annulus::{Engine, cpu, task, time};

use crate::harness::{pair, pattern, run};

on_every_engine!(
    a_sleep_is_never_shorter_than_asked,
    sleeps_end_in_the_order_of_their_deadlines,
    a_thousand_sleeps_end,
    a_deadline_in_the_past_is_ready_soon,
    a_sleep_can_be_set_anew,
    a_time_limit_ends_what_would_not_end,
    a_value_that_is_there_wins_over_its_time_limit,
    time_limits_around_receive_lose_no_byte,
    time_limits_around_receive_lose_no_connection,
    the_turns_time_is_fresh_after_a_wake_by_another_thread,
    the_turns_time_is_fresh_in_the_next_block_on,
);

const MS: Duration = Duration::from_millis(1);

fn a_sleep_is_never_shorter_than_asked(engine: Engine) {
    run(engine, async {
        for micros in [0, 1, 30, 66, 500, 1000, 3000, 20_000] {
            let duration = Duration::from_micros(micros);
            let before = clock::now();
            time::sleep(duration).await;
            assert!(clock::now().since(before) >= duration);
        }
    });
}

fn sleeps_end_in_the_order_of_their_deadlines(engine: Engine) {
    run(engine, async {
        let order = Rc::new(RefCell::new(Vec::new()));
        let start = clock::now() + MS * 5;
        let tasks: Vec<_> = [7u64, 3, 0, 9, 1, 8, 2, 6, 5, 4]
            .map(|number| {
                let order = Rc::clone(&order);
                task::spawn(async move {
                    time::sleep_until(start + MS * 2 * number as u32).await;
                    order.borrow_mut().push(number);
                })
            })
            .into();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.borrow(), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    });
}

fn a_thousand_sleeps_end(engine: Engine) {
    run(engine, async {
        let tasks: Vec<_> = (0..1000u64)
            .map(|number| {
                task::spawn(async move {
                    let deadline = clock::now() + Duration::from_micros(number * 7919 % 50_000);
                    time::sleep_until(deadline).await;
                    assert!(clock::now() >= deadline);
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

fn a_deadline_in_the_past_is_ready_soon(engine: Engine) {
    run(engine, async {
        time::sleep_until(time::Instant::from_nanos(0)).await;
        time::sleep(Duration::ZERO).await;
        assert!(time::timeout(Duration::ZERO, pending::<()>()).await.is_err());
    });
}

fn a_sleep_can_be_set_anew(engine: Engine) {
    run(engine, async {
        let mut sleep = Box::pin(time::sleep(Duration::from_secs(3600)));
        assert!(time::timeout(MS, sleep.as_mut()).await.is_err());
        let deadline = clock::now() + MS * 2;
        sleep.as_mut().get_mut().reset(deadline);
        assert_eq!(sleep.deadline(), deadline);
        sleep.as_mut().await;
        assert!(clock::now() >= deadline);
        sleep.as_mut().get_mut().reset(time::Instant::NEVER);
        assert!(time::timeout(MS, sleep.as_mut()).await.is_err());
    });
}

fn a_time_limit_ends_what_would_not_end(engine: Engine) {
    run(engine, async {
        let (stream, _peer) = pair().await;
        let before = clock::now();
        let error = time::timeout(MS * 5, stream.recv()).await.unwrap_err();
        assert!(clock::now().since(before) >= MS * 5);
        assert_eq!(error.to_string(), "the time limit was reached");
    });
}

fn a_value_that_is_there_wins_over_its_time_limit(engine: Engine) {
    run(engine, async {
        assert_eq!(time::timeout(Duration::ZERO, async { 5 }).await, Ok(5));
        let (stream, mut peer) = pair().await;
        peer.write_all(b"x").unwrap();
        let received = time::timeout(Duration::from_secs(60), stream.recv()).await;
        assert_eq!(&received.unwrap().unwrap().unwrap()[..], b"x");
    });
}

fn time_limits_around_receive_lose_no_byte(engine: Engine) {
    run(engine, async {
        let (stream, mut peer) = pair().await;
        let writer = thread::spawn(move || {
            let bytes = pattern(0, 200_000);
            for (number, piece) in bytes.chunks(613).enumerate() {
                peer.write_all(piece).unwrap();
                if number % 3 == 0 {
                    thread::sleep(Duration::from_micros(number as u64 * 31 % 200));
                }
            }
        });
        let mut received = Vec::new();
        let mut elapsed = 0;
        loop {
            let limit = Duration::from_micros((received.len() as u64 + elapsed) * 13 % 250);
            match time::timeout(limit, stream.recv()).await {
                Ok(chunk) => match chunk.unwrap() {
                    Some(chunk) => received.extend_from_slice(&chunk),
                    None => break,
                },
                Err(_) => elapsed += 1,
            }
        }
        writer.join().unwrap();
        assert!(received == pattern(0, 200_000), "the bytes differ");
    });
}

fn time_limits_around_receive_lose_no_connection(engine: Engine) {
    run(engine, async {
        let listener = annulus::net::TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let connecting = thread::spawn(move || {
            let connect = |number: u64| {
                thread::sleep(Duration::from_micros(number * 17 % 300));
                std::net::TcpStream::connect(address).unwrap()
            };
            (0..100).map(connect).collect::<Vec<_>>()
        });
        let mut accepted = Vec::new();
        let mut round = 0;
        while accepted.len() < 100 {
            round += 1;
            let limit = Duration::from_micros(round * 29 % 300);
            if let Ok(stream) = time::timeout(limit, listener.accept()).await {
                accepted.push(stream.unwrap().peer_addr().unwrap());
            }
        }
        let peers = connecting.join().unwrap();
        let expected: Vec<_> = peers.iter().map(|peer| peer.local_addr().unwrap()).collect();
        assert_eq!(accepted, expected);
    });
}

fn the_turns_time_is_fresh_after_a_wake_by_another_thread(engine: Engine) {
    run(engine, async {
        for _ in 0..5 {
            let ended = cpu::run(|| {
                thread::sleep(MS * 5);
                clock::now()
            });
            let ended = ended.await.unwrap();
            assert!(time::now() >= ended, "the cached time is that of before the wait");
        }
    });
}

fn the_turns_time_is_fresh_in_the_next_block_on(engine: Engine) {
    let runtime = crate::harness::builder(engine).build().unwrap();
    runtime.block_on(async {});
    thread::sleep(MS);
    let before = clock::now();
    let now = runtime.block_on(async { time::now() });
    assert!(now >= before, "the cached time is that of the run before");
}
