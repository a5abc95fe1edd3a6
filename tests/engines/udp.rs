//! UDP sockets: datagrams whole, with their senders, and none lost by giving a receive up.
//!
//! K8 → an_echo_over_udp, a_connected_socket_hears_its_peer_alone,
//! a_receive_given_up_loses_no_datagram, what_does_not_fit_is_cut_off_and_reported,
//! a_socket_that_is_not_read_is_bounded_and_does_not_stop_others

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdSocket};
use std::time::Duration;

use annulus::net::UdpSocket;
use annulus::{Engine, Handle, task, time};
use futures_util::StreamExt;

use crate::harness::{descriptors, eventually_here, pattern, run, turns};

on_every_engine!(
    an_echo_over_udp,
    an_empty_datagram_is_a_datagram,
    the_largest_datagram_arrives_whole,
    a_connected_socket_hears_its_peer_alone,
    a_refused_send_is_told_and_passes,
    a_receive_given_up_loses_no_datagram,
    a_stream_of_datagrams_may_be_dropped_and_begun_again,
    datagrams_arrive_in_the_order_of_a_burst,
    what_does_not_fit_is_cut_off_and_reported,
    two_ways_to_receive_do_not_mix,
    a_socket_that_is_not_read_is_bounded_and_does_not_stop_others,
    a_sender_is_known_over_v6,
    a_datagram_is_sent_on_without_a_copy,
    a_multicast_reaches_its_group,
    a_shared_port_is_bound_twice_and_another_is_not,
    a_std_socket_is_taken_over_blocking_or_not,
);

mod alone {
    use super::a_socket_given_up_at_any_time_leaves_nothing;
    on_every_engine!(alone: a_socket_given_up_at_any_time_leaves_nothing);
}

fn local() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// A socket of the runtime, and a `std` one that does not wait for ever.
fn pair() -> (UdpSocket, StdSocket, SocketAddr) {
    let socket = UdpSocket::bind(local()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, peer(), address)
}

fn peer() -> StdSocket {
    let peer = StdSocket::bind(local()).unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    peer
}

fn an_echo_over_udp(engine: Engine) {
    run(engine, async {
        let (socket, peer, address) = pair();
        let echo = task::spawn(async move {
            loop {
                let datagram = socket.recv_from().await.unwrap();
                assert!(!datagram.is_truncated());
                let sender = *datagram.sender();
                socket.send_to(datagram.into_payload(), sender).await.unwrap();
            }
        });
        let own = UdpSocket::bind(local()).unwrap();
        let own_address = own.local_addr().unwrap();
        for size in [1, 2, 100, 1472, 9000, 60_000] {
            let bytes = pattern(size, size);
            assert_eq!(own.send_to(bytes.clone(), address).await.unwrap().len(), size);
            let answer = own.recv_from().await.unwrap();
            assert_eq!((&answer[..], answer.sender()), (&bytes[..], &address));
        }
        assert_eq!(own.local_addr().unwrap(), own_address);
        // And by another implementation.
        let asking = std::thread::spawn(move || {
            let mut answer = [0; 100];
            peer.send_to(b"from std", address).unwrap();
            let (count, from) = peer.recv_from(&mut answer).unwrap();
            assert_eq!((&answer[..count], from), (&b"from std"[..], address));
        });
        eventually_here("the echo of std's datagram", || asking.is_finished()).await;
        asking.join().unwrap();
        echo.abort();
    });
}

fn an_empty_datagram_is_a_datagram(engine: Engine) {
    run(engine, async {
        let (socket, peer, address) = pair();
        for round in 0..3 {
            peer.send_to(b"", address).unwrap();
            peer.send_to(b"next", address).unwrap();
            let empty = socket.recv_from().await.unwrap();
            assert_eq!((empty.len(), *empty.sender()), (0, peer.local_addr().unwrap()), "{round}");
            assert_eq!(&socket.recv_from().await.unwrap()[..], b"next");
        }
        socket.send_to(b"", peer.local_addr().unwrap()).await.unwrap();
        assert_eq!(peer.recv_from(&mut [0; 8]).unwrap(), (0, address));
        socket.connect(peer.local_addr().unwrap()).unwrap();
        socket.send(b"").await.unwrap();
        assert_eq!(peer.recv_from(&mut [0; 8]).unwrap(), (0, address));
    });
}

fn the_largest_datagram_arrives_whole(engine: Engine) {
    run(engine, async {
        let (socket, peer, address) = pair();
        let largest = pattern(0, 65_507);
        for _ in 0..5 {
            peer.send_to(&largest, address).unwrap();
            peer.send_to(b"small", address).unwrap();
            let datagram = socket.recv_from().await.unwrap();
            assert!(datagram[..] == largest[..] && !datagram.is_truncated());
            assert_eq!(&socket.recv_from().await.unwrap()[..], b"small");
        }
        let error = socket.send_to(vec![0; 65_508], address).await.unwrap_err();
        assert_eq!(error.to_string(), "sending: Message too long (os error 90)");
    });
}

fn a_connected_socket_hears_its_peer_alone(engine: Engine) {
    run(engine, async {
        let (socket, peer, address) = pair();
        let stranger = StdSocket::bind(local()).unwrap();
        let error = socket.send(b"to nobody").await.unwrap_err();
        assert_eq!(error.errno().unwrap().0, libc::EDESTADDRREQ);
        socket.connect(peer.local_addr().unwrap()).unwrap();
        assert_eq!(socket.peer_addr().unwrap(), peer.local_addr().unwrap());
        stranger.send_to(b"stranger", address).unwrap();
        peer.send_to(b"peer", address).unwrap();
        assert_eq!(&socket.recv().await.unwrap()[..], b"peer");
        assert_eq!(socket.send(b"hello".as_slice()).await.unwrap().len(), 5);
        let mut heard = [0; 8];
        assert_eq!(peer.recv_from(&mut heard).unwrap(), (5, address));
        assert_eq!(&heard[..5], b"hello");
    });
}

fn a_refused_send_is_told_and_passes(engine: Engine) {
    run(engine, async {
        let (socket, peer, address) = pair();
        let peer_address = peer.local_addr().unwrap();
        socket.connect(peer_address).unwrap();
        drop(peer);
        for _ in 0..3 {
            // The refusal comes back at the receive, or at a send that follows.
            let sent = socket.send(b"anyone?").await;
            let error = match sent {
                Err(error) => error,
                Ok(_) => socket.recv().await.unwrap_err(),
            };
            assert_eq!(error.errno().unwrap().0, libc::ECONNREFUSED);
        }
        let peer = StdSocket::bind(peer_address).unwrap();
        peer.send_to(b"here I am", address).unwrap();
        assert_eq!(&socket.recv().await.unwrap()[..], b"here I am");
    });
}

fn a_receive_given_up_loses_no_datagram(engine: Engine) {
    run(engine, async {
        let (socket, peer, address) = pair();
        let mut expected = 0_u32;
        for number in 0..300_u32 {
            peer.send_to(&number.to_ne_bytes(), address).unwrap();
            let limit = Duration::from_micros(u64::from(number) % 7 * 20);
            if let Ok(datagram) = time::timeout(limit, socket.recv_from()).await {
                assert_eq!(datagram.unwrap()[..], expected.to_ne_bytes());
                expected += 1;
            }
        }
        while expected < 300 {
            assert_eq!(socket.recv_from().await.unwrap()[..], expected.to_ne_bytes());
            expected += 1;
        }
    });
}

fn a_stream_of_datagrams_may_be_dropped_and_begun_again(engine: Engine) {
    run(engine, async {
        let (socket, peer, address) = pair();
        for number in 0..30_u8 {
            peer.send_to(&[number], address).unwrap();
        }
        let mut seen = Vec::new();
        while seen.len() < 30 {
            let mut datagrams = socket.datagrams().take(7);
            while seen.len() < 30
                && let Some(datagram) = datagrams.next().await
            {
                seen.push(datagram.unwrap()[0]);
            }
        }
        assert_eq!(seen, (0..30).collect::<Vec<u8>>());
    });
}

fn datagrams_arrive_in_the_order_of_a_burst(engine: Engine) {
    run(engine, async {
        let (socket, peer, address) = pair();
        socket.set_receive_buffer(200_000).unwrap();
        // More than the shard's buffers for datagrams, at several sizes, while nobody takes them.
        for round in 0..5 {
            for number in 0..100_usize {
                peer.send_to(&pattern(round + number, number * 3), address).unwrap();
            }
            turns(3).await;
            for number in 0..100_usize {
                let datagram = socket.recv_from().await.unwrap();
                assert!(datagram[..] == pattern(round + number, number * 3), "{round}, {number}");
            }
        }
    });
}

fn what_does_not_fit_is_cut_off_and_reported(engine: Engine) {
    run(engine, async {
        let (socket, peer, address) = pair();
        peer.send_to(&pattern(0, 100), address).unwrap();
        peer.send_to(&pattern(1, 40), address).unwrap();
        let cut = socket.recv_from_into(Vec::with_capacity(40)).await.unwrap();
        assert_eq!(cut.buffer[..], pattern(0, 40));
        assert_eq!((cut.truncated, cut.sender), (true, peer.local_addr().unwrap()));
        let mut buffer = cut.buffer.into_vec();
        buffer.clear();
        let whole = socket.recv_from_into(buffer).await.unwrap();
        assert_eq!((&whole.buffer[..], whole.truncated), (&pattern(1, 40)[..], false));
    });
}

fn two_ways_to_receive_do_not_mix(engine: Engine) {
    run(engine, async {
        let (socket, peer, address) = pair();
        let socket = std::rc::Rc::new(socket);
        let other = socket.clone();
        let first = task::spawn(async move { other.recv_from_into(Vec::with_capacity(9)).await });
        turns(2).await;
        let error = socket.recv_from_into(Vec::with_capacity(9)).await.unwrap_err();
        assert!(error.is_config(), "{error}");
        peer.send_to(b"one", address).unwrap();
        assert_eq!(first.await.unwrap().unwrap().buffer[..], *b"one");
        peer.send_to(b"two", address).unwrap();
        assert_eq!(socket.recv_from().await.unwrap()[..], *b"two");
        let error = socket.recv_from_into(Vec::with_capacity(9)).await.unwrap_err();
        assert!(error.is_config(), "{error}");
    });
}

fn a_socket_that_is_not_read_is_bounded_and_does_not_stop_others(engine: Engine) {
    run(engine, async {
        let (flooded, peer, flooded_address) = pair();
        let (served, _, served_address) = pair();
        peer.send_to(b"first", flooded_address).unwrap();
        assert_eq!(&flooded.recv_from().await.unwrap()[..], b"first");
        let mut held = Vec::new();
        for round in 0..40_usize {
            for number in 0..50 {
                peer.send_to(&pattern(round * 50 + number, 8_000), flooded_address).unwrap();
            }
            peer.send_to(b"through", served_address).unwrap();
            let datagram = served.recv_from().await.unwrap();
            assert_eq!(&datagram[..], b"through", "round {round}");
            held.push(datagram);
            held.truncate(10);
        }
        // What is there of 16 MB is at most its credit, one round of the kernel's past it, and what
        // the kernel's own buffer held.
        let mut left = 0;
        let mut last = None;
        while let Ok(datagram) = time::timeout(Duration::from_millis(50), flooded.recv_from()).await
        {
            let datagram = datagram.unwrap();
            assert_eq!(datagram.len(), 8_000, "what is there is whole");
            left += 1;
            last = Some(datagram.to_vec());
        }
        assert!((5..400).contains(&left), "{left} datagrams were kept of 2,000");
        assert!(last.unwrap() != pattern(1_999, 8_000), "the newest are dropped, not the oldest");
        // It goes on.
        peer.send_to(b"again", flooded_address).unwrap();
        assert_eq!(&flooded.recv_from().await.unwrap()[..], b"again");
    });
}

fn a_sender_is_known_over_v6(engine: Engine) {
    run(engine, async {
        let here = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
        let Ok(peer) = StdSocket::bind(here) else {
            println!("skipped: this host has no IPv6");
            return;
        };
        let socket = UdpSocket::bind(here).unwrap();
        let address = socket.local_addr().unwrap();
        peer.send_to(b"six", address).unwrap();
        let datagram = socket.recv_from().await.unwrap();
        assert_eq!((&datagram[..], *datagram.sender()), (&b"six"[..], peer.local_addr().unwrap()));
        socket.send_to(datagram.into_payload(), peer.local_addr().unwrap()).await.unwrap();
        assert_eq!(peer.recv_from(&mut [0; 9]).unwrap(), (3, address));
    });
}

fn a_datagram_is_sent_on_without_a_copy(engine: Engine) {
    run(engine, async {
        let (socket, peer, address) = pair();
        peer.send_to(b"bytes", address).unwrap();
        let lease = socket.recv_from().await.unwrap().into_payload();
        let place = lease.as_ptr();
        let payload = socket.send_to(lease, peer.local_addr().unwrap()).await.unwrap();
        assert_eq!(payload.as_ptr(), place);
    });
}

fn a_multicast_reaches_its_group(engine: Engine) {
    run(engine, async {
        let group = Ipv4Addr::new(239, 255, 77, 12);
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0).into()).unwrap();
        let port = socket.local_addr().unwrap().port();
        if socket.join_multicast_v4(group, Ipv4Addr::LOCALHOST).is_err() {
            println!("skipped: this host has no multicast");
            return;
        }
        let sender = UdpSocket::bind(local()).unwrap();
        sender.set_multicast_loop_v4(true).unwrap();
        sender.set_multicast_ttl_v4(0).unwrap();
        sender.set_ttl(3).unwrap();
        sender.set_broadcast(true).unwrap();
        socket2::SockRef::from(&sender).set_multicast_if_v4(&Ipv4Addr::LOCALHOST).unwrap();
        sender.send_to(b"to all", (group, port).into()).await.unwrap();
        let datagram = socket.recv_from().await.unwrap();
        assert_eq!(
            (&datagram[..], *datagram.sender()),
            (&b"to all"[..], sender.local_addr().unwrap())
        );
        socket.leave_multicast_v4(group, Ipv4Addr::LOCALHOST).unwrap();
        let error = socket.leave_multicast_v4(group, Ipv4Addr::LOCALHOST).unwrap_err();
        assert_eq!(error.errno().unwrap().0, libc::EADDRNOTAVAIL);
    });
}

fn a_shared_port_is_bound_twice_and_another_is_not(engine: Engine) {
    run(engine, async {
        let alone = UdpSocket::bind(local()).unwrap();
        let error = UdpSocket::bind(alone.local_addr().unwrap()).unwrap_err();
        assert!(error.is_address_in_use(), "{error}");
        let shared = UdpSocket::bind_shared(local()).unwrap();
        let second = UdpSocket::bind_shared(shared.local_addr().unwrap()).unwrap();
        let peer = peer();
        peer.send_to(b"one of you", shared.local_addr().unwrap()).unwrap();
        let both = async {
            let mut first = std::pin::pin!(shared.recv_from());
            let mut other = std::pin::pin!(second.recv_from());
            std::future::poll_fn(|context| {
                let polled = first.as_mut().poll(context);
                if polled.is_ready() { polled } else { other.as_mut().poll(context) }
            })
            .await
        };
        assert_eq!(&both.await.unwrap()[..], b"one of you");
    });
}

fn a_std_socket_is_taken_over_blocking_or_not(engine: Engine) {
    run(engine, async {
        for nonblocking in [false, true] {
            let socket = StdSocket::bind(local()).unwrap();
            socket.set_nonblocking(nonblocking).unwrap();
            let address = socket.local_addr().unwrap();
            let socket = UdpSocket::from_std(socket).unwrap();
            let receiving = task::spawn(async move { socket.recv_from().await.unwrap().to_vec() });
            time::sleep(Duration::from_millis(5)).await;
            peer().send_to(b"later", address).unwrap();
            assert_eq!(receiving.await.unwrap(), b"later");
        }
    });
}

fn a_socket_given_up_at_any_time_leaves_nothing(engine: Engine) {
    run(engine, async {
        let peer = peer();
        let handle = Handle::current();
        // The first use makes what the shard keeps for datagrams.
        let first = UdpSocket::bind(local()).unwrap();
        let _ = time::timeout(Duration::ZERO, first.recv_from()).await;
        let before = descriptors();
        for stage in 0..24_usize {
            let socket = UdpSocket::bind(local()).unwrap();
            let address = socket.local_addr().unwrap();
            if stage % 2 == 0 {
                for number in 0..stage {
                    peer.send_to(&pattern(number, 3_000), address).unwrap();
                }
            }
            if stage % 3 == 0 {
                let _ = time::timeout(Duration::ZERO, socket.recv_from()).await;
            } else {
                let into = socket.recv_from_into(Vec::with_capacity(10));
                let _ = time::timeout(Duration::ZERO, into).await;
                let _ = time::timeout(Duration::ZERO, socket.send_to(b"x", address)).await;
            }
            turns(stage % 4).await;
        }
        drop(first);
        eventually_here("every socket is closed", || descriptors() == before - 1).await;
        for _ in 0..1000 {
            if handle.in_flight().await.unwrap().is_empty() {
                return;
            }
            time::sleep(Duration::from_millis(2)).await;
        }
        panic!("left in flight: {:?}", handle.in_flight().await.unwrap());
    });
}
