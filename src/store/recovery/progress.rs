//! How far a recovery has come. Counted by its threads, told once a second by the one that waits.
//!
//! Invariant: telling costs the others nothing but relaxed additions.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use crate::clock;

const TELL_EVERY: Duration = Duration::from_secs(1);

/// What has been done.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Bytes of snapshots.
    pub(super) bytes: AtomicU64,
    /// Bytes of the log that are read.
    pub(super) log_bytes: AtomicU64,
    /// Changes made.
    pub(super) changes: AtomicU64,
    /// Bytes that there are.
    pub(super) bytes_total: u64,
}

impl Progress {
    /// Tells of the progress until every sender of `done` is dropped.
    pub(super) fn tell_until(&self, done: &Receiver<()>) {
        let mut before = (clock::now(), 0);
        while let Err(RecvTimeoutError::Timeout) = done.recv_timeout(TELL_EVERY) {
            let (now, changes) = (clock::now(), self.changes.load(Ordering::Relaxed));
            let seconds = now.since(before.0).as_secs_f64();
            let rate = (changes - before.1) as f64 / seconds;
            tracing::info!(
                "recovering: {} %, {changes} changes, {rate:.0} a second",
                self.percent()
            );
            before = (now, changes);
        }
    }

    fn percent(&self) -> u64 {
        let done = self.bytes.load(Ordering::Relaxed) + self.log_bytes.load(Ordering::Relaxed);
        (done.min(self.bytes_total) * 100).checked_div(self.bytes_total).unwrap_or(100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_percentage_is_of_snapshots_and_log_together() {
        let progress = Progress { bytes_total: 400, ..Progress::default() };
        progress.bytes.store(100, Ordering::Relaxed);
        progress.log_bytes.store(200, Ordering::Relaxed);
        assert_eq!(progress.percent(), 75);
        assert_eq!(Progress::default().percent(), 100);
    }
}
