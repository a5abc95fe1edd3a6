//! A store that is kept, from outside: its figures over HTTP, its settings on a hangup, its
//! directory when another daemon wants it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::daemon::Daemon;

/// A directory that is removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let name = format!("annulus-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).expect("a writable folder");
        Self(path)
    }

    fn text(&self) -> &str {
        self.0.to_str().expect("a plain path")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Asks over RESP for what is answered in few bytes.
fn ask(daemon: &Daemon, line: &str) -> String {
    let mut stream = TcpStream::connect(daemon.resp_address()).expect("it listens");
    stream.write_all(format!("{line}\r\nQUIT\r\n").as_bytes()).expect("it takes bytes");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("it answers");
    reply
}

#[test]
fn figures_tell_how_log_and_snapshots_stand() {
    let data = Directory::new("figures");
    let daemon = Daemon::start(&["--data", data.text(), "--fsync", "always"]);
    assert!(daemon.http("PUT /kv/a", "1").starts_with("HTTP/1.1 201"));
    let metrics = daemon.http("GET /metrics", "");
    for line in [
        "annulus_log_written_lsn_total 1",
        "annulus_log_durable_lsn_total 1",
        "annulus_log_lag_records 0",
        "annulus_log_refuses_writes 0",
        "# TYPE annulus_recovery_seconds gauge",
        "annulus_snapshots_total 0",
        "annulus_writes_refused_total 0",
        "annulus_write_stalls_total 0",
    ] {
        assert!(metrics.lines().any(|have| have == line), "missing {line}\n{metrics}");
    }
    assert_eq!(ask(&daemon, "SAVE"), "+OK\r\n+OK\r\n");
    let metrics = daemon.http("GET /metrics", "");
    assert!(metrics.contains("annulus_snapshots_total 1\n"), "{metrics}");
    assert!(metrics.contains("annulus_snapshot_age_seconds "), "{metrics}");
    let stats = daemon.http("GET /stats", "");
    assert!(stats.contains("},\"store\":{\"log_written_lsn\":1,\"log_durable_lsn\":1,"), "{stats}");
    assert!(stats.ends_with("}}"), "{stats}");
}

#[test]
fn a_store_in_memory_has_no_figures_of_a_log() {
    let daemon = Daemon::start(&[]);
    assert!(!daemon.http("GET /metrics", "").contains("annulus_log_written_lsn"));
    assert!(daemon.http("GET /stats", "").ends_with(",\"store\":{}}"));
}

#[test]
fn a_hangup_changes_how_the_store_is_kept() {
    let data = Directory::new("live");
    let path = data.0.join("annulus.toml");
    let write = |text: &str| std::fs::write(&path, text).expect("a writable folder");
    let store = data.0.join("store");
    let head = format!("[store]\ndata = \"{}\"\n", store.display());
    write(&format!("{head}fsync = \"none\"\n"));
    let config = path.to_str().expect("a plain path");
    let daemon = Daemon::start(&["--config", config, "--data", store.to_str().unwrap_or_default()]);
    assert!(ask(&daemon, "CONFIG GET appendfsync").contains("\r\nno\r\n"));
    let newer = "fsync = \"always\"\nsnapshot_every = \"2m\"\nmemory_max = \"64MiB\"\n\
                 eviction = \"allkeys-lfu\"\nsegment_size = \"8MiB\"\n";
    write(&format!("{head}{newer}"));
    daemon.signal("HUP");
    daemon.wait_for_log("store.segment_size stays \"64MiB\"");
    daemon.wait_for_log("store.eviction is now \"allkeys-lfu\"");
    for (name, value) in [
        ("appendfsync", "always"),
        ("save", "120 1"),
        ("maxmemory", "67108864"),
        ("maxmemory-policy", "allkeys-lfu"),
    ] {
        let told = format!("\r\n{value}\r\n");
        let reply = || ask(&daemon, &format!("CONFIG GET {name}"));
        // The log tells of a change just before it is made.
        let changed = (0..100).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            reply().contains(&told)
        });
        assert!(changed, "{name}: {}", reply());
    }
}

#[test]
fn a_directory_in_use_is_refused_by_name() {
    let data = Directory::new("in-use");
    let first = Daemon::start(&["--data", data.text()]);
    let second = Command::new(env!("CARGO_BIN_EXE_annulus"))
        .args(["serve", "--resp", "127.0.0.1:0", "--http", "off", "--data", data.text()])
        .output()
        .expect("the binary runs");
    assert_eq!(second.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&second.stderr).into_owned();
    let wanted = format!("{} is in use by process ", data.text());
    assert!(stderr.contains(&wanted), "{stderr}");
    assert!(Path::new(data.text()).join("FORMAT").exists());
    assert!(first.http("GET /healthz", "").starts_with("HTTP/1.1 200"));
}
