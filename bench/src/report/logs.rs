//! HdrHistogram interval logs: one file, an interval per round, a tag per contender and case.
//!
//! Any tool that reads `.hlog` files (V2 compressed histograms) can merge and plot them.

use std::io;
use std::time::{Duration, SystemTime};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use crate::compare::rounds::Row;

/// The log of all rounds of `rows`.
pub(super) fn render(rows: &[Row]) -> io::Result<Vec<u8>> {
    let first = rows
        .iter()
        .flat_map(|row| &row.samples)
        .map(|sample| sample.started)
        .min()
        .unwrap_or(SystemTime::UNIX_EPOCH);
    let mut log = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let mut writer = IntervalLogWriterBuilder::new()
        .add_comment("annulus-bench compare; latencies in nanoseconds")
        .with_start_time(first)
        .with_max_value_divisor(1_000.0)
        .begin_log_with(&mut log, &mut serializer)?;
    for row in rows {
        let name = tag(&row.contender.name(), &row.case.name(), row.case.connections);
        let tag = Tag::new(&name);
        for sample in &row.samples {
            let start = sample.started.duration_since(first).unwrap_or(Duration::ZERO);
            let outcome = &sample.outcome;
            writer
                .write_histogram(&outcome.tally.latency, start, outcome.elapsed, tag)
                .map_err(|error| io::Error::other(format!("{error:?}")))?;
        }
    }
    Ok(log)
}

/// A tag may hold neither blanks nor commas.
fn tag(contender: &str, case: &str, connections: usize) -> String {
    format!("{contender}/{case}/{connections}").replace(", ", "-").replace([' ', ',', '\n'], "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_hold_neither_blanks_nor_commas() {
        assert_eq!(
            tag("annulus uring", "echo 64 B, open loop", 64),
            "annulus-uring/echo-64-B-open-loop/64"
        );
        assert!(Tag::new(&tag("a b", "c, d", 1)).is_some());
    }
}
