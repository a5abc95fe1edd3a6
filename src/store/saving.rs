//! Snapshots as the rest of the program sees them: ask for one, wait for its end, read how the last
//! one went. Shared by every thread; the work is done by [`super::snapshot`].
//!
//! Invariant: a save that was asked for begins after it was asked for, so it holds everything that
//! was there by then.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock;
use crate::sync::shared::{Event, oneshot};

/// When snapshots are made, and how fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// A snapshot is made once the log has grown by this much since the last one, and by as much as
    /// that took up; 0: the size is no reason.
    pub log_bytes: u64,
    /// A snapshot is made this long after the last one began, if anything was written since; 0: the
    /// time is no reason.
    pub every: Duration,
    /// Bytes a second that snapshots may write; 0: as fast as the disk goes.
    pub rate_bytes: u64,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            log_bytes: 1024 * 1024 * 1024,
            every: Duration::from_secs(3600),
            rate_bytes: 64 * 1024 * 1024,
        }
    }
}

/// What a successful save came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// When it ended, in unix milliseconds.
    pub unix_ms: u64,
    /// How long it took; zero for one made before the program was started.
    pub duration: Duration,
    /// Keys in it; 0 for one made before the program was started.
    pub keys: u64,
    /// Bytes of its files.
    pub bytes: u64,
}

/// A save did not come about: why. What the log and older snapshots hold is untouched by that.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SaveFailed(pub Arc<str>);

/// How saving stands.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// When the save under way was begun, in unix milliseconds.
    pub began_unix_ms: Option<u64>,
    /// The last save that succeeded.
    pub last: Option<Saved>,
    /// What went wrong with the last save, unless it succeeded.
    pub failure: Option<SaveFailed>,
    /// Saves that succeeded since the program was started.
    pub saves: u64,
    /// Saves that failed since then.
    pub failures: u64,
    /// Keys that the save under way has written.
    pub keys_so_far: u64,
    /// Bytes that the save under way has written.
    pub bytes_so_far: u64,
}

#[derive(Debug, Default)]
struct State {
    began_unix_ms: Option<u64>,
    last: Option<Saved>,
    failure: Option<SaveFailed>,
    saves: u64,
    failures: u64,
    /// Whether the next save was asked for.
    asked: bool,
    /// Who waits for the next save.
    asking: Vec<Asker>,
    /// Who waits for the save under way.
    waiting: Vec<Asker>,
}

type Asker = oneshot::Sender<Result<Saved, SaveFailed>>;

/// Saving, shared by who asks for it and who does it.
#[derive(Debug)]
pub struct Saving {
    state: Mutex<State>,
    /// Set when the one who saves is to look around.
    pub(super) call: Event,
    log_bytes: AtomicU64,
    every_ms: AtomicU64,
    rate_bytes: AtomicU64,
    keys_so_far: AtomicU64,
    bytes_so_far: AtomicU64,
}

/// A save that was asked for. Dropping this takes nothing back.
#[derive(Debug)]
#[must_use]
pub struct Requested(oneshot::Receiver<Result<Saved, SaveFailed>>);

impl Requested {
    /// Waits for the end of the save.
    ///
    /// # Errors
    /// The save failed, or the program ends before.
    pub async fn finished(self) -> Result<Saved, SaveFailed> {
        let lost = |_| Err(SaveFailed("the program ends before the save was begun".into()));
        self.0.await.unwrap_or_else(lost)
    }
}

impl Saving {
    /// Saving by `schedule`; `last` is the newest of the snapshots that are there.
    pub fn new(schedule: Schedule, last: Option<Saved>) -> Self {
        let saving = Self {
            state: Mutex::new(State { last, ..State::default() }),
            call: Event::new(),
            log_bytes: AtomicU64::new(0),
            every_ms: AtomicU64::new(0),
            rate_bytes: AtomicU64::new(0),
            keys_so_far: AtomicU64::new(0),
            bytes_so_far: AtomicU64::new(0),
        };
        saving.set_schedule(schedule);
        saving
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a save that begins from now on. One that is under way goes on; another follows it.
    pub fn request(&self) -> Requested {
        let (sender, receiver) = oneshot::channel();
        self.state().asking.push(sender);
        self.ask();
        Requested(receiver)
    }

    /// The same for who does not wait. However often it is called, one save follows.
    pub fn ask(&self) {
        self.state().asked = true;
        self.call.set();
    }

    /// Whether a save is under way, or about to begin because somebody asked for it.
    pub fn is_under_way(&self) -> bool {
        let state = self.state();
        state.began_unix_ms.is_some() || state.asked
    }

    /// How saving stands.
    pub fn report(&self) -> Report {
        let state = self.state();
        Report {
            began_unix_ms: state.began_unix_ms,
            last: state.last,
            failure: state.failure.clone(),
            saves: state.saves,
            failures: state.failures,
            keys_so_far: self.keys_so_far.load(Ordering::Relaxed),
            bytes_so_far: self.bytes_so_far.load(Ordering::Relaxed),
        }
    }

    /// When snapshots are made, and how fast.
    pub fn schedule(&self) -> Schedule {
        Schedule {
            log_bytes: self.log_bytes.load(Ordering::Relaxed),
            every: Duration::from_millis(self.every_ms.load(Ordering::Relaxed)),
            rate_bytes: self.rate_bytes.load(Ordering::Relaxed),
        }
    }

    /// Changes that from now on, for a save under way as well.
    pub fn set_schedule(&self, schedule: Schedule) {
        let every_ms = u64::try_from(schedule.every.as_millis()).unwrap_or(u64::MAX);
        self.log_bytes.store(schedule.log_bytes, Ordering::Relaxed);
        self.every_ms.store(every_ms, Ordering::Relaxed);
        self.rate_bytes.store(schedule.rate_bytes, Ordering::Relaxed);
        self.call.set();
    }

    /// Whether somebody asked for a save that has not begun.
    pub(super) fn is_asked_for(&self) -> bool {
        self.state().asked
    }

    /// Notes that a save begins.
    pub(super) fn begin(&self) {
        let mut state = self.state();
        assert!(state.began_unix_ms.is_none(), "one save at a time");
        state.began_unix_ms = Some(clock::unix_millis());
        state.asked = false;
        state.waiting = std::mem::take(&mut state.asking);
        self.keys_so_far.store(0, Ordering::Relaxed);
        self.bytes_so_far.store(0, Ordering::Relaxed);
    }

    /// Notes that the save under way has come so much further.
    pub(super) fn advance(&self, keys: u64, bytes: u64) {
        self.keys_so_far.fetch_add(keys, Ordering::Relaxed);
        self.bytes_so_far.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Notes how the save under way ended, and tells who asked for it.
    pub(super) fn end(&self, outcome: Result<Saved, SaveFailed>) {
        let mut state = self.state();
        state.began_unix_ms = None;
        match &outcome {
            Ok(saved) => {
                (state.last, state.failure) = (Some(*saved), None);
                state.saves += 1;
            }
            Err(failed) => {
                state.failure = Some(failed.clone());
                state.failures += 1;
            }
        }
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        for asker in waiting {
            // Who went away needs no answer.
            let _gone = asker.send(outcome.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved(keys: u64) -> Saved {
        Saved { unix_ms: 9, duration: Duration::from_millis(5), keys, bytes: 4096 }
    }

    fn answer(requested: &mut Requested) -> Option<Result<Saved, SaveFailed>> {
        requested.0.try_recv().ok()
    }

    #[test]
    fn a_save_answers_those_who_asked_before_it_began() {
        let saving = Saving::new(Schedule::default(), None);
        let mut early = saving.request();
        saving.begin();
        let mut late = saving.request();
        assert!(saving.is_under_way());
        assert!(saving.is_asked_for());
        saving.end(Ok(saved(1)));
        assert_eq!(answer(&mut early), Some(Ok(saved(1))));
        assert_eq!(answer(&mut late), None);
        saving.begin();
        saving.end(Ok(saved(2)));
        assert_eq!(answer(&mut late), Some(Ok(saved(2))));
    }

    #[test]
    fn asking_often_is_asking_once() {
        let saving = Saving::new(Schedule::default(), None);
        saving.begin();
        for _ in 0..1000 {
            saving.ask();
        }
        assert_eq!(saving.state().asking.capacity(), 0);
        saving.end(Ok(saved(1)));
        assert!(saving.is_asked_for());
        saving.begin();
        assert!(!saving.is_asked_for());
    }

    #[test]
    fn a_failure_is_told_until_a_save_succeeds_and_hides_no_earlier_success() {
        let saving = Saving::new(Schedule::default(), None);
        saving.begin();
        saving.end(Ok(saved(1)));
        saving.begin();
        saving.advance(7, 70);
        let full = SaveFailed("no room".into());
        saving.end(Err(full.clone()));
        let report = saving.report();
        assert_eq!((report.last, report.failure), (Some(saved(1)), Some(full)));
        assert_eq!((report.saves, report.failures), (1, 1));
        saving.begin();
        assert_eq!(saving.report().keys_so_far, 0);
        saving.end(Ok(saved(3)));
        assert_eq!(saving.report().failure, None);
    }
}
