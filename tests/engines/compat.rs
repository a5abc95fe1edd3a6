//! What is written for other runtimes runs on a shard: hyper, axum, tokio's I/O traits.
//!
//! K8 → hyper_serves_a_connection_that_is_kept_alive, an_axum_router_answers

use std::cell::Cell;
use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::TcpStream as StdStream;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use annulus::compat::Tokio;
use annulus::compat::hyper::{Io, ShardExecutor, ShardTimer};
use annulus::net::TcpStream;
use annulus::{Engine, task, time};
use axum::Router;
use axum::extract::Path;
use axum::routing::{get, post};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::rt::{Executor, Timer};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tower_service::Service;

use crate::harness::{
    Server, builder, eventually, eventually_here, pair, pattern, run, run_with, turns,
};

on_every_engine!(
    hyper_serves_a_connection_that_is_kept_alive,
    hyper_reads_and_writes_chunked_bodies,
    hyper_serves_a_hundred_beside_a_slow_one,
    hyper_gives_up_a_head_that_does_not_come,
    an_axum_router_answers,
    tokios_readers_and_writers_work_on_a_stream,
    a_sleep_of_hypers_may_be_dropped_moved_and_reset,
    the_executor_runs_what_is_not_send,
);

type Answer = Result<Response<Full<Bytes>>, Infallible>;

async fn answer(request: Request<Incoming>) -> Answer {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    if path == "/slow" {
        // Not Send, and for as long as its peer likes.
        let held = Rc::new(body);
        time::sleep(Duration::from_secs(3600)).await;
        return Ok(Response::new(Full::new((*held).clone())));
    }
    Ok(Response::new(Full::new(if body.is_empty() { Bytes::from(path) } else { body })))
}

async fn serve(stream: TcpStream) {
    let mut server = http1::Builder::new();
    server.timer(ShardTimer).header_read_timeout(Duration::from_secs(100));
    let _ = server.serve_connection(Io::new(stream), service_fn(answer)).await;
}

fn ask(peer: &mut StdStream, request: &str) {
    peer.write_all(request.as_bytes()).unwrap();
}

/// Reads a response: its first line and its body, which has a length or chunks.
fn response(peer: &mut StdStream) -> (String, Vec<u8>) {
    let mut bytes = Vec::new();
    let head = read_past(peer, &mut bytes, b"\r\n\r\n");
    let lower = head.to_lowercase();
    let length = lower.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = Vec::new();
    if let Some(length) = length {
        body = vec![0; length.parse().unwrap()];
        peer.read_exact(&mut body).unwrap();
    } else {
        assert!(lower.contains("transfer-encoding: chunked"), "{head}");
        loop {
            let size = read_past(peer, &mut bytes, b"\r\n");
            let size = usize::from_str_radix(size.trim(), 16).unwrap();
            let mut chunk = vec![0; size + 2];
            peer.read_exact(&mut chunk).unwrap();
            body.extend_from_slice(&chunk[..size]);
            if size == 0 {
                break;
            }
        }
    }
    (head.lines().next().unwrap().to_owned(), body)
}

fn read_past(peer: &mut StdStream, bytes: &mut Vec<u8>, end: &[u8]) -> String {
    bytes.clear();
    while !bytes.ends_with(end) {
        let mut byte = [0];
        peer.read_exact(&mut byte).unwrap();
        bytes.push(byte[0]);
    }
    String::from_utf8(bytes.clone()).unwrap()
}

fn hyper_serves_a_connection_that_is_kept_alive(engine: Engine) {
    let server = Server::start(builder(engine), serve);
    let mut peer = server.connect();
    for round in 0..20 {
        ask(&mut peer, &format!("GET /{round} HTTP/1.1\r\nhost: x\r\n\r\n"));
        let expected = ("HTTP/1.1 200 OK".to_owned(), format!("/{round}").into_bytes());
        assert_eq!(response(&mut peer), expected);
    }
    // Several at once, and the last one closes.
    ask(
        &mut peer,
        "GET /a HTTP/1.1\r\nhost: x\r\n\r\nGET /b HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    );
    assert_eq!(response(&mut peer).1, b"/a");
    assert_eq!(response(&mut peer).1, b"/b");
    assert_eq!(peer.read(&mut [0]).unwrap(), 0);
}

fn hyper_reads_and_writes_chunked_bodies(engine: Engine) {
    let echo = |stream: TcpStream| async move {
        let service = service_fn(|request: Request<Incoming>| async {
            Ok::<_, Infallible>(Response::new(request.into_body()))
        });
        let _ = http1::Builder::new().serve_connection(Io::new(stream), service).await;
    };
    let server = Server::start(builder(engine), echo);
    let mut peer = server.connect();
    ask(&mut peer, "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
    let mut writer = peer.try_clone().unwrap();
    let writing = std::thread::spawn(move || {
        for part in 0..50 {
            let chunk = pattern(part * 10_000, 10_000);
            writer.write_all(format!("{:x}\r\n", chunk.len()).as_bytes()).unwrap();
            writer.write_all(&chunk).unwrap();
            writer.write_all(b"\r\n").unwrap();
        }
        writer.write_all(b"0\r\n\r\n").unwrap();
    });
    let (status, body) = response(&mut peer);
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert!(body == pattern(0, 500_000), "{} bytes came back", body.len());
    writing.join().unwrap();
}

fn hyper_serves_a_hundred_beside_a_slow_one(engine: Engine) {
    let server = Server::start(builder(engine), serve);
    let mut slow = server.connect();
    ask(&mut slow, "GET /slow HTTP/1.1\r\nhost: x\r\n\r\n");
    let mut peers: Vec<StdStream> = (0..100).map(|_| server.connect()).collect();
    for (number, peer) in peers.iter_mut().enumerate() {
        ask(peer, &format!("GET /{number} HTTP/1.1\r\nhost: x\r\n\r\n"));
    }
    for (number, peer) in peers.iter_mut().enumerate() {
        assert_eq!(response(peer).1, format!("/{number}").into_bytes());
    }
    slow.set_nonblocking(true).unwrap();
    assert!(slow.read(&mut [0]).is_err(), "the slow one is not answered yet");
    // Its handler ends when its peer does.
    drop((slow, peers));
    eventually("every connection has ended", || server.handle.connections() == 0);
}

fn hyper_gives_up_a_head_that_does_not_come(engine: Engine) {
    let timed_out = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&timed_out);
    let serve = move |stream: TcpStream| {
        let seen = Arc::clone(&seen);
        async move {
            let mut server = http1::Builder::new();
            server.timer(ShardTimer).header_read_timeout(Duration::from_millis(50));
            let served = server.serve_connection(Io::new(stream), service_fn(answer)).await;
            seen.store(served.is_err_and(|error| error.is_timeout()), Ordering::SeqCst);
        }
    };
    let server = Server::start(builder(engine), serve);
    let mut peer = server.connect();
    for _ in 0..5 {
        // Each head begins the time anew.
        ask(&mut peer, "GET /x HTTP/1.1\r\nhost: x\r\n\r\n");
        assert_eq!(response(&mut peer).1, b"/x");
    }
    ask(&mut peer, "GET /x HTT");
    let mut rest = Vec::new();
    peer.read_to_end(&mut rest).unwrap();
    let rest = String::from_utf8(rest).unwrap();
    assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 408"), "{rest}");
    eventually("it was the time", || timed_out.load(Ordering::SeqCst));
}

fn an_axum_router_answers(engine: Engine) {
    let serve = |stream: TcpStream| async move {
        let hello = |Path(name): Path<String>| async move { format!("hello, {name}") };
        let router = Router::new()
            .route("/hello/{name}", get(hello))
            .route("/echo", post(|body: Bytes| async { body }));
        let service = service_fn(move |request: Request<Incoming>| router.clone().call(request));
        let _ = http1::Builder::new().serve_connection(Io::new(stream), service).await;
    };
    let server = Server::start(builder(engine), serve);
    let mut peer = server.connect();
    ask(&mut peer, "GET /hello/you HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!(response(&mut peer), ("HTTP/1.1 200 OK".into(), b"hello, you".to_vec()));
    ask(&mut peer, "GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!(response(&mut peer).0, "HTTP/1.1 404 Not Found");
    ask(&mut peer, "GET /echo HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!(response(&mut peer).0, "HTTP/1.1 405 Method Not Allowed");
    let body = pattern(0, 100_000);
    ask(&mut peer, "POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n");
    peer.write_all(&body).unwrap();
    assert!(response(&mut peer).1 == body, "the body differs");
}

fn tokios_readers_and_writers_work_on_a_stream(engine: Engine) {
    run(engine, async {
        let (stream, mut peer) = pair().await;
        let answering = std::thread::spawn(move || {
            let mut question = [0; 9];
            peer.read_exact(&mut question).unwrap();
            peer.write_all(b"one\ntwo\n").unwrap();
            peer.write_all(&pattern(0, 300_000)).unwrap();
            let mut rest = Vec::new();
            peer.read_to_end(&mut rest).unwrap();
            rest
        });
        let mut stream = Tokio::new(stream);
        stream.write_all(b"question?").await.unwrap();
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        stream.read_line(&mut line).await.unwrap();
        assert_eq!(line, "one\ntwo\n");
        let mut bytes = vec![0; 300_000];
        stream.read_exact(&mut bytes).await.unwrap();
        assert!(bytes == pattern(0, 300_000), "the bytes differ");
        stream.write_all(&bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        eventually_here("the peer has read all", || answering.is_finished()).await;
        assert!(answering.join().unwrap() == bytes, "the bytes differ");
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
        assert!(stream.get_ref().recv().await.unwrap().is_none());
    });
}

fn a_sleep_of_hypers_may_be_dropped_moved_and_reset(engine: Engine) {
    let far = Duration::from_secs(3600);
    run_with(builder(engine).paused_clock(true), async move {
        let now = || ShardTimer.now();
        let start = now();
        ShardTimer.sleep(Duration::from_millis(70)).await;
        assert_eq!(now() - start, Duration::from_millis(70));
        // Moved later, and earlier, while it is awaited.
        for (first, then) in [(30, 90), (9_000, 20)] {
            let start = now();
            let mut sleep = ShardTimer.sleep(Duration::from_millis(first));
            turns(1).await;
            let polled = std::future::poll_fn(|context| {
                std::task::Poll::Ready(sleep.as_mut().poll(context).is_ready())
            });
            assert!(!polled.await);
            turns(2).await;
            ShardTimer.reset(&mut sleep, start + Duration::from_millis(then));
            sleep.await;
            assert_eq!(now() - start, Duration::from_millis(then));
        }
        // Dropped, here or elsewhere, it leaves nothing that sleeps.
        let before = task::all().len();
        for elsewhere in [false, true] {
            let mut sleep = ShardTimer.sleep(far);
            let _ = time::timeout(Duration::ZERO, &mut sleep).await;
            turns(2).await;
            assert_eq!(task::all().len(), before + 1);
            if elsewhere {
                std::thread::spawn(move || drop(sleep)).join().unwrap();
            } else {
                drop(sleep);
            }
            while task::all().len() > before {
                turns(1).await;
            }
        }
        assert!(now() - start < far, "nobody waited for it");
    });
}

fn the_executor_runs_what_is_not_send(engine: Engine) {
    run(engine, async {
        let seen = Rc::new(Cell::new(0));
        for _ in 0..3 {
            let seen = Rc::clone(&seen);
            ShardExecutor.execute(async move { seen.set(seen.get() + 1) });
        }
        eventually_here("all have run", || seen.get() == 3).await;
    });
}
