//! What the host grants this process: file descriptors and lockable memory.
//!
//! Looked at before anything is opened, by `serve` and by `check`. Invariant: limits are only ever
//! raised, and what was done is reported.

use std::fmt;
use std::fs;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::unit;

/// Descriptors that a process needs beside connections: standard streams, logs, configuration.
const DESCRIPTORS_FOR_PROCESS: u64 = 32;
/// Descriptors of a shard beside connections: ring or epoll, wake-up, two listeners, timer.
const DESCRIPTORS_PER_SHARD: u64 = 8;
/// Below this many connections a server is hardly one.
const CONNECTIONS_FEW: u64 = 1_000;

/// What was found and done about file descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DescriptorLimit {
    /// The soft limit that the process was started with; `None` is unlimited.
    pub before: Option<u64>,
    /// The soft limit now.
    pub now: Option<u64>,
}

/// Raises the soft limit of file descriptors to the hard limit.
pub fn raise_descriptor_limit() -> DescriptorLimit {
    let found = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: found.maximum, maximum: found.maximum };
    // An unlimited hard limit is above what the kernel gives a process (fs.nr_open): it refuses,
    // and the limit stays as it was.
    let raised = setrlimit(Resource::Nofile, wanted).is_ok();
    let now = if raised { found.maximum } else { found.current };
    DescriptorLimit { before: found.current, now }
}

impl DescriptorLimit {
    /// How many connections fit beside what `shards` shards need.
    pub fn connections(&self, shards: usize) -> u64 {
        let own = DESCRIPTORS_FOR_PROCESS + DESCRIPTORS_PER_SHARD * shards as u64;
        self.now.unwrap_or(u64::MAX).saturating_sub(own)
    }

    /// Why the limit does not do, if so. `fatal` says whether the daemon can start at all.
    pub fn complaint(&self, shards: usize) -> Option<Complaint> {
        let connections = self.connections(shards);
        let now = self.now.unwrap_or(u64::MAX);
        if connections >= CONNECTIONS_FEW {
            return None;
        }
        let text = format!(
            "file descriptors are limited to {now}: that is room for {connections} connections \
             with {shards} shard(s); raise the hard limit (`ulimit -Hn`, or LimitNOFILE= in the \
             systemd unit)"
        );
        Some(Complaint { fatal: connections == 0, text })
    }
}

impl fmt::Display for DescriptorLimit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |limit: Option<u64>| limit.map_or("unlimited".to_owned(), |n| n.to_string());
        if self.before == self.now {
            write!(formatter, "{} (the hard limit already)", show(self.now))
        } else {
            write!(formatter, "raised from {} to {}", show(self.before), show(self.now))
        }
    }
}

/// Something that the host grants too little of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// Whether the daemon can not start with it.
    pub fatal: bool,
    /// What it is, and the remedy.
    pub text: String,
}

/// The memory that rings need locked, against what the user may lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryLock {
    /// How many rings.
    pub rings: u64,
    /// Bytes that each locks.
    pub ring_bytes: u64,
    /// The soft limit of this user over all of their processes; `None` where none applies.
    pub limit: Option<u64>,
}

/// `CAP_IPC_LOCK` (capabilities(7)): who has it may lock any amount.
const CAPABILITY_IPC_LOCK: u32 = 14;

/// The memory lock budget of `rings` rings with `entries` submission queue entries and
/// `buffers` provided buffers each.
pub fn memory_lock(rings: usize, entries: u32, buffers: u16) -> MemoryLock {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let limit = if may_lock_all(&status) { None } else { getrlimit(Resource::Memlock).current };
    MemoryLock {
        rings: rings as u64,
        ring_bytes: ring_bytes(entries.into(), buffers.into()),
        limit,
    }
}

/// Sizes from io_uring_setup(2): 64 bytes an entry, four completions of 16 bytes for each, 16 bytes
/// a provided buffer, a page of bookkeeping; each area is rounded up to pages.
fn ring_bytes(entries: u64, buffers: u64) -> u64 {
    const PAGE: u64 = 4_096;
    let pages = |bytes: u64| bytes.div_ceil(PAGE) * PAGE;
    pages(entries * 64) + pages(entries * 4 * 16 + 256) + pages(buffers * 16)
}

fn may_lock_all(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask & 1 << CAPABILITY_IPC_LOCK != 0
}

impl MemoryLock {
    /// Why the limit does not do, if so. Never fatal: rings shrink, or epoll takes over.
    pub fn complaint(&self) -> Option<Complaint> {
        let needed = self.rings * self.ring_bytes;
        let limit = self.limit.filter(|limit| *limit < needed)?;
        let text = format!(
            "lockable memory is limited to {} for this user, but {} ring(s) need {}; raise it \
             (`ulimit -l`, or LimitMEMLOCK= in the systemd unit), or lower runtime.ring_entries",
            unit::size(limit),
            self.rings,
            unit::size(needed),
        );
        Some(Complaint { fatal: false, text })
    }
}

impl fmt::Display for MemoryLock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ring, all) = (unit::size(self.ring_bytes), unit::size(self.rings * self.ring_bytes));
        write!(formatter, "{} ring(s) of {ring} lock {all} of ", self.rings)?;
        match self.limit {
            Some(limit) => write!(formatter, "{}", unit::size(limit)),
            None => write!(formatter, "any amount"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_descriptors_are_a_complaint_and_none_left_is_fatal() {
        let limit = |now| DescriptorLimit { before: Some(now), now: Some(now) };
        assert_eq!(limit(20_000).complaint(2), None);
        let few = limit(1_024).complaint(2).expect("a complaint");
        assert!(!few.fatal);
        assert!(few.text.contains("room for 976 connections with 2 shard(s)"), "{}", few.text);
        assert!(limit(40).complaint(1).expect("a complaint").fatal);
    }

    #[test]
    fn the_descriptor_limit_can_be_raised_to_its_hard_limit() {
        let limit = raise_descriptor_limit();
        assert_eq!(getrlimit(Resource::Nofile).current, limit.now);
    }

    #[test]
    fn memory_lock_is_compared_with_the_limit() {
        let lock = MemoryLock { rings: 2, ring_bytes: 40_960, limit: Some(65_536) };
        assert_eq!(lock.to_string(), "2 ring(s) of 40KiB lock 80KiB of 64KiB");
        let complaint = lock.complaint().expect("too little");
        assert!(complaint.text.contains("limited to 64KiB"), "{}", complaint.text);
        assert_eq!(MemoryLock { limit: Some(81_920), ..lock }.complaint(), None);
        assert_eq!(MemoryLock { limit: None, ..lock }.complaint(), None);
    }

    #[test]
    fn the_capability_to_lock_is_read_from_its_mask() {
        assert!(may_lock_all("Name:\tx\nCapEff:\t000001ffffffffff\n"));
        assert!(!may_lock_all("CapEff:\t0000000000000000\n"));
        assert!(!may_lock_all(""));
    }
}
