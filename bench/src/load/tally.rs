//! What a worker counts: latencies of good replies and every kind of bad one.
//!
//! Invariant: a reply is recorded in the histogram or in one error counter, never in both.

use std::fmt;

use hdrhistogram::Histogram;

/// Longest latency that is told apart, in nanoseconds; longer ones count as this.
const LATENCY_NS_MAX: u64 = 100_000_000_000;
/// Significant digits of the histogram.
const DIGITS: u8 = 3;

/// A latency histogram with this program's range and precision.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, DIGITS).expect("the bounds are constants")
}

/// Replies that were not what they had to be, and requests that got none.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Errors {
    /// Well-formed replies with the wrong content.
    pub(crate) wrong: u64,
    /// Error replies (`-ERR …`, a status other than 2xx).
    pub(crate) refused: u64,
    /// Connections that were given up: closed by the server, or no protocol any more.
    pub(crate) broken: u64,
}

impl Errors {
    /// All of them together.
    pub(crate) fn total(self) -> u64 {
        self.wrong + self.refused + self.broken
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} wrong replies, {} error replies, {} broken connections",
            self.wrong, self.refused, self.broken
        )
    }
}

/// The books of one worker, or of all of them merged.
#[derive(Debug)]
pub(crate) struct Tally {
    /// Latency in nanoseconds of every good reply in the window.
    pub(crate) latency: Histogram<u64>,
    /// Errors from the first request on.
    pub(crate) errors: Errors,
    /// Open loop: requests that were due but not answered when the run ended.
    pub(crate) unanswered: u64,
    /// The first thing that went wrong, in words.
    pub(crate) first_error: Option<String>,
}

impl Tally {
    /// Empty books.
    pub(crate) fn new() -> Self {
        Self { latency: histogram(), errors: Errors::default(), unanswered: 0, first_error: None }
    }

    /// Adds `count` good replies of one latency.
    pub(crate) fn record(&mut self, latency_ns: u64, count: u64) {
        self.latency.saturating_record_n(latency_ns.max(1), count);
    }

    /// Keeps the first complaint.
    pub(crate) fn complain(&mut self, what: impl FnOnce() -> String) {
        if self.first_error.is_none() {
            self.first_error = Some(what());
        }
    }

    /// Adds another worker's books.
    pub(crate) fn merge(&mut self, other: &Tally) {
        self.latency.add(&other.latency).expect("all histograms have the same bounds");
        self.errors.wrong += other.errors.wrong;
        self.errors.refused += other.errors.refused;
        self.errors.broken += other.errors.broken;
        self.unanswered += other.unanswered;
        if self.first_error.is_none() {
            self.first_error.clone_from(&other.first_error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_a_known_distribution() {
        let mut tally = Tally::new();
        tally.record(1_000, 90);
        tally.record(50_000, 9);
        tally.record(2_000_000, 1);
        assert_eq!(tally.latency.len(), 100);
        assert!(tally.latency.equivalent(tally.latency.value_at_quantile(0.5), 1_000));
        assert!(tally.latency.equivalent(tally.latency.value_at_quantile(0.99), 50_000));
        assert!(tally.latency.equivalent(tally.latency.max(), 2_000_000));
    }

    #[test]
    fn merging_adds_counts_and_keeps_the_first_complaint() {
        let (mut left, mut right) = (Tally::new(), Tally::new());
        left.record(10, 1);
        right.record(20, 2);
        right.errors.wrong = 3;
        right.complain(|| "first".into());
        right.complain(|| "second".into());
        left.merge(&right);
        assert_eq!((left.latency.len(), left.errors.total()), (3, 3));
        assert_eq!(left.first_error.as_deref(), Some("first"));
    }

    #[test]
    fn a_latency_beyond_the_range_counts_as_the_longest() {
        let mut tally = Tally::new();
        tally.record(u64::MAX, 1);
        assert_eq!(tally.latency.len(), 1);
    }
}
