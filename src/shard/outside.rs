//! A shard whose turns are a matter of somebody else's loop, which polls its descriptor in between.
//!
//! `Runtime::turn` and its neighbours come here. Invariant: while the loop does not run and
//! somebody watches, the sleep stays announced, so that a wake from another thread makes the
//! descriptor readable; and what was there before the announcement has made it readable already.

use std::os::fd::OwnedFd;

use super::Shard;
use crate::clock::{self, Instant};
use crate::driver::Wait;
use crate::error::{Errno, Error};

impl Shard {
    /// One pass of the loop that sleeps at its beginning, until `limit`, if nothing is ready: what
    /// it has waited for is handled when it returns.
    pub(crate) fn turn_waiting_first(&self, limit: Wait) -> Result<(), Errno> {
        self.forget_main();
        self.submit_or_park(limit)?;
        self.work();
        self.submit_or_park(Wait::No)
    }

    /// A duplicate of the descriptor that is readable while a turn has something to do.
    pub(crate) fn watch(&self) -> Result<OwnedFd, Error> {
        let mut driver = self.driver.borrow_mut();
        let watched = driver.watch().map_err(|errno| Error::io("watching the ring", errno))?;
        let Some(watched) = watched else {
            return Err(Error::unsupported(
                "the threads engine waits inside of its system calls, so it has no descriptor to \
                 poll; use the uring or the epoll engine",
            ));
        };
        let duplicate = watched.try_clone_to_owned();
        let duplicate = duplicate
            .map_err(|error| Error::io("duplicating a descriptor", Errno::from_io(&error)))?;
        drop(driver);
        self.is_watched.set(true);
        self.leave_watched();
        Ok(duplicate)
    }

    /// The loop stops running for now: has the descriptor tell of what is there and what comes.
    pub(crate) fn leave_watched(&self) {
        if !self.is_watched.get() {
            return;
        }
        self.forget_main();
        // An error is for the next turn, which will meet it again.
        let _ = self.submit_or_park(Wait::No);
        self.driver.borrow().forget_told();
        self.sleeper.announce();
        self.tell_if_busy();
    }

    /// Has the descriptor tell that a turn has something to do, if it has and somebody watches.
    pub(crate) fn tell_if_busy(&self) {
        if self.is_watched.get() && self.is_busy() {
            self.driver.borrow().tell();
        }
    }

    /// Whether a turn has something to do now.
    fn is_busy(&self) -> bool {
        self.executor.is_ready() || self.has_messages() || self.driver.borrow_mut().has_news()
    }

    /// When a turn has something to do at the latest: now, or at the next timer.
    pub(crate) fn next_deadline(&self) -> Instant {
        self.forget_main();
        let now = clock::now();
        let deadline = self.timers.borrow().next_deadline();
        let may_jump = self.shared.has_paused_clock() && deadline != Instant::NEVER;
        if may_jump || self.is_busy() { now } else { deadline.max(now) }
    }
}
