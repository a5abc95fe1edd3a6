//! Strings that are numbers: `INCR` and its kin.
//!
//! Invariant: a number is kept as its text, and the deadline of its key is left alone.

use crate::protocol::resp::integer::parse_i64;
use crate::store::Expiry;

use super::super::command::{Call, Outcome, Refusal, integer};
use super::super::decimal::{Decimal, NotADecimal};

/// `INCR key`.
pub fn incr(call: &mut Call<'_>) -> Outcome {
    add(call, 1)
}

/// `DECR key`.
pub fn decr(call: &mut Call<'_>) -> Outcome {
    add(call, -1)
}

/// `INCRBY key increment`.
pub fn incrby(call: &mut Call<'_>) -> Outcome {
    let increment = integer(call.args.at(2))?;
    add(call, increment)
}

/// `DECRBY key decrement`.
pub fn decrby(call: &mut Call<'_>) -> Outcome {
    let decrement = integer(call.args.at(2))?;
    let increment = decrement.checked_neg();
    add(call, increment.ok_or(Refusal::Fixed("ERR decrement would overflow"))?)
}

fn add(call: &mut Call<'_>, increment: i64) -> Outcome {
    let key = call.args.at(1);
    let found = call.partition.find(call.db, key, call.now_ms);
    let mut database = call.partition.database(call.db);
    let old = match found {
        None => 0,
        Some(found) => {
            let text = database.value(found).as_string()?.as_slice();
            parse_i64(text).ok_or(Refusal::NOT_AN_INTEGER)?
        }
    };
    let overflow = Refusal::Fixed("ERR increment or decrement would overflow");
    let new = old.checked_add(increment).ok_or(overflow)?;
    let mut text = itoa::Buffer::new();
    let text = text.format(new).as_bytes();
    match found {
        None => database.set_string(key, text, Expiry::Never),
        Some(found) => database.assign_string(found, text),
    }
    call.reply.integer(new);
    Ok(())
}

/// `INCRBYFLOAT key increment`.
pub fn incrbyfloat(call: &mut Call<'_>) -> Outcome {
    const NOT_A_FLOAT: Refusal = Refusal::Fixed("ERR value is not a valid float");
    let not_a_float = |_: NotADecimal| NOT_A_FLOAT;
    let key = call.args.at(1);
    let found = call.partition.find(call.db, key, call.now_ms);
    let mut database = call.partition.database(call.db);
    let old = match found {
        None => Decimal::ZERO,
        Some(found) => {
            let text = database.value(found).as_string()?.as_slice();
            Decimal::parse(text).map_err(not_a_float)?
        }
    };
    let increment = Decimal::parse(call.args.at(2)).map_err(not_a_float)?;
    let sum = old + increment;
    let unusable = Refusal::Fixed("ERR increment would produce NaN or Infinity");
    let text = sum.text().ok_or(unusable)?;
    database.set_string(key, &text, Expiry::Keep);
    call.reply.bulk(&text);
    Ok(())
}
