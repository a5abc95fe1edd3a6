//! What comes out of a comparison: lines of figures, printed and written in every form.
//!
//! `compare` builds one [`Report`] from its rows. Invariant: every form (text, Markdown, JSON,
//! HTML) shows the same lines; figures are computed here once.

mod logs;
mod page;
mod plot;
pub(crate) mod sheet;
pub(crate) mod table;
pub(crate) mod targets;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::compare::contender::{Contender, Engine};
use crate::compare::cores::Cores;
use crate::compare::rounds::{Results, Row};
use crate::compare::statistics::Spread;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::say;

/// A server that was less busy than this in a closed loop was not the bottleneck.
const BUSY_MIN: f64 = 0.9;

/// How many of those are named in a note; all are in the JSON.
const IDLE_SHOWN: usize = 4;

/// Latencies in microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p99_9: f64,
    pub(crate) max: f64,
}

impl Latency {
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        let micros = |nanos: u64| nanos as f64 / 1000.0;
        Self {
            p50: micros(histogram.value_at_quantile(0.5)),
            p90: micros(histogram.value_at_quantile(0.9)),
            p99: micros(histogram.value_at_quantile(0.99)),
            p99_9: micros(histogram.value_at_quantile(0.999)),
            max: micros(histogram.max()),
        }
    }
}

/// One contender in one case.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    workload: String,
    connections: usize,
    server: String,
    /// The open loop's rate; `None` is the closed loop.
    open_loop_rate: Option<f64>,
    requests_per_second: Spread,
    latency_us: Latency,
    /// Server CPU per request, in microseconds.
    server_cpu_us: Option<Spread>,
    load_cpu_us: Option<Spread>,
    /// Part of the window that the server's threads were running.
    busy: Option<f64>,
    /// CPU per request relative to annulus with its `threads` and its `epoll` engine.
    to_threads: Option<f64>,
    to_epoll: Option<f64>,
    rounds: Vec<Round>,
    /// Whether a core is meant to be what sets the rate.
    #[serde(skip)]
    wants_core: bool,
}

/// The figures of one round, for whoever wants to recompute.
#[derive(Debug, Serialize)]
struct Round {
    requests: u64,
    seconds: f64,
    server_cpu_ns: Option<u64>,
    load_cpu_ns: u64,
    unanswered: u64,
}

impl Line {
    fn of(row: &Row, rows: &[Row]) -> Option<Self> {
        let ours = row.server_us();
        let relative_to = |engine| {
            let theirs = rows
                .iter()
                .find(|other| {
                    other.contender == Contender::Annulus(engine) && other.case == row.case
                })?
                .server_us();
            Some(Spread::of_ratios(&ours, &theirs)?.median)
        };
        let busy = row.samples.iter().filter_map(|sample| {
            let cpu_ns = sample.outcome.server_cpu_ns? as f64;
            Some(cpu_ns / sample.outcome.elapsed.as_nanos() as f64)
        });
        Some(Self {
            workload: row.case.name(),
            connections: row.case.connections,
            server: row.contender.name(),
            open_loop_rate: row.rate,
            requests_per_second: Spread::of(row.rates())?,
            latency_us: Latency::of(&row.latency()),
            server_cpu_us: Spread::of(ours.iter().copied()),
            load_cpu_us: Spread::of(row.samples.iter().map(|sample| sample.outcome.load_us())),
            busy: Spread::of(busy).map(|spread| spread.median),
            to_threads: relative_to(Engine::Threads),
            to_epoll: relative_to(Engine::Epoll),
            rounds: row.samples.iter().map(|sample| Round::of(&sample.outcome)).collect(),
            wants_core: row.case.workload.service().wants_core(),
        })
    }
}

impl Round {
    fn of(outcome: &crate::load::Outcome) -> Self {
        Self {
            requests: outcome.requests,
            seconds: outcome.elapsed.as_secs_f64(),
            server_cpu_ns: outcome.server_cpu_ns,
            load_cpu_ns: outcome.load_cpu_ns,
            unanswered: outcome.tally.unanswered,
        }
    }
}

/// A finished comparison.
#[derive(Debug)]
pub(crate) struct Report {
    environment: Environment,
    cores: Cores,
    window: Duration,
    rounds: usize,
    rows: Vec<Row>,
    lines: Vec<Line>,
    targets: Vec<targets::Judged>,
    method: Vec<String>,
    failures: Vec<String>,
}

impl Report {
    /// Computes every figure.
    pub(crate) fn new(
        environment: Environment,
        cores: Cores,
        window: Duration,
        rounds: usize,
        results: Results,
    ) -> Self {
        let Results { mut rows, failures } = results;
        rows.retain(|row| !row.samples.is_empty());
        // Lines of one case stand together; the sort is stable, so contenders keep their order.
        let order: Vec<_> = rows.iter().map(|row| row.case).collect();
        rows.sort_by_key(|row| order.iter().position(|case| *case == row.case));
        let lines = rows.iter().filter_map(|row| Line::of(row, &rows)).collect();
        let targets = targets::judge(&rows);
        let method = Vec::new();
        Self { environment, cores, window, rounds, rows, lines, targets, method, failures }
    }

    /// Adds what has to be said about how it was measured.
    pub(crate) fn explain(&mut self, notes: Vec<String>) {
        self.method.extend(notes);
    }

    /// Prints the table, and the targets if asked for; losses and notes last, where they are seen.
    pub(crate) fn print(&self, markdown: bool, targets: bool) {
        let show = |table: table::Table| {
            if markdown { table.markdown() } else { table.text() }
        };
        say(format_args!("\n{}", show(table::of_lines(&self.lines))));
        if targets {
            say(format_args!("{}", show(table::of_targets(&self.targets))));
            let unmeasured = self.targets.iter().filter(|target| target.is_met().is_none()).count();
            if unmeasured > 0 {
                say(format_args!(
                    "{unmeasured} more targets are about cases that this run did not have\n"
                ));
            }
        }
        for note in self.notes() {
            say(format_args!("note: {note}"));
        }
        for failure in &self.failures {
            say(format_args!("FAILED: {failure}"));
        }
    }

    /// What a reader has to know beside the figures.
    fn notes(&self) -> Vec<String> {
        let mut notes = self.method.clone();
        if self.cores.shared {
            notes.push("server and load shared a core: compare with care".to_owned());
        }
        if self.environment.busy_with_others {
            notes.push(format!(
                "other programs were running (load average {}): shares of a core change what a \
                 wake-up costs, so only ratios mean anything, and those roughly",
                self.environment.load_average
            ));
        }
        let idle = self.lines.iter().filter(|line| {
            line.wants_core
                && line.open_loop_rate.is_none()
                && line.connections > 1
                && line.busy.is_some_and(|busy| busy < BUSY_MIN)
        });
        let idle: Vec<String> = idle
            .map(|line| {
                let busy = line.busy.unwrap_or(0.0) * 100.0;
                format!("{} {} @{} ({busy:.0} %)", line.server, line.workload, line.connections)
            })
            .collect();
        if !idle.is_empty() {
            let shown = idle[..idle.len().min(IDLE_SHOWN)].join(", ");
            notes.push(format!(
                "in {} rows the server was not busy all the time, so that something else set the \
                 rate: {shown}{}",
                idle.len(),
                if idle.len() > IDLE_SHOWN { ", …" } else { "" }
            ));
        }
        notes
    }

    /// Writes everything into a new directory under `output` and returns it.
    pub(crate) fn write(&self, output: &Path, name: &str) -> Result<PathBuf, Failure> {
        let directory = run_directory(output, name);
        let write = || -> std::io::Result<()> {
            fs::create_dir_all(&directory)?;
            fs::write(directory.join("report.json"), self.json())?;
            fs::write(directory.join("report.html"), page::render(self))?;
            fs::write(directory.join("latency.hlog"), logs::render(&self.rows)?)
        };
        write().map_err(|error| Failure::failed(directory.display(), error))?;
        Ok(directory)
    }

    /// A failure if any contender dropped out: a table with holes must not look like success.
    pub(crate) fn verdict(&self) -> Result<(), Failure> {
        match self.failures.len() {
            0 => Ok(()),
            count => Err(Failure::Failed(format!("{count} contender(s) dropped out, see above"))),
        }
    }

    fn json(&self) -> String {
        let value = serde_json::json!({
            "environment": self.environment,
            "cores": self.cores,
            "rounds": self.rounds,
            "window_seconds": self.window.as_secs_f64(),
            "lines": self.lines,
            "targets": self.targets,
            "notes": self.notes(),
            "failures": self.failures,
        });
        format!("{value:#}\n")
    }
}

/// Where a run of today by this name goes under `output`: nothing is there yet.
pub(crate) fn run_directory(output: &Path, name: &str) -> PathBuf {
    free_directory(output, &format!("{}-{name}", today()))
}

/// `base` under `output`, with a number behind it if that is taken.
fn free_directory(output: &Path, base: &str) -> PathBuf {
    let first = output.join(base);
    std::iter::once(first.clone())
        .chain((2..1000).map(|number| output.join(format!("{base}-{number}"))))
        .find(|path| !path.exists())
        .unwrap_or(first)
}

/// The date in UTC as year-month-day.
fn today() -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (year, month, day) = civil_date(since.as_secs() / 86_400);
    format!("{year:04}-{month:02}-{day:02}")
}

/// The Gregorian date of a number of days since 1970-01-01, by counting years and months.
fn civil_date(days: u64) -> (u64, u64, u64) {
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let (mut year, mut day) = (1970, days);
    while day >= 365 + u64::from(leap(year)) {
        day -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    (year, month, day + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_gregorian() {
        assert_eq!(civil_date(0), (1970, 1, 1));
        assert_eq!(civil_date(11_016), (2000, 2, 29));
        assert_eq!(civil_date(19_722), (2023, 12, 31));
        assert_eq!(civil_date(20_513), (2026, 3, 1));
    }

    #[test]
    fn a_taken_directory_is_not_written_into() {
        let root = std::env::temp_dir().join(format!("annulus-report-{}", std::process::id()));
        fs::create_dir_all(root.join("run")).unwrap();
        assert_eq!(free_directory(&root, "run"), root.join("run-2"));
        assert_eq!(free_directory(&root, "other"), root.join("other"));
        fs::remove_dir_all(&root).unwrap();
    }
}
