//! Figures that are read off when somebody asks, beside those that are recorded: how things stand,
//! as text for `/metrics`, `/stats` and `INFO`.
//!
//! Made by who knows them, rendered by the services. Invariant: a figure has one name everywhere.

use std::fmt::{self, Write as _};
use std::time::Duration;

/// How something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figure {
    /// Lower case with underscores; its unit last.
    pub name: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// Whether it only ever grows.
    pub grows: bool,
    /// How it stands.
    pub reading: Reading,
}

/// What a figure reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// A number of something.
    Count(u64),
    /// Time, in seconds with a fraction.
    Time(Duration),
}

impl Figure {
    /// Something that goes up and down.
    pub const fn gauge(name: &'static str, help: &'static str, reading: Reading) -> Self {
        Self { name, help, grows: false, reading }
    }

    /// A count that only ever grows.
    pub const fn counter(name: &'static str, help: &'static str, count: u64) -> Self {
        Self { name, help, grows: true, reading: Reading::Count(count) }
    }

    /// Appends the figure in the exposition format of Prometheus.
    pub fn to_prometheus(&self, out: &mut String) {
        let (name, kind) = (self.name, if self.grows { "counter" } else { "gauge" });
        let total = if self.grows { "_total" } else { "" };
        let _ = writeln!(out, "# HELP annulus_{name}{total} {}", self.help);
        let _ = writeln!(out, "# TYPE annulus_{name}{total} {kind}");
        let _ = writeln!(out, "annulus_{name}{total} {}", self.reading);
    }
}

impl fmt::Display for Reading {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(formatter, "{count}"),
            Self::Time(time) => {
                write!(formatter, "{}.{:06}", time.as_secs(), time.subsec_micros())
            }
        }
    }
}

/// Figures as a JSON object.
pub fn to_json(figures: &[Figure]) -> String {
    let members = figures.iter().map(|figure| format!("\"{}\":{}", figure.name, figure.reading));
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_reads_alike_everywhere() {
        let took = Reading::Time(Duration::from_millis(1500));
        let took = Figure::gauge("recovery_seconds", "How long recovery took.", took);
        let records = Figure::counter("log_records", "Records written.", 7);
        let mut text = String::new();
        took.to_prometheus(&mut text);
        records.to_prometheus(&mut text);
        assert_eq!(
            text,
            "# HELP annulus_recovery_seconds How long recovery took.\n\
             # TYPE annulus_recovery_seconds gauge\n\
             annulus_recovery_seconds 1.500000\n\
             # HELP annulus_log_records_total Records written.\n\
             # TYPE annulus_log_records_total counter\n\
             annulus_log_records_total 7\n"
        );
        let json = to_json(&[took, records]);
        assert_eq!(json, "{\"recovery_seconds\":1.500000,\"log_records\":7}");
    }
}
