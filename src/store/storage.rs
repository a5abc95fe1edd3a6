//! Where a store is kept, as the services see it: its directory, its log, its snapshots, and how
//! they stand. Made by the daemon when it has opened the directory.
//!
//! Invariant: a store without one is in memory only, and nothing claims otherwise.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::saving::Saving;
use crate::log::{Admission, Log};
use crate::metrics::figure::{Figure, Reading};

/// Where a store is kept.
#[derive(Debug)]
pub struct Storage {
    directory: PathBuf,
    /// Its log.
    pub log: Arc<Log>,
    /// Its snapshots.
    pub saving: Arc<Saving>,
    /// How long it took to bring the store back from there.
    recovery: Duration,
}

impl Storage {
    /// A store's log and snapshots in `directory`, which was opened within `recovery`.
    pub fn new(directory: &Path, log: Arc<Log>, saving: Arc<Saving>, recovery: Duration) -> Self {
        // As absolute as it can be told: the working directory may be out of reach.
        let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
        Self { directory, log, saving, recovery }
    }

    /// The directory, from the root.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Whether writes are refused, because the disk is full or has failed.
    pub fn refuses(&self) -> bool {
        matches!(self.log.admission(), Admission::Refused(_)) || self.log.failure().is_some()
    }

    /// How log and snapshots stand at `now_ms`.
    pub fn figures(&self, now_ms: u64) -> Vec<Figure> {
        use Reading::{Count, Time};
        let (log, done, saves) = (&self.log, self.log.figures(), self.saving.report());
        let (written, durable) = (log.written_lsn().0, log.durable_lsn().0);
        let of = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let last = saves.last.unwrap_or_default();
        let age = now_ms.saturating_sub(last.unix_ms);
        let mut figures = vec![
            Figure::counter("log_written_lsn", "The last record handed to the kernel.", written),
            Figure::counter("log_durable_lsn", "The last record on stable storage.", durable),
            Figure::gauge(
                "log_lag_records",
                "Records written that are not on stable storage.",
                Count(written.saturating_sub(durable)),
            ),
            Figure::gauge(
                "log_pending_bytes",
                "Bytes of changes that wait for a record.",
                Count(log.pending_bytes() as u64),
            ),
            Figure::counter("log_records", "Records written.", of(&done.records)),
            Figure::counter("log_bytes", "Bytes of records written.", of(&done.bytes)),
            Figure::gauge("log_segments", "Segments that are kept.", Count(of(&done.segments))),
            Figure::gauge(
                "log_segment_bytes",
                "Bytes of the segments that are kept.",
                Count(of(&done.segment_bytes)),
            ),
            Figure::gauge(
                "log_refuses_writes",
                "1 while writes are refused because the disk is full, else 0.",
                Count(self.refuses().into()),
            ),
            Figure::gauge(
                "snapshot_running",
                "1 while a snapshot is taken, else 0.",
                Count(saves.began_unix_ms.is_some().into()),
            ),
            Figure::counter("snapshots", "Snapshots taken.", saves.saves),
            Figure::counter("snapshot_failures", "Snapshots that failed.", saves.failures),
            Figure::gauge("recovery_seconds", "What the last start took.", Time(self.recovery)),
        ];
        if saves.last.is_some() {
            figures.extend([
                Figure::gauge(
                    "snapshot_age_seconds",
                    "Time since the last snapshot.",
                    Time(Duration::from_millis(age)),
                ),
                Figure::gauge(
                    "snapshot_duration_seconds",
                    "How long the last snapshot took.",
                    Time(last.duration),
                ),
                Figure::gauge("snapshot_bytes", "Bytes of the last snapshot.", Count(last.bytes)),
            ]);
        }
        figures
    }
}
