//! Many connections, at once and one after another, and many runtimes.

use std::io::{Read, Write};
use std::net::TcpStream as StdStream;
use std::time::Duration;

use annulus::{Engine, task, time};

use crate::harness::{
    Server, builder, descriptors, echo, eventually, pair, pattern, receive_exactly, reset, run_with,
};

on_every_engine!(
    alone: two_thousand_connections_are_served_at_once,
    five_thousand_connections_one_after_another_leave_nothing_behind,
    a_runtime_leaves_no_descriptor_and_no_thread,
    more_operations_than_a_ring_has_entries_are_all_performed,
);

/// Raises the soft limit of descriptors as far as it goes.
fn raise_descriptor_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls take a valid local.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
    }
    limit.rlim_cur
}

fn ask(peer: &mut StdStream, number: usize) {
    peer.write_all(&pattern(number, 32)).unwrap();
}

fn is_answered(peer: &mut StdStream, number: usize) {
    let mut answer = [0; 32];
    peer.read_exact(&mut answer).unwrap();
    assert_eq!(answer[..], pattern(number, 32));
}

fn two_thousand_connections_are_served_at_once(engine: Engine) {
    const COUNT: usize = 2000;
    // Two ends each, and a connection's own thread has a descriptor too.
    let limit = raise_descriptor_limit();
    if limit < 4 * COUNT as u64 {
        println!("skipped: {limit} descriptors do not suffice (raise `ulimit -n`)");
        return;
    }
    let server = Server::start(builder(engine), echo);
    let mut peers: Vec<_> = (0..COUNT).map(|_| server.connect()).collect();
    eventually("all are accepted", || server.handle.connections() == COUNT);
    for round in 0..3 {
        for (number, peer) in peers.iter_mut().enumerate() {
            ask(peer, number + round);
        }
        for (number, peer) in peers.iter_mut().enumerate() {
            is_answered(peer, number + round);
        }
    }
    drop(peers);
    eventually("all are closed", || server.handle.connections() == 0);
}

fn five_thousand_connections_one_after_another_leave_nothing_behind(engine: Engine) {
    const COUNT: usize = 5000;
    let before_all = descriptors();
    {
        let server = Server::start(builder(engine), echo);
        let mut first = server.connect();
        ask(&mut first, 0);
        is_answered(&mut first, 0);
        drop(first);
        eventually("the first is closed", || server.handle.connections() == 0);
        let mut before = usize::MAX;
        eventually("what the first needed is settled", || {
            std::mem::replace(&mut before, descriptors()) == before
        });
        for number in 0..COUNT {
            let mut peer = server.connect();
            match number % 4 {
                0 => reset(peer),
                1 => drop(peer),
                2 => {
                    ask(&mut peer, number);
                    reset(peer);
                }
                _ => {
                    ask(&mut peer, number);
                    is_answered(&mut peer, number);
                    socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
                }
            }
        }
        eventually("all are closed", || server.handle.connections() == 0);
        eventually("no descriptor is left", || descriptors() <= before);
    }
    eventually("the runtime leaves no descriptor", || descriptors() <= before_all);
}

fn a_runtime_leaves_no_descriptor_and_no_thread(engine: Engine) {
    // By name: the test harness starts threads of its own meanwhile.
    let is_ours = |task: &std::fs::DirEntry| {
        let name = std::fs::read_to_string(task.path().join("comm"));
        name.is_ok_and(|name| name.starts_with("annulus"))
    };
    let threads =
        || std::fs::read_dir("/proc/self/task").unwrap().flatten().filter(is_ours).count();
    let (descriptors_before, threads_before) = (descriptors(), threads());
    for _ in 0..10 {
        let runtime = builder(engine).shards(3).cpu_cores(2).build().unwrap();
        runtime
            .run_on_all(|_| async {
                let (stream, mut peer) = pair().await;
                peer.write_all(b"x").unwrap();
                stream.recv().await.unwrap();
                let file = annulus::fs::File::open("/dev/null").await.unwrap();
                file.read_at(Vec::with_capacity(10), 0).await.unwrap();
                task::spawn(async move { stream.recv().await.map(drop) }).detach();
                task::yield_now().await;
            })
            .unwrap();
    }
    eventually("no descriptor is left", || descriptors() <= descriptors_before);
    eventually("no thread is left", || threads() <= threads_before);
}

fn more_operations_than_a_ring_has_entries_are_all_performed(engine: Engine) {
    let scratch = crate::harness::Scratch::new();
    let path = scratch.file("data");
    std::fs::write(&path, pattern(0, 10_000)).unwrap();
    // The smallest ring: its queues fill up in every turn.
    run_with(builder(engine).ring_entries(1), async move {
        let mut tasks = Vec::new();
        for number in 0..300 {
            let (stream, mut peer) = pair().await;
            peer.write_all(&pattern(number, 3000)).unwrap();
            let path = path.clone();
            tasks.push(task::spawn(async move {
                let file = annulus::fs::File::open(path).await.unwrap();
                for round in 0..5 {
                    let offset = number + round * 1000;
                    let read = file.read_at(Vec::with_capacity(500), offset as u64).await.unwrap();
                    assert!(read[..] == pattern(offset, 500), "the bytes differ");
                    stream.send(read.into_vec()).await.unwrap();
                }
                assert!(receive_exactly(&stream, 3000).await == pattern(number, 3000));
                // Given up while all the others work.
                let endless = stream.recv();
                assert!(time::timeout(Duration::from_micros(50), endless).await.is_err());
                drop(peer);
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
    });
}
