//! What a client's keys hold after a number of its operations.
//!
//! Invariant: two models that are equal have equal marks, so that many prefixes can be compared
//! with what a server holds at little cost.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::operation::{Deadline, Key, Operation, TOGETHER};
use super::random::{origin, payload};
use super::resp::Reply;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Value {
    pub(crate) bytes: Vec<u8>,
    pub(crate) deadline: Deadline,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) values: BTreeMap<Key, Value>,
    /// The marks of all values, in one word.
    mark: u64,
}

/// What a server may answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    Exactly(Reply),
    /// It depends on whether a key has expired meanwhile.
    AnyInteger,
    NoSuchKey,
}

impl Model {
    pub(crate) fn of(values: BTreeMap<Key, Value>) -> Self {
        let mark = values.iter().fold(0, |mark, (key, value)| mark ^ mark_of(*key, value));
        Self { values, mark }
    }

    /// A word that stands for the state once all near deadlines have passed.
    pub(crate) fn mark(&self) -> u64 {
        self.mark
    }

    /// Without what has expired once all near deadlines have passed.
    pub(crate) fn settled(&self) -> Self {
        let stays = |value: &Value| !matches!(value.deadline, Deadline::Near(_));
        let values = self.values.iter().filter(|(_, value)| stays(value));
        Self::of(values.map(|(key, value)| (*key, value.clone())).collect())
    }

    /// Whether a key holds the same in another state, once all near deadlines have passed.
    pub(crate) fn agrees(&self, key: Key, found: &Self) -> bool {
        let stays = |value: &&Value| !matches!(value.deadline, Deadline::Near(_));
        self.values.get(&key).filter(stays) == found.values.get(&key).filter(stays)
    }

    fn put(&mut self, key: Key, value: Value) {
        self.mark ^= mark_of(key, &value);
        if let Some(before) = self.values.insert(key, value) {
            self.mark ^= mark_of(key, &before);
        }
    }

    fn take(&mut self, key: Key) -> Option<Value> {
        let value = self.values.remove(&key)?;
        self.mark ^= mark_of(key, &value);
        Some(value)
    }

    /// The value of a key that is written to, or an empty one.
    fn take_or_empty(&mut self, key: Key) -> Value {
        let empty = || Value { bytes: Vec::new(), deadline: Deadline::Never };
        self.take(key).unwrap_or_else(empty)
    }

    /// Does an operation, and tells what a server must answer to it.
    pub(crate) fn apply(
        &mut self,
        client: usize,
        sequence: u64,
        operation: &Operation,
    ) -> Expected {
        let bytes = |length: usize| payload(client, sequence, length);
        let integer = |value: usize| Expected::Exactly(Reply::Integer(value as i64));
        match *operation {
            Operation::Set { key, length, deadline } => {
                self.put(key, Value { bytes: bytes(length), deadline });
                Expected::Exactly(Reply::ok())
            }
            Operation::SetTogether { length } => {
                for key in TOGETHER {
                    self.put(key, Value { bytes: bytes(length), deadline: Deadline::Never });
                }
                Expected::Exactly(Reply::ok())
            }
            Operation::Expire { key, deadline } => {
                let Some(value) = self.take(key) else { return integer(0) };
                let had = value.deadline != Deadline::Never;
                self.put(key, Value { deadline, ..value });
                integer(usize::from(deadline != Deadline::Never || had))
            }
            Operation::Add { key, amount } => {
                let value = self.take_or_empty(key);
                let text = String::from_utf8(value.bytes).expect("digits");
                let sum =
                    if text.is_empty() { 0 } else { text.parse().expect("a number") } + amount;
                self.put(key, Value { bytes: sum.to_string().into_bytes(), ..value });
                Expected::Exactly(Reply::Integer(sum))
            }
            Operation::Append { key, length } => {
                let mut value = self.take_or_empty(key);
                value.bytes.extend(bytes(length));
                let total = value.bytes.len();
                self.put(key, value);
                integer(total)
            }
            Operation::Write { key, offset, length } => {
                let mut value = self.take_or_empty(key);
                let total = value.bytes.len().max(offset + length);
                value.bytes.resize(total, 0);
                value.bytes[offset..offset + length].copy_from_slice(&bytes(length));
                self.put(key, value);
                integer(total)
            }
            Operation::Delete { ref keys } => {
                let taken: Vec<Value> = keys.iter().filter_map(|key| self.take(*key)).collect();
                let may_be_gone = |value: &Value| matches!(value.deadline, Deadline::Near(_));
                if taken.iter().any(may_be_gone) {
                    return Expected::AnyInteger;
                }
                integer(taken.len())
            }
            Operation::Rename { from, to } => {
                let Some(value) = self.take(from) else { return Expected::NoSuchKey };
                self.put(to, value);
                Expected::Exactly(Reply::ok())
            }
        }
    }

    /// In words, where another state differs from this one.
    pub(crate) fn differences(&self, found: &Self) -> Vec<String> {
        let (expected, found) = (self.settled().values, &found.values);
        let keys = expected.keys().chain(found.keys().filter(|key| !expected.contains_key(*key)));
        let differs = |key: &&Key| expected.get(*key) != found.get(*key);
        keys.filter(differs)
            .map(|key| {
                let (expected, found) = (expected.get(key), found.get(key));
                let at = first_difference(expected, found);
                let (expected, found) = (told(expected), told(found));
                format!("key {key}: expected {expected}, found {found}, first differing at {at}")
            })
            .collect()
    }
}

fn mark_of(key: Key, value: &Value) -> u64 {
    if matches!(value.deadline, Deadline::Near(_)) {
        return 0;
    }
    let mut hasher = DefaultHasher::new();
    (key, value).hash(&mut hasher);
    hasher.finish()
}

fn first_difference(one: Option<&Value>, other: Option<&Value>) -> usize {
    let bytes = |value: Option<&Value>| value.map_or(Vec::new(), |value| value.bytes.clone());
    let (one, other) = (bytes(one), bytes(other));
    let at = one.iter().zip(&other).position(|(one, other)| one != other);
    at.unwrap_or(one.len().min(other.len()))
}

fn told(value: Option<&Value>) -> String {
    let Some(Value { bytes, deadline }) = value else { return "nothing".to_owned() };
    let content = match origin(bytes) {
        Some((client, sequence, length)) => format!("operation {sequence} of {client} ({length})"),
        None => String::from_utf8_lossy(&bytes[..bytes.len().min(24)]).into_owned(),
    };
    format!("{} bytes, {content}, {deadline:?}", bytes.len())
}

impl Expected {
    pub(crate) fn fits(&self, reply: &Reply) -> bool {
        match (self, reply) {
            (Self::Exactly(expected), reply) => expected == reply,
            (Self::AnyInteger, Reply::Integer(_)) => true,
            (Self::NoSuchKey, Reply::Error(text)) => text == "ERR no such key",
            _ => false,
        }
    }
}
