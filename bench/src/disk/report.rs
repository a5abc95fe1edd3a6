//! What comes out of a disk run: lines of figures, and the report around them.
//!
//! Invariant: figures are computed here once.

use serde::Serialize;

use super::Arguments;
use super::job::{Job, Operation, Runner};
use crate::environment::Environment;
use crate::load::Outcome;
use crate::report::Latency;
use crate::report::sheet::Sheet;
use crate::report::table::{Table, figure};

/// One runner at one job.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    operation: Operation,
    block_bytes: usize,
    depth: usize,
    runner: String,
    operations_per_second: f64,
    megabytes_per_second: f64,
    latency_us: Latency,
    cpu_us: f64,
    operations: u64,
    seconds: f64,
    cpu_ns: u64,
}

impl Line {
    pub(super) fn new(job: &Job, runner: Runner, outcome: &Outcome) -> Self {
        Self {
            operation: job.operation,
            block_bytes: job.block_bytes,
            depth: job.depth,
            runner: runner.name(),
            operations_per_second: outcome.rate(),
            megabytes_per_second: outcome.rate() * job.block_bytes as f64 / 1e6,
            latency_us: Latency::of(&outcome.tally.latency),
            cpu_us: outcome.server_us().unwrap_or(0.0),
            operations: outcome.requests,
            seconds: outcome.elapsed.as_secs_f64(),
            cpu_ns: outcome.server_cpu_ns.unwrap_or(0),
        }
    }
}

/// The report of a run that is about to begin.
pub(super) fn sheet(environment: Environment, core: usize, arguments: &Arguments) -> Sheet {
    let cache = if arguments.buffered { "through" } else { "past" };
    let sync = if arguments.sync { ", every write durable" } else { "" };
    let place = arguments.file.as_ref().unwrap_or(&arguments.dir);
    let about = vec![
        ("file", format!("{} MiB at {}", arguments.size >> 20, place.display())),
        ("manner", format!("{cache} the page cache{sync}")),
        ("window", format!("{} s on core {core}", arguments.window)),
    ];
    let notes = vec![
        "latencies in µs. In order, annulus reads ahead and writes behind: its latency is how long \
         the next block was waited for, and that of the others how long theirs took"
            .to_owned(),
    ];
    Sheet {
        command: "disk",
        environment,
        about,
        table: table(&[]),
        lines: Vec::new(),
        targets: Vec::new(),
        notes,
        failures: Vec::new(),
    }
}

/// The lines as a table.
pub(super) fn table(lines: &[Line]) -> Table {
    let header = vec![
        "operation",
        "depth",
        "runner",
        "ops/s",
        "MB/s",
        "p50",
        "p99",
        "p99.9",
        "max",
        "CPU µs",
    ];
    let mut table = Table::new(header);
    let mut last = None;
    for line in lines {
        let case = (line.operation, line.block_bytes, line.depth);
        let (operation, depth) = if last == Some(case) {
            (String::new(), String::new())
        } else {
            let block = line.block_bytes >> 10;
            (format!("{} {block} KiB", line.operation.text()), line.depth.to_string())
        };
        last = Some(case);
        let latency = &line.latency_us;
        table.push(vec![
            operation,
            depth,
            line.runner.clone(),
            format!("{:.0}", line.operations_per_second),
            figure(line.megabytes_per_second),
            figure(latency.p50),
            figure(latency.p99),
            figure(latency.p99_9),
            figure(latency.max),
            figure(line.cpu_us),
        ]);
    }
    table
}
