//! Redis commands and their replies (RESP2).
//!
//! A value is made from its key, so a GET's reply can be checked without remembering anything but
//! the key. Invariant: `expected` holds one entry per request in flight, in order.

use std::collections::VecDeque;
use std::sync::Arc;

use clap::ValueEnum;

use super::{Malformed, Verdict, excerpt};

/// Digits of a key's number, as redis-benchmark has them.
const KEY_DIGITS: usize = 12;
/// One in this many commands of `mixed` is a SET.
const MIXED_SET_SHARE: u64 = 10;

/// Which commands are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Operation {
    /// GET of a key that is there.
    Get,
    /// SET.
    Set,
    /// Nine GETs to one SET.
    Mixed,
    /// The same, but in an open loop only the latency of the GETs counts.
    MixedReads,
    /// PING.
    Ping,
}

/// The keys and the shape of their values.
#[derive(Debug)]
pub(crate) struct Values {
    keys: u64,
    set: Vec<u8>,
    set_value_at: usize,
    get: Vec<u8>,
    /// A GET's reply, with the digits of the key left out.
    reply: Vec<u8>,
    reply_value_at: usize,
    /// Digits at the head of a value: all, unless the value is shorter.
    stamped: usize,
}

/// Where the digits stand in both commands: `*N\r\n$3\r\nSET\r\n$16\r\nkey:`.
const KEY_AT: usize = 4 + 9 + 5 + 4;

impl Values {
    /// `keys` keys with values of `value_bytes` each.
    pub(crate) fn new(keys: u64, value_bytes: usize) -> Self {
        assert!(keys > 0);
        let zeros = "0".repeat(KEY_DIGITS);
        let value: Vec<u8> = (0..value_bytes).map(|index| b'a' + (index % 26) as u8).collect();
        let header = format!("${value_bytes}\r\n");
        let bulk = [header.as_bytes(), &value, b"\r\n"].concat();
        let key = format!("$16\r\nkey:{zeros}\r\n");
        let set = [b"*3\r\n$3\r\nSET\r\n", key.as_bytes(), &bulk].concat();
        let get = [b"*2\r\n$3\r\nGET\r\n", key.as_bytes()].concat();
        Self {
            keys,
            set_value_at: set.len() - value_bytes - 2,
            set,
            get,
            reply_value_at: header.len(),
            reply: bulk,
            stamped: KEY_DIGITS.min(value_bytes),
        }
    }

    /// How many keys there are.
    pub(crate) fn keys(&self) -> u64 {
        self.keys
    }

    /// Appends the SET of key number `key`.
    pub(crate) fn write_set(&self, key: u64, output: &mut Vec<u8>) {
        let start = output.len();
        let digits = digits(key);
        output.extend_from_slice(&self.set);
        output[start + KEY_AT..start + KEY_AT + KEY_DIGITS].copy_from_slice(&digits);
        let value = start + self.set_value_at;
        output[value..value + self.stamped].copy_from_slice(&digits[KEY_DIGITS - self.stamped..]);
    }

    fn write_get(&self, key: u64, output: &mut Vec<u8>) {
        let start = output.len();
        output.extend_from_slice(&self.get);
        output[start + KEY_AT..start + KEY_AT + KEY_DIGITS].copy_from_slice(&digits(key));
    }

    /// Whether `reply` is the value of key number `key`.
    fn matches(&self, key: u64, reply: &[u8]) -> bool {
        let (value, end) = (self.reply_value_at, self.reply_value_at + self.stamped);
        reply.len() == self.reply.len()
            && reply[value..end] == digits(key)[KEY_DIGITS - self.stamped..]
            && reply[..value] == self.reply[..value]
            && reply[end..] == self.reply[end..]
    }
}

/// `number` in decimal, filled with zeros.
fn digits(number: u64) -> [u8; KEY_DIGITS] {
    let mut digits = [b'0'; KEY_DIGITS];
    let mut rest = number;
    for digit in digits.iter_mut().rev() {
        if rest == 0 {
            break;
        }
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    digits
}

/// What the next reply has to be.
#[derive(Debug, Clone, Copy)]
enum Expected {
    Done,
    Pong,
    Value(u64),
}

/// Commands sent and replies awaited on one connection.
#[derive(Debug)]
pub(crate) struct Resp {
    operation: Operation,
    values: Arc<Values>,
    random: u64,
    expected: VecDeque<Expected>,
}

impl Resp {
    pub(super) fn new(operation: Operation, values: Arc<Values>, seed: u64) -> Self {
        let random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        Self { operation, values, random, expected: VecDeque::new() }
    }

    pub(super) fn write_request(&mut self, output: &mut Vec<u8>) {
        let random = self.next_random();
        // The high half, scaled: cheaper than a remainder, and the low bits of xorshift are poor.
        let key = ((random >> 32) * self.values.keys()) >> 32;
        let set = match self.operation {
            Operation::Get => false,
            Operation::Set => true,
            Operation::Mixed | Operation::MixedReads => random.is_multiple_of(MIXED_SET_SHARE),
            Operation::Ping => {
                output.extend_from_slice(b"*1\r\n$4\r\nPING\r\n");
                self.expected.push_back(Expected::Pong);
                return;
            }
        };
        if set {
            self.values.write_set(key, output);
            self.expected.push_back(Expected::Done);
        } else {
            self.values.write_get(key, output);
            self.expected.push_back(Expected::Value(key));
        }
    }

    /// Whether the latency of the request that was written last is of interest.
    pub(super) fn last_counts(&self) -> bool {
        self.operation != Operation::MixedReads
            || matches!(self.expected.back(), Some(Expected::Value(_)))
    }

    fn next_random(&mut self) -> u64 {
        // xorshift64: the keys need to be spread, not unpredictable.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    pub(super) fn read_replies(&mut self, input: &[u8]) -> Result<Verdict, Malformed> {
        let mut verdict = Verdict::default();
        while verdict.consumed < input.len() {
            let rest = &input[verdict.consumed..];
            let Some(expected) = self.expected.front().copied() else {
                return Err(Malformed(format!("a reply that nobody asked for: {}", excerpt(rest))));
            };
            let len = match self.expected_len(expected, rest) {
                Some(len) => {
                    verdict.good += 1;
                    len
                }
                // Not what it had to be, or not all here yet.
                None => match reply_len(rest)? {
                    None => return Ok(verdict),
                    Some(len) => {
                        if rest[0] == b'-' {
                            verdict.refused += 1;
                        } else {
                            verdict.wrong += 1;
                        }
                        verdict.complaint.get_or_insert_with(|| {
                            format!("{expected:?} expected, got {}", excerpt(&rest[..len]))
                        });
                        len
                    }
                },
            };
            verdict.consumed += len;
            self.expected.pop_front();
        }
        Ok(verdict)
    }

    /// The length of the reply at the head of `rest` if it is the expected one.
    fn expected_len(&self, expected: Expected, rest: &[u8]) -> Option<usize> {
        match expected {
            Expected::Done => rest.starts_with(b"+OK\r\n").then_some(5),
            Expected::Pong => rest.starts_with(b"+PONG\r\n").then_some(7),
            Expected::Value(key) => {
                let len = self.values.reply.len();
                (rest.len() >= len && self.values.matches(key, &rest[..len])).then_some(len)
            }
        }
    }
}

/// The length of the reply at the head of `input`, whatever it says; `None` asks for more.
pub(in crate::load) fn reply_len(input: &[u8]) -> Result<Option<usize>, Malformed> {
    /// Bulk strings beyond this are taken for noise.
    const BULK_BYTES_MAX: usize = 512 * 1024 * 1024;
    /// A header line is a type, a number or a short message.
    const LINE_BYTES_MAX: usize = 64 * 1024;
    let malformed = || Malformed(format!("not a RESP reply: {}", excerpt(input)));
    match input.first() {
        None => return Ok(None),
        Some(b'+' | b'-' | b':' | b'$') => {}
        Some(_) => return Err(malformed()),
    }
    let Some(line) = input.iter().position(|byte| *byte == b'\n') else {
        return if input.len() > LINE_BYTES_MAX { Err(malformed()) } else { Ok(None) };
    };
    if line == 0 || input[line - 1] != b'\r' {
        return Err(malformed());
    }
    if input[0] != b'$' || &input[1..line - 1] == b"-1" {
        return Ok(Some(line + 1));
    }
    let len: usize = std::str::from_utf8(&input[1..line - 1])
        .ok()
        .and_then(|digits| digits.parse().ok())
        .filter(|len| *len <= BULK_BYTES_MAX)
        .ok_or_else(malformed)?;
    let end = line + 1 + len + 2;
    Ok((input.len() >= end).then_some(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resp(operation: Operation) -> Resp {
        Resp::new(operation, Arc::new(Values::new(1, 16)), 1)
    }

    fn ask(resp: &mut Resp, count: usize) -> Vec<u8> {
        let mut output = Vec::new();
        for _ in 0..count {
            resp.write_request(&mut output);
        }
        output
    }

    const VALUE: &[u8] = b"$16\r\n000000000000mnop\r\n";

    #[test]
    fn commands_are_written_as_arrays_of_bulk_strings() {
        assert_eq!(
            ask(&mut resp(Operation::Set), 1).escape_ascii().to_string(),
            "*3\\r\\n$3\\r\\nSET\\r\\n$16\\r\\nkey:000000000000\\r\\n\
             $16\\r\\n000000000000mnop\\r\\n"
        );
        assert_eq!(
            ask(&mut resp(Operation::Get), 1).escape_ascii().to_string(),
            "*2\\r\\n$3\\r\\nGET\\r\\n$16\\r\\nkey:000000000000\\r\\n"
        );
    }

    #[test]
    fn a_key_stands_in_the_command_and_in_the_value() {
        let mut output = Vec::new();
        Values::new(100, 4).write_set(42, &mut output);
        assert!(output.ends_with(b"key:000000000042\r\n$4\r\n0042\r\n"));
    }

    #[test]
    fn of_mixed_reads_only_the_gets_count() {
        for (operation, all) in [(Operation::Mixed, true), (Operation::MixedReads, false)] {
            let mut resp = resp(operation);
            let counted: Vec<(bool, bool)> = (0..1000)
                .map(|_| (ask(&mut resp, 1).starts_with(b"*2"), resp.last_counts()))
                .collect();
            assert!(counted.iter().any(|(is_get, _)| !is_get));
            assert!(counted.iter().all(|(is_get, counts)| *counts == (all || *is_get)));
        }
    }

    #[test]
    fn replies_split_anywhere_are_good() {
        let replies = [VALUE, VALUE].concat();
        for split in 0..replies.len() {
            let mut resp = resp(Operation::Get);
            ask(&mut resp, 2);
            let first = resp.read_replies(&replies[..split]).unwrap();
            let second = resp.read_replies(&replies[first.consumed..]).unwrap();
            assert_eq!(first.good + second.good, 2, "split at {split}");
            assert_eq!(first.replies() + second.replies(), 2, "split at {split}");
        }
    }

    #[test]
    fn wrong_and_refused_replies_are_told_apart() {
        let mut resp = resp(Operation::Get);
        ask(&mut resp, 4);
        let verdict = resp
            .read_replies(b"$-1\r\n-ERR no\r\n$16\r\n000000000001mnop\r\n$2\r\nhi\r\n")
            .unwrap();
        assert_eq!((verdict.good, verdict.wrong, verdict.refused), (0, 3, 1));
        assert!(verdict.complaint.is_some());
    }

    #[test]
    fn what_is_not_resp_or_not_asked_for_is_malformed() {
        let mut resp = resp(Operation::Set);
        assert!(resp.read_replies(b"+OK\r\n").is_err());
        ask(&mut resp, 1);
        assert!(resp.read_replies(b"HTTP/1.1 200 OK\r\n").is_err());
        assert!(resp.read_replies(b"$x\r\n").is_err());
        assert!(resp.read_replies(b"+OK\n").is_err());
    }
}
