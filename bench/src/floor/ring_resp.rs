//! The RESP floor on io_uring: answer from the receive buffer, one send per connection and turn.
//!
//! Invariant: the bytes of a send stay in `Connection::outgoing`, untouched until it completes;
//! replies that come up meanwhile gather in `Connection::replies`.

use std::io;
use std::net::TcpListener;
use std::os::fd::AsRawFd;

use io_uring::{SubmissionQueue, Submitter, cqueue};

use super::buffer_ring::BufferRing;
use super::resp::{Answer, Store};
use super::ring_setup::{self, BUFFER_GROUP, CONNECTIONS_MAX, Kind};

/// Receive buffers: each is answered and given back within the turn.
const BUFFERS: u16 = 512;
const BUFFER_BYTES: usize = 16 * 1024;

#[derive(Debug, Default)]
struct Connection {
    /// Bytes of an incomplete command.
    leftover: Vec<u8>,
    /// Replies that wait for the send in flight.
    replies: Vec<u8>,
    /// What the send in flight reads from, and how much of it is gone.
    outgoing: Vec<u8>,
    sent: usize,
    sending: bool,
    receiving: bool,
    /// Already on the list of connections to send for at the end of the turn.
    listed: bool,
    ending: bool,
}

struct Server<'a> {
    submitter: Submitter<'a>,
    submissions: SubmissionQueue<'a>,
    buffers: BufferRing,
    connections: Vec<Connection>,
    starved: Vec<u32>,
    /// Connections with replies to send at the end of the turn.
    answered: Vec<u32>,
    store: Store,
    listener: i32,
}

/// Serves on `listener` until the process ends.
pub(super) fn serve(listener: &TcpListener) -> io::Result<()> {
    let mut ring = ring_setup::build()?;
    ring.submitter().register_files_sparse(CONNECTIONS_MAX)?;
    let (mut submitter, submissions, mut completions) = ring.split();
    submitter.register_ring_fd()?;
    let buffers = BufferRing::register(&submitter, BUFFER_GROUP, BUFFERS, BUFFER_BYTES)?;
    let mut server = Server {
        submitter,
        submissions,
        buffers,
        connections: Vec::new(),
        starved: Vec::new(),
        answered: Vec::new(),
        store: Store::default(),
        listener: listener.as_raw_fd(),
    };
    server.accept()?;
    loop {
        server.submissions.sync();
        match server.submitter.submit_and_wait(1) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        server.submissions.sync();
        completions.sync();
        for completion in &mut completions {
            server.complete(&completion)?;
        }
        server.buffers.publish();
        server.finish_turn()?;
    }
}

impl Server<'_> {
    fn accept(&mut self) -> io::Result<()> {
        let entry = ring_setup::accept(self.listener);
        // SAFETY: an accept without address names no memory.
        unsafe { ring_setup::push(&self.submitter, &mut self.submissions, &entry) }
    }

    fn receive(&mut self, index: u32) -> io::Result<()> {
        self.connections[index as usize].receiving = true;
        let entry = ring_setup::receive(index);
        // SAFETY: the receive writes to the registered buffers, which are never freed.
        unsafe { ring_setup::push(&self.submitter, &mut self.submissions, &entry) }
    }

    fn send(&mut self, index: u32) -> io::Result<()> {
        let connection = &mut self.connections[index as usize];
        let bytes = &connection.outgoing[connection.sent..];
        let entry = ring_setup::send(index, bytes.as_ptr(), bytes.len() as u32);
        connection.sending = true;
        // SAFETY: `outgoing` is not touched while `sending`, and a connection's entry is reset only
        // after its close, which waits for the send; moving the entry does not move the bytes.
        unsafe { ring_setup::push(&self.submitter, &mut self.submissions, &entry) }
    }

    fn complete(&mut self, completion: &cqueue::Entry) -> io::Result<()> {
        let (kind, index) = ring_setup::untoken(completion.user_data());
        match kind {
            Kind::Accept => self.accepted(completion),
            Kind::Receive => self.received(index, completion),
            Kind::Send => self.sent(index, completion.result()),
            Kind::Close => Ok(()),
        }
    }

    fn accepted(&mut self, completion: &cqueue::Entry) -> io::Result<()> {
        if !cqueue::more(completion.flags()) {
            self.accept()?;
        }
        let Ok(index) = u32::try_from(completion.result()) else {
            return Ok(());
        };
        if self.connections.len() <= index as usize {
            self.connections.resize_with(index as usize + 1, Connection::default);
        }
        self.connections[index as usize] = Connection::default();
        self.receive(index)
    }

    fn received(&mut self, index: u32, completion: &cqueue::Entry) -> io::Result<()> {
        let more = cqueue::more(completion.flags());
        let result = completion.result();
        self.connections[index as usize].receiving = more;
        if result == -libc::ENOBUFS {
            self.starved.push(index);
            return Ok(());
        }
        let Some(buffer) = cqueue::buffer_select(completion.flags()) else {
            return self.end(index);
        };
        let len = usize::try_from(result).unwrap_or(0);
        let broken = len > 0 && self.answer(index, buffer, len) == Answer::Broken;
        self.buffers.recycle(buffer);
        if len == 0 || broken {
            return self.end(index);
        }
        if !more { self.receive(index) } else { Ok(()) }
    }

    /// Answers what `buffer` completes; replies leave at the end of the turn.
    fn answer(&mut self, index: u32, buffer: u16, len: usize) -> Answer {
        let connection = &mut self.connections[index as usize];
        let bytes = self.buffers.bytes(buffer, len);
        let answer = if connection.leftover.is_empty() {
            let answer = self.store.answer(bytes, &mut connection.replies);
            if let Answer::Consumed(consumed) = answer {
                connection.leftover.extend_from_slice(&bytes[consumed..]);
            }
            answer
        } else {
            connection.leftover.extend_from_slice(bytes);
            let answer = self.store.answer(&connection.leftover, &mut connection.replies);
            if let Answer::Consumed(consumed) = answer {
                connection.leftover.drain(..consumed);
            }
            answer
        };
        if !connection.listed && !connection.sending && !connection.replies.is_empty() {
            connection.listed = true;
            self.answered.push(index);
        }
        answer
    }

    fn sent(&mut self, index: u32, result: i32) -> io::Result<()> {
        let connection = &mut self.connections[index as usize];
        connection.sending = false;
        match usize::try_from(result) {
            Ok(len) if len > 0 => connection.sent += len,
            _ => {
                connection.replies.clear();
                return self.end(index);
            }
        }
        if connection.sent < connection.outgoing.len() {
            return self.send(index);
        }
        if !connection.replies.is_empty() && !connection.listed {
            connection.listed = true;
            self.answered.push(index);
        }
        if connection.ending { self.end(index) } else { Ok(()) }
    }

    /// Sends what the turn answered and re-arms who found no buffer.
    fn finish_turn(&mut self) -> io::Result<()> {
        for at in 0..self.answered.len() {
            let index = self.answered[at];
            let connection = &mut self.connections[index as usize];
            connection.listed = false;
            connection.outgoing.clear();
            connection.sent = 0;
            std::mem::swap(&mut connection.outgoing, &mut connection.replies);
            self.send(index)?;
        }
        self.answered.clear();
        for connection in std::mem::take(&mut self.starved) {
            self.receive(connection)?;
        }
        Ok(())
    }

    fn end(&mut self, index: u32) -> io::Result<()> {
        let connection = &mut self.connections[index as usize];
        connection.ending = true;
        if connection.sending || connection.listed {
            return Ok(());
        }
        // A receive still out is ended by shutting the stream down; its end comes back here.
        let entry = if connection.receiving {
            ring_setup::shutdown(index)
        } else {
            ring_setup::close(index)
        };
        // SAFETY: neither a shutdown nor a close names memory.
        unsafe { ring_setup::push(&self.submitter, &mut self.submissions, &entry) }
    }
}
