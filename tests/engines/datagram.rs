//! Unix datagram sockets: whole, in order, none lost, also to a receiver that is slow.
//!
//! K8 → a_pair_exchanges_datagrams, a_bound_socket_knows_who_sends,
//! a_slow_receiver_makes_its_senders_wait

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixDatagram as StdDatagram;
use std::time::Duration;

use annulus::net::UnixDatagram;
use annulus::{Engine, limits, task, time};

use crate::harness::{Scratch, pattern, run};

on_every_engine!(
    a_pair_exchanges_datagrams,
    a_bound_socket_knows_who_sends,
    an_abstract_name_is_a_name,
    a_missing_path_is_an_error,
    a_slow_receiver_makes_its_senders_wait,
    a_slow_peer_makes_a_connected_sender_wait,
    a_slow_socket_makes_those_connected_to_it_wait,
    a_datagram_longer_than_the_shards_buffers_is_cut_off_and_reported,
    a_peer_that_is_gone_is_an_error,
);

fn a_pair_exchanges_datagrams(engine: Engine) {
    run(engine, async {
        let (one, other) = UnixDatagram::pair().unwrap();
        for size in [0, 1, 4_000, 60_000] {
            one.send(pattern(size, size)).await.unwrap();
            let datagram = other.recv_from().await.unwrap();
            assert!(datagram[..] == pattern(size, size), "{size} bytes");
            assert!(datagram.sender().is_unnamed());
            other.send(datagram.into_payload()).await.unwrap();
            let back = one.recv_from_into(Vec::with_capacity(70_000)).await.unwrap();
            assert!(back.buffer[..] == pattern(size, size), "{size} bytes");
            assert!(back.sender.is_unnamed() && !back.truncated);
        }
    });
}

fn a_bound_socket_knows_who_sends(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let (here, there) = (scratch.file("here"), scratch.file("there"));
        let socket = UnixDatagram::bind(&here).unwrap();
        assert_eq!(socket.local_addr().unwrap().as_pathname(), Some(here.as_path()));
        let peer = StdDatagram::bind(&there).unwrap();
        peer.send_to(b"named", &here).unwrap();
        let datagram = socket.recv_from().await.unwrap();
        assert_eq!(&datagram[..], b"named");
        assert_eq!(datagram.sender().as_pathname(), Some(there.as_path()));
        StdDatagram::unbound().unwrap().send_to(b"nameless", &here).unwrap();
        assert!(socket.recv_from().await.unwrap().sender().is_unnamed());
        socket.send_to(b"answer", &there).await.unwrap();
        let mut answer = [0; 9];
        let (count, from) = peer.recv_from(&mut answer).unwrap();
        assert_eq!((&answer[..count], from.as_pathname()), (&b"answer"[..], Some(here.as_path())));
    });
}

fn an_abstract_name_is_a_name(engine: Engine) {
    run(engine, async {
        let name = format!("annulus-{}-{engine:?}", std::process::id());
        let path = format!("\0{name}");
        let socket = UnixDatagram::bind(&path).unwrap();
        let sender = UnixDatagram::bind(format!("{path}-sender")).unwrap();
        sender.connect(&path).unwrap();
        sender.send(b"hidden").await.unwrap();
        let datagram = socket.recv_from().await.unwrap();
        let expected = format!("{name}-sender");
        assert_eq!(datagram.sender().as_abstract_name(), Some(expected.as_bytes()));
    });
}

fn a_missing_path_is_an_error(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let socket = UnixDatagram::unbound().unwrap();
        let error = socket.send_to(b"x", scratch.file("none")).await.unwrap_err();
        assert!(error.is_not_found(), "{error}");
        let error = socket.send_to(b"x", "a".repeat(200)).await.unwrap_err();
        assert!(error.is_config(), "{error}");
        let path = scratch.file("taken");
        let _taken = UnixDatagram::bind(&path).unwrap();
        assert!(UnixDatagram::bind(&path).unwrap_err().is_address_in_use());
    });
}

fn a_slow_receiver_makes_its_senders_wait(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let path = scratch.file("slow");
        let slow = UnixDatagram::bind(&path).unwrap();
        // Far more than net.unix.max_dgram_qlen, the kernel's bound on a queue.
        let sending = task::spawn(async move {
            let socket = UnixDatagram::unbound().unwrap();
            for number in 0..3_000_u32 {
                socket.send_to(number.to_ne_bytes().to_vec(), &path).await.unwrap();
            }
        });
        for number in 0..3_000_u32 {
            if number % 500 == 0 {
                time::sleep(Duration::from_millis(3)).await;
            }
            assert_eq!(slow.recv_from().await.unwrap()[..], number.to_ne_bytes());
        }
        sending.await.unwrap();
    });
}

fn a_slow_peer_makes_a_connected_sender_wait(engine: Engine) {
    run(engine, async {
        let (one, other) = UnixDatagram::pair().unwrap();
        let sending = task::spawn(async move {
            for number in 0..300 {
                one.send(pattern(number, 5_000)).await.unwrap();
            }
        });
        for number in 0..300 {
            if number % 100 == 0 {
                time::sleep(Duration::from_millis(3)).await;
            }
            assert!(other.recv_from().await.unwrap()[..] == pattern(number, 5_000), "{number}");
        }
        sending.await.unwrap();
    });
}

fn a_slow_socket_makes_those_connected_to_it_wait(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let path = scratch.file("slow");
        let slow = UnixDatagram::bind(&path).unwrap();
        let sending = task::spawn(async move {
            let socket = UnixDatagram::unbound().unwrap();
            socket.connect(&path).unwrap();
            for number in 0..500_u32 {
                socket.send(number.to_ne_bytes().to_vec()).await.unwrap();
            }
        });
        time::sleep(Duration::from_millis(3)).await;
        for number in 0..500_u32 {
            assert_eq!(slow.recv_from().await.unwrap()[..], number.to_ne_bytes());
        }
        sending.await.unwrap();
    });
}

fn a_datagram_longer_than_the_shards_buffers_is_cut_off_and_reported(engine: Engine) {
    run(engine, async {
        let (one, other) = StdDatagram::pair().unwrap();
        let (socket, peer) = (UnixDatagram::from_std(one).unwrap(), other);
        let long = pattern(0, 100_000);
        peer.send(&long).unwrap();
        let whole = socket.recv_from_into(Vec::with_capacity(200_000)).await.unwrap();
        assert!(whole.buffer[..] == long[..] && !whole.truncated);
        peer.send(&long).unwrap();
        peer.send(b"next").unwrap();
        let cut = socket.recv_from().await.unwrap();
        assert!(cut.is_truncated());
        assert!(cut.len() >= limits::DATAGRAM_BYTES_MAX as usize, "{} bytes", cut.len());
        assert!(cut[..] == long[..cut.len()]);
        assert_eq!(&socket.recv_from().await.unwrap()[..], b"next");
    });
}

fn a_peer_that_is_gone_is_an_error(engine: Engine) {
    run(engine, async {
        let (one, other) = UnixDatagram::pair().unwrap();
        other.send(b"last words").await.unwrap();
        drop(other);
        // Its close is behind its send; what it said is there.
        assert_eq!(&one.recv_from().await.unwrap()[..], b"last words");
        time::sleep(Duration::from_millis(2)).await;
        let error = one.send(b"hello?").await.unwrap_err();
        assert!(
            [libc::ECONNREFUSED, libc::ENOTCONN, libc::ECONNRESET]
                .contains(&error.errno().unwrap().0),
            "{error}"
        );
    });
}
