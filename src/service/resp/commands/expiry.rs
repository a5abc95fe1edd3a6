//! Deadlines of keys: `EXPIRE` and its kin, `TTL` and its kin, and the options that others share.
//!
//! Invariant: a deadline is an absolute unix time in milliseconds, however it was given.

use crate::protocol::resp::Args;

use super::super::command::{Call, Outcome, Refusal, integer, is};

/// How a command spells a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spelling {
    /// Milliseconds in a unit: 1 or 1000.
    pub unit_ms: i64,
    /// Whether it counts from now.
    pub relative: bool,
}

/// Seconds from now.
pub const EX: Spelling = Spelling { unit_ms: 1000, relative: true };
/// Milliseconds from now.
pub const PX: Spelling = Spelling { unit_ms: 1, relative: true };
/// A unix time in seconds.
pub const EXAT: Spelling = Spelling { unit_ms: 1000, relative: false };
/// A unix time in milliseconds.
pub const PXAT: Spelling = Spelling { unit_ms: 1, relative: false };

impl Spelling {
    /// The spelling behind the option `EX`, `PX`, `EXAT` or `PXAT`.
    pub fn of_option(argument: &[u8]) -> Option<Self> {
        const OPTIONS: [(&str, Spelling); 4] =
            [("EX", EX), ("PX", PX), ("EXAT", EXAT), ("PXAT", PXAT)];
        OPTIONS.iter().find(|(name, _)| is(argument, name)).map(|&(_, spelling)| spelling)
    }

    /// The deadline that `time` means, if it can be expressed.
    fn resolve(self, time: i64, now_ms: u64) -> Option<i64> {
        let base = if self.relative { i64::try_from(now_ms).ok()? } else { 0 };
        time.checked_mul(self.unit_ms)?.checked_add(base)
    }

    /// The deadline that a positive `time` means.
    pub fn positive(self, args: &Args<'_>, time: &[u8], now_ms: u64) -> Result<u64, Refusal> {
        let time = integer(time)?;
        let at_ms = self.resolve(time, now_ms).filter(|_| time > 0);
        at_ms.map(|at_ms| at_ms as u64).ok_or_else(|| Refusal::expire_time(args))
    }
}

/// `EXPIRE key seconds [NX | XX | GT | LT]`.
pub fn expire(call: &mut Call<'_>) -> Outcome {
    expire_generic(call, EX)
}

/// `PEXPIRE key milliseconds [NX | XX | GT | LT]`.
pub fn pexpire(call: &mut Call<'_>) -> Outcome {
    expire_generic(call, PX)
}

/// `EXPIREAT key unix-time-seconds [NX | XX | GT | LT]`.
pub fn expireat(call: &mut Call<'_>) -> Outcome {
    expire_generic(call, EXAT)
}

/// `PEXPIREAT key unix-time-milliseconds [NX | XX | GT | LT]`.
pub fn pexpireat(call: &mut Call<'_>) -> Outcome {
    expire_generic(call, PXAT)
}

/// When a deadline may be changed.
#[derive(Default)]
struct Condition {
    only_without: bool,
    only_with: bool,
    only_later: bool,
    only_earlier: bool,
}

impl Condition {
    fn parse(args: &Args<'_>) -> Result<Self, Refusal> {
        let mut condition = Self::default();
        for option in args.iter().skip(3) {
            if is(option, "NX") {
                condition.only_without = true;
            } else if is(option, "XX") {
                condition.only_with = true;
            } else if is(option, "GT") {
                condition.only_later = true;
            } else if is(option, "LT") {
                condition.only_earlier = true;
            } else {
                return Err(Refusal::Quoting([b"ERR Unsupported option ", option].concat()));
            }
        }
        if condition.only_without
            && (condition.only_with || condition.only_later || condition.only_earlier)
        {
            return Err(Refusal::Fixed(
                "ERR NX and XX, GT or LT options at the same time are not compatible",
            ));
        }
        if condition.only_later && condition.only_earlier {
            return Err(Refusal::Fixed(
                "ERR GT and LT options at the same time are not compatible",
            ));
        }
        Ok(condition)
    }

    /// Whether a key that expires at `current`, or never, may now expire at `wanted`.
    fn allows(&self, current: Option<u64>, wanted: i64) -> bool {
        let current = current.map(|at_ms| at_ms as i64);
        !(self.only_without && current.is_some()
            || self.only_with && current.is_none()
            || self.only_later && current.is_none_or(|current| wanted <= current)
            || self.only_earlier && current.is_some_and(|current| wanted >= current))
    }
}

fn expire_generic(call: &mut Call<'_>, spelling: Spelling) -> Outcome {
    let condition = Condition::parse(call.args)?;
    let time = integer(call.args.at(2))?;
    let at_ms = spelling.resolve(time, call.now_ms);
    let at_ms = at_ms.ok_or_else(|| Refusal::expire_time(call.args))?;

    let Some(found) = call.partition.find(call.db, call.args.at(1), call.now_ms) else {
        call.reply.integer(0);
        return Ok(());
    };
    let mut database = call.partition.database(call.db);
    if !condition.allows(database.deadline(found), at_ms) {
        call.reply.integer(0);
        return Ok(());
    }
    match u64::try_from(at_ms) {
        Ok(at_ms) if at_ms > call.now_ms => database.set_deadline(found, Some(at_ms)),
        _ => drop(database.remove(found)),
    }
    call.reply.integer(1);
    Ok(())
}

/// `PERSIST key`.
pub fn persist(call: &mut Call<'_>) -> Outcome {
    let found = call.partition.find(call.db, call.args.at(1), call.now_ms);
    let mut database = call.partition.database(call.db);
    let found = found.filter(|&found| database.deadline(found).is_some());
    if let Some(found) = found {
        database.set_deadline(found, None);
    }
    call.reply.integer(i64::from(found.is_some()));
    Ok(())
}

/// `TTL key`.
pub fn ttl(call: &mut Call<'_>) -> Outcome {
    tell_deadline(call, |at_ms, now_ms| (at_ms.saturating_sub(now_ms) + 500) / 1000)
}

/// `PTTL key`.
pub fn pttl(call: &mut Call<'_>) -> Outcome {
    tell_deadline(call, u64::saturating_sub)
}

/// `EXPIRETIME key`.
pub fn expiretime(call: &mut Call<'_>) -> Outcome {
    tell_deadline(call, |at_ms, _| at_ms.saturating_add(500) / 1000)
}

/// `PEXPIRETIME key`.
pub fn pexpiretime(call: &mut Call<'_>) -> Outcome {
    tell_deadline(call, |at_ms, _| at_ms)
}

fn tell_deadline(call: &mut Call<'_>, tell: fn(u64, u64) -> u64) -> Outcome {
    const NO_KEY: i64 = -2;
    const NO_DEADLINE: i64 = -1;
    let found = call.partition.peek(call.db, call.args.at(1), call.now_ms);
    let answer = match found {
        None => NO_KEY,
        Some(found) => match call.partition.keyspace(call.db).deadline(found) {
            None => NO_DEADLINE,
            Some(at_ms) => tell(at_ms, call.now_ms) as i64,
        },
    };
    call.reply.integer(answer);
    Ok(())
}
