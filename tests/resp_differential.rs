//! Sends the same commands to a session and to redis-server, and compares the replies byte by byte.
//!
//! Run by `cargo test`. Where no redis-server is installed it says so and passes.
#![cfg(feature = "daemon")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use annulus::service::resp::client::Client;
use annulus::service::resp::{Next, RespSettings, Server, Session};
use annulus::store::{PartitionId, SlotMap, Store, access::LockedStore};

struct Redis {
    process: Child,
    stream: BufReader<TcpStream>,
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Redis {
    /// Starts a server of its own on a free port; `None` if there is no redis-server to start.
    fn start() -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port();
        let process = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--save", "", "--appendonly", "no"])
            .args(["--bind", "127.0.0.1", "--dir", &std::env::temp_dir().to_string_lossy()])
            .stdout(Stdio::null())
            .spawn()
            .ok()?;
        let mut redis = None;
        for _ in 0..200 {
            if let Ok(stream) = TcpStream::connect(("127.0.0.1", port)) {
                redis = Some(stream);
                break;
            }
            sleep(Duration::from_millis(25));
        }
        let stream = redis.expect("redis-server starts within five seconds");
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout can be set");
        Some(Self { process, stream: BufReader::new(stream) })
    }

    fn ask(&mut self, request: &[u8]) -> Vec<u8> {
        self.stream.get_mut().write_all(request).expect("redis-server takes a request");
        let mut reply = Vec::new();
        self.read_value(&mut reply);
        reply
    }

    fn read_value(&mut self, reply: &mut Vec<u8>) {
        let start = reply.len();
        self.stream.read_until(b'\n', reply).expect("redis-server replies");
        let head = String::from_utf8_lossy(&reply[start..]).into_owned();
        let number = || head[1..].trim_end().parse::<i64>().unwrap_or(0);
        match head.as_bytes()[0] {
            b'$' | b'=' if number() >= 0 => {
                let body = reply.len();
                reply.resize(body + number() as usize + 2, 0);
                self.stream.read_exact(&mut reply[body..]).expect("redis-server replies");
            }
            b'*' | b'~' | b'>' => (0..number()).for_each(|_| self.read_value(reply)),
            b'%' => (0..number() * 2).for_each(|_| self.read_value(reply)),
            _ => {}
        }
    }
}

/// A session with a whole store in reach.
struct Here {
    server: Server,
    store: Store,
}

impl Here {
    fn ask(&self, session: &mut Session, request: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let now_ms = now_ms();
        let advance =
            self.store.visit(|home| session.advance(request, home, &self.server, now_ms, &mut out));
        assert_eq!(advance.consumed, request.len());
        assert!(matches!(advance.next, Next::Read | Next::Close));
        assert!(session.outbox.is_empty());
        out
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// Splits a line into words; `"..."` may hold spaces, `\r`, `\n` and nothing.
fn words(line: &str) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut rest = line.trim();
    while !rest.is_empty() {
        let (word, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').expect("a closing quote"),
            None => rest.split_once(' ').unwrap_or((rest, "")),
        };
        words.push(word.replace("\\r", "\r").replace("\\n", "\n").into_bytes());
        rest = after.trim_start();
    }
    words
}

fn encode(words: &[Vec<u8>]) -> Vec<u8> {
    let mut request = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        request.extend_from_slice(word);
        request.extend_from_slice(b"\r\n");
    }
    request
}

fn compare(here: &Here) {
    let Some(mut redis) = Redis::start() else {
        eprintln!("no redis-server is installed: nothing to compare with");
        return;
    };
    let connect = |address: &str| {
        let local = "127.0.0.1:6379".to_owned();
        here.server.clients.connect(address.to_owned(), local, now_ms(), 10, Box::new(|| {}))
    };
    let registration = connect("127.0.0.1:1").expect("room for a client");
    let mut session = Session::new(Client::new(registration.record.clone(), true));
    let mut differences = Vec::new();
    let script = include_str!("corpus/resp_script.txt");
    for (number, line) in script.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        // The keys of the first places may lie behind a further cursor.
        if here.server.map.count() > 1 && line.starts_with("SCAN 0") {
            continue;
        }
        let request = encode(&words(line));
        let (theirs, ours) = (redis.ask(&request), here.ask(&mut session, &request));
        if theirs != ours && !line.starts_with("HELLO 3") {
            differences.push(format!(
                "line {}: {line}\n  redis:   {}\n  annulus: {}",
                number + 1,
                theirs.escape_ascii(),
                ours.escape_ascii()
            ));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

fn server(map: SlotMap) -> Server {
    Server::new(RespSettings::default(), map, now_ms())
}

#[test]
fn one_owned_partition_replies_like_redis() {
    let map = SlotMap::new(1);
    compare(&Here { server: server(map), store: Store::owning(map, PartitionId(0)) });
}

#[test]
fn many_locked_partitions_reply_like_redis() {
    let map = SlotMap::new(16);
    compare(&Here { server: server(map), store: LockedStore::new(map).open() });
}
