//! Listening, connecting, and what becomes of a connection's descriptor.

use std::future::Future;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener as StdListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use annulus::net::{TcpListener, TcpStream};
use annulus::{Engine, Errno, SocketOptions, task, time};
use socket2::{Domain, SockRef, Socket, Type};

use crate::harness::{
    Server, builder, connect, dead_address, echo, eventually, eventually_here, pair, receive_all,
    receive_exactly, run, turns,
};

on_every_engine!(
    accepted_connections_come_in_order_with_their_addresses,
    an_accepted_connection_has_nodelay_and_what_was_asked_for,
    a_listener_takes_over_a_socket_of_the_standard_library,
    shards_may_share_a_listener,
    a_refused_connect_says_whereto,
    after_a_refused_connect_its_descriptor_number_is_of_use_again,
    after_a_cancelled_connect_its_descriptor_number_is_of_use_again,
    a_connect_dropped_at_once_reaches_nobody,
    a_taken_address_is_named,
    a_connection_handle_ends_its_connection_and_no_other,
    a_connection_dropped_outside_of_the_runtime_is_closed,
    more_connections_than_are_accepted_ahead_wait_for_their_turn,
);

fn accepted_connections_come_in_order_with_their_addresses(engine: Engine) {
    run(engine, async {
        let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        assert_ne!(address.port(), 0);
        for _ in 0..5 {
            let peer = connect(address);
            let stream = listener.accept().await.unwrap();
            assert_eq!(stream.peer_addr().unwrap(), peer.local_addr().unwrap());
            assert_eq!(stream.local_addr().unwrap(), address);
        }
    });
}

fn an_accepted_connection_has_nodelay_and_what_was_asked_for(engine: Engine) {
    run(engine, async {
        let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let idle = Some(Duration::from_secs(77));
        listener.set_options(SocketOptions { nodelay: true, keepalive: idle }).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let stream = listener.accept().await.unwrap();
        assert!(SockRef::from(&client).tcp_nodelay().unwrap());
        assert!(SockRef::from(&stream).tcp_nodelay().unwrap());
        assert_eq!(SockRef::from(&stream).tcp_keepalive_time().unwrap().as_secs(), 77);
        assert!(!SockRef::from(&client).keepalive().unwrap());
        client.set_options(SocketOptions { nodelay: true, keepalive: idle }).unwrap();
        assert!(SockRef::from(&client).keepalive().unwrap());
        client.set_options(SocketOptions { nodelay: false, keepalive: None }).unwrap();
        assert!(!SockRef::from(&client).keepalive().unwrap());
        assert!(!SockRef::from(&client).tcp_nodelay().unwrap());
    });
}

fn a_listener_takes_over_a_socket_of_the_standard_library(engine: Engine) {
    run(engine, async {
        let socket = StdListener::bind("127.0.0.1:0").unwrap();
        // Whatever the mode it comes in.
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap();
        let listener = TcpListener::from_std(socket).unwrap();
        let accepting = task::spawn(async move { listener.accept().await.unwrap() });
        turns(3).await;
        let mut peer = connect(address);
        let stream = accepting.await.unwrap();
        peer.write_all(b"hello").unwrap();
        assert_eq!(receive_exactly(&stream, 5).await, b"hello");
    });
}

fn shards_may_share_a_listener(engine: Engine) {
    let runtime = builder(engine).shards(3).build().unwrap();
    let socket = StdListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let accepted = Arc::new(AtomicUsize::new(0));
    let (count, socket) = (Arc::clone(&accepted), Arc::new(socket));
    let peers = std::thread::spawn(move || {
        (0..60).map(|_| connect(address)).inspect(|_| std::thread::yield_now()).collect::<Vec<_>>()
    });
    runtime
        .run_on_all(move |_| {
            let (count, socket) = (Arc::clone(&count), socket.try_clone().unwrap());
            async move {
                // Something else is waited for as well.
                let (idle, _peer) = pair().await;
                let waiting = task::spawn(async move { idle.recv().await.map(drop) });
                let listener = TcpListener::from_std(socket).unwrap();
                let accepting = {
                    let count = Arc::clone(&count);
                    task::spawn(async move {
                        loop {
                            drop(listener.accept().await.unwrap());
                            count.fetch_add(1, Ordering::Relaxed);
                        }
                    })
                };
                let all = || count.load(Ordering::Relaxed) == 60;
                eventually_here("each is accepted by one of them", all).await;
                assert!(accepting.abort());
                assert!(waiting.abort());
            }
        })
        .unwrap();
    assert!(runtime.shut_down().leaked.is_empty());
    drop(peers.join().unwrap());
    assert_eq!(accepted.load(Ordering::Relaxed), 60);
}

fn a_refused_connect_says_whereto(engine: Engine) {
    run(engine, async {
        let address = dead_address();
        let error = TcpStream::connect(address).await.unwrap_err();
        assert_eq!(error.errno(), Some(Errno(libc::ECONNREFUSED)));
        let text = format!("connecting to {address}: Connection refused (os error 111)");
        assert_eq!(error.to_string(), text);
    });
}

async fn works(stream: &TcpStream, peer: &mut std::net::TcpStream) {
    peer.write_all(b"ping").unwrap();
    assert_eq!(receive_exactly(stream, 4).await, b"ping");
    stream.send(b"pong").await.unwrap();
    let mut answer = [0; 4];
    peer.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"pong");
}

fn after_a_refused_connect_its_descriptor_number_is_of_use_again(engine: Engine) {
    run(engine, async {
        for _ in 0..3 {
            TcpStream::connect(dead_address()).await.unwrap_err();
            let (stream, mut peer) = pair().await;
            works(&stream, &mut peer).await;
        }
    });
}

/// A listener that is full: a connect to it waits.
fn full_listener() -> (Socket, std::net::SocketAddr, Vec<Socket>) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let fillers = (0..4).map(|_| {
        let filler = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        filler.set_nonblocking(true).unwrap();
        let _ = filler.connect(&address);
        filler
    });
    let fillers = fillers.collect();
    std::thread::sleep(Duration::from_millis(5));
    (listener, address.as_socket().unwrap(), fillers)
}

fn after_a_cancelled_connect_its_descriptor_number_is_of_use_again(engine: Engine) {
    run(engine, async {
        let (_listener, address, _fillers) = full_listener();
        for round in 0..3 {
            let connecting = task::spawn(TcpStream::connect(address));
            turns(round + 1).await;
            assert!(connecting.abort());
            assert!(connecting.await.unwrap_err().is_cancelled());
            let (stream, mut peer) = pair().await;
            works(&stream, &mut peer).await;
        }
    });
}

fn a_connect_dropped_at_once_reaches_nobody(engine: Engine) {
    run(engine, async {
        // The first attempt is dropped in the turn in which it was begun; the second takes its
        // descriptor number in the same turn. Neither may act for the other.
        let wrong = StdListener::bind("127.0.0.1:0").unwrap();
        let right = StdListener::bind("127.0.0.1:0").unwrap();
        let mut first = Box::pin(TcpStream::connect(wrong.local_addr().unwrap()));
        let pending = std::future::poll_fn(|context| {
            std::task::Poll::Ready(first.as_mut().poll(context).is_pending())
        });
        let _ = pending.await;
        drop(first);
        let stream = TcpStream::connect(right.local_addr().unwrap()).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), right.local_addr().unwrap());
        let (mut peer, _) = right.accept().unwrap();
        works(&stream, &mut peer).await;
    });
}

fn a_taken_address_is_named(engine: Engine) {
    run(engine, async {
        let taken = StdListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let error = TcpListener::bind(address).unwrap_err();
        assert!(error.is_address_in_use());
        let text = format!("listening on {address}: Address already in use (os error 98)");
        assert_eq!(error.to_string(), text);
    });
}

fn a_connection_handle_ends_its_connection_and_no_other(engine: Engine) {
    run(engine, async {
        let (one, _one_peer) = pair().await;
        let (other, mut other_peer) = pair().await;
        let handle = one.handle();
        let ending = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(3));
            let ended = handle.shutdown(annulus::Direction::Both);
            (handle, ended)
        });
        assert!(receive_all(&one).await.is_empty());
        let (handle, ended) = ending.join().unwrap();
        assert!(ended);
        drop(one);
        assert!(!handle.shutdown(annulus::Direction::Both), "it is closed");
        // This one has the number of the closed one, and its place in the list.
        let (third, mut third_peer) = pair().await;
        assert!(!handle.shutdown(annulus::Direction::Both), "it is another one");
        works(&third, &mut third_peer).await;
        works(&other, &mut other_peer).await;
    });
}

fn a_connection_dropped_outside_of_the_runtime_is_closed(engine: Engine) {
    let runtime = builder(engine).build().unwrap();
    for _ in 0..3 {
        let (stream, mut peer) = runtime.block_on(async {
            let (stream, mut peer) = pair().await;
            works(&stream, &mut peer).await;
            (stream, peer)
        });
        drop(stream);
        runtime.block_on(async {
            // Its receive is over, and its number serves the next connection.
            let handle = annulus::Handle::current();
            let listener = StdListener::bind("127.0.0.1:0").unwrap();
            let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (mut other, _) = listener.accept().unwrap();
            works(&stream, &mut other).await;
            assert_eq!(handle.connections(), 1);
        });
        assert_eq!(peer.read(&mut [0; 8]).unwrap(), 0, "the peer sees the end");
    }
}

fn more_connections_than_are_accepted_ahead_wait_for_their_turn(engine: Engine) {
    run(engine, async {
        let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let first = connect(address);
        listener.accept().await.unwrap();
        drop(first);
        // The task does not accept for a while; the runtime takes a bounded number ahead.
        let peers: Vec<_> = (0..600).map(|_| connect(address)).collect();
        time::sleep(Duration::from_millis(20)).await;
        let mut streams = Vec::new();
        for peer in &peers {
            let stream = listener.accept().await.unwrap();
            assert_eq!(stream.peer_addr().unwrap(), peer.local_addr().unwrap());
            streams.push(stream);
        }
        let handle = annulus::Handle::current();
        assert_eq!(handle.connections(), 600);
        drop(streams);
        eventually_here("all are closed", || handle.connections() == 0).await;
    });
    let server = Server::start(builder(engine), echo);
    let peers: Vec<_> = (0..50).map(|_| server.connect()).collect();
    eventually("all are served", || server.handle.connections() == 50);
    drop(peers);
}
