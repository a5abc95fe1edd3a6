//! The signal handler, and the seats that it serves.
//!
//! A handler may run on any thread between any two instructions, so it takes no lock: seats are
//! atomics in a fixed table. Invariant: a seat's eventfd is closed only after the seat was emptied
//! and no handler runs that may have seen it full.

use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::driver::EventFd;
use crate::error::{Errno, Error, Result};
use crate::limits;

/// The largest signal number of Linux (signal(7)).
pub(super) const SIGNAL_MAX: i32 = 64;

/// How often an emptied seat looks for handlers that still run before its eventfd is left open.
const LOOKS_MAX: usize = 100_000;

/// One stream, as the handler sees it.
struct Place {
    /// The signal that the stream listens to; zero in an empty place.
    signal: AtomicI32,
    event: AtomicI32,
    has_come: AtomicBool,
}

static PLACES: [Place; limits::SIGNAL_STREAMS_COUNT_MAX] = [const {
    Place { signal: AtomicI32::new(0), event: AtomicI32::new(-1), has_come: AtomicBool::new(false) }
}; limits::SIGNAL_STREAMS_COUNT_MAX];

/// Handlers that run at the moment.
static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// What other code had installed for each signal: a function that is still called, or zero.
static BEFORE: [AtomicUsize; SIGNAL_MAX as usize + 1] =
    [const { AtomicUsize::new(0) }; SIGNAL_MAX as usize + 1];

/// Whether that function takes three arguments (SA_SIGINFO).
static BEFORE_TAKES_INFO: [AtomicBool; SIGNAL_MAX as usize + 1] =
    [const { AtomicBool::new(false) }; SIGNAL_MAX as usize + 1];

/// What each signal did before the first stream, while there are streams.
type Actions = [Option<libc::sigaction>; SIGNAL_MAX as usize + 1];

static ACTIONS: Mutex<Actions> = Mutex::new([None; SIGNAL_MAX as usize + 1]);

fn actions() -> MutexGuard<'static, Actions> {
    ACTIONS.lock().unwrap_or_else(PoisonError::into_inner)
}

extern "C" fn handle(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    RUNNING.fetch_add(1, Ordering::SeqCst);
    // SAFETY: the location of this thread's errno; what the interrupted code left is put back.
    let errno = unsafe { *libc::__errno_location() };
    for place in &PLACES {
        if place.signal.load(Ordering::SeqCst) == signal {
            place.has_come.store(true, Ordering::SeqCst);
            let one = 1u64.to_ne_bytes();
            // SAFETY: write(2) is async-signal-safe; eight bytes of a valid array; the eventfd is
            // open: it is closed only when no handler runs that saw the place taken. EAGAIN at a
            // full counter is as good.
            unsafe {
                let event = place.event.load(Ordering::SeqCst);
                libc::write(event, one.as_ptr().cast(), one.len());
            }
        }
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
    RUNNING.fetch_sub(1, Ordering::SeqCst);
    call_before(signal, info, context);
}

/// Calls what other code had installed before.
fn call_before(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    type Plain = extern "C" fn(i32);
    type Full = extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void);
    let before = BEFORE[signal as usize].load(Ordering::SeqCst);
    if before == 0 {
        return;
    }
    // SAFETY: the address is that of a handler which was installed for this signal, with the
    // signature that its flag says (sigaction(2)); it gets what the kernel gave.
    unsafe {
        if BEFORE_TAKES_INFO[signal as usize].load(Ordering::SeqCst) {
            std::mem::transmute::<usize, Full>(before)(signal, info, context);
        } else {
            std::mem::transmute::<usize, Plain>(before)(signal);
        }
    }
}

fn action_of(signal: i32) -> std::result::Result<libc::sigaction, Errno> {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: a null new action only asks; the call fills the old one if it succeeds.
    unsafe {
        match libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) {
            0 => Ok(action.assume_init()),
            _ => Err(Errno::last()),
        }
    }
}

fn set_action(signal: i32, action: &libc::sigaction) -> std::result::Result<(), Errno> {
    // SAFETY: the action is valid: from `action_of`, or ours, whose handler is async-signal-safe.
    match unsafe { libc::sigaction(signal, action, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(Errno::last()),
    }
}

fn own_address() -> usize {
    handle as extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) as usize
}

fn is_function(action: &libc::sigaction) -> bool {
    ![libc::SIG_DFL, libc::SIG_IGN].contains(&action.sa_sigaction)
}

/// Installs the handler in the place of what was there, unless it is there. A handler that other
/// code has installed over it since calls this one, as is the custom; to call that in turn would
/// never end. Where other code has put the signal's default or nothing since, it is installed anew.
fn install(signal: i32, actions: &mut Actions) -> std::result::Result<(), Errno> {
    let index = signal as usize;
    let before = action_of(signal)?;
    let is_function = is_function(&before);
    if actions[index].is_some() && is_function {
        if before.sa_sigaction != own_address() {
            tracing::warn!(signal, "another handler is installed over this one; it must call it");
        }
        return Ok(());
    }
    let takes_info = before.sa_flags & libc::SA_SIGINFO != 0;
    BEFORE_TAKES_INFO[index].store(takes_info, Ordering::SeqCst);
    BEFORE[index].store(if is_function { before.sa_sigaction } else { 0 }, Ordering::SeqCst);
    let mut action = before;
    action.sa_sigaction = own_address();
    // SA_ONSTACK: a thread of another language's runtime may have a small stack.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK;
    // SAFETY: fills the set.
    unsafe { libc::sigemptyset(&raw mut action.sa_mask) };
    set_action(signal, &action)?;
    actions[index] = Some(before);
    Ok(())
}

/// Puts back what was there before, unless other code has installed something since.
fn restore(signal: i32, actions: &mut Actions) {
    let Some(before) = &actions[signal as usize] else { return };
    let now = action_of(signal);
    let is_ours = now.is_ok_and(|action| action.sa_sigaction == own_address());
    if now.is_ok_and(|action| !is_function(&action)) {
        // What other code has put there stays.
        actions[signal as usize] = None;
    } else if !is_ours {
        tracing::warn!(signal, "another handler was installed since; both stay");
    } else if let Err(errno) = set_action(signal, before) {
        tracing::warn!(signal, %errno, "what a signal did before could not be restored");
    } else {
        actions[signal as usize] = None;
    }
}

/// A stream's seat at the handler's table. Dropped, it is empty again; with the last one of a
/// signal goes the handler.
pub(super) struct Seat {
    place: &'static Place,
    /// `None` only while being dropped.
    event: Option<EventFd>,
}

impl Seat {
    pub(super) fn take(signal: i32) -> Result<Self> {
        let failed = |errno| Error::io(format!("listening to signal {signal}"), errno);
        let event = EventFd::new().map_err(failed)?;
        let mut actions = actions();
        let empty = PLACES.iter().find(|place| place.signal.load(Ordering::SeqCst) == 0);
        let Some(place) = empty else {
            let max = limits::SIGNAL_STREAMS_COUNT_MAX;
            return Err(Error::limit(format!("{max} streams of signals are open, the most")));
        };
        place.event.store(event.descriptor(), Ordering::SeqCst);
        place.has_come.store(false, Ordering::SeqCst);
        place.signal.store(signal, Ordering::SeqCst);
        // Dropped if the handler cannot be installed, after the lock has been let go.
        let seat = Self { place, event: Some(event) };
        let installed = install(signal, &mut actions);
        drop(actions);
        installed.map_err(failed)?;
        Ok(seat)
    }

    pub(super) fn descriptor(&self) -> RawFd {
        self.event.as_ref().map_or(-1, EventFd::descriptor)
    }

    /// Whether the signal came since the last call. False also means that the descriptor becomes
    /// readable when it comes.
    pub(super) fn has_come(&self) -> bool {
        // Reset first: a handler notes the arrival, then bumps the counter.
        self.event.as_ref().map(EventFd::reset);
        self.place.has_come.swap(false, Ordering::SeqCst)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut actions = actions();
        let signal = self.place.signal.load(Ordering::SeqCst);
        let listens = |place: &&Place| place.signal.load(Ordering::SeqCst) == signal;
        if PLACES.iter().filter(listens).count() == 1 {
            restore(signal, &mut actions);
        }
        self.place.signal.store(0, Ordering::SeqCst);
        // A handler counts itself before it looks at the places: either it finds this one empty, or
        // it is seen here.
        for _ in 0..LOOKS_MAX {
            if RUNNING.load(Ordering::SeqCst) == 0 {
                return;
            }
            std::thread::yield_now();
        }
        tracing::warn!("signal handlers keep running; a descriptor is left open");
        std::mem::forget(self.event.take());
    }
}
