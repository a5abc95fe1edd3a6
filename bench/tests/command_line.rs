//! The program as its user sees it: floors served, loads checked, mistakes answered.
//!
//! Every server here listens on a port of the kernel's choice and is killed when its test ends.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

const PROGRAM: &str = env!("CARGO_BIN_EXE_annulus-bench");

fn run(arguments: &str) -> Output {
    Command::new(PROGRAM).args(arguments.split(' ')).output().expect("the program starts")
}

fn complaint(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A server child and its address.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(arguments: &str) -> Self {
        let mut child = Command::new(PROGRAM)
            .args(arguments.split(' '))
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let output = child.stdout.take().expect("stdout is piped");
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).expect("a line");
        let address = line.trim().strip_prefix("listening on ").expect("an address").to_owned();
        Self { child, address }
    }

    fn load(&self, arguments: &str) -> Output {
        run(&format!("load --address {} --warmup 0 --duration 0.2 {arguments}", self.address))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn serves_echo(server: &str) {
    let server = Server::start(server);
    for load in [
        "--connections 1 --payload 1",
        "--connections 8 --pipeline 16 --payload 64",
        "--connections 4 --pipeline 3 --payload 100000",
        "--connections 200 --threads 2 --payload 64",
        "--connections 4 --rate 2000",
    ] {
        let output = server.load(&format!("--protocol echo {load}"));
        assert!(output.status.success(), "{load}: {}", complaint(&output));
    }
}

fn serves_resp(server: &str) {
    let server = Server::start(server);
    for load in [
        "--operation ping --connections 2",
        "--operation get --connections 8 --pipeline 16 --keys 100",
        "--operation set --connections 8 --pipeline 64 --keys 100 --payload 300",
        "--operation mixed --connections 2 --pipeline 3 --keys 10 --payload 70000",
    ] {
        let output = server.load(&format!("--protocol resp {load}"));
        assert!(output.status.success(), "{load}: {}", complaint(&output));
    }
}

#[test]
fn the_epoll_floor_serves_echo_and_resp() {
    serves_echo("floor --engine epoll");
    serves_resp("floor --engine epoll --protocol resp");
}

#[test]
fn the_threads_floor_serves_echo_and_resp() {
    serves_echo("floor --engine threads");
    serves_resp("floor --engine threads --protocol resp");
}

#[test]
fn the_ring_floor_serves_echo_and_resp_where_io_uring_is_allowed() {
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    if disabled.is_ok_and(|text| text.trim() == "2") {
        eprintln!("skipped: io_uring is disabled on this host");
        return;
    }
    serves_echo("floor --engine ring");
    serves_resp("floor --engine ring --protocol resp");
}

#[test]
fn annulus_serves_echo_on_epoll_and_threads() {
    serves_echo("peer annulus --engine epoll");
    serves_echo("peer annulus --engine threads");
}

#[test]
fn senseless_flags_are_usage_errors() {
    for (arguments, expected) in [
        ("load --protocol gopher --address 127.0.0.1:1", "gopher"),
        ("load --protocol echo --address nowhere", "HOST:PORT"),
        ("load --protocol echo --address 127.0.0.1:1 --connections 0", "--connections"),
        ("load --protocol echo --address 127.0.0.1:1 --pipeline 0", "--pipeline"),
        ("load --protocol echo --address 127.0.0.1:1 --rate 0", "--rate"),
        ("load --protocol echo --address 127.0.0.1:1 --duration 0", "--duration"),
        ("load --protocol echo --address 127.0.0.1:1 --cpu 4000", "--cpu 4000"),
        ("floor --engine steam", "steam"),
        ("compare --engines steam", "steam"),
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments}");
        assert!(complaint(&output).contains(expected), "{arguments}: {}", complaint(&output));
    }
}

#[test]
#[cfg(debug_assertions)]
fn debug_builds_refuse_to_compare() {
    let output = run("compare");
    assert_eq!(output.status.code(), Some(2));
    assert!(complaint(&output).contains("debug build"));
}

#[test]
fn an_address_that_refuses_is_named() {
    let output = run("load --protocol echo --address 127.0.0.1:1 --duration 0.1");
    assert_eq!(output.status.code(), Some(1));
    assert!(complaint(&output).contains("cannot connect to 127.0.0.1:1"));
}

#[test]
fn a_server_of_another_protocol_is_an_error() {
    let server = Server::start("floor --engine epoll");
    let output = server.load("--protocol http --connections 2");
    assert_eq!(output.status.code(), Some(1));
    assert!(complaint(&output).contains("not an HTTP reply"), "{}", complaint(&output));
}

#[test]
fn missing_keys_are_wrong_replies() {
    let server = Server::start("floor --engine epoll --protocol resp");
    let output = server.load("--protocol resp --operation get --no-prepare --connections 2");
    assert_eq!(output.status.code(), Some(1));
    assert!(complaint(&output).contains("wrong replies"), "{}", complaint(&output));
}

#[test]
fn a_server_that_dies_in_the_middle_is_an_error() {
    let mut server = Server::start("floor --engine epoll");
    let address = server.address.clone();
    let load = std::thread::spawn(move || {
        run(&format!("load --protocol echo --address {address} --connections 4 --duration 20"))
    });
    std::thread::sleep(Duration::from_millis(500));
    server.child.kill().expect("it still runs");
    let output = load.join().expect("no panic");
    assert_eq!(output.status.code(), Some(1));
    assert!(complaint(&output).contains("no connection"), "{}", complaint(&output));
}

/// A directory for one test, removed at its end.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("the directory is made");
        Self(path)
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).expect("the directory is there");
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_disk_run_reports_every_engine_and_removes_its_file() {
    let scratch = Scratch::new("disk-run");
    let place = scratch.0.display();
    for manner in [
        "--depths 3 --blocks 64k",
        "--depths 1,3 --blocks 4k,64k --operations write --sync",
        "--depths 3 --blocks 64k --operations random-read,write --buffered --peers",
    ] {
        let output = run(&format!(
            "disk --dir {place} --size 1m --window 0.01 --output {place}/runs --name test {manner}"
        ));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{manner}: {}{text}", complaint(&output));
        for wanted in ["annulus uring", "annulus epoll", "annulus threads", "write 64 KiB"] {
            assert!(text.contains(wanted), "{manner}: {wanted} is missing in {text}");
        }
        assert_eq!(scratch.names(), ["runs"], "{manner}: the file is gone");
    }
    let runs = std::fs::read_dir(scratch.0.join("runs")).unwrap();
    for entry in runs {
        let directory = entry.unwrap().path();
        assert!(std::fs::read_to_string(directory.join("disk.md")).unwrap().contains("| annulus"));
        let json = std::fs::read_to_string(directory.join("disk.json")).unwrap();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert!(json["lines"][0]["operations"].as_u64().unwrap() > 0);
    }
}

#[test]
fn senseless_disk_runs_are_usage_errors_and_touch_nothing() {
    let scratch = Scratch::new("disk-refusals");
    let precious = scratch.0.join("precious");
    std::fs::write(&precious, b"precious").unwrap();
    let place = scratch.0.display();
    for (flags, expected) in [
        (format!("--file {place}/precious"), "would be overwritten"),
        (format!("--dir {place}/none"), "is no directory"),
        (format!("--dir {place} --size 4000000g"), "MiB free"),
        (format!("--dir {place} --size none"), "number of bytes"),
        (format!("--dir {place} --blocks 1000"), "multiples of 4096"),
        (format!("--dir {place} --size 1m --blocks 2m"), "larger than the file"),
        (format!("--dir {place} --depths 0"), "--depths"),
        (format!("--dir {place} --depths 1024 --blocks 4m"), "at a time"),
        (format!("--dir {place} --window 0"), "--window"),
        (format!("--dir {place} --cpu 4000"), "--cpu 4000"),
        (format!("--dir {place} --name a/b"), "--name"),
    ] {
        let output = run(&format!("disk {flags}"));
        assert_eq!(output.status.code(), Some(2), "{flags}: {}", complaint(&output));
        assert!(complaint(&output).contains(expected), "{flags}: {}", complaint(&output));
    }
    assert_eq!(scratch.names(), ["precious"]);
    assert_eq!(std::fs::read(&precious).unwrap(), b"precious");
}

fn redis_is_missing() -> bool {
    let missing = Command::new("redis-server").arg("--version").output().is_err();
    if missing {
        eprintln!("skipped: redis-server is not installed");
    }
    missing
}

/// Runs a bench of stored data against redis alone, and returns what it wrote.
fn runs_against_redis(command: &str, flags: &str) -> serde_json::Value {
    let scratch = Scratch::new(&format!("{command}-run"));
    let place = scratch.0.display();
    let output = run(&format!(
        "{command} --peers --only redis --rounds 2 --dir {place} --output {place}/runs {flags}"
    ));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}{text}", complaint(&output));
    assert!(text.contains("\nredis"), "{text}");
    assert_eq!(scratch.names(), ["runs"], "what was stored is gone");
    let runs = scratch.0.join("runs");
    let directory = std::fs::read_dir(runs).unwrap().next().unwrap().unwrap().path();
    let read = |ending: &str| {
        std::fs::read_to_string(directory.join(format!("{command}.{ending}"))).unwrap()
    };
    assert!(read("md").contains("| redis |"));
    assert!(read("html").contains("<td>redis</td>"));
    serde_json::from_str(&read("json")).unwrap()
}

#[test]
fn a_recovery_run_reports_how_long_each_round_took() {
    if redis_is_missing() {
        return;
    }
    let json = runs_against_redis("recovery", "--records 3000");
    assert_eq!(json["lines"][0]["loading_seconds"].as_array().unwrap().len(), 2);
    assert!(json["lines"][0]["bytes"].as_u64().unwrap() > 3000 * 64);
}

#[test]
fn a_snapshot_run_reports_latency_and_memory() {
    if redis_is_missing() {
        return;
    }
    let flags = "--keys 3000 --rate 500 --connections 2 --window 0.3";
    let json = runs_against_redis("snapshot", flags);
    let line = &json["lines"][0];
    assert_eq!(line["p99_us_during"].as_array().unwrap().len(), 2);
    assert!(line["memory_bytes_before"].as_u64().unwrap() > 0);
    assert!(!line["save_seconds"].as_array().unwrap().is_empty());
}

#[test]
fn senseless_runs_on_stored_data_are_usage_errors() {
    for (arguments, expected) in [
        ("recovery --records 0", "--records"),
        ("recovery --rounds 0", "--rounds"),
        ("recovery --value 2000000", "--value"),
        ("recovery --only nobody", "nobody takes part"),
        ("recovery --name a/b", "--name"),
        ("recovery --peers --only redis --dir /nowhere/at/all", "--dir /nowhere/at/all"),
        ("recovery --annulus /nowhere/annulus", "no daemon at /nowhere/annulus"),
        ("snapshot --keys 0", "--keys"),
        ("snapshot --rate 0", "--rate"),
        ("snapshot --connections 0", "--connections"),
        ("snapshot --window 0", "--window"),
        ("snapshot --engines steam", "steam"),
        ("compare --workloads durable", "durable"),
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments}: {}", complaint(&output));
        assert!(complaint(&output).contains(expected), "{arguments}: {}", complaint(&output));
    }
}
