//! Work for other partitions and the order of the replies. Filled by a session, emptied by the
//! connection loop, which carries the batches to their shards and back.
//!
//! Invariant: a partition answers the items of its batch in order, so that a cursor per batch is
//! enough to put every reply where its command was.

use std::mem;

use crate::log::Admission;
use crate::metrics::{self, Counter};
use crate::protocol::resp::{Args, Decode, Decoder, Encoder, Protocol};
use crate::store::{Home, PartitionId, SlotMap, Trace};

use super::command::{Call, Command, Merge, Refusal, Run, flag};
use super::info::{self, Figures};
use super::server::Server;

/// What a batch keeps for the next one, at most: room for a common pipeline, and not for ever that
/// for the largest command of a connection.
const SPARE_BYTES_MAX: usize = 64 * 1024;
const SPARE_COUNT_MAX: usize = 1024;

/// Commands for one partition, and room for their replies. It travels there and back.
#[derive(Debug, Default)]
pub struct Batch {
    requests: Vec<u8>,
    items: Vec<Item>,
    replies: Vec<u8>,
    /// Where each reply ends.
    ends: Vec<usize>,
    /// How many replies have been taken.
    taken: usize,
    /// Bytes of the requests that have been run.
    run_bytes: usize,
    decoder: Decoder,
    /// What running it did.
    pub(super) trace: Trace,
}

/// How to run one command of a batch.
#[derive(Debug, Clone, Copy)]
struct Item {
    command: &'static Command,
    db: usize,
    protocol: Protocol,
}

impl Batch {
    /// Adds a command made of these words; answers how many bytes it takes.
    pub fn push<'a>(
        &mut self,
        item: (&'static Command, usize, Protocol),
        words: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> usize {
        let before = self.requests.len();
        let mut encoder = Encoder::new(&mut self.requests, Protocol::Resp2);
        encoder.array(words.clone().count());
        for word in words {
            encoder.bulk(word);
        }
        let (command, db, protocol) = item;
        self.items.push(Item { command, db, protocol });
        self.requests.len() - before
    }

    /// Runs the commands that were not run yet on partition `id`, which `home` reaches. Answers
    /// whether that was all: a write waits until writes are welcome.
    #[must_use]
    pub fn run(&mut self, home: &mut Home<'_>, id: PartitionId, now_ms: u64) -> bool {
        let partitions = home.map().count();
        while let Some(item) = self.items.get(self.ends.len()) {
            let input = &self.requests[self.run_bytes..];
            let mut refused = None;
            // Parts of commands are not refused one by one: their command was let in as a whole.
            let is_whole = matches!(item.command.run, Run::Key(_) | Run::Together { .. });
            if is_whole && item.command.flags & flag::WRITE != 0 {
                match home.admission() {
                    Admission::Open => {}
                    Admission::Stalled => return false,
                    Admission::Refused(reason) => refused = Some(Refusal::log_full(&reason)),
                }
            }
            let Decode::Complete(consumed) = self.decoder.decode(input) else {
                unreachable!("a batch holds whole commands, because a session encoded them");
            };
            let args = &self.decoder.args(self.decoder.last(), input);
            let reply = Encoder::new(&mut self.replies, item.protocol);
            let db = item.db;
            home.with(id, |partition| {
                partition.tick(now_ms);
                let mut call = Call { partition, args, partitions, db, now_ms, reply };
                match refused {
                    None => run_part(item.command, &mut call),
                    Some(refusal) => call.reply.error(refusal.text()),
                }
            });
            self.ends.push(self.replies.len());
            self.run_bytes += consumed;
            self.decoder.forget();
        }
        true
    }

    /// What the next part counted, where parts have no values.
    pub(super) fn take_count(&mut self) -> i64 {
        let (count, values) = split_part(self.take_reply());
        assert!(values.is_empty(), "the part answers a count only");
        count
    }

    fn take_reply(&mut self) -> &[u8] {
        let start = self.taken.checked_sub(1).map_or(0, |before| self.ends[before]);
        let end = self.ends[self.taken];
        self.taken += 1;
        &self.replies[start..end]
    }

    fn clear(&mut self) {
        clear(&mut self.requests, SPARE_BYTES_MAX);
        clear(&mut self.items, SPARE_COUNT_MAX);
        clear(&mut self.replies, SPARE_BYTES_MAX);
        clear(&mut self.ends, SPARE_COUNT_MAX);
        self.taken = 0;
        self.run_bytes = 0;
        self.trace = Trace::default();
    }
}

/// Empties `items`, and keeps room for `kept` of them at most.
fn clear<T>(items: &mut Vec<T>, kept: usize) {
    items.clear();
    items.shrink_to(kept);
}

/// Runs a command, or its part, on a partition away from the connection. A part answers its count
/// in eight bytes, then its values; a whole command answers its reply.
fn run_part(command: &Command, call: &mut Call<'_>) {
    let outcome = match command.run {
        Run::Key(run) | Run::Cursor(run) | Run::Together { run, .. } => run(call),
        Run::Spread { each, .. } => {
            let indexes = command.keys.indexes(call.args.len());
            count_ahead(call, |call| indexes.map(|index| each(call, index)).sum());
            Ok(())
        }
        Run::Every { each, .. } => {
            count_ahead(call, each);
            Ok(())
        }
        Run::Session(_) => unreachable!("a session's command never leaves it"),
    };
    if let Err(refusal) = outcome {
        metrics::add(Counter::RespErrors, 1);
        call.reply.error(refusal.text());
    }
}

fn count_ahead(call: &mut Call<'_>, part: impl FnOnce(&mut Call<'_>) -> i64) {
    let start = call.reply.out.len();
    call.reply.out.extend_from_slice(&[0; 8]);
    let count = part(call);
    call.reply.out[start..start + 8].copy_from_slice(&count.to_le_bytes());
}

/// What partitions answered to their parts of one command.
#[derive(Debug)]
pub struct Join {
    /// How the parts become one reply.
    pub merge: Merge,
    /// The version that the reply is spelled in.
    pub protocol: Protocol,
    /// The parts.
    pub parts: Vec<Part>,
    /// For each key, the index of the part that has it.
    pub order: Vec<usize>,
    /// Arguments that the merge needs.
    pub words: Vec<Vec<u8>>,
}

/// The answer of one partition, or where it will come from.
#[derive(Debug)]
pub enum Part {
    /// What it counted, and its values.
    Here(i64, Vec<u8>),
    /// It is the next of this partition's replies.
    Away(PartitionId),
}

#[derive(Debug)]
enum Fill {
    Reply(PartitionId),
    Join(Box<Join>),
}

/// What a session waits for from other partitions.
#[derive(Debug, Default)]
pub struct Outbox {
    /// By partition; none where none was needed yet, or while it is away.
    batches: Vec<Option<Box<Batch>>>,
    /// Places in the output where a reply is missing, in order.
    gaps: Vec<(usize, Fill)>,
    bytes: usize,
    spare: Vec<u8>,
    /// What the batches that came back did.
    trace: Trace,
}

impl Outbox {
    /// Whether nothing is waited for.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.gaps.is_empty()
    }

    /// How many bytes of requests wait to be carried.
    #[inline]
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Partitions that have work waiting, in ascending order.
    pub fn partitions(&self) -> impl Iterator<Item = PartitionId> {
        let has_work = |batch: &Option<Box<Batch>>| {
            batch.as_ref().is_some_and(|batch| !batch.items.is_empty())
        };
        let waiting = self.batches.iter().enumerate().filter(move |(_, batch)| has_work(batch));
        waiting.map(|(index, _)| PartitionId(index as u16))
    }

    /// Takes the work for a partition, to carry it there.
    pub fn take(&mut self, id: PartitionId) -> Box<Batch> {
        self.batches[id.index()].take().unwrap_or_default()
    }

    /// Brings a batch back that has been run.
    pub fn put_back(&mut self, id: PartitionId, batch: Box<Batch>) {
        self.trace = self.trace.and(batch.trace);
        self.batches[id.index()] = Some(batch);
    }

    /// What the batches that came back since the last call did.
    pub fn take_trace(&mut self) -> Trace {
        mem::take(&mut self.trace)
    }

    /// Adds a command for partition `id`, made of its name and the arguments in `rest`.
    pub fn request<'a>(
        &mut self,
        id: PartitionId,
        map: SlotMap,
        item: (&'static Command, usize, Protocol),
        words: impl Iterator<Item = &'a [u8]> + Clone,
    ) {
        if self.batches.is_empty() {
            self.batches.resize_with(map.count(), || None);
        }
        self.bytes += self.batches[id.index()].get_or_insert_default().push(item, words);
    }

    /// Notes that the reply at `at` in the output is the next of partition `id`.
    pub fn expect_reply(&mut self, at: usize, id: PartitionId) {
        self.gaps.push((at, Fill::Reply(id)));
    }

    /// Notes that the reply at `at` in the output is to be made of parts.
    pub fn expect_join(&mut self, at: usize, join: Join) {
        self.gaps.push((at, Fill::Join(Box::new(join))));
    }

    /// Bytes kept for what comes next, while nothing waits.
    #[cfg(test)]
    pub(super) fn spare_bytes(&self) -> usize {
        let batches = self.batches.iter().flatten().map(|batch| {
            let words = batch.requests.capacity() + batch.replies.capacity();
            let items = batch.items.capacity() * size_of::<Item>();
            words + items + batch.ends.capacity() * size_of::<usize>()
        });
        let gaps = self.gaps.capacity() * size_of::<(usize, Fill)>();
        batches.sum::<usize>() + gaps + self.spare.capacity()
    }

    /// Fills the gaps of `out`, when every batch has come back.
    pub fn stitch(&mut self, out: &mut Vec<u8>, server: &Server, now_ms: u64) {
        let mut whole = mem::take(&mut self.spare);
        let mut copied = 0;
        for (at, fill) in self.gaps.drain(..) {
            whole.extend_from_slice(&out[copied..at]);
            copied = at;
            match fill {
                Fill::Reply(id) => {
                    whole.extend_from_slice(take_reply(&mut self.batches, id));
                }
                Fill::Join(mut join) => {
                    for part in &mut join.parts {
                        if let Part::Away(id) = *part {
                            let (count, values) = split_part(take_reply(&mut self.batches, id));
                            *part = Part::Here(count, values.to_vec());
                        }
                    }
                    join.finish(&mut whole, server, now_ms);
                }
            }
        }
        whole.extend_from_slice(&out[copied..]);
        self.spare = mem::replace(out, whole);
        clear(&mut self.spare, SPARE_BYTES_MAX);
        clear(&mut self.gaps, SPARE_COUNT_MAX);
        self.batches.iter_mut().flatten().for_each(|batch| batch.clear());
        self.bytes = 0;
    }
}

fn take_reply(batches: &mut [Option<Box<Batch>>], id: PartitionId) -> &[u8] {
    let batch = batches[id.index()].as_mut();
    batch.expect("every batch has come back").take_reply()
}

fn split_part(answer: &[u8]) -> (i64, &[u8]) {
    match answer.split_first_chunk() {
        Some((count, values)) => (i64::from_le_bytes(*count), values),
        None => unreachable!("a part begins with its count"),
    }
}

impl Join {
    /// Appends the reply; every part is here.
    pub fn finish(&self, out: &mut Vec<u8>, server: &Server, now_ms: u64) {
        let mut reply = Encoder::new(out, self.protocol);
        let parts = || {
            self.parts.iter().map(|part| match part {
                Part::Here(count, values) => (*count, values.as_slice()),
                Part::Away(_) => unreachable!("every part has come back"),
            })
        };
        let count = || parts().map(|(count, _)| count).sum::<i64>();
        match self.merge {
            Merge::Sum => reply.integer(count()),
            Merge::Ok => reply.ok(),
            Merge::Concatenate => {
                reply.array(count() as usize);
                parts().for_each(|(_, values)| reply.out.extend_from_slice(values));
            }
            Merge::InOrder => {
                let mut rests: Vec<&[u8]> = parts().map(|(_, values)| values).collect();
                reply.array(self.order.len());
                for &part in &self.order {
                    let (value, rest) = rests[part].split_at(value_len(rests[part]));
                    reply.out.extend_from_slice(value);
                    rests[part] = rest;
                }
            }
            Merge::Draw => {
                let mut ticket = now_ms.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
                ticket = ticket.checked_rem(count() as u64).unwrap_or(0);
                let drawn = parts().find(|&(count, _)| {
                    let drawn = ticket < count as u64;
                    ticket = ticket.wrapping_sub(count as u64);
                    drawn
                });
                match drawn {
                    Some((_, value)) => reply.out.extend_from_slice(value),
                    None => reply.null(),
                }
            }
            Merge::Info => {
                let mut figures = Figures::default();
                parts().for_each(|(_, told)| figures.add(told));
                let words = self.words.iter().map(Vec::as_slice);
                let text = info::render(server, &figures, words, now_ms);
                reply.verbatim(*b"txt", text.as_bytes());
            }
        }
    }
}

/// The length of the bulk or null at the front of `values`, which this server has encoded.
fn value_len(values: &[u8]) -> usize {
    let end = memchr::memchr(b'\n', values).map_or(values.len(), |at| at + 1);
    let digits = values.get(1..end.saturating_sub(2)).unwrap_or_default();
    let len = crate::protocol::resp::integer::parse_i64(digits);
    match (values.first(), len.and_then(|len| usize::try_from(len).ok())) {
        (Some(b'$'), Some(len)) => end + len + 2,
        _ => end,
    }
}

/// The name of a command and some of its other arguments.
pub fn words_at<'a>(
    args: &'a Args<'a>,
    indexes: impl Iterator<Item = usize> + Clone,
) -> impl Iterator<Item = &'a [u8]> + Clone {
    std::iter::once(0).chain(indexes).map(move |index| args.at(index))
}
