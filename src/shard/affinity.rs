//! The CPUs that a thread may run on, kept so that they can be put back.

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

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mask")
    }
}
