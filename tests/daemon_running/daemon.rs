//! A daemon under test: started on free ports, spoken to over plain sockets, ended at drop.
//!
//! Invariant: no process outlives its test.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Long enough for a slow machine; only a failing test waits so long.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

pub(super) const ENGINES: [&str; 3] = ["uring", "epoll", "threads"];

/// What was used to start it, for messages, and the process.
pub(super) struct Daemon {
    child: Child,
    pub(super) announcement: String,
    log: PathBuf,
}

impl Daemon {
    /// Starts with these arguments beside `serve` and free ports.
    pub(super) fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_annulus"));
        command.args(["serve", "--resp", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
        if !arguments.contains(&"--data") {
            command.args(["--data", "none"]);
        }
        command.args(arguments);
        Self::start_command(command)
    }

    /// Starts a command that runs the daemon, and waits until it has announced itself.
    pub(super) fn start_command(mut command: Command) -> Self {
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let name = format!("annulus-{}-{number}.log", std::process::id());
        let log = std::env::temp_dir().join(name);
        let stderr = fs::File::create(&log).expect("a writable folder");
        command.env_remove("RUST_LOG").stdout(Stdio::piped()).stderr(stderr);
        let mut child = command.spawn().expect("the binary runs");
        let stdout = child.stdout.take().expect("piped");
        let mut announcement = String::new();
        for line in BufReader::new(stdout).lines() {
            let line = line.expect("UTF-8");
            announcement += &line;
            announcement.push('\n');
            if line.contains("curl") {
                break;
            }
        }
        let daemon = Self { child, announcement, log };
        assert!(daemon.announcement.contains("curl"), "it did not start: {}", daemon.log());
        daemon
    }

    /// What it has logged so far.
    pub(super) fn log(&self) -> String {
        fs::read_to_string(&self.log).expect("a readable log")
    }

    fn address(&self, label: &str) -> SocketAddr {
        let line = self.announcement.lines().find(|line| line.starts_with(label));
        let address = line.expect("announced")[label.len()..].trim();
        let address = address.trim_start_matches("http://").trim_end_matches('/');
        address.parse().expect("an address")
    }

    pub(super) fn resp_address(&self) -> SocketAddr {
        self.address("RESP")
    }

    pub(super) fn http_address(&self) -> SocketAddr {
        self.address("HTTP")
    }

    /// A connection to the HTTP service that does not wait for ever.
    pub(super) fn connect_http(&self) -> TcpStream {
        let stream = TcpStream::connect(self.http_address()).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a valid time limit");
        stream
    }

    /// One request on a connection of its own; the whole reply.
    pub(super) fn http(&self, head: &str, body: &str) -> String {
        let mut stream = self.connect_http();
        send_request(&mut stream, head, body);
        read_to_end(&mut stream)
    }

    /// Sends the signal of this name.
    pub(super) fn signal(&self, name: &str) {
        let (signal, process) = (format!("-{name}"), self.child.id().to_string());
        let sent = Command::new("kill").args([signal, process]).status().expect("kill runs");
        assert!(sent.success());
    }

    /// Waits for a line of the log that contains `words`.
    pub(super) fn wait_for_log(&self, words: &str) {
        let began = Instant::now();
        while !self.log().contains(words) {
            assert!(began.elapsed() < PATIENCE, "no {words:?} in the log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The CPU time that it has used, in ticks of 10 ms (fields 14 and 15 of proc_pid_stat(5)).
    pub(super) fn cpu_ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("it runs");
        let after_name = &stat[stat.rfind(')').expect("a name") + 2..];
        let fields: Vec<&str> = after_name.split(' ').collect();
        let ticks = |field: &str| field.parse::<u64>().expect("a number");
        ticks(fields[11]) + ticks(fields[12])
    }

    /// Waits for its end.
    pub(super) fn wait(&mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child of ours") {
                return status;
            }
            assert!(began.elapsed() < PATIENCE, "it does not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.log);
    }
}

/// Sends a request that asks for the connection to be closed after it.
pub(super) fn send_request(stream: &mut TcpStream, head: &str, body: &str) {
    let length = body.len();
    let request = format!(
        "{head} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n\
         {body}"
    );
    stream.write_all(request.as_bytes()).expect("the peer reads");
}

/// Reads until the peer closes.
pub(super) fn read_to_end(stream: &mut TcpStream) -> String {
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("a whole reply");
    reply
}
