//! The running daemon from outside: what it announces, signals, drain, and hosts that refuse
//! things.
//!
//! Every test runs the built binary on free ports. Invariant under test: no request in hand is lost
//! by a drain, and whatever the host refuses is said together with its remedy.
#![cfg(feature = "daemon")]

mod clients;
mod daemon;
mod kept;
mod refusals;
mod resp;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use daemon::{Daemon, ENGINES, PATIENCE, read_to_end, send_request};

/// A request that keeps a core busy for a while: long enough to send a signal meanwhile.
const DIGEST: &str = "POST /compute/digest?m=19456&t=3";

#[test]
fn it_announces_what_it_listens_on_which_engine_and_what_to_try() {
    for engine in ENGINES {
        let daemon = Daemon::start(&["--engine", engine, "--shards", "1"]);
        let said = &daemon.announcement;
        assert!(said.contains(&format!("engine   {engine} (asked for)\n")), "{said}");
        assert!(said.contains("threads  1 shard(s) on CPU "), "{said}");
        let port = daemon.resp_address().port();
        assert!(said.contains(&format!("redis-cli -h 127.0.0.1 -p {port} set greeting")), "{said}");
        let url = format!("curl http://{}/kv/greeting", daemon.http_address());
        assert!(said.contains(&url), "{said}");
    }
}

#[test]
fn every_engine_serves_what_was_stored() {
    for engine in ENGINES {
        let daemon =
            Daemon::start(&["--engine", engine, "--placement", "floating", "--shards", "2"]);
        for key in 0..20 {
            let reply = daemon.http(&format!("PUT /kv/key{key}"), "hello");
            assert!(reply.starts_with("HTTP/1.1 20"), "{engine}: {reply}");
        }
        for key in 0..20 {
            let reply = daemon.http(&format!("GET /kv/key{key}"), "");
            assert!(reply.starts_with("HTTP/1.1 200 OK\r\n"), "{engine}: {reply}");
            assert!(reply.ends_with("\r\n\r\nhello"), "{engine}: {reply}");
        }
    }
}

#[test]
fn a_drain_ends_idle_connections_and_the_daemon() {
    for engine in ENGINES {
        for signal in ["TERM", "INT"] {
            let mut daemon = Daemon::start(&["--engine", engine]);
            let mut idle = daemon.connect_http();
            idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n").expect("it reads");
            let mut byte = [0];
            idle.read_exact(&mut byte).expect("a reply");
            daemon.signal(signal);
            assert_eq!(daemon.wait().code(), Some(0), "{engine}: {}", daemon.log());
        }
    }
}

#[test]
fn a_drain_finishes_the_request_in_hand() {
    for engine in ENGINES {
        let mut daemon = Daemon::start(&["--engine", engine, "--drain-timeout", "60s"]);
        let mut busy = daemon.connect_http();
        send_request(&mut busy, DIGEST, "secret");
        // The request is in hand once something that came after it has been answered.
        assert!(daemon.http("GET /healthz", "").starts_with("HTTP/1.1 200"));
        daemon.signal("TERM");
        daemon.wait_for_log("draining");
        let reply = read_to_end(&mut busy);
        assert!(reply.starts_with("HTTP/1.1 200 OK\r\n"), "{engine}: {reply}");
        assert!(reply.contains("$argon2id$") || reply.len() > 100, "{engine}: {reply}");
        assert_eq!(daemon.wait().code(), Some(0), "{engine}: {}", daemon.log());
    }
}

#[test]
fn a_draining_daemon_takes_no_new_connections() {
    let mut daemon = Daemon::start(&["--drain-timeout", "60s"]);
    let address = daemon.http_address();
    let mut busy = daemon.connect_http();
    send_request(&mut busy, DIGEST, "secret");
    assert!(daemon.http("GET /healthz", "").starts_with("HTTP/1.1 200"));
    daemon.signal("TERM");
    daemon.wait_for_log("draining");
    let mut late = TcpStream::connect_timeout(&address, PATIENCE);
    if let Ok(late) = &mut late {
        // The kernel may have taken it; nobody answers.
        let _ = late.write_all(b"GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n");
        let mut reply = Vec::new();
        let _ = late.read_to_end(&mut reply);
        assert_eq!(reply, b"");
    }
    drop(busy);
    assert_eq!(daemon.wait().code(), Some(0), "{}", daemon.log());
}

#[test]
fn a_drain_over_time_cuts_off_what_is_left_and_says_so() {
    let mut daemon = Daemon::start(&["--cpu-cores", "1", "--drain-timeout", "1ms"]);
    let mut busy = daemon.connect_http();
    send_request(&mut busy, DIGEST, "secret");
    assert!(daemon.http("GET /healthz", "").starts_with("HTTP/1.1 200"));
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0), "{}", daemon.log());
    assert!(daemon.log().contains("the drain is over time"), "{}", daemon.log());
}

#[test]
fn a_second_signal_ends_at_once() {
    let mut daemon = Daemon::start(&["--drain-timeout", "1h"]);
    let mut busy: Vec<TcpStream> = (0..20).map(|_| daemon.connect_http()).collect();
    for stream in &mut busy {
        send_request(stream, DIGEST, "secret");
    }
    assert!(daemon.http("GET /healthz", "").starts_with("HTTP/1.1 200"));
    daemon.signal("TERM");
    daemon.wait_for_log("draining");
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(1), "{}", daemon.log());
}

#[test]
fn a_hangup_changes_what_can_change_live_and_names_what_cannot() {
    let name = format!("annulus-hangup-{}.toml", std::process::id());
    let path = std::env::temp_dir().join(name);
    let config = path.to_str().expect("a plain path");
    let write = |text: &str| std::fs::write(&path, text).expect("a writable folder");
    write("[log]\nlevel = \"info\"\n");
    let mut daemon = Daemon::start(&["--config", config]);
    write("[log]\nlevel = \"debug\"\n[http]\nidle_timeout = \"5s\"\n");
    daemon.signal("HUP");
    daemon.wait_for_log("log.level is now \"debug\" (was \"info\")");
    daemon.wait_for_log("http.idle_timeout stays \"60s\": changing it to \"5s\" needs a restart");
    write("[log]\nlevel = 5\n");
    daemon.signal("HUP");
    daemon.wait_for_log("log.level is a bare number");
    daemon.wait_for_log("nothing has changed");
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0));
    let _ = std::fs::remove_file(&path);
}

#[test]
fn logs_are_json_when_asked_for() {
    let mut daemon = Daemon::start(&["--log-format", "json"]);
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0));
    let log = daemon.log();
    assert!(!log.is_empty());
    assert!(log.lines().all(|line| line.starts_with("{\"") && line.ends_with('}')), "{log}");
}

#[test]
fn a_second_daemon_is_refused_although_shards_share_the_port() {
    let first = Daemon::start(&["--placement", "floating", "--shards", "2"]);
    let address = first.resp_address().to_string();
    let second = Command::new(env!("CARGO_BIN_EXE_annulus"))
        .args(["serve", "--data", "none", "--http", "off", "--resp", &address])
        .output()
        .expect("the binary runs");
    assert_eq!(second.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&second.stderr).into_owned();
    let wanted = format!("cannot listen on {address} for resp: the port is taken, perhaps by");
    assert!(stderr.contains(&wanted), "{stderr}");
}

#[test]
fn an_idle_daemon_uses_no_cpu() {
    for engine in ENGINES {
        let daemon = Daemon::start(&["--engine", engine]);
        assert!(daemon.http("GET /healthz", "").starts_with("HTTP/1.1 200"));
        let before = daemon.cpu_ticks();
        std::thread::sleep(Duration::from_secs(2));
        let used = daemon.cpu_ticks() - before;
        assert!(used <= 2, "{engine}: {used} ticks of 10 ms in two idle seconds");
    }
}
