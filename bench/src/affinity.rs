//! Pinning: which cores this process may use, and keeping a thread or a child on one of them.
//!
//! Called by the floors, peers and load threads (`--cpu`) and by `compare`, which pins servers by
//! letting the child inherit the mask of the thread that starts it.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::failure::Failure;

/// The cores that the calling thread may run on, in rising order.
pub(crate) fn allowed_cores() -> Result<Vec<usize>, Failure> {
    let set = sched_getaffinity(None).map_err(|error| Failure::failed("read affinity", error))?;
    Ok((0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect())
}

/// Restricts the calling thread, and every thread and child that it starts later, to `cores`.
pub(crate) fn pin(cores: &[usize]) -> Result<(), Failure> {
    let mut set = CpuSet::new();
    for core in cores {
        if *core >= CpuSet::MAX_CPU {
            return Err(Failure::usage(format!("core {core} is beyond what the kernel can name")));
        }
        set.set(*core);
    }
    sched_setaffinity(None, &set).map_err(|error| {
        Failure::usage(format!(
            "cannot pin to core {cores:?}: {error}; see `nproc` and `taskset -p $$`"
        ))
    })
}
