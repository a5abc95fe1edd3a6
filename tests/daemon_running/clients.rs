//! The daemon and the clients that people use: redis-cli, redis-benchmark, redis-py, curl, wrk.
//!
//! `scripts/test` installs them where it may; a test says when it is skipped because its client is
//! not there. The Python packages are looked for in `target/python`.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::daemon::{Daemon, ENGINES};

/// Runs a client to its success and returns what it printed. `None` if it is not installed.
fn run(program: &str, arguments: &[&str]) -> Option<String> {
    let output = match Command::new(program).args(arguments).output() {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("SKIPPED: {program} is not installed");
            return None;
        }
        Err(error) => panic!("{program}: {error}"),
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{program} {arguments:?}\n{stdout}\n{stderr}");
    Some(stdout)
}

/// Two shards on whatever CPUs there are: most commands then have to look where their key is.
fn start(engine: &str) -> Daemon {
    Daemon::start(&["--engine", engine, "--placement", "floating", "--shards", "2"])
}

#[test]
fn redis_cli_talks_to_every_engine() {
    for engine in ENGINES {
        let daemon = start(engine);
        let port = daemon.resp_address().port().to_string();
        let cli = |command: &[&str]| {
            let arguments = [&["-p", port.as_str()], command].concat();
            run("redis-cli", &arguments)
        };
        let Some(reply) = cli(&["set", "greeting", "hello"]) else { return };
        assert_eq!(reply, "OK\n");
        assert_eq!(cli(&["get", "greeting"]).as_deref(), Some("hello\n"));
        assert_eq!(cli(&["-3", "mget", "greeting", "none"]).as_deref(), Some("hello\n\n"));
        assert_eq!(cli(&["incrby", "n", "5"]).as_deref(), Some("5\n"));
        assert_eq!(cli(&["--scan", "--pattern", "gr*"]).as_deref(), Some("greeting\n"));
        assert!(cli(&["info", "server"]).is_some_and(|info| info.contains("redis_version:")));
    }
}

#[test]
fn redis_benchmark_finishes_on_every_engine() {
    for engine in ENGINES {
        let daemon = start(engine);
        let port = daemon.resp_address().port().to_string();
        let arguments = ["-p", &port, "-t", "set,get,incr,mset", "-n", "10000", "-r", "1000"];
        for pipeline in ["1", "16"] {
            let arguments = [&arguments[..], &["-P", pipeline, "-c", "20", "-e", "--csv"]].concat();
            let Some(csv) = run("redis-benchmark", &arguments) else { return };
            for test in ["SET", "GET", "INCR", "MSET (10 keys)"] {
                assert!(csv.contains(&format!("\"{test}\"")), "{engine}: {csv}");
            }
        }
    }
}

/// The interpreters of the virtual environments below `target/python`.
fn pythons() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python");
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path().join("bin/python")).filter(|path| path.exists()).collect()
}

#[test]
fn redis_py_old_and_new_talk_to_every_engine() {
    let pythons = pythons();
    if pythons.is_empty() {
        eprintln!("SKIPPED: no redis-py in target/python; scripts/test puts it there");
    }
    for python in pythons {
        for engine in ENGINES {
            let daemon = start(engine);
            let port = daemon.resp_address().port().to_string();
            let script = include_str!("clients.py");
            let python = python.to_str().expect("a plain path");
            let said = run(python, &["-c", script, &port]);
            assert!(said.is_some_and(|said| said.starts_with("fine with redis-py ")), "{engine}");
        }
    }
}

#[test]
fn curl_talks_to_every_engine() {
    for engine in ENGINES {
        let daemon = start(engine);
        let url = format!("http://{}/kv/some%20key", daemon.http_address());
        let Some(_) = run("curl", &["-sSf", "-X", "PUT", "--data-binary", "hello", &url]) else {
            return;
        };
        assert_eq!(run("curl", &["-sSf", &url]).as_deref(), Some("hello"));
        let head = run("curl", &["-sSfI", &url]).expect("it is installed");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        // Two requests on one connection, the second with a body that curl announces first.
        let body = "x".repeat(100_000);
        let expect = ["-sSf", "-H", "Expect: 100-continue", "-X", "PUT", "-d", &body, &url];
        run("curl", &[&["-sSf", url.as_str(), "--next"], &expect[..]].concat());
        let metrics = format!("http://{}/metrics", daemon.http_address());
        let metrics = run("curl", &["-sSf", &metrics]).expect("it is installed");
        assert!(metrics.contains("annulus_http_requests_total"), "{metrics}");
    }
}

#[test]
fn wrk_sees_no_errors_on_any_engine() {
    for engine in ENGINES {
        let daemon = start(engine);
        assert!(daemon.http("PUT /kv/a", "hello").starts_with("HTTP/1.1 20"));
        let url = format!("http://{}/kv/a", daemon.http_address());
        let Some(said) = run("wrk", &["-t1", "-c32", "-d1s", &url]) else { return };
        assert!(said.contains("Requests/sec:"), "{said}");
        assert!(!said.contains("Socket errors") && !said.contains("Non-2xx"), "{engine}: {said}");
    }
}
