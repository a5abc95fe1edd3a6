//! What was recorded up to a moment, merged over stripes and ready to be read.
//!
//! Made by the registry, read by the rendering, by `INFO` and by the bench. Invariant: a snapshot
//! never changes; the figures of a time span are the difference of two snapshots.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::{Counter, Measure, Stripe, new_histogram};

/// Merged histograms and counters at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    histograms: Vec<Option<Histogram<u64>>>,
    sums_ns: [u64; Measure::ALL.len()],
    counters: [u64; Counter::ALL.len()],
}

/// The figures of one histogram, in nanoseconds. All zero when nothing was recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many events there were.
    pub count: u64,
    /// The exact sum of all durations.
    pub sum_ns: u64,
    /// The exact mean, rounded down.
    pub mean_ns: u64,
    /// Half of the events took no longer.
    pub p50_ns: u64,
    /// Nine in ten took no longer.
    pub p90_ns: u64,
    /// All but one in a hundred took no longer.
    pub p99_ns: u64,
    /// All but one in a thousand took no longer.
    pub p999_ns: u64,
    /// The longest, to two significant digits.
    pub max_ns: u64,
}

impl Snapshot {
    pub(super) fn new() -> Self {
        Self {
            histograms: vec![None; Measure::ALL.len()],
            sums_ns: [0; Measure::ALL.len()],
            counters: [0; Counter::ALL.len()],
        }
    }

    pub(super) fn merge(&mut self, stripe: &Stripe) {
        for (merged, source) in self.histograms.iter_mut().zip(&stripe.histograms) {
            let Some(source) = source else { continue };
            let merged = merged.get_or_insert_with(new_histogram);
            merged.add(source).expect("all histograms have the same bounds");
        }
        for (merged, source) in self.sums_ns.iter_mut().zip(stripe.sums_ns) {
            *merged = merged.saturating_add(source);
        }
        for (merged, source) in self.counters.iter_mut().zip(stripe.counters) {
            *merged += source;
        }
    }

    /// The histogram of a measure in nanoseconds, or `None` if nothing was ever recorded.
    pub fn histogram(&self, measure: Measure) -> Option<&Histogram<u64>> {
        self.histograms[measure as usize].as_ref()
    }

    /// The value of a counter.
    pub fn counter(&self, counter: Counter) -> u64 {
        self.counters[counter as usize]
    }

    /// The usual figures of a measure.
    pub fn summary(&self, measure: Measure) -> Summary {
        let Some(histogram) = self.histogram(measure) else { return Summary::default() };
        let (count, sum_ns) = (histogram.len(), self.sums_ns[measure as usize]);
        Summary {
            count,
            sum_ns,
            mean_ns: sum_ns.checked_div(count).unwrap_or(0),
            p50_ns: histogram.value_at_quantile(0.5),
            p90_ns: histogram.value_at_quantile(0.9),
            p99_ns: histogram.value_at_quantile(0.99),
            p999_ns: histogram.value_at_quantile(0.999),
            max_ns: histogram.max(),
        }
    }

    /// The duration that a share `quantile` (0 to 1) of the events did not exceed; zero without
    /// events.
    pub fn quantile(&self, measure: Measure, quantile: f64) -> Duration {
        let histogram = self.histogram(measure);
        Duration::from_nanos(histogram.map_or(0, |h| h.value_at_quantile(quantile)))
    }

    /// What happened after `earlier`, which must be an older snapshot of the same registry;
    /// where it is not, the difference stops at zero.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut span = self.clone();
        for (later, before) in span.histograms.iter_mut().zip(&earlier.histograms) {
            let (Some(histogram), Some(before)) = (later.as_mut(), before) else { continue };
            if histogram.subtract(before).is_err() {
                *later = None;
            }
        }
        for (later, before) in span.sums_ns.iter_mut().zip(earlier.sums_ns) {
            *later = later.saturating_sub(before);
        }
        for (later, before) in span.counters.iter_mut().zip(earlier.counters) {
            *later = later.saturating_sub(before);
        }
        span
    }
}

#[cfg(test)]
mod tests {
    use super::super::Registry;
    use super::*;

    #[test]
    fn quantiles_are_within_one_percent() {
        let registry = Registry::new(1);
        let recorder = registry.recorder(0);
        for microseconds in 1..=1_000 {
            recorder.record(Measure::RespRequest, microseconds * 1_000);
        }
        recorder.flush();
        let summary = registry.snapshot().summary(Measure::RespRequest);
        let near = |value: u64, wanted: u64| value.abs_diff(wanted) * 100 <= wanted;
        assert_eq!(summary.count, 1_000);
        assert_eq!(summary.sum_ns, 500_500_000);
        assert_eq!(summary.mean_ns, 500_500);
        assert!(near(summary.p50_ns, 500_000), "{summary:?}");
        assert!(near(summary.p90_ns, 900_000), "{summary:?}");
        assert!(near(summary.p99_ns, 990_000), "{summary:?}");
        assert!(near(summary.p999_ns, 999_000), "{summary:?}");
        assert!(near(summary.max_ns, 1_000_000), "{summary:?}");
    }

    #[test]
    fn a_span_holds_only_what_came_after() {
        let registry = Registry::new(2);
        let recorder = registry.recorder(1);
        recorder.record(Measure::Turn, 1_000_000);
        recorder.add(Counter::Turns, 1);
        recorder.flush();
        let before = registry.snapshot();
        recorder.record(Measure::Turn, 10);
        recorder.record(Measure::Poll, 20);
        recorder.add(Counter::Turns, 4);
        recorder.flush();
        let span = registry.snapshot().since(&before);
        assert_eq!(span.summary(Measure::Turn).count, 1);
        assert_eq!(span.summary(Measure::Turn).sum_ns, 10);
        assert_eq!(span.summary(Measure::Turn).max_ns, 10);
        assert_eq!(span.summary(Measure::Poll).count, 1);
        assert_eq!(span.counter(Counter::Turns), 4);
    }

    #[test]
    fn nothing_recorded_reads_as_zero() {
        let snapshot = Registry::new(1).snapshot();
        assert_eq!(snapshot.summary(Measure::Turn), Summary::default());
        assert_eq!(snapshot.quantile(Measure::Turn, 0.99), Duration::ZERO);
    }
}
