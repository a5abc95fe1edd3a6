//! Commands over several keys while a snapshot is taken: what comes back from the snapshot and the
//! log behind it is exactly what was there when the daemon was killed.
//!
//! The snapshot is paced, so that keys are moved ahead of its walk, behind it, and between
//! partitions of which one is saved and the other is not. Invariant under test: a key that is lent
//! or moved meanwhile is in the snapshot as it was when that began, once.

use std::collections::BTreeMap;
use std::fs;
use std::time::Instant;

use annulus::store::SlotMap;

use crate::random::Random;
use crate::resp::{Connection, PATIENCE, Reply};
use crate::scratch::Scratch;
use crate::server::{Fsync, Program, Server, Setup};

/// Names of keys, of which about half are in use at a time.
const NAMES: u64 = 600;
/// So long that the walk over a partition of two takes several pieces (256 KiB each), and is held
/// up between them by the pace.
const VALUE_REPEATS: usize = 240;
/// Some seconds for what all keys hold.
const SLOW: &str = "segment_size = \"4MiB\"\nsnapshot_rate = \"500KiB\"\n";
/// Longer than it takes to get to a flush.
const SLOWER: &str = "segment_size = \"4MiB\"\nsnapshot_rate = \"200KiB\"\n";
const FAR_AWAY_MS: u64 = 4_000_000_000_000;

macro_rules! on_every_engine {
    ($($engine:ident)+) => {
        $(mod $engine {
            #[test]
            fn keys_renamed_during_a_save_come_back_once() {
                super::keys_renamed_during_a_save_come_back_once(stringify!($engine));
            }
            #[test]
            fn what_was_flushed_during_a_save_does_not_come_back() {
                super::what_was_flushed_during_a_save_does_not_come_back(stringify!($engine));
            }
        })+
    };
}

on_every_engine!(uring epoll threads);

/// A daemon with keys, and what it must hold.
struct Store {
    setup: Setup,
    server: Server,
    connection: Connection,
    keys: BTreeMap<String, (String, i64)>,
    random: Random,
    _scratch: Scratch,
}

/// Names come in pairs that lie in one partition, because they share a tag.
fn name(number: u64) -> String {
    format!("{{{}}}:{}", number / 2, number % 2)
}

impl Store {
    fn start(engine: &'static str, paced: &str) -> Self {
        let scratch = Scratch::new();
        let folder = scratch.path().join("data");
        let mut setup = Setup::new(Program::Annulus(engine), Fsync::Always, folder);
        paced.clone_into(&mut setup.store);
        let server = Server::start(&setup).expect("it starts");
        let (connection, keys) = (server.connect(), BTreeMap::new());
        let mut store =
            Self { setup, server, connection, keys, random: Random::new(7), _scratch: scratch };
        for number in (0..NAMES).step_by(2) {
            store.set(number);
        }
        store
    }

    fn call(&mut self, words: &[&str]) -> Reply {
        self.connection.call(words).expect("it serves")
    }

    fn set(&mut self, number: u64) {
        let (name, drawn) = (name(number), self.random.next());
        let value = format!("{name}-{drawn}-").repeat(VALUE_REPEATS);
        let deadline = FAR_AWAY_MS + drawn % 1000;
        let (words, deadline) = match drawn % 3 {
            0 => (vec!["PXAT".to_owned(), deadline.to_string()], deadline as i64),
            _ => (Vec::new(), -1),
        };
        let mut command = vec!["SET", &name, &value];
        command.extend(words.iter().map(String::as_str));
        assert_eq!(self.call(&command), Reply::ok());
        self.keys.insert(name, (value, deadline));
    }

    /// Renames a key to another of the same partition, or of another one; sometimes the target is
    /// there already.
    fn rename(&mut self, is_near: bool) {
        let number = self.random.below(NAMES);
        let source = name(number);
        let mut target = name(number ^ 1);
        let map = SlotMap::new(2);
        let half = |name: &str| map.partition_of(name.as_bytes());
        while !is_near && half(&target) == half(&source) {
            target = name(self.random.below(NAMES));
        }
        let reply = self.call(&["RENAME", &source, &target]);
        match self.keys.remove(&source) {
            Some(content) => {
                assert_eq!(reply, Reply::ok(), "{source} to {target}");
                self.keys.insert(target, content);
            }
            None => assert_eq!(reply, Reply::Error("ERR no such key".to_owned())),
        }
    }

    /// Lends two keys that stay what they are, mostly to be found in the snapshot only.
    fn lend(&mut self) {
        let keys: Vec<String> = self.keys.keys().cloned().collect();
        if keys.is_empty() {
            return;
        }
        let mut draw = || keys[self.random.below(keys.len() as u64) as usize].clone();
        let (one, other) = (draw(), draw());
        if one != other {
            assert_eq!(self.call(&["RENAMENX", &one, &other]), Reply::Integer(0));
        }
    }

    fn change_something(&mut self) {
        match self.random.below(8) {
            0..2 => self.rename(true),
            2..4 => self.rename(false),
            4..7 => self.lend(),
            _ => {
                let number = self.random.below(NAMES);
                self.set(number);
            }
        }
    }

    fn is_saving(&mut self) -> bool {
        self.connection.figure("rdb_bgsave_in_progress") == 1
    }

    fn begin_to_save(&mut self) {
        assert_eq!(self.call(&["BGSAVE"]), Reply::Simple("Background saving started".to_owned()));
        assert!(self.is_saving());
    }

    /// Goes on until the save has ended.
    fn change_until_saved(&mut self) {
        let began = Instant::now();
        while self.is_saving() {
            assert!(began.elapsed() < PATIENCE, "the save does not end");
            for _ in 0..10 {
                self.change_something();
            }
        }
        assert_eq!(self.connection.figure("rdb_saves"), 1);
    }

    /// Kills the daemon, starts it again and compares all there is.
    fn check_after_a_restart(mut self) {
        self.server.kill();
        let files = fs::read_dir(&self.setup.folder).expect("it was made");
        let names = files.map(|file| file.expect("readable").file_name());
        let snapshots = names.filter(|name| name.to_string_lossy().starts_with("snapshot-"));
        assert!(snapshots.count() >= 2, "there is one for each partition");
        self.server = Server::start(&self.setup).expect("it starts");
        self.connection = self.server.connect();
        for number in 0..NAMES {
            let name = name(number);
            let expected = self.keys.get(&name).cloned();
            let value = self.call(&["GET", &name]);
            let deadline = self.call(&["PEXPIRETIME", &name]);
            let (wanted, wanted_deadline) = match expected {
                Some((value, deadline)) => (Some(value.into_bytes()), deadline),
                None => (None, -2),
            };
            assert!(value == Reply::Bulk(wanted), "{name} is not what it was");
            assert_eq!(deadline, Reply::Integer(wanted_deadline), "{name}");
        }
        let count = self.keys.len() as i64;
        assert_eq!(self.call(&["DBSIZE"]), Reply::Integer(count));
    }
}

fn keys_renamed_during_a_save_come_back_once(engine: &'static str) {
    let _turn = crate::turn();
    let mut store = Store::start(engine, SLOW);
    store.begin_to_save();
    store.change_until_saved();
    for _ in 0..20 {
        store.change_something();
    }
    store.check_after_a_restart();
}

fn what_was_flushed_during_a_save_does_not_come_back(engine: &'static str) {
    let _turn = crate::turn();
    let mut store = Store::start(engine, SLOWER);
    store.begin_to_save();
    for _ in 0..20 {
        store.change_something();
    }
    assert!(store.is_saving());
    assert_eq!(store.call(&["FLUSHALL"]), Reply::ok());
    store.keys.clear();
    for number in 0..30 {
        store.set(number * 3);
    }
    store.change_until_saved();
    store.check_after_a_restart();
}
