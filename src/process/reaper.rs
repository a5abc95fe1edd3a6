//! Collects children that nobody waits for any more.
//!
//! One thread for the process, started by the first such child and ended after the last: it serves
//! every runtime, and goes on after a runtime has ended. Invariant: a child in its hands is
//! collected by this thread alone.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::process::Child;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::driver::{self, EventFd};
use crate::error::Errno;

/// How long the thread sleeps while it has a child whose end cannot be awaited: there were no
/// descriptors left.
const LOOK_EVERY_NS: u64 = 50_000_000;

struct Reaper {
    arrived: Vec<Child>,
    /// Ends the thread's sleep; `None` while no thread runs.
    event: Option<Arc<EventFd>>,
}

static REAPER: Mutex<Reaper> = Mutex::new(Reaper { arrived: Vec::new(), event: None });

fn reaper() -> MutexGuard<'static, Reaper> {
    REAPER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes a child over: collects its status now, or when it ends.
pub(super) fn adopt(mut child: Child) {
    if is_over(&mut child) {
        return;
    }
    let mut reaper = reaper();
    reaper.arrived.push(child);
    if let Some(event) = &reaper.event {
        return event.notify();
    }
    let started = EventFd::new().and_then(|event| {
        let event = Arc::new(event);
        let own = Arc::clone(&event);
        let builder = thread::Builder::new().name("annulus-reaper".into());
        builder.spawn(move || reap(&own)).map_err(|error| Errno::from_io(&error))?;
        Ok(event)
    });
    match started {
        Ok(event) => reaper.event = Some(event),
        Err(errno) => {
            tracing::warn!(%errno, "a child is not collected before the next one is dropped");
        }
    }
}

/// Whether nothing is left to collect.
fn is_over(child: &mut Child) -> bool {
    !matches!(child.try_wait(), Ok(None))
}

fn reap(event: &EventFd) {
    let mut children: Vec<(Child, Option<OwnedFd>)> = Vec::new();
    loop {
        {
            let mut reaper = reaper();
            let arrived = std::mem::take(&mut reaper.arrived);
            children.extend(arrived.into_iter().map(|child| {
                let descriptor = driver::open_process(child.id() as libc::pid_t).ok();
                (child, descriptor)
            }));
            children.retain_mut(|(child, _)| !is_over(child));
            if children.is_empty() {
                reaper.event = None;
                return;
            }
        }
        let ends = children.iter().filter_map(|(_, descriptor)| descriptor.as_ref());
        let mut awaited: Vec<RawFd> = ends.map(AsRawFd::as_raw_fd).collect();
        let limit = (awaited.len() < children.len()).then_some(LOOK_EVERY_NS);
        awaited.push(event.descriptor());
        driver::wait_readable(&awaited, limit);
        event.reset();
    }
}
