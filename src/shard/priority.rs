//! Who runs first where shards and computations meet on a CPU.
//!
//! Among threads of equal weight Linux runs the one with the earliest virtual deadline, and a
//! thread that asks for short slices has an early one (EEVDF, Linux 6.12, sched_setattr(2)). A
//! shard asks for the shortest: it then goes before the cpu pool, or any other long computation on
//! its CPU, instead of after the other's slice. Its share of the CPU stays the same.
//!
//! The cpu pool's threads give way by niceness (sched(7)): to a shard that shares their CPU, and to
//! whoever else wakes there for a moment. Against a shard that is never idle they keep a tenth.

/// The shortest slice that the kernel grants.
const SLICE_NS: u64 = 100_000;

/// How nice the threads of the cpu pool are. The mildest that kept the 99th percentile of light
/// requests beside argon2 where it is without (5 did not).
const POOL_NICENESS: i32 = 10;

/// The calling thread, of the cpu pool, gives way from now on.
pub(crate) fn give_way() {
    // SAFETY: takes no pointers; zero is the calling thread. Giving way is always allowed.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, POOL_NICENESS) };
}

/// The calling thread, which a shard may have started, takes slices of the usual length.
pub(crate) fn take_ordinary_slices() {
    set(0);
}

/// `struct sched_attr` of sched_setattr(2), in its first published size.
#[repr(C)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    /// For normal threads: the slice; zero is the default one.
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// The calling thread asks for short slices until this is dropped, on the same thread.
pub(crate) struct Short(());

impl Short {
    /// Without effect where the kernel has no such setting, or where the thread has been given a
    /// policy other than the normal one.
    pub(crate) fn for_current_thread() -> Self {
        set(SLICE_NS);
        Self(())
    }
}

impl Drop for Short {
    fn drop(&mut self) {
        set(0);
    }
}

/// Sets the calling thread's slice and leaves its niceness as it is.
fn set(slice_ns: u64) -> bool {
    // SAFETY: neither call takes a pointer; both ask for the calling thread.
    let (policy, nice) =
        unsafe { (libc::sched_getscheduler(0), libc::getpriority(libc::PRIO_PROCESS, 0)) };
    if policy != libc::SCHED_OTHER {
        return false;
    }
    let attributes = Attributes {
        size: size_of::<Attributes>() as u32,
        policy: libc::SCHED_OTHER as u32,
        flags: 0,
        nice,
        priority: 0,
        runtime: slice_ns,
        deadline: 0,
        period: 0,
    };
    // SAFETY: the attributes are a valid `sched_attr` of the size that they state, which the call
    // only reads.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    result == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asking_for_a_short_slice_keeps_the_niceness() {
        let niceness = std::thread::spawn(|| {
            // SAFETY: neither call takes a pointer.
            let nice = || unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
            // SAFETY: as above; a thread may always give way more.
            unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 7) };
            let short = Short::for_current_thread();
            let during = nice();
            drop(short);
            (during, nice())
        });
        assert_eq!(niceness.join().ok(), Some((7, 7)));
    }
}
