//! One thing to do with a file, who does it, and the books that are kept of it.
//!
//! `disk` and `compare` make jobs; `annulus`, `tokio` and `fio` beside this file do them.
//! Invariant: operations and CPU time are read at the same two moments, so their ratio is honest.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use crate::affinity;
use crate::compare::contender::Engine;
use crate::failure::Failure;
use crate::load::Outcome;
use crate::load::tally::Tally;

/// What is done, again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Operation {
    /// Blocks read anywhere.
    RandomRead,
    /// Blocks written anywhere.
    RandomWrite,
    /// The whole file read once, in order.
    Read,
    /// The whole file written once, in order.
    Write,
}

impl Operation {
    /// All of them, in the order of the report.
    pub(crate) const ALL: [Operation; 4] =
        [Operation::RandomRead, Operation::RandomWrite, Operation::Read, Operation::Write];

    pub(super) fn is_random(self) -> bool {
        matches!(self, Operation::RandomRead | Operation::RandomWrite)
    }

    pub(super) fn is_write(self) -> bool {
        matches!(self, Operation::RandomWrite | Operation::Write)
    }

    /// The name in tables.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Operation::RandomRead => "random read",
            Operation::RandomWrite => "random write",
            Operation::Read => "sequential read",
            Operation::Write => "sequential write",
        }
    }
}

/// Who does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Runner {
    /// annulus with one of its engines.
    Annulus(Engine),
    /// tokio with `spawn_blocking`, as `tokio::fs` does it.
    Tokio,
    /// fio with its io_uring engine.
    Fio,
}

impl Runner {
    /// The name in tables.
    pub(crate) fn name(self) -> String {
        match self {
            Runner::Annulus(engine) => format!("annulus {}", engine.text()),
            Runner::Tokio => "tokio::fs".into(),
            Runner::Fio => "fio".into(),
        }
    }
}

/// What to do with which file, resolved and validated.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) operation: Operation,
    /// Bytes of one operation; the file is a multiple of it.
    pub(crate) block_bytes: usize,
    /// Operations under way at a time.
    pub(crate) depth: usize,
    pub(crate) path: PathBuf,
    pub(crate) file_bytes: u64,
    /// Past the page cache.
    pub(crate) direct: bool,
    /// Every write is durable before the next of its line begins.
    pub(crate) durable: bool,
    /// Time before the window of a random job.
    pub(crate) warmup: Duration,
    /// The measured window of a random job; where others end, unless they are through the file
    /// before. None of them has no limit.
    pub(crate) limit: Option<Duration>,
}

impl Job {
    /// Has `runner` do it on `cores` and returns what the window saw.
    pub(crate) fn run(&self, runner: Runner, cores: &[usize]) -> Result<Outcome, Failure> {
        let outcome = std::thread::scope(|scope| {
            // A thread of its own: whoever does the job inherits its cores.
            let work = scope.spawn(|| {
                affinity::pin(cores)?;
                match runner {
                    Runner::Annulus(engine) => super::annulus::run(self, engine),
                    Runner::Tokio => super::tokio_job(self),
                    Runner::Fio => super::fio::run(self),
                }
            });
            work.join().map_err(|_| Failure::Failed(format!("{} panicked", runner.name())))?
        });
        let outcome = outcome.map_err(|failure| Failure::failed(runner.name(), failure))?;
        if outcome.requests == 0 {
            let what = format!("{}: no operation ended in the measured window", runner.name());
            return Err(Failure::Failed(what));
        }
        Ok(outcome)
    }

    /// The measured window of a random job.
    pub(super) fn window(&self) -> Duration {
        self.limit.unwrap_or(Duration::from_secs(1))
    }

    /// What it is, for messages.
    pub(super) fn text(&self) -> String {
        let (block, depth) = (self.block_bytes >> 10, self.depth);
        format!("{} {block} KiB @{depth}", self.operation.text())
    }

    /// Blocks of the file.
    pub(super) fn blocks(&self) -> u64 {
        self.file_bytes / self.block_bytes as u64
    }
}

/// Where the next operation goes, for all lines of a job.
pub(super) struct Offsets {
    state: Cell<u64>,
    block_bytes: u64,
    blocks: u64,
    is_random: bool,
}

impl Offsets {
    pub(super) fn new(job: &Job) -> Self {
        let is_random = job.operation.is_random();
        Self {
            state: Cell::new(if is_random { 0x9e37_79b9_7f4a_7c15 } else { 0 }),
            block_bytes: job.block_bytes as u64,
            blocks: job.blocks(),
            is_random,
        }
    }

    /// `None` once a job in order is through.
    pub(super) fn next(&self) -> Option<u64> {
        let mut state = self.state.get();
        if !self.is_random {
            self.state.set(state + 1);
            return (state < self.blocks).then_some(state * self.block_bytes);
        }
        // Marsaglia's xorshift with 64 bits.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        self.state.set(state);
        let block = (u128::from(state) * u128::from(self.blocks)) >> 64;
        Some(block as u64 * self.block_bytes)
    }
}

/// CPU time of this process and the moment, when the window opened.
pub(super) struct Opened {
    at: Instant,
    cpu: Duration,
    count: u64,
}

/// What all lines of a job keep together.
pub(super) struct Books {
    count: Cell<u64>,
    is_open: Cell<bool>,
    is_over: Cell<bool>,
    /// When a job in order ends at the latest.
    deadline: Option<Instant>,
    tally: RefCell<Tally>,
}

impl Books {
    /// The books of `job`, which begins now.
    pub(super) fn new(job: &Job) -> Self {
        let limit = job.limit.filter(|_| !job.operation.is_random());
        Self {
            count: Cell::new(0),
            is_open: Cell::new(false),
            is_over: Cell::new(false),
            deadline: limit.and_then(|limit| Instant::now().checked_add(limit)),
            tally: RefCell::new(Tally::new()),
        }
    }

    /// An operation has ended. False if there is to be no other.
    pub(super) fn record(&self, started: Instant, ended: Instant) -> bool {
        self.count.set(self.count.get() + 1);
        if self.is_open.get() {
            self.tally.borrow_mut().record((ended - started).as_nanos() as u64, 1);
        }
        !self.is_over.get() && self.deadline.is_none_or(|deadline| ended < deadline)
    }

    /// Opens the window.
    pub(super) fn open(&self) -> Opened {
        self.is_open.set(true);
        Opened { at: Instant::now(), cpu: cpu_time(), count: self.count.get() }
    }

    /// Closes the window, and with it the job.
    pub(super) fn close(&self, opened: &Opened) -> Outcome {
        let cpu = cpu_time().saturating_sub(opened.cpu);
        let outcome = Outcome {
            requests: self.count.get() - opened.count,
            elapsed: opened.at.elapsed(),
            server_cpu_ns: Some(cpu.as_nanos() as u64),
            load_cpu_ns: 0,
            tally: self.tally.replace(Tally::new()),
        };
        self.is_open.set(false);
        self.is_over.set(true);
        outcome
    }
}

/// CPU time of all threads of this process, by the scheduler's books (clock_gettime(2)): helpers,
/// those that have ended, and the kernel's workers for its rings among them.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(operation: Operation) -> Job {
        Job {
            operation,
            block_bytes: 4096,
            depth: 1,
            path: PathBuf::new(),
            file_bytes: 8 * 4096,
            direct: true,
            durable: false,
            warmup: Duration::ZERO,
            limit: None,
        }
    }

    #[test]
    fn a_job_in_order_goes_once_through_the_file() {
        let offsets = Offsets::new(&job(Operation::Read));
        let all: Vec<u64> = std::iter::from_fn(|| offsets.next()).collect();
        assert_eq!(all, [0, 4096, 8192, 12288, 16384, 20480, 24576, 28672]);
    }

    #[test]
    fn a_random_job_goes_everywhere_and_never_beyond() {
        let offsets = Offsets::new(&job(Operation::RandomWrite));
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..1000 {
            let offset = offsets.next().unwrap();
            assert!(offset.is_multiple_of(4096));
            seen.insert(offset / 4096);
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), (0..8).collect::<Vec<_>>());
    }

    #[test]
    fn only_what_ends_in_the_window_is_counted() {
        let books = Books::new(&job(Operation::RandomRead));
        let start = Instant::now();
        let after = |micros| start + Duration::from_micros(micros);
        assert!(books.record(start, after(9_000_000)));
        let opened = books.open();
        assert!(books.record(start, after(5)));
        let outcome = books.close(&opened);
        assert!(!books.record(start, after(9_000_000)));
        assert_eq!((outcome.requests, outcome.tally.latency.len()), (1, 1));
        assert!(outcome.tally.latency.equivalent(outcome.tally.latency.max(), 5000));
    }

    #[test]
    fn a_job_in_order_ends_at_its_limit() {
        let limit = Some(Duration::from_secs(3600));
        let books = Books::new(&Job { limit, ..job(Operation::Read) });
        let start = Instant::now();
        assert!(books.record(start, start));
        assert!(!books.record(start, start + Duration::from_secs(3601)));
    }
}
