//! Streams: connecting, accepting, receiving, sending.

use std::io::Write;
use std::net::TcpListener as StdListener;
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::time::Duration;

use annulus::net::{ConnectOptions, TcpListener, TcpStream, UnixListener, UnixStream, resolve};
use annulus::{Direction, Engine, Payload, SocketOptions};

use super::{at_every_await, drain, later, prefix, small};
use crate::harness::{Scratch, connect, dead_address, pair, pattern, run_with};

on_every_engine!(
    alone: connecting,
    connecting_to_names,
    accepting,
    receiving,
    receiving_by_halves,
    sending,
    sending_by_halves,
    ending_a_direction,
);

/// More than the buffers of a connection hold.
const MUCH: usize = 900_000;

fn unix_pair() -> (UnixStream, StdUnixStream) {
    let (ours, theirs) = StdUnixStream::pair().unwrap();
    (UnixStream::from_std(ours).unwrap(), theirs)
}

/// What has come, and then the rest, up to so many bytes.
macro_rules! all_of {
    ($stream:expr, $first:expr, $count:expr) => {{
        let mut all = $first.map_or_else(Vec::new, |chunk| chunk.unwrap().unwrap().to_vec());
        while all.len() < $count {
            all.extend_from_slice(&$stream.recv().await.unwrap().unwrap());
        }
        all
    }};
}

fn connecting(engine: Engine) {
    let scratch = Scratch::new();
    run_with(small(engine), async {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let made = |stream: Option<annulus::Result<TcpStream>>| {
            let peer = stream.map(|stream| stream.unwrap().peer_addr().unwrap());
            assert!(peer.is_none_or(|peer| peer == address));
        };
        at_every_await("connect", async |cut| {
            made(cut.until(TcpStream::connect(address)).await);
        })
        .await;
        at_every_await("connect_with", async |cut| {
            let options = SocketOptions::default();
            made(cut.until(TcpStream::connect_with(address, options)).await);
        })
        .await;
        at_every_await("connect_any", async |cut| {
            let (addresses, options) = ([dead_address(), address], ConnectOptions::default());
            made(cut.until(TcpStream::connect_any(&addresses, &options)).await);
        })
        .await;
        at_every_await("connect, refused", async |cut| {
            let refused = cut.until(TcpStream::connect(dead_address())).await;
            assert!(refused.is_none_or(|refused| refused.is_err()));
        })
        .await;
        let path = scratch.file("socket");
        let _listener = StdUnixListener::bind(&path).unwrap();
        at_every_await("UnixStream::connect", async |cut| {
            let made = cut.until(UnixStream::connect(&path)).await;
            assert!(made.is_none_or(|made| made.is_ok()));
        })
        .await;
    });
}

fn connecting_to_names(engine: Engine) {
    run_with(small(engine), async {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        // The resolver may keep a descriptor of its own from the first time on.
        resolve("localhost", port).await.unwrap();
        at_every_await("resolve", async |cut| {
            let found = cut.until(resolve("localhost", port)).await;
            assert!(found.is_none_or(|found| !found.unwrap().is_empty()));
        })
        .await;
        at_every_await("connect_to", async |cut| {
            let made = cut.until(TcpStream::connect_to("localhost", port)).await;
            assert!(made.is_none_or(|made| made.is_ok()));
        })
        .await;
        at_every_await("connect_to_with", async |cut| {
            let timeout = Some(Duration::from_secs(3600));
            let options = ConnectOptions { timeout, ..ConnectOptions::default() };
            let connecting = TcpStream::connect_to_with("localhost", port, &options);
            let made = cut.until(connecting).await;
            assert!(made.is_none_or(|made| made.is_ok()));
        })
        .await;
        // One attempt hangs, the next is made beside it, and both are given up.
        let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let full = full.unwrap();
        full.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
        full.listen(0).unwrap();
        let hangs = full.local_addr().unwrap().as_socket().unwrap();
        let _fills = connect(hangs);
        at_every_await("connect_any with one that hangs", async |cut| {
            let delay = Duration::from_millis(10);
            let options = ConnectOptions { attempt_delay: delay, ..ConnectOptions::default() };
            let addresses = [hangs, listener.local_addr().unwrap()];
            let made = cut.until(TcpStream::connect_any(&addresses, &options)).await;
            assert!(made.is_none_or(|made| made.unwrap().peer_addr().unwrap() == addresses[1]));
        })
        .await;
    });
}

fn accepting(engine: Engine) {
    let scratch = Scratch::new();
    run_with(small(engine), async {
        let address = "127.0.0.1:0".parse().unwrap();
        at_every_await("TcpListener::accept", async |cut| {
            let listener = TcpListener::bind(address).unwrap();
            let address = listener.local_addr().unwrap();
            let peer = later(move || connect(address));
            let stream = match cut.until(listener.accept()).await {
                Some(stream) => stream.unwrap(),
                None => listener.accept().await.unwrap(),
            };
            assert_eq!(stream.peer_addr().unwrap(), peer.await.unwrap().local_addr().unwrap());
        })
        .await;
        at_every_await("UnixListener::accept", async |cut| {
            let path = scratch.file("listener");
            let listener = UnixListener::bind(&path).unwrap();
            let peer = {
                let path = path.clone();
                later(move || StdUnixStream::connect(path).unwrap())
            };
            let stream = match cut.until(listener.accept()).await {
                Some(stream) => stream.unwrap(),
                None => listener.accept().await.unwrap(),
            };
            peer.await.unwrap().write_all(b"x").unwrap();
            assert_eq!(*stream.recv().await.unwrap().unwrap(), *b"x");
            std::fs::remove_file(&path).unwrap();
        })
        .await;
    });
}

fn receiving(engine: Engine) {
    run_with(small(engine), async {
        at_every_await("TcpStream::recv", async |cut| {
            let (stream, mut peer) = pair().await;
            let peer = later(move || peer.write_all(&pattern(0, 9000)).map(|()| peer));
            let first = cut.until(stream.recv()).await;
            assert!(all_of!(stream, first, 9000) == pattern(0, 9000), "bytes are lost");
            drop(peer.await.unwrap().unwrap());
            assert!(stream.recv().await.unwrap().is_none());
        })
        .await;
        at_every_await("UnixStream::recv", async |cut| {
            let (stream, mut peer) = unix_pair();
            let peer = later(move || peer.write_all(&pattern(0, 9000)).map(|()| peer));
            let first = cut.until(stream.recv()).await;
            assert!(all_of!(stream, first, 9000) == pattern(0, 9000), "bytes are lost");
            drop(peer.await.unwrap().unwrap());
        })
        .await;
        at_every_await("TcpStream::recv_into", async |cut| {
            let (stream, mut peer) = pair().await;
            let peer = later(move || peer.write_all(b"seven b").map(|()| peer));
            let read = cut.until(stream.recv_into(Vec::with_capacity(100))).await;
            assert!(read.is_none_or(|read| read.unwrap().into_vec() == b"seven b"));
            drop(peer.await.unwrap().unwrap());
        })
        .await;
        at_every_await("UnixStream::recv_into", async |cut| {
            let (stream, mut peer) = unix_pair();
            let peer = later(move || peer.write_all(b"seven b").map(|()| peer));
            let read = cut.until(stream.recv_into(Vec::with_capacity(100))).await;
            assert!(read.is_none_or(|read| read.unwrap().into_vec() == b"seven b"));
            drop(peer.await.unwrap().unwrap());
        })
        .await;
    });
}

fn receiving_by_halves(engine: Engine) {
    run_with(small(engine), async {
        at_every_await("ReadHalf<TcpStream>::recv", async |cut| {
            let (stream, mut peer) = pair().await;
            let (mut reader, writer) = stream.split();
            let peer = later(move || peer.write_all(&pattern(0, 900)).map(|()| peer));
            let first = cut.until(reader.recv()).await;
            assert_eq!(all_of!(reader, first, 900), pattern(0, 900));
            drop((peer.await.unwrap().unwrap(), writer));
        })
        .await;
        at_every_await("ReadHalf<UnixStream>::recv", async |cut| {
            let (stream, mut peer) = unix_pair();
            let (mut reader, writer) = stream.split();
            drop(writer);
            let peer = later(move || peer.write_all(&pattern(0, 900)).map(|()| peer));
            let first = cut.until(reader.recv()).await;
            assert_eq!(all_of!(reader, first, 900), pattern(0, 900));
            drop(peer.await.unwrap().unwrap());
        })
        .await;
    });
}

/// The pattern in parts, as many bytes as [`MUCH`].
fn parts() -> Vec<Payload> {
    (0..30).map(|part| pattern(part * MUCH / 30, MUCH / 30).into()).collect()
}

fn sending(engine: Engine) {
    run_with(small(engine), async {
        at_every_await("TcpStream::send", async |cut| {
            let (stream, peer) = pair().await;
            let peer = drain(peer);
            let sending = async { stream.send(pattern(0, MUCH)).await.unwrap().len() };
            let sent = cut.until(sending).await;
            drop(stream);
            prefix(sent, MUCH, peer).await;
        })
        .await;
        at_every_await("UnixStream::send", async |cut| {
            let (stream, peer) = unix_pair();
            let peer = drain(peer);
            let sending = async { stream.send(pattern(0, MUCH)).await.unwrap().len() };
            let sent = cut.until(sending).await;
            drop(stream);
            prefix(sent, MUCH, peer).await;
        })
        .await;
        at_every_await("TcpStream::send_vectored", async |cut| {
            let (stream, peer) = pair().await;
            let peer = drain(peer);
            let sending = async { stream.send_vectored(parts()).await.unwrap().len() };
            let sent = cut.until(sending).await;
            drop(stream);
            prefix(sent.map(|parts| parts * MUCH / 30), MUCH, peer).await;
        })
        .await;
        at_every_await("UnixStream::send_vectored", async |cut| {
            let (stream, peer) = unix_pair();
            let peer = drain(peer);
            let sending = async { stream.send_vectored(parts()).await.unwrap().len() };
            let sent = cut.until(sending).await;
            drop(stream);
            prefix(sent.map(|parts| parts * MUCH / 30), MUCH, peer).await;
        })
        .await;
        at_every_await("send of a received chunk", async |cut| {
            let (stream, mut peer) = pair().await;
            peer.write_all(b"back").unwrap();
            let chunk = stream.recv().await.unwrap().unwrap();
            cut.past(stream.send(chunk)).await;
        })
        .await;
    });
}

fn sending_by_halves(engine: Engine) {
    run_with(small(engine), async {
        at_every_await("WriteHalf::send", async |cut| {
            let (stream, peer) = pair().await;
            let peer = drain(peer);
            let (reader, mut writer) = stream.split();
            let sending = async { writer.send(pattern(0, MUCH)).await.unwrap().len() };
            let sent = cut.until(sending).await;
            drop((reader, writer));
            prefix(sent, MUCH, peer).await;
        })
        .await;
        at_every_await("WriteHalf::send_vectored", async |cut| {
            let (stream, peer) = unix_pair();
            let peer = drain(peer);
            let (reader, mut writer) = stream.split();
            let sending = async { writer.send_vectored(parts()).await.unwrap().len() };
            let sent = cut.until(sending).await;
            drop((reader, writer));
            prefix(sent.map(|parts| parts * MUCH / 30), MUCH, peer).await;
        })
        .await;
    });
}

fn ending_a_direction(engine: Engine) {
    run_with(small(engine), async {
        at_every_await("TcpStream::shutdown", async |cut| {
            let (stream, peer) = pair().await;
            let peer = drain(peer);
            let shut = cut.until(stream.shutdown(Direction::Write)).await;
            assert!(shut.is_none_or(|shut| shut.is_ok()));
            drop(stream);
            prefix(Some(0), 0, peer).await;
        })
        .await;
        at_every_await("UnixStream::shutdown", async |cut| {
            let (stream, _peer) = unix_pair();
            let shut = cut.until(stream.shutdown(Direction::Both)).await;
            assert!(shut.is_none_or(|shut| shut.is_ok()));
        })
        .await;
        at_every_await("WriteHalf::shutdown", async |cut| {
            let (stream, mut peer) = pair().await;
            let (mut reader, mut writer) = stream.split();
            let shut = cut.until(writer.shutdown()).await;
            assert!(shut.is_none_or(|shut| shut.is_ok()));
            drop(writer);
            // The half that is left goes on.
            peer.write_all(b"x").unwrap();
            assert_eq!(*reader.recv().await.unwrap().unwrap(), *b"x");
        })
        .await;
    });
}
