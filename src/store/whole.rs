//! What must not stop halfway: a command over several partitions, and a visit that has changed
//! something. Guards for both, which end the process where one breaks off.
//!
//! A command that panics is a bug, and what it leaves may be half done: keys lent to it are neither
//! here nor there, gates that it has closed stay closed, some of its changes would reach the log
//! with the next visit. None of that can be taken back without a copy of everything that a command
//! touches. So the process says what happened and ends with exit code 1, as it does when the log
//! fails: what was acknowledged is in the log, what was half done is not, and the next start finds
//! each command whole or not at all. A store in memory only is gone then; going on would mean to
//! serve keys that are torn, or to keep clients waiting for good.
//!
//! A panic in a visit that has changed nothing, of a command that only reads, costs its connection
//! and nobody else. So does one in a store in memory only that leaves no gate closed and no key
//! lent.
//!
//! Nothing of this is about a shutdown: that cancels commands where they stand, when nobody is
//! answered any more and the log takes nothing. Invariant: between the moment at which something
//! breaks off and the end of the process nobody visits what it has touched.

use std::ops::{Deref, DerefMut};
use std::thread;

use super::Partition;
use crate::runtime::Handle;

/// A command over several partitions between its first gate and its last.
#[derive(Debug)]
#[must_use]
pub struct Unfinished(());

impl Unfinished {
    /// The command begins to close gates, or to take keys.
    pub fn begin() -> Self {
        Self(())
    }

    /// Every gate is open again, and every key is back.
    pub fn end(self) {
        std::mem::forget(self);
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // A panic, or a shard that has ended alone. Otherwise the runtime ends with it.
        if thread::panicking() || !Handle::try_current().is_ok_and(|handle| handle.is_closed()) {
            break_off("a command over several partitions");
        }
    }
}

/// A partition, lent to a visit.
#[derive(Debug)]
pub(super) struct Visited<G: DerefMut<Target = Partition>>(pub(super) G);

impl<G: DerefMut<Target = Partition>> Deref for Visited<G> {
    type Target = Partition;

    #[inline]
    fn deref(&self) -> &Partition {
        &self.0
    }
}

impl<G: DerefMut<Target = Partition>> DerefMut for Visited<G> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Partition {
        &mut self.0
    }
}

impl<G: DerefMut<Target = Partition>> Drop for Visited<G> {
    #[inline]
    fn drop(&mut self) {
        // What a visit has changed is handed to the log at its end.
        if thread::panicking() && !self.0.changes().is_empty() {
            break_off("a command that changes keys");
        }
    }
}

/// Ends the process, with the partitions at hand still lent.
#[cold]
fn break_off(what: &str) -> ! {
    eprintln!(
        "annulus: {what} broke off halfway, for the reason told above; the process ends, because \
         what it was about to change may be torn; start it again: a store with a directory comes \
         back whole; and report this, please"
    );
    std::process::exit(1);
}
