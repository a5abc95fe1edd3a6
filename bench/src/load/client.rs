//! A Redis client that asks one command at a time, for what is not measured: start a save, count
//! keys, wait until a server has loaded.
//!
//! Called by the benches of recovery and snapshots. Invariant: a reply is read before the next
//! command is sent.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::exchange::reply_len;
use super::prepare;
use crate::failure::Failure;

/// Between two questions whether a server has loaded.
const LOADING_INTERVAL: Duration = Duration::from_millis(5);

/// A connection of its own.
#[derive(Debug)]
pub(crate) struct Client {
    address: SocketAddr,
    stream: TcpStream,
    patience: Duration,
}

impl Client {
    /// Connects; a reply may take up to `patience`.
    pub(crate) fn connect(address: SocketAddr, patience: Duration) -> Result<Self, Failure> {
        let stream = prepare::connect(address)?;
        stream
            .set_read_timeout(Some(patience))
            .map_err(|error| Failure::failed("read timeout", error))?;
        Ok(Self { address, stream, patience })
    }

    /// The reply to a command as it came, without its last line end. An error reply is a failure.
    pub(crate) fn ask(&mut self, words: &[&str]) -> Result<String, Failure> {
        let reply = self.reply(words)?;
        if let Some(error) = reply.strip_prefix('-') {
            return Err(self.failed(words, error));
        }
        Ok(reply)
    }

    /// The number that a command is answered with.
    pub(crate) fn ask_number(&mut self, words: &[&str]) -> Result<u64, Failure> {
        let reply = self.ask(words)?;
        let number = reply.strip_prefix(':').and_then(|digits| digits.parse().ok());
        number.ok_or_else(|| self.failed(words, format!("no number: {reply}")))
    }

    /// Waits until commands are served: until then a server does not answer, or says LOADING.
    pub(crate) fn wait_until_loaded(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + self.patience;
        loop {
            let reply = self.reply(&["PING"])?;
            if reply == "+PONG" {
                return Ok(());
            }
            if !reply.starts_with("-LOADING") || Instant::now() > deadline {
                return Err(self.failed(&["PING"], reply));
            }
            thread::sleep(LOADING_INTERVAL);
        }
    }

    fn reply(&mut self, words: &[&str]) -> Result<String, Failure> {
        let mut command = format!("*{}\r\n", words.len());
        for word in words {
            let _ = write!(command, "${}\r\n{word}\r\n", word.len());
        }
        let mut input = Vec::new();
        let mut piece = [0; 4096];
        self.stream.write_all(command.as_bytes()).map_err(|error| self.failed(words, error))?;
        loop {
            match reply_len(&input).map_err(|malformed| self.failed(words, malformed.0))? {
                Some(len) if len == input.len() => break,
                Some(_) => return Err(self.failed(words, "more than one reply")),
                None => {}
            }
            match self.stream.read(&mut piece) {
                Ok(0) => return Err(self.failed(words, "the server closed the connection")),
                Ok(len) => input.extend_from_slice(&piece[..len]),
                Err(error) => return Err(self.failed(words, error)),
            }
        }
        let reply = String::from_utf8_lossy(&input);
        Ok(reply.trim_end_matches("\r\n").to_owned())
    }

    fn failed(&self, words: &[&str], why: impl std::fmt::Display) -> Failure {
        Failure::failed(format!("{} at {}", words.join(" "), self.address), why)
    }
}
