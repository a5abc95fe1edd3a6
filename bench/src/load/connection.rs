//! One connection of the load generator: a socket, its exchange, and bytes on their way out.
//!
//! A worker calls it on readiness. Invariant: what the socket did not take is kept in `output` and
//! goes first; a reply split over reads is kept in `leftover` until it is whole.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::exchange::{Exchange, Malformed, Verdict};

/// How long a server may take to accept.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a connection is over.
#[derive(Debug)]
pub(super) enum Broken {
    /// The server ended the stream.
    Closed,
    /// The socket failed.
    Socket(io::Error),
    /// The server does not speak the protocol.
    Malformed(Malformed),
}

impl std::fmt::Display for Broken {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Broken::Closed => formatter.write_str("the server closed a connection"),
            Broken::Socket(error) => write!(formatter, "a connection failed: {error}"),
            Broken::Malformed(Malformed(what)) => formatter.write_str(what),
        }
    }
}

/// A socket and what goes over it.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    exchange: Exchange,
    output: Vec<u8>,
    written: usize,
    leftover: Vec<u8>,
}

impl Connection {
    /// Connects, with nodelay, and leaves the socket non-blocking.
    pub(super) fn open(address: SocketAddr, exchange: Exchange) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream, exchange, output: Vec::new(), written: 0, leftover: Vec::new() })
    }

    /// Sends `count` more requests, as far as the socket takes them now.
    pub(super) fn request(&mut self, count: usize) -> Result<(), Broken> {
        self.exchange.write_requests(count, &mut self.output);
        self.flush()
    }

    /// Whether the latency of the last request is of interest.
    pub(super) fn last_counts(&self) -> bool {
        self.exchange.last_counts()
    }

    /// Goes on with what the socket did not take before.
    pub(super) fn flush(&mut self) -> Result<(), Broken> {
        while self.written < self.output.len() {
            match self.stream.write(&self.output[self.written..]) {
                Ok(len) => self.written += len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Broken::Socket(error)),
            }
        }
        self.output.clear();
        self.written = 0;
        Ok(())
    }

    /// Whether bytes wait for the socket.
    pub(super) fn is_blocked(&self) -> bool {
        self.written < self.output.len()
    }

    /// Reads once into `scratch` and checks the replies that this completes. The flag says that
    /// the socket may hold more.
    pub(super) fn receive(&mut self, scratch: &mut Vec<u8>) -> Result<(Verdict, bool), Broken> {
        let kept = self.leftover.len();
        if scratch.len() < kept * 2 {
            scratch.resize(kept * 2, 0);
        }
        scratch[..kept].copy_from_slice(&self.leftover);
        let len = match self.stream.read(&mut scratch[kept..]) {
            Ok(0) => return Err(Broken::Closed),
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Ok((Verdict::default(), false));
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                return Ok((Verdict::default(), true));
            }
            Err(error) => return Err(Broken::Socket(error)),
        };
        let filled = kept + len;
        let verdict = self.exchange.read_replies(&scratch[..filled]).map_err(Broken::Malformed)?;
        self.leftover.clear();
        self.leftover.extend_from_slice(&scratch[verdict.consumed..filled]);
        Ok((verdict, filled == scratch.len()))
    }
}
