//! What a client of the checker writes: operations, their commands, and how they are drawn.
//!
//! Invariant: what an operation does depends only on the operations before it, never on the time:
//! a key that may expire soon is only overwritten or deleted.

use std::time::{SystemTime, UNIX_EPOCH};

use super::random::{Random, payload};

/// A key of a client, by its number: see [`key_name`].
pub(crate) type Key = u8;

/// Strings that are set, renamed, deleted, and given far deadlines.
pub(crate) const VALUES: std::ops::Range<Key> = 0..12;
/// Counters.
pub(crate) const COUNTERS: std::ops::Range<Key> = 12..16;
/// Strings that are appended to and written into.
pub(crate) const LOGS: std::ops::Range<Key> = 16..20;
/// Keys that are always written together.
pub(crate) const TOGETHER: std::ops::Range<Key> = 20..26;
/// Keys that expire soon, at times.
pub(crate) const SHORT_LIVED: std::ops::Range<Key> = 26..30;
/// All of them.
pub(crate) const KEYS: std::ops::Range<Key> = 0..30;

pub(crate) const VALUE_BYTES_MAX: usize = 100 << 10;
const LOG_BYTES_MAX: usize = 64 << 10;

/// Seconds for `EXPIRE`: so many that they are told apart from deadlines given as times.
pub(crate) const EXPIRE_SECONDS: u64 = 10_000_000;
const FAR_MS: u64 = 86_400_000;
/// A near deadline is less than this away: it has passed when the state is looked at.
const NEAR_MS: u64 = 300;

/// When a key goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Deadline {
    Never,
    /// At this unix time in ms, gone when the state is looked at.
    Near(u64),
    /// At this unix time in ms, long after the test.
    At(u64),
    /// [`EXPIRE_SECONDS`] after the server ran the command.
    Later,
}

#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Set { key: Key, length: usize, deadline: Deadline },
    Expire { key: Key, deadline: Deadline },
    Add { key: Key, amount: i64 },
    Append { key: Key, length: usize },
    Write { key: Key, offset: usize, length: usize },
    SetTogether { length: usize },
    Delete { keys: Vec<Key> },
    Rename { from: Key, to: Key },
}

pub(crate) fn key_name(client: usize, key: Key) -> String {
    let kind = match key {
        _ if COUNTERS.contains(&key) => "counter",
        _ if LOGS.contains(&key) => "log",
        _ if TOGETHER.contains(&key) => "together",
        _ if SHORT_LIVED.contains(&key) => "brief",
        _ => "value",
    };
    format!("client{client}:{kind}:{key}")
}

pub(crate) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64
}

impl Operation {
    /// The keys that it is about.
    pub(crate) fn keys(&self) -> Vec<Key> {
        match *self {
            Self::Set { key, .. }
            | Self::Expire { key, .. }
            | Self::Add { key, .. }
            | Self::Append { key, .. }
            | Self::Write { key, .. } => vec![key],
            Self::SetTogether { .. } => TOGETHER.collect(),
            Self::Delete { ref keys } => keys.clone(),
            Self::Rename { from, to } => vec![from, to],
        }
    }

    /// The command, as words.
    pub(crate) fn command(&self, client: usize, sequence: u64) -> Vec<Vec<u8>> {
        let text = |word: &str| word.as_bytes().to_vec();
        let number = |number: u64| number.to_string().into_bytes();
        let name = |key: Key| key_name(client, key).into_bytes();
        let bytes = |length: usize| payload(client, sequence, length);
        match *self {
            Self::Set { key, length, deadline } => {
                let mut words = vec![text("SET"), name(key), bytes(length)];
                if let Deadline::Near(at) | Deadline::At(at) = deadline {
                    words.extend([text("PXAT"), number(at)]);
                }
                words
            }
            Self::Expire { key, deadline } => match deadline {
                Deadline::Never => vec![text("PERSIST"), name(key)],
                Deadline::Near(at) | Deadline::At(at) => {
                    vec![text("PEXPIREAT"), name(key), number(at)]
                }
                Deadline::Later => vec![text("EXPIRE"), name(key), number(EXPIRE_SECONDS)],
            },
            Self::Add { key, amount: 1 } => vec![text("INCR"), name(key)],
            Self::Add { key, amount } => {
                vec![text("INCRBY"), name(key), amount.to_string().into_bytes()]
            }
            Self::Append { key, length } => vec![text("APPEND"), name(key), bytes(length)],
            Self::Write { key, offset, length } => {
                vec![text("SETRANGE"), name(key), number(offset as u64), bytes(length)]
            }
            Self::SetTogether { length } => {
                let pairs = TOGETHER.flat_map(|key| [name(key), bytes(length)]);
                [text("MSET")].into_iter().chain(pairs).collect()
            }
            Self::Delete { ref keys } => {
                [text("DEL")].into_iter().chain(keys.iter().map(|key| name(*key))).collect()
            }
            Self::Rename { from, to } => vec![text("RENAME"), name(from), name(to)],
        }
    }
}

/// Draws operations and knows what it must about what it has drawn before.
pub(crate) struct Draw {
    pub(crate) random: Random,
    pub(crate) value_bytes_max: usize,
    /// No key expires soon. For tests in which an operation may be refused: what a later one does
    /// would depend on the time.
    pub(crate) without_near_deadlines: bool,
    may_expire: [bool; SHORT_LIVED.end as usize],
    lengths: [usize; LOGS.end as usize],
    /// The latest of the near deadlines.
    pub(crate) nearest_ms: u64,
}

impl Draw {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            value_bytes_max: VALUE_BYTES_MAX,
            without_near_deadlines: false,
            may_expire: [false; _],
            lengths: [LOG_BYTES_MAX; _],
            nearest_ms: 0,
        }
    }

    fn one_of(&mut self, keys: std::ops::Range<Key>) -> Key {
        keys.start + self.random.below(keys.len() as u64) as Key
    }

    fn length(&mut self) -> usize {
        self.random.length(self.value_bytes_max)
    }

    pub(crate) fn next(&mut self) -> Operation {
        match self.random.below(100) {
            0..28 => self.set(VALUES),
            28..44 => {
                let amount = [1, 1, 1, 7, -3][self.random.below(5) as usize];
                Operation::Add { key: self.one_of(COUNTERS), amount }
            }
            44..58 => self.extend(),
            58..68 => Operation::SetTogether { length: self.length() },
            68..76 => self.delete(),
            76..83 => {
                let from = self.one_of(VALUES);
                let to = self.one_of(VALUES);
                // A rename onto itself says nothing that a rename to another name does not.
                Operation::Rename { from, to: if to == from { (to + 1) % VALUES.end } else { to } }
            }
            83..90 => Operation::Expire { key: self.one_of(VALUES), deadline: self.far() },
            _ => self.brief(),
        }
    }

    fn set(&mut self, keys: std::ops::Range<Key>) -> Operation {
        let is_dated = self.random.below(10) == 0;
        let deadline = if is_dated { self.at() } else { Deadline::Never };
        Operation::Set { key: self.one_of(keys), length: self.length(), deadline }
    }

    fn at(&mut self) -> Deadline {
        Deadline::At(unix_ms() + FAR_MS + self.random.below(FAR_MS))
    }

    fn far(&mut self) -> Deadline {
        match self.random.below(3) {
            0 => Deadline::Never,
            1 => Deadline::Later,
            _ => self.at(),
        }
    }

    /// Appends or writes into a log; one that has become long is begun anew.
    fn extend(&mut self) -> Operation {
        let key = self.one_of(LOGS);
        let known = self.lengths[key as usize];
        let length = self.length().min(LOG_BYTES_MAX / 8);
        if known + length > LOG_BYTES_MAX {
            self.lengths[key as usize] = length;
            return Operation::Set { key, length, deadline: Deadline::Never };
        }
        if self.random.below(3) == 0 {
            let offset = self.random.below(known as u64 + 10) as usize;
            self.lengths[key as usize] = known.max(offset + length);
            return Operation::Write { key, offset, length };
        }
        self.lengths[key as usize] = known + length;
        Operation::Append { key, length }
    }

    fn delete(&mut self) -> Operation {
        match self.random.below(8) {
            0 => Operation::Delete { keys: vec![self.one_of(COUNTERS)] },
            1 => Operation::Delete { keys: TOGETHER.collect() },
            2 => Operation::Delete { keys: LOGS.collect() },
            _ => {
                let count = 1 + self.random.below(3);
                let mut keys: Vec<Key> = (0..count).map(|_| self.one_of(VALUES)).collect();
                keys.sort_unstable();
                keys.dedup();
                Operation::Delete { keys }
            }
        }
    }

    fn near(&mut self) -> Deadline {
        if self.without_near_deadlines {
            return self.at();
        }
        let at = unix_ms() + self.random.below(NEAR_MS);
        self.nearest_ms = self.nearest_ms.max(at);
        Deadline::Near(at)
    }

    fn brief(&mut self) -> Operation {
        let key = self.one_of(SHORT_LIVED);
        let may_expire = self.may_expire[key as usize];
        let deadline = match self.random.below(3) {
            0 => Deadline::Never,
            1 => self.at(),
            _ => self.near(),
        };
        self.may_expire[key as usize] = matches!(deadline, Deadline::Near(_));
        match self.random.below(4) {
            0 if !may_expire => Operation::Expire { key, deadline },
            1 => {
                self.may_expire[key as usize] = false;
                Operation::Delete { keys: vec![key] }
            }
            _ => Operation::Set { key, length: self.length().min(1000), deadline },
        }
    }
}
