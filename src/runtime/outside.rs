//! A runtime whose turns are run by somebody else's loop: a GUI's, a game's, another runtime's.
//!
//! ```
//! # use std::os::fd::AsRawFd;
//! # use std::time::Duration;
//! # use annulus::{Engine, Runtime, clock, task};
//! # let runtime = Runtime::builder().engine(Engine::Epoll).shards(1).build()?;
//! let descriptor = runtime.descriptor()?;
//! let answer = { let _entered = runtime.enter()?; task::spawn(async { 42 }) };
//! while !answer.is_finished() {
//!     // The other loop sleeps until its own events, this descriptor, or this long:
//!     let timeout = runtime.next_deadline().map(|deadline| deadline.since(clock::now()));
//!     # let _ = (descriptor.as_raw_fd(), timeout);
//!     runtime.turn(Some(Duration::ZERO))?;
//! }
//! # annulus::Result::Ok(())
//! ```
//!
//! `examples/inside_another_loop.rs` is a whole program.

use std::os::fd::OwnedFd;
use std::time::Duration;

use super::Runtime;
use crate::clock::{self, Instant};
use crate::driver::Wait;
use crate::error::{Error, Result};
use crate::shard::FOR_EVER;

impl Runtime {
    /// Runs one turn of shard 0. If nothing is ready it first sleeps until something is, for
    /// `timeout` at most (`None`: for as long as it takes; zero: not at all). One turn handles what
    /// has happened and polls the tasks that are ready, or as many as half a millisecond suffices
    /// for; ask [`Runtime::next_deadline`] whether there is more.
    ///
    /// # Errors
    /// As [`Runtime::try_block_on`], and if the driver fails for good.
    pub fn turn(&self, timeout: Option<Duration>) -> Result<()> {
        self.run(|shard| {
            let limit = match timeout {
                None => FOR_EVER,
                Some(Duration::ZERO) => Wait::No,
                Some(timeout) => Wait::Until(clock::now() + timeout),
            };
            shard.turn_waiting_first(limit).map_err(|errno| Error::io("turning shard 0", errno))
        })?
    }

    /// A descriptor that is readable whenever a turn has something to do, but for timers: for
    /// poll(2) and its kin, level-triggered or not. Wakes from other threads make it readable too.
    ///
    /// It is a duplicate that the caller owns. Use it for nothing but waiting.
    ///
    /// # Errors `is_unsupported` under the `threads` engine; `is_closed` after [`Runtime::close`];
    /// the errors of dup(2).
    pub fn descriptor(&self) -> Result<OwnedFd> {
        self.home()?.watch()
    }

    /// When to run a turn at the latest, should the descriptor not become readable before: not
    /// after [`clock::now`] if there is something to do, else when the next timer is due; `None`
    /// without a timer. With a paused clock, which does not wait, there is always something to do
    /// while there is a timer.
    pub fn next_deadline(&self) -> Option<Instant> {
        let deadline = self.home().ok()?.next_deadline();
        (deadline != Instant::NEVER).then_some(deadline)
    }
}
