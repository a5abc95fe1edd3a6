//! The echo floor on io_uring: what is received is sent from the buffer that received it.
//!
//! Invariant: a connection has at most one send in flight, so bytes leave in the order they came;
//! its descriptor is closed only when neither a receive nor a send is outstanding.

use std::collections::VecDeque;
use std::io;
use std::net::TcpListener;
use std::os::fd::AsRawFd;

use io_uring::{SubmissionQueue, Submitter, cqueue};

use super::buffer_ring::BufferRing;
use super::ring_setup::{self, BUFFER_GROUP, CONNECTIONS_MAX, Kind};

/// Receive buffers: enough for a thousand connections with one each in hand.
const BUFFERS: u16 = 2048;
const BUFFER_BYTES: usize = 16 * 1024;

/// Received bytes on their way out: the buffer, and which part of it.
#[derive(Debug, Clone, Copy)]
struct Chunk {
    buffer: u16,
    start: u32,
    len: u32,
}

#[derive(Debug, Default)]
struct Connection {
    sending: Option<Chunk>,
    waiting: VecDeque<Chunk>,
    receiving: bool,
    /// The stream ended or failed: close as soon as nothing is in flight.
    ending: bool,
}

struct Server<'a> {
    submitter: Submitter<'a>,
    submissions: SubmissionQueue<'a>,
    buffers: BufferRing,
    connections: Vec<Connection>,
    /// Connections whose receive stopped because no buffer was free.
    starved: Vec<u32>,
    listener: i32,
}

/// Echoes on `listener` until the process ends.
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
        for connection in std::mem::take(&mut server.starved) {
            server.receive(connection)?;
        }
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

    fn send(&mut self, index: u32, chunk: Chunk) -> io::Result<()> {
        self.connections[index as usize].sending = Some(chunk);
        let bytes = self.buffers.address(chunk.buffer).wrapping_add(chunk.start as usize);
        let entry = ring_setup::send(index, bytes, chunk.len);
        // SAFETY: the buffer is never freed, and not recycled before this send completes.
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
        let connection = &mut self.connections[index as usize];
        let more = cqueue::more(completion.flags());
        connection.receiving = more;
        let result = completion.result();
        if result == -libc::ENOBUFS {
            self.starved.push(index);
            return Ok(());
        }
        let buffer = cqueue::buffer_select(completion.flags());
        match (u32::try_from(result), buffer) {
            (Ok(len), Some(buffer)) if len > 0 => {
                let chunk = Chunk { buffer, start: 0, len };
                if connection.sending.is_some() {
                    connection.waiting.push_back(chunk);
                } else {
                    self.send(index, chunk)?;
                }
                if !more { self.receive(index) } else { Ok(()) }
            }
            (_, buffer) => {
                if let Some(buffer) = buffer {
                    self.buffers.recycle(buffer);
                }
                self.end(index)
            }
        }
    }

    fn sent(&mut self, index: u32, result: i32) -> io::Result<()> {
        let connection = &mut self.connections[index as usize];
        let Some(chunk) = connection.sending.take() else {
            return Ok(());
        };
        let rest = match u32::try_from(result) {
            Ok(len) if len > 0 => chunk.len - len.min(chunk.len),
            _ => return self.fail(index, chunk),
        };
        if rest > 0 {
            let start = chunk.start + (chunk.len - rest);
            return self.send(index, Chunk { buffer: chunk.buffer, start, len: rest });
        }
        self.buffers.recycle(chunk.buffer);
        if let Some(next) = connection.waiting.pop_front() {
            return self.send(index, next);
        }
        if connection.ending { self.end(index) } else { Ok(()) }
    }

    /// A send failed: nothing more can go out.
    fn fail(&mut self, index: u32, chunk: Chunk) -> io::Result<()> {
        self.buffers.recycle(chunk.buffer);
        for chunk in std::mem::take(&mut self.connections[index as usize].waiting) {
            self.buffers.recycle(chunk.buffer);
        }
        self.end(index)
    }

    fn end(&mut self, index: u32) -> io::Result<()> {
        let connection = &mut self.connections[index as usize];
        connection.ending = true;
        if connection.receiving || connection.sending.is_some() {
            return Ok(());
        }
        let entry = ring_setup::close(index);
        // SAFETY: a close names no memory.
        unsafe { ring_setup::push(&self.submitter, &mut self.submissions, &entry) }
    }
}
