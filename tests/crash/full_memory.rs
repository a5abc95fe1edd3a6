//! The daemon at its limit of memory: what is refused, what gives way, and what comes back of it.
//!
//! Invariant under test: wherever a key lies and wherever its client is connected, memory stays at
//! the limit; a key that has given way does not come back, and every other one does, as it was.

use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use annulus::store::{PartitionId, SlotMap};

use crate::resp::{Connection, PATIENCE, Reply};
use crate::scratch::Scratch;
use crate::server::{Fsync, Program, Server, Setup};

const SHARDS: usize = 2;
/// Connections of one server: enough that some are on either shard.
const CLIENTS: u32 = 4;
/// Keys that each of them writes, several times as many as there is room for.
const KEYS_OF_CLIENT: u32 = 6000;
/// Commands that are sent together.
const BATCH: u32 = 50;
/// Behind locks the log's part of an empty store alone is 1 MiB.
const LIMIT_BYTES: u64 = 5 * 512 * 1024;
/// What the writes under way may add before the next looks, and tables that double.
const SLACK_BYTES: u64 = LIMIT_BYTES / 10;

/// Makes a test of each function for each engine, with a directory and without.
macro_rules! on_every_engine {
    ($($name:ident),+ $(,)?) => { on_every_engine!(@each [$($name)+] uring epoll threads); };
    (@each $names:tt $($engine:ident)+) => { $(on_every_engine!(@one $engine $names);)+ };
    (@one $engine:ident [$($name:ident)+]) => {
        mod $engine {
            mod kept {
                $(#[test]
                fn $name() {
                    let _turn = crate::turn();
                    let scratch = crate::scratch::Scratch::new();
                    super::super::$name(&super::super::kept(stringify!($engine), &scratch));
                })+
            }
            mod in_memory {
                $(#[test]
                fn $name() {
                    let _turn = crate::turn();
                    super::super::$name(&crate::server::Setup::in_memory(stringify!($engine)));
                })+
            }
        }
    };
}

on_every_engine!(
    without_eviction_writes_are_refused_and_the_rest_goes_on,
    the_least_recently_used_give_way_on_every_shard,
    keys_with_a_deadline_give_way_and_the_others_stay,
    a_limit_is_lowered_and_raised_while_it_runs,
);

fn kept(engine: &'static str, scratch: &Scratch) -> Setup {
    Setup::new(Program::Annulus(engine), Fsync::Always, scratch.path().join("data"))
}

/// What is stored, by key.
type Content = BTreeMap<String, Option<Vec<u8>>>;

fn key(client: u32, number: u32) -> String {
    format!("key:{client}:{number}")
}

fn value(client: u32, number: u32) -> Vec<u8> {
    let length = 100 + (number * 37 + client * 11) % 200;
    vec![b'a' + (number % 26) as u8; length as usize]
}

fn all_keys() -> impl Iterator<Item = String> {
    (0..CLIENTS).flat_map(|client| (0..KEYS_OF_CLIENT).map(move |number| key(client, number)))
}

fn is_oom(reply: &Reply) -> bool {
    matches!(reply, Reply::Error(text) if text.starts_with("OOM command not allowed"))
}

fn configure(server: &Server, name: &str, value: &str) {
    let reply = server.connect().call(&["CONFIG", "SET", name, value]).expect("it serves");
    assert_eq!(reply, Reply::ok(), "{name}");
}

/// Each client writes its keys; `options` follow key and value. Answers a reply that is no OK.
fn write_all(server: &Server, options: &[&str]) -> Option<Reply> {
    let write = |client: u32, mut connection: Connection| {
        let mut other = None;
        for first in (0..KEYS_OF_CLIENT).step_by(BATCH as usize) {
            for number in first..first + BATCH {
                let mut words = vec![b"SET".to_vec(), key(client, number).into_bytes()];
                words.push(value(client, number));
                words.extend(options.iter().map(|word| word.as_bytes().to_vec()));
                connection.push(&words);
            }
            connection.send().expect("it serves");
            for _ in 0..BATCH {
                let reply = connection.receive().expect("it serves");
                other = other.or(Some(reply).filter(|reply| *reply != Reply::ok()));
            }
        }
        other
    };
    thread::scope(|scope| {
        let client = |client| (client, server.connect());
        let clients = (0..CLIENTS).map(client);
        let begin = |(client, connection)| scope.spawn(move || write(client, connection));
        let clients: Vec<_> = clients.map(begin).collect();
        clients.into_iter().find_map(|client| client.join().expect("it writes"))
    })
}

/// The values of these keys, as a client sees them.
fn read(server: &Server, keys: impl Iterator<Item = String>) -> Content {
    let keys: Vec<String> = keys.collect();
    let mut connection = server.connect();
    let mut content = Content::new();
    for keys in keys.chunks(BATCH as usize) {
        for key in keys {
            connection.push(&["GET", key]);
        }
        connection.send().expect("it serves");
        for key in keys {
            let Ok(Reply::Bulk(value)) = connection.receive() else { panic!("it serves") };
            content.insert(key.clone(), value);
        }
    }
    content
}

/// How many keys are there of those that lie in each half of the slots, and how many are not.
fn by_shard(content: &Content) -> [(usize, usize); SHARDS] {
    let map = SlotMap::new(SHARDS);
    [0, 1].map(|id| {
        let here =
            content.iter().filter(|(key, _)| map.partition_of(key.as_bytes()) == PartitionId(id));
        let (there, gone): (Vec<_>, Vec<_>) = here.partition(|(_, value)| value.is_some());
        (there.len(), gone.len())
    })
}

/// What is there is as it was written; the rest has given way, on both shards.
fn check_survivors(content: &Content) {
    for client in 0..CLIENTS {
        for number in 0..KEYS_OF_CLIENT {
            let found = &content[&key(client, number)];
            assert!(found.is_none() || *found == Some(value(client, number)), "{client}:{number}");
        }
    }
    for (there, gone) in by_shard(content) {
        assert!(there > 500 && gone > 500, "{:?}", by_shard(content));
    }
}

/// Ends the server by force and compares what comes back, without a limit.
fn check_after_a_restart(setup: &Setup, mut server: Server, content: &Content) {
    server.kill();
    drop(server);
    if !setup.is_kept() {
        return;
    }
    let server = Server::start(setup).expect("it starts");
    let found = read(&server, content.keys().cloned());
    let differ = |(key, value): &(&String, &Option<Vec<u8>>)| found[*key] != **value;
    let different: Vec<&String> = content.iter().filter(differ).map(|(key, _)| key).collect();
    assert!(different.is_empty(), "{} differ, {:?} first", different.len(), different[0]);
    let count = content.values().flatten().count() as i64;
    assert_eq!(server.connect().call(&["DBSIZE"]).expect("it serves"), Reply::Integer(count));
}

fn without_eviction_writes_are_refused_and_the_rest_goes_on(setup: &Setup) {
    let server = Server::start(setup).expect("it starts");
    assert_eq!(write_all(&server, &[]), None);
    let mut connections: Vec<Connection> = (0..CLIENTS).map(|_| server.connect()).collect();
    let used = connections[0].figure("used_memory");
    configure(&server, "maxmemory", &(used * 3 / 4).to_string());
    for number in 0..50 {
        for connection in &mut connections {
            let (new, far) = (format!("new:{number}"), format!("far:{number}"));
            for refused in [
                &["SET", &new, "v"][..],
                &["APPEND", &key(0, number), "v"],
                &["MSET", &new, "v", &far, "v"],
                &["COPY", &key(0, number), &new],
            ] {
                let reply = connection.call(refused).expect("it serves");
                assert!(is_oom(&reply), "{refused:?}: {reply:?}");
            }
            let length = connection.call(&["STRLEN", &key(1, number)]).expect("it serves");
            assert_eq!(length, Reply::Integer(value(1, number).len() as i64));
        }
    }
    let put = server.put_over_http("new", "v").expect("it serves");
    assert!(put.starts_with("HTTP/1.1 507 "), "{put}");
    // Two at a time, which mostly lie with different shards.
    for number in (0..KEYS_OF_CLIENT).step_by(2) {
        let connection = &mut connections[(number / 2 % CLIENTS) as usize];
        connection.push(&["DEL", &key(0, number), &key(2, number + 1)]);
        connection.push(&["DEL", &key(3, number), &key(3, number + 1)]);
        connection.send().expect("it serves");
        for _ in 0..2 {
            assert_eq!(connection.receive().expect("it serves"), Reply::Integer(2));
        }
    }
    assert!(connections[0].figure("used_memory") < used * 3 / 4);
    assert_eq!(connections[1].call(&["SET", "new", "v"]).expect("it serves"), Reply::ok());
    assert_eq!(connections[0].figure("evicted_keys"), 0);
    let mut content = read(&server, all_keys().chain((0..50).map(|n| format!("new:{n}"))));
    content.extend(read(&server, std::iter::once("new".to_owned())));
    assert_eq!(content.values().flatten().count() as u32, 2 * KEYS_OF_CLIENT + 1);
    check_after_a_restart(setup, server, &content);
}

/// Writes against the limit and watches what is used meanwhile; ends below the limit.
fn write_at_the_limit(server: &Server, options: &[&str]) {
    let is_over = AtomicBool::new(false);
    let most = thread::scope(|scope| {
        let (mut connection, is_over) = (server.connect(), &is_over);
        let watch = scope.spawn(move || {
            let mut most = 0;
            while !is_over.load(Ordering::Relaxed) {
                most = most.max(connection.figure("used_memory"));
                thread::sleep(Duration::from_millis(5));
            }
            most
        });
        let writing = panic::catch_unwind(AssertUnwindSafe(|| write_all(server, options)));
        is_over.store(true, Ordering::Relaxed);
        let most = watch.join().expect("it watches");
        assert_eq!(writing.expect("they write"), None, "all are taken");
        most
    });
    assert!(most <= LIMIT_BYTES + SLACK_BYTES, "{most} bytes were used");
    let mut connection = server.connect();
    let used = connection.figure("used_memory");
    assert!(used <= LIMIT_BYTES + SLACK_BYTES, "{used} bytes are used");
    assert!(used >= LIMIT_BYTES / 2, "only {used} bytes are used");
    assert!(connection.figure("evicted_keys") > 1000);
}

fn the_least_recently_used_give_way_on_every_shard(setup: &Setup) {
    let server = Server::start(setup).expect("it starts");
    configure(&server, "maxmemory", &LIMIT_BYTES.to_string());
    configure(&server, "maxmemory-policy", "allkeys-lru");
    write_at_the_limit(&server, &[]);
    // Nothing gives way any more.
    configure(&server, "maxmemory", "0");
    let content = read(&server, all_keys());
    check_survivors(&content);
    check_after_a_restart(setup, server, &content);
}

fn keys_with_a_deadline_give_way_and_the_others_stay(setup: &Setup) {
    let server = Server::start(setup).expect("it starts");
    let permanent = || (0..500).map(|number| format!("permanent:{number}"));
    let mut connection = server.connect();
    for key in permanent() {
        assert_eq!(connection.call(&["SET", &key, &key]).expect("it serves"), Reply::ok());
    }
    configure(&server, "maxmemory", &LIMIT_BYTES.to_string());
    configure(&server, "maxmemory-policy", "volatile-ttl");
    write_at_the_limit(&server, &["EX", "100000"]);
    configure(&server, "maxmemory", "0");
    let mut content = read(&server, all_keys());
    check_survivors(&content);
    let stayed = read(&server, permanent());
    assert!(stayed.iter().all(|(key, value)| value.as_deref() == Some(key.as_bytes())));
    content.extend(stayed);
    check_after_a_restart(setup, server, &content);
}

fn a_limit_is_lowered_and_raised_while_it_runs(setup: &Setup) {
    let server = Server::start(setup).expect("it starts");
    assert_eq!(write_all(&server, &[]), None);
    let mut connection = server.connect();
    let used = connection.figure("used_memory");
    assert!(used > 2 * LIMIT_BYTES, "{used} bytes are more than the limit will be");
    configure(&server, "maxmemory-policy", "allkeys-lru");
    configure(&server, "maxmemory", &LIMIT_BYTES.to_string());
    // Without any write.
    let began = Instant::now();
    while connection.figure("used_memory") > LIMIT_BYTES {
        assert!(began.elapsed() < PATIENCE, "memory is not given back");
        thread::sleep(Duration::from_millis(20));
    }
    configure(&server, "maxmemory", &(2 * used).to_string());
    let evicted = connection.figure("evicted_keys");
    let before = read(&server, all_keys());
    check_survivors(&before);
    assert_eq!(before.values().filter(|value| value.is_none()).count() as u64, evicted);
    assert_eq!(write_all(&server, &[]), None);
    assert_eq!(connection.figure("evicted_keys"), evicted, "there is room again");
    let content = read(&server, all_keys());
    assert!(content.values().all(Option::is_some));
    check_after_a_restart(setup, server, &content);
}
