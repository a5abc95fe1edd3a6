//! A snapshot as text: Prometheus exposition for `/metrics`, JSON for `/stats`.
//!
//! Called by the HTTP service and by the bench. Invariant: the output lists every measure and every
//! counter, also those at zero, so that dashboards and scripts find their names from the start.
//!
//! Prometheus gets cumulative buckets and not quantiles, because buckets of several hosts can be
//! added up. Format: <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use std::fmt::Write as _;

use hdrhistogram::Histogram;

use super::{Counter, Measure, Snapshot};

/// Bucket bounds as shown to Prometheus, with their value in nanoseconds.
const BUCKETS: [(&str, u64); 22] = [
    ("0.000001", 1_000),
    ("0.0000025", 2_500),
    ("0.000005", 5_000),
    ("0.00001", 10_000),
    ("0.000025", 25_000),
    ("0.00005", 50_000),
    ("0.0001", 100_000),
    ("0.00025", 250_000),
    ("0.0005", 500_000),
    ("0.001", 1_000_000),
    ("0.0025", 2_500_000),
    ("0.005", 5_000_000),
    ("0.01", 10_000_000),
    ("0.025", 25_000_000),
    ("0.05", 50_000_000),
    ("0.1", 100_000_000),
    ("0.25", 250_000_000),
    ("0.5", 500_000_000),
    ("1", 1_000_000_000),
    ("2.5", 2_500_000_000),
    ("5", 5_000_000_000),
    ("10", 10_000_000_000),
];

impl Snapshot {
    /// Prometheus text exposition, version 0.0.4: counters, and histograms in seconds.
    pub fn to_prometheus(&self) -> String {
        let mut out = String::with_capacity(48 * 1024);
        for counter in Counter::ALL {
            let (name, help, value) = (counter.name(), counter.help(), self.counter(counter));
            let _ = writeln!(out, "# HELP annulus_{name}_total {help}");
            let _ = writeln!(out, "# TYPE annulus_{name}_total counter");
            let _ = writeln!(out, "annulus_{name}_total {value}");
        }
        let mut family = "";
        for measure in Measure::ALL {
            let row = measure.row();
            if row.family != family {
                family = row.family;
                let _ = writeln!(out, "# HELP annulus_{family}_seconds {}", row.help);
                let _ = writeln!(out, "# TYPE annulus_{family}_seconds histogram");
            }
            self.write_buckets(&mut out, measure);
        }
        out
    }

    fn write_buckets(&self, out: &mut String, measure: Measure) {
        let row = measure.row();
        let (family, summary) = (row.family, self.summary(measure));
        let (label, braced) = match row.label {
            Some((label, value)) => {
                (format!("{label}=\"{value}\","), format!("{{{label}=\"{value}\"}}"))
            }
            None => (String::new(), String::new()),
        };
        let counts = cumulative_counts(self.histogram(measure));
        for ((bound, _), count) in BUCKETS.iter().zip(counts) {
            let _ =
                writeln!(out, "annulus_{family}_seconds_bucket{{{label}le=\"{bound}\"}} {count}");
        }
        let count = summary.count;
        let _ = writeln!(out, "annulus_{family}_seconds_bucket{{{label}le=\"+Inf\"}} {count}");
        let (seconds, nanos) = (summary.sum_ns / 1_000_000_000, summary.sum_ns % 1_000_000_000);
        let _ = writeln!(out, "annulus_{family}_seconds_sum{braced} {seconds}.{nanos:09}");
        let _ = writeln!(out, "annulus_{family}_seconds_count{braced} {count}");
    }

    /// A JSON object: `{"counters": {name: n}, "latency_ns": {name: {"count": …, "p99": …}}}`.
    pub fn to_json(&self) -> String {
        let mut out = String::with_capacity(4 * 1024);
        out.push_str("{\"counters\":{");
        for (index, counter) in Counter::ALL.into_iter().enumerate() {
            separate(&mut out, index);
            let _ = write!(out, "\"{}\":{}", counter.name(), self.counter(counter));
        }
        out.push_str("},\"latency_ns\":{");
        for (index, measure) in Measure::ALL.into_iter().enumerate() {
            separate(&mut out, index);
            let summary = self.summary(measure);
            let _ = write!(
                out,
                "\"{}\":{{\"count\":{},\"mean\":{},\"p50\":{},\"p90\":{},\"p99\":{},\
                 \"p99.9\":{},\"max\":{}}}",
                measure.name(),
                summary.count,
                summary.mean_ns,
                summary.p50_ns,
                summary.p90_ns,
                summary.p99_ns,
                summary.p999_ns,
                summary.max_ns,
            );
        }
        out.push_str("}}");
        out
    }
}

fn separate(out: &mut String, index: usize) {
    if index > 0 {
        out.push(',');
    }
}

/// How many events took at most each bound. An event whose HDR cell reaches over a bound counts
/// above it, so that no bucket claims an event that may have been longer.
fn cumulative_counts(histogram: Option<&Histogram<u64>>) -> [u64; BUCKETS.len()] {
    let mut counts = [0; BUCKETS.len()];
    let Some(histogram) = histogram else { return counts };
    let (mut bucket, mut seen) = (0, 0);
    for cell in histogram.iter_recorded() {
        while bucket < BUCKETS.len() && cell.value_iterated_to() > BUCKETS[bucket].1 {
            counts[bucket] = seen;
            bucket += 1;
        }
        seen += cell.count_since_last_iteration();
    }
    counts[bucket..].fill(seen);
    counts
}

#[cfg(test)]
mod tests {
    use super::super::Registry;
    use super::*;

    fn sample() -> Snapshot {
        let registry = Registry::new(1);
        let recorder = registry.recorder(0);
        recorder.record(Measure::Receive, 900);
        recorder.record(Measure::Receive, 30_000);
        recorder.record(Measure::Receive, 20_000_000_000);
        recorder.add(Counter::BytesReceived, 4_096);
        recorder.flush();
        registry.snapshot()
    }

    #[test]
    fn prometheus_buckets_are_cumulative_and_labelled() {
        let text = sample().to_prometheus();
        for line in [
            "# TYPE annulus_operation_seconds histogram",
            "annulus_operation_seconds_bucket{kind=\"receive\",le=\"0.000001\"} 1",
            "annulus_operation_seconds_bucket{kind=\"receive\",le=\"0.000025\"} 1",
            "annulus_operation_seconds_bucket{kind=\"receive\",le=\"0.00005\"} 2",
            "annulus_operation_seconds_bucket{kind=\"receive\",le=\"10\"} 2",
            "annulus_operation_seconds_bucket{kind=\"receive\",le=\"+Inf\"} 3",
            "annulus_operation_seconds_sum{kind=\"receive\"} 20.000030900",
            "annulus_operation_seconds_count{kind=\"receive\"} 3",
            "annulus_bytes_received_total 4096",
            "annulus_turn_seconds_bucket{le=\"+Inf\"} 0",
            "annulus_turn_seconds_count 0",
        ] {
            assert!(text.lines().any(|have| have == line), "missing {line}\n{text}");
        }
    }

    #[test]
    fn a_prometheus_family_is_announced_once() {
        let text = sample().to_prometheus();
        let announced = text.matches("# TYPE annulus_operation_seconds ").count();
        assert_eq!(announced, 1);
    }

    #[test]
    fn bucket_bounds_read_as_their_nanoseconds() {
        for (text, nanos) in BUCKETS {
            let seconds: f64 = text.parse().expect("a number");
            assert_eq!((seconds * 1e9).round() as u64, nanos, "{text}");
        }
    }

    #[cfg(feature = "daemon")]
    #[test]
    fn json_holds_every_name_and_the_quantiles() {
        let json: serde_json::Value = serde_json::from_str(&sample().to_json()).expect("JSON");
        assert_eq!(json["counters"]["bytes_received"], 4_096);
        assert_eq!(json["latency_ns"]["receive"]["count"], 3);
        assert_eq!(json["latency_ns"]["receive"]["p50"], 30_079);
        for counter in Counter::ALL {
            assert!(json["counters"][counter.name()].is_u64(), "{}", counter.name());
        }
        for measure in Measure::ALL {
            let figures = &json["latency_ns"][measure.name()];
            for key in ["count", "mean", "p50", "p90", "p99", "p99.9", "max"] {
                assert!(figures[key].is_u64(), "{}.{key}", measure.name());
            }
        }
    }
}
