//! A command whose keys lie in several partitions, run as if they lay in one. Made by a session,
//! run by it under locks, or by the connection loop with the partitions' gates closed.
//!
//! Invariant: between `lend` and `give back` nobody else sees the partitions, so the command is
//! atomic to every observer.

use crate::protocol::resp::{Args, Decode, Decoder, Encoder, Protocol};
use crate::store::loan::{FullKey, Loan};
use crate::store::{Change, Keeping, Partition, PartitionId, SlotMap};

use super::command::{Call, Command, Run};
use super::outbox::words_at;

/// The command, and which keys of which partitions it needs.
#[derive(Debug)]
pub struct Transaction {
    command: &'static Command,
    request: Vec<u8>,
    db: usize,
    protocol: Protocol,
    map: SlotMap,
    /// By partition, in ascending order.
    wanted: Vec<(PartitionId, Vec<FullKey>)>,
}

impl Transaction {
    /// The transaction of a command that needs its keys together.
    pub fn new(
        command: &'static Command,
        args: &Args<'_>,
        db: usize,
        protocol: Protocol,
        map: SlotMap,
    ) -> Self {
        let Run::Together { database, .. } = command.run else {
            unreachable!("only such a command is made a transaction");
        };
        let mut wanted: Vec<(PartitionId, Vec<FullKey>)> = Vec::new();
        for index in command.keys.indexes(args.len()) {
            let name = args.at(index);
            let key = FullKey { db: database(args, index, db), name: name.to_vec() };
            let id = map.partition_of(name);
            match wanted.binary_search_by_key(&id, |(id, _)| *id) {
                Ok(found) if wanted[found].1.contains(&key) => {}
                Ok(found) => wanted[found].1.push(key),
                Err(place) => wanted.insert(place, (id, vec![key])),
            }
        }
        let mut request = Vec::new();
        let mut encoder = Encoder::new(&mut request, Protocol::Resp2);
        encoder.array(args.len());
        for word in words_at(args, 1..args.len()) {
            encoder.bulk(word);
        }
        Self { command, request, db, protocol, map, wanted }
    }

    /// The partitions that take part, in ascending order, with the keys wanted of each.
    pub fn wanted(&self) -> &[(PartitionId, Vec<FullKey>)] {
        &self.wanted
    }

    /// Runs the command on the keys lent; appends its reply; answers what goes back, in the order
    /// in which it was lent, and what was changed, by partition.
    pub fn run(
        &self,
        loans: Vec<Loan>,
        keeping: Keeping,
        now_ms: u64,
        out: &mut Vec<u8>,
    ) -> (Vec<Loan>, Vec<(PartitionId, Vec<u8>)>) {
        let Run::Together { run, .. } = self.command.run else {
            unreachable!("only such a command is made a transaction");
        };
        let mut partition = Partition::default();
        partition.tick(now_ms);
        let keys: Vec<Vec<FullKey>> =
            loans.into_iter().map(|loan| loan.put(&mut partition)).collect();
        partition.keep(keeping);
        let mut decoder = Decoder::default();
        let Decode::Complete(_) = decoder.decode(&self.request) else {
            unreachable!("the request was encoded whole");
        };
        let mut call = Call {
            partition: &mut partition,
            args: &decoder.args(decoder.last(), &self.request),
            partitions: self.map.count(),
            db: self.db,
            now_ms,
            reply: Encoder::new(out, self.protocol),
        };
        if let Err(refusal) = run(&mut call) {
            call.reply.error(refusal.text());
        }
        let changes = split(&partition.take_changes(), self.map);
        let back = keys.into_iter().map(|keys| Loan::take(&mut partition, keys, now_ms));
        (back.collect(), changes)
    }

    /// Runs the command on partitions that are all at hand, given in the order of `wanted`.
    pub fn run_at_hand(&self, partitions: &mut [&mut Partition], now_ms: u64, out: &mut Vec<u8>) {
        assert!(partitions.len() == self.wanted.len());
        let keeping = partitions.first().map_or(Keeping::Nothing, |first| first.keeping());
        let pairs = partitions.iter_mut().zip(&self.wanted);
        let loans = pairs.map(|(partition, (_, keys))| Loan::take(partition, keys.clone(), now_ms));
        let (loans, changes) = self.run(loans.collect(), keeping, now_ms, out);
        for (partition, loan) in partitions.iter_mut().zip(loans) {
            loan.put(partition);
        }
        for (id, part) in &changes {
            let place = self.wanted.binary_search_by_key(id, |(id, _)| *id);
            let place = place.expect("a transaction changes the keys that it has named");
            partitions[place].adopt(part);
        }
    }
}

/// Parts changes by the partitions of their keys, in ascending order.
fn split(mut changes: &[u8], map: SlotMap) -> Vec<(PartitionId, Vec<u8>)> {
    let mut parts: Vec<(PartitionId, Vec<u8>)> = Vec::new();
    while let Ok(Some(change)) = Change::decode(&mut changes) {
        let Some(key) = change.key() else { unreachable!("a transaction changes single keys") };
        let id = map.partition_of(key);
        let place = match parts.binary_search_by_key(&id, |(id, _)| *id) {
            Ok(place) => place,
            Err(place) => {
                parts.insert(place, (id, Vec::new()));
                place
            }
        };
        change.encode(&mut parts[place].1);
    }
    parts
}
