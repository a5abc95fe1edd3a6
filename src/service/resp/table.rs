//! The command table: one row per command, and the way from a name to its row.
//!
//! Invariant: names are in lower case and unique, and a command's arity covers its first key, so
//! that a command that passes the arity check has the key that it is routed by.

use super::command::Run::{Cursor, Every, Key, Session, Spread, Together};
use super::command::flag::*;
use super::command::{Command, Keys, Merge, Run};
use super::commands::strings;
use super::commands::{
    connection, expiry, introspection, keys, numbers, persistence, scan, server,
};

const NONE: Keys = Keys { first: 0, last: 0, step: 0 };
const ONE: Keys = Keys { first: 1, last: 1, step: 1 };
const SECOND: Keys = Keys { first: 2, last: 2, step: 1 };
const TWO: Keys = Keys { first: 1, last: 2, step: 1 };
const ALL: Keys = Keys { first: 1, last: -1, step: 1 };
const PAIRS: Keys = Keys { first: 1, last: -1, step: 2 };

/// Flags of commands on the connection.
const CONN: u16 = NOSCRIPT | LOADING | STALE;
/// Flags of commands that are fine whatever state the server is in.
const FREE: u16 = CONN | FAST | NO_AUTH | ALLOW_BUSY;
const WF: u16 = WRITE | FAST;
const RF: u16 = READONLY | FAST;
const WM: u16 = WRITE | DENYOOM;
const WMF: u16 = WRITE | DENYOOM | FAST;

const DELETE: Run = Spread { each: keys::del_one, merge: Merge::Sum };
const EXISTS: Run = Spread { each: keys::exists_one, merge: Merge::Sum };
const TOUCH: Run = Spread { each: keys::touch_one, merge: Merge::Sum };
const MGET: Run = Spread { each: strings::mget_one, merge: Merge::InOrder };
const MSET: Run = Spread { each: strings::mset_one, merge: Merge::Ok };
const MSETNX: Run = Together { run: strings::msetnx, database: keys::same_database };
const RENAME: Run = Together { run: keys::rename, database: keys::same_database };
const RENAMENX: Run = Together { run: keys::renamenx, database: keys::same_database };
const COPY: Run = Together { run: keys::copy, database: keys::copy_database };
const KEYS: Run =
    Every { check: scan::check_nothing, each: scan::keys_part, merge: Merge::Concatenate };
const DBSIZE: Run =
    Every { check: scan::check_nothing, each: scan::dbsize_part, merge: Merge::Sum };
const RANDOMKEY: Run =
    Every { check: scan::check_nothing, each: scan::randomkey_part, merge: Merge::Draw };
const FLUSHDB: Run = Every { check: scan::check_flush, each: scan::flushdb_part, merge: Merge::Ok };
const FLUSHALL: Run =
    Every { check: scan::check_flush, each: scan::flushall_part, merge: Merge::Ok };
const INFO: Run = Every { check: scan::check_nothing, each: server::info_part, merge: Merge::Info };

#[rustfmt::skip]
#[expect(clippy::too_many_arguments, reason = "a row of the table is one call")]
const fn row(
    name: &'static str, arity: i8, keys: Keys, flags: u16, group: &'static str,
    since: &'static str, run: Run, summary: &'static str,
) -> Command {
    Command { name, arity, keys, flags, group, since, summary, run }
}

/// Every command. The most used come first, because the way to a row may take a step or two.
#[rustfmt::skip]
pub static COMMANDS: [Command; 65] = [
    row("get", 2, ONE, RF, "string", "1.0.0", Key(strings::get),
        "Returns the string value of a key."),
    row("set", -3, ONE, WM, "string", "1.0.0", Key(strings::set),
        "Sets the string value of a key, whatever it held before."),
    row("incr", 2, ONE, WMF, "string", "1.0.0", Key(numbers::incr),
        "Adds one to the integer value of a key."),
    row("mget", -2, ALL, RF, "string", "1.0.0", MGET,
        "Returns the string values of several keys."),
    row("mset", -3, PAIRS, WM, "string", "1.0.1", MSET,
        "Sets the string values of several keys."),
    row("setex", 4, ONE, WM, "string", "2.0.0", Key(strings::setex),
        "Sets the string value and the time to live, in seconds, of a key."),
    row("psetex", 4, ONE, WM, "string", "2.6.0", Key(strings::psetex),
        "Sets the string value and the time to live, in milliseconds, of a key."),
    row("setnx", 3, ONE, WMF, "string", "1.0.0", Key(strings::setnx),
        "Sets the string value of a key if there is no such key."),
    row("getset", 3, ONE, WMF, "string", "1.0.0", Key(strings::getset),
        "Sets the string value of a key and returns the one before."),
    row("getdel", 2, ONE, WF, "string", "6.2.0", Key(strings::getdel),
        "Returns the string value of a key and deletes the key."),
    row("getex", -2, ONE, WF, "string", "6.2.0", Key(strings::getex),
        "Returns the string value of a key and sets its expiration."),
    row("msetnx", -3, PAIRS, WM, "string", "1.0.1", MSETNX,
        "Sets the string values of several keys if none of them is there."),
    row("append", 3, ONE, WMF, "string", "2.0.0", Key(strings::append),
        "Appends to the string value of a key."),
    row("strlen", 2, ONE, RF, "string", "2.2.0", Key(strings::strlen),
        "Returns the length of the string value of a key."),
    row("decr", 2, ONE, WMF, "string", "1.0.0", Key(numbers::decr),
        "Subtracts one from the integer value of a key."),
    row("incrby", 3, ONE, WMF, "string", "1.0.0", Key(numbers::incrby),
        "Adds a number to the integer value of a key."),
    row("decrby", 3, ONE, WMF, "string", "1.0.0", Key(numbers::decrby),
        "Subtracts a number from the integer value of a key."),
    row("incrbyfloat", 3, ONE, WMF, "string", "2.6.0", Key(numbers::incrbyfloat),
        "Adds a number to the floating point value of a key."),
    row("setrange", 4, ONE, WM, "string", "2.2.0", Key(strings::setrange),
        "Overwrites a part of the string value of a key."),
    row("getrange", 4, ONE, READONLY, "string", "2.4.0", Key(strings::getrange),
        "Returns a part of the string value of a key."),
    row("substr", 4, ONE, READONLY, "string", "1.0.0", Key(strings::getrange),
        "Returns a part of the string value of a key."),
    row("del", -2, ALL, WRITE, "generic", "1.0.0", DELETE,
        "Deletes keys."),
    row("unlink", -2, ALL, WF, "generic", "4.0.0", DELETE,
        "Deletes keys."),
    row("exists", -2, ALL, RF, "generic", "1.0.0", EXISTS,
        "Tells how many of the keys are there."),
    row("touch", -2, ALL, RF, "generic", "3.2.1", TOUCH,
        "Tells how many of the keys are there, and counts as an access."),
    row("type", 2, ONE, RF, "generic", "1.0.0", Key(keys::type_of),
        "Tells the type of the value of a key."),
    row("expire", -3, ONE, WF, "generic", "1.0.0", Key(expiry::expire),
        "Sets the expiration of a key, in seconds from now."),
    row("pexpire", -3, ONE, WF, "generic", "2.6.0", Key(expiry::pexpire),
        "Sets the expiration of a key, in milliseconds from now."),
    row("expireat", -3, ONE, WF, "generic", "1.2.0", Key(expiry::expireat),
        "Sets the expiration of a key, as a unix time in seconds."),
    row("pexpireat", -3, ONE, WF, "generic", "2.6.0", Key(expiry::pexpireat),
        "Sets the expiration of a key, as a unix time in milliseconds."),
    row("expiretime", 2, ONE, RF, "generic", "7.0.0", Key(expiry::expiretime),
        "Tells the expiration of a key, as a unix time in seconds."),
    row("pexpiretime", 2, ONE, RF, "generic", "7.0.0", Key(expiry::pexpiretime),
        "Tells the expiration of a key, as a unix time in milliseconds."),
    row("ttl", 2, ONE, RF, "generic", "1.0.0", Key(expiry::ttl),
        "Tells the time to live of a key, in seconds."),
    row("pttl", 2, ONE, RF, "generic", "2.6.0", Key(expiry::pttl),
        "Tells the time to live of a key, in milliseconds."),
    row("persist", 2, ONE, WF, "generic", "2.2.0", Key(expiry::persist),
        "Removes the expiration of a key."),
    row("keys", 2, NONE, READONLY | SLOW, "generic", "1.0.0", KEYS,
        "Returns the keys that match a pattern."),
    row("scan", -2, NONE, READONLY, "generic", "2.8.0", Cursor(scan::scan),
        "Walks over the keys, some at a time."),
    row("randomkey", 1, NONE, READONLY, "generic", "1.0.0", RANDOMKEY,
        "Returns a random key."),
    row("rename", 3, TWO, WRITE, "generic", "1.0.0", RENAME,
        "Renames a key, over another one if need be."),
    row("renamenx", 3, TWO, WF, "generic", "1.0.0", RENAMENX,
        "Renames a key if the new name is free."),
    row("copy", -3, TWO, WM, "generic", "6.2.0", COPY,
        "Copies the value of a key to another key."),
    row("object", -2, SECOND, READONLY, "generic", "2.2.3", Key(keys::object),
        "Tells how the value of a key is represented."),
    row("memory", -2, SECOND, READONLY, "server", "4.0.0", Key(keys::memory),
        "Tells how much memory a key takes."),
    row("wait", 3, NONE, 0, "generic", "3.0.0", Session(server::wait),
        "Waits for replicas, of which there are none."),
    row("waitaof", 4, NONE, NOSCRIPT, "generic", "7.2.0", Session(persistence::waitaof),
        "Waits until what the connection has written is on stable storage."),
    row("ping", -1, NONE, FAST, "connection", "1.0.0", Session(connection::ping),
        "Answers PONG, or what it was given."),
    row("echo", 2, NONE, LOADING | STALE | FAST, "connection", "1.0.0", Session(connection::echo),
        "Answers what it was given."),
    row("quit", -1, NONE, FREE, "connection", "1.0.0", Session(connection::quit),
        "Closes the connection."),
    row("reset", 1, NONE, FREE, "connection", "6.2.0", Session(connection::reset),
        "Resets the connection to how it began."),
    row("select", 2, NONE, LOADING | STALE | FAST, "connection", "1.0.0",
        Session(connection::select),
        "Selects a database."),
    row("auth", -2, NONE, FREE, "connection", "1.0.0", Session(connection::auth),
        "Authenticates the connection."),
    row("hello", -1, NONE, FREE, "connection", "6.0.0", Session(connection::hello),
        "Selects the version of the protocol and tells about the server."),
    row("client", -2, NONE, CONN, "connection", "2.4.0", Session(connection::client),
        "Tells about connections, names them and ends them."),
    row("command", -1, NONE, LOADING | STALE, "server", "2.8.13", Session(introspection::command),
        "Tells about the commands."),
    row("config", -2, NONE, ADMIN | CONN, "server", "2.0.0", Session(server::config),
        "Tells and changes settings."),
    row("info", -1, NONE, LOADING | STALE, "server", "1.0.0", INFO,
        "Tells about the server, in text."),
    row("dbsize", 1, NONE, RF, "server", "1.0.0", DBSIZE,
        "Tells how many keys the selected database has."),
    row("flushdb", -1, NONE, WRITE | SLOW, "server", "1.0.0", FLUSHDB,
        "Removes all keys of the selected database."),
    row("flushall", -1, NONE, WRITE | SLOW, "server", "1.0.0", FLUSHALL,
        "Removes all keys of all databases."),
    row("save", 1, NONE, ADMIN | NOSCRIPT, "server", "1.0.0", Session(persistence::save),
        "Takes a snapshot and answers when it is complete."),
    row("bgsave", -1, NONE, ADMIN | NOSCRIPT, "server", "1.0.0", Session(persistence::bgsave),
        "Takes a snapshot while serving."),
    row("bgrewriteaof", 1, NONE, ADMIN | NOSCRIPT, "server", "1.0.0",
        Session(persistence::bgrewriteaof),
        "Takes a snapshot, which makes the log before it needless."),
    row("lastsave", 1, NONE, LOADING | STALE | FAST, "server", "1.0.0",
        Session(persistence::lastsave),
        "Tells when the last snapshot was complete."),
    row("shutdown", -1, NONE, ADMIN | CONN | ALLOW_BUSY, "server", "1.0.0",
        Session(persistence::shutdown),
        "Finishes requests in hand and ends the server."),
    row("time", 1, NONE, LOADING | STALE | FAST, "server", "2.6.0", Session(server::time),
        "Tells the time of the server."),
];

/// Places in the index; a power of two, several times the number of rows.
const INDEX_COUNT: usize = 256;
/// The longest name; a longer one is no command.
const NAME_BYTES_MAX: usize = 16;

/// A name in lower case, in two words: whatever the case, equal names of equal length give equal
/// words, and no other bytes give the words of letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Folded {
    head: u64,
    tail: u64,
}

/// What the index holds: the folded name, to compare without going to the row.
#[derive(Debug, Clone, Copy)]
struct Place {
    name: Folded,
    len: u8,
    /// Past the last row where the place is free.
    row: u8,
}

/// Rows by the hash of their names, with the next free place taken on collision.
static INDEX: [Place; INDEX_COUNT] = index();

const COMMANDS_COUNT: usize = COMMANDS.len();
const FREE_PLACE: Place =
    Place { name: Folded { head: 0, tail: 0 }, len: 0, row: COMMANDS_COUNT as u8 };
const _: () = assert!(COMMANDS_COUNT < u8::MAX as usize);

const fn index() -> [Place; INDEX_COUNT] {
    let mut index = [FREE_PLACE; INDEX_COUNT];
    let mut row = 0;
    while row < COMMANDS_COUNT {
        let name = COMMANDS[row].name.as_bytes();
        assert!(name.len() <= NAME_BYTES_MAX);
        let folded = fold(name);
        let mut place = hash(folded);
        while index[place].len != 0 {
            place = (place + 1) % INDEX_COUNT;
        }
        index[place] = Place { name: folded, len: name.len() as u8, row: row as u8 };
        row += 1;
    }
    index
}

/// Folds a name of up to [`NAME_BYTES_MAX`] bytes: its first and last bytes, which may overlap.
#[inline]
const fn fold(name: &[u8]) -> Folded {
    const LOWER: u64 = 0x2020_2020_2020_2020;
    let (head, tail) = match (name.first_chunk(), name.last_chunk()) {
        (Some(head), Some(tail)) => (u64::from_le_bytes(*head), u64::from_le_bytes(*tail)),
        _ => match (name.first_chunk(), name.last_chunk()) {
            (Some(head), Some(tail)) => {
                (u32::from_le_bytes(*head) as u64, u32::from_le_bytes(*tail) as u64)
            }
            _ => match name {
                [] => (0, 0),
                [first, .., last] => (*first as u64, (name[1] as u64) << 8 | *last as u64),
                [only] => (*only as u64, 0),
            },
        },
    };
    Folded { head: head | LOWER, tail: tail | LOWER }
}

#[inline]
const fn hash(name: Folded) -> usize {
    let mixed = (name.head ^ name.tail.rotate_left(23)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 56) as usize % INDEX_COUNT
}

/// The row of the command called `name`, in whatever case.
#[inline]
pub fn find(name: &[u8]) -> Option<&'static Command> {
    find_row(name).map(|row| &COMMANDS[usize::from(row)])
}

/// The number of that row.
#[inline]
pub fn find_row(name: &[u8]) -> Option<u16> {
    if name.len() > NAME_BYTES_MAX {
        return None;
    }
    let folded = fold(name);
    let mut at = hash(folded);
    loop {
        let place = &INDEX[at];
        if place.name == folded && usize::from(place.len) == name.len() && place.len != 0 {
            return Some(u16::from(place.row));
        }
        if place.len == 0 {
            return None;
        }
        at = (at + 1) % INDEX_COUNT;
    }
}

/// Whether `command` takes `len` arguments, its name included.
#[inline]
pub fn takes(command: &Command, len: usize) -> bool {
    let arity = usize::from(command.arity.unsigned_abs());
    if command.arity < 0 { len >= arity } else { len == arity }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_found_in_either_case() {
        for (row, command) in COMMANDS.iter().enumerate() {
            assert_eq!(find_row(command.name.as_bytes()), Some(row as u16), "{}", command.name);
            assert_eq!(find_row(command.name.to_uppercase().as_bytes()), Some(row as u16));
        }
    }

    #[test]
    fn other_names_are_not_found() {
        for name in [b"".as_slice(), b"ge", b"gett", b"g\x05t", b"no-such-command-at-all", &[255]] {
            assert!(find(name).is_none());
        }
    }

    #[test]
    fn arity_covers_the_key_that_routes() {
        for command in &COMMANDS {
            let least = command.arity.unsigned_abs();
            match command.run {
                Run::Key(_) | Run::Spread { .. } | Run::Together { .. } => {
                    assert!(command.keys.first > 0, "{}", command.name);
                    let step = command.keys.step;
                    // A container's key follows its subcommand and may be missing.
                    let container = command.keys == SECOND;
                    assert!(container || least >= command.keys.first + step, "{}", command.name);
                }
                Run::Cursor(_) => assert!(least >= 2, "{}", command.name),
                Run::Session(_) | Run::Every { .. } => {
                    assert_eq!(command.keys.first, 0, "{}", command.name);
                }
            }
        }
    }
}
