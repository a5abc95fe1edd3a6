//! Who runs first where shards and computations meet on a CPU.
//!
//! Among threads of equal weight Linux runs the one with the earliest virtual deadline, and a
//! thread that asks for short slices has an early one (EEVDF, Linux 6.12, sched_setattr(2)). A
//! shard asks for the shortest: it then goes before the cpu pool, or any other long computation on
//! its CPU, instead of after the other's slice. Its share of the CPU stays the same.
//!
//! The cpu pool's threads give way by niceness (sched(7)): to a shard that shares their CPU, and to
//! whoever else wakes there for a moment. Against a shard that is never idle they keep a tenth.

use std::cell::Cell;

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

thread_local! {
    /// How many of them the thread has: one for each shard on it.
    static SHORTS: Cell<usize> = const { Cell::new(0) };
}

impl Short {
    /// Without effect where the kernel has no such setting, or where the thread has been given a
    /// policy other than the normal one.
    pub(crate) fn for_current_thread() -> Self {
        SHORTS.set(SHORTS.get() + 1);
        set(SLICE_NS);
        Self(())
    }
}

impl Drop for Short {
    fn drop(&mut self) {
        // Late in the thread's end there is no count any more, and no other shard.
        let is_last = SHORTS.try_with(|shorts| shorts.replace(shorts.get() - 1) == 1);
        if is_last.unwrap_or(true) {
            set(0);
        }
    }
}

/// The calling thread has slices of the usual length until this is dropped, on the same thread:
/// for what it starts meanwhile, which inherits them.
pub(crate) struct Ordinary(());

impl Ordinary {
    /// `None` if it has them anyway.
    pub(crate) fn for_current_thread() -> Option<Self> {
        (SHORTS.get() > 0).then(|| {
            set(0);
            Self(())
        })
    }
}

impl Drop for Ordinary {
    fn drop(&mut self) {
        set(SLICE_NS);
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

    /// The calling thread's slice; `None` where the kernel does not tell.
    fn slice() -> Option<u64> {
        let mut attributes = std::mem::MaybeUninit::<Attributes>::uninit();
        let size = size_of::<Attributes>();
        // SAFETY: the call fills all of the structure, whose size it is told, if it succeeds.
        unsafe {
            let start = attributes.as_mut_ptr();
            let result = libc::syscall(libc::SYS_sched_getattr, 0, start, size, 0);
            (result == 0).then(|| attributes.assume_init().runtime)
        }
    }

    #[test]
    fn slices_are_ordinary_for_a_while_and_short_until_the_last_shard_is_gone() {
        let slices = std::thread::spawn(|| {
            let before = slice();
            assert!(Ordinary::for_current_thread().is_none());
            let (one, other) = (Short::for_current_thread(), Short::for_current_thread());
            let short = slice();
            let ordinary = Ordinary::for_current_thread();
            let meanwhile = slice();
            drop(ordinary);
            let again = slice();
            drop(one);
            let left = slice();
            drop(other);
            (before, short, [meanwhile, slice()], [again, left])
        });
        let (before, short, ordinary, others) = slices.join().unwrap();
        assert_eq!(ordinary, [before; 2]);
        assert_eq!(others, [short; 2], "the kernel tells of slices: {:?}", before != short);
    }

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
