//! The open loop's schedule: when each request is meant to be sent, whatever the server does.
//!
//! A worker asks for what is due; latency counts from these times, so a server that stalls pays for
//! every request that it kept from being sent (no coordinated omission).

/// Request `n` is due at `n × interval`, in nanoseconds since the start.
#[derive(Debug)]
pub(super) struct Schedule {
    interval_ns: f64,
    issued: u64,
}

impl Schedule {
    /// A schedule of `rate` requests per second.
    pub(super) fn new(rate: f64) -> Self {
        assert!(rate > 0.0);
        Self { interval_ns: 1e9 / rate, issued: 0 }
    }

    /// When the next request is due.
    pub(super) fn next_due_ns(&self) -> u64 {
        // Multiplied, not added up: rounding must not change the rate.
        (self.issued as f64 * self.interval_ns) as u64
    }

    /// The intended time of the next request, if that has come.
    pub(super) fn take_due(&mut self, now_ns: u64) -> Option<u64> {
        let due = self.next_due_ns();
        (due <= now_ns).then(|| {
            self.issued += 1;
            due
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_fall_due_at_a_constant_rate() {
        let mut schedule = Schedule::new(1_000_000.0);
        assert_eq!(schedule.take_due(0), Some(0));
        assert_eq!(schedule.take_due(999), None);
        assert_eq!(schedule.take_due(1_000), Some(1_000));
        assert_eq!(schedule.next_due_ns(), 2_000);
    }

    #[test]
    fn a_late_caller_gets_every_missed_request_with_its_own_time() {
        let mut schedule = Schedule::new(1_000.0);
        let due: Vec<u64> = std::iter::from_fn(|| schedule.take_due(3_500_000)).collect();
        assert_eq!(due, [0, 1_000_000, 2_000_000, 3_000_000]);
    }

    #[test]
    fn rounding_does_not_drift() {
        let mut schedule = Schedule::new(3.0);
        let count = std::iter::from_fn(|| schedule.take_due(1_000_000_000_000)).count();
        assert_eq!(count, 3_001);
    }
}
