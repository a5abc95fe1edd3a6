//! Signals, on a thread of their own: drain, end at once, re-read the configuration.
//!
//! `serve` listens for SIGHUP from the start, so that it ends nothing, and watches all of them when
//! what they ask for can be done. Before that SIGTERM and SIGINT end the process, which has nothing
//! in hand yet. Invariant: the first SIGTERM or SIGINT asks for a drain, the second ends the
//! process at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
pub use signal_hook::iterator::Signals;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Stop accepting, finish requests in hand, end.
    Drain,
    /// Re-read the configuration.
    Reload,
}

/// Exit code of a process that a second signal ended: it failed to finish what it had in hand.
const ENDED_AT_ONCE: i32 = 1;

/// A drain has begun.
static DRAINING: AtomicBool = AtomicBool::new(false);

/// Asks for a drain, as SIGTERM from outside does. Where there is one, a client's wish is no second
/// signal.
pub fn ask_to_drain() {
    if DRAINING.load(Ordering::Acquire) {
        return;
    }
    if let Err(error) = signal_hook::low_level::raise(SIGTERM) {
        tracing::error!(%error, "the process cannot be asked to end");
    }
}

/// Has a write past the limit on the size of files (RLIMIT_FSIZE) fail as an error, with a reason
/// that can be told, instead of ending the process by SIGXFSZ (setrlimit(2)).
pub fn outlive_limits() -> io::Result<()> {
    let ignored = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGXFSZ, ignored).map(drop)
}

/// Takes SIGHUP from now on, for [`watch`].
pub fn listen() -> io::Result<Signals> {
    Signals::new([SIGHUP])
}

/// Calls `handle` on the signal thread for each request, until the process ends.
pub fn watch(
    mut signals: Signals,
    mut handle: impl FnMut(Request) + Send + 'static,
) -> io::Result<()> {
    signals.add_signal(SIGTERM)?;
    signals.add_signal(SIGINT)?;
    let watch = move || {
        for signal in signals.forever() {
            match signal {
                SIGHUP => handle(Request::Reload),
                _ if DRAINING.swap(true, Ordering::AcqRel) => {
                    tracing::warn!("second signal: ending at once, requests in hand are lost");
                    std::process::exit(ENDED_AT_ONCE);
                }
                _ => handle(Request::Drain),
            }
        }
    };
    thread::Builder::new().name("annulus-signals".into()).spawn(watch).map(drop)
}
