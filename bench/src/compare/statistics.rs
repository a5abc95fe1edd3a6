//! Medians, spreads and ratios of rounds.
//!
//! Reports and targets call it. Invariant: ratios are taken within a round first, because rounds
//! are interleaved so that both contenders saw the same state of the machine.

use serde::Serialize;

/// A median with the range around it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// The spread of `values`; `None` if there are none.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let median = match sorted.len() {
            0 => return None,
            len if len % 2 == 1 => sorted[middle],
            _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
        };
        Some(Self { median, min: sorted[0], max: sorted[sorted.len() - 1] })
    }

    /// The spread of `ours[round] / theirs[round]`.
    pub(crate) fn of_ratios(ours: &[f64], theirs: &[f64]) -> Option<Self> {
        Self::of(ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_odd_and_an_even_count() {
        let odd = Spread::of([3.0, 1.0, 2.0]).unwrap();
        assert_eq!((odd.median, odd.min, odd.max), (2.0, 1.0, 3.0));
        let even = Spread::of([4.0, 1.0, 2.0, 3.0]).unwrap();
        assert!((even.median - 2.5).abs() < 1e-9);
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn ratios_are_paired_by_round() {
        // The machine slowed down threefold in the second round: the ratio does not notice.
        let ratio = Spread::of_ratios(&[1.0, 3.0, 1.1], &[2.0, 6.0, 2.2]).unwrap();
        assert!((ratio.median - 0.5).abs() < 1e-9);
        assert!((ratio.max - ratio.min).abs() < 1e-9);
    }

    #[test]
    fn rounds_without_a_figure_are_left_out() {
        let ratio = Spread::of_ratios(&[1.0, 1.0], &[0.0, 2.0]).unwrap();
        assert!((ratio.median - 0.5).abs() < 1e-9);
    }
}
