//! The state of one connection that commands can see and change.
//!
//! Invariant: used by the connection's own task only; what others may read or write of it is in its
//! [`Record`].

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::log::Lsn;
use crate::protocol::resp::Protocol;

use super::clients::Record;
use super::waiting::Wait;

/// One connection.
#[derive(Debug)]
pub struct Client {
    /// The version that replies are spelled in.
    pub protocol: Protocol,
    /// The selected database.
    pub db: usize,
    /// Whether a password is no longer asked for.
    pub authenticated: bool,
    /// Whether the connection ends after the replies so far.
    pub closing: bool,
    /// The last record that its commands have written to.
    pub wrote: Lsn,
    /// What the last command waits for, until the connection sees to it.
    pub waits: Option<Wait>,
    /// What others know of the connection.
    pub record: Arc<Record>,
}

impl Client {
    /// A connection as it begins.
    pub fn new(record: Arc<Record>, authenticated: bool) -> Self {
        Self {
            protocol: Protocol::Resp2,
            db: 0,
            authenticated,
            closing: false,
            wrote: Lsn::NONE,
            waits: None,
            record,
        }
    }

    /// Selects a database.
    pub fn select(&mut self, db: usize) {
        self.db = db;
        self.record.db.store(db as u8, Ordering::Relaxed);
    }

    /// Switches to another version of the protocol.
    pub fn speak(&mut self, protocol: Protocol) {
        self.protocol = protocol;
        self.record.resp3.store(protocol == Protocol::Resp3, Ordering::Relaxed);
    }
}
