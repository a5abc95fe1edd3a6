//! The floor on epoll: edge-triggered, registered once, read until short, write at once.
//!
//! Invariant: a connection with output that the socket did not take is not read from until that
//! output is gone, so memory stays bounded by one read per connection.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use super::Protocol;
use super::resp::{Answer, Store};

/// The one read buffer, shared by all connections.
const BUFFER_BYTES: usize = 64 * 1024;
/// Events taken per wait.
const EVENTS_MAX: usize = 1024;
/// The listener's token; connections use their index.
const LISTENER: u64 = u64::MAX;

struct Connection {
    stream: TcpStream,
    /// Bytes of an incomplete command (RESP only).
    leftover: Vec<u8>,
    /// Bytes that the socket did not take yet.
    backlog: Vec<u8>,
}

/// What became of a connection's turn.
enum Fate {
    Open,
    Ended,
}

struct Server {
    protocol: Protocol,
    store: Store,
    input: Vec<u8>,
    output: Vec<u8>,
}

/// Serves on `listener` until the process ends.
pub(super) fn serve(listener: &TcpListener, protocol: Protocol) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let poll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&poll, listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let mut server = Server {
        protocol,
        store: Store::default(),
        input: vec![0; BUFFER_BYTES],
        output: Vec::with_capacity(BUFFER_BYTES),
    };
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut free = Vec::new();
    let mut events = Vec::with_capacity(EVENTS_MAX);
    loop {
        events.clear();
        match epoll::wait(&poll, spare_capacity(&mut events), None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            let token = event.data.u64();
            if token == LISTENER {
                accept(listener, &poll, &mut connections, &mut free)?;
                continue;
            }
            let slot = &mut connections[token as usize];
            let Some(connection) = slot else { continue };
            // An error on one connection ends that connection only.
            let flags = event.flags;
            let hangup = flags.contains(EventFlags::RDHUP);
            if let Ok(Fate::Open) = server.turn(connection, hangup) {
                continue;
            }
            *slot = None;
            free.push(token as usize);
        }
    }
}

fn accept(
    listener: &TcpListener,
    poll: &rustix::fd::OwnedFd,
    connections: &mut Vec<Option<Connection>>,
    free: &mut Vec<usize>,
) -> io::Result<()> {
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => return Err(error),
        };
        stream.set_nonblocking(true)?;
        let index = free.pop().unwrap_or_else(|| {
            connections.push(None);
            connections.len() - 1
        });
        let interest = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(poll, &stream, EventData::new_u64(index as u64), interest)?;
        connections[index] = Some(Connection { stream, leftover: Vec::new(), backlog: Vec::new() });
    }
}

impl Server {
    /// Reads and answers until the socket has no more input or takes no more output.
    fn turn(&mut self, connection: &mut Connection, hangup: bool) -> io::Result<Fate> {
        loop {
            if !connection.backlog.is_empty() {
                let sent = write(&mut connection.stream, &connection.backlog)?;
                connection.backlog.drain(..sent);
                if !connection.backlog.is_empty() {
                    return Ok(Fate::Open);
                }
            }
            let kept = connection.leftover.len();
            if kept + BUFFER_BYTES > self.input.len() {
                self.input.resize(kept + BUFFER_BYTES, 0);
            }
            self.input[..kept].copy_from_slice(&connection.leftover);
            connection.leftover.clear();
            let room = self.input.len() - kept;
            let len = match connection.stream.read(&mut self.input[kept..]) {
                Ok(0) => return Ok(Fate::Ended),
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    connection.leftover.extend_from_slice(&self.input[..kept]);
                    return Ok(Fate::Open);
                }
                Err(error) => return Err(error),
            };
            if let Fate::Ended = self.answer(connection, kept + len)? {
                return Ok(Fate::Ended);
            }
            // A short read emptied the socket: the next edge tells of more. Not so after the peer
            // has ended its stream: that edge is this one.
            if len < room && !hangup && connection.backlog.is_empty() {
                return Ok(Fate::Open);
            }
        }
    }

    fn answer(&mut self, connection: &mut Connection, filled: usize) -> io::Result<Fate> {
        if self.protocol == Protocol::Echo {
            let sent = write(&mut connection.stream, &self.input[..filled])?;
            connection.backlog.extend_from_slice(&self.input[sent..filled]);
            return Ok(Fate::Open);
        }
        let answer = self.store.answer(&self.input[..filled], &mut self.output);
        let sent = write(&mut connection.stream, &self.output)?;
        connection.backlog.extend_from_slice(&self.output[sent..]);
        self.output.clear();
        match answer {
            Answer::Consumed(consumed) => {
                connection.leftover.extend_from_slice(&self.input[consumed..filled]);
                Ok(Fate::Open)
            }
            Answer::Broken => Ok(Fate::Ended),
        }
    }
}

/// Writes what the socket takes now and says how much that was.
fn write(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    if bytes.is_empty() {
        return Ok(0);
    }
    match stream.write(bytes) {
        Ok(sent) => Ok(sent),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        Err(error) => Err(error),
    }
}
