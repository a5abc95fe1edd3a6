//! The RESP service of the daemon over real connections, the same suite on every engine.
#![cfg(feature = "daemon")]

use std::thread;
use std::time::Duration;

#[path = "resp/kept.rs"]
mod kept;
#[path = "resp/wire.rs"]
mod wire;

use self::wire::{Wire, encode, words};

/// Makes each function a test on each engine, with a store in memory and with one that is kept.
macro_rules! on_every_engine {
    ($($name:ident)*) => {
        mod uring { $(#[test] fn $name() { super::$name(super::Wire::annulus("uring")); })* }
        mod epoll { $(#[test] fn $name() { super::$name(super::Wire::annulus("epoll")); })* }
        mod threads { $(#[test] fn $name() { super::$name(super::Wire::annulus("threads")); })* }
        mod uring_kept { $(#[test] fn $name() { super::$name(super::Wire::kept("uring")); })* }
        mod epoll_kept { $(#[test] fn $name() { super::$name(super::Wire::kept("epoll")); })* }
        mod threads_kept { $(#[test] fn $name() { super::$name(super::Wire::kept("threads")); })* }
    };
}

on_every_engine! {
    a_pipeline_over_all_shards_is_answered_in_order
    a_request_may_come_byte_by_byte
    a_large_value_comes_back_whole
    a_peer_that_reads_late_gets_everything
    a_killed_client_is_cut_off
    clients_beyond_the_limit_are_told_so
    an_idle_client_is_cut_off_when_asked_for
    a_renamed_key_is_always_under_one_of_its_names
    msetnx_is_all_or_nothing_to_everyone
    keys_expire_although_nobody_asks_for_them
    a_broken_request_is_answered_and_ends_the_connection
}

fn bulk(value: &str) -> String {
    format!("${}\r\n{value}\r\n", value.len())
}

fn a_pipeline_over_all_shards_is_answered_in_order(mut server: Wire) {
    let (mut requests, mut expected) = (Vec::new(), String::new());
    for round in 0..20 {
        for key in 0..100 {
            requests.extend(encode(&words(&format!("SET k{key} {round}-{key}"))));
            requests.extend(encode(&words(&format!("GET k{key}"))));
            let value = format!("{round}-{key}");
            expected += &["+OK\r\n", &bulk(&value)].concat();
        }
        requests.extend(encode(&words("MGET k1 k2 k3 k4 none")));
        expected += "*5\r\n";
        for key in 1..5 {
            let value = format!("{round}-{key}");
            expected += &bulk(&value);
        }
        expected += "$-1\r\n";
    }
    server.write(&requests);
    assert_eq!(server.read_text(20 * 201), expected);
    assert_eq!(server.ask_line("DBSIZE"), ":100\r\n");
}

fn a_request_may_come_byte_by_byte(mut server: Wire) {
    let request = encode(&words("SET key \"some value\""));
    for byte in [request.as_slice(), b"get key\r\n"].concat() {
        server.write(&[byte]);
    }
    assert_eq!(server.read_text(2), "+OK\r\n$10\r\nsome value\r\n");
}

fn a_large_value_comes_back_whole(mut server: Wire) {
    let value: Vec<u8> = (0..48 << 20).map(|at: u32| (at >> 3) as u8).collect();
    let request = encode(&[b"SET".to_vec(), b"large".to_vec(), value.clone()]);
    assert_eq!(server.ask(&request), b"+OK\r\n");
    let reply = server.ask(&encode(&words("GET large")));
    let head = format!("${}\r\n", value.len());
    assert!(reply.starts_with(head.as_bytes()));
    assert!(reply[head.len()..reply.len() - 2] == value);
}

fn a_peer_that_reads_late_gets_everything(mut server: Wire) {
    let value = "v".repeat(100_000);
    server.ask_line(&format!("SET key {value}"));
    // More replies than the sockets hold: the server has to wait, and stops decoding meanwhile.
    let requests = encode(&words("GET key")).repeat(300);
    let mut other = server.another();
    server.write(&requests);
    thread::sleep(Duration::from_millis(200));
    assert_eq!(other.ask_line("PING"), "+PONG\r\n");
    for _ in 0..300 {
        assert_eq!(server.read().len(), 100_000 + "$100000\r\n\r\n".len());
    }
}

fn id_of(client: &mut Wire) -> String {
    client.ask_line("CLIENT ID").trim_matches([':', '\r', '\n']).to_owned()
}

fn a_killed_client_is_cut_off(mut server: Wire) {
    let mut victim = server.another();
    let (id, own_id) = (id_of(&mut victim), id_of(&mut server));
    assert_eq!(server.ask_line(&format!("CLIENT KILL ID {id}")), ":1\r\n");
    assert!(victim.is_closed());
    while server.ask_line("CLIENT LIST").contains(&format!("id={id} ")) {
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(server.ask_line(&format!("CLIENT KILL ID {own_id}")), ":0\r\n");
    assert_eq!(server.ask_line(&format!("CLIENT KILL ID {own_id} SKIPME no")), ":1\r\n");
    assert!(server.is_closed());
}

fn clients_beyond_the_limit_are_told_so(mut server: Wire) {
    assert_eq!(server.ask_line("CONFIG SET maxclients 2"), "+OK\r\n");
    let mut second = server.another();
    assert_eq!(second.ask_line("PING"), "+PONG\r\n");
    let mut third = server.another();
    assert_eq!(third.read_text(1), "-ERR max number of clients reached\r\n");
    assert!(third.is_closed());
}

fn an_idle_client_is_cut_off_when_asked_for(mut server: Wire) {
    assert_eq!(server.ask_line("CONFIG SET timeout 1"), "+OK\r\n");
    let mut idle = server.another();
    assert_eq!(idle.ask_line("PING"), "+PONG\r\n");
    assert!(idle.is_closed());
}

fn a_renamed_key_is_always_under_one_of_its_names(mut server: Wire) {
    server.ask_line("SET one v");
    let mut other = server.another();
    let moving = thread::spawn(move || {
        for _ in 0..200 {
            assert_eq!(other.ask_line("RENAME one two"), "+OK\r\n");
            assert_eq!(other.ask_line("RENAME two one"), "+OK\r\n");
        }
    });
    for _ in 0..400 {
        // It would set both names if it ever saw the key under neither.
        assert_eq!(server.ask_line("MSETNX one x two y"), ":0\r\n");
    }
    moving.join().expect("every rename finds its key");
    assert_eq!(server.ask_line("GET one"), "$1\r\nv\r\n");
}

fn msetnx_is_all_or_nothing_to_everyone(server: Wire) {
    const CLIENTS_COUNT: usize = 4;
    let contend = |number: usize| {
        let mut client = server.another();
        thread::spawn(move || {
            let keys =
                |round: usize| format!("{round}a {number} {round}b {number} {round}c {number}");
            let won =
                |round: &usize| client.ask_line(&format!("MSETNX {}", keys(*round))) == ":1\r\n";
            (0..100).filter(won).count()
        })
    };
    let clients: Vec<_> = (0..CLIENTS_COUNT).map(contend).collect();
    let won: usize = clients.into_iter().map(|client| client.join().expect("a thread ends")).sum();
    assert_eq!(won, 100);
    let mut reader = server.another();
    for round in 0..100 {
        let values = reader.ask_line(&format!("MGET {round}a {round}b {round}c"));
        let lines: Vec<&str> = values.split("\r\n").collect();
        assert_eq!((lines[2], lines[2]), (lines[4], lines[6]), "{values}");
    }
}

fn keys_expire_although_nobody_asks_for_them(mut server: Wire) {
    for key in 0..100 {
        server.ask_line(&format!("SET k{key} v PX 50"));
    }
    server.ask_line("SET stays v");
    for _ in 0..100 {
        if server.ask_line("DBSIZE") == ":1\r\n" {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("keys are there after five seconds: {}", server.ask_line("DBSIZE"));
}

fn a_broken_request_is_answered_and_ends_the_connection(mut server: Wire) {
    let mut other = server.another();
    server.write(b"PING\r\n*1\r\n$-1\r\nPING\r\n");
    assert_eq!(server.read_text(2), "+PONG\r\n-ERR Protocol error: invalid bulk length\r\n");
    assert!(server.is_closed());
    assert_eq!(other.ask_line("PING"), "+PONG\r\n");
}
