//! A connection that speaks the Redis protocol (RESP2), without a client library.
//!
//! Invariant: replies are read in the order in which commands were sent.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longer than any reply takes; only a failing test waits so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Option<Vec<u8>>),
    Array(Vec<Reply>),
}

impl Reply {
    pub(crate) fn ok() -> Self {
        Self::Simple("OK".to_owned())
    }
}

pub(crate) struct Connection {
    reader: BufReader<TcpStream>,
    unsent: Vec<u8>,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { reader: BufReader::with_capacity(64 << 10, stream), unsent: Vec::new() })
    }

    /// Lets another thread end what this one waits for.
    pub(crate) fn socket(&self) -> io::Result<TcpStream> {
        self.reader.get_ref().try_clone()
    }

    /// Adds a command to what is sent next.
    pub(crate) fn push(&mut self, arguments: &[impl AsRef<[u8]>]) {
        let _ = write!(self.unsent, "*{}\r\n", arguments.len());
        for argument in arguments {
            let argument = argument.as_ref();
            let _ = write!(self.unsent, "${}\r\n", argument.len());
            self.unsent.extend_from_slice(argument);
            self.unsent.extend_from_slice(b"\r\n");
        }
    }

    pub(crate) fn send(&mut self) -> io::Result<()> {
        let unsent = std::mem::take(&mut self.unsent);
        self.reader.get_mut().write_all(&unsent)
    }

    pub(crate) fn call(&mut self, arguments: &[impl AsRef<[u8]>]) -> io::Result<Reply> {
        self.push(arguments);
        self.send()?;
        self.receive()
    }

    /// A number that INFO tells.
    pub(crate) fn figure(&mut self, name: &str) -> u64 {
        let Ok(Reply::Bulk(Some(text))) = self.call(&["INFO"]) else { panic!("it serves") };
        let text = String::from_utf8(text).expect("it is text");
        let prefix = format!("{name}:");
        let line = text.lines().find_map(|line| line.strip_prefix(&prefix));
        line.expect("INFO tells it").parse().expect("a number")
    }

    pub(crate) fn receive(&mut self) -> io::Result<Reply> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let invalid = || io::Error::new(io::ErrorKind::InvalidData, format!("a reply: {line:?}"));
        let text = line.strip_suffix("\r\n").ok_or_else(invalid)?;
        let number = || text[1..].parse::<i64>().map_err(|_| invalid());
        Ok(match text.as_bytes().first() {
            Some(b'+') => Reply::Simple(text[1..].to_owned()),
            Some(b'-') => Reply::Error(text[1..].to_owned()),
            Some(b':') => Reply::Integer(number()?),
            Some(b'$') => Reply::Bulk(self.bulk(number()?)?),
            Some(b'*') => {
                let count = number()?.max(0);
                Reply::Array((0..count).map(|_| self.receive()).collect::<io::Result<_>>()?)
            }
            _ => return Err(invalid()),
        })
    }

    fn bulk(&mut self, length: i64) -> io::Result<Option<Vec<u8>>> {
        let Ok(length) = usize::try_from(length) else { return Ok(None) };
        let mut bytes = vec![0; length + 2];
        self.reader.read_exact(&mut bytes)?;
        bytes.truncate(length);
        Ok(Some(bytes))
    }
}
