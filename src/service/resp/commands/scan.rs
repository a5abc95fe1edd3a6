//! Commands that walk the keyspace: `KEYS`, `SCAN`, `DBSIZE`, `FLUSHDB`, `RANDOMKEY`.
//!
//! Invariant: a cursor is a partition in the upper bits and a place in the lower 32, so it stays
//! good while keys come and go; zero is both the first and the last.

use crate::protocol::resp::{Args, Encoder};
use crate::store::{DATABASES_COUNT, PartitionId, glob};

use super::super::command::{Call, Outcome, Refusal, integer, is};

/// Cursors of partitions above this bit.
const PARTITION_SHIFT: u32 = 32;

/// The partition that the cursor in `argument` leads to; the first one for what is no cursor.
pub fn cursor_partition(argument: &[u8], partitions: usize) -> PartitionId {
    let index = parse_cursor(argument).map_or(0, |cursor| cursor >> PARTITION_SHIFT);
    // A cursor from a time with more partitions ends in the last one.
    PartitionId(index.min(partitions as u64 - 1) as u16)
}

/// Cursors are unsigned, and Redis reads them leniently, as C does: a sign or zeros may lead.
fn parse_cursor(argument: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(argument).ok()?;
    match text.strip_prefix('-') {
        Some(digits) => digits.parse().ok().map(u64::wrapping_neg),
        None => text.parse().ok(),
    }
}

/// The options of `SCAN`.
struct ScanOptions<'a> {
    count: usize,
    pattern: Option<&'a [u8]>,
    type_name: Option<&'a [u8]>,
}

impl<'a> ScanOptions<'a> {
    fn parse(args: &Args<'a>) -> Result<Self, Refusal> {
        const COUNT_DEFAULT: usize = 10;
        let mut options = Self { count: COUNT_DEFAULT, pattern: None, type_name: None };
        let mut index = 2;
        while let Some(option) = args.get(index) {
            let argument = args.get(index + 1).ok_or(Refusal::SYNTAX)?;
            if is(option, "COUNT") {
                let count = usize::try_from(integer(argument)?).map_err(|_| Refusal::SYNTAX)?;
                options.count = Some(count).filter(|&count| count > 0).ok_or(Refusal::SYNTAX)?;
            } else if is(option, "MATCH") {
                options.pattern = Some(argument).filter(|pattern| !glob::matches_all(pattern));
            } else if is(option, "TYPE") {
                options.type_name = Some(argument);
            } else {
                return Err(Refusal::SYNTAX);
            }
            index += 2;
        }
        Ok(options)
    }
}

/// `SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]`, on the partition of the cursor. At its
/// end the cursor goes to the next partition.
pub fn scan(call: &mut Call<'_>) -> Outcome {
    let args = call.args;
    let Some(cursor) = parse_cursor(args.at(1)) else {
        return Err(Refusal::Fixed("ERR invalid cursor"));
    };
    let options = ScanOptions::parse(args)?;
    let (mut keys, mut count) = (Vec::new(), 0);
    let mut encoder = Encoder::new(&mut keys, call.reply.protocol);
    let keyspace = call.partition.survey(call.db);
    let next = keyspace.scan(cursor as u32, options.count, call.now_ms, |key, value| {
        let named = options.pattern.is_none_or(|pattern| glob::matches(pattern, key));
        if named && options.type_name.is_none_or(|name| is(name, value.type_name())) {
            encoder.bulk(key);
            count += 1;
        }
    });
    let partition = cursor >> PARTITION_SHIFT;
    let next = match next {
        Some(place) => partition << PARTITION_SHIFT | u64::from(place),
        None if partition + 1 < call.partitions as u64 => (partition + 1) << PARTITION_SHIFT,
        None => 0,
    };
    call.reply.array(2);
    call.reply.bulk(itoa::Buffer::new().format(next).as_bytes());
    call.reply.array(count);
    call.reply.out.extend_from_slice(&keys);
    Ok(())
}

/// `KEYS pattern`, one partition of it.
pub fn keys_part(call: &mut Call<'_>) -> i64 {
    let pattern = call.args.at(1);
    let all = glob::matches_all(pattern);
    let mut count = 0;
    let keyspace = call.partition.survey(call.db);
    keyspace.scan(0, usize::MAX, call.now_ms, |key, _| {
        if all || glob::matches(pattern, key) {
            call.reply.bulk(key);
            count += 1;
        }
    });
    count
}

/// `DBSIZE`, one partition of it.
pub fn dbsize_part(call: &mut Call<'_>) -> i64 {
    call.partition.survey(call.db).len() as i64
}

/// `RANDOMKEY`, one partition of it: a key, counted as all that there are.
pub fn randomkey_part(call: &mut Call<'_>) -> i64 {
    let random = call.partition.random(call.now_ms);
    let keyspace = call.partition.survey(call.db);
    match keyspace.random(random, call.now_ms) {
        None => 0,
        Some(key) => {
            call.reply.bulk(key);
            keyspace.len() as i64
        }
    }
}

/// `FLUSHDB [ASYNC | SYNC]`, one partition of it.
pub fn flushdb_part(call: &mut Call<'_>) -> i64 {
    call.partition.flush(call.db);
    0
}

/// `FLUSHALL [ASYNC | SYNC]`, one partition of it.
pub fn flushall_part(call: &mut Call<'_>) -> i64 {
    for db in 0..DATABASES_COUNT {
        call.partition.flush(db);
    }
    0
}

/// Refuses any argument but one `ASYNC` or `SYNC`.
pub fn check_flush(args: &Args<'_>) -> Outcome {
    match args.get(1) {
        None => Ok(()),
        Some(mode) if args.len() == 2 && (is(mode, "ASYNC") || is(mode, "SYNC")) => Ok(()),
        Some(_) => Err(Refusal::SYNTAX),
    }
}

/// Takes any arguments.
pub fn check_nothing(_: &Args<'_>) -> Outcome {
    Ok(())
}
