//! Strings: reading and writing them whole and in part.
//!
//! Invariant: a command that replaces a value drops its deadline unless told to keep it; one that
//! changes a value in place leaves the deadline alone.

use crate::protocol::resp::limits::BULK_BYTES_MAX;
use crate::protocol::resp::{Args, Encoder};
use crate::store::{Expiry, Value};

use super::super::command::{Call, Outcome, Refusal, integer, is};
use super::expiry::{EX, PX, Spelling};

/// `GET key`.
pub fn get(call: &mut Call<'_>) -> Outcome {
    reply_value(call)?;
    Ok(())
}

/// Replies with the string at the first key, or null; answers whether it was there.
#[inline]
fn reply_value(call: &mut Call<'_>) -> Result<bool, Refusal> {
    match call.partition.read(call.db, call.args.at(1), call.now_ms) {
        None => {
            call.reply.null();
            Ok(false)
        }
        Some(value) => {
            call.reply.bulk(value.as_string()?.as_slice());
            Ok(true)
        }
    }
}

/// The options of `SET`.
#[derive(Default)]
struct SetOptions {
    only_new: bool,
    only_present: bool,
    keep_deadline: bool,
    reply_old: bool,
    expires: Option<(Spelling, usize)>,
}

impl SetOptions {
    fn parse(args: &Args<'_>) -> Result<Self, Refusal> {
        let mut options = Self::default();
        let mut index = 3;
        while let Some(option) = args.get(index) {
            let timed = options.expires.is_some() || options.keep_deadline;
            if is(option, "NX") && !options.only_present {
                options.only_new = true;
            } else if is(option, "XX") && !options.only_new {
                options.only_present = true;
            } else if is(option, "GET") {
                options.reply_old = true;
            } else if is(option, "KEEPTTL") && options.expires.is_none() {
                options.keep_deadline = true;
            } else if let Some(spelling) = Spelling::of_option(option)
                && !timed
                && index + 1 < args.len()
            {
                index += 1;
                options.expires = Some((spelling, index));
            } else {
                return Err(Refusal::SYNTAX);
            }
            index += 1;
        }
        Ok(options)
    }

    fn expiry(&self, call: &Call<'_>) -> Result<Expiry, Refusal> {
        match self.expires {
            Some((spelling, index)) => {
                let at_ms = spelling.positive(call.args, call.args.at(index), call.now_ms)?;
                Ok(Expiry::At(at_ms))
            }
            None if self.keep_deadline => Ok(Expiry::Keep),
            None => Ok(Expiry::Never),
        }
    }
}

/// `SET key value [NX | XX] [GET] [EX s | PX ms | EXAT s | PXAT ms | KEEPTTL]`.
pub fn set(call: &mut Call<'_>) -> Outcome {
    if call.args.len() == 3 {
        let (key, value) = (call.args.at(1), call.args.at(2));
        call.partition.database(call.db).set_string(key, value, Expiry::Never);
        call.reply.ok();
        return Ok(());
    }
    set_with_options(call)
}

fn set_with_options(call: &mut Call<'_>) -> Outcome {
    let options = SetOptions::parse(call.args)?;
    let expiry = options.expiry(call)?;
    let (key, value) = (call.args.at(1), call.args.at(2));
    // Asked in this order: a key whose time is over must be gone before its deadline is kept.
    let present = options.reply_old && reply_value(call)?
        || call.partition.find(call.db, key, call.now_ms).is_some();
    let refused = options.only_new && present || options.only_present && !present;
    if !refused {
        call.partition.database(call.db).set_string(key, value, expiry);
    }
    match (options.reply_old, refused) {
        (true, _) => {}
        (false, true) => call.reply.null(),
        (false, false) => call.reply.ok(),
    }
    Ok(())
}

/// `SETEX key seconds value`.
pub fn setex(call: &mut Call<'_>) -> Outcome {
    set_expiring(call, EX)
}

/// `PSETEX key milliseconds value`.
pub fn psetex(call: &mut Call<'_>) -> Outcome {
    set_expiring(call, PX)
}

fn set_expiring(call: &mut Call<'_>, spelling: Spelling) -> Outcome {
    let at_ms = spelling.positive(call.args, call.args.at(2), call.now_ms)?;
    let (key, value) = (call.args.at(1), call.args.at(3));
    call.partition.database(call.db).set_string(key, value, Expiry::At(at_ms));
    call.reply.ok();
    Ok(())
}

/// `SETNX key value`.
pub fn setnx(call: &mut Call<'_>) -> Outcome {
    let (key, value) = (call.args.at(1), call.args.at(2));
    let new = call.partition.find(call.db, key, call.now_ms).is_none();
    if new {
        call.partition.database(call.db).set_string(key, value, Expiry::Never);
    }
    call.reply.integer(i64::from(new));
    Ok(())
}

/// `GETSET key value`.
pub fn getset(call: &mut Call<'_>) -> Outcome {
    reply_value(call)?;
    let (key, value) = (call.args.at(1), call.args.at(2));
    call.partition.database(call.db).set_string(key, value, Expiry::Never);
    Ok(())
}

/// `GETDEL key`.
pub fn getdel(call: &mut Call<'_>) -> Outcome {
    if reply_value(call)?
        && let Some(found) = call.partition.find(call.db, call.args.at(1), call.now_ms)
    {
        call.partition.database(call.db).remove(found);
    }
    Ok(())
}

/// `GETEX key [EX s | PX ms | EXAT s | PXAT ms | PERSIST]`.
pub fn getex(call: &mut Call<'_>) -> Outcome {
    let args = call.args;
    let deadline = match (args.get(2), args.get(3)) {
        (None, _) => None,
        (Some(option), None) if is(option, "PERSIST") => Some(None),
        (Some(option), Some(time)) if args.len() == 4 => {
            let spelling = Spelling::of_option(option).ok_or(Refusal::SYNTAX)?;
            Some(Some((spelling, time)))
        }
        _ => return Err(Refusal::SYNTAX),
    };
    // The type is checked before the time, the time before anything is changed or replied.
    let Some(found) = call.partition.find(call.db, args.at(1), call.now_ms) else {
        return get(call);
    };
    call.partition.keyspace(call.db).value(found).as_string()?;
    let deadline = match deadline {
        None => None,
        Some(None) => Some(None),
        Some(Some((spelling, time))) => Some(Some(spelling.positive(args, time, call.now_ms)?)),
    };
    reply_value(call)?;
    let mut database = call.partition.database(call.db);
    match deadline {
        None => {}
        Some(Some(at_ms)) if at_ms <= call.now_ms => drop(database.remove(found)),
        Some(deadline) => database.set_deadline(found, deadline),
    }
    Ok(())
}

/// `MGET key [key ...]`, one key of it. A value of another type counts as none.
pub fn mget_one(call: &mut Call<'_>, index: usize) -> i64 {
    let value = call.partition.read(call.db, call.args.at(index), call.now_ms);
    match value.map(Value::as_string) {
        Some(Ok(text)) => call.reply.bulk(text.as_slice()),
        Some(Err(_)) | None => call.reply.null(),
    }
    1
}

/// `MSET key value [key value ...]`, one key of it.
pub fn mset_one(call: &mut Call<'_>, index: usize) -> i64 {
    let (key, value) = (call.args.at(index), call.args.at(index + 1));
    call.partition.database(call.db).set_string(key, value, Expiry::Never);
    1
}

/// `MSETNX key value [key value ...]`: all or none.
pub fn msetnx(call: &mut Call<'_>) -> Outcome {
    let args = call.args;
    let keys = (1..args.len()).step_by(2);
    let mut present = false;
    for index in keys.clone() {
        present |= call.partition.find(call.db, args.at(index), call.now_ms).is_some();
    }
    if !present {
        for index in keys {
            mset_one(call, index);
        }
    }
    call.reply.integer(i64::from(!present));
    Ok(())
}

/// `APPEND key value`.
pub fn append(call: &mut Call<'_>) -> Outcome {
    let (key, tail) = (call.args.at(1), call.args.at(2));
    let Some(found) = call.partition.find(call.db, key, call.now_ms) else {
        call.partition.database(call.db).set_string(key, tail, Expiry::Never);
        call.reply.integer(tail.len() as i64);
        return Ok(());
    };
    let mut database = call.partition.database(call.db);
    check_length(database.value(found).as_string()?.as_slice().len(), tail.len())?;
    let len = database.append(found, tail)?;
    call.reply.integer(len as i64);
    Ok(())
}

/// `STRLEN key`.
pub fn strlen(call: &mut Call<'_>) -> Outcome {
    let len = match call.partition.read(call.db, call.args.at(1), call.now_ms) {
        None => 0,
        Some(value) => value.as_string()?.as_slice().len(),
    };
    call.reply.integer(len as i64);
    Ok(())
}

/// `SETRANGE key offset value`.
pub fn setrange(call: &mut Call<'_>) -> Outcome {
    let (key, piece) = (call.args.at(1), call.args.at(3));
    let offset = integer(call.args.at(2))?;
    let Ok(offset) = usize::try_from(offset) else {
        return Err(Refusal::Fixed("ERR offset is out of range"));
    };
    let found = call.partition.find(call.db, key, call.now_ms);
    let mut database = call.partition.database(call.db);
    let len = match found {
        None => 0,
        Some(found) => database.value(found).as_string()?.as_slice().len(),
    };
    if piece.is_empty() {
        call.reply.integer(len as i64);
        return Ok(());
    }
    check_length(offset, piece.len())?;
    let end = offset + piece.len();
    match found {
        None => {
            let mut content = vec![0; end];
            content[offset..].copy_from_slice(piece);
            database.set_string(key, &content, Expiry::Never);
        }
        Some(found) => drop(database.write_at(found, offset, piece)?),
    }
    call.reply.integer(len.max(end) as i64);
    Ok(())
}

/// `GETRANGE key start end`, and `SUBSTR`, its old name.
pub fn getrange(call: &mut Call<'_>) -> Outcome {
    let start = integer(call.args.at(2))?;
    let end = integer(call.args.at(3))?;
    match call.partition.read(call.db, call.args.at(1), call.now_ms) {
        None => call.reply.bulk(b""),
        Some(value) => reply_range(&mut call.reply, value.as_string()?.as_slice(), start, end),
    }
    Ok(())
}

/// Replies with the bytes from `start` to `end`, both included, negative ones counted from the end.
fn reply_range(reply: &mut Encoder<'_>, bytes: &[u8], start: i64, end: i64) {
    let len = bytes.len() as i64;
    let from_end = |index: i64| if index < 0 { index.saturating_add(len).max(0) } else { index };
    let crossed = start < 0 && end < 0 && start > end;
    let (start, end) = (from_end(start), from_end(end).min(len - 1));
    if crossed || start > end || len == 0 {
        reply.bulk(b"");
    } else {
        reply.bulk(&bytes[start as usize..=end as usize]);
    }
}

fn check_length(len: usize, added: usize) -> Outcome {
    match len.checked_add(added) {
        Some(total) if total <= BULK_BYTES_MAX => Ok(()),
        _ => Err(Refusal::STRING_TOO_LONG),
    }
}
