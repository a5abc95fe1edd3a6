//! The settings of the store: where it is kept, when writes are durable, when snapshots are due,
//! how much memory it takes. Resolved with the others.
//!
//! Invariant: a store that is kept nowhere promises nothing: asking both of it is refused.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::super::unit::Refusal;
use super::{Given, Origin, Reader};
use crate::log::{Policy, SEGMENT_BYTES_MIN};
use crate::store::memory;
use crate::store::saving::Schedule;

/// The shortest interval that writes may be promised to be durable within: twice what a slow disk
/// takes to sync.
const FSYNC_INTERVAL_MIN: Duration = Duration::from_millis(10);
/// The longest segments that may be asked for.
const SEGMENT_BYTES_MAX: u64 = 16 << 30;

/// The settings of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSettings {
    /// The directory it is kept in; none: it is in memory only.
    pub data: Option<PathBuf>,
    /// When an acknowledged write is durable.
    pub fsync: Policy,
    /// The longest that one is not, under that policy.
    pub fsync_interval: Duration,
    /// Bytes of a segment of the log.
    pub segment_bytes: u64,
    /// When snapshots are due, and how fast they are taken.
    pub snapshots: Schedule,
    /// Most bytes of memory; 0: any.
    pub memory_bytes_max: u64,
    /// Which keys give way there.
    pub eviction: memory::Policy,
}

impl fmt::Display for StoreSettings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(data) = &self.data else { return formatter.write_str("in memory only") };
        let data = data.display();
        match self.fsync {
            Policy::Always => write!(formatter, "{data}, fsync always"),
            Policy::Interval => {
                write!(formatter, "{data}, fsync within {:?}", self.fsync_interval)
            }
            Policy::Never => write!(formatter, "{data}, fsync none"),
        }
    }
}

impl StoreSettings {
    /// These settings, with those of `newer` that can change in a running daemon.
    pub(super) fn with_live(&self, newer: &Self) -> Self {
        Self { data: self.data.clone(), segment_bytes: self.segment_bytes, ..newer.clone() }
    }
}

impl Reader {
    pub(super) fn store(&mut self) -> Option<StoreSettings> {
        let data = self.read("store.data", directory);
        let fsync = self.read("store.fsync", policy);
        let fsync_interval = self.duration("store.fsync_interval", FSYNC_INTERVAL_MIN);
        let segment_bytes = self.bytes("store.segment_size", SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
        let log_bytes = self.bytes("store.snapshot_log_size", 0, 1 << 50);
        let every = self.duration("store.snapshot_every", Duration::ZERO);
        let rate_bytes = self.bytes("store.snapshot_rate", 0, 1 << 50);
        let memory_bytes_max = self.bytes("store.memory_max", 0, 1 << 50);
        let eviction = self.read("store.eviction", eviction);
        Some(StoreSettings {
            data: data?,
            fsync: fsync?,
            fsync_interval: fsync_interval?,
            segment_bytes: segment_bytes?,
            snapshots: Schedule { log_bytes: log_bytes?, every: every?, rate_bytes: rate_bytes? },
            memory_bytes_max: memory_bytes_max?,
            eviction: eviction?,
        })
    }
}

/// What the settings of the store ask for and cannot have together.
pub(super) fn contradictions(settings: &StoreSettings, chosen: &[Given]) -> Vec<String> {
    let mut wrong = Vec::new();
    let fsync = chosen.iter().find(|given| given.row.key == "store.fsync");
    if settings.data.is_none()
        && settings.fsync == Policy::Always
        && let Some(fsync) = fsync.filter(|fsync| fsync.origin != Origin::Default)
    {
        wrong.push(format!(
            "{}: store.fsync = \"always\", but store.data = \"none\" keeps nothing on disk; name a \
             directory with --data or store.data, or leave store.fsync out",
            fsync.origin
        ));
    }
    wrong
}

fn directory(text: &str) -> Result<Option<PathBuf>, Refusal> {
    match text {
        "" => Err("names no directory; write none for a store in memory only".into()),
        "none" => Ok(None),
        _ => Ok(Some(PathBuf::from(text))),
    }
}

fn policy(text: &str) -> Result<Policy, Refusal> {
    match text {
        "always" => Ok(Policy::Always),
        "interval" => Ok(Policy::Interval),
        "none" => Ok(Policy::Never),
        _ => Err("is no policy; use always, interval or none".into()),
    }
}

fn eviction(text: &str) -> Result<memory::Policy, Refusal> {
    memory::Policy::from_name(text).ok_or_else(|| {
        let names = memory::Policy::ALL.map(memory::Policy::name);
        format!("is no policy; use {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Settings, SettingsError, find_row, resolve};
    use super::*;

    fn resolved(given: &[(&str, &str)]) -> Result<Settings, SettingsError> {
        let given = given.iter().map(|(key, text)| Given {
            row: find_row(key).expect("a setting"),
            text: (*text).to_owned(),
            origin: Origin::Environment("TEST"),
        });
        resolve(given.collect()).map(|resolved| resolved.settings)
    }

    #[test]
    fn a_store_is_kept_in_a_directory_unless_it_is_told_otherwise() {
        let data = |text| resolved(&[("store.data", text)]).expect("valid").store.data;
        let default = resolved(&[]).expect("valid").store;
        assert_eq!(default.data, Some(PathBuf::from("./annulus-data")));
        assert_eq!((default.fsync, default.fsync_interval), (Policy::Interval, SECOND));
        assert_eq!(data("/var/lib/annulus"), Some(PathBuf::from("/var/lib/annulus")));
        assert_eq!(data("./none"), Some(PathBuf::from("./none")));
        assert_eq!(data("none"), None);
        assert_eq!(default.to_string(), "./annulus-data, fsync within 1s");
        let memory = resolved(&[("store.data", "none")]).expect("valid").store;
        assert_eq!(memory.to_string(), "in memory only");
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn values_out_of_range_are_refused_with_what_would_be_accepted() {
        let cases = [
            ("store.data", "", "names no directory; write none for a store in memory only"),
            ("store.fsync", "everysec", "is no policy; use always, interval or none"),
            ("store.fsync_interval", "1ms", "is out of range; use 10ms to 86400s"),
            ("store.segment_size", "512KiB", "is out of range; use 1MiB to 16GiB"),
            (
                "store.eviction",
                "lru",
                "is no policy; use noeviction, allkeys-lru, allkeys-lfu, allkeys-random, \
                 volatile-lru, volatile-lfu, volatile-random, volatile-ttl",
            ),
        ];
        for (key, text, reason) in cases {
            let error = resolved(&[(key, text)]).expect_err(text).to_string();
            assert_eq!(error, format!("environment TEST: {key} = {text:?} {reason}"));
        }
    }

    #[test]
    fn a_store_in_memory_cannot_promise_durability() {
        let both = [("store.data", "none"), ("store.fsync", "always")];
        let error = resolved(&both).expect_err("contradictory").to_string();
        assert!(error.starts_with("environment TEST: store.fsync = \"always\", but"), "{error}");
        assert!(resolved(&both[..1]).is_ok());
        assert!(resolved(&both[1..]).is_ok());
        assert!(resolved(&[("store.data", "none"), ("store.fsync", "interval")]).is_ok());
    }
}
