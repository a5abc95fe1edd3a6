//! What goes wrong on the failing file system, and when.
//!
//! A test sets rules while the file system is in use; the file system asks before every call.
//! Invariant: a rule hits calls in the order in which they arrive, and no more than it says.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::diary::Diary;

/// What a rule is about. A write of a file opened with `O_DSYNC` or `O_SYNC`, or one with
/// `RWF_DSYNC`, is a `Write` and then a `Sync`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Open,
    Create,
    Read,
    Write,
    Sync,
    SyncDirectory,
    Allocate,
    Truncate,
    Rename,
    Unlink,
}

/// A call is held no longer: a process that is to end cannot while its call is held, not even the
/// one that serves the file system.
const HELD_MAX: Duration = Duration::from_secs(40);

const CALLS: usize = Call::Unlink as usize + 1;

/// What a hit call does instead of its work.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Effect {
    /// Fails with this error and does nothing.
    Fail(i32),
    /// Reads or writes the first half, at least one byte.
    Shorten,
    /// Waits until [`Faults::heal`], then works; at most [`HELD_MAX`].
    Hold,
    /// Works after this time.
    Delay(Duration),
}

/// Calls that something happens to: all of a kind, from the next one on, unless told otherwise.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    call: Call,
    name: &'static str,
    skipped: u64,
    times: u64,
    effect: Effect,
}

impl Rule {
    pub(crate) fn new(call: Call, effect: Effect) -> Self {
        Self { call, name: "", skipped: 0, times: u64::MAX, effect }
    }

    /// Spares this many calls first.
    pub(crate) fn after(self, calls: u64) -> Self {
        Self { skipped: calls, ..self }
    }

    /// Hits this many calls.
    pub(crate) fn times(self, times: u64) -> Self {
        Self { times, ..self }
    }

    /// Hits only files whose name contains this.
    pub(crate) fn named(self, name: &'static str) -> Self {
        Self { name, ..self }
    }
}

#[derive(Default)]
struct State {
    rules: Vec<Rule>,
    counts: [u64; CALLS],
    hits: u64,
    held: usize,
    healed: u64,
    /// By how many bytes files have grown since the beginning.
    grown: i64,
    /// Up to where they may grow.
    growth_max: Option<i64>,
}

/// The faults of one file system, shared by the test and the file system.
#[derive(Default)]
pub(crate) struct Faults {
    state: Mutex<State>,
    changed: Condvar,
    /// What was done.
    pub(super) diary: Diary,
}

impl Faults {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a rule. Where several match, the first one hits.
    pub(crate) fn add(&self, rule: Rule) {
        self.state().rules.push(rule);
    }

    /// Ends every rule, gives room, and lets held calls go.
    pub(crate) fn heal(&self) {
        let mut state = self.state();
        state.rules.clear();
        state.growth_max = None;
        state.healed += 1;
        self.changed.notify_all();
    }

    /// Files may grow by this many bytes in all, then the disk is full. Overwriting stays possible.
    pub(crate) fn leave_room(&self, bytes: i64) {
        let mut state = self.state();
        state.growth_max = Some(state.grown + bytes);
    }

    /// How many calls of this kind have arrived.
    pub(crate) fn count(&self, call: Call) -> u64 {
        self.state().counts[call as usize]
    }

    /// How many calls were hit by a rule, or by the lack of room.
    pub(crate) fn hits(&self) -> u64 {
        self.state().hits
    }

    /// How many calls are held now.
    pub(crate) fn held(&self) -> usize {
        self.state().held
    }

    /// Asked by the file system when a call on a file of this name arrives.
    /// True: do half of it. An error: do nothing.
    pub(super) fn arrives(&self, call: Call, name: &str) -> Result<bool, i32> {
        let mut state = self.state();
        state.counts[call as usize] += 1;
        let mut effect = None;
        for rule in &mut state.rules {
            if rule.call != call || rule.times == 0 || !name.contains(rule.name) {
                continue;
            }
            if rule.skipped > 0 {
                rule.skipped -= 1;
                continue;
            }
            rule.times -= 1;
            effect = Some(rule.effect);
            break;
        }
        let Some(effect) = effect else { return Ok(false) };
        state.hits += 1;
        match effect {
            Effect::Fail(errno) => Err(errno),
            Effect::Shorten => Ok(true),
            Effect::Hold => {
                let healed = state.healed;
                state.held += 1;
                let is_held = |state: &mut State| state.healed == healed;
                let waited = self.changed.wait_timeout_while(state, HELD_MAX, is_held);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
                state.held -= 1;
                Ok(false)
            }
            Effect::Delay(delay) => {
                drop(state);
                std::thread::sleep(delay);
                Ok(false)
            }
        }
    }

    /// How many of the bytes by which a file is about to grow find room.
    pub(super) fn room_for(&self, growth: i64) -> i64 {
        let mut state = self.state();
        let room = state.growth_max.map_or(growth, |max| (max - state.grown).clamp(0, growth));
        if room < growth {
            state.hits += 1;
        }
        room
    }

    /// Files have grown by this much, or have shrunk.
    pub(super) fn grew(&self, bytes: i64) {
        self.state().grown += bytes;
    }
}
