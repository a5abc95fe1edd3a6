//! A server under test: started on a directory, killed, started again.
//!
//! The daemon, or `redis-server` as a stand-in that shows that the checker itself is right.
//! Invariant: no process outlives its guard.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use super::resp::{Connection, PATIENCE, Reply};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// The daemon, with this engine.
    Annulus(&'static str),
    Redis,
    /// Never syncs, whatever it is asked.
    RedisThatLies,
}

/// When a write is synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fsync {
    Always,
    Interval(Duration),
    None,
}

#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) program: Program,
    pub(crate) fsync: Fsync,
    /// The data directory, or `none`.
    pub(crate) folder: PathBuf,
    /// Lines of the table `[store]`.
    pub(crate) store: String,
}

/// Small segments and frequent snapshots: every cycle rotates and trims.
const SMALL_STORE: &str = "segment_size = \"1MiB\"\nsnapshot_log_size = \"3MiB\"\n";

impl Setup {
    pub(crate) fn new(program: Program, fsync: Fsync, folder: PathBuf) -> Self {
        Self { program, fsync, folder, store: SMALL_STORE.to_owned() }
    }

    /// The daemon, with its store in memory only.
    pub(crate) fn in_memory(engine: &'static str) -> Self {
        let (fsync, folder) = (Fsync::None, PathBuf::from("none"));
        Self { program: Program::Annulus(engine), fsync, folder, store: String::new() }
    }

    /// Whether there is anything to start again from.
    pub(crate) fn is_kept(&self) -> bool {
        self.folder != *"none"
    }

    fn annulus(&self, engine: &str, config: &PathBuf) -> Command {
        let fsync = match self.fsync {
            Fsync::Always => "always",
            Fsync::Interval(_) => "interval",
            Fsync::None => "none",
        };
        let interval = match self.fsync {
            Fsync::Interval(interval) => {
                format!("fsync_interval = \"{}ms\"\n", interval.as_millis())
            }
            _ => String::new(),
        };
        fs::write(config, format!("[store]\n{}{interval}", self.store)).expect("a writable folder");
        let mut command = Command::new(env!("CARGO_BIN_EXE_annulus"));
        command.args(["serve", "--resp", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
        command.args(["--engine", engine]);
        command.args(["--shards", "2", "--placement", "floating"]);
        if self.is_kept() {
            command.args(["--fsync", fsync]);
        }
        command.arg("--data").arg(&self.folder).arg("--config").arg(config);
        command.env_remove("RUST_LOG");
        command
    }

    fn redis(&self, port: u16) -> Command {
        fs::create_dir_all(&self.folder).expect("a writable folder");
        let mut command = Command::new("redis-server");
        let fsync = match self.fsync {
            Fsync::Always => "always",
            Fsync::Interval(_) => "everysec",
            Fsync::None => "no",
        };
        let fsync = if self.program == Program::RedisThatLies { "no" } else { fsync };
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
        command.args(["--appendonly", "yes", "--appendfsync", fsync, "--dir"]).arg(&self.folder);
        // Only the plain way is of interest here: what it does while it rewrites is its own affair.
        command.args(["--auto-aof-rewrite-percentage", "0"]);
        command
    }
}

/// The numbers of servers, for the names of their files.
static STARTED: AtomicUsize = AtomicUsize::new(0);

pub(crate) struct Server {
    child: Child,
    address: Option<SocketAddr>,
    http_address: Option<SocketAddr>,
    lines: Option<Receiver<String>>,
    log: PathBuf,
    config: PathBuf,
    began: Instant,
}

impl Server {
    /// Starts it and does not wait until it is ready.
    pub(crate) fn spawn(setup: &Setup) -> Self {
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let file = |suffix: &str| {
            let name = format!("annulus-crash-{}-{number}.{suffix}", std::process::id());
            std::env::temp_dir().join(name)
        };
        let (log, config) = (file("log"), file("toml"));
        let (mut command, address) = match setup.program {
            Program::Annulus(engine) => (setup.annulus(engine, &config), None),
            Program::Redis | Program::RedisThatLies => {
                let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
                let address = listener.local_addr().expect("bound");
                (setup.redis(address.port()), Some(address))
            }
        };
        let stderr = File::create(&log).expect("a writable folder");
        let stdout = match setup.program {
            Program::Annulus(_) => Stdio::piped(),
            Program::Redis | Program::RedisThatLies => stderr.try_clone().expect("a file").into(),
        };
        let began = Instant::now();
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        let mut child = command.spawn().expect("the program runs");
        let lines = child.stdout.take().map(lines_of);
        Self { child, address, http_address: None, lines, log, config, began }
    }

    /// Starts it and waits until it serves.
    ///
    /// # Errors
    /// What it said when it ended instead.
    pub(crate) fn start(setup: &Setup) -> Result<Self, String> {
        let mut server = Self::spawn(setup);
        server.wait_until_it_serves()?;
        Ok(server)
    }

    fn wait_until_it_serves(&mut self) -> Result<(), String> {
        let limit = self.began + PATIENCE;
        while let Some(lines) = self.lines.as_ref().filter(|_| self.http_address.is_none()) {
            // The address of the one comes before that of the other.
            let line = lines.recv_timeout(limit.saturating_duration_since(Instant::now()));
            let Ok(line) = line else { return Err(format!("it did not start:\n{}", self.log())) };
            let address = |name| line.strip_prefix(name).map(str::trim);
            if let Some(address) = address("RESP") {
                self.address = address.parse().ok();
            }
            if let Some(address) = address("HTTP") {
                let address = address.trim_start_matches("http://").trim_end_matches('/');
                self.http_address = address.parse().ok();
            }
        }
        while Instant::now() < limit {
            if let Some(status) = self.ended() {
                return Err(format!("it did not start, {status}:\n{}", self.log()));
            }
            let reply = Connection::open(self.address()).and_then(|mut it| it.call(&["PING"]));
            if reply.is_ok_and(|reply| reply == Reply::Simple("PONG".to_owned())) {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(2));
        }
        Err(format!("it does not serve:\n{}", self.log()))
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address.expect("it was waited for")
    }

    pub(crate) fn connect(&self) -> Connection {
        Connection::open(self.address()).expect("it listens")
    }

    /// Puts a value over HTTP; the reply, as far as it has come within a limit.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn put_over_http(&self, key: &str, value: &str) -> io::Result<String> {
        let address = self.http_address.expect("it was waited for");
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let length = value.len();
        write!(
            stream,
            "PUT /kv/{key} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\
             Content-Length: {length}\r\n\r\n{value}"
        )?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply)?;
        Ok(reply)
    }

    /// How long ago it was started.
    pub(crate) fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child of ours")
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// It does not.
    pub(crate) fn wait(&mut self) -> Result<ExitStatus, String> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(2));
        }
        Err(format!("it does not end:\n{}", self.log()))
    }

    /// Asks it to end (SIGTERM).
    pub(crate) fn ask_to_end(&self) {
        let id = rustix::process::Pid::from_child(&self.child);
        let asked = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        asked.expect("a child of ours that was not waited for");
    }

    /// Ends it without a chance to do anything (SIGKILL).
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        for file in [&self.log, &self.config] {
            let _ = fs::remove_file(file);
        }
    }
}

/// The lines that a process prints, as they come.
fn lines_of(stdout: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}
