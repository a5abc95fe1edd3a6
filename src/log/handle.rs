//! The log as the rest of the store sees it: append, wait until durable, ask whether writes are
//! welcome. Shared by every thread.
//!
//! Invariant: [`Log::durable`] is over only when the record is on stable storage; once the log has
//! failed, no record becomes durable any more.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::{Arc, PoisonError};
#[cfg(not(loom))]
use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering},
};
use std::task::{Poll, Waker};
use std::time::Duration;

#[cfg(loom)]
use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering},
};

use super::Lsn;
use super::lanes::Lanes;
use crate::clock::{self, Instant};
use crate::limits;
use crate::sync::shared::Waiter;

/// When an acknowledged write is on stable storage. A process that is killed, on a machine that
/// goes on, loses nothing of the first, and of the others what it did in the last few milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Before it is acknowledged. Nothing acknowledged is ever lost.
    Always,
    /// At most the interval later: a crash of the machine loses at most the writes of one interval,
    /// also when a sync hangs, because then writes stall.
    #[default]
    Interval,
    /// When the kernel writes it back: a crash of the machine may lose what was written since the
    /// last change of segments.
    Never,
}

/// Whether writes are welcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// They are.
    Open,
    /// Not now: the disk is behind. [`Log::admitted`] waits until they are.
    Stalled,
    /// They are to be refused for this reason until there is room again.
    Refused(Arc<str>),
}

/// The log has failed: why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LogFailed(pub Arc<str>);

/// The log of a store.
#[derive(Debug)]
pub struct Log {
    pub(super) lanes: Lanes,
    /// The last record known to be on stable storage.
    durable: AtomicU64,
    /// The last record handed to the kernel.
    written: AtomicU64,
    policy: AtomicU8,
    interval_ms: AtomicU64,
    /// Who has writes refused for want of room.
    refusers: AtomicUsize,
    failed: AtomicBool,
    closing: AtomicBool,
    ended: AtomicBool,
    /// Writers wait for a snapshot.
    held: AtomicBool,
    /// Records up to here are to be made durable soon, whatever the policy.
    wanted: AtomicU64,
    /// Grows whenever the writer is to look around.
    calls: AtomicU64,
    /// When the first of what waits was appended.
    pending_since: AtomicU64,
    /// When the first of what is in records but not durable was appended; 0 when all of it is.
    undurable_since: AtomicU64,
    /// Records up to here are needed no more; 0 when that is done.
    trim: AtomicU64,
    reason: Mutex<Arc<str>>,
    waiters: Mutex<Waiters>,
    writer: Waiter,
    pub(super) figures: Figures,
}

/// What the log has done.
#[derive(Debug, Default)]
pub struct Figures {
    /// Records written.
    pub records: AtomicU64,
    /// Bytes of them, padding included.
    pub bytes: AtomicU64,
    /// Bytes in segments that are kept.
    pub segment_bytes: AtomicU64,
    /// Segments that are kept.
    pub segments: AtomicU64,
}

/// Who waits, by ticket.
#[derive(Debug, Default)]
struct Waiters {
    waiting: BTreeMap<u64, (Until, Waker)>,
    next: u64,
}

/// What the writer does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Duty {
    /// Makes durable what is written.
    Sync,
    /// Writes what waits.
    Record,
    /// Nothing, until it is called, or until then.
    Rest(Option<Instant>),
    /// All is done.
    End,
}

/// What somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    Durable(Lsn),
    Admitted,
    Ended,
}

impl Log {
    /// A log with a lane for each partition, which goes on behind record `last`.
    pub fn new(lanes: usize, last: Lsn, policy: Policy, interval: Duration) -> Self {
        Self {
            lanes: Lanes::new(lanes, last.next()),
            durable: AtomicU64::new(last.0),
            written: AtomicU64::new(last.0),
            policy: AtomicU8::new(policy as u8),
            interval_ms: AtomicU64::new(interval.as_millis() as u64),
            refusers: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            held: AtomicBool::new(false),
            wanted: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            pending_since: AtomicU64::new(0),
            undurable_since: AtomicU64::new(0),
            trim: AtomicU64::new(0),
            reason: Mutex::new(Arc::from("")),
            waiters: Mutex::default(),
            writer: Waiter::new(),
            figures: Figures::default(),
        }
    }

    /// Adds changes of a partition. Answers the record that they will be part of.
    #[inline]
    pub fn append(&self, lane: usize, changes: &[u8]) -> Lsn {
        let began = self.about_to_wait();
        let (lsn, first) = self.lanes.append(lane, changes);
        if first {
            self.begin_waiting(began);
        }
        lsn
    }

    /// Adds changes of several partitions, in ascending order, that are durable together or not at
    /// all.
    pub fn append_all(&self, parts: &[(usize, &[u8])]) -> Lsn {
        let began = self.about_to_wait();
        let (lsn, first) = self.lanes.append_all(parts);
        if first {
            self.begin_waiting(began);
        }
        lsn
    }

    /// The time, unless something waits already. Asked before anything is appended: whenever it is
    /// stored later, it is not behind the time of what waits then.
    #[inline]
    fn about_to_wait(&self) -> Option<Instant> {
        (self.lanes.bytes() == 0).then(clock::now)
    }

    fn begin_waiting(&self, began: Option<Instant>) {
        // Otherwise what waited was gathered just now, and the time of that stands.
        if let Some(began) = began {
            self.pending_since.store(began.as_nanos(), Ordering::Release);
        }
        self.writer.wake();
    }

    /// All that waited has been gathered: what waits now has come since `began`.
    pub(super) fn restart_waiting(&self, began: Instant) {
        self.pending_since.store(began.as_nanos(), Ordering::Release);
    }

    /// When the first of what waits was appended, or somewhat earlier.
    pub(super) fn pending_since(&self) -> Instant {
        Instant::from_nanos(self.pending_since.load(Ordering::Acquire))
    }

    /// Records up to `lsn` are in snapshots: segments that hold nothing else may go.
    pub fn trim(&self, lsn: Lsn) {
        self.trim.store(lsn.0, Ordering::Release);
        self.call();
    }

    /// Takes the last record that was said to be needed no more.
    pub(super) fn take_needless(&self) -> Lsn {
        Lsn(self.trim.swap(0, Ordering::AcqRel))
    }

    /// Has the writer look around.
    fn call(&self) {
        self.calls.fetch_add(1, Ordering::AcqRel);
        self.writer.wake();
    }

    /// How often the writer was to look around.
    pub(super) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Acquire)
    }

    /// Waits until something waits for a record, or more calls have come than `calls`.
    pub(super) async fn called(&self, calls: u64) {
        poll_fn(|context| {
            self.writer.wait(context.waker());
            let something = self.pending_bytes() > 0 || self.calls() != calls;
            if something { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Parts what was added to a lane so far, which is in records up to the one answered, from what
    /// is added later, which is not.
    pub fn draw_line(&self, lane: usize) -> Lsn {
        self.lanes.draw_line(lane)
    }

    /// The last durable record.
    #[inline]
    pub fn durable_lsn(&self) -> Lsn {
        Lsn(self.durable.load(Ordering::Acquire))
    }

    /// The last record handed to the kernel.
    pub fn written_lsn(&self) -> Lsn {
        Lsn(self.written.load(Ordering::Acquire))
    }

    /// Waits until record `lsn` is durable.
    ///
    /// Cancel-safe: it only waits.
    ///
    /// # Errors
    /// The log has failed first, or has ended before the record was appended.
    pub async fn durable(&self, lsn: Lsn) -> Result<(), LogFailed> {
        if self.durable_lsn() >= lsn {
            return Ok(());
        }
        // So that it does even if the policy is changed meanwhile to one that promises less.
        self.wanted.fetch_max(lsn.0, Ordering::AcqRel);
        self.wait(Until::Durable(lsn)).await
    }

    /// Has record `lsn` made durable soon, whatever the policy, and waits for that.
    ///
    /// Cancel-safe: it only waits.
    ///
    /// # Errors
    /// The log has failed first.
    pub async fn made_durable(&self, lsn: Lsn) -> Result<(), LogFailed> {
        self.wanted.fetch_max(lsn.0, Ordering::AcqRel);
        self.call();
        self.durable(lsn).await
    }

    /// What the writer does next, if what was appended at `undurable_since` is written and no more.
    pub(super) fn duty(&self, undurable_since: Option<Instant>) -> Duty {
        // Before what waits: all that was appended before the close is written before the end.
        let is_closing = self.is_closing();
        let due = undurable_since.and_then(|since| self.sync_due(since));
        // What is due comes first: under load there is always something pending.
        if due.is_some_and(|due| clock::now() >= due) {
            return Duty::Sync;
        }
        if self.pending_bytes() > 0 {
            return Duty::Record;
        }
        match (is_closing, undurable_since) {
            (true, Some(_)) => Duty::Sync,
            (true, None) => Duty::End,
            (false, _) => Duty::Rest(due),
        }
    }

    /// When what was appended at `since` and is written has to be made durable.
    fn sync_due(&self, since: Instant) -> Option<Instant> {
        // Something is to be durable soon, whatever the policy.
        if self.wanted.load(Ordering::Acquire) > self.durable_lsn().0 {
            return Some(since);
        }
        match self.policy() {
            Policy::Always => Some(since),
            // Half of the time is left for the sync itself.
            Policy::Interval => Some(since + self.interval() / 2),
            Policy::Never => None,
        }
    }

    /// Whether a reply waits for the record that it depends on.
    #[inline]
    pub fn is_strict(&self) -> bool {
        self.policy.load(Ordering::Relaxed) == Policy::Always as u8
    }

    /// When writes become durable.
    pub fn policy(&self) -> Policy {
        const ALWAYS: u8 = Policy::Always as u8;
        const INTERVAL: u8 = Policy::Interval as u8;
        match self.policy.load(Ordering::Relaxed) {
            ALWAYS => Policy::Always,
            INTERVAL => Policy::Interval,
            _ => Policy::Never,
        }
    }

    /// The longest that an acknowledged write is not durable under [`Policy::Interval`].
    pub fn interval(&self) -> Duration {
        Duration::from_millis(self.interval_ms.load(Ordering::Relaxed))
    }

    /// Changes the policy from now on.
    pub fn set_policy(&self, policy: Policy) {
        self.policy.store(policy as u8, Ordering::Relaxed);
        // Through the lock first: see [`Log::wait`].
        self.wake_waiters();
        self.call();
    }

    /// Changes the interval from now on.
    pub fn set_interval(&self, interval: Duration) {
        self.interval_ms.store(interval.as_millis() as u64, Ordering::Relaxed);
        self.wake_waiters();
        self.call();
    }

    /// Whether writes are welcome.
    #[inline]
    pub fn admission(&self) -> Admission {
        if self.refusers.load(Ordering::Acquire) > 0 || self.failed.load(Ordering::Acquire) {
            Admission::Refused(Arc::clone(&self.reason()))
        } else if self.is_behind() {
            Admission::Stalled
        } else {
            Admission::Open
        }
    }

    #[inline]
    fn is_behind(&self) -> bool {
        let pending_bytes = self.lanes.bytes();
        self.held.load(Ordering::Relaxed)
            // Nobody would write it any more.
            || self.closing.load(Ordering::Acquire)
            || pending_bytes > limits::LOG_PENDING_BYTES_MAX
            || self.policy() == Policy::Interval && self.is_late(pending_bytes > 0)
    }

    /// Whether something that may have been acknowledged has not become durable for an interval.
    /// Asked by who writes, so that it holds whatever keeps the log's writer from looking.
    fn is_late(&self, is_pending: bool) -> bool {
        let undurable = self.undurable_since.load(Ordering::Acquire);
        let pending = if is_pending { self.pending_since.load(Ordering::Acquire) } else { 0 };
        // What is in records came before what waits.
        let oldest = if undurable != 0 { undurable } else { pending };
        oldest != 0 && clock::now() > Instant::from_nanos(oldest) + self.interval()
    }

    /// Notes when the first of what is not durable was appended, or that all of it is.
    pub(super) fn set_undurable_since(&self, since: Option<Instant>) {
        let nanos = since.map_or(0, Instant::as_nanos);
        self.undurable_since.store(nanos, Ordering::Release);
    }

    /// Stalls writes because a snapshot is behind, or lets them go on as far as that is concerned.
    pub fn hold_writers(&self, held: bool) {
        if self.held.swap(held, Ordering::AcqRel) && !held {
            self.wake_waiters();
        }
    }

    /// Waits until writes are not stalled any more: welcome, or refused.
    ///
    /// Cancel-safe: it only waits.
    ///
    /// # Errors
    /// The log has failed.
    pub async fn admitted(&self) -> Result<(), LogFailed> {
        self.wait(Until::Admitted).await
    }

    /// What has been done.
    pub fn figures(&self) -> &Figures {
        &self.figures
    }

    /// Bytes that wait for a record.
    pub fn pending_bytes(&self) -> usize {
        self.lanes.bytes()
    }

    /// Has the writer finish: what waits is written and made durable, then it ends.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.call();
    }

    /// Waits until the writer has ended, after [`Log::close`].
    ///
    /// Cancel-safe: it only waits.
    ///
    /// # Errors
    /// The log has failed.
    pub async fn ended(&self) -> Result<(), LogFailed> {
        self.wait(Until::Ended).await
    }

    /// The writer has ended.
    pub(super) fn set_ended(&self) {
        self.ended.store(true, Ordering::Release);
        self.wake_waiters();
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Why the log has failed, if it has.
    pub fn failure(&self) -> Option<LogFailed> {
        self.failed.load(Ordering::Acquire).then(|| LogFailed(Arc::clone(&self.reason())))
    }

    pub(crate) fn set_written(&self, lsn: Lsn) {
        self.written.store(lsn.0, Ordering::Release);
        // Less waits now: writers that were stalled by that may go on.
        self.wake_waiters();
    }

    /// Record `lsn` and all before it are on stable storage.
    pub(crate) fn set_durable(&self, lsn: Lsn) {
        assert!(lsn >= self.durable_lsn(), "what is durable stays so");
        self.durable.store(lsn.0, Ordering::Release);
        self.wake_waiters();
    }

    /// Has writes refused for this reason, until as many calls of [`Log::welcome`].
    pub(crate) fn refuse(&self, reason: String) {
        *self.reason() = reason.into();
        self.refusers.fetch_add(1, Ordering::AcqRel);
        self.wake_waiters();
    }

    /// Takes a refusal back.
    pub(crate) fn welcome(&self) {
        let before = self.refusers.fetch_sub(1, Ordering::AcqRel);
        assert!(before > 0, "only a refusal is taken back");
        self.wake_waiters();
    }

    /// Nothing becomes durable any more.
    pub(super) fn fail(&self, reason: String) -> LogFailed {
        let reason: Arc<str> = reason.into();
        *self.reason() = Arc::clone(&reason);
        self.failed.store(true, Ordering::Release);
        self.wake_waiters();
        LogFailed(reason)
    }

    fn reason(&self) -> MutexGuard<'_, Arc<str>> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiters(&self) -> MutexGuard<'_, Waiters> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self, until: Until) -> bool {
        match until {
            Until::Durable(lsn) => self.durable_lsn() >= lsn,
            Until::Admitted => self.admission() != Admission::Stalled,
            Until::Ended => self.ended.load(Ordering::Acquire),
        }
    }

    /// How a wait stands.
    fn outcome(&self, until: Until) -> Poll<Result<(), LogFailed>> {
        // Before what is waited for: what came about is not denied because the end came after it.
        let failure = self.failure();
        let ended = self.ended.load(Ordering::Acquire);
        if self.is_over(until) {
            return Poll::Ready(Ok(()));
        }
        match (failure, until) {
            (Some(failed), _) => Poll::Ready(Err(failed)),
            (None, Until::Durable(_)) if ended => Poll::Ready(Err(LogFailed(
                "the log was closed before what was written last; that is lost".into(),
            ))),
            (None, _) => Poll::Pending,
        }
    }

    /// Wakes whoever waits for what has come about.
    pub(super) fn wake_waiters(&self) {
        let mut over = Vec::new();
        self.waiters().waiting.retain(|_, (until, waker)| {
            let stays = self.outcome(*until).is_pending();
            if !stays {
                over.push(std::mem::replace(waker, Waker::noop().clone()));
            }
            stays
        });
        over.into_iter().for_each(Waker::wake);
    }

    /// What a writer would take for record `lsn`, by lane.
    #[cfg(test)]
    pub(crate) fn gather(&self, lsn: Lsn) -> Vec<(usize, Vec<u8>)> {
        let mut record = Vec::new();
        self.lanes.gather(lsn, |lane, changes| record.push((lane, changes.to_vec())));
        record
    }

    async fn wait(&self, until: Until) -> Result<(), LogFailed> {
        let mut place = Place { log: self, ticket: None };
        poll_fn(|context| {
            // In line before looking: what comes about later wakes this.
            let mut waiters = self.waiters();
            let is_new = place.ticket.is_none();
            let ticket = *place.ticket.get_or_insert_with(|| {
                waiters.next += 1;
                waiters.next
            });
            waiters.waiting.insert(ticket, (until, context.waker().clone()));
            drop(waiters);
            if let Poll::Ready(outcome) = self.outcome(until) {
                return Poll::Ready(outcome);
            }
            // A strict writer needs no call. Who makes it less strict goes through the lock, then
            // calls it: if that is not seen here, then the call has it see what is wanted here.
            if is_new && matches!(until, Until::Durable(_)) && !self.is_strict() {
                self.call();
            }
            Poll::Pending
        })
        .await
    }
}

/// A place among the waiters, given up on drop.
struct Place<'a> {
    log: &'a Log,
    ticket: Option<u64>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.log.waiters().waiting.remove(&ticket);
        }
    }
}

#[cfg(test)]
#[path = "handle_tests.rs"]
mod tests;
