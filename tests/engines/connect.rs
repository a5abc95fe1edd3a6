//! Connecting by name and by whichever address answers first, and what is left of the others.
//!
//! K1 → a_host_is_connected_to_by_name, the_first_answer_wins_and_the_others_are_closed

use std::future::poll_fn;
use std::net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use annulus::net::{self, ConnectOptions, TcpStream};
use annulus::{Engine, time};

use crate::harness::{dead_address, descriptors, eventually_here, receive_all, run, turns};

on_every_engine!(
    a_host_is_connected_to_by_name,
    a_literal_address_is_ready_at_once,
    an_unknown_host_is_named,
    the_first_address_that_answers_is_the_only_one_tried,
    a_refused_address_is_followed_by_the_next_at_once,
    all_addresses_that_failed_are_named,
    both_ends_have_the_address_that_was_bound,
    an_address_is_needed,
);

mod alone {
    use super::{
        a_connect_given_up_at_any_stage_leaves_no_socket,
        a_connect_that_takes_too_long_is_given_up, the_first_answer_wins_and_the_others_are_closed,
    };
    on_every_engine!(
        alone: the_first_answer_wins_and_the_others_are_closed,
        a_connect_that_takes_too_long_is_given_up,
        a_connect_given_up_at_any_stage_leaves_no_socket,
    );
}

/// An address that never answers: its listener's backlog is full.
struct Silent {
    address: SocketAddr,
    _listener: socket2::Socket,
    _queued: Vec<StdStream>,
}

impl Silent {
    fn new() -> Self {
        use socket2::{Domain, Socket, Type};
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let mut queued = Vec::new();
        while let Ok(stream) = StdStream::connect_timeout(&address, Duration::from_millis(100)) {
            queued.push(stream);
            assert!(queued.len() < 10, "the backlog has an end");
        }
        Self { address, _listener: listener, _queued: queued }
    }
}

fn listener() -> (StdListener, SocketAddr) {
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Would hang a test that waited for it.
fn patient() -> ConnectOptions {
    ConnectOptions { attempt_delay: Duration::from_secs(3600), ..ConnectOptions::default() }
}

fn a_host_is_connected_to_by_name(engine: Engine) {
    run(engine, async {
        // By IPv4 alone: where localhost means ::1 too, that attempt fails first.
        let (listener, address) = listener();
        let addresses = net::resolve("localhost", address.port()).await.unwrap();
        assert!(addresses.contains(&address), "{addresses:?}");
        let stream = TcpStream::connect_to("localhost", address.port()).await.unwrap();
        let (peer, from) = listener.accept().unwrap();
        assert_eq!(stream.local_addr().unwrap(), from);
        drop(peer);
        assert_eq!(receive_all(&stream).await, b"");
    });
}

fn a_literal_address_is_ready_at_once(engine: Engine) {
    run(engine, async {
        for (host, address) in [("127.0.0.1", "127.0.0.1:7"), ("[::1]", "[::1]:7")] {
            let mut resolving = pin!(net::resolve(host, 7));
            let polled = poll_fn(|context| Poll::Ready(resolving.as_mut().poll(context))).await;
            let Poll::Ready(resolved) = polled else { panic!("{host} waits for a helper") };
            assert_eq!(resolved.unwrap(), [address.parse().unwrap()]);
        }
    });
}

fn an_unknown_host_is_named(engine: Engine) {
    run(engine, async {
        // Longer than a name may be, so that no name server is asked.
        let host = "x".repeat(300);
        let error = net::resolve(&host, 80).await.unwrap_err();
        assert!(error.is_unresolved(), "{error}");
        assert!(error.to_string().contains(&host), "{error}");
        let error = TcpStream::connect_to(&host, 80).await.unwrap_err();
        assert!(error.is_unresolved(), "{error}");
        assert!(net::resolve("", 80).await.unwrap_err().is_config());
        assert!(net::resolve("with\0zero", 80).await.unwrap_err().is_unresolved());
    });
}

fn the_first_address_that_answers_is_the_only_one_tried(engine: Engine) {
    run(engine, async {
        let ((first, first_address), (second, second_address)) = (listener(), listener());
        let addresses = [first_address, second_address];
        let stream = TcpStream::connect_any(&addresses, &patient()).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), first_address);
        first.accept().unwrap();
        second.set_nonblocking(true).unwrap();
        assert!(second.accept().is_err(), "the second was tried");
    });
}

fn a_refused_address_is_followed_by_the_next_at_once(engine: Engine) {
    run(engine, async {
        let (listener, address) = listener();
        let addresses = [dead_address(), dead_address(), address];
        let stream = TcpStream::connect_any(&addresses, &patient()).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), address);
        drop(listener);
    });
}

fn all_addresses_that_failed_are_named(engine: Engine) {
    run(engine, async {
        let (one, other) = (dead_address(), dead_address());
        let error = TcpStream::connect_any(&[one, other], &patient()).await.unwrap_err();
        assert_eq!(error.errno().unwrap().0, libc::ECONNREFUSED);
        let refused = "Connection refused (os error 111)";
        let text =
            format!("connecting: connecting to {one}: {refused}; connecting to {other}: {refused}");
        assert_eq!(error.to_string(), text);
        let error = TcpStream::connect_to("127.0.0.1", one.port()).await.unwrap_err();
        let text =
            format!("connecting to 127.0.0.1 port {}: connecting to {one}: {refused}", one.port());
        assert_eq!(error.to_string(), text);
    });
}

fn both_ends_have_the_address_that_was_bound(engine: Engine) {
    run(engine, async {
        let (listener, address) = listener();
        let bind = "127.0.0.2:0".parse().ok();
        let options = ConnectOptions { bind, ..patient() };
        let stream = TcpStream::connect_any(&[address], &options).await.unwrap();
        let (_peer, from) = listener.accept().unwrap();
        assert_eq!(from.ip().to_string(), "127.0.0.2");
        assert_eq!(stream.local_addr().unwrap(), from);
        let bind = "192.0.2.1:0".parse().ok();
        let options = ConnectOptions { bind, ..patient() };
        let error = TcpStream::connect_any(&[address], &options).await.unwrap_err();
        assert_eq!(error.errno().unwrap().0, libc::EADDRNOTAVAIL);
        assert!(error.to_string().contains("binding to 192.0.2.1:0"), "{error}");
    });
}

fn an_address_is_needed(engine: Engine) {
    run(engine, async {
        let error = TcpStream::connect_any(&[], &patient()).await.unwrap_err();
        assert!(error.is_config(), "{error}");
        let options = ConnectOptions { bind: "[::1]:0".parse().ok(), ..patient() };
        let error = TcpStream::connect_to_with("127.0.0.1", 9, &options).await.unwrap_err();
        assert!(error.is_config(), "{error}");
    });
}

fn the_first_answer_wins_and_the_others_are_closed(engine: Engine) {
    run(engine, async {
        let (silent, other) = (Silent::new(), Silent::new());
        let ((_listener, address), (last, last_address)) = (listener(), listener());
        let options = ConnectOptions {
            attempt_delay: Duration::from_millis(10),
            ..ConnectOptions::default()
        };
        let addresses = [silent.address, other.address, address, last_address];
        let before = descriptors();
        let stream = TcpStream::connect_any(&addresses, &options).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), address);
        eventually_here("the losers are closed", || descriptors() == before + 1).await;
        last.set_nonblocking(true).unwrap();
        assert!(last.accept().is_err(), "the last was tried after the race was won");
    });
}

fn a_connect_that_takes_too_long_is_given_up(engine: Engine) {
    run(engine, async {
        let (silent, other) = (Silent::new(), Silent::new());
        let before = descriptors();
        let options = ConnectOptions {
            timeout: Some(Duration::from_millis(30)),
            attempt_delay: Duration::from_millis(10),
            ..ConnectOptions::default()
        };
        let addresses = [silent.address, other.address];
        let error = TcpStream::connect_any(&addresses, &options).await.unwrap_err();
        assert!(error.is_timed_out(), "{error}");
        eventually_here("all are closed", || descriptors() == before).await;
    });
}

fn a_connect_given_up_at_any_stage_leaves_no_socket(engine: Engine) {
    run(engine, async {
        let silent = Silent::new();
        let (_listener, address) = listener();
        let addresses = [silent.address, address];
        let options = ConnectOptions {
            attempt_delay: Duration::from_millis(10),
            ..ConnectOptions::default()
        };
        let before = descriptors();
        for stage in 0..20 {
            let connecting = TcpStream::connect_any(&addresses, &options);
            let limit = Duration::from_millis(stage);
            drop(time::timeout(limit, connecting).await);
            turns(stage as usize % 4).await;
            eventually_here("what was tried is closed", || descriptors() == before).await;
        }
    });
}
