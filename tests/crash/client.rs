//! A client that writes and knows what was acknowledged, and that judges what is there afterwards.
//!
//! Invariant: a state is right when it is exactly the one after some prefix of the client's
//! operations that is no shorter than what must have survived; of the commands that were sent
//! together last, see `explain.rs`.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use super::cycle::Told;
use super::explain::{Command, explain};
use super::model::Model;
use super::operation::{Draw, Key, Operation};
use super::resp::{Connection, Reply};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Nobody knows whether it was done.
    Sent,
    Acknowledged(Instant),
    /// Answered with an error: it must not have been done.
    Refused,
}

struct Entry {
    sequence: u64,
    /// Those sent together have the number of the first.
    batch: u64,
    /// Not before this it was done.
    sent: Instant,
    operation: Operation,
    fate: Fate,
}

/// What must have survived.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Floor {
    /// All that was acknowledged, and all that anyone has read.
    Acknowledged,
    /// What had been acknowledged by then.
    AcknowledgedBefore(Instant),
    /// Nothing in particular.
    Nothing,
}

/// What an error means that no operation of the model gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnError {
    /// The test fails.
    Fail,
    /// Nobody knows what was done, and the client stops: the disk is gone.
    Stop,
    /// It was refused and must not have been done.
    Refused,
}

pub(crate) struct Client {
    pub(crate) id: usize,
    pub(crate) draw: Draw,
    /// Most commands that are sent before their replies are read.
    pub(crate) pipeline: u64,
    pub(crate) on_error: OnError,
    pub(crate) acknowledged: u64,
    /// The texts of the refusals, each once.
    pub(crate) refusals: Vec<String>,
    next: u64,
    start: Model,
    now: Model,
    entries: Vec<Entry>,
}

/// What was found to hold.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Operations that are there although nobody was told so.
    pub(crate) unacknowledged: usize,
    /// Operations that are not there although they were acknowledged, within what is allowed.
    pub(crate) lost: usize,
}

impl Client {
    pub(crate) fn new(id: usize, seed: u64) -> Self {
        let pipeline = [1, 1, 4, 32][id % 4];
        Self {
            id,
            draw: Draw::new(seed ^ (id as u64 + 1).wrapping_mul(0x1234_5678_9abc_def1)),
            pipeline,
            on_error: OnError::Fail,
            acknowledged: 0,
            refusals: Vec::new(),
            next: 1,
            start: Model::default(),
            now: Model::default(),
            entries: Vec::new(),
        }
    }

    /// Writes until it is told to stop or the connection ends.
    ///
    /// # Errors
    /// A reply that contradicts what was acknowledged before.
    pub(crate) fn write(&mut self, address: SocketAddr, told: &Told) -> Result<(), String> {
        let Ok(mut connection) = Connection::open(address) else { return Ok(()) };
        while told.goes_on() {
            let count = 1 + self.draw.random.below(self.pipeline);
            if !self.round(&mut connection, count, told)? {
                break;
            }
        }
        Ok(())
    }

    /// Sends so many operations and reads their replies; false when the connection has ended.
    pub(crate) fn round(
        &mut self,
        connection: &mut Connection,
        count: u64,
        told: &Told,
    ) -> Result<bool, String> {
        let (first, batch) = (self.entries.len(), self.next);
        for _ in 0..count {
            let operation = self.draw.next();
            self.push(operation, batch, connection);
        }
        if connection.send().is_err() {
            return Ok(false);
        }
        for index in first..self.entries.len() {
            match connection.receive() {
                Ok(_) if !told.is_heard() => return Ok(false),
                Ok(reply) => {
                    if !self.take_reply(index, &reply)? {
                        return Ok(false);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(format!("client {}: no reply to {:?}", self.id, self.told(index)));
                }
                Err(_) => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Adds an operation to what is sent next.
    fn push(&mut self, operation: Operation, batch: u64, connection: &mut Connection) {
        let sequence = self.next;
        self.next += 1;
        connection.push(&operation.command(self.id, sequence));
        let sent = Instant::now();
        self.entries.push(Entry { sequence, batch, sent, operation, fate: Fate::Sent });
    }

    /// Notes what became of an operation; false when the client stops.
    fn take_reply(&mut self, index: usize, reply: &Reply) -> Result<bool, String> {
        let entry = &mut self.entries[index];
        if let Reply::Error(text) = reply
            && text != "ERR no such key"
            && self.on_error != OnError::Fail
        {
            if !self.refusals.contains(text) {
                self.refusals.push(text.clone());
            }
            if self.on_error == OnError::Refused {
                entry.fate = Fate::Refused;
            }
            return Ok(self.on_error == OnError::Refused);
        }
        let expected = self.now.apply(self.id, entry.sequence, &entry.operation);
        if !expected.fits(reply) {
            let what = self.told(index);
            return Err(format!("client {}: {what}: {reply:?}, not {expected:?}", self.id));
        }
        entry.fate = Fate::Acknowledged(Instant::now());
        self.acknowledged += 1;
        Ok(true)
    }

    fn told(&self, index: usize) -> String {
        let entry = &self.entries[index];
        format!("operation {} ({:?})", entry.sequence, entry.operation)
    }

    /// When the last of what was acknowledged was sent.
    pub(crate) fn last_sent(&self) -> Option<Instant> {
        let is_acknowledged = |entry: &&Entry| matches!(entry.fate, Fate::Acknowledged(_));
        self.entries.iter().rfind(is_acknowledged).map(|entry| entry.sent)
    }

    /// How many of the entries must be there.
    fn floor(&self, floor: Floor, seen: Option<u64>) -> usize {
        let last = |must: &dyn Fn(&Entry) -> bool| {
            self.entries.iter().rposition(must).map_or(0, |index| index + 1)
        };
        match floor {
            Floor::Nothing => 0,
            Floor::AcknowledgedBefore(time) => {
                last(&|entry| matches!(entry.fate, Fate::Acknowledged(at) if at <= time))
            }
            Floor::Acknowledged => last(&|entry| {
                matches!(entry.fate, Fate::Acknowledged(_)) || seen == Some(entry.sequence)
            }),
        }
    }

    /// Compares what a server holds with what was written, and goes on from there.
    ///
    /// `seen` is the latest operation whose effect another connection has read: it must be there if
    /// nothing that was acknowledged may be lost.
    ///
    /// # Errors
    /// In words, what is missing or torn.
    pub(crate) fn judge(
        &mut self,
        found: Model,
        floor: Floor,
        seen: Option<u64>,
    ) -> Result<Verdict, String> {
        let seen = seen.filter(|_| matches!(floor, Floor::Acknowledged));
        let mut model = self.start.clone();
        let mut prefix = (model.mark() == found.mark()).then_some(0);
        for (index, entry) in self.entries.iter().enumerate() {
            if entry.fate != Fate::Refused {
                model.apply(self.id, entry.sequence, &entry.operation);
            }
            if model.mark() == found.mark() {
                prefix = Some(index + 1);
            }
        }
        let floor = self.floor(floor, seen);
        let is_acknowledged = |entry: &&Entry| matches!(entry.fate, Fate::Acknowledged(_));
        let is_open = |entry: &&Entry| entry.fate == Fate::Sent;
        let verdict = match prefix {
            Some(prefix) if prefix >= floor => Verdict {
                unacknowledged: self.entries[..prefix].iter().filter(is_open).count(),
                lost: self.entries[prefix..].iter().filter(is_acknowledged).count(),
            },
            _ => match (self.explain_last(&found, floor, seen), prefix) {
                (Some(verdict), _) => verdict,
                (None, Some(prefix)) => return Err(self.tell_lost(prefix, floor)),
                (None, None) => return Err(self.tell_torn(&found, floor)),
            },
        };
        self.start = found;
        self.now = self.start.clone();
        self.entries.clear();
        Ok(verdict)
    }

    /// Looks for a batch of which some have been done, and nothing behind it.
    fn explain_last(&self, found: &Model, floor: usize, seen: Option<u64>) -> Option<Verdict> {
        let mut model = self.start.clone();
        let mut first = 0;
        for batch in self.entries.chunk_by(|one, other| one.batch == other.batch) {
            let last = first + batch.len();
            if batch.len() > 1 && last >= floor {
                let commands: Vec<Command<'_>> = (first..last)
                    .map(|index| (&self.entries[index], index < floor))
                    .filter(|(entry, _)| entry.fate != Fate::Refused)
                    .map(|(entry, is_certain)| Command {
                        sequence: entry.sequence,
                        operation: &entry.operation,
                        is_certain: is_certain && entry.fate != Fate::Sent
                            || seen == Some(entry.sequence),
                    })
                    .collect();
                if let Some(done) = explain(self.id, model.clone(), &commands, found) {
                    let is_acknowledged = |it: &&Entry| matches!(it.fate, Fate::Acknowledged(_));
                    let lost = self.entries[first..].iter().filter(is_acknowledged).count();
                    let unacknowledged = done.saturating_sub(lost);
                    return Some(Verdict { unacknowledged, lost: lost.saturating_sub(done) });
                }
            }
            for entry in batch.iter().filter(|entry| entry.fate != Fate::Refused) {
                model.apply(self.id, entry.sequence, &entry.operation);
            }
            first = last;
        }
        None
    }

    fn tell_lost(&self, prefix: usize, floor: usize) -> String {
        let is_acknowledged = |entry: &&Entry| matches!(entry.fate, Fate::Acknowledged(_));
        let lost = self.entries[prefix..floor].iter().filter(is_acknowledged).count();
        let first = self.told(prefix);
        let last = self.told(floor - 1);
        let times = self.entries[prefix..].iter().filter_map(|entry| match entry.fate {
            Fate::Acknowledged(at) => Some(at),
            _ => None,
        });
        let ages: Vec<u128> = times.map(|at| at.elapsed().as_millis()).collect();
        format!(
            "client {}: {lost} acknowledged operations are lost, from {first} to {last}, of {}; \
             acknowledged {:?} to {:?} ms ago",
            self.id,
            self.entries.len(),
            ages.first(),
            ages.last()
        )
    }

    fn tell_torn(&self, found: &Model, floor: usize) -> String {
        let mut model = self.start.clone();
        let mut nearest = (usize::MAX, 0, Vec::new());
        for (index, entry) in self.entries.iter().enumerate() {
            if entry.fate != Fate::Refused {
                model.apply(self.id, entry.sequence, &entry.operation);
            }
            // Only the neighbourhood: every comparison looks at every key.
            if index + 200 > floor {
                let differences = model.differences(found);
                if differences.len() < nearest.0 {
                    nearest = (differences.len(), entry.sequence, differences);
                }
            }
        }
        if self.entries.is_empty() {
            nearest.2 = model.differences(found);
        }
        let open = self.entries.iter().enumerate().filter(|(_, entry)| entry.fate == Fate::Sent);
        let open: Vec<String> = open.take(40).map(|(index, _)| self.told(index)).collect();
        let differing =
            |key: &Key| nearest.2.iter().any(|it| it.starts_with(&format!("key {key}:")));
        let about = (0..self.entries.len())
            .filter(|index| self.entries[*index].operation.keys().iter().any(differing))
            .map(|index| format!("{} in batch {}", self.told(index), self.entries[index].batch));
        let about: Vec<String> = about.collect();
        let about = about[about.len().saturating_sub(20)..].join(", ");
        let shown = nearest.2.iter().take(8).cloned().collect::<Vec<_>>().join("\n  ");
        let (first, last) = match (self.entries.first(), self.entries.last()) {
            (Some(first), Some(last)) => (first.sequence, last.sequence),
            _ => (0, 0),
        };
        format!(
            "client {}: this is the state after no prefix of its operations ({first} to {last}, \
             {floor} must be there); nearest is operation {}, with {} differences:\n  {shown}\n\
             the last of these keys: {about}\nnobody knows of: {}",
            self.id,
            nearest.1,
            nearest.0,
            open.join(", ")
        )
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
