//! What users see of a store that is kept in a directory: commands, settings, figures, restarts.

use std::thread;
use std::time::Duration;

use super::wire::Wire;

macro_rules! on_every_engine {
    ($($name:ident)*) => {
        mod uring { $(#[test] fn $name() { super::$name("uring"); })* }
        mod epoll { $(#[test] fn $name() { super::$name("epoll"); })* }
        mod threads { $(#[test] fn $name() { super::$name("threads"); })* }
    };
}

on_every_engine! {
    what_was_written_is_there_after_a_restart
    a_snapshot_is_taken_when_asked_for
    a_connection_waits_for_its_own_writes
}

const OK: &str = "+OK\r\n";

fn what_was_written_is_there_after_a_restart(engine: &str) {
    let mut server = Wire::kept(engine);
    assert_eq!(server.ask_line("MSET a 1 b 2 c 3 d 4 e 5"), OK);
    assert_eq!(server.ask_line("SET volatile v EX 1000"), OK);
    assert_eq!(server.ask_line("SET short v PX 1"), OK);
    assert_eq!(server.ask_line("INCR a"), ":2\r\n");
    assert_eq!(server.ask_line("APPEND b 2"), ":2\r\n");
    assert_eq!(server.ask_line("RENAME c f"), OK);
    assert_eq!(server.ask_line("DEL d e none"), ":2\r\n");
    let mut server = server.restarted(engine, "SHUTDOWN NOSAVE");
    let values = server.ask_line("MGET a b c d e f short");
    let nulls = "$-1\r\n$-1\r\n$-1\r\n";
    assert_eq!(values, format!("*7\r\n$1\r\n2\r\n$2\r\n22\r\n{nulls}$1\r\n3\r\n$-1\r\n"));
    assert_ne!(server.ask_line("TTL volatile"), ":-1\r\n");
    assert_eq!(server.ask_line("DBSIZE"), ":4\r\n");
    assert_eq!(server.ask_line("FLUSHALL"), OK);
    assert_eq!(server.ask_line("SET last 1"), OK);
    let mut server = server.restarted(engine, "SHUTDOWN SAVE");
    assert_eq!(server.ask_line("DBSIZE"), ":1\r\n");
    assert_eq!(server.ask_line("GET last"), "$1\r\n1\r\n");
}

fn a_snapshot_is_taken_when_asked_for(engine: &str) {
    let mut server = Wire::kept(engine);
    server.ask_line("MSET a 1 b 2 c 3");
    assert!(figure(&mut server, "annulus_snapshot_age_seconds").is_none());
    assert_eq!(server.ask_line("SAVE"), OK);
    assert_eq!(figure(&mut server, "annulus_snapshots").as_deref(), Some("1"));
    assert_eq!(figure(&mut server, "rdb_last_bgsave_status").as_deref(), Some("ok"));
    assert!(figure(&mut server, "annulus_snapshot_age_seconds").is_some());
    let saved = figure(&mut server, "rdb_last_save_time").expect("there is one");
    assert_eq!(server.ask_line("LASTSAVE"), format!(":{saved}\r\n"));
    server.ask_line("SET d 4");
    assert_eq!(server.ask_line("BGSAVE"), "+Background saving started\r\n");
    until(&mut server, "annulus_snapshots", "2");
    assert_eq!(
        server.ask_line("BGREWRITEAOF"),
        "+Background append only file rewriting started\r\n"
    );
    until(&mut server, "annulus_snapshots", "3");
    let mut server = server.restarted(engine, "SHUTDOWN");
    assert_eq!(server.ask_line("DBSIZE"), ":4\r\n");
    assert!(figure(&mut server, "annulus_snapshot_age_seconds").is_some());
}

fn a_connection_waits_for_its_own_writes(engine: &str) {
    let mut server = Wire::kept(engine);
    let both = "*2\r\n:1\r\n:0\r\n";
    assert_eq!(server.ask_line("WAITAOF 1 0 0"), both, "nothing was written");
    for policy in ["no", "everysec", "always"] {
        assert_eq!(server.ask_line(&format!("CONFIG SET appendfsync {policy}")), OK);
        let told = format!("*2\r\n$11\r\nappendfsync\r\n${}\r\n{policy}\r\n", policy.len());
        assert_eq!(server.ask_line("CONFIG GET appendfsync"), told);
        assert_eq!(server.ask_line("MSET a 1 b 2 c 3"), OK);
        assert_eq!(server.ask_line("WAITAOF 1 0 0"), both, "{policy}");
        let durable = figure(&mut server, "annulus_log_durable_lsn");
        assert_eq!(durable, figure(&mut server, "annulus_log_written_lsn"));
    }
    // There are no replicas that would be waited for.
    assert_eq!(server.ask_line("WAITAOF 1 1 0"), both);
    for (line, reply) in [
        ("WAITAOF 2 0 0", "-ERR value is out of range, value must between 0 and 1\r\n"),
        ("WAITAOF 1 -1 0", "-ERR value is out of range, must be positive\r\n"),
        ("WAITAOF 1 0 -1", "-ERR timeout is negative\r\n"),
        ("WAITAOF 1 0 soon", "-ERR timeout is not an integer or out of range\r\n"),
    ] {
        assert_eq!(server.ask_line(line), reply);
    }
}

#[test]
fn settings_tell_and_change_what_is_in_force() {
    let mut server = Wire::kept("epoll");
    assert_eq!(setting(&mut server, "appendonly"), "yes");
    assert!(setting(&mut server, "dir").starts_with('/'));
    assert_eq!(setting(&mut server, "save"), "3600 1");
    assert_eq!(setting(&mut server, "maxmemory-policy"), "noeviction");
    for (name, value) in [
        ("save", "60 1"),
        ("save", ""),
        ("maxmemory", "1048576"),
        ("maxmemory-policy", "allkeys-lru"),
        ("maxmemory-samples", "7"),
    ] {
        assert_eq!(server.ask_line(&format!("CONFIG SET {name} \"{value}\"")), OK, "{name}");
        assert_eq!(setting(&mut server, name), value);
    }
    for line in [
        "CONFIG SET appendonly no",
        "CONFIG SET appendfsync sometimes",
        "CONFIG SET dir /tmp",
        "CONFIG SET save \"60 1000\"",
        "CONFIG SET maxmemory-policy lru",
        "CONFIG SET maxmemory-samples 0",
    ] {
        let reply = server.ask_line(line);
        assert!(reply.starts_with("-ERR CONFIG SET failed"), "{line}: {reply}");
    }
}

#[test]
fn a_store_in_memory_says_that_it_is_one() {
    let mut server = Wire::annulus("epoll");
    assert_eq!(setting(&mut server, "appendonly"), "no");
    assert_eq!(setting(&mut server, "appendfsync"), "no");
    assert_eq!(setting(&mut server, "dir"), "");
    assert_eq!(figure(&mut server, "aof_enabled").as_deref(), Some("0"));
    for line in ["SAVE", "BGSAVE", "BGREWRITEAOF", "SHUTDOWN SAVE"] {
        let reply = server.ask_line(line);
        assert!(reply.starts_with("-ERR the store is in memory only"), "{line}: {reply}");
    }
    for line in ["CONFIG SET appendfsync always", "CONFIG SET save \"60 1\""] {
        let reply = server.ask_line(line);
        assert!(reply.contains("the store is in memory only"), "{line}: {reply}");
    }
    let refused =
        "-ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.\r\n";
    assert_eq!(server.ask_line("WAITAOF 1 0 0"), refused);
    assert_eq!(server.ask_line("WAITAOF 0 0 0"), "*2\r\n:0\r\n:0\r\n");
    assert_eq!(server.ask_line("SHUTDOWN ABORT"), "-ERR No shutdown in progress.\r\n");
    assert_eq!(server.ask_line("SHUTDOWN SAVE NOSAVE"), "-ERR syntax error\r\n");
    let mut other = server.another();
    other.write(b"SHUTDOWN NOW\r\n");
    assert!(other.is_closed() && server.is_closed(), "the whole server ends");
}

/// A line of `INFO persistence`.
fn figure(server: &mut Wire, name: &str) -> Option<String> {
    let info = server.ask_line("INFO persistence");
    let line = |line: &str| Some(line.strip_prefix(name)?.strip_prefix(':')?.to_owned());
    info.lines().find_map(line)
}

fn until(server: &mut Wire, name: &str, value: &str) {
    for _ in 0..200 {
        if figure(server, name).as_deref() == Some(value) {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("{name} is {:?} after ten seconds", figure(server, name));
}

fn setting(server: &mut Wire, name: &str) -> String {
    let reply = server.ask_line(&format!("CONFIG GET {name}"));
    reply.lines().nth(4).unwrap_or_default().to_owned()
}
