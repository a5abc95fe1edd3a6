//! What comes out of a disk run: lines of figures, printed, in Markdown and as JSON.
//!
//! Invariant: every form shows the same lines; figures are computed here once.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Arguments;
use super::job::{Job, Operation, Runner};
use crate::environment::Environment;
use crate::failure::Failure;
use crate::load::Outcome;
use crate::report::table::{Table, figure};
use crate::report::{Latency, run_directory};
use crate::say;

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

/// A finished run, or one that is under way.
pub(super) struct Report {
    environment: Environment,
    about: Vec<String>,
    lines: Vec<Line>,
    failures: Vec<String>,
}

impl Report {
    pub(super) fn new(environment: Environment, core: usize, arguments: &Arguments) -> Self {
        let cache = if arguments.buffered { "through" } else { "past" };
        let sync = if arguments.sync { ", every write durable" } else { "" };
        let place = arguments.file.as_ref().unwrap_or(&arguments.dir);
        let about = vec![
            format!("{:<13} {} MiB at {}", "file", arguments.size >> 20, place.display()),
            format!("{:<13} {cache} the page cache{sync}", "manner"),
            format!("{:<13} {} s on core {core}", "window", arguments.window),
        ];
        Self { environment, about, lines: Vec::new(), failures: Vec::new() }
    }

    /// What was asked for.
    pub(super) fn about(&self) -> &[String] {
        &self.about
    }

    pub(super) fn add(&mut self, line: Line) {
        self.lines.push(line);
    }

    pub(super) fn fail(&mut self, failure: String) {
        self.failures.push(failure);
    }

    fn table(&self) -> Table {
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
        for line in &self.lines {
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

    /// What a reader has to know beside the figures.
    fn notes(&self) -> Vec<String> {
        let mut notes = vec![
            "latencies in µs. In order, annulus reads ahead and writes behind: its latency is how \
             long the next block was waited for, and that of the others how long theirs took"
                .to_owned(),
        ];
        if self.environment.busy_with_others {
            notes.push(format!(
                "other programs were running (load average {}): only ratios mean anything, and \
                 those roughly",
                self.environment.load_average
            ));
        }
        if cfg!(debug_assertions) {
            notes.push("this is a debug build: the figures mean nothing".into());
        }
        notes
    }

    /// Prints the table; notes and failures last, where they are seen.
    pub(super) fn print(&self, markdown: bool) {
        let table = self.table();
        say(format_args!("\n{}", if markdown { table.markdown() } else { table.text() }));
        for note in self.notes() {
            say(format_args!("note: {note}"));
        }
        for failure in &self.failures {
            say(format_args!("FAILED: {failure}"));
        }
    }

    /// Writes everything into a new directory under `output` and returns it.
    pub(super) fn write(&self, output: &Path, name: &str) -> Result<PathBuf, Failure> {
        let directory = run_directory(output, name);
        let json = serde_json::json!({
            "environment": self.environment,
            "about": self.about,
            "lines": self.lines,
            "notes": self.notes(),
            "failures": self.failures,
        });
        fs::create_dir_all(&directory)
            .and_then(|()| fs::write(directory.join("disk.json"), format!("{json:#}\n")))
            .and_then(|()| fs::write(directory.join("disk.md"), self.markdown()))
            .map_err(|error| Failure::failed(directory.display(), error))?;
        Ok(directory)
    }

    fn markdown(&self) -> String {
        let mut text = String::from("# annulus-bench disk\n\n");
        text.push_str(&self.table().markdown());
        text.push('\n');
        for note in self.notes() {
            text.push_str(&format!("Note: {note}.\n\n"));
        }
        for failure in &self.failures {
            text.push_str(&format!("Failed: {failure}\n\n"));
        }
        text.push_str("```text\n");
        for (fact, value) in self.environment.lines() {
            text.push_str(&format!("{fact:<13} {value}\n"));
        }
        text.push_str(&self.about.join("\n"));
        text.push_str("\n```\n");
        text
    }

    /// A failure if anybody dropped out: a table with holes must not look like success.
    pub(super) fn verdict(&self) -> Result<(), Failure> {
        match self.failures.len() {
            0 => Ok(()),
            count => Err(Failure::Failed(format!("{count} measurement(s) failed, see above"))),
        }
    }
}
