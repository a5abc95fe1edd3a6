//! The text of `INFO`. Called when every partition has told its figures.
//!
//! Invariant: the figures of partitions are added up position by position, whoever tells them.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::store::{DATABASES_COUNT, Keyspace, Partition};

use super::server::{REDIS_VERSION, Server};

/// Figures ahead of those of the databases.
const HEAD_COUNT: usize = 7;
/// Figures that a partition tells.
const FIGURES_COUNT: usize = HEAD_COUNT + 2 * DATABASES_COUNT;

/// What partitions tell for `INFO`, added up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figures([u64; FIGURES_COUNT]);

impl Default for Figures {
    fn default() -> Self {
        Self([0; FIGURES_COUNT])
    }
}

impl Figures {
    /// Writes the figures of `partition` to `out`.
    pub fn tell(partition: &Partition, out: &mut Vec<u8>) {
        let stats = partition.stats;
        let used = partition.usage().bytes;
        let dataset: usize = partition.keyspaces().iter().map(Keyspace::content_bytes).sum();
        let head = [
            stats.hits,
            stats.misses,
            stats.expired,
            used as u64,
            stats.evicted,
            dataset as u64,
            partition.bytes() as u64,
        ];
        let databases = partition.keyspaces().iter();
        let databases = databases.flat_map(|db| [db.len() as u64, db.deadlines_len() as u64]);
        for figure in head.into_iter().chain(databases) {
            out.extend_from_slice(&figure.to_le_bytes());
        }
    }

    /// Adds what one partition has told.
    pub fn add(&mut self, told: &[u8]) {
        for (sum, figure) in self.0.iter_mut().zip(told.as_chunks().0) {
            *sum += u64::from_le_bytes(*figure);
        }
    }
}

type Section = fn(&Server, &Figures, u64, &mut String);

const SECTIONS: [(&str, Section); 8] = [
    ("Server", server),
    ("Clients", clients),
    ("Memory", memory),
    ("Persistence", persistence),
    ("Stats", stats),
    ("Replication", replication),
    ("Cluster", cluster),
    ("Keyspace", keyspace),
];

/// The sections named in `wanted`, or all of them if none is named.
pub fn render<'a>(
    server: &Server,
    figures: &Figures,
    wanted: impl Iterator<Item = &'a [u8]> + Clone,
    now_ms: u64,
) -> String {
    let all = ["default", "all", "everything"];
    let asks_all = |name: &[u8]| all.iter().any(|all| name.eq_ignore_ascii_case(all.as_bytes()));
    let everything = wanted.clone().next().is_none() || wanted.clone().any(asks_all);
    let mut text = String::new();
    for (name, section) in SECTIONS {
        if everything || wanted.clone().any(|asked| asked.eq_ignore_ascii_case(name.as_bytes())) {
            if !text.is_empty() {
                text.push_str("\r\n");
            }
            // Writing to a string cannot fail.
            let _ = write!(text, "# {name}\r\n");
            section(server, figures, now_ms, &mut text);
        }
    }
    text
}

fn line(text: &mut String, name: &str, value: impl std::fmt::Display) {
    let _ = write!(text, "{name}:{value}\r\n");
}

fn server(server: &Server, _: &Figures, now_ms: u64, text: &mut String) {
    let uptime = now_ms.saturating_sub(server.started_ms) / 1000;
    line(text, "redis_version", REDIS_VERSION);
    line(text, "redis_mode", "standalone");
    line(text, "annulus_version", env!("CARGO_PKG_VERSION"));
    line(text, "annulus_engine", server.settings.engine);
    line(text, "annulus_partitions", server.map.count());
    line(text, "os", std::env::consts::OS);
    line(text, "arch_bits", usize::BITS);
    line(text, "process_id", std::process::id());
    line(text, "tcp_port", server.settings.port);
    line(text, "server_time_usec", now_ms * 1000);
    line(text, "uptime_in_seconds", uptime);
    line(text, "uptime_in_days", uptime / 86_400);
}

fn clients(server: &Server, _: &Figures, _: u64, text: &mut String) {
    line(text, "connected_clients", server.clients.totals().connected);
    line(text, "maxclients", server.clients_count_max());
    line(text, "blocked_clients", 0);
}

fn memory(server: &Server, figures: &Figures, _: u64, text: &mut String) {
    let (used, dataset, allocated) = (figures.0[3], figures.0[5], figures.0[6]);
    let limit = &server.memory;
    limit.note_peak();
    let (peak, bytes_max) = (used.max(limit.peak() as u64), limit.bytes_max());
    let resident = resident_bytes().unwrap_or(0);
    let mut pair = |name: &str, bytes: u64| {
        line(text, name, bytes);
        line(text, &format!("{name}_human"), human(bytes));
    };
    pair("used_memory", used);
    pair("used_memory_rss", resident);
    pair("used_memory_peak", peak);
    line(text, "used_memory_overhead", used.saturating_sub(dataset));
    line(text, "used_memory_dataset", dataset);
    line(text, "allocator_allocated", allocated);
    line(text, "maxmemory", bytes_max);
    line(text, "maxmemory_human", human(bytes_max));
    line(text, "maxmemory_policy", limit.policy().name());
    line(text, "mem_allocator", "libc");
}

/// Memory of the process that is in place, by the kernel's account.
fn resident_bytes() -> Option<u64> {
    // In kibibytes, and unlike `statm` not in pages, whose size would have to be asked for.
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    Some(kibibytes * 1024)
}

/// A number of bytes as Redis spells it for people.
fn human(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["K", "M", "G", "T"];
    if bytes < 1024 {
        return format!("{bytes}B");
    }
    let mut scaled = bytes as f64 / 1024.0;
    let mut unit = 0;
    while scaled >= 1024.0 && unit + 1 < UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    format!("{scaled:.2}{}", UNITS[unit])
}

fn persistence(server: &Server, _: &Figures, now_ms: u64, text: &mut String) {
    line(text, "loading", 0);
    let Some(storage) = &server.storage else {
        line(text, "rdb_bgsave_in_progress", 0);
        line(text, "rdb_last_save_time", server.last_save_ms() / 1000);
        line(text, "aof_enabled", 0);
        return;
    };
    let saves = storage.saving.report();
    let seconds = |duration: Duration| duration.as_secs() as i64;
    let since = |began_ms: u64| Duration::from_millis(now_ms.saturating_sub(began_ms));
    let ok = |is_ok: bool| if is_ok { "ok" } else { "err" };
    let running = saves.began_unix_ms;
    line(text, "rdb_bgsave_in_progress", u8::from(storage.saving.is_under_way()));
    line(text, "rdb_last_save_time", server.last_save_ms() / 1000);
    line(text, "rdb_last_bgsave_status", ok(saves.failure.is_none()));
    line(text, "rdb_last_bgsave_time_sec", saves.last.map_or(-1, |last| seconds(last.duration)));
    line(text, "rdb_current_bgsave_time_sec", running.map_or(-1, |began| seconds(since(began))));
    line(text, "rdb_saves", saves.saves);
    let done = storage.log.figures();
    line(text, "aof_enabled", 1);
    line(text, "aof_rewrite_in_progress", 0);
    line(text, "aof_last_write_status", ok(!storage.refuses()));
    line(text, "aof_current_size", done.segment_bytes.load(Ordering::Relaxed));
    line(text, "aof_buffer_length", storage.log.pending_bytes());
    let lag = storage.log.written_lsn() > storage.log.durable_lsn();
    line(text, "aof_pending_bio_fsync", u8::from(lag));
    line(text, "annulus_directory", storage.directory().display());
    for figure in storage.figures(now_ms) {
        line(text, &format!("annulus_{}", figure.name), figure.reading);
    }
    if let Some(failure) = saves.failure {
        line(text, "annulus_snapshot_failure", failure);
    }
}

fn stats(server: &Server, figures: &Figures, _: u64, text: &mut String) {
    let totals = server.clients.totals();
    line(text, "total_connections_received", totals.accepted);
    line(text, "total_commands_processed", totals.commands);
    line(text, "rejected_connections", totals.refused);
    line(text, "expired_keys", figures.0[2]);
    line(text, "evicted_keys", figures.0[4]);
    line(text, "keyspace_hits", figures.0[0]);
    line(text, "keyspace_misses", figures.0[1]);
}

fn replication(_: &Server, _: &Figures, _: u64, text: &mut String) {
    line(text, "role", "master");
    line(text, "connected_slaves", 0);
}

fn cluster(_: &Server, _: &Figures, _: u64, text: &mut String) {
    line(text, "cluster_enabled", 0);
}

fn keyspace(_: &Server, figures: &Figures, _: u64, text: &mut String) {
    for (db, pair) in figures.0[HEAD_COUNT..].as_chunks::<2>().0.iter().enumerate() {
        let [keys, expires] = *pair;
        if keys > 0 {
            let _ = write!(text, "db{db}:keys={keys},expires={expires},avg_ttl=0\r\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::server::RespSettings;
    use super::*;
    use crate::store::{Expiry, SlotMap};

    #[test]
    fn figures_of_partitions_add_up() {
        let mut figures = Figures::default();
        for _ in 0..2 {
            let mut partition = Partition::default();
            partition.database(0).set_string(b"a", b"1", Expiry::Never);
            partition.database(5).set_string(b"b", b"1", Expiry::At(100));
            partition.read(0, b"a", 0);
            let mut told = Vec::new();
            Figures::tell(&partition, &mut told);
            figures.add(&told);
        }
        let server = Server::new(RespSettings::default(), SlotMap::new(2), 0);
        let wanted = [b"keyspace".as_slice()];
        let text = render(&server, &figures, wanted.into_iter(), 0);
        let expected = "# Keyspace\r\ndb0:keys=2,expires=0,avg_ttl=0\r\n\
                        db5:keys=2,expires=2,avg_ttl=0\r\n";
        assert_eq!(text, expected);
        let wanted = [b"STATS".as_slice()];
        let text = render(&server, &figures, wanted.into_iter(), 0);
        assert!(text.contains("keyspace_hits:2\r\n"), "{text}");
    }

    #[test]
    fn no_name_means_every_section() {
        let server = Server::new(RespSettings::default(), SlotMap::new(1), 0);
        let text = render(&server, &Figures::default(), std::iter::empty(), 5000);
        for (name, _) in SECTIONS {
            assert!(text.contains(&format!("# {name}\r\n")), "{name}");
        }
        assert!(text.contains("redis_version:7.2.4\r\n"));
    }
}
