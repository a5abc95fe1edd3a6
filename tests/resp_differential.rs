//! Sends the same commands to a session or the daemon and to redis-server, and compares the replies
//! byte by byte.
//!
//! Run by `cargo test`. Where no redis-server is installed it says so and passes.
#![cfg(feature = "daemon")]

use std::time::{SystemTime, UNIX_EPOCH};

use annulus::service::resp::client::Client;
use annulus::service::resp::{Next, RespSettings, Server, Session};
use annulus::store::{PartitionId, SlotMap, Store, access::LockedStore};

#[path = "resp/wire.rs"]
mod wire;

use self::wire::{Wire, encode, words};

/// A session with a whole store in reach.
struct Here {
    server: Server,
    store: Store,
}

impl Here {
    fn ask(&self, session: &mut Session, request: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let now_ms = now_ms();
        let advance = self
            .store
            .visit(|home| session.advance(request, home, &self.server, now_ms, &mut out))
            .0;
        assert_eq!(advance.consumed, request.len());
        assert!(matches!(advance.next, Next::Read | Next::Close));
        assert!(session.outbox.is_empty());
        out
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// Compares the replies to every line of the script; `ask` asks the server under test.
fn compare(partitions: usize, mut ask: impl FnMut(&[u8]) -> Vec<u8>) {
    let Some(mut redis) = Wire::redis() else {
        eprintln!("no redis-server is installed: nothing to compare with");
        return;
    };
    let mut differences = Vec::new();
    let script = include_str!("corpus/resp_script.txt");
    for (number, line) in script.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        // The keys of the first places may lie behind a further cursor.
        if partitions > 1 && line.starts_with("SCAN 0") {
            continue;
        }
        let request = encode(&words(line));
        let (theirs, ours) = (redis.ask(&request), ask(&request));
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

/// Compares a session that has all of `store` within reach.
fn compare_session(map: SlotMap, store: Store) {
    let server = Server::new(RespSettings::default(), map, now_ms());
    let here = Here { server, store };
    let (peer, own) = ("127.0.0.1:1".to_owned(), "127.0.0.1:6379".to_owned());
    let registration = here.server.clients.connect(peer, own, now_ms(), 10, Box::new(|| {}));
    let record = registration.expect("room for a client").record.clone();
    let mut session = Session::new(Client::new(record, true));
    compare(map.count(), |request| here.ask(&mut session, request));
}

#[test]
fn one_owned_partition_replies_like_redis() {
    let map = SlotMap::new(1);
    compare_session(map, Store::owning(map, PartitionId(0)));
}

#[test]
fn many_locked_partitions_reply_like_redis() {
    let map = SlotMap::new(16);
    compare_session(map, LockedStore::new(map).open());
}

#[test]
fn the_daemon_replies_like_redis_on_a_ring() {
    let mut annulus = Wire::annulus("uring");
    compare(3, |request| annulus.ask(request));
}

#[test]
fn the_daemon_replies_like_redis_on_epoll() {
    let mut annulus = Wire::annulus("epoll");
    compare(3, |request| annulus.ask(request));
}

#[test]
fn the_daemon_replies_like_redis_on_threads() {
    let mut annulus = Wire::annulus("threads");
    compare(3, |request| annulus.ask(request));
}

#[test]
fn the_daemon_with_a_log_replies_like_redis() {
    for engine in ["uring", "epoll", "threads"] {
        let mut annulus = Wire::kept(engine);
        compare(3, |request| annulus.ask(request));
    }
}
