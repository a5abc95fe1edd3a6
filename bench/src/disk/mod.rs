//! `annulus-bench disk`: what a disk gives to each engine, by depth and by block size.
//!
//! Called from the command line. The page reads as the run goes: settings, file, sweep, report.
//! Invariant: the only file that is written is one that this program has made, and it is removed.

mod annulus;
pub(crate) mod file;
pub(crate) mod fio;
pub(crate) mod job;
mod report;
#[cfg(feature = "peers")]
mod tokio;

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::Args;

use self::file::TestFile;
use self::job::{Job, Operation, Runner};
use self::report::Line;
use crate::compare::contender::{Engine, installed};
use crate::environment::Environment;
use crate::failure::Failure;
use crate::load::Outcome;
use crate::{affinity, compare, peers, say};

/// What offsets and lengths of every disk are multiples of.
const ALIGNMENT_BYTES: u64 = 4096;
/// Most operations under way at a time.
const DEPTH_MAX: usize = 1024;
/// Most bytes under way at a time.
const UNDER_WAY_BYTES_MAX: u64 = 1 << 30;
/// Before each window of a random job.
const WARMUP: Duration = Duration::from_millis(100);

/// Flags of `annulus-bench disk`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A directory on the disk: a file is made there, and removed at the end.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// The file to make, instead of one in `--dir`. There must be none by that name.
    #[arg(long, conflicts_with = "dir")]
    file: Option<PathBuf>,
    /// Its size: bytes, or with k, m, g.
    #[arg(long, default_value = "1g", value_parser = parse_bytes)]
    size: u64,
    /// Engines of annulus.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "uring,epoll,threads")]
    engines: Vec<Engine>,
    /// What to do; everything by default.
    #[arg(long, value_enum, value_delimiter = ',')]
    operations: Vec<Operation>,
    /// Operations under way at a time.
    #[arg(long, value_delimiter = ',', default_value = "1,4,32,128")]
    depths: Vec<usize>,
    /// Bytes of one operation: multiples of 4096, or with k, m.
    #[arg(long, value_delimiter = ',', default_value = "4k,16k,64k,1m", value_parser = parse_bytes)]
    blocks: Vec<u64>,
    /// Through the page cache, which is emptied of the file before each window.
    #[arg(long)]
    buffered: bool,
    /// Make every write durable before the next of its line begins.
    #[arg(long)]
    sync: bool,
    /// Seconds measured of each; what goes through the file in order may end before.
    #[arg(long, default_value_t = 0.25)]
    window: f64,
    /// fio and tokio as well, as far as installed and built in.
    #[arg(long)]
    peers: bool,
    /// Core to stay on; by default the last that this program may use.
    #[arg(long)]
    cpu: Option<usize>,
    /// Print the table in Markdown.
    #[arg(long)]
    markdown: bool,
    /// Where the run's directory is made.
    #[arg(long, default_value = "bench/runs")]
    output: PathBuf,
    /// The end of the run's directory name, after the date.
    #[arg(long, default_value = "disk")]
    name: String,
}

/// Measures, prints the table and writes it down.
pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    arguments.check()?;
    let core = arguments.core()?;
    let stop = compare::stop_on_signals()?;
    let environment = Environment::read();
    let file = match &arguments.file {
        Some(path) => TestFile::at(path, arguments.size)?,
        None => TestFile::in_directory(&arguments.dir, arguments.size)?,
    };
    let mut sheet = report::sheet(environment, core, &arguments);
    sheet.introduce();
    let mut lines = Vec::new();
    let runners = arguments.runners();
    for (number, job) in arguments.jobs(&file).into_iter().enumerate() {
        let mut of_job = Vec::new();
        for turn in 0..runners.len() {
            // So that nobody always comes first.
            let place = (turn + number) % runners.len();
            let runner = runners[place];
            if stop.load(Ordering::Relaxed) {
                return Err(Failure::Failed("interrupted".into()));
            }
            if !job.direct {
                file.forget_cached()?;
            }
            match job.run(runner, &[core]) {
                Ok(outcome) => of_job.push((place, Line::new(&job, runner, &outcome))),
                Err(failure) => sheet.failures.push(format!("{}: {failure}", job.text())),
            }
        }
        of_job.sort_by_key(|(place, _)| *place);
        lines.extend(of_job.into_iter().map(|(_, line)| line));
    }
    drop(file);
    sheet.table = report::table(&lines);
    sheet.lines = lines.iter().map(|line| serde_json::json!(line)).collect();
    sheet.print(arguments.markdown);
    let path = sheet.write(&arguments.output, &arguments.name)?;
    say(format_args!("\nwritten to {}", path.display()));
    sheet.verdict()
}

impl Arguments {
    fn check(&self) -> Result<(), Failure> {
        for block in &self.blocks {
            if *block == 0 || !block.is_multiple_of(ALIGNMENT_BYTES) {
                let what = format!("--blocks {block}: give multiples of {ALIGNMENT_BYTES}");
                return Err(Failure::usage(what));
            }
            if *block > self.size {
                let what = format!("--blocks {block}: larger than the file, see --size");
                return Err(Failure::usage(what));
            }
        }
        if self.depths.iter().any(|depth| *depth == 0 || *depth > DEPTH_MAX) {
            return Err(Failure::usage(format!("--depths: give numbers from 1 to {DEPTH_MAX}")));
        }
        let deepest = self.depths.iter().max().copied().unwrap_or(0) as u64;
        let largest = self.blocks.iter().max().copied().unwrap_or(0);
        if deepest.saturating_mul(largest) > UNDER_WAY_BYTES_MAX {
            return Err(Failure::usage(format!(
                "{deepest} blocks of {largest} bytes are more than {} MiB at a time: lower \
                 --depths or --blocks",
                UNDER_WAY_BYTES_MAX >> 20
            )));
        }
        if Duration::try_from_secs_f64(self.window).ok().is_none_or(|window| window.is_zero()) {
            return Err(Failure::usage("--window must be a number of seconds above zero"));
        }
        compare::check_name(&self.name)
    }

    fn core(&self) -> Result<usize, Failure> {
        let allowed = affinity::allowed_cores()?;
        match self.cpu {
            Some(core) if allowed.contains(&core) => Ok(core),
            Some(core) => Err(Failure::usage(format!("--cpu {core}: give one of {allowed:?}"))),
            None => allowed.last().copied().ok_or_else(|| Failure::Failed("no core".into())),
        }
    }

    /// Everybody who takes part, as far as installed and built in; says who is not.
    fn runners(&self) -> Vec<Runner> {
        let mut all: Vec<Runner> = self.engines.iter().copied().map(Runner::Annulus).collect();
        if self.peers {
            if installed(fio::PROGRAM) {
                all.push(Runner::Fio);
            } else {
                eprintln!("without {}: not found in PATH", fio::PROGRAM);
            }
            if peers::BUILT_IN {
                all.push(Runner::Tokio);
            } else {
                eprintln!("without tokio: add `--features peers`");
            }
        }
        all
    }

    fn jobs(&self, file: &TestFile) -> Vec<Job> {
        let all = if self.operations.is_empty() { &Operation::ALL[..] } else { &self.operations };
        let mut jobs = Vec::new();
        for operation in all.iter().copied() {
            for block_bytes in &self.blocks {
                for depth in &self.depths {
                    jobs.push(Job {
                        operation,
                        block_bytes: *block_bytes as usize,
                        depth: *depth,
                        path: file.path().to_owned(),
                        file_bytes: file.bytes(),
                        direct: !self.buffered,
                        durable: self.sync && operation.is_write(),
                        warmup: WARMUP,
                        limit: Some(Duration::from_secs_f64(self.window)),
                    });
                }
            }
        }
        jobs
    }
}

/// A count of bytes: digits, and k, m or g for powers of 1024.
fn parse_bytes(text: &str) -> Result<u64, String> {
    let lower = text.to_ascii_lowercase();
    let (digits, shift) = match lower.strip_suffix(['k', 'm', 'g']) {
        Some(digits) if lower.ends_with('k') => (digits, 10),
        Some(digits) if lower.ends_with('m') => (digits, 20),
        Some(digits) => (digits, 30),
        None => (&*lower, 0),
    };
    let number = digits.parse::<u64>().ok();
    number
        .and_then(|number| number.checked_mul(1 << shift))
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| "give a number of bytes, such as 4096, 64k, 1m or 1g".into())
}

/// A job on tokio, if it is built in.
#[cfg(feature = "peers")]
fn tokio_job(job: &Job) -> Result<Outcome, Failure> {
    tokio::run(job)
}

#[cfg(not(feature = "peers"))]
fn tokio_job(_: &Job) -> Result<Outcome, Failure> {
    Err(Failure::usage("not built in; build with `--features peers`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_powers_of_1024() {
        assert_eq!(parse_bytes("4096"), Ok(4096));
        assert_eq!(parse_bytes("4k"), Ok(4096));
        assert_eq!(parse_bytes("2M"), Ok(2 << 20));
        assert_eq!(parse_bytes("1g"), Ok(1 << 30));
        for text in ["", "0", "k", "4kb", "-1", "1.5m", "99999999999g"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }
}
