//! What a command is: a row of the table, the call it gets, the refusals it gives.
//!
//! Invariant: a command either appends exactly one reply or appends nothing and is refused.

use crate::protocol::resp::integer::parse_i64;
use crate::protocol::resp::{Args, Encoder};
use crate::store::{Partition, WrongType};

use super::client::Client;
use super::server::Server;

/// One row of the command table.
#[derive(Debug)]
pub struct Command {
    /// The name, in lower case.
    pub name: &'static str,
    /// How many arguments it takes, the name included; negative: at least that many.
    pub arity: i8,
    /// Which arguments are keys.
    pub keys: Keys,
    /// What it does to the data and what it costs, as [`flag`] bits.
    pub flags: u16,
    /// The group it is documented under.
    pub group: &'static str,
    /// The version of Redis that brought it.
    pub since: &'static str,
    /// What it does, in a sentence.
    pub summary: &'static str,
    /// Where it runs, and the function that does it.
    pub run: Run,
}

/// Positions of the keys among the arguments: from `first` to `last` (from the end if negative),
/// every `step`. No keys where `first` is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keys {
    /// Index of the first key.
    pub first: u8,
    /// Index of the last key; -1 is the last argument.
    pub last: i8,
    /// Distance between keys.
    pub step: u8,
}

impl Keys {
    /// The indexes of the keys of a command with `len` arguments.
    pub fn indexes(self, len: usize) -> impl Iterator<Item = usize> {
        let last = if self.last < 0 {
            len.saturating_sub(usize::from(self.last.unsigned_abs()))
        } else {
            self.last as usize
        };
        let first = usize::from(self.first);
        let none = first == 0;
        (first..=last.min(len.saturating_sub(1)))
            .step_by(usize::from(self.step.max(1)))
            .filter(move |_| !none)
    }
}

/// Bits of [`Command::flags`].
pub mod flag {
    /// Changes data.
    pub const WRITE: u16 = 1;
    /// Reads data.
    pub const READONLY: u16 = 1 << 1;
    /// May make the data larger.
    pub const DENYOOM: u16 = 1 << 2;
    /// For administrators.
    pub const ADMIN: u16 = 1 << 3;
    /// Not to be called from scripts.
    pub const NOSCRIPT: u16 = 1 << 4;
    /// Fine while data is being loaded.
    pub const LOADING: u16 = 1 << 5;
    /// Fine on a replica that has lost its master.
    pub const STALE: u16 = 1 << 6;
    /// Constant or logarithmic time.
    pub const FAST: u16 = 1 << 7;
    /// Fine before authentication.
    pub const NO_AUTH: u16 = 1 << 8;
    /// Fine while a script blocks the server.
    pub const ALLOW_BUSY: u16 = 1 << 9;
    /// May be large and slow: not for latency-bound use.
    pub const SLOW: u16 = 1 << 10;

    /// The flags' names, as `COMMAND INFO` tells them.
    pub const NAMES: [(u16, &str); 10] = [
        (WRITE, "write"),
        (READONLY, "readonly"),
        (DENYOOM, "denyoom"),
        (ADMIN, "admin"),
        (NOSCRIPT, "noscript"),
        (LOADING, "loading"),
        (STALE, "stale"),
        (FAST, "fast"),
        (NO_AUTH, "no_auth"),
        (ALLOW_BUSY, "allow_busy"),
    ];
}

/// Where a command runs.
#[derive(Debug, Clone, Copy)]
pub enum Run {
    /// On the connection itself; touches no partition.
    Session(fn(&mut SessionCall<'_>) -> Outcome),
    /// On the partition of its one key.
    Key(fn(&mut Call<'_>) -> Outcome),
    /// On the partition that its cursor names.
    Cursor(fn(&mut Call<'_>) -> Outcome),
    /// Key by key, each on its partition; `merge` makes one reply of the answers.
    Spread {
        /// Handles the key at an index of the arguments; answers what it counts.
        each: fn(&mut Call<'_>, usize) -> i64,
        /// What the reply is made of.
        merge: Merge,
    },
    /// On every partition; `merge` makes one reply of the answers.
    Every {
        /// Refuses bad arguments before anything is done.
        check: fn(&Args<'_>) -> Outcome,
        /// Handles one partition; answers what it counts.
        each: fn(&mut Call<'_>) -> i64,
        /// What the reply is made of.
        merge: Merge,
    },
    /// On all its keys in one place, and nobody comes to one of them while it is half done.
    Together {
        /// Does it.
        run: fn(&mut Call<'_>) -> Outcome,
        /// The database of the key at an index of the arguments, given the current one.
        database: fn(&Args<'_>, usize, usize) -> usize,
    },
}

/// How the answers of several keys or partitions become one reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merge {
    /// The sum of the counts, as an integer.
    Sum,
    /// `+OK`.
    Ok,
    /// One value per key, in the order of the keys, as an array.
    InOrder,
    /// Every value of every part, in any order, as an array of as many values as were counted.
    Concatenate,
    /// The value of one part, drawn by the parts' counts; null if all counts are zero.
    Draw,
    /// The sections of `INFO`.
    Info,
}

/// A command at work on a partition.
#[derive(Debug)]
pub struct Call<'a> {
    /// The partition.
    pub partition: &'a mut Partition,
    /// The command's name and arguments. By reference: a copy through memory would wait for the
    /// writes before it.
    pub args: &'a Args<'a>,
    /// How many partitions there are.
    pub partitions: usize,
    /// The selected database.
    pub db: usize,
    /// Unix time in milliseconds.
    pub now_ms: u64,
    /// Where the reply goes.
    pub reply: Encoder<'a>,
}

/// A command at work on its connection.
#[derive(Debug)]
pub struct SessionCall<'a> {
    /// The connection's state.
    pub client: &'a mut Client,
    /// What all connections share.
    pub server: &'a Server,
    /// The command's name and arguments. By reference: a copy through memory would wait for the
    /// writes before it.
    pub args: &'a Args<'a>,
    /// Unix time in milliseconds.
    pub now_ms: u64,
    /// Where the reply goes.
    pub reply: Encoder<'a>,
}

/// Whether a command did its work.
pub type Outcome = Result<(), Refusal>;

/// An error reply: a code in capitals, a space and a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// A fixed text.
    Fixed(&'static str),
    /// A text that quotes what the client sent.
    Quoting(Vec<u8>),
}

impl Refusal {
    /// The arguments do not fit together.
    pub const SYNTAX: Self = Self::Fixed("ERR syntax error");
    /// An argument or a value should be an integer.
    pub const NOT_AN_INTEGER: Self = Self::Fixed("ERR value is not an integer or out of range");
    /// There is no such database.
    pub const NO_SUCH_DATABASE: Self = Self::Fixed("ERR DB index is out of range");
    /// Memory is full, and nothing may be evicted.
    pub const OUT_OF_MEMORY: Self =
        Self::Fixed("OOM command not allowed when used memory > 'maxmemory'.");
    /// The command needs the key to be there.
    pub const NO_SUCH_KEY: Self = Self::Fixed("ERR no such key");
    /// The string would be too long.
    pub const STRING_TOO_LONG: Self =
        Self::Fixed("ERR string exceeds maximum allowed size (proto-max-bulk-len)");

    /// A count of arguments that the command called `name` does not take.
    #[cold]
    pub fn arity(name: &str) -> Self {
        Self::Quoting(format!("ERR wrong number of arguments for '{name}' command").into_bytes())
    }

    /// A time to live that cannot be.
    #[cold]
    pub fn expire_time(args: &Args<'_>) -> Self {
        let name = String::from_utf8_lossy(args.at(0)).to_ascii_lowercase();
        Self::Quoting(format!("ERR invalid expire time in '{name}' command").into_bytes())
    }

    /// The log takes no writes for this reason.
    #[cold]
    pub fn log_full(reason: &str) -> Self {
        Self::Quoting(format!("MISCONF {reason}").into_bytes())
    }

    /// The text.
    pub fn text(&self) -> &[u8] {
        match self {
            Self::Fixed(text) => text.as_bytes(),
            Self::Quoting(text) => text,
        }
    }
}

impl From<WrongType> for Refusal {
    fn from(_: WrongType) -> Self {
        Self::Fixed("WRONGTYPE Operation against a key holding the wrong kind of value")
    }
}

/// Reads an argument as an integer.
#[inline]
pub fn integer(argument: &[u8]) -> Result<i64, Refusal> {
    parse_i64(argument).ok_or(Refusal::NOT_AN_INTEGER)
}

/// Reads an argument as an integer of 32 bits.
pub fn small_integer(argument: &[u8]) -> Result<i32, Refusal> {
    let out_of_range = "ERR value is out of range, value must between -2147483648 and 2147483647";
    i32::try_from(integer(argument)?).map_err(|_| Refusal::Fixed(out_of_range))
}

/// Whether an argument is the option `name`, in whatever case.
#[inline]
pub fn is(argument: &[u8], name: &str) -> bool {
    argument.eq_ignore_ascii_case(name.as_bytes())
}
