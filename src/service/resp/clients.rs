//! Who is connected. Touched when a client connects, leaves, is listed or is killed; while it runs,
//! a client only stores into its own record.
//!
//! Invariant: a record is listed from `connect` until its [`Registration`] is dropped.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::table::COMMANDS;

/// No command yet.
const NO_COMMAND: u16 = u16::MAX;

/// Ends a connection from another thread: a half close of its socket that wakes its reader.
pub type Hangup = Box<dyn Fn() + Send + Sync>;

/// What others may know of a connection, and do to it.
pub struct Record {
    /// A number that no other connection of this server has had.
    pub id: u64,
    /// The peer's address.
    pub address: String,
    /// The address it connected to.
    pub local_address: String,
    /// When it connected, in unix milliseconds.
    pub connected_ms: u64,
    /// The selected database.
    pub db: AtomicU8,
    /// Whether it speaks RESP3.
    pub resp3: AtomicBool,
    /// When it last sent something, in unix milliseconds.
    pub active_ms: AtomicU64,
    /// How many commands it has sent. Only its own task writes it.
    pub commands: AtomicU64,
    /// Row of the last command.
    pub command: AtomicU16,
    /// Names that it gave itself.
    pub names: Mutex<Names>,
    killed: AtomicBool,
    hangup: Hangup,
}

/// Names that a client gives itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// `CLIENT SETNAME`.
    pub name: Vec<u8>,
    /// `CLIENT SETINFO LIB-NAME`.
    pub library: Vec<u8>,
    /// `CLIENT SETINFO LIB-VER`.
    pub library_version: Vec<u8>,
}

impl fmt::Debug for Record {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Record").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Record {
    /// The names, locked.
    pub fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the connection has been told to end.
    #[inline]
    pub fn is_killed(&self) -> bool {
        self.killed.load(Ordering::Relaxed)
    }

    /// Tells the connection to end.
    pub fn kill(&self) {
        self.killed.store(true, Ordering::Relaxed);
        (self.hangup)();
    }

    /// Notes a batch of commands that has been handled.
    #[inline]
    pub fn note(&self, commands: u64, last: Option<u16>, now_ms: u64) {
        self.active_ms.store(now_ms, Ordering::Relaxed);
        // One writer: a load and a store are enough, and cost no locked instruction.
        let before = self.commands.load(Ordering::Relaxed);
        self.commands.store(before + commands, Ordering::Relaxed);
        if let Some(last) = last {
            self.command.store(last, Ordering::Relaxed);
        }
    }

    /// The line of `CLIENT LIST` that tells of this connection, without its end.
    pub fn describe(&self, now_ms: u64, out: &mut Vec<u8>) {
        let seconds = |since_ms: u64| now_ms.saturating_sub(since_ms) / 1000;
        let command = self.command.load(Ordering::Relaxed);
        let names = self.names();
        let head = format!(
            "id={} addr={} laddr={} fd=-1 name=",
            self.id, self.address, self.local_address
        );
        let middle = format!(
            " age={} idle={} flags=N db={} sub=0 psub=0 ssub=0 multi=-1 qbuf=0 qbuf-free=0 \
             argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll=0 omem=0 tot-mem=0 events=r cmd={} \
             user=default redir=-1 resp={} lib-name=",
            seconds(self.connected_ms),
            seconds(self.active_ms.load(Ordering::Relaxed)),
            self.db.load(Ordering::Relaxed),
            COMMANDS.get(usize::from(command)).map_or("NULL", |command| command.name),
            if self.resp3.load(Ordering::Relaxed) { 3 } else { 2 },
        );
        for piece in [head.as_bytes(), &names.name, middle.as_bytes(), &names.library] {
            out.extend_from_slice(piece);
        }
        out.extend_from_slice(b" lib-ver=");
        out.extend_from_slice(&names.library_version);
    }
}

/// The connections of a server.
#[derive(Debug, Default)]
pub struct Clients {
    listed: Mutex<Listed>,
}

#[derive(Debug, Default)]
struct Listed {
    last_id: u64,
    records: BTreeMap<u64, Arc<Record>>,
    refused: u64,
    commands_of_the_gone: u64,
}

/// A place in the list; dropping it leaves.
#[derive(Debug)]
pub struct Registration<'a> {
    clients: &'a Clients,
    /// What is listed.
    pub record: Arc<Record>,
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        let mut listed = self.clients.listed();
        listed.records.remove(&self.record.id);
        listed.commands_of_the_gone += self.record.commands.load(Ordering::Relaxed);
    }
}

/// Totals over all connections, past and present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Connections now.
    pub connected: usize,
    /// Connections accepted since the start.
    pub accepted: u64,
    /// Connections refused because there were too many.
    pub refused: u64,
    /// Commands handled since the start.
    pub commands: u64,
}

impl Clients {
    /// Lists a new connection, unless `count_max` are listed already.
    pub fn connect(
        &self,
        address: String,
        local_address: String,
        now_ms: u64,
        count_max: usize,
        hangup: Hangup,
    ) -> Option<Registration<'_>> {
        let mut listed = self.listed();
        if listed.records.len() >= count_max {
            listed.refused += 1;
            return None;
        }
        listed.last_id += 1;
        let record = Arc::new(Record {
            id: listed.last_id,
            address,
            local_address,
            connected_ms: now_ms,
            db: AtomicU8::new(0),
            resp3: AtomicBool::new(false),
            active_ms: AtomicU64::new(now_ms),
            commands: AtomicU64::new(0),
            command: AtomicU16::new(NO_COMMAND),
            names: Mutex::default(),
            killed: AtomicBool::new(false),
            hangup,
        });
        listed.records.insert(record.id, Arc::clone(&record));
        Some(Registration { clients: self, record })
    }

    /// Every connection, oldest first.
    pub fn all(&self) -> Vec<Arc<Record>> {
        self.listed().records.values().cloned().collect()
    }

    /// The totals.
    pub fn totals(&self) -> Totals {
        let listed = self.listed();
        let commands = |record: &Arc<Record>| record.commands.load(Ordering::Relaxed);
        Totals {
            connected: listed.records.len(),
            accepted: listed.last_id,
            refused: listed.refused,
            commands: listed.commands_of_the_gone
                + listed.records.values().map(commands).sum::<u64>(),
        }
    }

    /// The lines of `CLIENT LIST` for the connections that `wanted` picks.
    pub fn describe(&self, now_ms: u64, wanted: impl Fn(&Record) -> bool) -> Vec<u8> {
        let mut out = Vec::new();
        for record in self.all().iter().filter(|record| wanted(record)) {
            record.describe(now_ms, &mut out);
            out.push(b'\n');
        }
        out
    }

    fn listed(&self) -> MutexGuard<'_, Listed> {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(clients: &Clients, count_max: usize) -> Option<Registration<'_>> {
        let address = "127.0.0.1:5000".to_owned();
        clients.connect(address, "127.0.0.1:6380".to_owned(), 1000, count_max, Box::new(|| {}))
    }

    #[test]
    fn clients_beyond_the_limit_are_refused_and_counted() {
        let clients = Clients::default();
        let first = connect(&clients, 1);
        assert!(first.is_some());
        assert!(connect(&clients, 1).is_none());
        drop(first);
        assert!(connect(&clients, 1).is_some());
        let totals = clients.totals();
        assert_eq!((totals.connected, totals.accepted, totals.refused), (0, 2, 1));
    }

    #[test]
    fn commands_of_clients_that_left_stay_counted() {
        let clients = Clients::default();
        let first = connect(&clients, 9).expect("room");
        first.record.note(5, None, 2000);
        drop(first);
        let second = connect(&clients, 9).expect("room");
        second.record.note(2, None, 2000);
        assert_eq!(clients.totals().commands, 7);
    }

    #[test]
    fn a_line_tells_what_clients_parse() {
        let clients = Clients::default();
        let registration = connect(&clients, 9).expect("room");
        registration.record.names().name = b"me".to_vec();
        registration.record.note(1, Some(0), 3000);
        let line = String::from_utf8(clients.describe(8000, |_| true)).unwrap_or_default();
        let start = "id=1 addr=127.0.0.1:5000 laddr=127.0.0.1:6380 fd=-1 name=me age=7 idle=5 ";
        assert!(line.starts_with(start), "{line}");
        assert!(line.ends_with(" resp=2 lib-name= lib-ver=\n"), "{line}");
    }
}
