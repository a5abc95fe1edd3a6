//! The service over real connections, on every engine.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream as Client};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{About, HttpService, HttpSettings};
use crate::clock;
use crate::log::{Log, Lsn, Policy};
use crate::net::{TcpListener, serve_connection};
use crate::protocol::http1::corpus::heads;
use crate::shard::placement::Placement;
use crate::store::access::LockedStore;
use crate::store::{Partition, PartitionId, SlotMap, Store};
use crate::{Engine, Handle, Runtime, time};

const ENGINES: [Engine; 3] = [Engine::Uring, Engine::Epoll, Engine::Threads];

/// Beyond this a test fails for waiting.
const PATIENCE: Duration = Duration::from_secs(10);

/// A runtime on threads of its own that serves HTTP; ends when dropped.
pub(super) struct Server {
    address: SocketAddr,
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(engine: Engine, shards: usize, settings: HttpSettings) -> Self {
        Self::start_logged(engine, shards, settings, None)
    }

    fn start_logged(
        engine: Engine,
        shards: usize,
        settings: HttpSettings,
        log: Option<Arc<Log>>,
    ) -> Self {
        let (sender, receiver) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = Runtime::builder()
                .engine(engine)
                .shards(shards)
                .cpu_cores(1)
                .placement(Placement::Floating)
                .build()
                .unwrap();
            let registry = runtime.metrics().clone();
            let service = Arc::new(HttpService::new(settings, &About::default(), registry));
            let map = SlotMap::new(shards);
            let partitions = map.partitions().map(|id| Partition::new(map.slots(id))).collect();
            let locked = LockedStore::holding(map, partitions, log.clone());
            let handle = runtime.handle();
            // On every shard before the first connection: its requests may go to any.
            runtime
                .run_on_all(move |id| {
                    if engine != Engine::Threads {
                        let id = PartitionId(id.0);
                        let own = Partition::new(map.slots(id));
                        Store::owning_partition(map, id, own, log.clone()).install();
                    }
                    std::future::ready(())
                })
                .unwrap();
            runtime
                .run_on_all(move |id| {
                    let (service, locked) = (Arc::clone(&service), locked.clone());
                    let (handle, sender) = (handle.clone(), sender.clone());
                    async move {
                        if id.index() == 0 {
                            let listener =
                                TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
                            let address = listener.local_addr().unwrap();
                            sender.send((address, handle.clone())).unwrap();
                            accept(engine, &listener, &service, &locked).await;
                        }
                        while !crate::shard::is_draining() || handle.connections() > 0 {
                            time::sleep(Duration::from_millis(1)).await;
                        }
                    }
                })
                .unwrap();
        });
        let (address, handle) = receiver.recv().unwrap();
        Self { address, handle, thread: Some(thread) }
    }

    pub(super) fn connect(&self) -> Peer {
        let stream = Client::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Peer { stream, received: Vec::new() }
    }

    /// One request on a connection of its own.
    pub(super) fn ask(&self, request: &str) -> Reply {
        let mut peer = self.connect();
        peer.send(request.as_bytes());
        peer.reply(request.starts_with("HEAD"))
    }
}

async fn accept(
    engine: Engine,
    listener: &TcpListener,
    service: &Arc<HttpService>,
    locked: &LockedStore,
) {
    while let Ok(stream) = listener.accept().await {
        let (service, locked) = (Arc::clone(service), locked.clone());
        serve_connection("http", stream, move |stream| {
            if engine == Engine::Threads {
                locked.open().install();
            }
            service.serve(stream)
        })
        .unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.handle.drain();
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || matches!(ended, Some(Ok(()))));
    }
}

pub(super) struct Peer {
    pub(super) stream: Client,
    received: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) status: u16,
    head: String,
    pub(super) body: Vec<u8>,
}

impl Reply {
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.head.split("\r\n").find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

impl Peer {
    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    fn receive(&mut self) -> bool {
        let mut chunk = [0; 8192];
        match self.stream.read(&mut chunk) {
            Ok(0) => false,
            Ok(count) => {
                self.received.extend_from_slice(&chunk[..count]);
                true
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => false,
            Err(error) => panic!("{error}; received {}", self.received.escape_ascii()),
        }
    }

    pub(super) fn reply(&mut self, is_head: bool) -> Reply {
        let end = loop {
            let found = self.received.windows(4).position(|window| window == b"\r\n\r\n");
            if let Some(end) = found {
                break end + 4;
            }
            assert!(self.receive(), "closed after {}", self.received.escape_ascii());
        };
        let head = String::from_utf8(self.received.drain(..end).collect()).unwrap();
        let mut reply = Reply { status: head[9..12].parse().unwrap(), head, body: Vec::new() };
        let length = reply.field("Content-Length").map_or(0, |text| text.parse().unwrap());
        if !is_head {
            while self.received.len() < length {
                assert!(self.receive(), "closed within the body");
            }
            reply.body = self.received.drain(..length).collect();
        }
        reply
    }

    fn is_closed(&mut self) -> bool {
        assert!(self.received.is_empty(), "{}", self.received.escape_ascii());
        !self.receive()
    }
}

pub(super) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")
}

pub(super) fn put(path: &str, body: &str) -> String {
    format!("PUT {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

pub(super) fn on_every_engine(shards: usize, settings: HttpSettings, test: impl Fn(&Server)) {
    for engine in ENGINES {
        test(&Server::start(engine, shards, settings.clone()));
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    on_every_engine(1, HttpSettings::default(), |server| {
        let mut peer = server.connect();
        let requests: String = (0..1000)
            .map(|number| put(&format!("/kv/{number}"), &format!("v{number}")))
            .chain((0..1000).map(|number| get(&format!("/kv/{number}"))))
            .collect();
        let mut writer = peer.stream.try_clone().unwrap();
        let sending = std::thread::spawn(move || writer.write_all(requests.as_bytes()).unwrap());
        for _ in 0..1000 {
            assert_eq!(peer.reply(false).status, 201);
        }
        for number in 0..1000 {
            assert_eq!(peer.reply(false).body, format!("v{number}").as_bytes());
        }
        sending.join().unwrap();
    });
}

#[test]
fn keys_of_every_shard_are_reached() {
    on_every_engine(2, HttpSettings::default(), |server| {
        let mut peer = server.connect();
        for number in 0..32 {
            peer.send(put(&format!("/kv/key{number}"), &format!("{number}")).as_bytes());
            assert_eq!(peer.reply(false).status, 201);
        }
        let requests: String = (0..32).map(|number| get(&format!("/kv/key{number}"))).collect();
        peer.send(requests.as_bytes());
        for number in 0..32 {
            assert_eq!(peer.reply(false).body, format!("{number}").as_bytes());
        }
        peer.send(b"PUT /kv/key1?ttl=0 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(peer.reply(false).status, 400);
    });
}

#[test]
fn the_connection_stays_open_as_both_sides_agreed() {
    on_every_engine(1, HttpSettings::default(), |server| {
        for (fields, stays, line) in [
            ("HTTP/1.1\r\nHost: a", true, None),
            ("HTTP/1.1\r\nHost: a\r\nConnection: close", false, Some("close")),
            ("HTTP/1.0", false, Some("close")),
            ("HTTP/1.0\r\nConnection: keep-alive", true, Some("keep-alive")),
        ] {
            let mut peer = server.connect();
            let request = format!("GET /healthz {fields}\r\n\r\n");
            for _ in 0..3 {
                peer.send(request.as_bytes());
                let reply = peer.reply(false);
                assert_eq!((reply.status, reply.field("Connection")), (200, line), "{fields}");
                if !stays {
                    assert!(peer.is_closed(), "{fields}");
                    break;
                }
            }
        }
    });
}

#[test]
fn a_request_that_trickles_in_is_answered() {
    on_every_engine(1, HttpSettings::default(), |server| {
        let mut peer = server.connect();
        let chunked = "PUT /kv/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                       5;x=y\r\nhello\r\n0\r\nX: y\r\n\r\n";
        let requests = format!("{}{chunked}{}", put("/kv/a", "abc"), get("/kv/a"));
        for byte in requests.as_bytes() {
            peer.send(&[*byte]);
        }
        assert_eq!(peer.reply(false).status, 201);
        assert_eq!(peer.reply(false).status, 204);
        assert_eq!(peer.reply(false).body, b"hello");
    });
}

#[test]
fn chunks_that_end_within_a_request_lose_and_repeat_nothing() {
    on_every_engine(1, HttpSettings::default(), |server| {
        let mut peer = server.connect();
        let requests: String =
            (0..6).map(|number| put(&format!("/kv/{number}"), "some value")).collect();
        // Each chunk holds the end of one request and the beginning of the next.
        for chunk in requests.as_bytes().chunks(requests.len() / 6 * 5 / 4) {
            peer.send(chunk);
            std::thread::sleep(Duration::from_millis(10));
        }
        for _ in 0..6 {
            assert_eq!(peer.reply(false).status, 201);
        }
        peer.send(get("/healthz").as_bytes());
        assert_eq!(peer.reply(false).body, b"ok\n");
    });
}

#[test]
fn a_large_body_comes_through_whole() {
    on_every_engine(1, HttpSettings::default(), |server| {
        let body = "0123456789abcdef".repeat(128 * 1024);
        let mut peer = server.connect();
        peer.send(put("/kv/large", &body).as_bytes());
        assert_eq!(peer.reply(false).status, 201);
        let mut chunked =
            b"PUT /kv/large HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for chunk in body.as_bytes().chunks(10_000) {
            chunked.extend(format!("{:x}\r\n", chunk.len()).as_bytes());
            chunked.extend(chunk);
            chunked.extend(b"\r\n");
        }
        chunked.extend(b"0\r\n\r\n");
        chunked.extend(get("/kv/large").as_bytes());
        peer.send(&chunked);
        assert_eq!(peer.reply(false).status, 204);
        assert_eq!(peer.reply(false).body, body.as_bytes());
    });
}

#[test]
fn a_body_beyond_the_limit_is_refused_before_it_is_sent() {
    let mut settings = HttpSettings::default();
    settings.limits.body_bytes_max = 10;
    on_every_engine(1, settings, |server| {
        assert_eq!(server.ask(&put("/kv/a", "0123456789")).status, 201);
        let head = "PUT /kv/a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n";
        for rest in ["Content-Length: 11\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\nb\r\n"] {
            let mut peer = server.connect();
            peer.send(format!("{head}{rest}").as_bytes());
            let reply = peer.reply(false);
            assert_eq!((reply.status, reply.field("Connection")), (413, Some("close")));
            assert!(peer.is_closed());
        }
    });
}

#[test]
fn a_peer_that_expects_100_is_told_to_go_on_or_refused() {
    on_every_engine(1, HttpSettings::default(), |server| {
        let mut peer = server.connect();
        let expects = "HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
        peer.send(format!("PUT /kv/a {expects}").as_bytes());
        assert_eq!(peer.reply(false).status, 100);
        peer.send(b"hello");
        assert_eq!(peer.reply(false).status, 201);
        for (line, status) in [("PUT /nowhere", 404), ("POST /kv/a", 405)] {
            let mut peer = server.connect();
            peer.send(format!("{line} {expects}").as_bytes());
            assert_eq!(peer.reply(false).status, status);
            assert!(peer.is_closed());
        }
    });
}

#[test]
fn the_corpus_is_answered_over_the_wire_and_the_connection_closed() {
    on_every_engine(1, HttpSettings::default(), |server| {
        for case in heads().iter().filter(|case| case.status >= 400) {
            let mut peer = server.connect();
            peer.send(&case.input);
            let reply = peer.reply(false);
            let found = (reply.status, reply.field("Connection"));
            assert_eq!(found, (case.status, Some("close")), "{}", case.name);
            assert!(peer.is_closed(), "{}", case.name);
        }
    });
}

#[test]
fn replies_before_a_malformed_request_still_arrive() {
    on_every_engine(1, HttpSettings::default(), |server| {
        let mut peer = server.connect();
        peer.send(format!("{}GET / HTTP/1.1\nHost: a\n\n{0}", get("/healthz")).as_bytes());
        assert_eq!(peer.reply(false).body, b"ok\n");
        assert_eq!(peer.reply(false).status, 400);
        assert!(peer.is_closed());
    });
}

#[test]
fn a_slow_peer_is_answered_408_and_an_idle_one_closed_in_silence() {
    let settings = HttpSettings {
        header_timeout: Duration::from_millis(50),
        body_timeout: Duration::from_millis(50),
        idle_timeout: Duration::from_millis(100),
        ..HttpSettings::default()
    };
    on_every_engine(1, settings, |server| {
        let mut peer = server.connect();
        assert!(peer.is_closed(), "never said anything");
        for part in ["GET / HT", "PUT /kv/a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhell"] {
            let mut peer = server.connect();
            peer.send(part.as_bytes());
            let reply = peer.reply(false);
            assert_eq!((reply.status, reply.field("Connection")), (408, Some("close")), "{part}");
            assert!(peer.is_closed());
        }
        let mut peer = server.connect();
        peer.send(get("/healthz").as_bytes());
        assert_eq!(peer.reply(false).status, 200);
        assert!(peer.is_closed(), "idle after a request");
        let mut peer = server.connect();
        let start = clock::now();
        peer.stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        while peer.stream.peek(&mut [0]).is_err() {
            assert!(clock::now().since(start) < PATIENCE, "a head that never ends is put up with");
            peer.send(b"X");
        }
        assert_eq!(peer.reply(false).status, 408);
    });
}

#[test]
fn a_peer_that_does_not_read_is_given_up() {
    let settings = HttpSettings {
        send_timeout: Duration::from_millis(50),
        output_bytes_high: 1,
        ..HttpSettings::default()
    };
    on_every_engine(1, settings, |server| {
        let mut peer = server.connect();
        let body = "x".repeat(3_000);
        assert_eq!(server.ask(&put("/kv/a", &body)).status, 201);
        peer.stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let requests = get("/kv/a").repeat(20_000);
        // The write fails when the server gives up.
        let _ = peer.stream.write_all(requests.as_bytes());
        let start = clock::now();
        while server.handle.connections() > 0 {
            assert!(clock::now().since(start) < PATIENCE, "the connection is still held");
            std::thread::sleep(Duration::from_millis(10));
        }
    });
}

#[test]
fn a_half_closed_peer_gets_its_reply() {
    on_every_engine(1, HttpSettings::default(), |server| {
        let mut peer = server.connect();
        peer.send(get("/healthz").as_bytes());
        peer.stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(peer.reply(false).status, 200);
        assert!(peer.is_closed());
    });
}

#[test]
fn idle_connections_end_when_the_runtime_drains() {
    on_every_engine(1, HttpSettings::default(), |server| {
        let mut peer = server.connect();
        peer.send(get("/readyz").as_bytes());
        assert_eq!(peer.reply(false).status, 200);
        server.handle.drain();
        assert!(peer.is_closed());
    });
}

#[test]
fn pages_about_the_process_are_served() {
    on_every_engine(2, HttpSettings::default(), |server| {
        for (path, content) in [
            ("/", "<h1>annulus"),
            ("/healthz", "ok\n"),
            ("/readyz", "ready\n"),
            ("/metrics", "annulus_http_requests_total"),
            ("/stats", "\"http_request\""),
            ("/debug/operations", "shard operation"),
            ("/debug/tasks", "shard task"),
        ] {
            let reply = server.ask(&get(path));
            assert_eq!(reply.status, 200, "{path}");
            let body = String::from_utf8(reply.body.clone()).unwrap();
            assert!(body.contains(content), "{path}: {body}");
            let head = server.ask(&format!("HEAD {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
            assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
        }
        let reply = server.ask("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(reply.field("Allow"), Some("GET, HEAD, POST, PUT, DELETE, OPTIONS"));
        let reply = server.ask("DELETE /stats HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!((reply.status, reply.field("Allow")), (405, Some("GET, HEAD, OPTIONS")));
    });
}

#[test]
fn work_is_done_on_the_cpu_pool() {
    on_every_engine(1, HttpSettings::default(), |server| {
        let post = |path: &str, body: &str| server.ask(&put(path, body).replace("PUT", "POST"));
        let reply = post("/compute/digest?m=8&t=1&salt=0001020304050607", "secret");
        assert_eq!((reply.status, reply.field("Content-Type")), (200, Some("application/json")));
        let reply = post("/compute/compress?algorithm=zstd", &"a".repeat(10_000));
        assert_eq!(zstd::bulk::decompress(&reply.body, 20_000).unwrap(), [b'a'; 10_000]);
        assert_eq!(post("/compute/digest?t=99", "").status, 400);
        assert_eq!(post("/compute/compress", &"a".repeat(5 << 20)).status, 413);
    });
}

#[test]
fn an_idle_connection_takes_less_than_a_kilobyte() {
    let settings = HttpSettings::default();
    let service =
        Arc::new(HttpService::new(settings, &About::default(), crate::metrics::Registry::new(1)));
    fn future_bytes<F: Future>(_: impl FnOnce(crate::net::TcpStream) -> F) -> usize {
        size_of::<F>()
    }
    let bytes = future_bytes(|stream| service.serve(stream));
    assert!(bytes <= 1024, "{bytes} bytes");
}

#[test]
fn writes_to_a_full_disk_are_refused_and_reads_are_served() {
    for engine in ENGINES {
        let log = Arc::new(Log::new(2, Lsn::NONE, Policy::Never, Duration::ZERO));
        let settings = HttpSettings::default();
        let server = Server::start_logged(engine, 2, settings, Some(Arc::clone(&log)));
        let put = |key| {
            server.ask(&format!("PUT /kv/{key} HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nv"))
        };
        let ask = |line: &str| server.ask(&format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n"));
        for key in ["a", "b"] {
            assert_eq!(put(key).status, 201, "{engine:?}");
        }
        log.refuse("no room in /data".to_owned());
        for key in ["a", "b"] {
            let refused = put(key);
            let body = String::from_utf8_lossy(&refused.body).into_owned();
            assert_eq!(refused.status, 507, "{engine:?}");
            assert!(body.contains("no room in /data"), "{engine:?}: {body}");
            assert_eq!(ask(&format!("DELETE /kv/{key}")).status, 507, "{engine:?}");
            assert_eq!(ask(&format!("GET /kv/{key}")).body, b"v", "{engine:?}");
        }
        log.welcome();
        assert_eq!(put("a").status, 204, "{engine:?}");
    }
}
