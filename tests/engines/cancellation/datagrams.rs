//! Datagrams: each comes once, whoever was given up before.

use std::net::UdpSocket as StdUdp;
use std::os::unix::net::UnixDatagram as StdUnix;
use std::pin::pin;
use std::time::Duration;

use annulus::Engine;
use annulus::net::{UdpSocket, UnixDatagram};
use annulus::stream::StreamExt;

use super::{at_every_await, later, small, within};
use crate::harness::{Scratch, eventually_here, run_with};

on_every_engine!(
    alone: receiving_from_udp,
    receiving_from_unix,
    receiving_into_a_buffer,
    sending,
);

/// More datagrams than wait in a Unix socket (net.unix.max_dgram_qlen).
const MANY: usize = 100;

/// A socket of the runtime and one of `std`, connected to each other.
fn udp() -> (UdpSocket, StdUdp) {
    let ours = UdpSocket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let theirs = StdUdp::bind("127.0.0.1:0").unwrap();
    theirs.connect(ours.local_addr().unwrap()).unwrap();
    theirs.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    ours.connect(theirs.local_addr().unwrap()).unwrap();
    (ours, theirs)
}

fn unix() -> (UnixDatagram, StdUnix) {
    let (ours, theirs) = StdUnix::pair().unwrap();
    theirs.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    (UnixDatagram::from_std(ours).unwrap(), theirs)
}

/// Has the peer send two datagrams, gives up a receive, and sees that both come, in order.
macro_rules! both_come {
    ($cut:expr, $pair:expr, $socket:ident => $receive:expr) => {{
        let ($socket, peer) = $pair;
        let peer = later(move || {
            peer.send(b"one").unwrap();
            peer.send(b"two").unwrap();
            peer
        });
        let first = $cut.until(async { $receive.to_vec() }).await;
        let first = match first {
            Some(first) => first,
            None => $socket.recv_from().await.unwrap().to_vec(),
        };
        assert_eq!(first, b"one");
        assert_eq!(*$socket.recv_from().await.unwrap(), *b"two");
        drop(peer.await.unwrap());
    }};
}

fn receiving_from_udp(engine: Engine) {
    run_with(small(engine), async {
        at_every_await("UdpSocket::recv_from", async |cut| {
            both_come!(cut, udp(), socket => socket.recv_from().await.unwrap());
        })
        .await;
        at_every_await("UdpSocket::recv", async |cut| {
            both_come!(cut, udp(), socket => socket.recv().await.unwrap());
        })
        .await;
        at_every_await("UdpSocket::datagrams", async |cut| {
            both_come!(cut, udp(), socket => {
                pin!(socket.datagrams()).next().await.unwrap().unwrap()
            });
        })
        .await;
    });
}

fn receiving_from_unix(engine: Engine) {
    run_with(small(engine), async {
        at_every_await("UnixDatagram::recv_from", async |cut| {
            both_come!(cut, unix(), socket => socket.recv_from().await.unwrap());
        })
        .await;
        at_every_await("UnixDatagram::datagrams", async |cut| {
            both_come!(cut, unix(), socket => {
                pin!(socket.datagrams()).next().await.unwrap().unwrap()
            });
        })
        .await;
    });
}

fn receiving_into_a_buffer(engine: Engine) {
    run_with(small(engine), async {
        at_every_await("UdpSocket::recv_from_into", async |cut| {
            let (socket, peer) = udp();
            let peer = later(move || peer.send(b"one").map(|_| peer));
            let received = cut.until(socket.recv_from_into(Vec::with_capacity(9))).await;
            assert!(received.is_none_or(|received| received.unwrap().buffer.into_vec() == b"one"));
            drop(peer.await.unwrap().unwrap());
        })
        .await;
        at_every_await("UnixDatagram::recv_from_into", async |cut| {
            let (socket, peer) = unix();
            let peer = later(move || peer.send(b"one").map(|_| peer));
            let received = cut.until(socket.recv_from_into(Vec::with_capacity(9))).await;
            assert!(received.is_none_or(|received| received.unwrap().buffer.into_vec() == b"one"));
            drop(peer.await.unwrap().unwrap());
        })
        .await;
    });
}

fn sending(engine: Engine) {
    let scratch = Scratch::new();
    run_with(small(engine), async {
        at_every_await("UdpSocket::send_to", async |cut| {
            let (_, peer) = udp();
            let socket = UdpSocket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
            // Not connected, so that it hears of anybody.
            let other = StdUdp::bind("127.0.0.1:0").unwrap();
            let address = other.local_addr().unwrap();
            if let Some(sent) = cut.until(socket.send_to(b"whole", address)).await {
                assert_eq!(sent.unwrap().len(), 5);
                assert_eq!(other.recv(&mut [0; 9]).unwrap(), 5);
            }
            drop(peer);
        })
        .await;
        at_every_await("UdpSocket::send", async |cut| {
            let (socket, peer) = udp();
            if let Some(sent) = cut.until(socket.send(b"whole")).await {
                assert_eq!(sent.unwrap().len(), 5);
                assert_eq!(peer.recv(&mut [0; 9]).unwrap(), 5);
            }
        })
        .await;
        at_every_await("UnixDatagram::send", async |cut| {
            let (socket, peer) = unix();
            // Slow, so that a send waits for room.
            let reader = std::thread::spawn(move || {
                for _ in 0..MANY {
                    assert_eq!(peer.recv(&mut [0; 9]).unwrap(), 5);
                    std::thread::yield_now();
                }
                peer
            });
            let mut sent = 0;
            let sending = async {
                while sent < MANY {
                    socket.send(b"whole").await.unwrap();
                    sent += 1;
                }
            };
            cut.until(sending).await;
            // The one that was given up may have been sent: the last one then stays with the peer.
            for _ in sent..MANY {
                within("send", socket.send(b"whole")).await.unwrap();
            }
            eventually_here("all are read", || reader.is_finished()).await;
            drop(reader.join().unwrap());
        })
        .await;
        let path = scratch.file("datagrams");
        let other = StdUnix::bind(&path).unwrap();
        at_every_await("UnixDatagram::send_to", async |cut| {
            let socket = UnixDatagram::unbound().unwrap();
            if let Some(sent) = cut.until(socket.send_to(b"whole", &path)).await {
                assert_eq!(sent.unwrap().len(), 5);
            }
            drop(socket);
            other.set_nonblocking(true).unwrap();
            while let Ok(length) = other.recv(&mut [0; 9]) {
                assert_eq!(length, 5);
            }
        })
        .await;
    });
}
