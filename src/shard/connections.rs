//! The open sockets of a shard, so that a drain, or another thread, can end them.
//!
//! A socket is entered when it is made and leaves before it is closed, under the same lock that a
//! shutdown takes: a number seen here is therefore open and means this socket. Ending is always
//! shutdown(2), which every engine sees as the end of the stream, blocked threads too.

use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, PoisonError};

use slab::Slab;

use crate::driver;
use crate::op::Direction;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Listener,
    Stream,
}

#[derive(Default)]
struct Open {
    sockets: Slab<(RawFd, Kind, u64)>,
    entered: u64,
    draining: bool,
}

/// The open sockets of one shard.
#[derive(Default)]
pub(crate) struct Connections {
    open: Mutex<Open>,
}

impl Connections {
    fn lock(&self) -> std::sync::MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a socket. One that comes during a drain is told to end at once.
    pub(crate) fn enter(self: &Arc<Self>, socket: RawFd, kind: Kind) -> Entry {
        let mut open = self.lock();
        open.entered += 1;
        let number = open.entered;
        let place = open.sockets.insert((socket, kind, number));
        if open.draining {
            driver::shut_down_socket(socket, Direction::Read);
        }
        drop(open);
        Entry(ConnectionHandle { connections: Arc::clone(self), place, number })
    }

    /// Ends every listener and all receives.
    pub(crate) fn drain(&self) {
        let mut open = self.lock();
        open.draining = true;
        for (_, (socket, _, _)) in &open.sockets {
            driver::shut_down_socket(*socket, Direction::Read);
        }
    }

    /// Open streams.
    pub(crate) fn streams(&self) -> usize {
        self.lock().sockets.iter().filter(|(_, socket)| socket.1 == Kind::Stream).count()
    }
}

/// A socket's place in the list; leaves it on drop. Dropped before the socket is closed.
pub(crate) struct Entry(ConnectionHandle);

impl Entry {
    pub(crate) fn handle(&self) -> ConnectionHandle {
        self.0.clone()
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.0.connections.lock().sockets.remove(self.0.place);
    }
}

/// Ends a connection from any thread.
#[derive(Clone)]
pub struct ConnectionHandle {
    connections: Arc<Connections>,
    place: usize,
    number: u64,
}

impl ConnectionHandle {
    /// Shuts down one or both directions at once, before what a task sends at the moment: it may
    /// be lost. False if the connection was closed already.
    pub fn shutdown(&self, direction: Direction) -> bool {
        let open = self.connections.lock();
        match open.sockets.get(self.place) {
            Some((socket, _, number)) if *number == self.number => {
                driver::shut_down_socket(*socket, direction);
                true
            }
            _ => false,
        }
    }
}

impl std::fmt::Debug for ConnectionHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ConnectionHandle({})", self.number)
    }
}
