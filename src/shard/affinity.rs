//! The CPUs that a thread may run on, kept so that they can be put back.
//!
//! Invariant: what [`unpinned`] answers was never narrowed by a pinning of this process: neither
//! the calling thread's own, nor one that it has inherited of the thread that started it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::topology::CpuSet;

/// A thread's CPU mask (sched_getaffinity(2)).
#[derive(Clone, Copy)]
pub(crate) struct Mask(libc::cpu_set_t);

impl Mask {
    /// The calling thread's mask.
    pub(crate) fn of_current_thread() -> Option<Self> {
        // SAFETY: a cpu_set_t is plain bits; the call fills it within its size.
        let (mask, result) = unsafe {
            let mut mask: libc::cpu_set_t = std::mem::zeroed();
            let result = libc::sched_getaffinity(0, size_of_val(&mask), &raw mut mask);
            (mask, result)
        };
        (result == 0).then_some(Self(mask))
    }

    /// Its CPUs.
    pub(crate) fn cpus(&self) -> CpuSet {
        // SAFETY: reads the bits of a valid cpu_set_t, below its size.
        let has = |cpu: &usize| unsafe { libc::CPU_ISSET(*cpu, &self.0) };
        (0..libc::CPU_SETSIZE as usize).filter(has).collect()
    }

    /// How many CPUs it has.
    pub(crate) fn count(&self) -> usize {
        // SAFETY: reads the bits of a valid cpu_set_t.
        unsafe { libc::CPU_COUNT(&self.0) as usize }
    }

    /// Gives the calling thread this mask. CPUs that are gone since are left out by the kernel.
    pub(crate) fn apply(&self) {
        // SAFETY: reads a valid cpu_set_t within its size.
        unsafe { libc::sched_setaffinity(0, size_of_val(&self.0), &raw const self.0) };
    }
}

thread_local! {
    /// Where this thread might run before it was pinned, and how many of its pinnings last.
    static BEFORE: Cell<Option<(Mask, usize)>> = const { Cell::new(None) };
}

/// Where a thread might run before it was pinned to a CPU, by that CPU. Entries stay: a thread that
/// was started by a pinned one may outlive it, and looks like one that the user has pinned there.
static SEATS: Mutex<BTreeMap<usize, Mask>> = Mutex::new(BTreeMap::new());

fn seats() -> MutexGuard<'static, BTreeMap<usize, Mask>> {
    SEATS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where the calling thread might run before it, or the pinned thread that it descends from, was
/// pinned here; `None` if none was.
pub(crate) fn unpinned() -> Option<Mask> {
    BEFORE.get().map(|(mask, _)| mask).or_else(|| inherited(&Mask::of_current_thread()?))
}

/// A mask of one CPU that this process has pinned a thread to was inherited of that thread.
fn inherited(mask: &Mask) -> Option<Mask> {
    let cpus = mask.cpus();
    let only = cpus.0.first().filter(|_| cpus.0.len() == 1)?;
    seats().get(&only.0).copied()
}

/// Pins the calling thread. False if the kernel refuses.
pub(crate) fn pin(cpu: usize) -> bool {
    let before = unpinned().or_else(Mask::of_current_thread);
    if !core_affinity::set_for_current(core_affinity::CoreId { id: cpu }) {
        return false;
    }
    if let Some(before) = before {
        let pinnings = BEFORE.get().map_or(0, |(_, pinnings)| pinnings);
        BEFORE.set(Some((before, pinnings + 1)));
        seats().insert(cpu, before);
    }
    true
}

/// Takes one pinning back. `outer` is where the thread was when that began: it stays there while
/// another pinning lasts.
pub(crate) fn unpin(outer: &Mask) {
    match BEFORE.get() {
        Some((before, pinnings)) if pinnings > 1 => {
            BEFORE.set(Some((before, pinnings - 1)));
            outer.apply();
        }
        Some((before, _)) => {
            BEFORE.set(None);
            before.apply();
        }
        None => {}
    }
}

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mask")
    }
}
