//! A server process over its wire: start it, ask it, read what it says. For tests of the daemon.
#![allow(dead_code, reason = "each test program uses some of it")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::Duration;

/// A server process and a connection to it.
pub(crate) struct Wire {
    process: Option<Child>,
    /// Where it keeps its store; removed with it.
    data: Option<PathBuf>,
    address: String,
    stream: BufReader<TcpStream>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
        if let Some(data) = &self.data {
            let _ = std::fs::remove_dir_all(data);
        }
    }
}

impl Wire {
    /// Starts a redis-server on a free port; `None` if there is none to start.
    pub(crate) fn redis() -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port();
        let process = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--save", "", "--appendonly", "no"])
            .args(["--bind", "127.0.0.1", "--dir", &std::env::temp_dir().to_string_lossy()])
            .stdout(Stdio::null())
            .spawn()
            .ok()?;
        let address = format!("127.0.0.1:{port}");
        for _ in 0..200 {
            if let Ok(stream) = TcpStream::connect(&address) {
                return Some(Self::over(Some(process), address, stream));
            }
            sleep(Duration::from_millis(25));
        }
        panic!("redis-server starts within five seconds");
    }

    /// Starts the daemon with several shards and a store in memory.
    pub(crate) fn annulus(engine: &str) -> Self {
        Self::start(engine, &["--data", "none"])
    }

    /// The same with a store in a directory of its own, and every write durable before its reply.
    pub(crate) fn kept(engine: &str) -> Self {
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let name = format!("annulus-kept-{}-{number}", std::process::id());
        let data = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&data);
        let text = data.to_string_lossy().into_owned();
        let mut started = Self::start(engine, &["--data", &text, "--fsync", "always"]);
        started.data = Some(data);
        started
    }

    /// Ends the daemon by `ending`, to which it answers by closing, and starts it on the same
    /// directory again.
    pub(crate) fn restarted(mut self, engine: &str, ending: &str) -> Self {
        self.write(&encode(&words(ending)));
        assert!(self.is_closed(), "{ending} is answered by the end");
        let status = self.process.take().map(|mut process| process.wait());
        assert!(matches!(status, Some(Ok(status)) if status.success()), "{status:?}");
        let data = self.data.take().expect("it has a directory");
        let text = data.to_string_lossy().into_owned();
        let mut started = Self::start(engine, &["--data", &text]);
        started.data = Some(data);
        started
    }

    fn start(engine: &str, arguments: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_annulus"))
            .args(["serve", "--engine", engine, "--shards", "3", "--placement", "floating"])
            .args(["--resp", "127.0.0.1:0", "--http", "off"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let output = process.stdout.take().expect("a pipe");
        let address = BufReader::new(output)
            .lines()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("RESP").map(|address| address.trim().to_owned()));
        let address = address.expect("the daemon says where it listens");
        let stream = TcpStream::connect(&address).expect("the daemon listens");
        Self::over(Some(process), address, stream)
    }

    fn over(process: Option<Child>, address: String, stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout can be set");
        stream.set_nodelay(true).expect("an option can be set");
        Self { process, data: None, address, stream: BufReader::new(stream) }
    }

    /// Another connection to the same server.
    pub(crate) fn another(&self) -> Self {
        let stream = TcpStream::connect(&self.address).expect("the server listens");
        Self::over(None, self.address.clone(), stream)
    }

    /// The process, to look at or to signal.
    pub(crate) fn process_id(&self) -> u32 {
        self.process.as_ref().map_or(0, Child::id)
    }

    /// Sends bytes as they are.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).expect("the server takes bytes");
    }

    /// Reads one reply.
    pub(crate) fn read(&mut self) -> Vec<u8> {
        let mut reply = Vec::new();
        self.read_value(&mut reply);
        reply
    }

    /// Reads `count` replies, as text.
    pub(crate) fn read_text(&mut self, count: usize) -> String {
        (0..count).map(|_| String::from_utf8_lossy(&self.read()).into_owned()).collect()
    }

    /// Asks with a line of words, and answers the reply as text.
    pub(crate) fn ask_line(&mut self, line: &str) -> String {
        String::from_utf8_lossy(&self.ask(&encode(&words(line)))).into_owned()
    }

    /// Whether the server has closed the connection, with nothing sent before.
    pub(crate) fn is_closed(&mut self) -> bool {
        let mut byte = [0];
        !matches!(self.stream.read(&mut byte), Ok(1..))
    }

    pub(crate) fn ask(&mut self, request: &[u8]) -> Vec<u8> {
        self.write(request);
        self.read()
    }

    fn read_value(&mut self, reply: &mut Vec<u8>) {
        let start = reply.len();
        self.stream.read_until(b'\n', reply).expect("the server replies");
        let head = String::from_utf8_lossy(&reply[start..]).into_owned();
        let number = || head[1..].trim_end().parse::<i64>().unwrap_or(0);
        match head.as_bytes()[0] {
            b'$' | b'=' if number() >= 0 => {
                let body = reply.len();
                reply.resize(body + number() as usize + 2, 0);
                self.stream.read_exact(&mut reply[body..]).expect("the server replies");
            }
            b'*' | b'~' | b'>' => (0..number()).for_each(|_| self.read_value(reply)),
            b'%' => (0..number() * 2).for_each(|_| self.read_value(reply)),
            _ => {}
        }
    }
}

/// Splits a line into words; `"..."` may hold spaces, `\r`, `\n` and nothing.
pub(crate) fn words(line: &str) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut rest = line.trim();
    while !rest.is_empty() {
        let (word, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').expect("a closing quote"),
            None => rest.split_once(' ').unwrap_or((rest, "")),
        };
        words.push(word.replace("\\r", "\r").replace("\\n", "\n").into_bytes());
        rest = after.trim_start();
    }
    words
}

/// A request as an array of bulk strings.
pub(crate) fn encode(words: &[Vec<u8>]) -> Vec<u8> {
    let mut request = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        request.extend_from_slice(word);
        request.extend_from_slice(b"\r\n");
    }
    request
}
