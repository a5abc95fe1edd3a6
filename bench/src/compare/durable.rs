//! What has to be said about durable workloads: how they were measured, and what was not.
//!
//! `compare` puts it below the tables. Invariant: it holds for every contender alike.

use crate::scratch::FileSystem;

/// How durable workloads were measured, on `disk`.
pub(crate) fn notes(disk: FileSystem) -> Vec<String> {
    let mut notes: Vec<String> = disk.warning().into_iter().collect();
    notes.push(format!(
        "durable: new servers with new data directories on {} in every round; the disk is idle \
         when a window begins; nobody rewrites a log or makes a snapshot in one (redis: appendonly \
         yes, save \"\", auto-aof-rewrite-percentage 0)",
        disk.name()
    ));
    notes.push(
        "durable: server CPU is that of every thread of the process, io_uring's workers for it \
         included; what the kernel's own threads do (write-back, journal, the disk's interrupts) \
         is counted for nobody"
            .to_owned(),
    );
    notes
}
