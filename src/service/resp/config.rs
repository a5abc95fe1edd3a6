//! The settings that `CONFIG GET` tells and `CONFIG SET` changes: one row each.
//!
//! Invariant: a row tells the truth: what this server does not do reads as off and cannot be set.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::log::Policy;
use crate::store::memory;
use crate::store::saving::Schedule;

use super::server::Server;

/// A setting.
#[derive(Debug)]
pub struct Row {
    /// Its name, as Redis calls it.
    pub name: &'static str,
    /// Its value, as text.
    pub get: fn(&Server) -> String,
    /// What can be done with a new value.
    pub set: Set,
}

/// How a setting takes a new value.
#[derive(Debug)]
pub enum Set {
    /// Not while the server runs.
    Never,
    /// Only the value that it has, because another one is not supported.
    Same,
    /// Any number from a lowest to a highest.
    Number(u64, u64, fn(&Server, u64)),
    /// Any text.
    Text(fn(&Server, &str)),
    /// A text that the first function approves of and the second takes over.
    Checked(fn(&Server, &str) -> Result<(), String>, fn(&Server, &str)),
}

const UNSUPPORTED: &str = "this value is not supported by this server";
const IN_MEMORY: &str =
    "the store is in memory only; start the server with --data DIRECTORY to keep it";

/// Every setting.
pub static ROWS: [Row; 16] = [
    Row { name: "appendonly", get: |server| appendonly(server).to_owned(), set: Set::Same },
    Row {
        name: "appendfsync",
        get: |server| appendfsync(server).to_owned(),
        set: Set::Checked(check_appendfsync, |server, word| {
            if let (Some(storage), Some(policy)) = (&server.storage, policy(word)) {
                storage.log.set_policy(policy);
            }
        }),
    },
    Row {
        name: "save",
        get: save,
        set: Set::Checked(check_save, |server, text| {
            if let (Some(storage), Some(every)) = (&server.storage, every(text)) {
                let schedule = Schedule { every, ..storage.saving.schedule() };
                storage.saving.set_schedule(schedule);
            }
        }),
    },
    Row { name: "databases", get: |_| "16".to_owned(), set: Set::Never },
    Row {
        name: "maxmemory",
        get: |server| server.memory.bytes_max().to_string(),
        set: Set::Number(0, 1 << 50, |server, bytes| server.memory.set_bytes_max(bytes)),
    },
    Row {
        name: "maxmemory-policy",
        get: |server| server.memory.policy().name().to_owned(),
        set: Set::Checked(
            |_, name| {
                let names = memory::Policy::ALL.map(memory::Policy::name).join(", ");
                let known = memory::Policy::from_name(name).map(drop);
                known.ok_or_else(|| format!("argument(s) must be one of the following: {names}"))
            },
            |server, name| {
                if let Some(policy) = memory::Policy::from_name(name) {
                    server.memory.set_policy(policy);
                }
            },
        ),
    },
    Row {
        name: "maxmemory-samples",
        get: |server| server.memory.samples().to_string(),
        set: Set::Number(1, memory::SAMPLES_COUNT_MAX as u64, |server, count| {
            server.memory.set_samples(count as u32);
        }),
    },
    Row { name: "cluster-enabled", get: |_| "no".to_owned(), set: Set::Never },
    Row { name: "io-threads", get: |server| server.map.count().to_string(), set: Set::Never },
    Row { name: "dir", get: directory, set: Set::Never },
    Row { name: "dbfilename", get: |_| String::new(), set: Set::Never },
    Row { name: "port", get: |server| server.settings.port.to_string(), set: Set::Never },
    Row {
        name: "maxclients",
        get: |server| server.clients_count_max().to_string(),
        set: Set::Number(1, u32::MAX as u64, |server, count| {
            server.live.clients_count_max.store(count as usize, Ordering::Relaxed);
        }),
    },
    Row {
        name: "timeout",
        get: |server| server.live.idle_seconds_max.load(Ordering::Relaxed).to_string(),
        set: Set::Number(0, i32::MAX as u64, |server, seconds| {
            server.live.idle_seconds_max.store(seconds, Ordering::Relaxed);
        }),
    },
    Row {
        name: "proto-max-bulk-len",
        get: |server| server.live.bulk_bytes_max.load(Ordering::Relaxed).to_string(),
        set: Set::Number(
            crate::protocol::resp::limits::BULK_BYTES_MIN as u64,
            crate::protocol::resp::limits::BULK_BYTES_MAX as u64,
            |server, bytes| server.live.bulk_bytes_max.store(bytes as usize, Ordering::Relaxed),
        ),
    },
    Row {
        name: "requirepass",
        get: |server| server.password().unwrap_or_default(),
        set: Set::Text(Server::set_password),
    },
];

fn appendonly(server: &Server) -> &'static str {
    if server.storage.is_some() { "yes" } else { "no" }
}

/// Redis's names of the policies: `everysec` is the interval, whatever it is set to.
fn appendfsync(server: &Server) -> &'static str {
    match server.storage.as_ref().map(|storage| storage.log.policy()) {
        Some(Policy::Always) => "always",
        Some(Policy::Interval) => "everysec",
        Some(Policy::Never) | None => "no",
    }
}

fn policy(word: &str) -> Option<Policy> {
    let names = [("always", Policy::Always), ("everysec", Policy::Interval), ("no", Policy::Never)];
    let found = names.into_iter().find(|(name, _)| word.eq_ignore_ascii_case(name));
    found.map(|(_, policy)| policy)
}

fn check_appendfsync(server: &Server, word: &str) -> Result<(), String> {
    let known = "argument(s) must be one of the following: everysec, always, no";
    match policy(word) {
        None => Err(known.to_owned()),
        Some(Policy::Always | Policy::Interval) if server.storage.is_none() => {
            Err(IN_MEMORY.to_owned())
        }
        Some(_) => Ok(()),
    }
}

/// When a snapshot is due, as Redis writes it: seconds, and changes, of which one is enough.
fn save(server: &Server) -> String {
    let schedule = server.storage.as_ref().map(|storage| storage.saving.schedule());
    match schedule.map(|schedule| schedule.every).filter(|every| !every.is_zero()) {
        Some(every) => format!("{} 1", every.as_secs_f64().ceil()),
        None => String::new(),
    }
}

/// The time in a text such as [`save`] writes; zero in the empty one.
fn every(text: &str) -> Option<Duration> {
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    match *words {
        [] => Some(Duration::ZERO),
        [seconds, "1"] => {
            let seconds = seconds.parse().ok().filter(|seconds| (1..=86_400).contains(seconds));
            seconds.map(Duration::from_secs)
        }
        _ => None,
    }
}

fn check_save(server: &Server, text: &str) -> Result<(), String> {
    match every(text) {
        None => Err("this server takes a snapshot after a time if anything was written: write \
                     \"SECONDS 1\" with 1 to 86400 seconds, or nothing"
            .to_owned()),
        Some(every) if !every.is_zero() && server.storage.is_none() => Err(IN_MEMORY.to_owned()),
        Some(_) => Ok(()),
    }
}

fn directory(server: &Server) -> String {
    let storage = server.storage.as_ref();
    storage.map(|storage| storage.directory().display().to_string()).unwrap_or_default()
}

/// Finds a setting by name, in whatever case.
pub fn find(name: &[u8]) -> Option<&'static Row> {
    ROWS.iter().find(|row| name.eq_ignore_ascii_case(row.name.as_bytes()))
}

impl Row {
    /// Checks a new value, or says what is wrong with it.
    pub fn check(&self, server: &Server, value: &[u8]) -> Result<Change, String> {
        match self.set {
            Set::Never => Err("can't set immutable config".to_owned()),
            Set::Same if (self.get)(server).as_bytes() == value => Ok(Change::None),
            Set::Same => Err(UNSUPPORTED.to_owned()),
            Set::Number(least, most, set) => {
                let number = parse_size(value)
                    .ok_or_else(|| "argument couldn't be parsed into an integer".to_owned())?;
                if !(least..=most).contains(&number) {
                    return Err(format!("argument must be between {least} and {most} inclusive"));
                }
                Ok(Change::Number(set, number))
            }
            Set::Text(set) => Ok(Change::Text(set, text(value)?)),
            Set::Checked(check, set) => {
                let text = text(value)?;
                check(server, &text)?;
                Ok(Change::Text(set, text))
            }
        }
    }
}

fn text(value: &[u8]) -> Result<String, String> {
    String::from_utf8(value.to_vec()).map_err(|_| "argument must be UTF-8 text".to_owned())
}

/// A new value that has been checked.
#[derive(Debug)]
pub enum Change {
    /// Nothing changes.
    None,
    /// A number and where it goes.
    Number(fn(&Server, u64), u64),
    /// A text and where it goes.
    Text(fn(&Server, &str), String),
}

impl Change {
    /// Makes the change.
    pub fn apply(&self, server: &Server) {
        match self {
            Self::None => {}
            Self::Number(set, number) => set(server, *number),
            Self::Text(set, text) => set(server, text),
        }
    }
}

/// Reads a number that may carry a unit of memory, such as `1mb`.
fn parse_size(text: &[u8]) -> Option<u64> {
    const UNITS: [(&str, u64); 8] = [
        ("", 1),
        ("b", 1),
        ("k", 1000),
        ("kb", 1 << 10),
        ("m", 1_000_000),
        ("mb", 1 << 20),
        ("g", 1_000_000_000),
        ("gb", 1 << 30),
    ];
    let text = std::str::from_utf8(text).ok()?.to_ascii_lowercase();
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = &text[digits.len()..];
    let scale = UNITS.iter().find(|(name, _)| *name == unit)?.1;
    digits.parse::<u64>().ok()?.checked_mul(scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_take_units() {
        assert_eq!(parse_size(b"100"), Some(100));
        assert_eq!(parse_size(b"1kb"), Some(1024));
        assert_eq!(parse_size(b"2GB"), Some(2 << 30));
        assert_eq!(parse_size(b"2x"), None);
        assert_eq!(parse_size(b"-1"), None);
        assert_eq!(parse_size(b""), None);
    }
}
