//! The Redis protocol of the running daemon: what was stored, the password, drain under load.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use super::daemon::{Daemon, ENGINES, PATIENCE};

fn connect(daemon: &Daemon) -> TcpStream {
    let stream = TcpStream::connect(daemon.resp_address()).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a valid time limit");
    stream
}

/// Sends inline commands and reads as many bytes as are expected.
fn talk(stream: &mut TcpStream, commands: &str, expected: &str) {
    stream.write_all(commands.as_bytes()).expect("the peer reads");
    let mut reply = vec![0; expected.len()];
    stream.read_exact(&mut reply).expect("a reply");
    assert_eq!(String::from_utf8_lossy(&reply), expected, "{commands}");
}

#[test]
fn every_engine_answers_commands_of_keys_on_every_shard() {
    for engine in ENGINES {
        let arguments = ["--engine", engine, "--placement", "floating", "--shards", "3"];
        let daemon = Daemon::start(&arguments);
        let mut stream = connect(&daemon);
        for key in 10..60 {
            talk(&mut stream, &format!("SET key{key} value{key}\r\n"), "+OK\r\n");
        }
        let (mut commands, mut replies) = (String::new(), String::new());
        for key in 10..60 {
            let _ = write!(commands, "GET key{key}\r\n");
            let _ = write!(replies, "$7\r\nvalue{key}\r\n");
        }
        talk(&mut connect(&daemon), &commands, &replies);
        talk(&mut stream, "DBSIZE\r\n", ":50\r\n");
    }
}

#[test]
fn what_was_stored_by_one_protocol_is_read_by_the_other() {
    for engine in ENGINES {
        let daemon = Daemon::start(&["--engine", engine]);
        talk(&mut connect(&daemon), "SET shared one\r\n", "+OK\r\n");
        assert!(daemon.http("GET /kv/shared", "").ends_with("\r\n\r\none"));
        assert!(daemon.http("PUT /kv/shared", "second").starts_with("HTTP/1.1 20"));
        talk(&mut connect(&daemon), "GET shared\r\n", "$6\r\nsecond\r\n");
    }
}

#[test]
fn a_password_from_the_configuration_is_asked_for_and_changes_on_hangup() {
    let name = format!("annulus-password-{}.toml", std::process::id());
    let path = std::env::temp_dir().join(name);
    let write = |text: &str| std::fs::write(&path, text).expect("a writable folder");
    write("[resp]\npassword = \"first\"\n");
    let daemon = Daemon::start(&["--config", path.to_str().expect("a plain path")]);
    talk(&mut connect(&daemon), "GET key\r\n", "-NOAUTH Authentication required.\r\n");
    talk(&mut connect(&daemon), "AUTH first\r\nGET key\r\n", "+OK\r\n$-1\r\n");
    write("[resp]\npassword = \"second\"\n");
    daemon.signal("HUP");
    daemon.wait_for_log("resp.password is now");
    assert!(!daemon.log().contains("second"), "{}", daemon.log());
    talk(&mut connect(&daemon), "AUTH second\r\n", "+OK\r\n");
    let _ = std::fs::remove_file(&path);
}

#[test]
fn a_drain_answers_every_command_that_has_arrived() {
    const COMMANDS: usize = 20_000;
    for engine in ENGINES {
        let mut daemon = Daemon::start(&["--engine", engine, "--drain-timeout", "60s"]);
        let mut stream = connect(&daemon);
        stream.write_all("INCR n\r\n".repeat(COMMANDS).as_bytes()).expect("the peer reads");
        let mut first = [0; 4];
        stream.read_exact(&mut first).expect("a reply");
        daemon.signal("TERM");
        let mut rest = String::new();
        stream.read_to_string(&mut rest).expect("whole replies, then the end");
        let replies = String::from_utf8_lossy(&first).into_owned() + &rest;
        assert_eq!(replies.lines().count(), COMMANDS, "{engine}");
        assert!(replies.ends_with(&format!(":{COMMANDS}\r\n")), "{engine}");
        assert_eq!(daemon.wait().code(), Some(0), "{}", daemon.log());
    }
}
