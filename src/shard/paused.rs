//! A shard whose clock stands still while it works, and jumps to the next deadline once it has
//! nothing to do.
//!
//! For tests: what takes hours takes a moment, and always the same course. `submit_or_park` comes
//! here in the place of a sleep. Invariant: the clock moves only when no task is ready, nothing has
//! completed, no message has come, and nothing is under way whose end this process alone decides
//! (a job on another thread, an operation on a file).

use std::sync::Arc;
use std::time::Duration;

use super::Shard;
use crate::clock::{self, Instant};
use crate::driver::Wait;
use crate::error::Errno;
use crate::runtime::Shared;

/// How often a shard looks whether something has completed before the clock jumps.
const LOOKS: usize = 2;

impl Shard {
    /// Looks at the driver without waiting. If there is nothing to do, jumps to the next deadline,
    /// no further than `limit`, or says to wait where time may not move. The sleep has been
    /// announced.
    pub(super) fn look_and_jump(&self, limit: Instant) -> Result<Wait, Errno> {
        // Asked before messages are looked for: work says that it is over after it has sent what it
        // had to say.
        let is_held = self.shared.is_clock_held();
        // What one task sends to another passes through the kernel, which may take a moment.
        for look in 0..LOOKS {
            if look > 0 {
                std::thread::yield_now();
            }
            let mut driver = self.driver.borrow_mut();
            driver.park(Wait::No)?;
            driver.reap(clock::now());
            if self.executor.is_ready() || self.has_messages() {
                return Ok(Wait::No);
            }
        }
        let is_held = is_held || self.driver.borrow().is_working();
        let deadline = self.timers.borrow().next_deadline().min(limit);
        if is_held || deadline == Instant::NEVER {
            self.recorder.flush();
            return Ok(Wait::Until(Instant::NEVER));
        }
        self.move_clock(deadline);
        Ok(Wait::No)
    }

    /// Moves the clock on by hand. False if it follows the real one.
    pub(crate) fn advance(&self, duration: Duration) -> bool {
        if self.shared.has_paused_clock() {
            self.move_clock(clock::now() + duration);
        }
        self.shared.has_paused_clock()
    }

    /// Never back, and never to the end of time, at which nothing happens any more.
    fn move_clock(&self, instant: Instant) {
        const LAST: Instant = Instant::from_nanos(Instant::NEVER.as_nanos() - 1);
        let now = instant.max(clock::now()).min(LAST);
        clock::pause_at(Some(now));
        self.executor.set_now(now);
    }
}

/// Work of a runtime on another thread, for which a paused clock stands still. Dropped by that
/// thread after it has sent the result.
pub(crate) struct ClockHold(Arc<Shared>);

impl ClockHold {
    /// `None` where the clock is not paused, so that there is nothing to hold.
    pub(crate) fn new(shared: &Arc<Shared>) -> Option<Self> {
        shared.has_paused_clock().then(|| {
            shared.hold_clock();
            Self(Arc::clone(shared))
        })
    }
}

impl Drop for ClockHold {
    fn drop(&mut self) {
        self.0.release_clock();
    }
}
