//! Which core measures and which one disturbs: the last one, and the first.
//!
//! Called by `main` before any runtime is built, and by the thread that wakes it.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Keeps the calling thread on the last core that the process may use.
pub(crate) fn to_last() {
    let allowed = sched_getaffinity(None).expect("a process may read its own affinity");
    to((0..CpuSet::MAX_CPU).rfind(|core| allowed.is_set(*core)));
}

/// Keeps the calling thread on the machine's first core, if it may run there.
pub(crate) fn to_first() {
    to(Some(0));
}

fn to(core: Option<usize>) {
    let mut only = CpuSet::new();
    only.set(core.expect("a process has a core"));
    if let Err(error) = sched_setaffinity(None, &only) {
        eprintln!("not pinned: {error}");
    }
}
