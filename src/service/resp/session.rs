//! One connection's side of the protocol, sans-I/O: requests in, replies out, work for other
//! partitions aside. Driven by the connection loop.
//!
//! Invariant: replies leave in the order of the requests, wherever the work is done.

use std::mem;
use std::sync::atomic::Ordering;

use crate::log::Admission;
use crate::metrics::{self, Counter};
use crate::protocol::resp::{Args, Decode, Decoder, Encoder};
use crate::store::{Home, PartitionId, Room};

use super::ahead::{Ahead, Progress};
use super::client::Client;
use super::command::{Call, Command, Merge, Outcome, Refusal, Run, SessionCall, flag};
use super::joint::{self, Joint};
use super::outbox::{Join, Outbox, Part, words_at};
use super::server::Server;
use super::table;
use super::transaction::Transaction;
use super::waiting::Wait;

/// A connection.
#[derive(Debug)]
pub struct Session {
    decoder: Decoder,
    /// What commands see of the connection.
    pub client: Client,
    /// Work for other partitions that must be carried before the output is sent.
    pub outbox: Outbox,
}

/// How far a session got with its input.
#[derive(Debug)]
#[must_use]
pub struct Advance {
    /// Bytes of input that are done with.
    pub consumed: usize,
    /// What to do, after the outbox has been carried and the output stitched.
    pub next: Next,
}

/// What a session needs to go on.
#[derive(Debug)]
pub enum Next {
    /// More input behind what was not consumed.
    Read,
    /// The output sent; then the rest of the same input.
    Send,
    /// A transaction run, its reply appended to the stitched output; then the rest of the input.
    Transact(Box<Transaction>),
    /// A joint command run, its reply appended to the stitched output; then the rest of the input.
    Join(Box<Joint>),
    /// The output sent, and this waited for; then the rest of the input.
    Wait(Wait),
    /// The output sent, and writes welcome again; then the rest of the input.
    Stall,
    /// The output sent, and a step taken towards room in memory; then the rest of the input.
    Room(Room),
    /// The output sent and the connection closed.
    Close,
}

impl Session {
    /// The session of a new connection.
    pub fn new(client: Client) -> Self {
        Self { decoder: Decoder::default(), client, outbox: Outbox::default() }
    }

    /// Handles the requests at the front of `input`, which begins where the last call stopped
    /// consuming. Replies go to `out`; it is theirs alone until it has been sent.
    pub fn advance(
        &mut self,
        input: &[u8],
        home: &mut Home<'_>,
        server: &Server,
        now_ms: u64,
        out: &mut Vec<u8>,
    ) -> Advance {
        self.decoder.set_authenticated(self.client.authenticated);
        self.decoder.set_bulk_bytes_max(server.live.bulk_bytes_max.load(Ordering::Relaxed));
        let mut progress = Progress::default();
        let next = loop {
            if let Some(next) = self.advance_some(input, home, server, now_ms, out, &mut progress) {
                break next;
            }
        };
        if progress.consumed < progress.decoded {
            // What was decoded ahead is decoded again, from the first request not yet run.
            self.decoder.reset();
        }
        self.client.record.note(progress.commands, progress.last, now_ms);
        Advance { consumed: progress.consumed, next }
    }

    /// Decodes some requests ahead, then runs them; answers what ends the call, if anything does.
    #[inline]
    fn advance_some(
        &mut self,
        input: &[u8],
        home: &mut Home<'_>,
        server: &Server,
        now_ms: u64,
        out: &mut Vec<u8>,
        progress: &mut Progress,
    ) -> Option<Next> {
        if self.client.closing || self.client.record.is_killed() {
            return Some(Next::Close);
        }
        let mut ahead = Ahead::default();
        let answer = ahead.fill(&mut self.decoder, input, progress, self.client.authenticated);
        let decoder = &self.decoder;
        if ahead.requests().len() > 1
            && let Some(partition) = home.owned()
        {
            // The first argument is the key of most commands.
            let requests = ahead.requests().iter();
            let keys = requests.filter_map(|request| request.args(decoder, input).get(1));
            partition.keyspace(self.client.db).warm(keys);
        }
        let (client, outbox) = (&mut self.client, &mut self.outbox);
        let mut turn = Turn { client, outbox, home, server, now_ms, out };
        for request in ahead.requests() {
            let args = &request.args(decoder, input);
            if let Some(next) = turn.handle(args, request.end(), progress) {
                return Some(next);
            }
        }
        match answer {
            None | Some(Decode::Complete(_)) => None,
            Some(Decode::NeedMore) => Some(Next::Read),
            Some(Decode::Invalid(invalid)) => {
                let text = format!("ERR Protocol error: {invalid}");
                Encoder::new(turn.out, turn.client.protocol).error(text);
                Some(Next::Close)
            }
        }
    }
}

/// One command's access to everything.
struct Turn<'a, 'home> {
    client: &'a mut Client,
    outbox: &'a mut Outbox,
    home: &'a mut Home<'home>,
    server: &'a Server,
    now_ms: u64,
    out: &'a mut Vec<u8>,
}

impl Turn<'_, '_> {
    /// Handles the request that ends at `end` of the input; answers what ends the call, if
    /// anything.
    #[inline(always)]
    fn handle(&mut self, args: &Args<'_>, end: usize, progress: &mut Progress) -> Option<Next> {
        let start = mem::replace(&mut progress.consumed, end);
        if args.is_empty() {
            return None;
        }
        match self.dispatch(args, progress) {
            Some(next @ (Next::Stall | Next::Room(_))) => {
                progress.consumed = start;
                return Some(next);
            }
            next @ Some(_) => {
                progress.commands += 1;
                return next;
            }
            None => progress.commands += 1,
        }
        if self.client.closing {
            return Some(Next::Close);
        }
        let full = self.out.len() + self.outbox.len() >= self.server.settings.output_bytes_high;
        full.then_some(Next::Send)
    }

    #[inline(always)]
    fn dispatch(&mut self, args: &Args<'_>, progress: &mut Progress) -> Option<Next> {
        let Some(row) = table::find_row(args.at(0)) else {
            self.refuse(&unknown_command(args));
            return None;
        };
        progress.last = Some(row);
        let command = &table::COMMANDS[usize::from(row)];
        if !table::takes(command, args.len()) {
            self.refuse(&Refusal::arity(command.name));
            return None;
        }
        if !self.client.authenticated && command.flags & flag::NO_AUTH == 0 {
            self.refuse(&Refusal::Fixed("NOAUTH Authentication required."));
            return None;
        }
        if command.flags & flag::WRITE != 0 {
            match self.home.admission() {
                Admission::Open => {}
                Admission::Stalled => {
                    metrics::add(Counter::WriteStalls, 1);
                    return Some(Next::Stall);
                }
                Admission::Refused(reason) => {
                    metrics::add(Counter::WritesRefused, 1);
                    self.refuse(&Refusal::log_full(&reason));
                    return None;
                }
            }
        }
        if command.flags & flag::DENYOOM != 0 {
            match self.home.make_room(self.outbox.len()) {
                Room::Enough => {}
                Room::None => {
                    self.refuse(&Refusal::OUT_OF_MEMORY);
                    return None;
                }
                room => return Some(Next::Room(room)),
            }
        }
        match command.run {
            Run::Key(run) => {
                let key = args.get(usize::from(command.keys.first)).unwrap_or_default();
                let id = self.home.map().partition_of(key);
                self.one(command, run, id, args);
            }
            Run::Cursor(run) => {
                let partitions = self.home.map().count();
                let id = super::commands::scan::cursor_partition(args.at(1), partitions);
                self.one(command, run, id, args);
            }
            Run::Session(run) => {
                // `CLIENT LIST` tells what it is at.
                self.client.record.command.store(row, Ordering::Relaxed);
                self.here(run, args);
                return self.client.waits.take().map(Next::Wait);
            }
            Run::Spread { each, merge } => {
                return self.spread(command, each, merge, args).map(Next::Join);
            }
            Run::Every { check, each, merge } => {
                return self.every(command, check, each, merge, args).map(Next::Join);
            }
            Run::Together { run, .. } => {
                return self.together(command, run, args).map(Next::Transact);
            }
        }
        None
    }

    /// A command on one partition.
    // Inlined, because arguments that pass through memory are read before they are written out.
    #[inline(always)]
    fn one(
        &mut self,
        command: &'static Command,
        run: fn(&mut Call<'_>) -> Outcome,
        id: PartitionId,
        args: &Args<'_>,
    ) {
        if !self.home.reaches(id) {
            self.forward(command, id, args);
            return;
        }
        let partitions = self.home.map().count();
        let reply = Encoder::new(self.out, self.client.protocol);
        let (db, now_ms) = (self.client.db, self.now_ms);
        let outcome = self.home.with(id, |partition| {
            partition.tick(now_ms);
            run(&mut Call { partition, args, partitions, db, now_ms, reply })
        });
        if let Err(refusal) = outcome {
            self.refuse(&refusal);
        }
    }

    /// A command on the connection.
    fn here(&mut self, run: fn(&mut SessionCall<'_>) -> Outcome, args: &Args<'_>) {
        let reply = Encoder::new(self.out, self.client.protocol);
        let (server, now_ms) = (self.server, self.now_ms);
        let mut call = SessionCall { client: self.client, server, args, now_ms, reply };
        if let Err(refusal) = run(&mut call) {
            self.refuse(&refusal);
        }
    }

    /// A command that handles its keys one by one.
    fn spread(
        &mut self,
        command: &'static Command,
        each: fn(&mut Call<'_>, usize) -> i64,
        merge: Merge,
        args: &Args<'_>,
    ) -> Option<Box<Joint>> {
        let indexes = command.keys.indexes(args.len());
        let step = usize::from(command.keys.step);
        if !(args.len() - usize::from(command.keys.first)).is_multiple_of(step) {
            self.refuse(&Refusal::arity(command.name));
            return None;
        }
        let map = self.home.map();
        let id_of = |index: usize| map.partition_of(args.at(index));
        let mut ids: Vec<PartitionId> = Vec::new();
        if map.count() > 1 {
            ids.extend(command.keys.indexes(args.len()).map(id_of));
        }
        let id = ids.first().copied().unwrap_or(PartitionId(0));
        let is_one = ids.iter().all(|&other| other == id);
        if !ids.iter().all(|&id| self.home.reaches(id)) {
            if !is_one && command.flags & flag::WRITE != 0 {
                return Some(Box::new(self.spread_jointly(command, merge, args, &ids)));
            }
            self.spread_away(command, each, merge, args, &ids);
            return None;
        }
        if merge == Merge::InOrder {
            let keys = (args.len() - usize::from(command.keys.first)) / step;
            Encoder::new(self.out, self.client.protocol).array(keys);
        }
        // In one go: what is changed stays together in the log, what is read is of one moment.
        let count = if is_one {
            self.part(id, args, None, |call| indexes.map(|index| each(call, index)).sum())
        } else {
            self.spread_at_hand(each, args, indexes, &ids)
        };
        if merge != Merge::InOrder {
            joint::reply(merge, count, &mut Encoder::new(self.out, self.client.protocol));
        }
        None
    }

    /// The same for keys at several partitions within reach; answers what was counted.
    fn spread_at_hand(
        &mut self,
        each: fn(&mut Call<'_>, usize) -> i64,
        args: &Args<'_>,
        indexes: impl Iterator<Item = usize>,
        ids: &[PartitionId],
    ) -> i64 {
        let distinct = distinct(ids.iter().copied());
        let (db, protocol) = (self.client.db, self.client.protocol);
        let (partitions, now_ms, out) = (self.home.map().count(), self.now_ms, &mut *self.out);
        self.home.with_all(&distinct, |lent| {
            let work = |(index, id): (usize, &PartitionId)| {
                let place = distinct.partition_point(|other| other < id);
                let (partition, reply) = (&mut *lent[place], Encoder::new(out, protocol));
                partition.tick(now_ms);
                each(&mut Call { partition, args, partitions, db, now_ms, reply }, index)
            };
            indexes.zip(ids).map(work).sum()
        })
    }

    /// The same for a command that changes keys at several partitions, some of which are out of
    /// reach: it is done as one.
    fn spread_jointly(
        &self,
        command: &'static Command,
        merge: Merge,
        args: &Args<'_>,
        ids: &[PartitionId],
    ) -> Joint {
        let step = usize::from(command.keys.step);
        let indexes = command.keys.indexes(args.len());
        let places: Vec<(usize, PartitionId)> = indexes.zip(ids.iter().copied()).collect();
        let mut joint = Joint::new((command, self.client.db, self.client.protocol), merge);
        for id in distinct(ids.iter().copied()) {
            let here = places.iter().filter(move |(_, other)| *other == id);
            joint.push(id, words_at(args, here.flat_map(|(at, _)| *at..at + step)));
        }
        joint
    }

    /// The same, where some keys, at partitions `ids`, are out of reach.
    fn spread_away(
        &mut self,
        command: &'static Command,
        each: fn(&mut Call<'_>, usize) -> i64,
        merge: Merge,
        args: &Args<'_>,
        ids: &[PartitionId],
    ) {
        let distinct = distinct(ids.iter().copied());
        let (first, step) = (usize::from(command.keys.first), usize::from(command.keys.step));
        let mut parts = Vec::with_capacity(distinct.len());
        for &id in &distinct {
            let numbers = ids.iter().enumerate().filter(|&(_, other)| *other == id);
            let indexes = numbers.map(|(number, _)| first + number * step);
            if self.home.reaches(id) {
                let mut values = Vec::new();
                let mut count = 0;
                for index in indexes {
                    count += self.part(id, args, Some(&mut values), |call| each(call, index));
                }
                parts.push(Part::Here(count, values));
            } else {
                let words = words_at(args, indexes.flat_map(|index| index..index + step));
                let item = (command, self.client.db, self.client.protocol);
                self.outbox.request(id, self.home.map(), item, words);
                parts.push(Part::Away(id));
            }
        }
        let order = ids.iter().map(|id| distinct.partition_point(|other| other < id));
        let join = Join {
            merge,
            protocol: self.client.protocol,
            parts,
            order: order.collect(),
            words: Vec::new(),
        };
        self.outbox.expect_join(self.out.len(), join);
    }

    /// A command on every partition.
    fn every(
        &mut self,
        command: &'static Command,
        check: fn(&Args<'_>) -> Outcome,
        each: fn(&mut Call<'_>) -> i64,
        merge: Merge,
        args: &Args<'_>,
    ) -> Option<Box<Joint>> {
        if let Err(refusal) = check(args) {
            self.refuse(&refusal);
            return None;
        }
        if command.flags & flag::WRITE != 0 {
            return self.every_jointly(command, each, merge, args);
        }
        let mut away = false;
        let mut parts = Vec::new();
        for id in self.home.map().partitions() {
            if self.home.reaches(id) {
                let mut values = Vec::new();
                let count = self.part(id, args, Some(&mut values), each);
                parts.push(Part::Here(count, values));
            } else {
                away = true;
                let item = (command, self.client.db, self.client.protocol);
                self.outbox.request(id, self.home.map(), item, words_at(args, 1..args.len()));
                parts.push(Part::Away(id));
            }
        }
        let join = Join {
            merge,
            protocol: self.client.protocol,
            parts,
            order: Vec::new(),
            words: args.iter().skip(1).map(<[u8]>::to_vec).collect(),
        };
        if away {
            self.outbox.expect_join(self.out.len(), join);
        } else {
            join.finish(self.out, self.server, self.now_ms);
        }
        None
    }

    /// The same for a command that changes every partition: it is done as one.
    fn every_jointly(
        &mut self,
        command: &'static Command,
        each: fn(&mut Call<'_>) -> i64,
        merge: Merge,
        args: &Args<'_>,
    ) -> Option<Box<Joint>> {
        let ids: Vec<PartitionId> = self.home.map().partitions().collect();
        let (db, protocol) = (self.client.db, self.client.protocol);
        if !ids.iter().all(|&id| self.home.reaches(id)) {
            let mut joint = Joint::new((command, db, protocol), merge);
            for &id in &ids {
                joint.push(id, words_at(args, 1..args.len()));
            }
            return Some(Box::new(joint));
        }
        let (partitions, now_ms, out) = (ids.len(), self.now_ms, &mut *self.out);
        let count = self.home.with_all(&ids, |lent| {
            let mut count = 0;
            for partition in lent {
                partition.tick(now_ms);
                let reply = Encoder::new(out, protocol);
                count += each(&mut Call { partition, args, partitions, db, now_ms, reply });
            }
            count
        });
        joint::reply(merge, count, &mut Encoder::new(out, protocol));
        None
    }

    /// Part of a command on a partition within reach; values go to `values`, else to the output.
    fn part(
        &mut self,
        id: PartitionId,
        args: &Args<'_>,
        values: Option<&mut Vec<u8>>,
        work: impl FnOnce(&mut Call<'_>) -> i64,
    ) -> i64 {
        let partitions = self.home.map().count();
        let (db, now_ms) = (self.client.db, self.now_ms);
        let reply = Encoder::new(values.unwrap_or(self.out), self.client.protocol);
        self.home.with(id, |partition| {
            partition.tick(now_ms);
            work(&mut Call { partition, args, partitions, db, now_ms, reply })
        })
    }

    /// A command that needs its keys in one place.
    fn together(
        &mut self,
        command: &'static Command,
        run: fn(&mut Call<'_>) -> Outcome,
        args: &Args<'_>,
    ) -> Option<Box<Transaction>> {
        let first = usize::from(command.keys.first);
        let step = usize::from(command.keys.step);
        if command.keys.last < 0 && !(args.len() - first).is_multiple_of(step) {
            self.refuse(&Refusal::arity(command.name));
            return None;
        }
        let map = self.home.map();
        let home_id = map.partition_of(args.at(first));
        let mut ids =
            command.keys.indexes(args.len()).map(|index| map.partition_of(args.at(index)));
        if ids.all(|id| id == home_id) {
            self.one(command, run, home_id, args);
            return None;
        }
        let (db, protocol) = (self.client.db, self.client.protocol);
        let transaction = Transaction::new(command, args, db, protocol, map);
        let ids: Vec<PartitionId> = transaction.wanted().iter().map(|(id, _)| *id).collect();
        if !ids.iter().all(|&id| self.home.reaches(id)) {
            return Some(Box::new(transaction));
        }
        let (now_ms, out) = (self.now_ms, &mut *self.out);
        self.home.with_all(&ids, |partitions| transaction.run_at_hand(partitions, now_ms, out));
        None
    }

    /// Sends a whole command to another partition.
    #[cold]
    fn forward(&mut self, command: &'static Command, id: PartitionId, args: &Args<'_>) {
        let item = (command, self.client.db, self.client.protocol);
        self.outbox.request(id, self.home.map(), item, words_at(args, 1..args.len()));
        self.outbox.expect_reply(self.out.len(), id);
    }

    #[cold]
    fn refuse(&mut self, refusal: &Refusal) {
        metrics::add(Counter::RespErrors, 1);
        Encoder::new(self.out, self.client.protocol).error(refusal.text());
    }
}

/// Each of the partitions once, in ascending order.
fn distinct(ids: impl Iterator<Item = PartitionId>) -> Vec<PartitionId> {
    let mut distinct: Vec<PartitionId> = ids.collect();
    distinct.sort_unstable();
    distinct.dedup();
    distinct
}

/// What Redis says to a command that it does not have, with the first arguments quoted.
#[cold]
fn unknown_command(args: &Args<'_>) -> Refusal {
    const QUOTED_BYTES_MAX: usize = 128;
    let cut = |word: &[u8], max: usize| word[..word.len().min(max)].to_vec();
    let mut preview = Vec::new();
    for word in args.iter().skip(1) {
        if preview.len() >= QUOTED_BYTES_MAX {
            break;
        }
        let word = cut(word, QUOTED_BYTES_MAX - preview.len());
        preview.extend([b"'".as_slice(), &word, b"' "].concat());
    }
    let name = cut(args.at(0), QUOTED_BYTES_MAX);
    let text = [b"ERR unknown command '", &name[..], b"', with args beginning with: ", &preview];
    Refusal::Quoting(text.concat())
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "memory_tests.rs"]
mod memory_tests;
