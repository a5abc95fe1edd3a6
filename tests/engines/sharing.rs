//! Sockets that several tasks, several runtimes, or the time after an operation share.

use std::cell::Cell;
use std::future::Future;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpStream as StdStream, UdpSocket as StdUdpSocket};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;

use annulus::net::{TcpListener, TcpStream, UdpSocket, UnixStream};
use annulus::shard::{ShardId, shard};
use annulus::{Engine, task, time};

use crate::harness::{builder, eventually_here, pair, run, run_with, turns};

on_every_engine!(
    every_task_that_waits_on_one_socket_is_served,
    two_receives_into_buffers_at_once_are_refused,
    operations_that_complete_at_once_leave_the_others_their_time,
    a_socket_of_another_runtime_says_so,
    a_shard_of_another_runtime_answers,
);

mod alone {
    use super::a_send_given_up_reaches_no_other_socket;
    on_every_engine!(alone: a_send_given_up_reaches_no_other_socket);
}

fn local() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

fn every_task_that_waits_on_one_socket_is_served(engine: Engine) {
    run(engine, async {
        let socket = Rc::new(UdpSocket::bind(local()).unwrap());
        let listener = Rc::new(TcpListener::bind(local()).unwrap());
        let served = Rc::new(Cell::new(0));
        for _ in 0..3 {
            let (socket, count) = (Rc::clone(&socket), Rc::clone(&served));
            task::spawn(async move {
                socket.recv_from().await.unwrap();
                count.set(count.get() + 1);
            })
            .detach();
            let (listener, count) = (Rc::clone(&listener), Rc::clone(&served));
            task::spawn(async move {
                listener.accept().await.unwrap();
                count.set(count.get() + 1);
            })
            .detach();
        }
        turns(3).await;
        let sender = StdUdpSocket::bind(local()).unwrap();
        let _peers: Vec<StdStream> = (0..3)
            .map(|_| {
                sender.send_to(b"x", socket.local_addr().unwrap()).unwrap();
                StdStream::connect(listener.local_addr().unwrap()).unwrap()
            })
            .collect();
        eventually_here("all six are served", || served.get() == 6).await;
    });
}

fn two_receives_into_buffers_at_once_are_refused(engine: Engine) {
    run(engine, async {
        let (near, far) = UnixStream::pair().unwrap();
        let (stream, mut peer) = pair().await;
        let stream = Rc::new(stream);
        let other = Rc::clone(&stream);
        let first = task::spawn(async move { other.recv_into(Vec::with_capacity(8)).await });
        turns(2).await;
        assert!(stream.recv_into(Vec::with_capacity(8)).await.unwrap_err().is_config());
        assert!(stream.recv().await.unwrap_err().is_config());
        std::io::Write::write_all(&mut peer, b"x").unwrap();
        assert_eq!(first.await.unwrap().unwrap().into_vec(), b"x");
        drop((near, far));
    });
}

fn operations_that_complete_at_once_leave_the_others_their_time(engine: Engine) {
    run(engine, async {
        let socket = UdpSocket::bind(local()).unwrap();
        let silent = StdUdpSocket::bind(local()).unwrap();
        let address = silent.local_addr().unwrap();
        let flood = async {
            loop {
                socket.send_to(&b"x"[..], address).await.unwrap();
            }
        };
        // It ends only if the flood gives way.
        assert!(
            time::timeout::<std::pin::Pin<Box<dyn Future<Output = ()>>>>(
                Duration::from_millis(5),
                Box::pin(flood)
            )
            .await
            .is_err()
        );
    });
}

fn a_socket_of_another_runtime_says_so(engine: Engine) {
    let first = builder(engine).build().unwrap();
    let (stream, _peer) = first.block_on(pair());
    let stream = run(engine, async move {
        let receive = async {
            drop(stream.recv().await);
        };
        let caught = std::panic::AssertUnwindSafe(receive);
        let mut caught = Box::pin(futures_util::FutureExt::catch_unwind(caught));
        let panic = caught.as_mut().await.unwrap_err();
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        assert!(text.unwrap().contains("another runtime"));
        drop(caught);
        stream
    });
    drop(stream);
}

fn a_shard_of_another_runtime_answers(engine: Engine) {
    let small = builder(engine).build().unwrap();
    let handle = small.handle();
    let (sender, receiver) = std::sync::mpsc::channel();
    let other = std::thread::spawn(move || {
        run_with(builder(engine).shards(2), async move {
            let ask = move || async move { handle.shard(ShardId(0)).call(|| 5).await };
            let answer = shard(ShardId(1)).submit(ask).await.unwrap();
            sender.send(answer.unwrap()).unwrap();
        });
    });
    let answer = small.block_on(async {
        loop {
            if let Ok(answer) = receiver.try_recv() {
                return answer;
            }
            time::sleep(Duration::from_millis(1)).await;
        }
    });
    assert_eq!(answer, 5);
    other.join().unwrap();
}

/// A descriptor with a given number for the file of another.
fn duplicate_as(source: &impl AsFd, number: i32) -> OwnedFd {
    let source = source.as_fd().as_raw_fd();
    // SAFETY: fcntl(F_DUPFD_CLOEXEC) makes a descriptor at or above the number, which this test,
    // alone in the process, has just closed.
    let made = unsafe { libc::fcntl(source, libc::F_DUPFD_CLOEXEC, number) };
    assert_eq!(made, number, "the number is free");
    // SAFETY: it was just made, and nobody else has it.
    unsafe { OwnedFd::from_raw_fd(made) }
}

fn a_send_given_up_reaches_no_other_socket(engine: Engine) {
    run(engine, async {
        let (stream, _peer): (TcpStream, StdStream) = pair().await;
        let (other, mut reads) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut send = Box::pin(stream.send(&b"secret"[..]));
        let _ = send.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        drop(send);
        let number = stream.as_fd().as_raw_fd();
        drop(stream.into_std().unwrap());
        let reused = duplicate_as(&other, number);
        turns(3).await;
        drop((reused, other));
        let mut received = Vec::new();
        reads.read_to_end(&mut received).unwrap();
        assert_eq!(received, b"");
    });
}
