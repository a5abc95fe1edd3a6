//! Tests of sessions against a limit of memory, and of the commands that tell about it.

use std::sync::Arc;

use super::super::server::RespSettings;
use super::*;
use crate::store::memory::Policy;
use crate::store::{SlotMap, Store};

const OOM: &str = "-OOM command not allowed when used memory > 'maxmemory'.\r\n";

/// A session over a store of one partition that shares the server's limit.
struct Fixture {
    server: Server,
    store: Store,
    session: Session,
    now_ms: u64,
}

impl Fixture {
    fn new() -> Self {
        let map = SlotMap::new(1);
        let server = Server::new(RespSettings::default(), map, 0);
        let store = Store::owning(map, PartitionId(0)).limited(Arc::clone(&server.memory));
        let (address, local) = ("127.0.0.1:1".to_owned(), "127.0.0.1:2".to_owned());
        let registration = server.clients.connect(address, local, 0, 100, Box::new(|| {}));
        let record = registration.expect("room for a client").record.clone();
        let session = Session::new(Client::new(record, true));
        Self { server, store, session, now_ms: 1_000_000 }
    }

    /// What the connection loop does, without tasks. Each stop for room is checked to get further.
    fn ask(&mut self, input: &str) -> String {
        let (mut out, mut at) = (Vec::new(), 0);
        loop {
            let input = &input.as_bytes()[at..];
            let Self { server, store, session, now_ms } = self;
            let visit = store.visit(|home| session.advance(input, home, server, *now_ms, &mut out));
            at += visit.0.consumed;
            match visit.0.next {
                Next::Read => return String::from_utf8_lossy(&out).into_owned(),
                Next::Send | Next::Room(Room::NotYet) => {}
                next => panic!("{next:?}"),
            }
        }
    }

    fn used(&self) -> u64 {
        self.server.memory.used() as u64
    }

    /// The value of a field of `INFO`.
    fn info(&mut self, name: &str) -> String {
        let text = self.ask("INFO\r\n");
        let prefix = format!("{name}:");
        let field = text.lines().find_map(|line| line.strip_prefix(&prefix));
        field.expect("INFO tells it").to_owned()
    }
}

fn sets(keys: std::ops::Range<u32>, value: usize) -> String {
    let value = "v".repeat(value);
    let lines: Vec<String> = keys.map(|key| format!("SET key:{key} {value}\r\n")).collect();
    lines.concat()
}

#[test]
fn without_eviction_writes_are_refused_and_the_rest_goes_on() {
    let mut fixture = Fixture::new();
    fixture.ask(&sets(0..100, 100));
    fixture.server.memory.set_bytes_max(fixture.used() - 1);
    assert_eq!(fixture.ask("SET new v\r\nAPPEND key:0 v\r\nMSET a 1 b 2\r\n"), OOM.repeat(3));
    assert_eq!(fixture.ask("STRLEN key:0\r\nEXPIRE key:1 100\r\n"), ":100\r\n:1\r\n");
    assert_eq!(
        fixture.ask("DEL key:1 key:2\r\nSET new v\r\nEXISTS new\r\n"),
        ":2\r\n+OK\r\n:1\r\n"
    );
    assert_eq!(fixture.info("evicted_keys"), "0");
}

#[test]
fn with_eviction_every_write_finds_room() {
    let mut fixture = Fixture::new();
    fixture.ask(&sets(0..1000, 100));
    let bytes_max = fixture.used();
    fixture.server.memory.set_bytes_max(bytes_max);
    fixture.server.memory.set_policy(Policy::AllKeysLru);
    fixture.now_ms += 100_000;
    assert_eq!(fixture.ask("GET key:0\r\n").len(), 108);
    fixture.now_ms += 100_000;
    let replies = fixture.ask(&sets(10_000..10_500, 100));
    assert_eq!(replies, "+OK\r\n".repeat(500));
    assert!(fixture.used() < bytes_max + 10_000, "{} of {bytes_max}", fixture.used());
    let evicted: u32 = fixture.info("evicted_keys").parse().expect("a number");
    assert!((450..=550).contains(&evicted), "{evicted}");
    // The oldest go first, and one was used meanwhile.
    assert_eq!(fixture.ask("EXISTS key:0 key:10000 key:10499\r\n"), ":3\r\n");
}

#[test]
fn a_large_value_is_followed_by_many_evictions_before_the_next_write() {
    let mut fixture = Fixture::new();
    fixture.ask(&sets(0..1000, 100));
    let bytes_max = fixture.used();
    fixture.server.memory.set_bytes_max(bytes_max);
    fixture.server.memory.set_policy(Policy::AllKeysRandom);
    fixture.ask(&sets(5000..5001, 50_000));
    assert!(fixture.used() > bytes_max);
    assert_eq!(fixture.ask("SET small v\r\n"), "+OK\r\n");
    assert!(fixture.used() <= bytes_max + 200, "{} of {bytes_max}", fixture.used());
}

#[test]
fn idle_times_are_true() {
    let mut fixture = Fixture::new();
    fixture.ask("SET a 1\r\nSET b 1\r\n");
    fixture.now_ms += 10_100;
    assert_eq!(
        fixture.ask("OBJECT IDLETIME a\r\nGET a\r\nOBJECT IDLETIME a\r\n"),
        ":10\r\n$1\r\n1\r\n:0\r\n"
    );
    // Questions about a key are no use of it.
    let questions = "EXISTS b\r\nTYPE b\r\nTTL b\r\nOBJECT ENCODING b\r\nMEMORY USAGE b\r\n";
    fixture.ask(questions);
    assert_eq!(fixture.ask("OBJECT IDLETIME b\r\n"), ":10\r\n");
    assert_eq!(fixture.ask("TOUCH b none\r\nOBJECT IDLETIME b\r\n"), ":1\r\n:0\r\n");
    assert!(fixture.ask("OBJECT FREQ b\r\n").starts_with("-ERR An LFU maxmemory policy is not"));
}

#[test]
fn frequencies_are_counted_under_their_policy() {
    let mut fixture = Fixture::new();
    fixture.server.memory.set_policy(Policy::VolatileLfu);
    fixture.ask("SET a 1\r\n");
    assert_eq!(fixture.ask("OBJECT FREQ a\r\n"), ":5\r\n");
    fixture.ask(&"GET a\r\n".repeat(1000));
    let frequency = fixture.ask("OBJECT FREQ a\r\n");
    let frequency: u32 = frequency.trim_start_matches(':').trim().parse().expect("a number");
    assert!((12..30).contains(&frequency), "{frequency}");
    fixture.now_ms += 5 * 60_000;
    assert_eq!(fixture.ask("OBJECT FREQ a\r\n"), format!(":{}\r\n", frequency - 5));
    assert!(
        fixture.ask("OBJECT IDLETIME a\r\n").starts_with("-ERR An LFU maxmemory policy is sel")
    );
}

#[test]
fn memory_is_told() {
    let mut fixture = Fixture::new();
    fixture.ask(&sets(0..1000, 100));
    fixture.server.memory.set_bytes_max(100 << 20);
    fixture.server.memory.set_policy(Policy::VolatileTtl);
    assert_eq!(fixture.info("used_memory"), fixture.used().to_string());
    assert_eq!(fixture.info("used_memory_dataset"), (1000 * (64 + 112)).to_string());
    assert_eq!(fixture.info("maxmemory"), (100 << 20).to_string());
    assert_eq!(fixture.info("maxmemory_human"), "100.00M");
    assert_eq!(fixture.info("maxmemory_policy"), "volatile-ttl");
    assert_eq!(fixture.info("mem_allocator"), "libc");
    let number = |text: String| text.parse::<u64>().expect("a number");
    assert!(number(fixture.info("used_memory_rss")) > 1 << 20);
    let peak = number(fixture.info("used_memory_peak"));
    fixture.ask("FLUSHALL\r\n");
    assert_eq!(number(fixture.info("used_memory_peak")), peak);
    assert!(number(fixture.info("used_memory")) < peak);
    assert_eq!(fixture.ask("SET k v\r\nMEMORY USAGE k\r\n"), "+OK\r\n:73\r\n");
}
