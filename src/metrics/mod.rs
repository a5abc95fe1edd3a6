//! Histograms and counters that every layer feeds, always on.
//!
//! Shards, drivers and services record through a [`Recorder`]; `/metrics`, `/stats` and the bench
//! read a merged [`Snapshot`] from the [`Registry`]. This folder imports nothing from the crate and
//! reads no clock: callers bring durations in nanoseconds.
//!
//! A record costs a store into a small buffer of the thread. The histograms live in a few
//! *stripes*, each behind a mutex that is taken once per flush; a shard flushes once per turn, so a
//! stripe of its own is never contended.
//!
//! Invariant: whatever a recorder was given is in its stripe after `flush`, and a recorder flushes
//! when its buffer is full and when it is dropped.

pub mod figure;
mod measure;
mod render;
mod snapshot;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_utils::CachePadded;
use hdrhistogram::Histogram;

pub use measure::{Counter, Measure};
pub use snapshot::{Snapshot, Summary};

/// Longest duration that is told apart: one hour. Longer ones count as one hour.
pub const DURATION_NS_MAX: u64 = 3_600_000_000_000;

/// Records that a recorder holds back before it flushes by itself.
const BUFFERED_RECORDS_MAX: usize = 64;

/// A buffered record is one word: the measure above, the nanoseconds below.
const MEASURE_SHIFT: u32 = 56;
const NANOS_MASK: u64 = (1 << MEASURE_SHIFT) - 1;

const _: () = assert!(DURATION_NS_MAX <= NANOS_MASK);
const _: () = assert!(Measure::ALL.len() <= 1 << (u64::BITS - MEASURE_SHIFT));
const _: () = assert!(Counter::ALL.len() <= u64::BITS as usize, "one bit of `dirty` per counter");

/// What one group of recorders has recorded so far.
pub(crate) struct Stripe {
    /// Made at the first record of its measure: most stripes never see most measures.
    histograms: [Option<Histogram<u64>>; Measure::ALL.len()],
    sums_ns: [u64; Measure::ALL.len()],
    counters: [u64; Counter::ALL.len()],
}

impl Stripe {
    fn new() -> Self {
        Self {
            histograms: [const { None }; Measure::ALL.len()],
            sums_ns: [0; Measure::ALL.len()],
            counters: [0; Counter::ALL.len()],
        }
    }

    fn record(&mut self, measure: usize, nanos: u64) {
        let histogram = self.histograms[measure].get_or_insert_with(new_histogram);
        histogram.saturating_record(nanos);
        self.sums_ns[measure] = self.sums_ns[measure].saturating_add(nanos);
    }
}

/// Two significant digits: a quantile is off by at most one percent, for some 36 KiB each.
fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, DURATION_NS_MAX, 2).expect("constant bounds are valid")
}

type SharedStripe = CachePadded<Mutex<Stripe>>;

/// A panic while recording leaves counts that are still worth reading.
fn lock(stripe: &SharedStripe) -> MutexGuard<'_, Stripe> {
    stripe.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All histograms and counters of one runtime. Cloning shares them.
#[derive(Clone)]
pub struct Registry {
    stripes: Arc<[Arc<SharedStripe>]>,
    histograms_on: bool,
}

impl Registry {
    /// A registry of `stripes` independent groups, usually one per shard.
    ///
    /// # Panics
    ///
    /// If `stripes` is zero.
    pub fn new(stripes: usize) -> Self {
        assert!(stripes > 0, "a registry needs a stripe");
        let stripe = || Arc::new(CachePadded::new(Mutex::new(Stripe::new())));
        Self { stripes: (0..stripes).map(|_| stripe()).collect(), histograms_on: true }
    }

    /// The same with counters only, so that a bench can say what the histograms cost.
    pub fn without_histograms(stripes: usize) -> Self {
        Self { histograms_on: false, ..Self::new(stripes) }
    }

    /// A recorder for one thread, feeding stripe `stripe` modulo their number.
    ///
    /// It holds about a kilobyte: the `threads` engine makes one per connection.
    pub fn recorder(&self, stripe: usize) -> Recorder {
        let buffered_max = if self.histograms_on { BUFFERED_RECORDS_MAX } else { 0 };
        Recorder {
            stripe: Arc::clone(&self.stripes[stripe % self.stripes.len()]),
            buffer: vec![Cell::new(0); buffered_max].into_boxed_slice(),
            buffered: Cell::new(0),
            counters: [const { Cell::new(0) }; Counter::ALL.len()],
            dirty: Cell::new(0),
        }
    }

    /// How many stripes there are.
    pub fn stripes(&self) -> usize {
        self.stripes.len()
    }

    /// Everything flushed so far, merged over the stripes.
    pub fn snapshot(&self) -> Snapshot {
        // What this very thread has recorded belongs to it.
        flush();
        let mut snapshot = Snapshot::new();
        for stripe in self.stripes.iter() {
            snapshot.merge(&lock(stripe));
        }
        snapshot
    }

    /// What was flushed to one stripe so far: the figures of one shard. `None` past the last.
    pub fn stripe_snapshot(&self, stripe: usize) -> Option<Snapshot> {
        flush();
        let stripe = self.stripes.get(stripe)?;
        let mut snapshot = Snapshot::new();
        snapshot.merge(&lock(stripe));
        Some(snapshot)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Registry")
            .field("stripes", &self.stripes.len())
            .field("histograms_on", &self.histograms_on)
            .finish()
    }
}

/// One thread's way into a [`Registry`]: a store per record, a lock per flush.
pub struct Recorder {
    stripe: Arc<SharedStripe>,
    /// Empty when histograms are off, so that `record` needs no other test.
    buffer: Box<[Cell<u64>]>,
    buffered: Cell<usize>,
    counters: [Cell<u64>; Counter::ALL.len()],
    /// Which counters hold something: one bit each.
    dirty: Cell<u64>,
}

impl Recorder {
    /// Counts one event of `nanos` nanoseconds. More than an hour counts as an hour.
    #[inline]
    pub fn record(&self, measure: Measure, nanos: u64) {
        let word = (measure as u64) << MEASURE_SHIFT | nanos.min(DURATION_NS_MAX);
        let position = self.buffered.get();
        match self.buffer.get(position) {
            Some(cell) => {
                cell.set(word);
                self.buffered.set(position + 1);
            }
            None => self.record_when_full(word),
        }
    }

    /// Adds `n` to a counter.
    #[inline]
    pub fn add(&self, counter: Counter, n: u64) {
        let cell = &self.counters[counter as usize];
        cell.set(cell.get() + n);
        self.dirty.set(self.dirty.get() | 1 << counter as u32);
    }

    /// Whether so much is held back that [`Recorder::flush`] is worth its lock.
    #[inline]
    pub fn is_half_full(&self) -> bool {
        self.buffered.get() >= BUFFERED_RECORDS_MAX / 2
    }

    /// Hands everything held back to the stripe. Call it when [`Recorder::is_half_full`], now and
    /// then, and before a long wait.
    #[inline]
    pub fn flush(&self) {
        if self.buffered.get() != 0 || self.dirty.get() != 0 {
            self.flush_held();
        }
    }

    #[cold]
    fn record_when_full(&self, word: u64) {
        // Without a buffer histograms are off, and the record is dropped.
        if let Some(first) = self.buffer.first() {
            self.flush_held();
            first.set(word);
            self.buffered.set(1);
        }
    }

    fn flush_held(&self) {
        let mut stripe = lock(&self.stripe);
        for cell in &self.buffer[..self.buffered.replace(0)] {
            let word = cell.get();
            stripe.record((word >> MEASURE_SHIFT) as usize, word & NANOS_MASK);
        }
        let mut dirty = self.dirty.replace(0);
        while dirty != 0 {
            let counter = dirty.trailing_zeros() as usize;
            stripe.counters[counter] += self.counters[counter].replace(0);
            dirty &= dirty - 1;
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.flush();
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let buffered = self.buffered.get();
        formatter.debug_struct("Recorder").field("buffered", &buffered).finish_non_exhaustive()
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<Recorder>>> = const { RefCell::new(None) };
}

/// Makes `recorder` the one that [`record`] and [`add`] use on this thread, until the value that
/// is returned is dropped; then the one before is back.
pub fn enter(recorder: Rc<Recorder>) -> Entered {
    Entered { before: CURRENT.with(|current| current.replace(Some(recorder))) }
}

/// Keeps a recorder current on this thread; see [`enter`].
#[derive(Debug)]
#[must_use = "the recorder stops being current when this is dropped"]
pub struct Entered {
    before: Option<Rc<Recorder>>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let before = self.before.take();
        // Whoever asks from outside from now on sees everything.
        flush();
        // The thread may be ending, and its locals with it. What is replaced is dropped outside.
        drop(CURRENT.try_with(|current| current.replace(before)));
    }
}

/// Records on this thread's current recorder; without one, nothing happens.
#[inline]
pub fn record(measure: Measure, nanos: u64) {
    with(|recorder| recorder.record(measure, nanos));
}

/// Adds to a counter of this thread's current recorder; without one, nothing happens.
#[inline]
pub fn add(counter: Counter, n: u64) {
    with(|recorder| recorder.add(counter, n));
}

/// Flushes this thread's current recorder, if there is one.
pub fn flush() {
    with(Recorder::flush);
}

/// Calls `action` with this thread's current recorder, if there is one: for several records at
/// once. It must record and nothing else.
#[inline]
pub fn with(action: impl FnOnce(&Recorder)) {
    // Nothing that `action` calls borrows `CURRENT` again: recorders know only stripes.
    let _ = CURRENT.try_with(|current| {
        if let Some(recorder) = current.borrow().as_deref() {
            action(recorder);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_in_the_snapshot_after_flush_and_not_before() {
        let registry = Registry::new(1);
        let recorder = registry.recorder(0);
        recorder.record(Measure::Turn, 1_000);
        assert_eq!(registry.snapshot().summary(Measure::Turn).count, 0);
        recorder.flush();
        let summary = registry.snapshot().summary(Measure::Turn);
        assert_eq!(summary.count, 1);
        assert_eq!(summary.mean_ns, 1_000);
        assert_eq!(registry.snapshot().summary(Measure::Poll).count, 0);
    }

    #[test]
    fn a_full_buffer_flushes_by_itself_and_drop_flushes_the_rest() {
        let registry = Registry::new(1);
        let recorder = registry.recorder(0);
        for _ in 0..=BUFFERED_RECORDS_MAX {
            recorder.record(Measure::Poll, 5);
        }
        let count = || registry.snapshot().summary(Measure::Poll).count;
        assert_eq!(count(), BUFFERED_RECORDS_MAX as u64);
        drop(recorder);
        assert_eq!(count(), BUFFERED_RECORDS_MAX as u64 + 1);
    }

    #[test]
    fn stripes_are_separate_and_merge_in_the_snapshot() {
        let registry = Registry::new(2);
        for stripe in 0..4 {
            let recorder = registry.recorder(stripe);
            recorder.record(Measure::Send, 10 * (stripe as u64 + 1));
            recorder.add(Counter::BytesSent, 100);
        }
        assert_eq!(registry.snapshot().summary(Measure::Send).count, 4);
        assert_eq!(registry.snapshot().counter(Counter::BytesSent), 400);
        let second = registry.stripe_snapshot(1).expect("two stripes");
        assert_eq!(second.summary(Measure::Send).count, 2);
        assert_eq!(second.counter(Counter::BytesSent), 200);
        assert!(registry.stripe_snapshot(2).is_none());
    }

    #[test]
    fn a_duration_beyond_the_range_counts_as_the_longest() {
        let registry = Registry::new(1);
        let recorder = registry.recorder(0);
        recorder.record(Measure::CpuRun, u64::MAX);
        recorder.record(Measure::CpuRun, 0);
        recorder.flush();
        let summary = registry.snapshot().summary(Measure::CpuRun);
        assert_eq!(summary.count, 2);
        assert!(summary.max_ns >= DURATION_NS_MAX && summary.max_ns < DURATION_NS_MAX / 100 * 102);
    }

    #[test]
    fn counters_count_when_histograms_are_off() {
        let registry = Registry::without_histograms(1);
        let recorder = registry.recorder(0);
        recorder.record(Measure::Turn, 7);
        recorder.add(Counter::Turns, 3);
        recorder.flush();
        assert_eq!(registry.snapshot().summary(Measure::Turn).count, 0);
        assert_eq!(registry.snapshot().counter(Counter::Turns), 3);
    }

    #[test]
    fn free_functions_use_the_recorder_entered_last() {
        let (outer, inner) = (Registry::new(1), Registry::new(1));
        record(Measure::Turn, 1); // No recorder: nothing happens.
        let guard = enter(Rc::new(outer.recorder(0)));
        record(Measure::Turn, 1);
        {
            let _guard = enter(Rc::new(inner.recorder(0)));
            record(Measure::Turn, 1);
            add(Counter::Polls, 2);
        }
        record(Measure::Turn, 1);
        flush();
        drop(guard);
        record(Measure::Turn, 1);
        assert_eq!(outer.snapshot().summary(Measure::Turn).count, 2);
        assert_eq!(inner.snapshot().summary(Measure::Turn).count, 1);
        assert_eq!(inner.snapshot().counter(Counter::Polls), 2);
    }

    #[test]
    fn recorders_move_to_their_threads() {
        fn assert_send<T: Send>() {}
        fn assert_sync<T: Sync>() {}
        assert_send::<Recorder>();
        assert_send::<Registry>();
        assert_sync::<Registry>();
    }
}
