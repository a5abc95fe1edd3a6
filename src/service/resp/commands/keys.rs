//! Keys, whatever they hold: presence, type, names.
//!
//! Invariant: a key that has expired is treated as absent everywhere.

use crate::protocol::resp::Args;
use crate::store::{DATABASES_COUNT, Expiry};

use super::super::command::{Call, Outcome, Refusal, integer, is, small_integer};

/// `DEL key [key ...]` and `UNLINK`, one key of it.
pub fn del_one(call: &mut Call<'_>, index: usize) -> i64 {
    match call.partition.find(call.db, call.args.at(index), call.now_ms) {
        None => 0,
        Some(found) => {
            call.partition.database(call.db).remove(found);
            1
        }
    }
}

/// `EXISTS key [key ...]`, one key of it; a key given twice counts twice.
pub fn exists_one(call: &mut Call<'_>, index: usize) -> i64 {
    let is_there = call.partition.peek(call.db, call.args.at(index), call.now_ms).is_some();
    let stats = &mut call.partition.stats;
    *if is_there { &mut stats.hits } else { &mut stats.misses } += 1;
    i64::from(is_there)
}

/// `TOUCH key [key ...]`, one key of it.
pub fn touch_one(call: &mut Call<'_>, index: usize) -> i64 {
    i64::from(call.partition.read(call.db, call.args.at(index), call.now_ms).is_some())
}

/// `TYPE key`.
pub fn type_of(call: &mut Call<'_>) -> Outcome {
    let found = call.partition.peek(call.db, call.args.at(1), call.now_ms);
    let keyspace = call.partition.keyspace(call.db);
    call.reply.simple(found.map_or("none", |found| keyspace.value(found).type_name()));
    Ok(())
}

/// `RENAME key newkey`.
pub fn rename(call: &mut Call<'_>) -> Outcome {
    move_key(call, true)?;
    call.reply.ok();
    Ok(())
}

/// `RENAMENX key newkey`.
pub fn renamenx(call: &mut Call<'_>) -> Outcome {
    let moved = move_key(call, false)?;
    call.reply.integer(i64::from(moved));
    Ok(())
}

fn move_key(call: &mut Call<'_>, replace: bool) -> Result<bool, Refusal> {
    let (source, target) = (call.args.at(1), call.args.at(2));
    let found = call.partition.find(call.db, source, call.now_ms);
    let found = found.ok_or(Refusal::NO_SUCH_KEY)?;
    if source == target {
        return Ok(false);
    }
    let taken = call.partition.find(call.db, target, call.now_ms).is_some();
    if taken && !replace {
        return Ok(false);
    }
    let mut database = call.partition.database(call.db);
    let (value, deadline) = database.remove(found);
    database.set(target, value, deadline.map_or(Expiry::Never, Expiry::At));
    Ok(true)
}

/// `COPY source destination [DB destination-db] [REPLACE]`.
pub fn copy(call: &mut Call<'_>) -> Outcome {
    let args = call.args;
    let (mut target_db, mut replace) = (call.db, false);
    let mut index = 3;
    while let Some(option) = args.get(index) {
        if is(option, "REPLACE") {
            replace = true;
        } else if is(option, "DB")
            && let Some(number) = args.get(index + 1)
        {
            let number = usize::try_from(small_integer(number)?).ok();
            let number = number.filter(|&number| number < DATABASES_COUNT);
            target_db = number.ok_or(Refusal::NO_SUCH_DATABASE)?;
            index += 1;
        } else {
            return Err(Refusal::SYNTAX);
        }
        index += 1;
    }
    let (source, target) = (args.at(1), args.at(2));
    if source == target && call.db == target_db {
        return Err(Refusal::Fixed("ERR source and destination objects are the same"));
    }
    let Some(found) = call.partition.find(call.db, source, call.now_ms) else {
        call.reply.integer(0);
        return Ok(());
    };
    let keyspace = call.partition.keyspace(call.db);
    let expiry = keyspace.deadline(found).map_or(Expiry::Never, Expiry::At);
    let value = keyspace.value(found).clone();
    let taken = call.partition.find(target_db, target, call.now_ms).is_some();
    let copied = replace || !taken;
    if copied {
        call.partition.database(target_db).set(target, value, expiry);
    }
    call.reply.integer(i64::from(copied));
    Ok(())
}

/// The database of a key of `COPY`: the destination's is an option. What is wrong with the option
/// is told by the command itself.
pub fn copy_database(args: &Args<'_>, index: usize, db: usize) -> usize {
    const DESTINATION: usize = 2;
    if index != DESTINATION {
        return db;
    }
    let option = (3..args.len()).rev().find(|&index| is(args.at(index), "DB"));
    let number = option.and_then(|index| args.get(index + 1));
    let number = number.and_then(|number| usize::try_from(integer(number).ok()?).ok());
    number.filter(|&number| number < DATABASES_COUNT).unwrap_or(db)
}

/// The database of a key of any other command: the selected one.
pub fn same_database(_: &Args<'_>, _: usize, db: usize) -> usize {
    db
}

/// `OBJECT ENCODING | REFCOUNT | IDLETIME | FREQ key`.
pub fn object(call: &mut Call<'_>) -> Outcome {
    let what = call.args.at(1);
    let known = ["ENCODING", "REFCOUNT", "IDLETIME", "FREQ"].iter().any(|name| is(what, name));
    if !known {
        return Err(unknown_subcommand(call.args, "OBJECT"));
    }
    let key = call.args.get(2).filter(|_| call.args.len() == 3);
    let Some(key) = key else {
        let name = String::from_utf8_lossy(what).to_ascii_lowercase();
        return Err(Refusal::arity(&format!("object|{name}")));
    };
    let Some(found) = call.partition.peek(call.db, key, call.now_ms) else {
        call.reply.null();
        return Ok(());
    };
    if is(what, "ENCODING") {
        let encoding = call.partition.keyspace(call.db).value(found).encoding();
        call.reply.bulk(encoding.as_bytes());
    } else if is(what, "REFCOUNT") {
        call.reply.integer(1);
    } else if is(what, "IDLETIME") {
        let idle_ms = call.partition.idle_ms(call.db, found).ok_or(Refusal::Fixed(
            "ERR An LFU maxmemory policy is selected, idle time not tracked. \
             Please note that when switching between policies at runtime LRU and LFU data \
             will take some time to adjust.",
        ))?;
        call.reply.integer((idle_ms / 1000) as i64);
    } else {
        let frequency = call.partition.frequency(call.db, found).ok_or(Refusal::Fixed(
            "ERR An LFU maxmemory policy is not selected, access frequency not tracked. \
             Please note that when switching between policies at runtime LRU and LFU data \
             will take some time to adjust.",
        ))?;
        call.reply.integer(i64::from(frequency));
    }
    Ok(())
}

/// `MEMORY USAGE key [SAMPLES count]`.
pub fn memory(call: &mut Call<'_>) -> Outcome {
    let args = call.args;
    if !is(args.at(1), "USAGE") {
        return Err(unknown_subcommand(args, "MEMORY"));
    }
    let Some(key) = args.get(2) else {
        return Err(Refusal::arity("memory|usage"));
    };
    match (args.get(3), args.get(4)) {
        (None, _) => {}
        (Some(option), Some(samples)) if is(option, "SAMPLES") && args.len() == 5 => {
            integer(samples)?;
        }
        _ => return Err(Refusal::SYNTAX),
    }
    match call.partition.peek(call.db, key, call.now_ms) {
        None => call.reply.null(),
        Some(found) => {
            let bytes = call.partition.keyspace(call.db).bytes_of(found);
            call.reply.integer(bytes as i64);
        }
    }
    Ok(())
}

/// What a container says to a subcommand that it does not have.
#[cold]
pub fn unknown_subcommand(args: &Args<'_>, container: &str) -> Refusal {
    let given = args.get(1).unwrap_or_default();
    let given = String::from_utf8_lossy(&given[..given.len().min(128)]);
    let text = format!("ERR unknown subcommand '{given}'. Try {container} HELP.");
    Refusal::Quoting(text.into_bytes())
}
